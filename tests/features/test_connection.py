"""Redis with TLS and a user of its own, by the URL alone. A proxy ends TLS: the server that comes with pip has none."""

import select
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Permanent, Unavailable
from tidemill.features.connection import Fetcher, connect
from tidemill.features.layout import Layout
from tidemill.features.online import Filling, OnlineReader, OnlineRows, Status

pytestmark = pytest.mark.redis

LAYOUT = Layout((("x", "float"),))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of 127.0.0.1 in one file, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), SystemClock().now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls_port(certificate: Path, redis_url: str) -> Iterator[int]:
    """A port that speaks TLS and passes everything on to Redis."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = socket.create_server(("127.0.0.1", 0))
    address = urlsplit(redis_url)
    threads: list[Thread] = []

    def accept() -> None:
        while True:
            try:
                plain, _ = server.accept()
            except OSError:  # closed: the test is over
                return
            threads.append(Thread(target=_pass_on, args=(context, plain, (address.hostname, address.port))))
            threads[-1].start()

    listening = Thread(target=accept)
    listening.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in [listening, *threads]:
        thread.join(10)


def _pass_on(context: ssl.SSLContext, plain: socket.socket, address: Any) -> None:
    try:
        with context.wrap_socket(plain, server_side=True) as near, socket.create_connection(address) as far:
            while True:
                ready = [near] if near.pending() else select.select([near, far], [], [])[0]
                for one in ready:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    (far if one is near else near).sendall(data)
    except OSError:  # a client that does not trust us, or is gone
        plain.close()


@pytest.fixture
def user(redis_url: str, topic_prefix: str) -> Iterator[str]:
    """USER:PASSWORD of a user that may use this test's keys alone."""
    client = redis.Redis.from_url(redis_url)
    client.acl_setuser(
        topic_prefix, enabled=True, passwords=["+secret"], keys=[f"{{{topic_prefix}:*"], categories=["+@all"]
    )
    yield f"{topic_prefix}:secret"
    client.acl_deluser(topic_prefix)
    client.close()


def test_rows_are_written_and_read_through_tls_by_a_user_with_a_password(
    tls_port: int, certificate: Path, user: str, topic_prefix: str
) -> None:
    url = f"rediss://{user}@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}"
    rows, reader = OnlineRows(url, topic_prefix, LAYOUT), OnlineReader(url, topic_prefix)
    rows.rebuild(lambda: Filling({}, ()))
    at = pl.lit(SystemClock().now()).cast(pl.Datetime("us", "UTC"))
    event = pl.DataFrame({"entity": ["a"], "source": ["s"], "offset": [1], "x": [2.5]})
    rows.apply(event.with_columns(event_time=at, available_at=at))
    (found,) = reader.read(["a"])
    assert (found.status, found.values) == (Status.PRESENT, {"x": 2.5})
    with pytest.raises(Permanent, match="Redis refuses this user"):
        OnlineReader(url, "of-another-model").read(["a"])
    for one in (rows, reader):
        one.close()


def test_a_server_whose_certificate_is_not_known_is_not_trusted(tls_port: int, topic_prefix: str) -> None:
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        OnlineReader(f"rediss://127.0.0.1:{tls_port}/0", topic_prefix).read(["a"])


@pytest.fixture
def stored(redis_url: str, topic_prefix: str) -> Iterator[list[str]]:
    """Keys whose values are their own names."""
    client, keys = redis.Redis.from_url(redis_url), [f"{topic_prefix}:{number}" for number in range(50)]
    client.mset({key: key for key in keys})
    yield keys
    client.delete(*keys)
    client.close()


def test_a_connection_that_was_closed_while_it_was_idle_is_opened_anew(redis_url: str, stored: list[str]) -> None:
    client = connect(redis_url, 5.0, "key")
    fetch = Fetcher(client)
    assert fetch(stored[:2]) == [key.encode() for key in stored[:2]]
    killer = redis.Redis.from_url(redis_url)
    (number,) = fetch._idle
    killer.client_kill_filter(_id=str(_id_of(number)))
    assert fetch([stored[3], "nothing"]) == [stored[3].encode(), None]
    assert len(fetch._idle) == 1
    for one in (client, killer):
        one.close()


def test_threads_get_each_its_own_answers(redis_url: str, stored: list[str]) -> None:
    client = connect(redis_url, 5.0, "key")
    fetch = Fetcher(client)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: fetch([stored[number % 50]]), range(2000)))
    assert found == [[stored[number % 50].encode()] for number in range(2000)]
    assert len(fetch._idle) <= 8
    client.close()


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(redis_url: str, stored: list[str]) -> None:
    client, other = connect(redis_url, 0.2, "key"), redis.Redis.from_url(redis_url)
    fetch = Fetcher(client)
    fetch(stored[:1])
    other.client_pause(600)
    with pytest.raises(Unavailable):
        fetch(stored[1:2])
    other.client_unpause()
    assert fetch(stored[2:3]) == [stored[2].encode()]
    for one in (client, other):
        one.close()


def test_a_fork_does_not_use_the_connections_of_its_parent(
    redis_url: str, stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(redis_url, 5.0, "key")
    fetch = Fetcher(client)
    fetch(stored[:1])
    (mine,) = fetch._idle
    monkeypatch.setattr("tidemill.features.connection.os.getpid", lambda: -1)
    assert fetch(stored[1:2]) == [stored[1].encode()]
    assert mine not in fetch._idle
    client.close()


def _id_of(connection: Any) -> int:
    connection.send_command("CLIENT", "ID")
    return int(connection.read_response())

"""Bodies and headers within limits: of size, of time, and of all that is in hand."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from tidemill.serving import patience
from tidemill.serving.intake import Intake, Refusal
from tidemill.serving.patience import PatientProtocol
from tidemill.stack.ports import bound, free_ports
from tidemill.testing import eventually


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


async def taken(intake: Intake, *parts: bytes, **headers: str) -> bytes:
    """The body that came in parts; after the last one nothing comes any more."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if messages:
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async with intake.body(scope(**headers), receive) as body:
        return body


def refused(intake: Intake, *parts: bytes, **headers: str) -> int:
    with pytest.raises(Refusal) as caught:
        asyncio.run(taken(intake, *parts, **headers))
    return caught.value.status


def made(**changes: Any) -> Intake:
    return Intake(**({"limit": 10, "total": 15, "patience_s": 0.05} | changes))


def test_a_body_is_its_parts() -> None:
    assert asyncio.run(taken(made(), b"ab", b"", b"cd")) == b"abcd"


def test_a_body_that_is_too_large_is_refused_announced_or_not() -> None:
    assert refused(made(), content_length="11") == 413
    assert refused(made(), b"123456", b"78901") == 413


def test_a_body_that_does_not_come_is_given_up() -> None:
    assert refused(made()) == 408


def test_a_compressed_body_is_refused() -> None:
    assert refused(made(), b"x", content_encoding="gzip") == 415


def test_all_bodies_in_hand_have_a_limit_and_give_their_room_back() -> None:
    intake = made()

    async def several() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"12345678", "more_body": False}

        async with intake.body(scope(), receive):
            with pytest.raises(Refusal) as caught:
                await taken(intake, b"12345678")
            assert caught.value.status == 503
            assert await taken(intake, b"1234567") == b"1234567"
        assert await taken(intake, b"12345678") == b"12345678"

    asyncio.run(several())


def test_a_body_that_is_cut_off_leaves_nothing_in_hand() -> None:
    intake = made()

    async def cut() -> None:
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"12345678", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        with pytest.raises(Refusal):
            async with intake.body(scope(), receive):
                pass

    asyncio.run(cut())
    assert asyncio.run(taken(intake, b"12345678")) == b"12345678"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that waits for headers 0.3 s, and answers everything with 200."""
    monkeypatch.setattr(patience, "HEADERS_S", 0.3)

    async def app(kind: dict[str, Any], receive: Any, send: Any) -> None:
        if kind["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    with serving(app) as found:
        yield found


@contextmanager
def serving(app: Any) -> Iterator[int]:
    (number,) = free_ports(1)
    config = uvicorn.Config(app, http=PatientProtocol, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with bound("127.0.0.1", number) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started)
        yield number
        server.should_exit = True
        thread.join(10)


def told(port: int, *sent: bytes) -> tuple[int, str]:
    """Status and error of what is answered at the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for part in sent:
            client.sendall(part)
            if part is not sent[-1]:
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
        answer = b""
        while more := client.recv(4096):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize("sent", [(b"",), (b"GET / HTTP/1.1\r\nhos",), (REQUEST, b"GET / H"), (REQUEST, b"\r\n")])
def test_headers_that_do_not_come_end_the_connection(port: int, sent: tuple[bytes, ...]) -> None:
    assert told(port, *sent) == (408, "no headers within 0.3 s")


def test_headers_that_are_too_long_end_it_too(port: int) -> None:
    status, error = told(port, b"GET / HTTP/1.1\r\nx: " + b"x" * (80 << 10))
    assert (status, error) == (431, "headers of more than 64 KiB")


def test_a_connection_between_requests_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for _ in range(2):
            client.sendall(REQUEST)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            threading.Event().wait(0.5)  # longer than headers may take

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ArrowCapacityError, fs

from tidemill.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from tidemill.events import pictures
from tidemill.events.pictures import DIGEST_COLUMN, PictureStore, fetch_picture

DAY = date(2026, 11, 25)


@pytest.fixture(params=["folder", "s3://bucket/lake/m.pictures"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PictureStore:
    """A store in a folder, and one that speaks to an object store's interface (below which there is a folder)."""
    if request.param == "folder":
        return PictureStore(str(tmp_path))
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    objects = _Objects(below)
    monkeypatch.setattr(pictures, "_filesystem", lambda uri: (objects, uri.partition("://")[2]))
    return PictureStore(request.param)


class _Objects:
    """As an object store: no folder needs to be made before a file."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def open_output_stream(self, path: str) -> Any:
        self._inner.create_dir(path.rpartition("/")[0], recursive=True)
        return self._inner.open_output_stream(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_what_was_put_is_got_under_its_sha_256_however_often_it_is_put(store: PictureStore) -> None:
    digests = {store.put(b"picture", DAY) for _ in range(3)}
    assert digests == {sha256(b"picture").hexdigest()}
    assert store.get(digests.pop(), DAY) == b"picture"


def test_a_file_that_is_not_there_is_not_found(store: PictureStore) -> None:
    digest = store.put(b"picture", DAY)
    with pytest.raises(NotFound, match="2026-11-24"):
        store.get(digest, DAY - timedelta(days=1))


def test_a_file_that_was_changed_is_corrupt(store: PictureStore, tmp_path: Path) -> None:
    digest = store.put(b"picture", DAY)
    (file,) = (one for one in tmp_path.rglob("*") if one.is_file())
    file.write_bytes(b"another")
    with pytest.raises(Corrupt, match="not the file that was written"):
        store.get(digest, DAY)


def test_a_sweep_takes_whole_days_and_nothing_else(store: PictureStore, tmp_path: Path) -> None:
    assert store.sweep(DAY) == 0
    days = [DAY - timedelta(days=age) for age in range(4)]
    digests = {day: store.put(b"the same on each day", day) for day in days}
    store.put(b"another", days[3])
    assert store.sweep(days[1]) == 2
    assert [store.get(digests[day], day) for day in days[:2]] == [b"the same on each day"] * 2
    for day in days[2:]:
        with pytest.raises(NotFound):
            store.get(digests[day], day)


def test_a_sweep_leaves_what_is_not_a_day(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert PictureStore(str(tmp_path)).sweep(DAY) == 0
    assert (tmp_path / "notes").is_dir()


def test_the_same_picture_put_by_many_at_once_is_one_file(tmp_path: Path) -> None:
    store = PictureStore(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: store.put(b"x" * 100_000, DAY), range(64)))
    assert len(digests) == 1
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == list(digests)


def test_a_store_that_cannot_be_written_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="pictures at"):
        PictureStore(str(tmp_path / "file")).put(b"picture", DAY)


def test_a_store_whose_bucket_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def open_output_stream(self, path: str) -> Any:
            raise FileNotFoundError("no bucket")

        def get_file_info(self, selector: Any) -> Any:
            raise FileNotFoundError("no bucket")

    monkeypatch.setattr(pictures, "_filesystem", lambda uri: (Missing(), "bucket"))
    with pytest.raises(Unavailable, match="no bucket"):
        PictureStore("s3://bucket").put(b"picture", DAY)
    with pytest.raises(Unavailable, match="no bucket"):
        PictureStore("s3://bucket").sweep(DAY)


def test_a_lake_of_a_file_uri_has_its_pictures_in_the_folder(tmp_path: Path) -> None:
    store = PictureStore(f"file://{quote(str(tmp_path / 'my lake'))}")
    digest = store.put(b"picture", DAY)
    assert PictureStore(str(tmp_path / "my lake")).get(digest, DAY) == b"picture"
    assert store.sweep(DAY + timedelta(days=1)) == 1


def test_a_lake_of_an_unknown_kind_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="cannot be kept at dbfs://"):
        PictureStore("dbfs://lake/m.pictures")


def test_rows_are_filled_from_the_store_where_they_have_a_digest(store: PictureStore) -> None:
    digest = store.put(b"large", DAY)
    rows = pl.DataFrame(
        {"event_date": [DAY] * 3, "image": [b"small", None, None], DIGEST_COLUMN: [None, digest, None]},
        schema={"event_date": pl.Date(), "image": pl.Binary(), DIGEST_COLUMN: pl.String()},
    )
    found = store.fill(rows, "image")
    assert found.columns == ["event_date", "image"]
    assert found["image"].to_list() == [b"small", b"large", None]


@pytest.fixture
def allowed(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A folder of pictures, and the prefix that allows it; beside it lies what must not be read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder, (f"file://{folder}/",)


def test_an_allowed_uri_is_read(allowed: tuple[Path, tuple[str, ...]]) -> None:
    folder, prefixes = allowed
    assert fetch_picture(f"file://{folder}/a.png", prefixes) == b"picture"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../secret", "a part that is empty"),
        ("x/../../secret", "a part that is empty"),
        ("./a.png", "a part that is empty"),
        ("/a.png", "a part that is empty"),
        ("", "a part that is empty"),
        ("%2e%2e/secret", "escaped"),
        ("a.png?x=1", "with a query"),
        ("a.png#x", "with a query"),
        ("a\x00.png", "a part that is empty"),
        ("a" * 256, "too long"),
        ("a/" * 512 + "b", "too long"),
        ("..\\secret", "a part that is empty"),
        ("missing.png", "no such file"),
        ("a.png/b", "cannot be read"),
        ("link", "leads out"),
        ("folder", "no regular file"),
        ("large", "more than 100 bytes"),
    ],
)
def test_a_uri_that_is_not_to_be_read_is_refused_in_words(
    allowed: tuple[Path, tuple[str, ...]], name: str, said: str
) -> None:
    folder, prefixes = allowed
    (folder / "link").symlink_to("../secret")
    (folder / "folder").mkdir()
    (folder / "large").write_bytes(b"x" * 101)
    with pytest.raises(InvalidInput, match=said):
        fetch_picture(f"{prefixes[0]}{name}", prefixes, max_bytes=100)


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "s3://other/a.png", "http://x/a.png", "FILE:///x"])
def test_a_uri_outside_the_prefixes_is_refused(allowed: tuple[Path, tuple[str, ...]], uri: str) -> None:
    with pytest.raises(InvalidInput, match="none of the allowed prefixes"):
        fetch_picture(uri, allowed[1])


@given(st.text(alphabet="ab./\\%2e:\x00", max_size=12))
def test_no_name_leads_out_of_the_prefix(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "inside"
    folder.mkdir(exist_ok=True)
    (folder.parent / "a").write_bytes(b"secret")
    with pytest.raises(InvalidInput):
        fetch_picture(f"file://{folder}/{name}", (f"file://{folder}/",))


def test_a_folder_that_is_not_mounted_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not there"):
        fetch_picture(f"file://{tmp_path}/nowhere/a.png", (f"file://{tmp_path}/nowhere/",))


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError("no key"), InvalidInput),
        (OSError("AWS Error ACCESS_DENIED"), InvalidInput),
        (OSError("AWS Error NO_SUCH_KEY"), InvalidInput),
        (OSError("AWS Error [code 133] during GetObject operation"), InvalidInput),
        (OSError("AWS Error UNKNOWN (HTTP status 410)"), InvalidInput),
        (OSError("google::cloud::Status(PERMISSION_DENIED: no)"), InvalidInput),
        (OSError("AWS Error NETWORK_CONNECTION"), Unavailable),
        (OSError("AWS Error SIGNATURE_DOES_NOT_MATCH"), Unavailable),
        (OSError("AWS Error UNKNOWN (HTTP status 408)"), Unavailable),
        (OSError("AWS Error UNKNOWN (HTTP status 429)"), Unavailable),
        (OSError("AWS Error UNKNOWN (HTTP status 503)"), Unavailable),
        (ArrowCapacityError("google::cloud::Status(RESOURCE_EXHAUSTED: slower)"), Unavailable),
        (TimeoutError("no answer"), Unavailable),
        (ValueError("no bucket"), InvalidInput),
    ],
)
def test_what_an_object_store_says_is_either_the_rows_fault_or_waited_for(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    class Failing:
        def open_input_stream(self, path: str) -> Any:
            raise raised

    monkeypatch.setattr(pictures, "_filesystem", lambda uri: (Failing(), "bucket/a.png"))
    with pytest.raises(expected):
        fetch_picture("s3://bucket/a.png", ("s3://bucket/",))


class _Answers(BaseHTTPRequestHandler):
    """An object store that knows one object, which it does not give: its name says with which status and code."""

    def do_HEAD(self) -> None:
        self._answer(200 if "archived" in self.path else 403 if "denied" in self.path else 503, b"x" * 1000)

    def do_GET(self) -> None:
        self._answer(403, b"<Error><Code>InvalidObjectState</Code><Message>archived</Message></Error>")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(pictures, "_systems", {})
    named = {"ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in {**named, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/archived", InvalidInput),
        ("s3a://bucket/denied", InvalidInput),
        ("s3://bucket/busy", Unavailable),
    ],
)
def test_a_refusal_for_good_is_told_from_a_store_that_is_down(s3: None, uri: str, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        fetch_picture(uri, ("s3://bucket/", "s3a://bucket/"))

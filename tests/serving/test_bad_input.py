"""Whatever is sent: a 4xx in the protocol's form, and a server that answers the next request."""

import json
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import hypothesis
import pytest
from tests.serving.served import Server, columns

from tidemill.testing.serving import instance

SETTINGS = hypothesis.settings(
    max_examples=60, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.fixture(autouse=True)
def still_answers(alone: Server) -> Iterator[None]:
    """The server lives, and has not been changed by what was sent."""
    yield
    assert alone.predict(instance()).status_code == 200, alone.log.read_text()
    assert alone.http.get("/v2/models").json() == {"models": [alone.name]}


def said(server: Server, path: str, content: bytes, **headers: str) -> str:
    """The error of a request that is refused."""
    told = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = server.http.post(path, content=content, headers=told)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert list(answer.json()) == ["error"]
    return str(error)


def with_input(name: str, **changes: Any) -> bytes:
    """A V2 request in which one input is changed."""
    body = columns(instance())
    for one in body["inputs"]:
        if one["name"] == name:
            one.update(changes)
    return json.dumps(body).encode()


def v1(**changes: Any) -> bytes:
    return json.dumps({"instances": [instance(**changes)]}).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (v1(exposure_ms=float("nan")), "no JSON"),
        (v1().replace(b"4.0", b"1e999"), "row 0, field exposure_ms"),
        (v1().replace(b"4.0", b"1" * 5000), "row 0, field exposure_ms"),
        (v1(exposure_ms=-1), "row 0, field exposure_ms: -1 is below 0"),
        (v1(shift="late"), "row 0, field shift"),
        (v1(station=""), "row 0, field station"),
        (v1(station="A" * 100_000), "row 0, field station"),
        (v1().replace(b'"A"', b'"\\ud800"'), "no JSON"),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "row 0: Expected `object`"),
        (json.dumps({"instances": [instance()] * 1001}).encode(), "at most 1000 are taken"),
        (b'{"instances": []}', "at least one row"),
        (b"<rows/>", "no JSON"),
        (b"\x81\xa9instances\x90", "no JSON"),
    ],
)
def test_v1_bodies_that_do_not_fit(alone: Server, content: bytes, words: str) -> None:
    assert words in said(alone, f"/v1/models/{alone.name}:predict", content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_input("exposure_ms", data=[float("nan")]), "no JSON"),
        (with_input("exposure_ms", datatype="INT64", data=[4.7]), "input exposure_ms, INT64: data[0]"),
        (with_input("exposure_ms", datatype="BYTES", data=["4"]), "row 0, field exposure_ms"),
        (with_input("station", datatype="FP64", data=[4.0]), "row 0, field station"),
        (with_input("exposure_ms", shape=[10**12]), "1000000000000 rows in one request; at most 1000"),
        (with_input("exposure_ms", shape=[2**63]), "inputs[3].shape[0]"),
        (with_input("exposure_ms", data=[1.0] * 1001, shape=[1001]), "1001 rows in one request"),
        (with_input("exposure_ms", data={"a": 1}), "input exposure_ms, FP64: data"),
        (with_input("image", data=["%%%"]), "row 0, field image: Invalid base64"),
        (with_input("exposure_ms", parameters={"binary_data_size": 10**15}), "input exposure_ms: needs data, or else"),
        (json.dumps(columns(instance()) | {"id": "x" * 513}).encode(), "id: Expected `str` of length <= 512"),
        (json.dumps(columns(instance()) | {"outputs": [{"name": "none"}]}).encode(), "there is no output 'none'"),
    ],
)
def test_v2_bodies_that_do_not_fit(alone: Server, content: bytes, words: str) -> None:
    assert words in said(alone, f"/v2/models/{alone.name}/infer", content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1.0])
def test_numbers_that_json_does_not_have_are_refused_in_binary(alone: Server, value: float) -> None:
    body = columns(instance())
    body["inputs"][3] |= {"data": None, "parameters": {"binary_data_size": 8}}
    head = json.dumps(body).encode()
    content = head + struct.pack("<d", value)
    path = f"/v2/models/{alone.name}/infer"
    assert "row 0, field exposure_ms" in said(alone, path, content, inference_header_content_length=str(len(head)))
    for lie in ("-1", "x", "0", str(len(head) - 1), str(len(head) + 1), str(10**20)):
        assert said(alone, path, content, inference_header_content_length=lie)


def test_an_entity_that_nobody_has_seen_is_answered(alone: Server) -> None:
    assert alone.predict(instance(station="never seen \x00 before")).status_code == 200


def test_other_methods_paths_and_encodings_are_refused_in_the_same_form(alone: Server) -> None:
    v1_path, v2_path = f"/v1/models/{alone.name}:predict", f"/v2/models/{alone.name}/infer"
    for method, path, status in (
        ("GET", v1_path, 405),
        ("DELETE", v2_path, 405),
        ("PUT", "/v2/health/ready", 405),
        ("POST", "/v1/models/other:predict", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", f"/v1/models/{alone.name}:explain", 404),
        ("POST", f"/v2/repository/models/{alone.name}/unload", 404),
        # What is behind takes the end of a line for the end of the path.
        ("POST", f"/v2/repository/models/{alone.name}/unload%0A", 404),
        ("POST", f"/v2/models/{alone.name}/infer%0A", 404),
        ("GET", "/docs", 404),
    ):
        answer = alone.http.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), path
    assert "compressed" in said(alone, v1_path, b"\x1f\x8b", content_encoding="gzip")
    assert "x-request-id" in said(alone, v1_path, v1(), x_request_id="x" * 513)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /v1/models/%ff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * (100 << 10),
    ],
)
def test_what_is_hardly_http_is_refused(alone: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", alone.port), timeout=10) as client:
        client.sendall(sent)
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
        body = body or client.recv(65536)
    assert head.startswith(b"HTTP/1.1 4")
    assert "error" in json.loads(body)


def test_many_clients_that_say_little_hold_up_nobody(alone: Server) -> None:
    with ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", alone.port), timeout=10))
            started = f"POST /v1/models/{alone.name}:predict HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{{"
            client.sendall(started.encode()[: number or None])
        for _ in range(10):
            assert alone.predict(instance()).elapsed.total_seconds() < 1


def test_its_openapi_names_the_models_fields(alone: Server) -> None:
    document = alone.http.get("/openapi.json").json()
    row = document["components"]["schemas"]["Row"]
    assert row["required"] == ["station", "image", "exposure_ms"]
    assert set(row["properties"]) == {"station", "event_id", "image", "exposure_ms", "shift", "note", "flash"}
    assert not any("/repository/" in path or "explain" in path for path in document["paths"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_nothing_that_its_openapi_allows_or_forbids_is_a_5xx(alone: Server, mode: str) -> None:
    """Requests made from the document: such as fit it, and such as do not."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode

    schema: Any = schemathesis.openapi.from_dict(alone.http.get("/openapi.json").json())
    schema.config.update(base_url=str(alone.http.base_url))
    statuses: Counter[int] = Counter()

    def answered(case: Any) -> None:
        response = case.call(timeout=10)
        case.validate_response(response, checks=[not_a_server_error])
        statuses[response.status_code] += 1
        assert response.status_code < 400 or list(response.json()) == ["error"]

    for found in schema.get_all_operations():
        cases = found.ok().as_strategy(generation_mode=GenerationMode(mode))
        with suppress(hypothesis.errors.Unsatisfiable):  # nothing of this operation can be wrong
            SETTINGS(hypothesis.given(case=cases)(answered))()
    assert statuses[200 if mode == "positive" else 400] > 5, statuses
    assert sum(statuses.values()) > 50, statuses

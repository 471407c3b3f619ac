"""`serve` as a process of its own: KServe's V1 and V2, its errors, its log, its end."""

import base64
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from tests.serving.served import Server, columns, in_binary, started

from tidemill.core.clock import SystemClock
from tidemill.events.kafka import RecordReader, ensure_topics
from tidemill.events.records import Prediction
from tidemill.features.images import statistics
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineRows
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.serving import instance, make_version, picture, served_resource


def dark() -> str:
    return base64.b64encode(picture(20)).decode()


def test_v1_answers_each_row_with_its_id_and_version(alone: Server) -> None:
    answer = alone.predict(instance(), instance(image=dark()))
    assert answer.status_code == 200, answer.text + alone.log.read_text()
    found = answer.json()["predictions"]
    assert [(one["class"], one["version"], one["box"]) for one in found] == [
        ("scratch", "v1", [1.0, 2.0, 3.0, 4.0]),
        ("ok", "v1", None),
    ]
    assert found[0]["confidence"] == pytest.approx(200 / 255, abs=1e-3)
    assert len({one["prediction_id"] for one in found}) == 2
    assert found[0]["prediction_id"][14] == "7"  # UUIDv7


def test_v1_takes_json_under_other_content_types(alone: Server) -> None:
    body = json.dumps({"instances": [instance()]})
    path = f"/v1/models/{alone.name}:predict"
    for content_type in ("application/json; charset=utf-8", "text/plain"):
        answer = alone.http.post(path, content=body, headers={"content-type": content_type})
        assert answer.status_code == 200


def test_v2_answers_in_tensors(alone: Server) -> None:
    answer = alone.infer(columns(instance(), instance(image=dark())) | {"id": "r-1"}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r-1", alone.name, "v1")
    found = {one["name"]: one for one in answer["outputs"]}
    assert found["class"]["data"] == ["scratch", "ok"]
    assert found["version"]["data"] == ["v1", "v1"]
    assert found["confidence"]["data"][0] == pytest.approx(200 / 255, abs=1e-3)
    assert found["box"]["shape"] == [2, 4]
    assert found["box"]["data"] == [1.0, 2.0, 3.0, 4.0, -1.0, -1.0, -1.0, -1.0]
    assert len(set(found["prediction_id"]["data"])) == 2


def test_v2_takes_and_gives_binary_tensors(alone: Server) -> None:
    answer = in_binary(alone, base64.b64encode(picture()))
    assert answer.status_code == 200
    json_length = int(answer.headers["inference-header-content-length"])
    assert [one["name"] for one in json.loads(answer.content[:json_length])["outputs"]][2] == "class"
    assert b"scratch" in answer.content[json_length:]


def test_a_picture_in_a_binary_tensor_may_be_the_file_itself(alone: Server) -> None:
    answer = in_binary(alone, picture())
    assert answer.status_code == 200, answer.text
    refused = in_binary(alone, b"\x00no picture")
    assert (refused.status_code, "row 0, field image" in refused.json()["error"]) == (400, True)


def test_v2_tells_what_the_model_takes_and_gives(alone: Server) -> None:
    for path in (f"/v2/models/{alone.name}", f"/v2/models/{alone.name}/versions/v1"):
        told = alone.http.get(path).json()
        assert (told["name"], told["versions"], told["platform"]) == (alone.name, ["v1"], "onnx_onnxv1")
        assert {one["name"]: (one["datatype"], one["shape"]) for one in told["inputs"]} == {
            "station": ("BYTES", [-1]),
            "event_id": ("BYTES", [-1]),
            "image": ("BYTES", [-1]),
            "exposure_ms": ("FP64", [-1]),
            "shift": ("INT64", [-1]),
            "note": ("BYTES", [-1]),
            "flash": ("BOOL", [-1]),
        }
        assert {one["name"]: (one["datatype"], one["shape"]) for one in told["outputs"]} == {
            "prediction_id": ("BYTES", [-1]),
            "version": ("BYTES", [-1]),
            "class": ("BYTES", [-1]),
            "confidence": ("FP64", [-1]),
            "box": ("FP64", [-1, 4]),
        }
    assert alone.http.get("/v2").json()["extensions"] == ["binary_tensor_data"]


def test_v2_by_version_is_this_version_alone(alone: Server) -> None:
    path = f"/v2/models/{alone.name}/versions"
    assert alone.http.post(f"{path}/v1/infer", json=columns(instance())).status_code == 200
    assert alone.http.get(f"{path}/v1/ready").json()["ready"] is True
    for method, rest in (("GET", "v2"), ("GET", "v2/ready"), ("POST", "v2/infer")):
        answer = alone.http.request(method, f"{path}/{rest}", json={})
        assert (answer.status_code, "there is v1" in answer.json()["error"]) == (404, True), rest


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (instance(image=None), "row 0, field image: is required"),
        (instance(exposure_ms="x"), "row 0, field exposure_ms: Expected `float`, got `str`"),
        (instance(image=base64.b64encode(b"no picture").decode()), "row 0, field image: no picture"),
        ("row", "row 0: Expected `object`, got `str`"),
    ],
)
def test_bad_rows_are_400_in_words(alone: Server, row: Any, said: str) -> None:
    answer = alone.predict(row)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_requests_that_are_none_are_400_in_words(alone: Server) -> None:
    v1, v2 = f"/v1/models/{alone.name}:predict", f"/v2/models/{alone.name}/infer"
    for path, content, said in (
        (v1, b"{", "is no JSON"),
        (v1, b"[1]", "must be an object"),
        (v1, b'{"rows": []}', '"instances"'),
        (v1, b"\xff\xfe", "is no JSON"),
        (v2, b"{}", "inputs"),
        (
            v2,
            b'{"inputs": [{"name": "station", "datatype": "WHAT", "shape": [1], "data": ["A"]}]}',
            "inputs[0].datatype",
        ),
        (v2, b'{"inputs": [{"name": "station", "datatype": "BYTES", "shape": [2], "data": ["A"]}]}', "input station"),
        (v2, b'{"inputs": [{"name": "other", "datatype": "BYTES", "shape": [1], "data": ["A"]}]}', "no inputs"),
    ):
        answer = alone.http.post(path, content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, said in answer.json()["error"]) == (400, True), (content, answer.text)


def test_a_request_that_is_too_large_is_413(alone: Server) -> None:
    path = f"/v1/models/{alone.name}:predict"
    large = b" " * (33 << 20)
    assert alone.http.post(path, content=large).status_code == 413

    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    with suppress(httpx.WriteError):  # it may hang up on what it will not read
        assert alone.http.post(path, content=in_parts()).status_code == 413
    assert alone.predict(instance()).status_code == 200


def test_another_model_is_404(alone: Server) -> None:
    answer = alone.http.post("/v1/models/other:predict", json={"instances": [instance()]})
    assert answer.status_code == 404
    assert "other" in answer.json()["error"]


def test_a_codec_that_raises_is_a_500_without_its_internals_and_the_server_lives(alone: Server) -> None:
    for _ in range(3):
        answer = alone.predict(instance(exposure_ms=13))
        assert answer.status_code == 500
        assert answer.json() == {"error": "the model could not answer; its log says why"}
    assert "secret internals of the codec" in alone.log.read_text()
    assert alone.predict(instance()).status_code == 200


def test_only_the_loopback_interface_is_listened_on(alone: Server) -> None:
    table = Path(f"/proc/{alone.process.pid}/net/tcp").read_text().splitlines()
    listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    port = f"{alone.port:04X}"
    assert [address for address in listening if address.endswith(port)] == [f"0100007F:{port}"]


def test_an_answer_costs_no_line_of_log(alone: Server) -> None:
    alone.predict(instance())
    eventually(lambda: "the prediction log waits for the broker" in alone.log.read_text(), 20)  # told once
    before = alone.log.read_text()
    for _ in range(5):
        assert alone.predict(instance()).status_code == 200
        assert alone.predict("row").status_code == 400
    added = alone.log.read_text()[len(before) :]
    assert added == ""


def test_metrics_tell_ours_and_kserves(alone: Server) -> None:
    alone.predict(instance())
    told = alone.http.get("/metrics").text
    for name in (
        'tidemill_predictions_total{version="v1"}',
        "tidemill_predict_seconds_bucket",
        'tidemill_feature_reads_total{status="UNAVAILABLE"}',
        "tidemill_predictions_queued",
        'tidemill_predict_requests_total{result="answered",version="v1"}',
        'tidemill_feature_null_values_total{feature="seen_10m"}',
        "tidemill_build_info",
        "request_predict_seconds_bucket",
    ):
        assert name in told


def test_many_requests_at_once_are_all_answered(alone: Server) -> None:
    def one(number: int) -> str:
        found = alone.predict(instance(event_id=str(number)), instance(image=dark())).json()
        return str(found["predictions"][0]["prediction_id"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(one, range(100)))
    assert len(set(ids)) == 100


def ends_with(server: Server) -> str:
    """What a server says that does not come up."""
    try:
        assert server.process.wait(60) == 1
        return server.log.read_text()
    finally:
        server.close()


def test_a_file_with_a_changed_byte_is_not_served(tmp_path: Path, code: Path, resource: ContinualModel) -> None:
    file = make_version(tmp_path, resource, "v1") / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    told = ends_with(started(tmp_path, code, resource))
    assert f"error: {file} is not the file that was written" in told


def test_another_version_than_the_one_asked_for_is_not_served(
    tmp_path: Path, code: Path, resource: ContinualModel
) -> None:
    make_version(tmp_path, resource, "v1")
    assert "holds version v1, not v2" in ends_with(started(tmp_path, code, resource, version="v2"))


def test_a_taken_port_is_told(tmp_path: Path, code: Path, resource: ContinualModel) -> None:
    make_version(tmp_path, resource, "v1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = ends_with(started(tmp_path, code, resource, port=port))
    assert f"error: port {port} of 127.0.0.1 cannot be had" in told


def test_a_codec_that_cannot_be_imported_is_told(tmp_path: Path, resource: ContinualModel) -> None:
    make_version(tmp_path, resource, "v1")
    assert "there is no module served_code" in ends_with(started(tmp_path, tmp_path, resource))


@pytest.mark.kafka
@pytest.mark.redis
def test_every_answer_is_in_the_log_with_the_features_it_used(
    tmp_path: Path, code: Path, kafka: str, redis_url: str, topic_prefix: str
) -> None:
    resource = served_resource(topic_prefix)
    topic = f"{resource.id}.predictions"
    ensure_topics(kafka, {topic: 1})
    make_version(tmp_path, resource, "v1")
    rows = OnlineRows(redis_url, resource.id, layout_of(resource))
    at = SystemClock().now() - timedelta(minutes=1)
    event = {"entity": "A", "source": "c/t/0", "offset": 41, "event_time": at, "available_at": at, "exposure_ms": 8.0}
    absent = {"shift": None, "note": None, "flash": None, "brightness": 0.6, "contrast": 0.2}
    kinds = {"shift": pl.Int64(), "note": pl.String(), "flash": pl.Boolean()}
    filled = pl.DataFrame([event | absent], schema_overrides=kinds)
    rows.rebuild(lambda: Filling({"c/t/0": 41}, [filled]))
    server = started(tmp_path, code, resource, kafka=kafka, redis=redis_url)
    try:
        eventually(server.is_ready, 60)
        before = round(SystemClock().now().timestamp() * 1000)
        answers = server.predict(
            instance(), instance(station="B", event_id=None), headers={"x-request-id": "r-7"}
        ).json()["predictions"]
        answers += [server.predict(instance(event_id=str(number))).json()["predictions"][0] for number in range(20)]
        with RecordReader(kafka, topic, Prediction) as reader:
            logged: list[Prediction] = []

            def has_logged(count: int) -> bool:
                logged.extend(one.record for one in reader.poll(timeout_s=0.2))
                return len(logged) >= count

            eventually(lambda: has_logged(22), 20)
            # Nothing of what is still to be written is lost at the end.
            answers += [server.predict(instance()).json()["predictions"][0] for _ in range(30)]
            assert server.end() == 0, server.log.read_text()
            eventually(lambda: has_logged(52), 20)
    finally:
        server.close()
        rows.close()
    assert [one.prediction_id for one in logged] == [one["prediction_id"] for one in answers]
    assert [one.seq for one in logged] == list(range(52))
    assert len({one.boot for one in logged}) == 1
    first, second = logged[:2]
    assert (first.entity, first.event_id, first.request_id, first.version) == ("A", "17", "r-7", "v1")
    assert (second.entity, second.event_id, second.request_id) == ("B", None, "r-7")
    assert first.time == second.time >= before
    assert first.output == {"class": "scratch", "confidence": answers[0]["confidence"], "box": [1.0, 2.0, 3.0, 4.0]}
    measured = statistics(picture(), ["brightness", "contrast"])
    assert first.features == measured | {"seen_10m": 1, "exposure_1h": 8.0}
    assert (first.fence, second.fence) == ({"c/t/0": 41}, {})
    assert (first.feature_status, second.feature_status) == ("PRESENT", "NOT_FOUND")
    assert second.features == measured | {"seen_10m": 0, "exposure_1h": None}
    assert len({one.request_id for one in logged[2:]}) == 50


def test_without_a_broker_a_server_ends_in_time_and_tells_what_is_missing(tmp_path: Path, code: Path) -> None:
    resource = served_resource(prediction={"type": "classification", "classes": ["ok", "scratch"]})
    make_version(tmp_path, resource, "v1")
    server = started(tmp_path, code, resource)
    try:
        eventually(server.is_ready, 60)
        (answer,) = server.predict(instance()).json()["predictions"]
        assert set(answer) == {"prediction_id", "version", "class", "confidence"}  # of a classification: no box
        assert "box" not in {one["name"] for one in server.infer(columns(instance())).json()["outputs"]}
        clock = SystemClock()
        before = clock.monotonic()
        assert server.end(signal.SIGINT) == 0
        assert clock.monotonic() - before < 10
        assert "predictions are missing from the log" in server.log.read_text()
    finally:
        server.close()

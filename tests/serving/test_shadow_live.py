"""Two real servers behind Envoy, one of which answers copies: who answers users, and what makes a pair."""

import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.serving.served import NO_REDIS, columns

from tidemill.core.clock import SystemClock
from tidemill.core.settings import Settings
from tidemill.events.kafka import RecordReader, ensure_topics
from tidemill.events.records import Outcome, Prediction
from tidemill.rollout.copies import Copies
from tidemill.rollout.driver import RevisionWanted, TrafficSeen, TrafficWanted
from tidemill.rollout.local import LocalTrafficDriver
from tidemill.spec.paths import predict_path, served_name
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.process import supervise
from tidemill.testing.rollout import example_plan
from tidemill.testing.serving import instance, make_version, served_resource

SERVE = """
import sys
import yaml
from tidemill.core.clock import SystemClock
from tidemill.serving.server import run
from tidemill.spec.model import ContinualModel

kafka, redis = sys.argv[1:3]
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
resource = ContinualModel.model_validate(yaml.safe_load(open(given["--resource"]).read()))
run(
    resource, version=given["--version"], artifact=given["--artifact"], port=int(given["--port"]),
    kafka=kafka, redis=redis, clock=SystemClock(),
)
"""


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.envoy
def test_each_copy_is_paired_with_the_users_answer_and_reaches_no_user(
    envoy: Any, kafka: str, tmp_path: Path, code: Path, topic_prefix: str
) -> None:
    resource = served_resource(topic_prefix, rollout={"shadow": True})
    topics = [f"{resource.id}.predictions", f"{resource.id}.copies"]
    ensure_topics(kafka, dict.fromkeys(topics, 1))
    for version in ("v1", "v2"):
        make_version(tmp_path, resource, version)
    file, state, over = tmp_path / "model.yaml", tmp_path / "state", threading.Event()
    file.write_text(yaml.safe_dump(resource.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    state.mkdir()
    (state / "envoy").symlink_to(envoy.folder)
    thread = threading.Thread(target=supervise, args=(state, over), kwargs={"env": {}, "folder": tmp_path})
    thread.start()
    driver = LocalTrafficDriver(
        FileSupervisor(state / "processes"),
        Settings(state=state, endpoint=envoy.endpoint, envoy_admin=envoy.admin),
        resource=resource,
        file=file,
        code=str(code),
        clock=SystemClock(),
        command=(sys.executable, "-c", SERVE, kafka, NO_REDIS),
    )
    try:
        wanted = TrafficWanted(
            (
                RevisionWanted(version="v1", artifact=str(tmp_path / "v1"), share=100),
                RevisionWanted(version="v2", artifact=str(tmp_path / "v2"), share=0),
            ),
            mirror="v2",
        )

        def copied() -> TrafficSeen | None:
            driver.apply(wanted)
            seen = driver.observe()
            return seen if seen.mirror == "v2" else None

        eventually(copied, 60)
        with httpx.Client(base_url=envoy.endpoint, trust_env=False, timeout=30) as http:
            for number in range(20):
                two = [instance(), instance(event_id=f"e{number}")]
                answers = http.post(predict_path(resource), json={"instances": two}).json()["predictions"]
                assert {one["version"] for one in answers} == {"v1"}
                body = columns(*two) | {"id": f"asked-{number}"}
                assert http.post(f"/v2/models/{served_name(resource)}/infer", json=body).json()["model_version"] == "v1"
        users, copies = (_logged(kafka, topic, 80) for topic in topics)
    finally:
        driver.apply(TrafficWanted())
        over.set()
        thread.join(20)
        driver.close()
        (envoy.folder / "models" / f"{resource.id}.json").unlink(missing_ok=True)
    assert {one.version for one in users} == {"v1"}
    assert {one.version for one in copies} == {"v2"}
    held, requests = Copies(example_plan(shadow=True), lambda output, label: 0.0), dict[str, list[Outcome]]()
    for copy in copies:
        held.add(copy, copy.time)
    for one in users:
        requests.setdefault(one.request_id or "", []).append(_judged(one))
    assert len(requests) == 40
    assert all(held.judge(name, rows).is_answered for name, rows in requests.items())


def _logged(kafka: str, topic: str, count: int) -> list[Prediction]:
    found: list[Prediction] = []
    with RecordReader(kafka, topic, Prediction, keyed=True) as reader:

        def is_there() -> bool:
            found.extend(one.record for one in reader.poll())
            return len(found) >= count

        eventually(is_there, 20)
        return found + [one.record for one in reader.poll(timeout_s=0.2)]


def _judged(one: Prediction) -> Outcome:
    return Outcome(
        prediction_id=one.prediction_id,
        version=one.version,
        entity=one.entity,
        event_id=one.event_id,
        request_id=one.request_id,
        predicted_at=one.time,
        eligible_at=one.time,
        output=one.output,
        label={"defect": "ok"},
        loss=0.0,
    )

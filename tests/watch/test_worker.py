"""The watch's process on a real broker: what it produces, how soon, and what a crash or a second process does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.watch.test_concept import outcomes, rows, trigger_of
from tests.watch.test_concept import resource as concept_resource

from tidemill.artifacts import Manifest, PredictionShape, artifact_uri, write
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Conflict
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordReader, RecordWriter, Stamped, ensure_topics
from tidemill.events.records import Decision, Signal, Sketch, Topics
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.watch import worker as worker_module
from tidemill.watch.answers import reference_of
from tidemill.watch.plan import plan_of
from tidemill.watch.reference import FILE, Reference, encode_reference
from tidemill.watch.store import WatchStore
from tidemill.watch.worker import Watch, pause_after, run

pytestmark = pytest.mark.kafka
Sketches = Callable[..., Sketch]


@pytest.fixture
def resource(topic_prefix: str) -> ContinualModel:
    return ContinualModel.model_validate(
        {
            "apiVersion": "tidemill.dev/v1alpha1",
            "kind": "ContinualModel",
            "metadata": {"name": topic_prefix},
            "spec": {
                "events": {
                    "entity": {"name": "station"},
                    "timestamp": "at",
                    "allowedLateness": "500ms",
                    "fields": [{"name": "brightness", "type": "float"}, {"name": "contrast", "type": "float"}],
                },
                "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
                "labels": {"fields": [{"name": "defect", "type": "class"}]},
                "model": {"codec": "m:Codec", "trainer": "m:Trainer"},
                "triggers": {"drift": {"tolerance": 0.2, "every": "1s", "watch": ["inputs"]}},
            },
        }
    )


class World:
    """A model's topics, lake and artifacts; sends what control and ingest would."""

    def __init__(self, kafka: str, resource: ContinualModel, folder: Path, sketch: Sketches) -> None:
        self.kafka, self.resource, self.folder, self.sketch = kafka, resource, folder, sketch
        self.topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        names = (self.topics.sketches, self.topics.outcomes, self.topics.decisions, self.topics.signals)
        ensure_topics(kafka, dict.fromkeys(names, 1))
        self.writer = RecordWriter(kafka)
        self.lake = str(folder / "lake")

    def promote(self, version: str, reference: Reference | None) -> None:
        uri = artifact_uri(str(self.folder / "artifacts"), self.resource, version)
        files = {"model.onnx": b"onnx"} if reference is None else {FILE: encode_reference(reference)}
        manifest = Manifest(
            version=version,
            model=self.resource.id,
            codec="m:Codec",
            prediction=PredictionShape(type="classification", classes=("ok", "scratch")),
            created_at="2025-03-01T00:00:00Z",
            run=version,
            snapshot="0" * 64,
            inputs=(),
            outputs=(),
        )
        write(Path(uri), files, manifest)
        decision = Decision(
            decision_id=f"promote-{version}",
            kind="promote",
            model=self.resource.id,
            time=0,
            subject=version,
            reason="better",
            figures={"artifact": uri},
        )
        self.writer.send(self.topics.decisions, decision, key=version)
        self.writer.flush()

    def ticks(self, first: int, last: int, brightness: float) -> None:
        for tick in range(first, last):
            self.writer.send(self.topics.sketches, self.sketch(tick, brightness, jitter=True), key="source")
        self.writer.flush()

    def is_sketches(self, source: str) -> bool:
        with Cluster(self.kafka) as cluster:
            return source in map(str, cluster.sources(self.topics.sketches).values())

    def signals(self) -> list[Signal]:
        with RecordReader(self.kafka, self.topics.signals, Signal) as reader:
            found = []
            while not reader.at_end():
                found += [stamped.record for stamped in reader.poll(timeout_s=0.2)]
            return found

    def watch(self) -> Watch:
        trigger = self.resource.spec.triggers.drift
        assert trigger is not None
        return Watch(
            plan_of(self.resource, trigger), self.topics, kafka=self.kafka, lake=self.lake, clock=SystemClock()
        )

    def stored(self) -> WatchStore:
        return WatchStore(self.lake, self.resource.id)


@pytest.fixture
def world(kafka: str, resource: ContinualModel, tmp_path: Path, sketch: Sketches) -> Iterator[World]:
    made = World(kafka, resource, tmp_path, sketch)
    yield made
    made.writer.close()


@contextmanager
def running(world: World) -> Iterator[None]:
    """The worker in a thread; what it raised is raised at the end."""
    stop, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            run(world.resource, kafka=world.kafka, lake=world.lake, clock=SystemClock(), stop=stop)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not raised, raised


def steps(watch: Watch) -> None:
    """Ten seconds of work, unless it raises before."""
    for _ in range(100):
        watch.step()


def step_until(watch: Watch, condition: Callable[[], object]) -> None:
    """Work until the condition holds."""

    def holds() -> object:
        watch.step()
        return condition()

    eventually(holds, 30)


def test_a_large_state_is_committed_less_often_but_never_rarely() -> None:
    assert [pause_after(size) for size in (10_000, 2_000_000, 50_000_000)] == [0.5, 10.0, 30.0]


def test_drift_is_signalled_while_events_go_on(world: World, reference: Reference) -> None:
    world.promote("r1", reference)
    with (
        running(world),
        RecordReader(world.kafka, world.topics.signals, Signal) as reader,
    ):
        world.ticks(0, 60, 0.6)
        stored = world.stored()
        eventually(lambda: (last := stored.last()) is not None and last.time >= 59_000, 30, every_s=0.1)
        tick, found = 60, list[Stamped[Signal]]()
        while not found:
            world.ticks(tick, tick + 1, 0.2)
            tick, found = tick + 1, reader.poll(timeout_s=0.4)
    signal = found[0].record
    assert signal.message.startswith("brightness fell from 0.62 to 0.2")
    assert signal.since == 60_000
    assert [again.signal_id for again in world.signals()] == [signal.signal_id]


def test_signals_of_a_commit_that_were_not_produced_are_produced_on_start(
    world: World, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote("r1", reference)
    world.ticks(0, 90, 0.2)

    def crash(self: Watch, signals: object) -> None:
        if signals:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, world.watch() as watch:
        patched.setattr(worker_module.Watch, "_produce", crash)
        with pytest.raises(KeyboardInterrupt):
            steps(watch)
    assert world.signals() == []
    last = world.stored().last()
    assert last is not None
    assert last.signals
    with world.watch():
        assert world.signals() == list(last.signals)


def test_a_crash_before_the_commit_says_the_same_again(
    world: World, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote("r1", reference)
    world.ticks(0, 90, 0.2)
    tried: list[str] = []

    def crash(self: WatchStore, new: object, before: object, evidence: object) -> None:
        tried.extend(signal.signal_id for signal in new.signals)  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, world.watch() as watch:
        patched.setattr(WatchStore, "commit", crash)
        with pytest.raises(KeyboardInterrupt):
            steps(watch)
    assert tried
    with world.watch() as watch:
        step_until(watch, world.signals)
    assert [signal.signal_id for signal in world.signals()][: len(tried)] == tried


def test_a_second_reducer_is_told_that_another_went_on(world: World, reference: Reference) -> None:
    world.promote("r1", reference)
    with world.watch() as first, world.watch() as second:
        world.ticks(0, 30, 0.6)
        step_until(first, world.stored().last)
        world.ticks(30, 60, 0.2)
        with pytest.raises(Conflict):
            steps(second)


def test_a_version_without_a_reference_is_not_watched(world: World) -> None:
    world.promote("r1", None)
    world.ticks(0, 60, 0.2)
    with world.watch() as watch:
        stored = world.stored()
        step_until(watch, stored.last)
    last = stored.last()
    assert last is not None
    assert last.state is not None
    assert (last.state.version, last.state.reference) == ("r1", None)
    assert world.signals() == []


def test_a_reference_with_a_changed_byte_is_not_used(world: World, reference: Reference) -> None:
    world.promote("r1", reference)
    path = Path(artifact_uri(str(world.folder / "artifacts"), world.resource, "r1")) / FILE
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    world.ticks(0, 60, 0.2)
    with world.watch() as watch:
        stored = world.stored()
        step_until(watch, stored.last)
    last = stored.last()
    assert last is not None
    assert last.state is not None
    assert last.state.reference is None


def test_a_rise_of_the_error_is_signalled_from_the_outcomes(world: World) -> None:
    model = concept_resource()
    reference = reference_of(rows(), model, trigger_of(model))
    labels = world.resource.spec.labels.model_copy(update={"control": 1.0})
    spec = world.resource.spec.model_copy(update={"triggers": model.spec.triggers, "labels": labels})
    world.resource = world.resource.model_copy(update={"spec": spec})
    world.promote("r1", reference)
    with world.watch() as watch:
        for judged in outcomes(dict.fromkeys("ABC", [0.04] * 60 + [0.9] * 60)):
            world.writer.send(world.topics.outcomes, judged.outcome, key=judged.outcome.prediction_id)
        world.writer.flush()
        step_until(watch, lambda: any(signal.kind == "concept" for signal in world.signals()))
    first = next(signal for signal in world.signals() if signal.kind == "concept")
    assert (first.subject, first.feature, first.version) == ("errors", "error", "r1")
    assert first.message.endswith(", since 12:01")


def test_after_an_upgrade_evidence_starts_anew_where_the_log_was_read_to_and_the_version_is_known(
    world: World, reference: Reference
) -> None:
    world.promote("r1", reference)
    world.ticks(0, 30, 0.6)
    with world.watch() as watch:
        step_until(watch, lambda: (last := world.stored().last()) is not None and last.version == "r1")
        watch.commit()
    before = world.stored().last()
    assert before is not None
    assert before.state is not None
    earlier = msgspec.structs.replace(before.state, format=1)
    old = msgspec.structs.replace(before, sequence=before.sequence + 1, state=earlier, signals=())
    world.ticks(30, 31, 0.6)  # what the earlier release took last
    sketches = next(source for source in before.offsets if world.is_sketches(source))
    moved = {**before.offsets, sketches: before.offsets[sketches] + 1}
    world.stored().commit(msgspec.structs.replace(old, offsets=moved), before.offsets, {})
    with world.watch() as watch:
        world.ticks(31, 90, 0.2)
        step_until(watch, lambda: any(signal.kind == "drift" for signal in world.signals()))
    first, *_ = (signal for signal in world.signals() if signal.feature == "watch")
    assert (first.kind, first.version) == ("state", "r1")
    assert first.message.startswith("watch: evidence starts anew: an earlier release of Tidemill wrote the state")
    drift = next(signal for signal in world.signals() if signal.kind == "drift")
    assert (drift.version, drift.since) == ("r1", 31_000)


def test_without_a_drift_trigger_the_worker_only_waits(resource: ContinualModel) -> None:
    quiet = resource.model_copy(
        update={
            "spec": resource.spec.model_copy(
                update={"triggers": resource.spec.triggers.model_copy(update={"drift": None})}
            )
        }
    )
    stop = threading.Event()
    stop.set()
    run(quiet, kafka="127.0.0.1:1", lake="nowhere", clock=SystemClock(), stop=stop)

"""Every model gets its turns and what it needs; none of them can stop the others."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.control import telemetry
from tidemill.control.protocols import StoredModel
from tidemill.control.provision import Provisioner, data_digest, owner_of
from tidemill.control.service import Service
from tidemill.control.state import LoopStatus, Seen, Version, decode_status
from tidemill.control.store import LocalResourceStore
from tidemill.control.tick import Loop, Parts
from tidemill.core.errors import Unavailable
from tidemill.core.telemetry import REGISTRY
from tidemill.rollout.driver import RevisionSeen, TrafficSeen
from tidemill.spec.model import ContinualModel
from tidemill.stack.supervisor import ProcessWanted
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing.clock import ManualClock
from tidemill.testing.log import MemoryLog
from tidemill.testing.loop import example_resource
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.traffic import MemoryTrafficDriver


class Bench:
    """A service over files, with doubles for the log, the runner and the traffic of each model."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = LocalResourceStore(folder / "resources")
        self.supervisor = FileSupervisor(folder / "processes")
        self.topics: list[str] = []
        self.partitions: dict[str, int] = {}
        self.retention_ms: dict[str, int | None] = {}
        self.logs: dict[str, MemoryLog] = {}
        self.drivers: dict[str, MemoryTrafficDriver] = {}
        self.closed: list[str] = []
        self.made: list[str] = []
        self.fault: Callable[[str], None] = lambda model: None
        provisioner = Provisioner(
            self.supervisor,
            ensure_topics=self.ensure_topics,
            file=self.store.path,
            feast=("feast-apply",),
            partitions=3,
        )
        self.service = Service(
            self.store, ids=self.store.ids, provisioner=provisioner, loop=self.loop, clock=self.clock
        )

    def ensure_topics(self, topics: dict[str, int], retention_ms: int | None) -> None:
        self.topics.extend(topics)
        self.partitions |= topics
        self.retention_ms |= dict.fromkeys(topics, retention_ms)

    def loop(self, stored: StoredModel) -> Loop:
        model = stored.resource.id
        self.fault(model)
        self.made.append(model)
        log = self.logs.setdefault(model, MemoryLog())
        driver = self.drivers.setdefault(model, MemoryTrafficDriver(ready_at_once=True))
        parts = Parts(
            log=log,
            runner=ScriptedRunner(),
            driver=driver,
            registry=MemoryRegistry(self.clock),
            labelled=lambda since: 0,
            close=lambda: self.closed.append(model),
        )
        return Loop(model, self.store, parts, self.clock)

    def rounds(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(0.25)
            self.service.round()

    def phase(self, name: str) -> str | None:
        status = self.store.get(f"default.{name}").status
        return decode_status(status).phase if status else None

    def processes(self) -> list[str]:
        return [process.name for process in self.supervisor.observe()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_log_keeps_what_labels_are_joined_from_as_long_as_they_count(bench: Bench) -> None:
    labels = {"fields": [{"name": "defect", "type": "class"}], "maturity": {"horizon": "30d"}}
    bench.store.put(example_resource("phones", labels=labels))
    bench.rounds()
    a_month_and_a_day = 31 * 86_400_000
    for name in ("labels", "predictions", "labels.resolved", "outcomes"):
        assert bench.retention_ms[f"default.phones.{name}"] == a_month_and_a_day
    assert bench.retention_ms["default.phones.decisions"] == -1


def test_only_the_topic_of_events_has_more_than_one_partition(bench: Bench) -> None:
    bench.store.put(example_resource("a"))
    bench.rounds()
    assert {name: number for name, number in bench.partitions.items() if number != 1} == {"default.a.events": 3}


def test_an_applied_model_gets_topics_workers_and_turns(bench: Bench) -> None:
    bench.store.put(example_resource("a"), code="/code")
    bench.rounds()
    assert bench.phase("a") == "Bootstrapping"
    assert bench.processes() == ["default.a-feast", "default.a-ingest", "default.a-outcomes", "default.a-watch"]
    assert sorted(bench.topics) == sorted(
        f"default.a.{name}"
        for name in (
            "decisions",
            "events",
            "labels",
            "labels.resolved",
            "outcomes",
            "predictions",
            "quarantine",
            "quarantine.replayed",
            "requests",
            "signals",
            "sketches",
        )
    )


def test_people_are_told_only_where_there_is_a_way_to_them(bench: Bench) -> None:
    routes = [{"name": "oncall", "urlEnv": "ONCALL_URL"}]
    told, quiet = example_resource("a", alerts={"routes": routes}), example_resource("a")
    bench.store.put(told)
    bench.rounds()
    assert "default.a-alerts" in bench.processes()
    assert owner_of("default.a-alerts") == "default.a"
    bench.store.put(quiet)
    bench.rounds(2)
    assert "default.a-alerts" not in bench.processes()
    assert data_digest(told) == data_digest(quiet)  # the workers stay


def test_workers_know_the_resource_and_the_users_code(bench: Bench, tmp_path: Path) -> None:
    wanted: list[ProcessWanted] = []
    bench.supervisor.want = wanted.append  # type: ignore[method-assign, assignment]
    bench.store.put(example_resource("a"), code="/code")
    bench.rounds()
    worker = next(one for one in wanted if one.name.endswith("ingest"))
    assert worker.argv[-3:] == ("ingest", "--resource", str(bench.store.path("default.a")))
    assert worker.env["PYTHONPATH"] == "/code"
    assert Path(worker.argv[-1]).is_file()


def test_what_is_wanted_stays_wanted(bench: Bench) -> None:
    bench.store.put(example_resource("a"))
    bench.rounds()
    bench.supervisor.unwant("default.a-ingest")
    bench.rounds(24)
    assert "default.a-ingest" in bench.processes()
    assert len(bench.topics) == len(set(bench.topics))


def test_a_deleted_model_ends_with_its_traffic_and_processes(bench: Bench) -> None:
    for name in ("a", "a-b"):
        bench.store.put(example_resource(name))
    bench.rounds()
    bench.store.delete("default.a-b")
    bench.rounds(10)
    assert bench.processes() == ["default.a-feast", "default.a-ingest", "default.a-outcomes", "default.a-watch"]
    assert bench.closed == ["default.a-b"]
    assert bench.drivers["default.a-b"].applied[-1].revisions == ()


def test_processes_of_a_model_deleted_while_control_was_down_end(bench: Bench) -> None:
    for name in ("default.gone-ingest", "default.gone.r20260102-030405", "default.gone-serve-v1", "redis"):
        bench.supervisor.want(ProcessWanted(name=name, argv=("true",)))
    bench.rounds()
    assert bench.processes() == ["redis"]


def test_a_resource_that_cannot_be_read_keeps_its_processes_and_hides_no_other(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.store.put(example_resource(name))
    bench.rounds()
    path = bench.store.path("default.a")
    path.write_text("a: [")
    bench.rounds(12)
    assert "default.a-ingest" in bench.processes()
    bench.store.put(example_resource("a", paused=True))
    bench.rounds(2)
    assert bench.phase("b") == "Bootstrapping"


def test_a_model_whose_turn_fails_is_tried_again_and_stops_no_other(bench: Bench) -> None:
    def fault(model: str) -> None:
        if model == "default.a":
            raise Unavailable("no proxy is known")

    bench.fault = fault
    for name in ("a", "b"):
        bench.store.put(example_resource(name))
    bench.rounds(4)
    assert (bench.phase("a"), bench.phase("b")) == (None, "Bootstrapping")
    bench.fault = lambda model: None
    bench.rounds(12)
    assert bench.phase("a") == "Bootstrapping"


def test_a_bug_in_one_models_turn_stops_no_other(bench: Bench) -> None:
    def fault(model: str) -> None:
        if model == "default.a":
            raise ZeroDivisionError

    bench.fault = fault
    for name in ("a", "b"):
        bench.store.put(example_resource(name))
    bench.rounds(4)
    assert bench.phase("b") == "Bootstrapping"


def test_a_change_is_acted_on_before_many_slow_models_at_rest_have_had_their_turns(bench: Bench) -> None:
    names = [f"m{number}" for number in range(9)]
    for name in names:
        bench.store.put(example_resource(name))
    bench.rounds(2)
    turns: list[str] = []
    for name in names:
        requests = bench.logs[f"default.{name}"].requests

        def slow(since: dict[str, int], name: str = name, requests: Callable[..., object] = requests) -> object:
            turns.append(name)
            bench.clock.advance(0.5)
            return requests(since)

        bench.logs[f"default.{name}"].requests = slow  # type: ignore[method-assign, assignment]
    bench.rounds()
    assert 1 < len(turns) < len(names)
    bench.service.wake("default.m8")
    bench.rounds()
    assert turns[3] == "m8"
    bench.rounds(5)
    assert set(turns) == set(names)


def test_models_at_rest_have_their_turns_however_long_the_busy_ones_take(bench: Bench) -> None:
    for name in ("busy", "still", "quiet"):
        bench.store.put(example_resource(name))
    bench.rounds(2)
    turns: list[str] = []
    for name in ("busy", "still", "quiet"):
        requests = bench.logs[f"default.{name}"].requests

        def told(since: dict[str, int], name: str = name, requests: Callable[..., object] = requests) -> object:
            turns.append(name)
            bench.clock.advance(5.0 if name == "busy" else 0.0)
            return requests(since)

        bench.logs[f"default.{name}"].requests = told  # type: ignore[method-assign, assignment]
    for _ in range(4):
        bench.service.wake("default.busy")
        bench.rounds()
    assert turns.count("busy") == 4
    assert {"still", "quiet"} <= set(turns)


def test_a_log_that_does_not_answer_is_asked_less_and_less(bench: Bench) -> None:
    bench.store.put(example_resource("a"))
    bench.rounds()
    log = bench.logs["default.a"]
    log.unavailable = True
    calls: list[float] = []
    requests = log.requests

    def counted(since: dict[str, int]) -> object:
        calls.append(bench.clock.monotonic())
        return requests(since)

    log.requests = counted  # type: ignore[method-assign, assignment]
    bench.rounds(4 * 60)
    assert 5 < len(calls) < 20
    assert calls[-1] - calls[-2] >= 10
    log.unavailable = False
    bench.rounds(50)
    assert calls[-1] - calls[-2] == 0.25


def test_a_changed_resource_gets_a_new_loop_and_an_unchanged_one_does_not(bench: Bench) -> None:
    bench.store.put(example_resource("a"))
    bench.rounds(5)
    bench.store.put(example_resource("a"))
    bench.rounds(5)
    assert bench.made == ["default.a"]
    bench.store.put(example_resource("a", paused=True))
    bench.rounds(5)
    assert bench.made == ["default.a", "default.a"]
    assert bench.closed == ["default.a"]


def test_it_ends_when_it_is_told_to(bench: Bench) -> None:
    bench.store.put(example_resource("a"))
    stop = threading.Event()
    thread = threading.Thread(target=bench.service.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("process", "owner"),
    [
        ("redis", None),
        ("control", None),
        ("default.a-ingest", "default.a"),
        ("default.a-b-watch", "default.a-b"),
        ("default.x-ingest-ingest", "default.x-ingest"),
        ("default.a-feast", "default.a"),
        ("default.a.r20260102-030405", "default.a"),
        ("default.a-b.r20260102-030405", "default.a-b"),
        ("default.a-serve-r20260102-030405", "default.a"),
        ("default.a-serve-b-serve-r20260102-030405", "default.a-serve-b"),
    ],
)
def test_a_process_belongs_to_exactly_one_model(process: str, owner: str | None) -> None:
    assert owner_of(process) == owner


def declared(**spec: object) -> ContinualModel:
    return example_resource("a", **spec)


@pytest.mark.parametrize(
    ("changed", "replaced"),
    [
        (declared(), False),
        (declared(paused=True), False),
        (declared(gates={"fresh": {"rows": 100}}), False),
        (declared(triggers={"drift": {"tolerance": 0.2, "every": "1s"}, "cooldown": "1s"}), False),
        (declared(triggers={"drift": {"tolerance": 0.3, "every": "1s"}}), True),
        (declared(features={"image": ["brightness"]}), True),
    ],
)
def test_workers_are_replaced_only_by_changes_that_concern_them(changed: ContinualModel, replaced: bool) -> None:
    assert (data_digest(changed) != data_digest(declared())) is replaced


def told(name: str, model: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"tidemill_control_{name}", {"model": model, **labels})


def test_how_each_loop_stands_is_told_until_its_model_is_gone(bench: Bench) -> None:
    bench.store.put(example_resource("told"))
    bench.rounds()
    model = "default.told"
    assert told("phase", model, phase="Bootstrapping") == 1
    assert told("phase", model, phase="Serving") == 0
    assert (told("failures", model), told("troubles", model)) == (0, 0)
    assert told("turn_seconds", model) is not None
    assert told("champion_share_ratio", model) is None, "there is no champion"
    began = told("turn_timestamp_seconds", model)
    bench.logs[model].unavailable = True
    bench.rounds(40)
    assert (told("failures", model) or 0) >= 3
    assert told("turn_timestamp_seconds", model) == began, "a turn that failed is none"
    bench.store.delete(model)
    bench.rounds(20)
    assert told("phase", model, phase="Bootstrapping") is told("failures", model) is None


def proxied(name: str, *versions: str) -> list[float | None]:
    of = [{"model": "default.share", "version": version} for version in versions]
    return [REGISTRY.get_sample_value(f"tidemill_proxy_{name}", labels) for labels in of]


def test_the_champions_share_is_the_proxys(bench: Bench) -> None:
    champion = Version(version="v1", artifact="a", since=1)
    seen = TrafficSeen(
        tuple(
            RevisionSeen(version=version, share=share, ready=True, requests=40, errors=2)
            for version, share in (("v1", 75), ("v2", 25))
        )
    )
    telemetry.tell("default.share", LoopStatus(created_at=1, champion=champion, seen=Seen(traffic=seen)))
    assert told("champion_share_ratio", "default.share") == 0.75
    assert proxied("requests", "v1", "v2") == [40, 40]
    assert proxied("errors", "v1", "v2") == [2, 2]
    telemetry.tell("default.share", LoopStatus(created_at=1, champion=champion))
    assert told("champion_share_ratio", "default.share") == 0
    assert proxied("requests", "v1", "v2") == [None, None], "of servers that are gone nothing is told"
    telemetry.forget("default.share")

"""Laws of the loop: whatever people, runs, servers and crashes do, these hold."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tidemill.control.decide import decide, new_status
from tidemill.control.protocols import RunSeen
from tidemill.control.retention import Kept, KeptVersion, Rule, may_go
from tidemill.control.state import LoopStatus, decode_status, encode_status
from tidemill.control.turn import Observed
from tidemill.events.records import Decision
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import LoopBench, example_resource

WEIGHTS = {0, 5, 25, 50, 100}
BUDGET, PER_MS, COOLDOWN_MS = 3, 4 * 3_600_000, 300_000


def resource(cron: str = "*/30 * * * *", **spec: Any) -> ContinualModel:
    """Every trigger, and little of everything that may hold a run."""
    triggers = {
        "schedule": {"cron": cron, "timezone": "Europe/Berlin"},
        "drift": {"tolerance": 0.2, "every": "1s"},
        "performance": {},
        "volume": {"newLabels": 1000},
        "newClass": {"minExamples": 50},
        "cooldown": "5m",
        "budget": {"runs": BUDGET, "per": "4h"},
    }
    return example_resource(triggers=triggers, **spec)


def claim_outside(bench: LoopBench) -> None:
    bench.write("claim", run=f"ui-{len(bench.log.asked)}")


def claim_inside(bench: LoopBench) -> None:
    if bench.status.run is not None:
        run = bench.status.run.run
        bench.runner.show(RunSeen(run=run, state="running"))
        bench.write("claim", request_id=f"{run}-claim", run=run)


def propose(bench: LoopBench) -> None:
    run = bench.status.run
    if run is not None and run.grant is not None:
        bench.registry.register(bench.resource.id, run.run, f"/artifacts/{run.run}")
        bench.write("propose", run=run.run, token=run.grant.token, version=run.run, artifact=f"/artifacts/{run.run}")


def propose_stale(bench: LoopBench) -> None:
    run = bench.status.run
    bench.write("propose", run=run.run if run else "ui-9", token="stale", version="v", artifact="/a")


def give_up(bench: LoopBench) -> None:
    run = bench.status.run
    if run is not None and run.grant is not None:
        bench.write("failed", run=run.run, token=run.grant.token, step="train", error="no memory")


def run_in_vain(bench: LoopBench) -> None:
    claim_inside(bench)
    bench.tick()
    give_up(bench)


def die(bench: LoopBench) -> None:
    if bench.status.run is not None:
        bench.runner.show(RunSeen(run=bench.status.run.run, state="failed", error="killed"))


def vanish(bench: LoopBench) -> None:
    if bench.status.run is not None:
        bench.runner.lose(bench.status.run.run)


def become_ready(bench: LoopBench) -> None:
    for one in bench.driver.observe().revisions:
        bench.driver.become_ready(one.version)


def fail(bench: LoopBench) -> None:
    candidate = bench.status.candidate
    if candidate is not None and bench.driver.observe().revision(candidate.version):
        bench.driver.fail(candidate.version, "out of memory")


def outcomes(bench: LoopBench) -> None:
    bench.judge({one.version: 0.2 for one in bench.driver.observe().revisions}, seconds=3)


def crash_soon(bench: LoopBench) -> None:
    bench.fuse[0] = 3


def lose_status(bench: LoopBench) -> None:
    bench.store.lose_status(bench.resource.id)
    bench.restart()


def label(bench: LoopBench) -> None:
    bench.labelled = 1000 if bench.labelled < 1000 else 0


def name_a_class(bench: LoopBench) -> None:
    bench.new_classes = {"fold": 50} if not bench.new_classes else {}


ACTIONS: dict[str, Callable[[LoopBench], object]] = {
    "claim from outside": claim_outside,
    "claim": claim_inside,
    "propose": propose,
    "propose with a stale token": propose_stale,
    "give up": give_up,
    "run in vain": run_in_vain,
    "die": die,
    "vanish": vanish,
    "become ready": become_ready,
    "fail": fail,
    "outcomes": outcomes,
    "crash soon": crash_soon,
    "lose the status": lose_status,
    "restart": LoopBench.restart,
    "drift": lambda bench: bench.signal(),
    "retrain": lambda bench: bench.write("retrain", reason="a drill"),
    "abort": lambda bench: bench.write("abort"),
    "pause": lambda bench: bench.write("pause"),
    "resume": lambda bench: bench.write("resume"),
    "promote": lambda bench: bench.write("promote"),
    "revert": lambda bench: bench.write("revert"),
    "half a day": lambda bench: bench.clock.advance(12 * 3600),
    "approve": lambda bench: bench.write("approve"),
    "declare that approval is needed": lambda bench: bench.declare(resource(rollout={"approval": "required"})),
    "performance": lambda bench: bench.signal("error", kind="performance", subject="errors"),
    "labels": label,
    "a new class": name_a_class,
    "labellers disagree": lambda bench: bench.agree(0.5),
    "labellers agree": lambda bench: bench.agree(0.9),
    "claim from outside by force": lambda bench: bench.write("claim", run=f"ui-{len(bench.log.asked)}", force=True),
    "retrain by force": lambda bench: bench.write("retrain", reason="a drill", force=True),
    "declare paused": lambda bench: bench.declare(resource(paused=True)),
    "declare": lambda bench: bench.declare(resource()),
    "declare another schedule": lambda bench: bench.declare(resource("0 0 * * *")),
    "a quarter": lambda bench: bench.clock.advance(900),
    "an hour": lambda bench: bench.clock.advance(3600),
    "a week of outage": lambda bench: bench.clock.advance(7 * 86_400),
}

ENDS, OVER = {"run-failed", "run-finished", "start-rollout"}, {"promote", "rolled-back"}


def begins(decision: Decision) -> bool:
    """Whether a run begins with it: one that control starts, or one that claims by itself."""
    return decision.kind == "start-run" or (decision.kind == "grant" and not decision.figures["ours"])


def without_repeated_grants(decisions: Sequence[Decision]) -> list[Decision]:
    """A run that asks again is told again: it begins once."""
    granted = dict[str, str]()
    for one in decisions:
        if one.kind == "grant":
            granted.setdefault(one.subject, one.decision_id)
    return [one for one in decisions if one.kind != "grant" or granted[one.subject] == one.decision_id]


def automatic(decision: Decision) -> bool:
    return decision.kind == "start-run" and decision.figures["by"] == "control"


def check_one_at_a_time(decisions: Sequence[Decision]) -> None:
    under_way: str | None = None
    for one in decisions:
        if begins(one):
            assert under_way is None, f"{one.subject} beside {under_way}"
            under_way = one.subject
        elif one.kind in OVER or (one.kind in ENDS - {"start-rollout"} and one.subject == under_way):
            under_way = None


def check_budget(decisions: Sequence[Decision]) -> None:
    starts = [one.time for one in decisions if begins(one)]
    for one in (one for one in decisions if begins(one) and not one.figures["force"]):
        within = [at for at in starts if one.time - PER_MS < at <= one.time]
        assert len(within) <= BUDGET, f"{one.subject} is beyond the budget"


def check_cooldown(decisions: Sequence[Decision]) -> None:
    ended: int | None = None
    for one in decisions:
        if automatic(one):
            assert ended is None or one.time - ended >= COOLDOWN_MS, f"{one.subject} before the cooldown"
        ended = one.time if one.kind in ENDS | OVER else ended


def check_schedule(decisions: Sequence[Decision]) -> None:
    """Each scheduled run has a firing of its own: after whatever run began before it, and after its declaration."""
    since = 0
    for one in decisions:
        if one.kind == "start-run" and one.figures["cause"] == "schedule":
            assert since < one.figures["due"] <= one.time, f"{one.subject} for the past"
        since = one.time if begins(one) or one.kind == "schedule" else since


def check_hold(decisions: Sequence[Decision]) -> None:
    held = False
    for one in decisions:
        held = one.kind == "hold-runs" or (held and one.kind != "release-runs")
        assert not (held and begins(one) and not one.figures["force"]), f"{one.subject} while labellers disagree"


def check(bench: LoopBench) -> None:
    status = bench.status
    assert status.run is None or status.candidate is None, "a run beside a rollout"
    assert (status.rollout is None) == (status.candidate is None)
    shares = [one.share for one in status.traffic.revisions]
    assert sum(shares) in {0, 100}
    assert set(shares) <= WEIGHTS | {100 - weight for weight in WEIGHTS}
    places = [one.version for one in (status.champion, status.candidate) if one]
    assert len(places) == len(set(places))
    wanted = {one.version for one in status.traffic.revisions}
    assert wanted <= set(places), "traffic for a version that is neither champion nor candidate"
    assert status.champion is None or status.champion.version in wanted or status.rollout is not None
    assert decode_status(encode_status(status)) == status


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.booleans(), st.lists(st.sampled_from(sorted(ACTIONS)), min_size=10, max_size=60))
def test_no_sequence_of_events_breaks_the_loop(serves: bool, names: list[str]) -> None:
    bench = LoopBench(resource(), ready_at_once=serves)
    if serves:
        bench.bootstrap()
    bench.labelled = 1000
    bench.tick(2)
    for name in names:
        ACTIONS[name](bench)
        bench.tick(2)
        check(bench)
    bench.tick(2)
    decisions = without_repeated_grants(bench.log.decisions())
    for law in (check_one_at_a_time, check_budget, check_cooldown, check_schedule, check_hold):
        law(decisions)
    answered = [one.answers for one in bench.log.decisions() if one.answers]
    assert len(answered) == len(set(answered)), "a request was answered twice"
    assert set(answered) == {one.request_id for one in bench.log.asked}, "a request was not answered"
    proposed = [one.subject for one in bench.log.decisions() if one.kind == "start-rollout"]
    assert len(proposed) == len(set(proposed)), "a version was rolled out twice"
    ids = [one.decision_id for one in bench.log.published]
    kinds = {one.decision_id: (one.kind, one.subject, one.reason) for one in bench.log.published}
    assert all((one.kind, one.subject, one.reason) == kinds[one.decision_id] for one in bench.log.published), ids


def train(bench: LoopBench) -> None:
    """The run in flight claims, and its version is registered, but not proposed yet."""
    claim_inside(bench)
    bench.tick()
    if bench.status.run is not None:
        bench.registry.register(bench.resource.id, bench.status.run.run, f"/artifacts/{bench.status.run.run}")


def finish(bench: LoopBench) -> None:
    """A rollout comes to its end."""
    bench.write("promote")
    bench.tick(4)


FLOW = {"train": train, "propose": propose, "finish": finish, "run": lambda bench: bench.write("retrain", force=True)}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([*sorted(ACTIONS), *sorted(FLOW) * 20]), min_size=20, max_size=50))
@example(["run", "train", "an hour", "propose", "finish", "an hour", "revert", "restart", "lose the status"])
@example(["run", "train", "an hour", "propose", "finish", "run", "train", "propose", "an hour", "abort", "revert"])
def test_a_version_that_was_cleared_away_is_never_wanted_again(names: list[str]) -> None:
    bench = LoopBench(resource(rollout={"steps": [{"weight": 100}]}))
    model, gone = bench.resource.id, set[str]()

    def clear(status: LoopStatus) -> None:
        kept = {one.version: KeptVersion(one.created_at) for one in bench.registry.versions(model)}
        kept = {name: one for name, one in kept.items() if name not in gone}
        going = may_go(Kept(kept), status, {}, Rule(timedelta(0), 0), bench.clock.now())  # the status alone will do
        gone.update(going.versions)

    bench.clearing = clear
    bench.bootstrap()
    for name in names:
        (ACTIONS | FLOW)[name](bench)
        bench.tick(2)
        status = bench.status
        places = (status.champion, status.candidate, status.previous)
        wanted = {place.version for place in places if place}
        wanted |= {one.version for one in status.traffic.revisions}
        wanted |= {one.version for one in bench.driver.observe().revisions}
        assert not (wanted | set(bench.registry.aliases(model).values())) & gone


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["brightness", "contrast"]), max_size=5), st.integers(0, 3000))
def test_deciding_is_a_function_of_its_arguments(features: list[str], labelled: int) -> None:
    bench = LoopBench()
    bench.bootstrap()
    signals = tuple(bench.signal(feature) for feature in features)
    observed = Observed(signals=signals, runs=(), traffic=bench.driver.observe(), labelled=labelled)
    arguments = (bench.resource, bench.status, observed, bench.clock.now())
    assert decide(*arguments) == decide(*arguments)


def test_deciding_again_on_what_was_decided_changes_nothing() -> None:
    bench = LoopBench()
    bench.labelled = 1000
    now = bench.clock.now()
    observed = Observed(runs=(), traffic=bench.driver.observe(), labelled=1000)
    first = decide(bench.resource, new_status(now), observed, now)
    second = decide(bench.resource, first.status, observed, now)
    assert [one.kind for one in first.decisions] == ["start-run"]
    assert second.decisions == ()
    assert second.status == first.status

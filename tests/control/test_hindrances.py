"""What holds a run back: the budget, and labellers who disagree; and who may pass."""

from typing import Any

import pytest

from tidemill.control.hindrances import spent
from tidemill.control.triggers import why_not_now
from tidemill.testing.loop import LoopBench, example_resource

TRIGGERS = {"drift": {"every": "1s"}, "cooldown": "1m", "budget": {"runs": 3, "per": "1h"}}


@pytest.fixture
def bench() -> LoopBench:
    """Serving; the first version's run is the first of three that an hour may have."""
    bench = LoopBench(example_resource(triggers=TRIGGERS | {"volume": {"newLabels": 1000}}))
    bench.bootstrap()
    bench.declare(example_resource(triggers=TRIGGERS))
    return bench


def why_not(bench: LoopBench) -> tuple[str, ...]:
    return why_not_now(bench.resource, bench.status, bench.clock.now())


def drill(bench: LoopBench, seconds: float = 100, **arguments: Any) -> str:
    """Asks for a run; if there is one it fails. Returns what was decided."""
    answer = bench.ask("retrain", reason="a drill", **arguments)
    end(bench)
    bench.clock.advance(seconds)
    return answer.kind


def end(bench: LoopBench) -> None:
    if bench.status.run is not None:
        run = bench.started()
        grant = bench.claim(run)
        bench.ask("failed", request_id=f"{run}-failed", run=run, token=grant.figures["token"], step="train", error="x")


def claim_outside(bench: LoopBench, run: str, **arguments: Any) -> str:
    answer = bench.ask("claim", by="kfp", run=run, **arguments)
    if answer.kind == "grant":
        bench.ask("failed", run=run, token=answer.figures["token"], step="train", error="x")
    return answer.kind


def test_every_run_counts_and_none_starts_beyond_the_budget(bench: LoopBench) -> None:
    assert drill(bench) == "start-run"
    assert claim_outside(bench, "ui-1") == "grant"
    bench.clock.advance(100)
    assert spent(bench.resource, bench.status, bench.clock.now())[:2] == (3, 3)
    bench.signal()
    assert bench.tick(4).run is None
    (hindrance, cause) = why_not(bench)
    assert hindrance.startswith("the budget of 3 runs in 1h is used up: there is room for one more in 56m")
    assert cause == "there is a cause: brightness fell from 0.62 to 0.41"
    assert drill(bench) == "refuse"
    assert claim_outside(bench, "ui-2") == "refuse"


def test_a_refusal_says_what_the_budget_is_and_how_to_pass_it(bench: LoopBench) -> None:
    for _ in range(2):
        drill(bench)
    answer = bench.ask("retrain", reason="more")
    assert answer.kind == "refuse"
    assert answer.reason.startswith("the budget of 3 runs in 1h is used up")
    assert answer.figures == {"hint": "--force starts it anyway"}


def test_force_passes_the_budget_and_counts(bench: LoopBench) -> None:
    for _ in range(2):
        drill(bench)
    assert drill(bench, force=True) == "start-run"
    assert claim_outside(bench, "ui-1", force=True) == "grant"
    budget = spent(bench.resource, bench.status, bench.clock.now())
    assert budget.used == 5
    first_that_frees = bench.status.starts[2]
    assert budget.frees_at == first_that_frees + 3_600_000


def test_the_period_slides(bench: LoopBench) -> None:
    bench.clock.advance(600)
    for _ in range(2):
        drill(bench, 600)
    assert drill(bench, 0) == "refuse"
    frees = spent(bench.resource, bench.status, bench.clock.now()).frees_at
    assert frees == bench.status.starts[0] + 3_600_000
    bench.clock.advance((frees - bench.clock.now().timestamp() * 1000) / 1000 - 1)
    assert drill(bench, 0.5) == "refuse"
    assert drill(bench) == "start-run"
    assert drill(bench) == "refuse"


def test_a_run_from_outside_answers_the_alarms_that_were_pending(bench: LoopBench) -> None:
    bench.signal()
    bench.tick()
    assert len(bench.status.drift.pending) == 1
    assert claim_outside(bench, "ui-1") == "grant"
    assert not bench.status.drift.pending
    bench.clock.advance(200)
    assert bench.tick(2).run is None


def test_while_labellers_disagree_no_run_starts_by_itself(bench: LoopBench) -> None:
    bench.clock.advance(400)
    bench.agree(0.62)
    bench.signal()
    assert bench.tick(2).run is None
    held = "labellers agree to 0.62, 0.8 is needed: held until agreement is back"
    assert why_not(bench)[0] == held
    assert bench.ask("retrain", reason="a drill").reason == held
    assert claim_outside(bench, "ui-1") == "refuse"
    bench.clock.advance(300)
    bench.agree(0.85)
    assert bench.tick().run is not None
    told = [(one.kind, one.reason) for one in bench.log.decisions() if one.kind.endswith("-runs")]
    assert told == [("hold-runs", held), ("release-runs", "labellers agree to 0.85: runs may start again")]


def test_the_first_run_is_held_too() -> None:
    bench = LoopBench(example_resource(triggers=TRIGGERS | {"volume": {"newLabels": 100}}))
    bench.agree(0.5)
    bench.labelled = 100
    assert bench.tick(2).run is None
    assert bench.ask("retrain", reason="I know", force=True).kind == "start-run"


def test_where_nothing_can_be_said_of_agreement_nothing_is_held(bench: LoopBench) -> None:
    bench.clock.advance(400)
    bench.agree(0.62)
    bench.signal()
    assert bench.tick(2).run is None
    bench.clock.advance(300)
    bench.agree(None)
    assert bench.tick().run is not None


def test_a_word_that_is_told_again_says_nothing_new(bench: LoopBench) -> None:
    bench.agree(0.62)
    before = bench.tick()
    bench.restart()
    after = bench.tick()
    assert after.decisions == before.decisions


def test_alpha_is_never_rounded_to_what_it_misses(bench: LoopBench) -> None:
    bench.agree(0.7961)
    bench.tick()
    assert why_not(bench)[0].startswith("labellers agree to 0.7961, 0.8 is needed")

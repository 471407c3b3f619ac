"""One run at a time: who is granted what, and what becomes of runs that do not speak."""

import pytest

from tidemill.control.protocols import RunSeen
from tidemill.testing.loop import LoopBench


@pytest.fixture
def serving() -> LoopBench:
    """A champion serves, and the cooldown after its start is over."""
    bench = LoopBench()
    bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    return bench


def champion(bench: LoopBench) -> str:
    found = bench.status.champion
    assert found is not None
    return found.version


def candidate(bench: LoopBench) -> str:
    """A run that was started, claimed and proposed."""
    run = bench.started()
    bench.propose(bench.claim(run))
    return run


# Claims, grants, tokens


def test_of_two_claims_at_once_one_is_granted(serving: LoopBench) -> None:
    first = serving.write("claim", run="ui-1", reason="from the UI")
    second = serving.write("claim", run="ui-2", reason="from the UI")
    serving.tick()
    assert serving.answer(first).kind == "grant"
    assert (serving.answer(second).kind, serving.answer(second).reason) == ("refuse", "already running: ui-1")


def test_a_claim_by_a_run_that_control_did_not_start_is_granted_too(serving: LoopBench) -> None:
    grant = serving.ask("claim", by="pipeline", run="ui-1", reason="from the UI", requested_by="bo")
    assert (grant.kind, grant.figures["champion"]) == ("grant", champion(serving))
    assert grant.figures["champion_artifact"] == f"/artifacts/{champion(serving)}"
    run = serving.status.run
    assert run is not None
    assert (run.cause, run.by, run.ours) == ("pipeline", "bo", False)
    assert "ui-1" not in serving.runner.started


def test_a_second_pipeline_run_of_the_same_name_has_no_part_in_the_grant(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    serving.claim(serving.started())
    again = serving.ask("claim", request_id="another", run=serving.started())
    assert (again.kind, again.reason) == ("refuse", f"already running: {serving.started()}")
    assert "token" not in again.figures


def test_no_run_is_granted_while_a_rollout_goes_on(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    new = candidate(serving)
    answer = serving.ask("claim", run="ui-1")
    assert (answer.kind, answer.reason) == ("refuse", f"a rollout is under way: {new}")


@pytest.mark.parametrize("name", ["", "../evil", "A", "r" * 70])
def test_a_run_whose_name_cannot_be_a_versions_is_refused(serving: LoopBench, name: str) -> None:
    assert serving.ask("claim", run=name).kind == "refuse"


def test_a_run_cannot_take_the_name_of_a_version_that_is_there(serving: LoopBench) -> None:
    answer = serving.ask("claim", run=champion(serving))
    assert (answer.kind, answer.reason) == ("refuse", f"version {champion(serving)} exists already")


def test_a_stale_token_proposes_nothing(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    grant = serving.claim(serving.started())
    answer = serving.propose(grant, token="of-another-grant")
    assert answer.kind == "refuse"
    assert "token" in answer.reason
    assert serving.status.run is not None


def test_a_run_without_a_grant_proposes_nothing(serving: LoopBench) -> None:
    answer = serving.ask("propose", run="ui-1", token="x", version="ui-1", artifact="/a")
    assert (answer.kind, answer.reason) == ("refuse", "ui-1 holds no grant")
    assert serving.status.candidate is None


def test_an_expired_grant_proposes_nothing_and_its_run_is_ended(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    run = serving.started()
    grant = serving.claim(run)
    serving.clock.advance(13 * 3600)
    serving.tick(2)
    assert serving.status.run is None
    assert run in serving.runner.stopped
    assert serving.kinds()[-1] == "run-failed"
    assert serving.propose(grant).kind == "refuse"


def test_a_proposal_after_the_expiry_is_refused_even_if_control_slept_until_then(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    grant = serving.claim(serving.started())
    serving.clock.advance(13 * 3600)
    answer = serving.propose(grant)
    assert (answer.kind, "expired" in answer.reason) == ("refuse", True)
    assert serving.status.candidate is None


def test_runs_of_the_same_second_have_names_of_their_own(serving: LoopBench) -> None:
    runs = []
    for _ in range(3):
        serving.write("retrain", reason="a drill")
        serving.tick(every_s=0)
        runs.append(serving.started())
        serving.runner.show(RunSeen(run=runs[-1], state="running"))
        serving.write("claim", request_id=f"{runs[-1]}-claim", run=runs[-1])
        serving.tick(every_s=0)
        token = serving.answer(f"{runs[-1]}-claim").figures["token"]
        serving.write("failed", run=runs[-1], token=token)
        serving.tick(every_s=0)
    assert len(set(runs)) == 3
    assert sorted(runs) == runs


def test_a_run_that_vanished_is_not_started_again(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    run = serving.started()
    serving.tick(2)
    serving.runner.lose(run)
    serving.runner.started.clear()
    serving.tick(24)
    assert serving.runner.started == {}
    assert serving.status.run is None


def test_refused_gates_end_the_run_with_their_reasons(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    grant = serving.claim(serving.started())
    gates = '[{"gate": "fresh", "passed": false, "reason": "error 0.31, of the champion 0.12"}]'
    answer = serving.ask("finished", run=grant.subject, token=grant.figures["token"], passed=False, gates=gates)
    assert (answer.kind, answer.reason) == (
        "run-finished",
        "no version is proposed: fresh: error 0.31, of the champion 0.12",
    )
    assert (serving.status.run, serving.status.candidate) == (None, None)


def test_a_run_that_fails_says_where_and_frees_the_grant(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    grant = serving.claim(serving.started())
    answer = serving.ask(
        "failed", run=grant.subject, token=grant.figures["token"], step="validate", error="12 rows, 500 are needed"
    )
    assert (answer.kind, answer.reason) == ("run-failed", "validate failed: 12 rows, 500 are needed")
    assert serving.ask("claim", run="ui-1").kind == "grant"


# Runs that do not speak


def test_a_run_that_its_runner_shows_as_failed_frees_the_grant(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    run = serving.started()
    serving.claim(run)
    serving.runner.show(RunSeen(run=run, state="failed", step="train", error="killed"))
    assert serving.tick().run is not None  # its own word may still be on its way
    status = serving.tick(24)
    assert status.run is None
    assert serving.log.decisions()[-1].reason == "train failed: killed"
    assert serving.runner.observe() == []


def test_a_run_that_dies_before_it_claims_frees_the_loop(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    serving.runner.show(RunSeen(run=serving.started(), state="failed", error="no such module"))
    assert serving.tick(24).run is None


def test_a_run_that_vanishes_frees_the_loop(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    run = serving.started()
    serving.claim(run)
    serving.runner.lose(run)
    assert serving.tick(24).run is None
    assert serving.log.decisions()[-1].reason == "its runner no longer shows it"


def test_a_run_that_its_runner_never_shows_frees_the_loop(serving: LoopBench) -> None:
    serving.runner.available = False
    serving.ask("retrain", reason="a drill")
    run = serving.started()
    serving.tick(40)
    assert serving.status.run is not None  # a runner that does not answer says nothing about its runs
    assert any("runs" in trouble for trouble in serving.status.seen.troubles)
    serving.runner.available = True
    serving.runner.started[run] = {}
    serving.tick(2)
    serving.clock.advance(301)
    assert serving.tick(2).run is None


def test_a_run_that_ends_without_a_word_is_a_failed_one(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    serving.runner.show(RunSeen(run=serving.started(), state="succeeded"))
    assert serving.tick(24).run is None
    assert serving.log.decisions()[-1].reason == "it ended without a word to control"


def test_a_run_that_is_over_is_forgotten_by_its_runner(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    candidate(serving)
    serving.tick(2)
    assert serving.runner.observe() == []


def test_a_run_that_lost_its_right_may_not_claim_another(serving: LoopBench) -> None:
    run = serving.ask("retrain", reason="a drill").subject
    serving.runner.show(RunSeen(run=run, state="running"))
    serving.claim(run)
    serving.clock.advance(13 * 3600)
    serving.runner.stop = lambda run: None  # type: ignore[method-assign]
    serving.tick()
    assert serving.status.stopping == (run,)
    refused = serving.ask("claim", request_id="again", run=run)
    assert (refused.kind, refused.reason) == ("refuse", f"{run} has lost its right to run, and is being ended")
    serving.store.lose_status(serving.resource.id)
    serving.restart()
    assert serving.tick(1).stopping == (run,), "a lost status knows no more that it is to be ended"

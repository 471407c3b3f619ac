"""The decision about processes, without any."""

import signal
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.stack.plan import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SETTLED_S,
    Action,
    Child,
    Forget,
    Signal,
    Start,
    after_end,
    after_signal,
    after_start,
    as_seen,
    reconcile,
)
from tidemill.stack.supervisor import ProcessWanted

SERVICE = ProcessWanted(name="a", argv=("a",), grace_s=10)
TASK = ProcessWanted(name="a", argv=("a",), kind="task")
RUNNING = Child(SERVICE, 1, 0.0)


def plan(wanted: ProcessWanted | None, child: Child | None, now: float) -> tuple[Action, ...]:
    return reconcile({"a": wanted} if wanted else {}, {"a": child} if child else {}, now)


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert plan(SERVICE, RUNNING, 5) == ()


def test_a_process_is_ended_gently_then_by_force_then_forgotten() -> None:
    child = RUNNING
    assert plan(None, child, 5) == (Signal("a", signal.SIGTERM),)
    child = after_signal(child, signal.SIGTERM, 5)
    assert plan(None, child, 14.9) == ()
    assert plan(None, child, 15) == (Signal("a", signal.SIGKILL),)
    child = after_signal(child, signal.SIGKILL, 15)
    assert plan(None, child, 16) == ()
    child = after_end(child, -9, 16)
    assert plan(None, child, 16) == (Forget("a"),)


def test_a_changed_process_starts_only_once_the_old_one_is_gone() -> None:
    changed = ProcessWanted(name="a", argv=("b",))
    assert plan(changed, RUNNING, 5) == (Signal("a", signal.SIGTERM),)
    ending = after_signal(RUNNING, signal.SIGTERM, 5)
    assert plan(changed, ending, 6) == ()
    assert plan(changed, after_end(ending, 0, 6), 6) == (Start(changed),)


def test_what_is_wanted_again_while_it_ends_is_started_again_after_it() -> None:
    ended = after_end(after_signal(RUNNING, signal.SIGTERM, 5), 0, 6)
    assert plan(SERVICE, ended, 6) == ()
    assert plan(SERVICE, ended, 6 + FIRST_PAUSE_S) == (Start(SERVICE, ended),)


def test_the_pause_before_a_restart_doubles_up_to_a_bound_and_starts_anew_after_a_good_run() -> None:
    child, pauses = RUNNING, []
    for _ in range(12):
        child = after_end(replace(child, pid=1, started_at=100.0), 1, 100.0)
        pauses.append(child.again_at - 100.0)
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    settled = after_end(replace(child, pid=1, started_at=0.0), 1, SETTLED_S)
    assert settled.again_at - SETTLED_S == FIRST_PAUSE_S


def test_a_task_that_ended_is_not_started_again_unless_it_changes() -> None:
    ended = after_end(Child(TASK, 1, 0.0), 1, 5)
    assert plan(TASK, ended, 1e9) == ()
    changed = ProcessWanted(name="a", argv=("b",), kind="task")
    assert plan(changed, ended, 5) == (Start(changed),)


@pytest.mark.parametrize(
    ("child", "state"),
    [
        (RUNNING, "starting"),
        (replace(RUNNING, ready=True), "ready"),
        (after_signal(RUNNING, signal.SIGTERM, 1), "ending"),
        (after_end(RUNNING, 1, 1), "failing"),
        (after_end(Child(TASK, 1, 0.0), 0, 1), "ended"),
    ],
)
def test_each_stage_has_its_word(child: Child, state: str) -> None:
    assert as_seen(child, "a.log").state == state


def apply(children: dict[str, Child], action: Action, now: float, pid: int) -> None:
    match action:
        case Start():
            children[action.wanted.name] = after_start(action, pid, now)
        case Signal():
            children[action.name] = after_signal(children[action.name], action.number, now)
        case Forget():
            del children[action.name]


processes = st.builds(
    ProcessWanted,
    name=st.sampled_from(["a", "b", "c"]),
    argv=st.tuples(st.sampled_from(["x", "y"])),
    kind=st.sampled_from(["service", "task"]),
)
worlds = st.lists(processes, max_size=3).map(lambda found: {one.name: one for one in found})


@given(st.lists(st.tuples(worlds, st.sets(st.sampled_from(["a", "b", "c"])), st.floats(0, 40)), max_size=12), worlds)
def test_from_any_history_the_wanted_world_is_reached(
    history: list[tuple[dict[str, ProcessWanted], set[str], float]], wanted: dict[str, ProcessWanted]
) -> None:
    """Whatever was wanted before and whatever ended meanwhile: nothing runs twice, and in the end all is as wanted."""
    children: dict[str, Child] = {}
    now, pid = 0.0, 1
    for world, ends, pause in [*history, *[(wanted, set[str](), 31.0)] * 4]:
        last = world is wanted
        now += pause
        for name, child in list(children.items()):
            told_to_end = child.ending_since is not None
            if child.pid is not None and (name in ends or (last and told_to_end)):
                children[name] = after_end(child, 1, now)
        actions = reconcile(world, children, now)
        for action in actions:
            if isinstance(action, Start):
                found = children.get(action.wanted.name)
                assert found is None or found.pid is None, "started beside itself"
            apply(children, action, now, pid)
            pid += 1
    assert {name: child.wanted for name, child in children.items()} == wanted
    assert all(child.pid is not None or child.wanted.kind == "task" for child in children.values())

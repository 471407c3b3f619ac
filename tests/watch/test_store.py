"""The watch's table: a commit is whole or not there, one reducer wins, and it does not grow without bound."""

from pathlib import Path

import msgspec
import pytest
from deltalake import DeltaTable

from tidemill.core.errors import Conflict, Corrupt
from tidemill.events.records import Signal
from tidemill.watch import store as store_module
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import first_state
from tidemill.watch.state import encode_state
from tidemill.watch.store import Committed, WatchStore

SKETCHES, DECISIONS = "cluster/sketches/0", "cluster/decisions/0"


def signal(number: int) -> Signal:
    return Signal(
        signal_id=str(number),
        kind="drift",
        feature="brightness",
        time=1_000 * number,
        version="r1",
        evidence=1.5,
        entities=["B"],
        message="brightness fell",
    )


def commit(plan: WatchPlan, number: int, *signals: Signal) -> Committed:
    return Committed(
        sequence=number,
        state=msgspec.structs.replace(first_state(plan), version="r1"),
        version="r1",
        time=1_000 * number,
        offsets={SKETCHES: 10 * number, DECISIONS: 3},
        signals=signals,
    )


def write(store: WatchStore, *commits: Committed) -> None:
    before: dict[str, int] = {}
    for new in commits:
        store.commit(new, before, {"brightness": 0.25})
        before = dict(new.offsets)


def test_a_new_table_has_no_commit(tmp_path: Path) -> None:
    assert WatchStore(str(tmp_path), "default.phones").last() is None


def test_the_last_commit_is_read_back_with_its_own_signals(tmp_path: Path, plan: WatchPlan) -> None:
    commits = [commit(plan, 1, signal(1)), commit(plan, 2), commit(plan, 3, signal(2), signal(3))]
    write(WatchStore(str(tmp_path), "default.phones"), *commits)
    assert WatchStore(str(tmp_path), "default.phones").last() == commits[2]


def test_of_two_reducers_one_goes_on(tmp_path: Path, plan: WatchPlan) -> None:
    first, second = (WatchStore(str(tmp_path), "default.phones") for _ in range(2))
    write(first, commit(plan, 1))
    before = commit(plan, 1).offsets
    assert second.last() == commit(plan, 1)
    first.commit(commit(plan, 2, signal(1)), before, {})
    astray = msgspec.structs.replace(commit(plan, 2, signal(9)), offsets={SKETCHES: 25, DECISIONS: 3})
    with pytest.raises(Conflict):
        second.commit(astray, before, {})
    assert second.last() == commit(plan, 2, signal(1))


def test_a_commit_says_how_large_its_state_is(tmp_path: Path, plan: WatchPlan) -> None:
    new = commit(plan, 1, signal(1))
    assert new.state is not None
    size = WatchStore(str(tmp_path), "default.phones").commit(new, {}, {"brightness": 0.25})
    assert size == len(encode_state(new.state))


def test_superseded_states_are_pruned_and_signals_stay(
    tmp_path: Path, plan: WatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PRUNE_EVERY", 10)
    store = WatchStore(str(tmp_path), "default.phones")
    write(store, *(commit(plan, number, signal(number)) for number in range(1, 36)))
    rows = DeltaTable(str(tmp_path / "default.phones.watch")).to_pyarrow_table().to_pylist()
    kinds = [row["kind"] for row in rows]
    assert kinds.count("state") == 6  # the one of the last pruning, and those since
    assert kinds.count("signal") == kinds.count("evidence") == 35
    assert WatchStore(str(tmp_path), "default.phones").last() == commit(plan, 35, signal(35))


def test_a_state_that_cannot_be_read_is_corrupt(tmp_path: Path, plan: WatchPlan) -> None:
    store = WatchStore(str(tmp_path), "default.phones")
    old = msgspec.structs.replace(first_state(plan), format=99)
    write(store, msgspec.structs.replace(commit(plan, 1), state=old))
    with pytest.raises(Corrupt, match="format 99"):
        store.last()


def test_the_state_of_an_earlier_release_is_left_behind_and_its_offsets_are_kept(
    tmp_path: Path, plan: WatchPlan
) -> None:
    store = WatchStore(str(tmp_path), "default.phones")
    old = msgspec.structs.replace(first_state(plan), format=1)
    write(store, msgspec.structs.replace(commit(plan, 1), state=old))
    assert store.last() == msgspec.structs.replace(commit(plan, 1), state=None)

"""Which earlier drifts are played again, and that a candidate which forgot one is refused."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tests.retrain.test_worse import FIRST, next_grant, place_of, trained

from tidemill.core.clock import to_ms
from tidemill.evaluation.gates import judge
from tidemill.evaluation.scoring import Compared, Evaluation, Rows, Scores
from tidemill.retrain import version
from tidemill.retrain.drifts import earlier_drifts
from tidemill.spec.gates import Gates
from tidemill.testing.retrain import Site
from tidemill.testing.training import START, snapshot_of, snapshot_rows, tiny_resource
from tidemill.training.snapshot import Snapshot, row_columns
from tidemill.training.verdict import GateVerdict

DAY = timedelta(days=1)
COLUMNS = row_columns(tiny_resource())


def taken(folder: Path, day: int, since_s: int | None, *, fresh: int = 60, **changes: object) -> Snapshot:
    """A snapshot of 200 events, one a second, `fresh` of them held out, taken so many days later."""
    rows = snapshot_rows(tiny_resource(), 200, fresh=fresh)
    since = None if since_s is None else to_ms(START + timedelta(seconds=since_s))
    return snapshot_of(folder, rows, as_of=to_ms(START + day * DAY), since=since, **changes)


def test_the_fresh_rows_since_a_drift_grew_are_played_again_the_newest_drift_first(tmp_path: Path) -> None:
    taken(tmp_path, 1, since_s=160)
    taken(tmp_path, 2, since_s=None)
    last = taken(tmp_path, 3, since_s=100)
    now = taken(tmp_path, 5, since_s=None)
    found = list(earlier_drifts(tmp_path, now, COLUMNS))
    assert [one.name for one in found] == [
        "the drift since 2026-01-01 00:01:40 UTC",
        "the drift since 2026-01-01 00:02:40 UTC",
    ]
    assert [one.rows.height for one in found] == [60, 40]
    assert found[0].snapshot.digest == last.digest
    assert set(found[0].rows["part"]) == {"fresh"}


def test_a_drift_that_several_runs_answered_is_played_once_and_the_runs_own_not_at_all(tmp_path: Path) -> None:
    taken(tmp_path, 1, since_s=160)
    second = taken(tmp_path, 2, since_s=160)
    taken(tmp_path, 3, since_s=150)
    now = taken(tmp_path, 4, since_s=150)
    taken(tmp_path, 6, since_s=140)  # of a run that began later
    assert [one.snapshot.digest for one in earlier_drifts(tmp_path, now, COLUMNS)] == [second.digest]


def test_what_cannot_be_played_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken(tmp_path, 1, since_s=190)
    (taken(tmp_path, 2, since_s=150).folder / "rows.parquet").write_bytes(b"")
    (taken(tmp_path, 3, since_s=140).folder / "snapshot.json").write_bytes(b"")
    now = taken(tmp_path, 4, since_s=None)
    assert list(earlier_drifts(tmp_path, now, COLUMNS)) == []
    taken(tmp_path, 3, since_s=130, seed=2)
    assert list(earlier_drifts(tmp_path, now, [*COLUMNS, "shift"])) == []
    said = capsys.readouterr().out
    assert "since 2026-01-01 00:03:10 UTC is not played again: 10 rows, 30 are needed" in said
    assert "rows.parquet is not the file that was written" in said
    assert "its rows have no shift" in said


def test_candidate_and_champion_answer_the_rows_of_a_drift_that_a_run_answered(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(filled.code)
    more = {"gates": {"fresh": {"rows": 60, "margin": 0.05}, "robustness": {}}}
    filled.put(tiny_resource(filled.resource.metadata.name, **more))
    first = trained(filled, msgspec.structs.replace(FIRST, since=to_ms(START + timedelta(seconds=10))))
    granted = next_grant(filled)
    found = version.evaluate(place_of(filled), granted, trained(filled, granted))
    assert found.drifts is not None
    (drift,) = found.drifts
    assert (drift.name, drift.digest) == ("the drift since 2026-01-01 00:00:10 UTC", first.digest)
    assert len(drift.candidate.losses) == 60
    assert drift.champion is not None
    assert drift.champion.version == FIRST.run


ROWS = 500


def verdicts(*candidates: float, champion: bool = True, drifts: int = 3) -> list[GateVerdict]:
    """Of a candidate that errs in such a share of the rows of each drift; the champion errs in none."""

    def scored(version: str, share: float) -> Scores:
        return Scores(version=version, losses=tuple(float(place < share * ROWS) for place in range(ROWS)))

    known = scored("v1", 0.0) if champion else None
    compared = tuple(
        Compared(name=f"drift {share}", digest="", rows=Rows(), candidate=scored("v2", share), champion=known)
        for share in candidates
    )
    found = Evaluation(candidate=scored("v2", 0.0), champion=known, snapshot="", stresses=(), drifts=compared)
    gates = Gates.model_validate({"robustness": {"margin": 0.05, "drifts": drifts}})
    return [one for one in judge(gates, found) if one.gate.startswith("robustness.")]


def test_a_candidate_that_forgot_a_drift_is_refused_by_its_name() -> None:
    kept, forgot = verdicts(0.0, 0.3)
    assert (kept.gate, kept.passed) == ("robustness.drifts.1", True)
    assert (forgot.gate, forgot.passed) == ("robustness.drifts.2", False)
    assert forgot.reason.startswith(
        "error 0.300 against the champion's 0.000 on 500 rows of drift 0.3: better by -0.300"
    )


def test_without_a_champion_or_an_earlier_drift_it_is_not_applicable() -> None:
    (alone,) = verdicts(0.0, champion=False)
    (none,) = verdicts()
    assert (alone.passed, none.passed) == (None, None)
    assert none.reason == "no run before this one answered a drift: not applicable"
    assert verdicts(drifts=0) == []

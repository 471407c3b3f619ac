"""Quality from the lake's outcomes: the newest revision counts, once, where it belongs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.outcomes.quality import MOST_CELLS, CellQuality, Cut, quality_of
from tidemill.outcomes.tables import LABELS, OUTCOMES, PREDICTIONS
from tidemill.spec.model import ContinualModel
from tidemill.stats.sampling import SampledMean
from tidemill.testing.loop import example_resource

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def resource_of(control: float = 1.0) -> ContinualModel:
    return example_resource(
        prediction={
            "type": "classification",
            "classes": ["ok", "scratch"],
            "value": {"missed": 20, "falseReject": 1},
        },
        labels={"fields": [{"name": "defect", "type": "class"}], "control": control},
    )


def outcome(number: int, answer: str, truth: str | None, **more: Any) -> dict[str, Any]:
    return {
        "prediction_id": f"p{number}",
        "revision": 0,
        "version": "v1",
        "entity": "north" if number % 2 else "south",
        "predicted_at": NOON + timedelta(minutes=number),
        "output": json.dumps({"class": answer, "confidence": 0.75}),
        "label": None if truth is None else json.dumps({"defect": truth}),
        "loss": None if truth is None else float(answer != truth),
        "assumed": False,
        "disputed": False,
        "lost": 0,
        "maybe_lost": 0,
    } | more


def kept(
    lake: Path, resource: ContinualModel, *outcomes: dict[str, Any], features: Any = None, schema: Any = OUTCOMES
) -> str:
    """The lake with these outcomes, and with predictions that have `features(number)`."""

    def write(name: str, schema: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        table = LakeTable(table_uri(str(lake), resource.id, name), schema, pipeline="o", partition_by=["event_date"])
        source = Source("c", name, 0)
        placed = [
            row | {"source": str(source), "offset": at, "event_date": row["predicted_at"].date()}
            for at, row in enumerate(rows)
        ]
        table.append(pl.DataFrame(placed, schema=schema, orient="row"), {source: len(rows)})

    write("outcomes", schema, list(outcomes))
    if features is not None:
        columns = ("prediction_id", "predicted_at")
        rows = [{name: one[name] for name in columns} for one in outcomes]
        write("predictions", PREDICTIONS, [row | {"features": json.dumps(features(at))} for at, row in enumerate(rows)])
    return str(lake)


def picked(lake: Path, resource: ContinualModel, picks: dict[str, float]) -> None:
    """Records of picks, each of a round that considered all until so many minutes after noon."""
    source = Source("c", "l", 0)
    rows = [
        {"source": str(source), "offset": at, "prediction_id": name, "reasons": '{"control": 0.25}'}
        | dict.fromkeys(("event_time", "available_at"), NOON + timedelta(minutes=minutes))
        | {"available_date": NOON.date()}
        for at, (name, minutes) in enumerate(picks.items())
    ]
    table = LakeTable(table_uri(str(lake), resource.id, "labels"), LABELS, pipeline="o")
    table.append(pl.DataFrame(rows, schema=LABELS, orient="row"), {source: len(rows)})


def only(found: list[CellQuality]) -> CellQuality:
    (one,) = found
    return one


def test_a_correction_counts_instead_of_what_it_corrects(tmp_path: Path) -> None:
    resource = resource_of()
    corrected = [
        outcome(0, "ok", "ok"),
        outcome(1, "ok", "ok"),
        outcome(1, "ok", None, revision=1, disputed=True),
        outcome(1, "ok", "scratch", revision=2),
        outcome(2, "scratch", "ok"),
    ]
    found = only(quality_of(kept(tmp_path, resource, *corrected), resource, Cut()))
    assert (found.outcomes, found.labelled, found.disputed) == (3, 3, 0)
    assert found.error.mean == pytest.approx(2 / 3)
    assert found.figures is not None
    assert found.figures.cost is not None
    assert found.figures.cost.total == 21.0


def test_cells_are_by_version_slice_cohort_and_window(tmp_path: Path) -> None:
    resource = resource_of()
    rows = [outcome(n, "ok", "ok" if n < 6 else "scratch", version=f"v{n // 6}", cohort="ab"[n % 2]) for n in range(12)]
    lake = kept(tmp_path, resource, *rows)
    cut = Cut(by="entity", cohorts=True, window_ms=180_000)
    found = quality_of(lake, resource, cut)
    assert [(one.version, one.slice, one.cohort, one.outcomes) for one in found[:3]] == [
        ("v0", "north", "b", 1),
        ("v0", "north", "b", 2),
        ("v0", "south", "a", 2),
    ]
    assert found[0].window == NOON
    assert sum(one.outcomes for one in found) == 12
    late = quality_of(lake, resource, Cut(since=NOON + timedelta(minutes=9), version="v1"))
    assert (only(late).version, only(late).outcomes) == ("v1", 3)


def test_numbers_are_cut_into_quarters_and_words_stand_for_themselves(tmp_path: Path) -> None:
    resource = resource_of()
    lake = kept(
        tmp_path,
        resource,
        *(outcome(n, "ok", "ok") for n in range(40)),
        features=lambda n: {"brightness": n / 40, "shift": "night" if n % 4 else None},
    )
    quarters = quality_of(lake, resource, Cut(by="brightness"))
    assert [one.outcomes for one in quarters] == [10] * 4
    assert quarters[0].slice.startswith("-∞ to 0.24")
    words = {one.slice: one.outcomes for one in quality_of(lake, resource, Cut(by="shift"))}
    assert words == {"(none)": 10, "night": 30}
    with pytest.raises(InvalidInput, match="no prediction has a feature colour"):
        quality_of(lake, resource, Cut(by="colour"))


def test_where_all_are_to_be_labelled_those_that_are_not_yet_widen_the_interval(tmp_path: Path) -> None:
    resource = resource_of()
    rows = [outcome(n, "ok", "ok" if n % 4 else None) for n in range(40)]
    found = only(quality_of(kept(tmp_path, resource, *rows), resource, Cut()))
    assert (found.kind, found.error.count, found.error.labelled, found.waiting) == ("all labelled", 40, 30, 10)
    assert found.error.mean == pytest.approx(10 / 80)
    complete = SampledMean(1.0, risk=0.025)
    complete.update(
        pl.Series([0.0 if n % 4 else 1.0 for n in range(40)]).to_numpy(), pl.repeat(1.0, 40, eager=True).to_numpy()
    )
    assert found.error.interval.high == complete.estimate().interval.high


def test_of_a_control_share_the_estimate_is_of_all(tmp_path: Path) -> None:
    resource = resource_of(control=0.25)
    rows = [outcome(n, "ok", "scratch" if n % 8 == 0 else "ok" if n % 4 == 0 else None) for n in range(400)]
    for row in rows:
        row["probability"] = None if row["label"] is None else 0.25
    rows[4] |= {"probability": None, "loss": 1.0}  # volunteered
    lake = kept(tmp_path, resource, *rows)
    before = only(quality_of(lake, resource, Cut()))
    assert (before.error.mean, before.error.interval) == (None, (0.0, 1.0))  # no round has considered anything
    picked(tmp_path, resource, {"p0": 299.0, "p201": 299.0})
    found = only(quality_of(lake, resource, Cut()))
    assert (found.kind, found.outcomes, found.error.count, found.error.volunteered) == ("sampled", 400, 300, 1)
    assert (found.error.labelled, found.waiting) == (74, 1)
    losses = [float("nan") if row["loss"] is None else row["loss"] for row in rows[:300]]
    probability = [row["probability"] for row in rows[:300]]
    probability[201] = 0.25
    ends = []
    for loss in (0.0, 1.0):
        mine = SampledMean(0.25, risk=0.025)
        mine.update(
            pl.Series([*losses[:201], loss, *losses[202:]]).to_numpy(), pl.Series(probability).cast(float).to_numpy()
        )
        ends.append(mine.estimate().interval)
    assert found.error.interval == (ends[0].low, ends[1].high)


@pytest.mark.parametrize("control", [0.05, 0.1, 0.2, 0.3, 0.7, 0.9])
def test_a_label_of_the_control_share_alone_counts_whatever_its_probability_rounds_to(
    tmp_path: Path, control: float
) -> None:
    resource = resource_of(control=control)
    rows = [outcome(n, "ok", "ok", probability=1 - (1 - control)) for n in range(5)]
    lake = kept(tmp_path, resource, *rows)
    picked(tmp_path, resource, {"p0": 10.0})
    assert only(quality_of(lake, resource, Cut())).error.labelled == 5


def test_a_label_from_before_the_share_was_raised_counts_with_its_own_probability(tmp_path: Path) -> None:
    resource = resource_of(control=0.5)
    lake = kept(tmp_path, resource, *(outcome(n, "ok", "ok", probability=0.1) for n in range(5)))
    picked(tmp_path, resource, {"p0": 10.0})
    assert only(quality_of(lake, resource, Cut())).error.labelled == 5


def test_too_many_cells_are_refused(tmp_path: Path) -> None:
    resource = resource_of()
    lake = kept(tmp_path, resource, *(outcome(n, "ok", "ok") for n in range(MOST_CELLS + 1)))
    with pytest.raises(InvalidInput, match="more than 2,000 cells"):
        quality_of(lake, resource, Cut(by="entity", window_ms=1))


def test_a_table_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    resource = resource_of()
    known = [name for name in OUTCOMES if name not in {"cohort", "disputed", "assumed", "probability", "maybe_lost"}]
    row = {name: value for name, value in outcome(0, "ok", "ok").items() if name in known}
    kept(tmp_path, resource, row, schema={name: OUTCOMES[name] for name in known})
    assert only(quality_of(str(tmp_path), resource, Cut(cohorts=True))).labelled == 1


def test_without_a_control_share_nothing_is_said_of_all(tmp_path: Path) -> None:
    resource = resource_of(control=0.0)
    rows = [outcome(0, "ok", "ok"), outcome(1, "ok", None, lost=3, maybe_lost=5)]
    found = only(quality_of(kept(tmp_path, resource, *rows), resource, Cut()))
    assert (found.kind, found.error.count, found.error.lost) == ("labelled only", 1, 0)
    assert (found.lost, found.maybe_lost) == (3, 5)


def test_before_there_are_outcomes_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        quality_of(str(tmp_path), resource_of(), Cut())

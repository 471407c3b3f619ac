"""Slices from the lake: groups by fields of the event, features as they were logged, labels as they count."""

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.outcomes.test_quality import NOON, kept, outcome, picked

from tidemill.cli.slices import fairness_story, report_of
from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.ingest.tables import events_schema
from tidemill.outcomes.fairness import fairness_of
from tidemill.outcomes.known import Cut
from tidemill.outcomes.matured import matured
from tidemill.outcomes.slices import SliceReport, slices_of
from tidemill.spec.model import ContinualModel
from tidemill.stats.sampling import SampledMean
from tidemill.testing.loop import example_resource

SITES = ("north", "south")


def resource_of(control: float = 1.0, slices: tuple[str, ...] = ("station", "shift")) -> ContinualModel:
    return example_resource(
        events={
            "entity": {"name": "station"},
            "id": "event_id",
            "timestamp": "captured_at",
            "fields": [{"name": "image", "type": "image"}, {"name": "shift", "type": "string"}],
        },
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        labels={"fields": [{"name": "defect", "type": "class"}], "control": control},
        triggers={"drift": {"slices": slices}},
    )


def worse_in_the_dark(count: int, *, bad: float = 0.5) -> list[dict[str, Any]]:
    """Outcomes that are wrong in `bad` of the cases where it is dark in the north, else in 4 %."""
    rng = random.Random(7)
    rows = []
    for number in range(count):
        is_dark, site = rng.random() < 0.3, SITES[rng.random() < 0.5]
        wrong = rng.random() < (bad if is_dark and site == "north" else 0.04)
        row = outcome(number, "ok", "scratch" if wrong else "ok", entity=site, event_id=f"e{number}")
        rows.append(row | {"predicted_at": NOON + timedelta(seconds=number), "is_dark": is_dark})
    return rows


def with_features(lake: Path, resource: ContinualModel, rows: list[dict[str, Any]]) -> str:
    rng = random.Random(8)
    features = [
        {"brightness": rng.uniform(0.1, 0.4) if row.pop("is_dark") else rng.uniform(0.4, 0.9), "noise": rng.random()}
        for row in rows
    ]
    return kept(lake, resource, *rows, features=features.__getitem__)


def events(lake: Path, resource: ContinualModel, rows: list[dict[str, Any]], shift: Any) -> None:
    """The events table with a shift for each outcome's event."""
    source = Source("c", "events", 0)
    schema = events_schema(resource)
    made = [
        {"source": str(source), "offset": at, "entity": row["entity"], "event_id": row["event_id"], "shift": shift(at)}
        | {"event_date": NOON.date()}
        for at, row in enumerate(rows)
    ]
    table = LakeTable(table_uri(str(lake), resource.id, "events"), schema, pipeline="ingest")
    table.append(pl.DataFrame(made, schema=schema, orient="row"), {source: len(rows)})


def report(lake: str, resource: ContinualModel, **cut: Any) -> SliceReport:
    found = slices_of(lake, resource, Cut(**cut))
    assert found is not None
    return found


def text_of(found: SliceReport) -> str:
    return "\n".join(str(part) for part in report_of(found))


def test_the_slice_that_is_worse_is_found_and_named(tmp_path: Path) -> None:
    resource = resource_of()
    found = report(with_features(tmp_path, resource, worse_in_the_dark(4000)), resource)
    assert (found.units, found.clusters, found.labelled, found.waiting) == ("time", 40, 4000, 0)
    first = found.found[0]
    assert {(one.feature, one.op) for one in first.conditions} == {("station", "="), ("brightness", "<")}
    assert first.interval.low < 0.5 < first.interval.high
    assert first.elsewhere == pytest.approx(0.05, abs=0.03)
    assert "station=north: error" not in text_of(found)
    assert "noise" not in text_of(found)
    assert f"brightness < {next(one.value for one in first.conditions if one.op == '<'):.4g}" in text_of(found)


def test_groups_are_of_the_entity_and_of_the_event_s_fields(tmp_path: Path) -> None:
    resource = resource_of()
    rows = worse_in_the_dark(2000)
    lake = with_features(tmp_path, resource, rows)
    events(tmp_path, resource, rows[:1990], lambda at: ("day", "night")[at % 2])
    station, shift = report(lake, resource).gaps
    assert [group.name for group in station.groups] == ["north", "south"]
    assert station.gap is not None
    assert (station.gap.largest, station.gap.smallest) == ("north", "south")
    assert station.gap.interval.low < station.gap.difference < station.gap.interval.high
    assert {group.name: (group.outcomes, group.is_judged) for group in shift.groups} == {
        "(none)": (10, False),
        "day": (995, True),
        "night": (995, True),
    }
    losses = [row["loss"] for row in rows if row["entity"] == "north"]
    own = SampledMean(1.0, risk=0.05 / 2 / 2)  # two groups share the risk, and each interval's sides
    own.update(pl.Series(losses).to_numpy(), pl.repeat(1.0, len(losses), eager=True).to_numpy())
    assert station.groups[0].interval == own.estimate().interval


def test_a_label_still_to_come_counts_for_the_slice_and_never_makes_a_finding(tmp_path: Path) -> None:
    resource = resource_of()
    rows = worse_in_the_dark(3000)
    for row in rows:
        if row["loss"]:
            row |= {"label": None, "loss": None}
    found = report(with_features(tmp_path, resource, rows), resource)
    assert found.found == []
    assert found.waiting == sum(row["loss"] is None for row in rows)
    assert "labels are still to come" in text_of(found)


def test_what_is_worse_by_its_labels_is_not_shown_while_the_rest_may_turn_out_as_bad(tmp_path: Path) -> None:
    resource = resource_of()
    rows = worse_in_the_dark(3000)
    for row in rows[1:]:
        if not (row["is_dark"] and row["entity"] == "north") and int(row["prediction_id"][1:]) % 2:
            row |= {"label": None, "loss": None}
    found = report(with_features(tmp_path, resource, rows), resource)
    assert found.tested
    assert found.found == []


def test_labels_of_known_probability_alone_count_and_each_by_it(tmp_path: Path) -> None:
    resource = resource_of(control=0.25)
    rows = [outcome(n, "ok", "ok" if n % 3 else None, probability=0.5, entity="north") for n in range(9)]
    rows[1] |= {"probability": None}  # volunteered
    rows[8] |= {"assumed": True}
    picked(tmp_path, resource, {"p0": 7.0})
    found = matured(kept(tmp_path, resource, *rows), resource, Cut())
    assert found is not None
    assert found.weights.tolist() == [4, 0, 2, 0, 2, 2, 0, 2, 0]
    assert [n for n, loss in enumerate(found.losses.tolist()) if loss != loss] == [0, 3, 6, 8]


def test_the_version_that_answered_last_is_looked_at_unless_another_is_asked_for(tmp_path: Path) -> None:
    resource = resource_of()
    rows = [outcome(n, "ok", "ok", version=f"v{n // 6}") for n in range(10)]
    lake = kept(tmp_path, resource, *rows)
    assert (report(lake, resource).version, report(lake, resource).outcomes) == ("v1", 4)
    assert report(lake, resource, version="v0").outcomes == 6
    assert report(lake, resource, since=NOON + timedelta(minutes=8)).outcomes == 2
    until = report(lake, resource, until=NOON + timedelta(minutes=6))
    assert (until.version, until.outcomes) == ("v0", 6)
    assert slices_of(lake, resource, Cut(version="v7")) is None


def test_where_labels_are_volunteered_that_is_said(tmp_path: Path) -> None:
    resource = resource_of(control=0.0)
    found = report(kept(tmp_path, resource, outcome(0, "ok", "ok"), outcome(1, "ok", None)), resource)
    assert (found.kind, found.outcomes, found.labelled) == ("labelled only", 2, 1)
    assert "labels.control: 0" in text_of(found)


def test_many_entities_are_the_clusters_and_none_of_them_a_slice(tmp_path: Path) -> None:
    resource = resource_of()
    rows = worse_in_the_dark(4000)
    for number, row in enumerate(rows):
        row["entity"] = f"customer {number % 60}"
    found = report(with_features(tmp_path, resource, rows), resource)
    assert (found.units, found.clusters) == ("entities", 60)
    assert {one.feature for slice_ in found.found for one in slice_.conditions} == {"brightness"}
    assert slices_of(str(tmp_path), resource, Cut(), units="time").units == "time"  # type: ignore[union-attr]


def test_features_of_mixed_kinds_are_read_as_their_first_value_says(tmp_path: Path) -> None:
    resource = resource_of(slices=())
    values: list[Any] = [1, 2.5, "many", None, True]
    lake = kept(
        tmp_path,
        resource,
        *(outcome(n, "ok", "ok") for n in range(5)),
        features=lambda n: {"a": values[n], "b": None, **({"late": "x"} if n else {})},
    )
    found = matured(lake, resource, Cut())
    assert found is not None
    assert found.values["a"].to_list() == [1.0, 2.5, None, None, 1.0]
    assert found.values["late"].to_list() == [None, "x", "x", "x", "x"]
    assert [one.name for one in found.features()] == ["station", "prediction.class", "a", "late"]


def test_json_has_the_whole_report(tmp_path: Path) -> None:
    import msgspec

    resource = resource_of()
    found = report(with_features(tmp_path, resource, worse_in_the_dark(3000)), resource)
    read = json.loads(msgspec.json.encode(found))
    assert read["found"][0]["conditions"][0]["feature"] in {"station", "brightness"}
    assert read["gaps"][0]["gap"]["largest"] == "north"


def test_before_there_are_outcomes_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        slices_of(str(tmp_path), resource_of(), Cut())


def test_fairness_is_told_by_the_groups_of_the_resource(tmp_path: Path) -> None:
    resource = resource_of(slices=("station",))
    rng = random.Random(3)
    rows = []
    for number in range(800):
        site, truth = SITES[number % 2], ("ok", "scratch")[rng.random() < 0.5]
        seen = truth == "scratch" and rng.random() < (0.9 if site == "north" else 0.5)
        rows.append(outcome(number, "scratch" if seen else "ok", truth, entity=site))
    (found,) = fairness_of(kept(tmp_path, resource, *rows), resource, Cut())
    assert (found.by, found.positive, found.units, found.outcomes) == ("station", "not ok", "time", 800)
    gap = found.rates.equal_opportunity.gap
    assert gap is not None
    assert (gap.largest, gap.smallest) == ("north", "south")
    assert gap.interval.low < 0.4 < gap.interval.high
    assert gap.interval.low > 0
    text = "\n".join(str(part) for part in fairness_story(found))
    assert "equal opportunity: gap from south to north: 0." in text
    (other,) = fairness_of(str(tmp_path), resource, Cut(), positive="ok")
    assert other.rates.demographic_parity.gap != found.rates.demographic_parity.gap


def test_fairness_without_groups_or_classes_says_so(tmp_path: Path) -> None:
    lake = kept(tmp_path, resource_of(), outcome(0, "ok", "ok"))
    with pytest.raises(InvalidInput, match="no groups"):
        fairness_of(lake, resource_of(slices=()), Cut())
    with pytest.raises(InvalidInput, match="dent is no class"):
        fairness_of(lake, resource_of(), Cut(), positive="dent")
    found = fairness_of(lake, resource_of(), Cut())
    assert [one.by for one in found] == ["station", "shift"]
    assert found[0].rates.demographic_parity.gap is None

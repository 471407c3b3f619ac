"""The estimate from the lake: the newest window's answers, and the labels known when."""

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.outcomes.test_quality import NOON, kept, outcome, resource_of

from tidemill.cli.quality import estimate_story
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.outcomes.estimated import Estimated, estimate_of
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.spec.model import ContinualModel

MINUTES = 3000
IN_A_MINUTE = 4
DELAY = timedelta(minutes=50)


def history(
    *, flipped_from: int | None = None, confidence: bool = True
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Outcomes, four a minute, and predictions that go on for `DELAY` after the last of them: those are unsure."""
    rng = random.Random(5)
    outcomes, predictions = [], []
    for number in range((MINUTES + 50) * IN_A_MINUTE):
        young = number >= MINUTES * IN_A_MINUTE
        sure = rng.uniform(0.5, 0.7) if young else rng.uniform(0.5, 1.0)
        right = rng.random() < sure
        if flipped_from is not None and number >= flipped_from * IN_A_MINUTE:
            right = rng.random() < 0.5
        output = json.dumps({"class": "ok", "confidence": sure} if confidence else {"class": "ok"})
        at = NOON + timedelta(minutes=number / IN_A_MINUTE)
        if not young:
            row = outcome(number, "ok", "ok" if right else "scratch")
            outcomes.append(row | {"output": output, "predicted_at": at, "available_at": at + DELAY})
        predictions.append({"prediction_id": f"p{number}", "version": "v1", "predicted_at": at, "output": output})
    return outcomes, predictions


def lake_of(lake: Path, resource: ContinualModel, outcomes: list[dict[str, Any]], predictions: Any) -> str:
    source = Source("c", "predictions", 0)
    rows = [
        row | {"source": str(source), "offset": at, "event_date": row["predicted_at"].date()}
        for at, row in enumerate(predictions)
    ]
    table = LakeTable(table_uri(str(lake), resource.id, "predictions"), PREDICTIONS, pipeline="o")
    table.append(pl.DataFrame(rows, schema=PREDICTIONS, orient="row"), {source: len(rows)})
    return kept(lake, resource, *outcomes)


def estimated(lake: Path, *, window_ms: int | None = None, **of: Any) -> Estimated:
    resource = resource_of()
    found = estimate_of(lake_of(lake, resource, *history(**of)), resource, window_ms=window_ms)
    assert found is not None
    return found


def test_the_newest_answers_are_estimated_by_their_confidences(tmp_path: Path) -> None:
    found = estimated(tmp_path)
    assert found.reason is None
    assert found.windows == 19
    assert found.through == NOON + timedelta(minutes=MINUTES + 49.75)
    assert found.through - found.since == pytest.approx(timedelta(minutes=101), abs=timedelta(minutes=2))
    # Half of the window is unsure: 0.4 wrong there, and 0.25 before.
    assert found.error == pytest.approx(0.325, abs=0.04)
    assert found.within < 0.1
    text = "\n".join(estimate_story(found))
    assert "estimated (no labels yet)" in text
    assert "on 19 past windows it was off by" in text


def test_after_a_concept_drift_it_is_said_that_nothing_can_be_estimated(tmp_path: Path) -> None:
    found = estimated(tmp_path, flipped_from=2500)
    assert found.error is None
    assert "cannot estimate: on past windows it was off by up to" in "\n".join(estimate_story(found))


def test_without_confidences_nothing_is_estimated(tmp_path: Path) -> None:
    found = estimated(tmp_path, confidence=False)
    assert (found.error, found.reason) == (None, "answers have no confidence in the log")


def test_long_windows_leave_too_few_to_hold_it_against(tmp_path: Path) -> None:
    found = estimated(tmp_path, window_ms=600 * 60_000)
    assert found.error is None
    assert "past windows have labels enough" in (found.reason or "")


def test_without_predictions_there_is_nothing_to_estimate(tmp_path: Path) -> None:
    resource = resource_of()
    assert estimate_of(kept(tmp_path, resource, outcome(0, "ok", "ok")), resource) is None
    assert estimate_story(None) == []

"""Groups that are held together, confidences that mean what they say, and the size of a model."""

from collections.abc import Mapping

import numpy as np
import pytest

from tidemill.evaluation.calibration import calibration_error
from tidemill.evaluation.gates import GateVerdict, judge
from tidemill.evaluation.scoring import Evaluation, Rows, Scores
from tidemill.evaluation.tables import confusion, figures, group_figures, worst_rows
from tidemill.spec.gates import Gates

STATIONS = ("A",) * 200 + ("B",) * 200 + ("C",) * 10
TRUTHS = ("ok", "scratch") * 205
OTHER = {"ok": "scratch", "scratch": "ok"}


def scores(version: str, errors: dict[str, float], confidence: float | None = None, seed: int = 0) -> Scores:
    """Answers that are wrong at the rate of their row's station."""
    luck = np.random.default_rng(seed).random(len(TRUTHS))
    losses = tuple(float(one < errors[station]) for one, station in zip(luck, STATIONS, strict=True))
    said = tuple(OTHER[truth] if loss else truth for truth, loss in zip(TRUTHS, losses, strict=True))
    return Scores(version=version, losses=losses, classes=said, confidences=(confidence,) * len(said))


def evaluation(candidate: Scores, champion: Scores | None = None, size: int | None = None) -> Evaluation:
    ids = tuple(f"e{number}" for number in range(len(TRUTHS)))
    rows = Rows(ids=ids, entities=STATIONS, truths=TRUTHS, groups={"station": STATIONS})
    return Evaluation(
        candidate=candidate, champion=champion, snapshot="", classes=("ok", "scratch"), rows=rows, size=size
    )


def verdict(gate: Mapping[str, object], found: Evaluation) -> GateVerdict:
    """The last gate's."""
    return judge(Gates.model_validate(gate), found)[-1]


EVEN, WORSE_IN_B = {"A": 0.1, "B": 0.1, "C": 0.1}, {"A": 0.1, "B": 0.4, "C": 0.1}


@pytest.mark.parametrize("metric", ["error", "f1", "recall", "precision"])
def test_groups_that_are_too_far_apart_are_refused_by_name(metric: str) -> None:
    gate = {"slices": [{"by": "station", "metric": metric, "maxGap": 0.1}]}
    found = verdict(gate, evaluation(scores("v2", WORSE_IN_B)))
    assert (found.gate, found.passed) == ("slices.station", False)
    assert f"{metric} of " in found.reason
    assert "more than 0.1" in found.reason
    assert verdict(gate, evaluation(scores("v2", EVEN))).passed is True


def test_a_small_group_is_not_judged_and_named() -> None:
    found = verdict({"slices": [{"by": "station"}]}, evaluation(scores("v2", {"A": 0.0, "B": 0.0, "C": 1.0})))
    assert found.passed is True
    assert "of fewer than 30 rows and not judged: C" in found.reason
    assert found.figures["not_judged"] == 1


def test_a_group_that_is_worse_than_under_the_champion_is_refused_though_the_others_are_better() -> None:
    champion = scores("v1", {"A": 0.4, "B": 0.05, "C": 0.1})
    found = verdict({"slices": [{"by": "station", "margin": 0.05}]}, evaluation(scores("v2", WORSE_IN_B), champion))
    assert found.passed is False
    assert "station B is worse than under the champion by 0.3" in found.reason


def test_no_group_is_refused_by_chance_in_more_than_5_percent() -> None:
    gate = {"slices": [{"by": "station", "maxGap": 0.0, "margin": 0.0}]}
    refused = 0
    for seed in range(60):
        pair = scores("v2", EVEN, seed=seed), scores("v1", EVEN, seed=1000 + seed)
        refused += verdict(gate, evaluation(*pair)).passed is False
    assert refused <= 8  # two promises of 5 % each


@pytest.mark.parametrize(("confidence", "passed"), [(0.9, True), (0.99, True), (0.6, False)])
def test_confidences_that_are_surely_off_are_refused(confidence: float, passed: bool) -> None:
    found = verdict({"calibration": {"maxError": 0.1}}, evaluation(scores("v2", EVEN, confidence)))
    assert (found.gate, found.passed) == ("calibration", passed)
    assert ("surely above the limit of 0.1" in found.reason) is True


@pytest.mark.parametrize("rows", [10, 50, 400])
def test_a_calibrated_model_is_above_its_lower_bound_in_at_most_5_percent_at_any_number_of_rows(rows: int) -> None:
    rng, off = np.random.default_rng(5), 0
    for seed in range(120):
        said = rng.beta(4, 2, rows)
        right = rng.random(rows) < said
        made = Scores(version="v", losses=tuple((~right).astype(float).tolist()), confidences=tuple(said.tolist()))
        found = calibration_error(made, seed=seed)
        assert found is not None
        off += found[1] > 0.03  # the error of binning itself is below that
    assert off / 120 <= 0.05 + 3 * (0.05 * 0.95 / 120) ** 0.5


def test_without_confidences_calibration_is_not_applicable() -> None:
    assert verdict({"calibration": {}}, evaluation(scores("v2", EVEN))).passed is None


@pytest.mark.parametrize(("size", "passed"), [(1 << 20, True), (3 << 20, False), (None, False)])
def test_a_model_that_is_too_large_or_was_not_measured_is_refused(size: int | None, passed: bool) -> None:
    found = verdict({"size": {"atMostMib": 2}}, evaluation(scores("v2", EVEN), size=size))
    assert (found.gate, found.passed) == ("size", passed)


@pytest.mark.parametrize("gate", [{"latency": {"p99": "50ms"}}, {"robustness": {}}])
def test_what_nobody_measured_has_not_passed(gate: dict[str, object]) -> None:
    found = verdict(gate, evaluation(scores("v2", EVEN)))
    assert found.passed is False
    assert "nothing was measured for it" in found.reason


def test_tables_count_what_was_answered() -> None:
    champion = scores("v1", {"A": 0.0, "B": 0.0, "C": 0.0})
    found = evaluation(scores("v2", WORSE_IN_B, 0.8), champion)
    table = confusion(found.rows, found.candidate)
    assert sum(sum(row.values()) for row in table.values()) == len(TRUTHS)
    by_group = group_figures(found, "station")
    assert by_group["C"]["rows"] == 10
    assert by_group["B"]["champion_error"] == 0
    assert by_group["B"]["error"] > by_group["A"]["error"]
    assert figures(found, found.rows, found.candidate)["error"] == pytest.approx(found.candidate.mean)
    worst = worst_rows(found.fresh, 5)
    assert len(worst) == 5
    assert all(row.champion_right and row.answer != row.truth for row in worst)

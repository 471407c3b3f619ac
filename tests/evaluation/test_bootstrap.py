"""Bounds of figures from the sample alone."""

import numpy as np
import pytest
from benchmarks.simulate_gates import WORLDS, at_the_margin
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.evaluation.bootstrap import difference_bounds, figure_bounds, mean_bounds, units_of
from tidemill.evaluation.metrics import METRICS, Sample
from tidemill.evaluation.scoring import Evaluation, Rows, Scores
from tidemill.spec.gates import GateMetric

CLASSES = ("a", "b", "c")
answers = st.lists(st.tuples(*[st.sampled_from(CLASSES)] * 3), min_size=1, max_size=30)


def sample(rows: list[tuple[str, str, str]]) -> Sample:
    """Of truth, the candidate's answer and the champion's."""

    def scores(place: int) -> Scores:
        said = tuple(row[place] for row in rows)
        losses = tuple(float(row[0] != row[place]) for row in rows)
        return Scores(version=str(place), losses=losses, classes=said)

    both = [scores(1), scores(2)]
    evaluation = Evaluation(candidate=both[0], snapshot="", classes=CLASSES)
    return Sample.of(evaluation, Rows(truths=tuple(row[0] for row in rows)), both)


@given(answers, st.sampled_from(METRICS))
@settings(max_examples=30)
def test_a_figure_lies_between_its_bounds_and_they_in_its_range(
    rows: list[tuple[str, str, str]], metric: GateMetric
) -> None:
    found = figure_bounds(sample(rows), metric)
    assert 0 <= found.lower <= found.upper <= 1
    assert found.rows == found.units == len(rows)
    if metric == "error":
        assert found.lower <= found.value + 1e-9
        assert found.upper >= found.value - 1e-9


@given(answers, st.sampled_from(METRICS))
@settings(max_examples=30)
def test_swapping_the_versions_mirrors_the_difference(rows: list[tuple[str, str, str]], metric: GateMetric) -> None:
    forth = difference_bounds(sample(rows), metric)
    back = difference_bounds(sample([(truth, other, one) for truth, one, other in rows]), metric)
    assert forth.value == pytest.approx(-back.value)
    assert forth.lower == pytest.approx(-back.upper, abs=0.1)


@pytest.mark.parametrize("rows", [30, 500, 5000])
def test_versions_that_never_differed_may_differ_on_three_rows_in_so_many(rows: int) -> None:
    found = difference_bounds(sample([("a", "a", "a")] * rows), "error")
    assert found.value == 0
    assert found.lower == pytest.approx(-(1 - 0.05 ** (1 / rows)), rel=0.05)
    assert found.upper == pytest.approx(1 - 0.05 ** (1 / rows), rel=0.05)


def test_the_same_sample_gives_the_same_bounds_in_any_order() -> None:
    rng = np.random.default_rng(1)
    rows = [(truth, one, other) for truth, one, other in rng.choice(CLASSES, size=(200, 3)).tolist()]
    assert difference_bounds(sample(rows), "f1") == difference_bounds(sample(rows[::-1]), "f1")


def test_f1_is_computed_anew_from_the_counts_of_each_resample() -> None:
    """Against drawing the rows one by one, as the method is usually written."""
    rng = np.random.default_rng(2)
    truth = rng.choice(CLASSES, size=800, p=[0.6, 0.3, 0.1])
    said = np.where(rng.random(800) < 0.8, truth, rng.choice(CLASSES, size=800))
    whole = sample(list(zip(truth.tolist(), said.tolist(), truth.tolist(), strict=True)))
    drawn = [whole.part(rng.integers(0, 800, 800)).figure("f1")[0] for _ in range(2000)]
    found = figure_bounds(whole, "f1")
    assert found.upper == pytest.approx(np.quantile(drawn, 0.95), abs=0.01)
    assert found.lower == pytest.approx(np.quantile(drawn, 0.05), abs=0.015)
    assert found.lower < np.quantile(drawn, 0.05)


def test_the_metrics_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score, precision_score, recall_score

    rng = np.random.default_rng(3)
    rows = [(truth, one, other) for truth, one, other in rng.choice(CLASSES[:2], size=(90, 3)).tolist()]
    whole, truth, said = sample(rows), [row[0] for row in rows], [row[1] for row in rows]
    theirs = {"f1": f1_score, "recall": recall_score, "precision": precision_score}
    for metric, score in theirs.items():
        found = whole.figure(metric)[0]  # type: ignore[arg-type]
        assert found == pytest.approx(score(truth, said, average="macro"))


def test_a_box_that_is_elsewhere_is_no_hit_and_nothing_is_no_class_of_a_detection() -> None:
    scores = Scores(version="v", losses=(0.0, 1.0, 0.0, 1.0), classes=("ok", "scratch", "scratch", "ok"))
    evaluation = Evaluation(candidate=scores, snapshot="", kind="detection", classes=("ok", "scratch"))
    found = Sample.of(evaluation, Rows(truths=("ok", "scratch", "scratch", "scratch")), [scores])
    assert found.names == ("scratch",)
    assert found.figure("recall")[0] == pytest.approx(1 / 3)
    assert found.figure("precision")[0] == pytest.approx(1 / 2)


def test_rows_of_few_entities_are_taken_for_themselves() -> None:
    assert units_of(["A", "B"] * 50) is None
    assert units_of(["A"] * 1000 + [f"e{number}" for number in range(100)]) is None
    units = units_of([f"e{number}" for number in range(30)] * 2)
    assert units is not None
    assert units.tolist() == [*range(30), *range(30)]


def test_copies_of_a_row_within_an_entity_are_no_further_evidence() -> None:
    rng = np.random.default_rng(4)
    lost = [("a", "b", "a") if one else ("a", "a", "a") for one in rng.random(40) < 0.2]
    once = difference_bounds(sample(lost), "error")
    copies = [row for row in lost for _ in range(10)]
    units = units_of([f"e{number}" for number in range(40) for _ in range(10)])
    assert difference_bounds(sample(copies), "error", units).lower == pytest.approx(once.lower, abs=0.005)
    assert difference_bounds(sample(copies), "error").lower > once.lower + 0.03


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf"), 1.0]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(InvalidInput):
        mean_bounds(values, (0, 1))


@pytest.mark.parametrize("world", WORLDS[:3], ids=lambda world: world.name)
def test_a_candidate_at_the_margin_passes_in_at_most_5_percent(world: object) -> None:
    passed, common = at_the_margin(world, "error", 200, 150)  # type: ignore[arg-type]
    assert passed <= 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5
    assert common > passed

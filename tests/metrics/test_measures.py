"""Quality figures: laws of the sums, and reference values of scikit-learn."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from tidemill.core.errors import InvalidInput
from tidemill.metrics.measures import Figures, Measures
from tidemill.metrics.sums import Sums, exact
from tidemill.spec.model import LabelField, Prediction, Value

CLASSES = ("ok", "scratch", "dent")
DEFECT = (LabelField(name="defect", type="class"),)
BOXED = (*DEFECT, LabelField(name="where", type="box"))
NUMBER = (LabelField(name="demand", type="float"),)
VALUE = Value.model_validate({"missed": 100.0, "falseReject": 2.0, "confused": 5.0})
KINDS = {
    "classification": Measures(Prediction(type="classification", classes=CLASSES, value=VALUE), DEFECT),
    "detection": Measures(Prediction(type="detection", classes=CLASSES), BOXED),
    "regression": Measures(Prediction(type="regression", tolerance=5.0), NUMBER),
}

Pair = tuple[dict[str, Any], dict[str, Any]]

scores = st.one_of(st.floats(), st.none(), st.text(max_size=2), st.integers(), st.booleans(), st.just([1]))
boxes = st.one_of(scores, st.lists(scores, min_size=3, max_size=5), st.just([0.0, 0.0, 4.0, 4.0]))
answers = st.fixed_dictionaries(
    {},
    optional={
        "class": st.one_of(st.sampled_from(CLASSES), scores),
        "confidence": st.one_of(st.floats(0, 1), scores),
        "probabilities": st.one_of(
            scores, st.dictionaries(st.sampled_from(CLASSES), st.one_of(st.floats(0, 1), scores))
        ),
        "box": boxes,
        "value": scores,
        "quantiles": st.one_of(scores, st.dictionaries(st.sampled_from(["0.1", "0.5", "2", "x"]), scores)),
    },
)
labels = st.fixed_dictionaries(
    {
        "defect": st.sampled_from([*CLASSES, "bubble"]),
        "where": st.sampled_from([None, [0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0]]),
        "demand": st.floats(-1e6, 1e6),
    }
)


def sums_of(measures: Measures, pairs: list[Pair]) -> Sums:
    made = Sums()
    for output, label in pairs:
        made.add(measures.terms(output, label))
    return made


def figures_of(measures: Measures, pairs: list[Pair]) -> Figures:
    found = measures.figures(sums_of(measures, pairs))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(answers, labels), max_size=12), wrong=st.tuples(answers, labels), data=st.data())
def test_any_order_any_split_and_corrections_are_counting_anew(
    kind: str, pairs: list[Pair], wrong: Pair, data: st.DataObject
) -> None:
    measures = KINDS[kind]
    whole = sums_of(measures, pairs)
    shuffled = data.draw(st.permutations(pairs))
    cut = data.draw(st.integers(0, len(pairs)))
    parts = sums_of(measures, shuffled[:cut]) + sums_of(measures, [wrong, *shuffled[cut:]])
    corrected = parts - sums_of(measures, [wrong])
    assert corrected == whole
    assert measures.figures(corrected) == measures.figures(whole)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=100)
@given(absurd=answers, label=labels)
def test_no_answer_poisons_a_cell(kind: str, absurd: dict[str, Any], label: dict[str, Any]) -> None:
    good: Pair = (
        {"class": "ok", "confidence": 0.9, "value": 1.0},
        {"defect": "ok", "where": None, "demand": 2.0},
    )
    found = figures_of(KINDS[kind], [good, (absurd, label)])
    assert found.labelled == 2
    for part in (found.classification, found.regression):
        if part is not None:
            assert part.scored + part.not_scored == 2
    numbers = [found.error]
    if found.classification:
        numbers += [found.classification.brier or 0.0, found.classification.calibration_error or 0.0]
    if found.regression:
        numbers += [found.regression.mae or 0.0, found.regression.rmse or 0.0]
    assert np.isfinite(numbers).all()


def test_sums_of_floats_are_exact_where_floats_are_not() -> None:
    values = [0.1] * 10 + [1e16, 1.0, -1e16]
    made = Sums((("x",), exact(value)) for value in values)
    assert made.total("x") == 2.0 != sum(values)


def world(rows: int, *, probabilities: bool, seed: int = 5) -> list[Pair]:
    """Answers that know something, with probabilities of each class or a confidence."""
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for truth in rng.integers(0, 3, rows):
        chances = rng.dirichlet(np.ones(3) * 0.6 + 2.0 * (np.arange(3) == truth))
        said = int(chances.argmax())
        output: dict[str, Any] = {"class": CLASSES[said]}
        if probabilities:
            output["probabilities"] = dict(zip(CLASSES, chances.tolist(), strict=True))
        else:
            output["confidence"] = float(chances[said])
        pairs.append((output, {"defect": CLASSES[truth], "where": None}))
    return pairs


def test_classes_are_as_scikit_learn_says() -> None:
    pairs = world(3000, probabilities=True)
    found = figures_of(KINDS["classification"], pairs).classification
    assert found is not None
    truth = [label["defect"] for _, label in pairs]
    said = [output["class"] for output, _ in pairs]
    chances = np.array([[output["probabilities"][name] for name in CLASSES] for output, _ in pairs])
    assert found.accuracy == pytest.approx(reference.accuracy_score(truth, said))
    parts = reference.precision_recall_fscore_support(truth, said, labels=CLASSES)
    for place, name in enumerate(CLASSES):
        one = found.classes[name]
        assert (one.precision, one.recall, one.f1) == pytest.approx([part[place] for part in parts[:3]])
        assert one.truths == parts[3][place]
        exactly = reference.roc_auc_score([true == name for true in truth], chances[:, place])
        assert one.auc is not None
        assert abs(one.auc.value - exactly) <= one.auc.error < 0.01
    assert found.macro_f1 == pytest.approx(reference.f1_score(truth, said, average="macro"))
    order = sorted(CLASSES)
    columns = chances[:, [CLASSES.index(name) for name in order]]
    assert found.log_loss == pytest.approx(reference.log_loss(truth, columns, labels=order))
    brier = reference.brier_score_loss(truth, columns, labels=order, scale_by_half=True)
    assert found.brier == pytest.approx(brier)
    assert found.probabilistic == "class"


def test_with_two_classes_a_confidence_says_both_probabilities() -> None:
    rng = random.Random(3)
    measures = Measures(Prediction(type="classification", classes=("ok", "bad")), DEFECT)
    pairs, truth, chance = [], [], []
    for _ in range(2000):
        bad = rng.random()
        truth.append(rng.random() < bad)
        chance.append(bad)
        answer = {"class": "bad" if bad > 0.5 else "ok", "confidence": max(bad, 1 - bad)}
        pairs.append((answer, {"defect": "bad" if truth[-1] else "ok"}))
    found = figures_of(measures, pairs).classification
    assert found is not None
    assert found.log_loss == pytest.approx(reference.log_loss(truth, chance))
    assert found.brier == pytest.approx(reference.brier_score_loss(truth, chance))
    area = found.classes["bad"].auc
    assert area is not None
    assert abs(area.value - reference.roc_auc_score(truth, chance)) <= area.error < 0.01


def test_with_more_classes_a_confidence_is_of_the_answer() -> None:
    pairs = world(2000, probabilities=False)
    found = figures_of(KINDS["classification"], pairs).classification
    assert found is not None
    right = [output["class"] == label["defect"] for output, label in pairs]
    confidence = [output["confidence"] for output, _ in pairs]
    assert (found.probabilistic, found.macro_auc) == ("answer", None)
    assert found.log_loss == pytest.approx(reference.log_loss(right, confidence))
    assert found.brier == pytest.approx(reference.brier_score_loss(right, confidence))


def test_calibration_error_is_the_mean_distance_over_15_bins() -> None:
    pairs = world(2000, probabilities=False)
    found = figures_of(KINDS["classification"], pairs).classification
    right = np.array([output["class"] == label["defect"] for output, label in pairs])
    confidence = np.array([output["confidence"] for output, _ in pairs])
    slots = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(abs(confidence[slots == s].sum() - right[slots == s].sum()) for s in range(15)) / len(pairs)
    assert found is not None
    assert found.calibration_error == pytest.approx(expected)


def test_a_class_that_nobody_declared_is_counted_apart_and_wrong() -> None:
    pairs = [({"class": "ok", "confidence": 0.9}, {"defect": name}) for name in ("ok", "bubble", "crack")]
    found = figures_of(KINDS["classification"], pairs)
    assert found.classification is not None
    assert found.classification.confusion == {"ok": {"ok": 1}, "(unknown)": {"ok": 2}}
    assert (found.classification.unknown, found.classification.not_scored) == (2, 2)
    assert found.error == pytest.approx(2 / 3)
    assert found.classification.classes["ok"].precision == pytest.approx(1 / 3)


def test_a_bool_says_whether_anything_was_found() -> None:
    measures = Measures(Prediction(type="classification", classes=CLASSES), (LabelField(name="bad", type="bool"),))
    pairs = [
        ({"class": "scratch"}, {"bad": True}),
        ({"class": "dent"}, {"bad": False}),
        ({"class": "ok"}, {"bad": False}),
    ]
    found = figures_of(measures, pairs).classification
    assert found is not None
    assert found.confusion == {"found": {"found": 1}, "ok": {"found": 1, "ok": 1}}


def test_a_label_that_does_not_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match="demand should be a float"):
        KINDS["regression"].terms({"value": 1.0}, {"demand": "much"})


def test_numbers_are_as_scikit_learn_says() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(100, 20, 1000)
    said = truth + rng.normal(1, 4, 1000)
    low = said - 5
    pairs: list[Pair] = [
        ({"value": float(v), "quantiles": {"0.1": float(q)}}, {"demand": float(y)})
        for v, q, y in zip(said, low, truth, strict=True)
    ]
    found = figures_of(KINDS["regression"], [*pairs, ({"value": float("nan")}, {"demand": 1.0})]).regression
    assert found is not None
    assert found.mae == pytest.approx(reference.mean_absolute_error(truth, said))
    assert found.rmse == pytest.approx(reference.root_mean_squared_error(truth, said))
    assert found.quantiles["0.1"].loss == pytest.approx(reference.mean_pinball_loss(truth, low, alpha=0.1))
    assert found.quantiles["0.1"].below == pytest.approx((truth <= low).mean())
    assert (found.scored, found.not_scored) == (1000, 1)
    assert found.within_tolerance == pytest.approx((abs(said - truth) <= 5).sum() / 1001)


def detections(rows: int) -> tuple[list[Pair], np.ndarray, np.ndarray, int]:
    """Pictures with one scratch each or none: pairs, and of the detections their scores and whether they are right."""
    rng = np.random.default_rng(9)
    pairs: list[Pair] = []
    found, right, truths = [], [], 0
    for _ in range(rows):
        there, seen = rng.random() < 0.5, rng.random() < 0.6
        shift = float(rng.uniform(0, 6))
        score = float(rng.beta(6, 2) if there else rng.beta(3, 3))
        label = {"defect": "scratch" if there else "ok", "where": [0.0, 0.0, 10.0, 10.0] if there else None}
        output: dict[str, Any] = {"class": "scratch" if seen else "ok", "confidence": score}
        output["box"] = [shift, 0.0, shift + 10.0, 10.0] if seen else None
        pairs.append((output, label))
        truths += there
        if seen:
            found.append(score)
            right.append(there and (10 - shift) / (10 + shift) >= 0.5)
    return pairs, np.array(found), np.array(right), truths


def test_average_precision_is_as_scikit_learn_says_times_the_share_found() -> None:
    pairs, score, right, truths = detections(3000)
    found = figures_of(KINDS["detection"], pairs).detection
    assert found is not None
    expected = reference.average_precision_score(right, score) * right.sum() / truths
    one = found.average_precision["scratch"]
    assert abs(one.value - expected) <= one.error < 0.02
    assert found.mean_average_precision == one.value  # no other class was there to find


def test_mean_iou_is_over_pictures_where_both_have_a_box() -> None:
    there = {"defect": "scratch", "where": [0.0, 0.0, 2.0, 1.0]}
    pairs: list[Pair] = [
        ({"class": "scratch", "confidence": 0.9, "box": [0.0, 0.0, 2.0, 1.0]}, there),
        ({"class": "scratch", "confidence": 0.9, "box": [1.0, 0.0, 3.0, 1.0]}, there),
        ({"class": "ok", "confidence": 0.9, "box": None}, there),
        ({"class": "scratch", "confidence": 0.9, "box": [0.0, float("nan"), 3.0, 1.0]}, there),
    ]
    found = figures_of(KINDS["detection"], pairs).detection
    assert found is not None
    assert found.mean_iou == pytest.approx(2 / 3)
    assert (found.boxes, found.boxes_not_scored) == (2, 1)


def test_value_is_what_the_mistakes_cost() -> None:
    pairs: list[Pair] = [
        ({"class": "ok"}, {"defect": "ok"}),
        ({"class": "ok"}, {"defect": "dent"}),
        ({"class": "dent"}, {"defect": "ok"}),
        ({"class": "dent"}, {"defect": "scratch"}),
        ({"class": "ok"}, {"defect": "bubble"}),
    ]
    cost = figures_of(KINDS["classification"], pairs).cost
    assert cost is not None
    assert (cost.total, cost.per_outcome) == (207.0, 207.0 / 5)
    assert cost.mistakes == {"missed": 2, "false_reject": 1, "confused": 1}


def test_a_cell_stays_small_whatever_comes() -> None:
    rng = random.Random(1)
    pairs = [
        (
            {"class": rng.choice(CLASSES), "probabilities": {"ok": (p := rng.random()), "dent": 1 - p}},
            {"defect": rng.choice([*CLASSES, str(rng.random())])},
        )
        for _ in range(5000)
    ]
    assert len(sums_of(KINDS["classification"], pairs)) <= 16 + 512 * 3 + 45 + 12

"""Trainers of other libraries, by the same protocols."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import UserCodeError
from tidemill.training.learn import Learnt, learn
from tidemill.training.protocols import Codec, Learner, Row
from tidemill.training.session import open_session
from tidemill.training.tensors import encode
from tidemill.training.user_code import load_codec, load_learner

FOLDER = Path(__file__).parents[2] / "examples" / "other_trainers"
LIBRARIES = ("Linear", "Forest", "Online")


@pytest.fixture(autouse=True)
def _code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def codec() -> Codec:
    return load_codec("learners:Codec")


def made(count: int, seed: int, *, tilt: float = 1.0) -> tuple[list[Row], list[Mapping[str, Any]]]:
    """Rows of which `price` and `demand` decide, on scales that differ."""
    rng = np.random.default_rng(seed)
    price, demand, transfer = rng.normal(0.5, 0.2, count), rng.normal(0, 1, count), rng.normal(1, 2, count)
    up = (price - 0.5) / 0.2 + tilt * demand > 0
    rows: list[Row] = [
        {"price": a, "demand": b, "transfer": c} for a, b, c in zip(price, demand, transfer, strict=True)
    ]
    return rows, [{"direction": "up" if each else "down"} for each in up]


def learner(name: str) -> Learner:
    found = load_learner(f"learners:{name}")
    assert found is not None
    return found


def accuracy(learnt: Learnt, codec: Codec, rows: list[Row], labels: list[Mapping[str, Any]]) -> float:
    session = open_session(learnt.exported.model)
    names = [spec.name for spec in learnt.exported.outputs]
    answers = codec.decode(dict(zip(names, session.run(names, dict(encode(codec, rows))), strict=True)))
    return float(
        np.mean([answer["class"] == label["direction"] for answer, label in zip(answers, labels, strict=True)])
    )


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_another_library_learnt_answers_as_onnx(codec: Codec, name: str) -> None:
    learnt = learn(learner(name), codec, *made(1500, 1), seed=1)
    assert {spec.name for spec in learnt.exported.inputs} == {"features"}
    assert "probabilities" in {spec.name for spec in learnt.exported.outputs}
    assert accuracy(learnt, codec, *made(500, 2)) > 0.85


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_same_rows_and_seed_give_the_same_version(codec: Codec, name: str) -> None:
    one, other = (learn(learner(name), codec, *made(300, 1), seed=1) for _ in range(2))
    assert one.weights == other.weights
    assert one.exported.model == other.exported.model


def test_river_goes_on_as_if_it_had_never_stopped(codec: Codec) -> None:
    rows, labels = made(1000, 1)
    whole = learn(learner("Online"), codec, rows, labels, seed=1)
    first = learn(learner("Online"), codec, rows[:600], labels[:600], seed=1)
    second = learn(learner("Online"), codec, rows[600:], labels[600:], seed=1, weights=first.weights)
    assert second.weights == whole.weights


def test_a_library_that_goes_on_learning_follows_what_changed(codec: Codec) -> None:
    first = learn(learner("Linear"), codec, *made(1500, 1), seed=1)
    changed = made(1500, 2, tilt=-1.0)
    second = learn(learner("Linear"), codec, *changed, seed=1, weights=first.weights)
    fresh = made(500, 3, tilt=-1.0)
    assert accuracy(second, codec, *fresh) > accuracy(first, codec, *fresh) + 0.2


def test_an_export_that_does_not_answer_as_the_library_does_is_refused(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = learner("Online")
    monkeypatch.setattr(
        type(wrong), "predict", lambda self, inputs: {"probabilities": np.full((len(inputs["features"]), 2), 0.5)}
    )
    with pytest.raises(UserCodeError, match=r"probabilities differs by .* between ONNX Runtime and predict"):
        learn(wrong, codec, *made(100, 1), seed=1)


def test_a_learner_that_raises_is_told_with_its_method(codec: Codec) -> None:
    rows, _ = made(20, 1)
    with pytest.raises(UserCodeError, match=r"learners:Linear\.fit raised ValueError"):
        learn(learner("Linear"), codec, rows, [{"direction": "up"}] * 20, seed=1)


def test_a_learner_needs_all_its_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "halved.py").write_text("class Learner:\n    def to_onnx(self): return b''\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserCodeError, match="halved:Learner has no fit"):
        load_learner("halved:Learner")


def test_nothing_of_torch_is_loaded_for_them() -> None:
    program = "import sys, tidemill.training.learn; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

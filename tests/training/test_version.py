"""From rows to a version that answers: fit, weights, export, artifact, predictor."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tidemill.artifacts import Manifest, PredictionShape, verify, write
from tidemill.core.errors import Corrupt, InvalidInput, UserCodeError
from tidemill.testing.training import picture
from tidemill.training.device import Feed
from tidemill.training.export import export
from tidemill.training.fit import Fitted, fit
from tidemill.training.optimizer import AdamW
from tidemill.training.predictor import OnnxModel, check_answers
from tidemill.training.progress import Epoch, Progress
from tidemill.training.protocols import Codec, Row, Tensors, Trainer
from tidemill.training.tensors import TensorSource, encode
from tidemill.training.user_code import load_codec, load_trainer
from tidemill.training.weights import load_weights, save_weights

ROWS: list[Row] = [{"image": picture(number % 2 == 1, number)} for number in range(200)]
LABELS: list[Mapping[str, Any]] = [{"defect": "scratch" if number % 2 else "ok"} for number in range(200)]


@pytest.fixture
def codec() -> Codec:
    return load_codec("tiny_model:Codec")


@pytest.fixture
def trainer() -> Trainer:
    return load_trainer("tiny_model:Trainer")


@pytest.fixture
def fitted(trainer: Trainer, codec: Codec) -> Fitted:
    return fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu")


@pytest.fixture
def version(tmp_path: Path, fitted: Fitted, codec: Codec) -> Path:
    exported = export(fitted.module, encode(codec, ROWS[:4]))
    files: dict[str, bytes | Path] = {
        "model.onnx": exported.model,
        "weights.safetensors": save_weights(fitted.module),
        "reference.json": b"{}",
    }
    manifest = Manifest(
        version="v1",
        model="default.m",
        codec="tiny_model:Codec",
        prediction=PredictionShape(type="classification", classes=("ok", "scratch")),
        created_at="2026-01-01T00:00:00+00:00",
        run="v1",
        snapshot="0" * 64,
        inputs=exported.inputs,
        outputs=exported.outputs,
    )
    write(tmp_path / "v1", files, manifest)
    return tmp_path / "v1"


def state(module: torch.nn.Module) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, other = state(first), state(second)
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_training_learns_and_says_how_each_epoch_went(trainer: Trainer, codec: Codec) -> None:
    told: list[Epoch] = []

    def take(news: Epoch | Progress) -> None:
        if isinstance(news, Epoch):
            told.append(news)

    found = fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu", progress=take)
    assert tuple(told) == found.epochs
    assert [epoch.number for epoch in told] == [1, 2, 3, 4]
    assert told[-1].loss < 0.5 * told[0].loss
    assert str(told[0]).startswith("epoch 1/4: loss ")


def test_the_same_seed_gives_the_same_weights(trainer: Trainer, codec: Codec, fitted: Fitted) -> None:
    assert same(fitted.module, fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu").module)
    assert not same(fitted.module, fit(trainer, codec, ROWS, LABELS, seed=2, device="cpu").module)


def test_a_warm_start_begins_where_the_weights_end(trainer: Trainer, codec: Codec, fitted: Fitted) -> None:
    cold, warm = (
        fit(trainer, codec, ROWS, LABELS, seed=2, device="cpu", weights=weights).epochs[0].loss
        for weights in (None, save_weights(fitted.module))
    )
    assert warm < 0.5 * cold


def test_weights_of_another_shape_are_refused_by_name(trainer: Trainer, codec: Codec, fitted: Fitted) -> None:
    trainer.hidden = 16  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match=r"layers\.1\.weight is \(8, 64\), now \(16, 64\)") as caught:
        fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu", weights=save_weights(fitted.module))
    assert "warmStart" in str(caught.value.hint)


def test_bytes_that_are_no_weights_are_refused(fitted: Fitted) -> None:
    with pytest.raises(Corrupt):
        load_weights(fitted.module, b"nothing")


def test_few_rows_are_seen_as_often_as_the_least_number_of_batches_asks(trainer: Trainer, codec: Codec) -> None:
    batches = -(-len(ROWS) // trainer.batch_size)
    trainer.min_steps = 6 * batches - 1  # type: ignore[attr-defined]
    found = fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu")
    assert [epoch.of for epoch in found.epochs] == [6] * 6
    trainer.min_steps = batches  # type: ignore[attr-defined]
    assert len(fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu").epochs) == trainer.epochs


def test_a_loss_that_is_not_finite_ends_the_training(trainer: Trainer, codec: Codec) -> None:
    trainer.loss = lambda outputs, targets: outputs["logits"].sum() * float("nan")  # type: ignore[method-assign]
    with pytest.raises(UserCodeError, match=r"Trainer\.loss is nan"):
        fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu")


def test_a_trainers_own_optimizer_is_used(trainer: Trainer, codec: Codec) -> None:
    made = []

    def optimizer(module: torch.nn.Module) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD(module.parameters(), lr=0.01))
        return made[-1]

    trainer.optimizer = optimizer  # type: ignore[attr-defined]
    fit(trainer, codec, ROWS, LABELS, seed=1, device="cpu")
    assert len(made) == 1


def test_our_adamw_moves_weights_as_torchs_does() -> None:
    ours, theirs = (torch.nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    own, other = AdamW(ours.parameters(), lr=0.1), torch.optim.AdamW(theirs.parameters(), lr=0.1)
    for step in range(5):
        x = torch.full((4, 3), float(step))
        for module, optimizer in ((ours, own), (theirs, other)):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
    assert all(torch.allclose(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def test_parameters_without_a_gradient_stay() -> None:
    used, unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = unused.weight.detach().clone()
    optimizer = AdamW([*used.parameters(), *unused.parameters()], lr=0.1)
    used(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(unused.weight, before)


def test_training_does_not_import_torchs_compiler() -> None:
    """It takes seconds, and nothing here uses it."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from tidemill.testing.training import picture
from tidemill.training.export import export
from tidemill.training.fit import fit
from tidemill.training.tensors import encode
from tidemill.training.user_code import load_codec, load_trainer
codec, rows = load_codec("tiny_model:Codec"), [{"image": picture(True, 1)}] * 4
fitted = fit(load_trainer("tiny_model:Trainer"), codec, rows, [{"defect": "ok"}] * 4, seed=1, device="cpu")
export(fitted.module, encode(codec, rows))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(Path(__file__).parent / "code")], check=True, timeout=60)


def test_a_module_that_raises_is_told_with_its_class(trainer: Trainer, codec: Codec) -> None:
    rows: list[Row] = [{"image": picture(True, 1)}]
    trainer.module = lambda: torch.nn.Linear(3, 3)  # type: ignore[method-assign]
    with pytest.raises(UserCodeError, match=r"Linear\.forward raised TypeError"):
        fit(trainer, codec, rows, LABELS[:1], seed=1, device="cpu")


def test_rows_that_do_not_fit_into_memory_are_encoded_each_epoch(codec: Codec) -> None:
    kept, streamed = (TensorSource(codec, ROWS, LABELS, keep_bytes=size) for size in (1 << 30, 0))
    numbers = np.array([199, 3, 3, 0])
    for one, other in zip(kept.batch(numbers), streamed.batch(numbers), strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_last_batch_of_one_row_is_left_out(codec: Codec) -> None:
    feed = Feed(TensorSource(codec, ROWS[:65], LABELS[:65]), torch.device("cpu"))
    assert [len(x["image"]) for _, x, _ in feed.batches(np.arange(65), 32)] == [32, 32]
    assert [len(x["image"]) for _, x, _ in feed.batches(np.arange(1), 32)] == [1]


def test_the_version_answers_as_the_module_does(version: Path, fitted: Fitted, codec: Codec) -> None:
    model = OnnxModel(version, threads=2, batch=64)
    with torch.inference_mode():
        outputs = fitted.module(image=torch.from_numpy(encode(codec, ROWS)["image"]))
    expected = codec.decode({name: tensor.numpy() for name, tensor in outputs.items()})
    found = model.answers(ROWS)
    assert [answer["class"] for answer in found] == [answer["class"] for answer in expected]
    assert [answer["confidence"] for answer in found] == pytest.approx([a["confidence"] for a in expected], abs=1e-4)
    right = sum(answer["class"] == label["defect"] for answer, label in zip(found, LABELS, strict=True))
    assert right / len(ROWS) > 0.95


def test_no_rows_have_no_answers(version: Path) -> None:
    assert OnnxModel(version).answers([]) == []


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "reference.json"])
def test_a_version_with_a_changed_byte_is_not_loaded(version: Path, name: str) -> None:
    content = bytearray((version / name).read_bytes())
    content[-1] ^= 1
    (version / name).write_bytes(content)
    with pytest.raises(Corrupt, match=name.replace(".", r"\.")):
        OnnxModel(version)


def test_a_row_that_the_codec_refuses_is_bad_input(version: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot identify image"):
        OnnxModel(version).answers([{"image": b"no picture"}])


def test_the_batch_has_any_size_in_the_manifest(version: Path) -> None:
    manifest = verify(version)
    assert [(spec.name, spec.dtype, spec.shape) for spec in manifest.inputs] == [("image", "float32", (None, 8, 8))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in manifest.outputs] == [("logits", "float32", (None, 2))]


class Branching(torch.nn.Module):
    """What tracing gets wrong: the branch taken depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.layer(x) if x.sum() > 0 else -x}


def test_a_module_that_no_exporter_reproduces_is_refused() -> None:
    with pytest.raises(UserCodeError, match=r"Branching cannot be exported to ONNX: tracing: y differs by"):
        export(Branching().eval(), {"x": np.array([[1, 2], [-9, -9], [-9, -9]], dtype=np.float32)})


def test_a_module_that_returns_no_dict_is_refused() -> None:
    with pytest.raises(UserCodeError, match="should return tensors by name"):
        export(torch.nn.Identity().eval(), {"input": np.zeros((2, 2), dtype=np.float32)})


class Wide(torch.nn.Module):
    """Several inputs and outputs, of several types."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": a + b.to(a.dtype), "index": b * 2}


def test_inputs_and_outputs_keep_their_names() -> None:
    sample: Tensors = {"b": np.arange(6, dtype=np.int64).reshape(3, 2), "a": np.ones((3, 2), dtype=np.float32)}
    exported = export(Wide().eval(), sample)
    assert {spec.name: spec.dtype for spec in exported.inputs} == {"a": "float32", "b": "int64"}
    assert {spec.name: spec.dtype for spec in exported.outputs} == {"total": "float32", "index": "int64"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"class": "dent", "confidence": 0.5}, "class should be one of ok, scratch"),
        ({"class": "ok"}, "confidence should be"),
        ({"class": "ok", "confidence": float("nan")}, "confidence should be"),
        ({"class": "ok", "confidence": 1.5}, "confidence should be"),
        ("ok", "an answer is a dict"),
    ],
)
def test_what_is_no_answer_is_refused(version: Path, answer: Any, problem: str) -> None:
    with pytest.raises(UserCodeError, match=problem):
        check_answers([answer], verify(version), 1)


def test_the_number_of_answers_is_that_of_the_rows(version: Path) -> None:
    with pytest.raises(UserCodeError, match="a list of 2 answers, not 0"):
        check_answers([], verify(version), 2)


@pytest.mark.parametrize("box", [[0, 1, 2], [0, 1, 2, float("inf")], "0123", [0, 1, 2, "3"]])
def test_a_box_is_four_numbers_or_none(box: Any) -> None:
    manifest = Manifest(
        version="v1",
        model="m",
        codec="c:C",
        prediction=PredictionShape(type="detection", classes=("ok", "scratch")),
        created_at="",
        run="",
        snapshot="",
        inputs=(),
        outputs=(),
    )
    good = {"class": "scratch", "confidence": 1}
    check_answers([good | {"box": None}, good | {"box": [0, 1, 2.5, 3]}, good], manifest, 3)
    with pytest.raises(UserCodeError, match="box should be"):
        check_answers([good | {"box": box}], manifest, 1)

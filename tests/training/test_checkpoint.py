"""A training that is killed goes on as if it had not been."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tidemill.core.clock import SystemClock
from tidemill.core.errors import UserCodeError
from tidemill.testing.clock import ManualClock
from tidemill.testing.training import picture
from tidemill.training.checkpoint import Checkpoints, Training
from tidemill.training.fit import Fitted, fit
from tidemill.training.optimizer import AdamW
from tidemill.training.protocols import Row
from tidemill.training.user_code import code_digest, load_codec, load_trainer

ROWS: list[Row] = [{"image": picture(number % 2 == 1, number)} for number in range(200)]
LABELS: list[Mapping[str, Any]] = [{"defect": "scratch" if number % 2 else "ok"} for number in range(200)]
BATCHES = 7
"""Of one epoch."""

OPTIMIZERS: dict[str, Callable[[torch.nn.Module], torch.optim.Optimizer] | None] = {
    "own": None,
    "sgd": lambda module: torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9),
    "adam": lambda module: torch.optim.Adam(module.parameters(), lr=0.01, amsgrad=True),
    "groups": lambda module: torch.optim.AdamW(
        [{"params": [each], "lr": 0.01 * (place + 1)} for place, each in enumerate(module.parameters())]
    ),
}


class Stopped(BaseException):
    """The kill, within one process."""


def train(checkpoint: Path | None, *, optimizer: str = "own", stop_at: int = 0, **changes: Any) -> Fitted:
    """Train the restless model; at batch `stop_at` of this try it is stopped, before the batch is done."""
    trainer = load_trainer("restless_model:Trainer")
    if (make := OPTIMIZERS[optimizer]) is not None:
        trainer.optimizer = make  # type: ignore[attr-defined]
    loss = trainer.loss

    def stopping(outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found = loss(outputs, targets)
        if trainer.batches == stop_at:  # type: ignore[attr-defined]
            raise Stopped
        return found

    trainer.loss = stopping  # type: ignore[method-assign]
    arguments: dict[str, Any] = {"seed": 1, "device": "cpu", "checkpoint": checkpoint, "checkpoint_s": 0, "data": "d"}
    return fit(trainer, load_codec("tiny_model:Codec"), ROWS, LABELS, **(arguments | changes))


def state(fitted: Fitted) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in fitted.module.state_dict().items()}


def same(one: Fitted, other: Fitted) -> bool:
    ours, theirs = state(one), state(other)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_at", [1, BATCHES + 3, 2 * BATCHES + 1, 4 * BATCHES])
def test_a_resumed_training_has_the_weights_of_one_that_was_never_stopped(
    tmp_path: Path, optimizer: str, stop_at: int
) -> None:
    whole, path = train(None, optimizer=optimizer), tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        train(path, optimizer=optimizer, stop_at=stop_at)
    resumed = train(path, optimizer=optimizer)
    assert same(whole, resumed)
    assert whole.epochs == resumed.epochs


def test_a_training_that_is_stopped_again_and_again_ends(tmp_path: Path) -> None:
    for _ in range(4):
        with pytest.raises(Stopped):
            train(tmp_path / "checkpoint", stop_at=6)
    assert same(train(None), train(tmp_path / "checkpoint"))


@pytest.mark.parametrize("other", [{"seed": 2}, {"data": "e"}, {"weights": "other"}])
def test_a_checkpoint_of_another_training_is_as_none(tmp_path: Path, other: dict[str, Any]) -> None:
    from tidemill.training.weights import save_weights

    if "weights" in other:
        other = {"weights": save_weights(train(None, seed=3).module)}
    with pytest.raises(Stopped):
        train(tmp_path / "checkpoint", stop_at=10)
    assert same(train(None, **other), train(tmp_path / "checkpoint", **other))


def test_a_broken_checkpoint_costs_its_epochs_and_not_the_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        train(path, stop_at=10)
    path.write_bytes(path.read_bytes()[:1000])
    assert same(train(None), train(path))


def test_a_changed_line_of_code_is_another_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "changing"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "network.py").write_text("WIDTH = 8\n")
    (package / "model.py").write_text("class Thing:\n    pass\n")
    from changing.model import Thing  # type: ignore[import-not-found]

    before = code_digest(Thing())
    assert before == code_digest(Thing())
    (package / "network.py").write_text("WIDTH = 16\n")
    assert code_digest(Thing()) != before


def test_a_loss_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    trainer, path = load_trainer("restless_model:Trainer"), tmp_path / "checkpoint"
    loss = trainer.loss
    trainer.loss = lambda outputs, targets: (  # type: ignore[method-assign]
        loss(outputs, targets) * (float("nan") if trainer.batches >= 3 else 1)  # type: ignore[attr-defined]
    )
    with pytest.raises(UserCodeError, match=r"Trainer\.loss is nan after 3 batches"):
        fit(
            trainer,
            load_codec("tiny_model:Codec"),
            ROWS,
            LABELS,
            seed=1,
            device="cpu",
            checkpoint=path,
            checkpoint_s=0,
        )
    kept = fresh()
    assert marked(path, kept)
    assert kept.batches == 2


def test_an_optimizer_that_keeps_what_is_no_tensor_is_trained_without_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            return {"state": {0: {"history": [object()]}}, "param_groups": []}

    monkeypatch.setitem(OPTIMIZERS, "odd", lambda module: Odd(module.parameters(), lr=0.01))
    train(tmp_path / "checkpoint", optimizer="odd")
    assert not (tmp_path / "checkpoint").exists()
    assert capsys.readouterr().out.count("its optimizer keeps history, a list") == 1


def fresh() -> Training:
    """A training that has not begun."""
    from restless_model import Trainer  # type: ignore[import-not-found]

    module = Trainer().module()
    optimizer = AdamW(module.parameters(), lr=0.1)
    return Training(module=module, optimizer=optimizer, where=torch.device("cpu"), loss=torch.zeros(()))


def marked(path: Path, training: Training) -> bool:
    """Read the checkpoint whatever training it is of."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        mark = file.metadata()["mark"]
    return Checkpoints(path, mark, every_s=0, clock=SystemClock()).resume(training)


def test_checkpoints_take_a_hundredth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()

    def slow(path: Path, data: bytes) -> None:
        clock.advance(2.0)

    monkeypatch.setattr("tidemill.training.checkpoint.write_atomically", slow)
    checkpoints, training = Checkpoints(tmp_path / "c", "m", every_s=30, clock=clock), fresh()
    begun, written = clock.monotonic(), []
    for _ in range(10_000):
        clock.advance(0.1)
        if checkpoints.due:
            checkpoints.write(training)
            written.append(clock.monotonic())
    assert written[0] - begun == pytest.approx(32, abs=0.2)
    assert all(later - earlier >= 200 for earlier, later in pairwise(written))
    assert len(written) == 5

"""The training loop: device, seeds, warm start, checkpoints. torch is imported when it runs, not with the module.

The learning rate falls by epoch along half a cosine (Loshchilov & Hutter, SGDR, 2017, eq. 5, without restarts).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core.errors import UserCodeError
from tidemill.training.optimizer import AdamW
from tidemill.training.protocols import Codec, Row, Trainer
from tidemill.training.tensors import TensorSource
from tidemill.training.user_code import user_code
from tidemill.training.weights import load_checkpoint, load_weights, save_checkpoint

if TYPE_CHECKING:
    import torch

__all__ = ["Epoch", "Fitted", "choose_device", "fit"]


@dataclass(frozen=True, slots=True)
class Epoch:
    """How one epoch went."""

    number: int
    """From 1."""
    of: int
    loss: float
    """Mean over the epoch's batches."""
    rows: int

    def __str__(self) -> str:
        return f"epoch {self.number}/{self.of}: loss {self.loss:.4f} over {self.rows} rows"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained module on the CPU, in evaluation mode, and its epochs."""

    module: "torch.nn.Module"
    epochs: tuple[Epoch, ...]


def fit(
    trainer: Trainer,
    codec: Codec,
    rows: Sequence[Row],
    labels: Sequence[Mapping[str, Any]],
    *,
    seed: int,
    weights: bytes | None = None,
    new_classes: int = 0,
    checkpoint: Path | None = None,
    device: str | None = None,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Train the user's module on rows and labels.

    Args:
        trainer: module, loss and how it fits.
        codec: rows and labels to tensors.
        rows: inputs, at least one.
        labels: label values, one per row.
        seed: of weights, shuffling and the module's own randomness.
        weights: safetensors to start from (warm start).
        new_classes: how many classes the trainer's module has more than the weights (`load_weights`).
        checkpoint: written after each epoch; training goes on from it where it is of the same seed and rows.
        device: torch's name for it; default: CUDA, then MPS, then the CPU.
        progress: called after each epoch.

    Raises:
        UserCodeError: the user's code raised, or its loss is not a finite scalar.
        InvalidInput: the weights do not fit the module, or the codec refuses a row.
    """
    import torch

    torch.manual_seed(seed)
    where = torch.device(device or choose_device())
    with user_code(trainer, "module"):
        module = trainer.module().to(where)
    if weights is not None:
        load_weights(module, weights, new_classes=new_classes)
    source = TensorSource(codec, rows, labels)
    count = _epochs(trainer, len(source))
    # The same data and seed under the same name: what is left of an earlier try is its own beginning.
    mark = f"{seed}-{len(rows)}-{count}-{trainer.batch_size}"
    done = load_checkpoint(module, checkpoint, mark) if checkpoint else 0
    optimizer = _optimizer(trainer, module)
    rates = [group["lr"] for group in optimizer.param_groups]
    epochs = []
    for number in range(done + 1, count + 1):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * (number - 1) / count))
        order = np.random.default_rng((seed, number)).permutation(len(source))
        loss = _epoch(trainer, module, source, order, optimizer, where)
        epochs.append(Epoch(number=number, of=count, loss=loss, rows=len(source)))
        progress(epochs[-1])
        if checkpoint:
            save_checkpoint(module, checkpoint, mark, number)
    return Fitted(module.to("cpu").eval(), tuple(epochs))


def choose_device() -> str:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _epochs(trainer: Trainer, rows: int) -> int:
    """The trainer's epochs, or as many as make its least number of batches."""
    batches = math.ceil(rows / trainer.batch_size)
    return max(trainer.epochs, math.ceil(getattr(trainer, "min_steps", 0) / batches))


def _optimizer(trainer: Trainer, module: "torch.nn.Module") -> "torch.optim.Optimizer | AdamW":
    """The trainer's own optimizer where it has a method of this name, else AdamW."""
    own = getattr(trainer, "optimizer", None)
    if own is None:
        return AdamW(module.parameters(), lr=trainer.learning_rate)
    with user_code(trainer, "optimizer"):
        made: torch.optim.Optimizer = own(module)
    return made


def _epoch(
    trainer: Trainer,
    module: "torch.nn.Module",
    source: TensorSource,
    order: Any,
    optimizer: "torch.optim.Optimizer | AdamW",
    where: "torch.device",
) -> float:
    """One pass over the rows; the mean loss."""
    import torch

    module.train()
    total = torch.zeros((), device=where)
    batches = 0
    for inputs, wanted in source.batches(order, trainer.batch_size):
        x = {name: torch.from_numpy(np.ascontiguousarray(array)).to(where) for name, array in inputs.items()}
        y = {name: torch.from_numpy(np.ascontiguousarray(array)).to(where) for name, array in wanted.items()}
        optimizer.zero_grad()
        with user_code(module, "forward"):
            outputs = module(**x)
        with user_code(trainer, "loss"):
            loss = trainer.loss(outputs, y)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
        batches += 1
    mean = float(total) / max(1, batches)
    if not math.isfinite(mean):
        who = f"{type(trainer).__module__}:{type(trainer).__qualname__}"
        raise UserCodeError(
            f"{who}.loss is {mean} after {batches} batches: training cannot go on",
            hint="lower the learning rate, or look for values in the data that the loss cannot take",
        )
    return mean

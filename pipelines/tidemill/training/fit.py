"""The training loop: warm start, epochs, checkpoints. torch is imported when it runs, not with the module.

The learning rate falls by epoch along half a cosine (Loshchilov & Hutter, SGDR, 2017, eq. 5, without restarts).
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core.clock import Clock, SystemClock
from tidemill.core.errors import UserCodeError
from tidemill.training.checkpoint import Checkpoints, Training
from tidemill.training.device import Feed, choose_device, repeatable
from tidemill.training.optimizer import AdamW
from tidemill.training.progress import CHECKPOINT_S, Epoch, Pace, Progress
from tidemill.training.protocols import Codec, Row, Trainer
from tidemill.training.tensors import TensorSource
from tidemill.training.user_code import code_digest, user_code
from tidemill.training.weights import load_weights

if TYPE_CHECKING:
    import torch

__all__ = ["Fitted", "fit"]


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
    checkpoint_s: float = CHECKPOINT_S,
    data: str = "",
    device: str | None = None,
    progress: Callable[[Epoch | Progress], None] = lambda news: None,
    clock: Clock = SystemClock(),  # noqa: B008 - holds nothing
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
        checkpoint: file from which training goes on where it is of the same data, code, seed and beginning.
        checkpoint_s: seconds between two; 0: after each batch.
        data: digest of the rows and labels.
        device: torch's name for it; default: CUDA, then MPS, then the CPU.
        progress: told of each epoch, and of the pace between them.
        clock: for pace and checkpoints.

    Raises:
        UserCodeError: the user's code raised, or its loss is not a finite scalar.
        InvalidInput: the weights do not fit the module, or the codec refuses a row.
    """
    import torch

    where = torch.device(device or choose_device())
    with repeatable(seed, strict=getattr(trainer, "deterministic", True)):
        source = TensorSource(codec, rows, labels)
        training = _begin(trainer, where, weights, new_classes)
        count = _epochs(trainer, len(source))
        rates = [group["lr"] for group in training.optimizer.param_groups]
        checkpoints = None
        if checkpoint is not None:
            mark = _mark(trainer, codec, where, (seed, count, len(rows), data), weights)
            checkpoints = Checkpoints(checkpoint, mark, every_s=checkpoint_s, clock=clock)
            if checkpoints.resume(training):
                print(f"going on in epoch {training.epoch} after batch {training.batches}", flush=True)
        seen = (training.epoch - 1) * len(source) + training.batches * trainer.batch_size
        pace = Pace(progress, of=count, rows=len(source), seen=seen, clock=clock)
        feed = Feed(source, where)
        while training.epoch <= count:
            for group, rate in zip(training.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * (training.epoch - 1) / count))
            order = np.random.default_rng((seed, training.epoch)).permutation(len(source))
            _epoch(trainer, training, feed, order, pace, checkpoints)
            training.end_epoch(count, _loss(trainer, training), len(source))
            progress(training.epochs[-1])
    return Fitted(training.module.to("cpu").eval(), tuple(training.epochs))


def _begin(trainer: Trainer, where: "torch.device", weights: bytes | None, new_classes: int) -> Training:
    """The user's module and its optimizer, before the first batch."""
    import torch

    with user_code(trainer, "module"):
        module = trainer.module().to(where)
    if weights is not None:
        load_weights(module, weights, new_classes=new_classes)
    optimizer = _optimizer(trainer, module)
    return Training(module=module, optimizer=optimizer, where=where, loss=torch.zeros((), device=where))


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


def _mark(
    trainer: Trainer, codec: Codec, where: "torch.device", plan: tuple[int, int, int, str], weights: bytes | None
) -> str:
    """What a training is of: a checkpoint with the same mark is its own beginning. `plan`: seed, epochs, rows, data."""
    import torch

    parts = {
        "plan": [*plan, trainer.batch_size, trainer.learning_rate],
        "code": [code_digest(trainer), code_digest(codec), torch.__version__, where.type],
        "weights": hashlib.sha256(weights or b"").hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _epoch(
    trainer: Trainer,
    training: Training,
    feed: Feed,
    order: Any,
    pace: Pace,
    checkpoints: Checkpoints | None,
) -> None:
    """The rest of one pass over the rows. Nothing here waits for the device, but for a checkpoint."""
    module, optimizer = training.module, training.optimizer
    module.train()
    for rows, inputs, wanted in feed.batches(order, trainer.batch_size, skip=training.batches):
        optimizer.zero_grad()
        with user_code(module, "forward"):
            outputs = module(**inputs)
        with user_code(trainer, "loss"):
            loss = trainer.loss(outputs, wanted)
            loss.backward()  # type: ignore[no-untyped-call]
            training.loss += loss.detach()
        optimizer.step()
        training.batches += 1
        pace.count(rows, training.epoch)
        if checkpoints is not None and checkpoints.due:
            _loss(trainer, training)
            checkpoints.write(training)


def _loss(trainer: Trainer, training: Training) -> float:
    """The mean loss of the epoch so far; raises where it is not finite."""
    mean = float(training.loss) / max(1, training.batches)
    if not math.isfinite(mean):
        who = f"{type(trainer).__module__}:{type(trainer).__qualname__}"
        raise UserCodeError(
            f"{who}.loss is {mean} after {training.batches} batches: training cannot go on",
            hint="lower the learning rate, or look for values in the data that the loss cannot take",
        )
    return mean

"""A training between two batches, kept so that it goes on after a kill as if nothing had happened.

One safetensors file: the tensors of module, optimizer and random numbers; all else is JSON in its header, so nothing is
unpickled. It holds the whole of what the next batch depends on; the order of rows is drawn from seed and epoch.
A file that is broken, or of another training (`mark`), is as none: it costs time, not the run.
"""

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core.clock import Clock
from tidemill.core.files import write_atomically
from tidemill.training.optimizer import AdamW
from tidemill.training.progress import Epoch

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoints", "Training"]

_COST = 100
"""A checkpoint is followed by so many times its own duration without one: they take at most 1 % of the time."""


@dataclass(kw_only=True)
class Training:
    """A training between two batches."""

    module: "torch.nn.Module"
    optimizer: "torch.optim.Optimizer | AdamW"
    where: "torch.device"
    loss: "torch.Tensor"
    """Sum over the epoch's batches so far, on the device."""
    epoch: int = 1
    """The one that is trained, from 1."""
    batches: int = 0
    """Done of this epoch."""
    epochs: list[Epoch] = field(default_factory=list)
    """Those that are over."""

    def end_epoch(self, of: int, loss: float, rows: int) -> None:
        """The epoch is over; the next begins."""
        self.epochs.append(Epoch(number=self.epoch, of=of, loss=loss, rows=rows))
        self.epoch, self.batches = self.epoch + 1, 0
        self.loss.zero_()


class Checkpoints:
    """Writes a training when it is due, and finds it again.

    Args:
        path: the file; its folder must exist.
        mark: says of which training it is: data, code, seed, what it started from.
        every_s: seconds between two, which a kill costs at most; 0: after each batch. More where one takes so long
            that they would cost more than 1 % of the time.
        clock: the time.
    """

    def __init__(self, path: Path, mark: str, *, every_s: float, clock: Clock) -> None:
        self._path, self._mark, self._every_s, self._clock = path, mark, every_s, clock
        self._next = clock.monotonic() + every_s
        self._keepable = True

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return self._keepable and self._clock.monotonic() >= self._next

    def write(self, training: Training) -> None:
        """Write it. Says so and writes none, ever, where the optimizer keeps what is neither tensor nor number."""
        begun = self._clock.monotonic()
        try:
            content = _encode(training, self._mark)
        except TypeError as error:
            print(f"this training cannot go on where it was, if it is killed: {error}", flush=True)
            self._keepable = False
            return
        write_atomically(self._path, content)
        now = self._clock.monotonic()
        self._next = now + (max(self._every_s, _COST * (now - begun)) if self._every_s else 0)

    def resume(self, training: Training) -> bool:
        """Bring a fresh training to where it was; False where there is nothing of it."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("mark") != self._mark:
                    return False
                # A copy each: the tensors of the file are its memory, and the next checkpoint replaces it.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            return False
        _decode(training, tensors, json.loads(metadata["training"]))
        return True


def _encode(training: Training, mark: str) -> bytes:
    from safetensors.torch import save

    tensors = {f"module.{name}": tensor for name, tensor in training.module.state_dict().items()}
    tensors["loss"] = training.loss
    optimizer = training.optimizer.state_dict()
    state = {str(number): _split(f"state.{number}", held, tensors) for number, held in optimizer["state"].items()}
    groups = [_split(f"group.{place}", group, tensors) for place, group in enumerate(optimizer["param_groups"])]
    position = {
        "epoch": training.epoch,
        "batches": training.batches,
        "epochs": [asdict(each) for each in training.epochs],
    }
    rest = {"position": position, "state": state, "groups": groups, "random": _random(training.where, tensors)}
    # A clone each: modules may tie weights, which the format does not know.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(whole, {"mark": mark, "training": json.dumps(rest)})


def _decode(training: Training, tensors: "dict[str, torch.Tensor]", rest: dict[str, Any]) -> None:
    named = {name.removeprefix("module."): tensor for name, tensor in tensors.items() if name.startswith("module.")}
    training.module.load_state_dict(named)
    training.loss.copy_(tensors["loss"])
    state = {int(number): _joined(f"state.{number}", held, tensors) for number, held in rest["state"].items()}
    groups = [_joined(f"group.{place}", group, tensors) for place, group in enumerate(rest["groups"])]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    position = rest["position"]
    training.epoch, training.batches = position["epoch"], position["batches"]
    training.epochs[:] = [Epoch(**each) for each in position["epochs"]]
    _set_random(training.where, tensors, rest["random"])


def _split(prefix: str, held: dict[str, Any], tensors: "dict[str, torch.Tensor]") -> dict[str, Any]:
    """What of `held` is JSON; its tensors are put to the others."""
    import torch

    plain: dict[str, Any] = {}
    for key, value in held.items():
        if isinstance(value, torch.Tensor):
            tensors[f"{prefix}.{key}"] = value
        elif _is_plain(value):
            # Betas are a tuple, which JSON does not know.
            plain[key] = {"tuple": list(value)} if isinstance(value, tuple) else value
        else:
            raise TypeError(f"its optimizer keeps {key}, a {type(value).__name__}")
    return plain


def _joined(prefix: str, plain: dict[str, Any], tensors: "dict[str, torch.Tensor]") -> dict[str, Any]:
    found = {key: tuple(value["tuple"]) if isinstance(value, dict) else value for key, value in plain.items()}
    start = f"{prefix}."
    return found | {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(each, int | float | str | None) for each in value)
    return isinstance(value, int | float | str | None)


def _random(where: "torch.device", tensors: "dict[str, torch.Tensor]") -> dict[str, Any]:
    """The states of all that draws: torch's as tensors, NumPy's and Python's as JSON."""
    import torch

    tensors["random.cpu"] = torch.get_rng_state()
    if where.type == "cuda":
        tensors["random.device"] = torch.cuda.get_rng_state(where)
    elif where.type == "mps":
        tensors["random.device"] = torch.mps.get_rng_state()
    name, keys, *others = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *others]}


def _set_random(where: "torch.device", tensors: "dict[str, torch.Tensor]", states: dict[str, Any]) -> None:
    import torch

    torch.set_rng_state(tensors["random.cpu"])
    if where.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.device"], where)
    elif where.type == "mps":
        torch.mps.set_rng_state(tensors["random.device"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))

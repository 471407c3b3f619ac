"""The training loop beside a bare torch loop: same rows, batches, model, optimizer and seeds, so the same weights.

Both go from rows to a trained module, in turn, in one process; the bare loop keeps its tensors on the device and uses
torch's fused AdamW. Ours has its checks, counts and checkpoints besides, and algorithms that repeat.

Also by itself, where there is a GPU and little else: `python -m benchmarks.bench_training --device cuda`. That needs
torch, NumPy, safetensors, and the source folders on PYTHONPATH.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core.clock import SystemClock
from tidemill.training.checkpoint import Checkpoints, Training
from tidemill.training.device import choose_device
from tidemill.training.fit import fit
from tidemill.training.optimizer import AdamW

if TYPE_CHECKING:
    import torch
    from benchmarks.report import Report

__all__ = ["run"]

GOAL = 5.0
"""Percent over a bare loop, at most."""
SEED = 1
CLASSES = 10


@dataclass(frozen=True)
class Task:
    """A model and how much it learns from."""

    name: str
    rows: int
    epochs: int
    batch_size: int


class Codec:
    """Rows have their tensors already: what a codec costs is the user's, and the same for both."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Stack them."""
        return {"x": np.stack([row["x"] for row in rows])}

    def decode(self, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Nobody asks."""
        raise NotImplementedError

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The class's number."""
        return {"y": np.array([label["y"] for label in labels], np.int64)}


class Trainer:
    """Cross entropy over ten classes."""

    learning_rate = 1e-3

    def __init__(self, task: Task, *, deterministic: bool = True) -> None:
        self.name, self.epochs, self.batch_size = task.name, task.epochs, task.batch_size
        self.deterministic = deterministic

    def module(self) -> "torch.nn.Module":
        """A fresh one."""
        return network(self.name)

    def loss(self, outputs: "Mapping[str, torch.Tensor]", targets: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """Over one batch."""
        import torch

        return torch.nn.functional.cross_entropy(outputs["logits"], targets["y"])


def network(name: str) -> "torch.nn.Module":
    """`cnn`: as large as that of the phone example. `mlp`: 2.6 million weights."""
    import torch
    from torch import nn

    def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if name == "mlp":
                wide = [nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)]
                self.layers = nn.Sequential(*wide, nn.ReLU(), nn.Linear(1024, CLASSES))
            else:
                deep = [
                    layer(3, 12, 2),
                    layer(12, 24, 2),
                    layer(24, 24),
                    layer(24, 48, 2),
                    layer(48, 48),
                    layer(48, 48),
                ]
                self.layers = nn.Sequential(*deep, nn.Flatten(), nn.Linear(48 * 64, CLASSES))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.layers(x if name == "mlp" else x.permute(0, 3, 1, 2) / 255 - 0.5)}

    return Net()


def data(task: Task) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Noise in ten classes."""
    rng = np.random.default_rng(SEED)
    if task.name == "mlp":
        x: Any = rng.normal(size=(task.rows, 512)).astype(np.float32)
    else:
        x = rng.integers(0, 256, (task.rows, 64, 64, 3), np.uint8)
    return [{"x": row} for row in x], [{"y": int(number)} for number in rng.integers(0, CLASSES, task.rows)]


def bare(trainer: Trainer, rows: list[dict[str, Any]], labels: list[dict[str, Any]], device: str) -> "torch.nn.Module":
    """What one would write by hand."""
    import torch

    torch.manual_seed(SEED)
    module = trainer.module().to(device).train()
    codec = Codec()
    x = torch.from_numpy(codec.encode(rows)["x"]).to(device)
    y = torch.from_numpy(codec.targets(labels)["y"]).to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=trainer.learning_rate, fused=True)
    for epoch in range(trainer.epochs):
        for group in optimizer.param_groups:
            group["lr"] = trainer.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / trainer.epochs))
        order = torch.from_numpy(np.random.default_rng((SEED, epoch + 1)).permutation(len(rows))).to(device)
        for start in range(0, len(rows), trainer.batch_size):
            numbers = order[start : start + trainer.batch_size]
            optimizer.zero_grad()
            trainer.loss(module(x=x[numbers]), {"y": y[numbers]}).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.to("cpu").eval()


def timed(action: Callable[[], "torch.nn.Module"]) -> "tuple[float, float, torch.nn.Module]":
    """Wall and processor seconds; the module is on the CPU in the end, so the device is done."""
    wall, processor = time.perf_counter(), time.process_time()
    module = action()
    return time.perf_counter() - wall, time.process_time() - processor, module


def compared(task: Task, device: str, rounds: int) -> dict[str, Any]:
    """Percent over the bare loop, by medians of the rounds; on a GPU also without algorithms that repeat."""
    import torch

    rows, labels = data(task)
    contenders: dict[str, Callable[[], torch.nn.Module]] = {"bare": lambda: bare(Trainer(task), rows, labels, device)}
    kinds = {"ours": True} if device == "cpu" else {"ours": True, "ours, not repeatable": False}
    with tempfile.TemporaryDirectory() as folder:
        for name, deterministic in kinds.items():

            def ours(deterministic: bool = deterministic) -> torch.nn.Module:
                trainer, path = Trainer(task, deterministic=deterministic), Path(folder) / "checkpoint"
                return fit(trainer, Codec(), rows, labels, seed=SEED, device=device, checkpoint=path).module

            contenders[name] = ours
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        modules = {}
        for number in range(rounds + 1):
            # In turns, and each first in half of the rounds; the first round warms up.
            for name in list(contenders)[:: 1 if number % 2 else -1]:
                wall, processor, modules[name] = timed(contenders[name])
                if number:
                    took[name].append((wall, processor))
    found: dict[str, Any] = {"same": _same(modules["bare"], modules["ours"])}
    for name, times in took.items():
        found[name] = tuple(statistics.median(column) for column in zip(*times, strict=True))
    return found


def _same(one: "torch.nn.Module", other: "torch.nn.Module") -> bool:
    import torch

    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def checkpoint_cost(device: str) -> tuple[float, float]:
    """Seconds that a checkpoint of the wide MLP takes, and its megabytes."""
    import torch

    module = network("mlp").to(device)
    where = torch.device(device)
    optimizer = AdamW(module.parameters(), lr=1e-3)
    training = Training(module=module, optimizer=optimizer, where=where, loss=torch.zeros((), device=where))
    with tempfile.TemporaryDirectory() as folder:
        path, took = Path(folder) / "checkpoint", []
        for _ in range(5):
            begun = time.perf_counter()
            Checkpoints(path, "mark", every_s=0, clock=SystemClock()).write(training)
            took.append(time.perf_counter() - begun)
        return statistics.median(took), path.stat().st_size / 1e6


def rows_of(device: str, size: str, rounds: int | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was run, and a dict per figure: name, value, unit, goal, holds, note."""
    gpu = device != "cpu"
    scale = (8 if gpu else 1) * (1 if size == "small" else 3)
    tasks = (Task("cnn", 1024 * scale, 2, 32), Task("mlp", 6144 * scale, 2, 256))
    rounds, figures = rounds or (5 if size == "small" else 7), []
    for task in tasks:
        found = compared(task, device, rounds)
        steps = task.epochs * math.ceil(task.rows / task.batch_size)
        for name in [name for name in found if name.startswith("ours")]:
            for place, clock in enumerate(("wall", "processor")):
                ours, base = found[name][place], found["bare"][place]
                over = 100 * (ours / base - 1)
                # A GPU is waited for by a processor that spins: there the time is the wall's.
                judged = name == "ours" and place == (0 if gpu else 1)
                note = (
                    f"{1e3 * ours / steps:.2f} ms a step, bare {1e3 * base / steps:.2f}; same weights: {found['same']}"
                )
                goal, holds = (f"≤ {GOAL:g}", over <= GOAL) if judged else ("", None)
                figure = {"name": f"{task.name}, {device}: {name}, {clock} over bare", "value": round(over, 2)}
                figures.append({**figure, "unit": "%", "goal": goal, "holds": holds, "note": note})
    seconds, size_mb = checkpoint_cost(device)
    note = f"{size_mb:.1f} MB; every 30 s, or rarer where it would take over 1 % of the time"
    figures.append({"name": f"a checkpoint of the mlp, {device}", "value": round(1e3 * seconds, 1), "unit": "ms"})
    figures[-1] |= {"goal": "", "holds": None, "note": note}
    ran = {"tasks": [repr(task) for task in tasks], "rounds": rounds, "seed": SEED, "device": device}
    return ran, figures


def run(size: str) -> "Report":
    """On the CPU, and on the GPU where there is one."""
    from benchmarks.report import Figure, Report, environment

    devices = ["cpu"] + [device for device in [choose_device()] if device != "cpu"]
    results = [rows_of(device, size) for device in devices]
    figures = [Figure(**figure) for _, found in results for figure in found]
    ran = {device: ran for device, (ran, _) in zip(devices, results, strict=True)}
    return Report("bench", "training", size, ran, figures, environment(("numpy", "torch")))


def main() -> None:
    """Print the figures of one device, with nothing but torch and NumPy."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=choose_device())
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    name = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "CPU"
    print(f"torch {torch.__version__}, NumPy {np.__version__}, {name}", flush=True)
    _, figures = rows_of(asked.device, asked.size, asked.rounds)
    for figure in figures:
        holds = {True: "holds", False: "DOES NOT HOLD", None: ""}[figure["holds"]]
        print(f"{figure['name']}: {figure['value']} {figure['unit']} {figure['goal']} {holds} ({figure['note']})")


if __name__ == "__main__":
    main()

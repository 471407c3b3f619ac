"""Where training runs: the device, how rows get there, and what makes a training repeatable on it."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.training.protocols import Tensors
from tidemill.training.tensors import TensorSource

if TYPE_CHECKING:
    import torch

__all__ = ["Feed", "choose_device", "repeatable"]

_ROOM = 4
"""Rows are kept on the device where so many times their size is free there."""

_OnDevice = dict[str, "torch.Tensor"]


def choose_device() -> str:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def repeatable(seed: int, *, strict: bool = True) -> Iterator[None]:
    """Seed all random numbers, and let torch choose algorithms that give the same result each time.

    Where torch has none for an operation, it warns and takes the other. Another number of threads, device or version
    of torch may round otherwise: the same weights bit for bit are promised on the same machine and installation.

    Args:
        seed: of torch, NumPy and Python, because the user's code may use any of them.
        strict: False lets torch take faster algorithms that may differ from run to run.
    """
    import torch

    before, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if strict:
        # cuBLAS reads it when it starts; without it some of its sums depend on which stream is first.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # `torch.use_deterministic_algorithms` is the same, and imports torch's compiler, which takes a second.
        torch.set_deterministic_debug_mode("warn")
        torch.backends.cudnn.benchmark = False  # it chooses by how long the algorithms take
        fill, _filled().fill_uninitialized_memory = _filled().fill_uninitialized_memory, False
    try:
        yield
    finally:
        if strict:
            torch.set_deterministic_debug_mode(before)
            torch.backends.cudnn.benchmark = benchmark
            _filled().fill_uninitialized_memory = fill


def _filled() -> Any:
    """Torch's switch that fills new memory, so that reading it unwritten is repeatable: nothing here reads it."""
    import torch.utils.deterministic

    return torch.utils.deterministic


class Feed:
    """Batches of a source as tensors on the device. Rows that fit stay there for all epochs, and none is moved twice.

    Args:
        source: rows and labels.
        where: the device.
    """

    def __init__(self, source: TensorSource, where: "torch.device") -> None:
        self._source, self._where = source, where
        kept = source.kept
        self._here = None if kept is None or not self._fits(kept) else (self._moved(kept[0]), self._moved(kept[1]))

    def batches(
        self, order: NDArray[np.int64], size: int, *, skip: int = 0
    ) -> "Iterator[tuple[int, _OnDevice, _OnDevice]]":
        """How many rows, inputs and targets; in `order`, `size` at a time, without the first `skip` batches.

        A last batch of a single row is left out: it has no batch statistics.
        """
        import torch

        chosen = None if self._here is None else torch.from_numpy(order).to(self._where)
        for start in range(skip * size, len(order), size):
            stop = min(start + size, len(order))
            if stop - start == 1 and len(order) > 1:
                return
            if self._here is not None and chosen is not None:
                numbers = chosen[start:stop]
                inputs, wanted = ({name: whole[numbers] for name, whole in part.items()} for part in self._here)
            else:
                inputs, wanted = (self._moved(part) for part in self._source.batch(order[start:stop]))
            yield stop - start, inputs, wanted

    def _fits(self, kept: tuple[Tensors, Tensors]) -> bool:
        import torch

        if self._where.type != "cuda":
            return True  # the CPU has them already, and so has MPS, whose memory is the CPU's
        free, _ = torch.cuda.mem_get_info(self._where)
        return _ROOM * sum(array.nbytes for part in kept for array in part.values()) <= free

    def _moved(self, arrays: Tensors) -> _OnDevice:
        import torch

        found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        if self._where.type == "cuda":
            # From pinned memory the copy runs beside the computation, and nobody waits for it.
            return {name: tensor.pin_memory().to(self._where, non_blocking=True) for name, tensor in found.items()}
        return {name: tensor.to(self._where) for name, tensor in found.items()}

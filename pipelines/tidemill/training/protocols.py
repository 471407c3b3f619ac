"""The user's code: two small classes. `Codec` serves and must import without torch; `Trainer` fits.

Either may have an attribute `classes` (`classes: tuple[str, ...] = ()` in its body is enough): it is set, before
anything else is asked, to the classes of the run or of the version that answers. Both have it where new classes may
come (`triggers.newClass`). Classes are only ever added, at the end: a number or a row that stands for a class, stands
for it in all later versions. In a warm start, a parameter whose first dimension has grown by the number of new classes
takes over the rows that there were; so the rows of classes are the last ones.

A row is a mapping: the event's fields as the spec declares them (an image as the bytes of its file), and the
entity's features by name. An answer is a mapping: `class` (one of `prediction.classes`), `confidence` in
[0, 1], and for detection `box` ([x0, y0, x1, y1] in pixels, or None).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Answer", "Codec", "Learner", "Row", "Tensors", "Trainer"]

Row: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]
Tensors: TypeAlias = dict[str, NDArray[np.generic]]


class Codec(Protocol):
    """Between rows and tensors, with NumPy alone; the same code in training, gates and serving."""

    def encode(self, rows: Sequence[Row]) -> Tensors:
        """Input tensors by the module's input names, batch first. Raise ValueError for a row that cannot be one.

        Pillow's OSError for what is no picture may pass.
        """
        ...

    def decode(self, outputs: Mapping[str, NDArray[np.generic]]) -> list[Answer]:
        """One answer per row from the module's outputs by name, batch first."""
        ...

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> Tensors:
        """Target tensors for the loss from label values, batch first."""
        ...


class Trainer(Protocol):
    """The torch side. Tidemill does device, loop, checkpoint, ONNX export and metrics.

    A method `optimizer(module) -> torch.optim.Optimizer` is optional; without it AdamW takes `learning_rate`, which
    falls along half a cosine in either case. So is a number `min_steps`: epochs go on until so many batches were seen,
    because a few hundred new rows are few batches. So is `deterministic`: False lets torch take algorithms that are
    faster on a GPU and do not give the same weights each time.
    """

    epochs: int
    batch_size: int
    learning_rate: float

    def module(self) -> "torch.nn.Module":
        """A fresh module. Its forward takes the codec's inputs by name and returns outputs by name (a dict)."""
        ...

    def loss(self, outputs: "Mapping[str, torch.Tensor]", targets: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """The scalar to minimise over one batch."""
        ...


class Learner(Protocol):
    """Any other library that can be written as ONNX: named as `spec.model.trainer` in place of a `Trainer`.

    Tidemill gives it all rows at once, compares the ONNX model with its own answers, and keeps what the next version
    starts from as arrays, so that nothing is ever unpickled. A fresh one is made for each training.
    """

    def fit(self, inputs: Tensors, targets: Tensors, *, seed: int, before: Tensors | None) -> None:
        """Learn the codec's tensors, oldest row first. `before`: what the champion's `keep` gave, in a warm start."""
        ...

    def predict(self, inputs: Tensors) -> Tensors:
        """The library's own outputs by name, batch first."""
        ...

    def to_onnx(self) -> bytes:
        """A model with the codec's inputs and `predict`'s outputs by name, for batches of any size."""
        ...

    def keep(self) -> Tensors:
        """Arrays from which the next version's training starts; none where the library cannot go on learning."""
        ...

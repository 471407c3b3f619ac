"""From a torch module to ONNX: exported, run by ONNX Runtime, and compared with torch before it is kept.

The tracing exporter comes first: on a small CNN it takes 0.2-0.5 s where the newer one takes 3.5-12 s, and what
tracing gets wrong (control flow that depends on the data, a batch size baked in) shows in the comparison, which uses
batches of other sizes and rows than the trace. Then, and where tracing fails, the newer exporter is tried.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.artifacts import TensorSpec
from tidemill.core.errors import UserCodeError
from tidemill.core.telemetry import get_logger
from tidemill.training.protocols import Tensors
from tidemill.training.session import open_session, tensor_specs
from tidemill.training.user_code import user_code

if TYPE_CHECKING:
    import torch

__all__ = ["TOLERANCE", "Exported", "compared", "export"]

TOLERANCE = 1e-4
"""Largest difference between the library and ONNX Runtime, relative to values above 1."""

_log = get_logger(__name__)
_Outputs = dict[str, NDArray[Any]]


class Exported:
    """An ONNX model that answers as its module does, with its inputs and outputs."""

    def __init__(self, model: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.model, self.inputs, self.outputs = model, inputs, outputs


def export(module: "torch.nn.Module", sample: Tensors) -> Exported:
    """Export a module, and compare.

    Args:
        module: on the CPU, in evaluation mode; takes tensors by name, returns tensors by name.
        sample: encoded rows, at least two, batch first.

    Raises:
        UserCodeError: the module raised, returns no tensors by name, or no exporter reproduces it within `TOLERANCE`.
    """
    expected = _run_torch(module, sample)
    failures = []
    for name, exporter in (("tracing", _trace), ("torch.export", _dynamo)):
        try:
            model = exporter(module, sample, list(expected))
            return compared(lambda part: _run_torch(module, part), model, sample)
        except UserCodeError as error:
            failures.append(f"{name}: {error.message}")
        except Exception as error:  # exporters raise nearly anything
            failures.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        _log.warning("exporter failed", exporter=name, reason=failures[-1])
    raise UserCodeError(
        f"{type(module).__module__}:{type(module).__qualname__} cannot be exported to ONNX: {'; '.join(failures)}",
        hint="write forward without control flow that depends on the data",
    )


def compared(
    run: Callable[[Tensors], Mapping[str, NDArray[Any]]], model: bytes, sample: Tensors, *, library: str = "torch"
) -> Exported:
    """The export, if ONNX Runtime gives what the library gives, for the whole sample, its first row, and the rest.

    Args:
        run: the library's own outputs by name.
        model: what it was exported to.
        sample: encoded rows, at least two, batch first.
        library: its name, for errors.

    Raises:
        UserCodeError: an output is not there, has another shape, or differs by more than `TOLERANCE`.
        Corrupt: the bytes are no ONNX model.
    """
    session = open_session(model)
    inputs, outputs = tensor_specs(session)
    if other := {spec.name for spec in inputs} - set(sample):
        raise UserCodeError(f"the ONNX model wants inputs that the codec does not give: {', '.join(sorted(other))}")
    if other := set(run(sample)) - {spec.name for spec in outputs}:
        raise UserCodeError(f"the ONNX model has no outputs {', '.join(sorted(other))}, which {library} has")
    for rows in (slice(None), slice(0, 1), slice(1, None)):
        part = {name: array[rows] for name, array in sample.items()}
        expected = dict(run(part))
        taken = {spec.name: part[spec.name] for spec in inputs}
        found = dict(zip(expected, session.run(list(expected), taken), strict=True))
        _agree(expected, found, library)
    return Exported(model, inputs, outputs)


def _agree(expected: _Outputs, found: _Outputs, library: str) -> None:
    for name, wanted in expected.items():
        given = found[name]
        if given.shape != wanted.shape:
            raise UserCodeError(f"{name} is {given.shape} in ONNX Runtime and {wanted.shape} in {library}")
        off = np.abs(given.astype(np.float64) - wanted) / np.maximum(1.0, np.abs(wanted))
        if not (worst := float(off.max(initial=0.0))) <= TOLERANCE:
            most = f"(at most {TOLERANCE:g})"
            raise UserCodeError(f"{name} differs by {worst:.2g} between ONNX Runtime and {library} {most}")


def _run_torch(module: "torch.nn.Module", sample: Tensors) -> _Outputs:
    import torch

    with torch.inference_mode(), user_code(module, "forward"):
        outputs = module(**_tensors(sample))
    if not isinstance(outputs, Mapping) or not all(isinstance(value, torch.Tensor) for value in outputs.values()):
        raise UserCodeError(
            f"{type(module).__module__}:{type(module).__qualname__}.forward should return tensors by name (a dict), "
            f"not {type(outputs).__name__}"
        )
    return {name: value.numpy() for name, value in outputs.items()}


def _tensors(sample: Tensors) -> "dict[str, torch.Tensor]":
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in sample.items()}


def _positional(module: "torch.nn.Module", inputs: Sequence[str], outputs: Sequence[str]) -> "torch.nn.Module":
    """The module with its tensors in a fixed order, as exporters want them."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = self.inner(**dict(zip(inputs, tensors, strict=True)))
            return tuple(found[name] for name in outputs)

    return Positional().eval()


def _trace(module: "torch.nn.Module", sample: Tensors, outputs: list[str]) -> bytes:
    import torch

    names = [*sample, *outputs]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            _positional(module, list(sample), outputs),
            tuple(_tensors(sample).values()),
            file,
            input_names=list(sample),
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in names},
            dynamo=False,
        )
        return file.read_bytes()


def _dynamo(module: "torch.nn.Module", sample: Tensors, outputs: list[str]) -> bytes:
    import torch

    batch = torch.export.Dim("batch")
    with _quiet():
        program: Any = torch.onnx.export(
            _positional(module, list(sample), outputs),
            tuple(_tensors(sample).values()),
            input_names=list(sample),
            output_names=outputs,
            dynamic_shapes=(tuple({0: batch} for _ in sample),),
            dynamo=True,
            verbose=False,
        )
    return bytes(program.model_proto.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own commentary: the older one warns that it is, and of each branch that it traces."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)

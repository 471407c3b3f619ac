"""ONNX Runtime sessions: from verified bytes, on as many threads as one is given.

ONNX Runtime starts a thread when it is imported, so it is imported with the first session: a process that has only
imported this module can still fork.
"""

from typing import Any

from tidemill.artifacts import TensorSpec
from tidemill.core.errors import Corrupt

__all__ = ["open_session", "tensor_specs"]

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "int16": "int16",
    "int8": "int8",
    "uint64": "uint64",
    "uint32": "uint32",
    "uint16": "uint16",
    "uint8": "uint8",
    "bool": "bool",
    "string": "str",
}


def open_session(model: bytes, *, threads: int = 2) -> Any:
    """An inference session on the CPU; raises `Corrupt` for bytes that are no ONNX model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads answer a little sooner and cost a core while nothing is asked.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are generated and share no base
        raise Corrupt(f"this is no ONNX model that can be run: {error}") from error


def tensor_specs(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a session."""
    return tuple(map(_spec, session.get_inputs())), tuple(map(_spec, session.get_outputs()))


def _spec(node: Any) -> TensorSpec:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, dtype=_DTYPES.get(kind, kind), shape=shape)

"""A small network for what serving costs: 20 numbers in, one of two classes out; in ONNX, and the same in torch."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.artifacts import Manifest, PredictionShape, TensorSpec, write
from tidemill.spec.model import ContinualModel

__all__ = ["CLASSES", "FIELDS", "Codec", "make_mlp", "weights"]

FIELDS = tuple(f"f{number:02d}" for number in range(20))
CLASSES = ("ok", "scratch")
_SIZES = (len(FIELDS), 64, 64, len(CLASSES))
_SEED = 7


class Codec:
    """Rows to a matrix, scores to the larger one's class."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """[n, 20]."""
        return {"x": np.array([[row[name] for name in FIELDS] for row in rows], np.float32)}

    def decode(self, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Class and confidence of each row."""
        return [
            {"class": CLASSES[best], "confidence": float(row[best])}
            for row, best in zip(outputs["y"], outputs["y"].argmax(1).tolist(), strict=True)
        ]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """It is never trained."""
        raise NotImplementedError


def weights() -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Of each layer, [out, in] and [out]."""
    rng = np.random.default_rng(_SEED)
    return [
        (rng.normal(0, 0.2, (out, into)).astype(np.float32), np.zeros(out, np.float32))
        for into, out in pairwise(_SIZES)
    ]


def make_mlp(folder: Path, resource: ContinualModel, version: str) -> Path:
    """An artifact in `folder` with this network."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, name = [], [], "x"
    for number, (matrix, bias) in enumerate(weights()):
        tensors += [numpy_helper.from_array(matrix, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{number}", f"b{number}"], [f"g{number}"], transB=1))
        last = number == len(_SIZES) - 2
        name = "y" if last else f"a{number}"
        nodes.append(helper.make_node("Softmax" if last else "Relu", [f"g{number}"], [name]))
    put: list[Any] = ["batch", len(FIELDS)]
    out: list[Any] = ["batch", len(CLASSES)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "mlp", [value("x", TensorProto.FLOAT, put)], [value("y", TensorProto.FLOAT, out)], tensors
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    manifest = Manifest(
        version=version,
        model=resource.id,
        codec=resource.spec.model.codec,
        prediction=PredictionShape(type="classification", classes=CLASSES),
        created_at="2030-01-01T00:00:00Z",
        run=version,
        snapshot="0" * 64,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, len(FIELDS))),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(None, len(CLASSES))),),
    )
    write(folder / version, {"model.onnx": model.SerializeToString()}, manifest)
    return folder / version

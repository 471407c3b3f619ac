"""Serving for tests: a resource with every kind of field, and a version of it that is made by hand in milliseconds."""

import base64
import io
from pathlib import Path
from typing import Any

from tidemill.artifacts import Manifest, PredictionShape, TensorSpec, write
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

__all__ = ["instance", "make_version", "picture", "served_resource"]


def served_resource(name: str = "phone-inspection", **spec: Any) -> ContinualModel:
    """A detection model whose code is tests/serving/code/served_code.py."""
    content: dict[str, Any] = {
        "events": {
            "entity": {"name": "station"},
            "id": "event_id",
            "timestamp": "captured_at",
            "fields": [
                {"name": "image", "type": "image"},
                {"name": "exposure_ms", "type": "float", "min": 0, "max": 1000},
                {"name": "shift", "type": "int", "required": False, "min": 1, "max": 3},
                {"name": "note", "type": "string", "required": False},
                {"name": "flash", "type": "bool", "required": False},
            ],
        },
        "features": {
            "image": ["brightness", "contrast"],
            "windows": [
                {"name": "seen", "agg": "count", "over": ["10m"]},
                {"name": "exposure", "agg": "mean", "of": "exposure_ms", "over": ["1h"]},
            ],
        },
        "model": {"codec": "served_code:Codec", "trainer": "served_code:Trainer"},
    }
    return example_resource(name, **(content | spec))


def make_version(folder: Path, resource: ContinualModel, version: str) -> Path:
    """An artifact in `folder` whose ONNX model answers `score` = its input `mean`."""
    from onnx import TensorProto, helper

    shape: list[Any] = ["batch", 1]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["mean"], ["score"])],
        "model",
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    prediction = resource.spec.prediction
    manifest = Manifest(
        version=version,
        model=resource.id,
        codec=resource.spec.model.codec,
        prediction=PredictionShape(type=prediction.type, classes=prediction.classes),
        created_at="2030-01-01T00:00:00Z",
        run=version,
        snapshot="0" * 64,
        inputs=(TensorSpec(name="mean", dtype="float32", shape=(None, 1)),),
        outputs=(TensorSpec(name="score", dtype="float32", shape=(None, 1)),),
    )
    write(folder / version, {"model.onnx": model.SerializeToString()}, manifest)
    return folder / version


def picture(brightness: int = 200) -> bytes:
    """A small PNG of one grey."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 16), (brightness,) * 3).save(file, "PNG")
    return file.getvalue()


def instance(**changes: Any) -> dict[str, Any]:
    """A valid row of a V1 request; a field changed to None is left out."""
    row = {"station": "A", "event_id": "17", "image": base64.b64encode(picture()).decode(), "exposure_ms": 4.0}
    return {name: value for name, value in (row | changes).items() if value is not None}

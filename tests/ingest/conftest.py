from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from tidemill.spec.model import ContinualModel

Resource = Callable[..., ContinualModel]

WINDOWS = [
    {"name": "seen", "agg": "count", "over": ["10m", "1h"]},
    {"name": "exposure", "agg": "sum", "of": "exposure_ms", "over": ["10m"]},
    {"name": "longest", "agg": "max", "of": "exposure_ms", "over": ["6s"]},
]


def _resource(name: str, features: dict[str, Any] | None = None, **events: Any) -> ContinualModel:
    fields = [
        {"name": "image", "type": "image", "required": False},
        {"name": "exposure_ms", "type": "float", "min": 0, "max": 1000},
        {"name": "shift", "type": "int", "required": False},
        {"name": "operator", "type": "string", "required": False},
        {"name": "rework", "type": "bool", "required": False},
    ]
    return ContinualModel.model_validate(
        {
            "apiVersion": "tidemill.dev/v1alpha1",
            "kind": "ContinualModel",
            "metadata": {"name": name},
            "spec": {
                "events": {
                    "entity": {"name": "station"},
                    "id": "event_id",
                    "timestamp": "captured_at",
                    "allowedLateness": "10m",
                    "maxFuture": "1m",
                    "fields": fields,
                    **events,
                },
                "features": {"image": ["brightness", "contrast"], "windows": WINDOWS} if features is None else features,
                "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
                "labels": {"fields": [{"name": "defect", "type": "class"}]},
                "model": {"codec": "a:Codec", "trainer": "a:Trainer"},
                "triggers": {"drift": {"every": "1s"}},
            },
        }
    )


@pytest.fixture(scope="session")
def make_resource() -> Resource:
    """A resource by name; `features` replaces spec.features, other keywords parts of spec.events."""
    return _resource


@pytest.fixture
def resource(topic_prefix: str) -> ContinualModel:
    """A resource of this test alone."""
    return _resource(topic_prefix)


@pytest.fixture(scope="session")
def image() -> str:
    """The base64 of a small picture."""
    stream = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, "PNG")
    return b64encode(stream.getvalue()).decode()


@pytest.fixture(scope="session")
def event_json() -> Callable[..., bytes]:
    """An event's JSON: a good one, with the given fields instead; None leaves a field out."""

    def make(**fields: Any) -> bytes:
        event = {"station": "A", "event_id": "e1", "captured_at": 1_790_000_000_000, "exposure_ms": 8.5, **fields}
        return msgspec.json.encode({name: value for name, value in event.items() if value is not None})

    return make

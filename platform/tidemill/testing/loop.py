"""The loop's surroundings for tests: a resource."""

from typing import Any

from tidemill.spec.model import ContinualModel

__all__ = ["example_resource"]


def example_resource(name: str = "phone-inspection", **spec: Any) -> ContinualModel:
    """A small valid ContinualModel; `spec` replaces whole parts of its spec, written as in YAML (`triggers={…}`)."""
    content: dict[str, Any] = {
        "events": {
            "entity": {"name": "station"},
            "id": "event_id",
            "timestamp": "captured_at",
            "fields": [{"name": "image", "type": "image"}],
        },
        "features": {"image": ["brightness", "contrast"]},
        "prediction": {"type": "detection", "classes": ["ok", "scratch"]},
        "labels": {"fields": [{"name": "defect", "type": "class"}], "control": 1.0, "maturity": {"after": "4s"}},
        "model": {"codec": "inspection.model:Codec", "trainer": "inspection.model:Trainer", "initial": "dataset"},
        "triggers": {"drift": {"tolerance": 0.2, "every": "1s"}, "volume": {"newLabels": 1000}, "cooldown": "5m"},
    }
    return ContinualModel.model_validate(
        {
            "apiVersion": "tidemill.dev/v1alpha1",
            "kind": "ContinualModel",
            "metadata": {"name": name},
            "spec": content | spec,
        }
    )

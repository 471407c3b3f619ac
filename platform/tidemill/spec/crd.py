"""The CustomResourceDefinition of ContinualModel, made from the Pydantic models: `python -m tidemill.spec.crd`.

Pydantic's JSON schema becomes a structural one: no references, no unions, defaults as people write them. What holds
between fields is said twice, in the models and here as CEL rules, so that `kubectl apply` refuses at once what the
operator would refuse later; where CEL cannot say it (sums of durations, names that must be known), the operator's word
in the status stays the only one.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from tidemill.spec.cel import RULES, Rule
from tidemill.spec.model import ContinualModel
from tidemill.spec.quantities import Rate, format_duration

__all__ = ["GROUP", "PLURAL", "VERSION", "crd", "crd_yaml"]

GROUP, VERSION, PLURAL = "tidemill.dev", "v1alpha1", "continualmodels"

Schema = dict[str, Any]

_KEPT = ("type", "description", "default", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems")

_KEYED = {
    "spec.events.fields": "name",
    "spec.features.windows": "name",
    "spec.labels.fields": "name",
    "spec.alerts.routes": "name",
}
"""Lists whose items have a name that none of them shares: server-side apply then merges them by it."""
_SETS = {"spec.prediction.classes", "spec.features.image", "spec.serving.log.redact", "spec.triggers.drift.slices"}

_COLUMNS = (
    ("Champion", "string", ".status.champion", "Version that serves"),
    ("Candidate", "string", ".status.candidate", "Version that wants to"),
    ("Traffic", "string", ".status.traffic", "Versions and their shares as seen, in percent"),
    ("Phase", "string", ".status.phase", "Where the loop is"),
    ("Drift", "string", ".status.drift", "What the watch says of the champion"),
    ("Age", "date", ".metadata.creationTimestamp", ""),
)


_EITHER: Schema = {}
"""Stands for an item that is text or a whole number."""


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with defaults as a person would write them."""

    def encode_default(self, dft: Any) -> Any:
        """A default as JSON; a part that has only its own defaults is written `{}`."""
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if isinstance(dft, Rate):
            return str(dft)
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if isinstance(dft, tuple):
            return [self.encode_default(one) for one in dft]
        return super().encode_default(dft)


def crd() -> dict[str, Any]:
    """The definition, ready to be applied."""
    names = {
        "plural": PLURAL,
        "singular": "continualmodel",
        "kind": "ContinualModel",
        "listKind": "ContinualModelList",
        "shortNames": ["ctm"],
        "categories": ["ml"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
        "schema": {"openAPIV3Schema": _root()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def crd_yaml() -> str:
    """The definition as a file of a chart or a manifest."""
    head = "# Made by `python -m tidemill.spec.crd` from the models of tidemill.spec; a test compares.\n"
    return head + yaml.safe_dump(crd(), sort_keys=False, width=120, allow_unicode=True)


def _column(name: str, kind: str, path: str, description: str) -> Schema:
    column = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"description": description} if description else {})


def _root() -> Schema:
    said = ContinualModel.model_json_schema(by_alias=True, schema_generator=_Generator)
    spec = _structural(said["properties"]["spec"], said["$defs"], "spec")
    root = {
        "type": "object",
        "description": said["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _STATUS,
        },
    }
    return _ruled(root, "")


def _structural(said: Mapping[str, Any], parts: Mapping[str, Schema], path: str) -> Schema:
    """One value's schema as Kubernetes takes it."""
    said, nullable = _resolved(said, parts)
    if said is _EITHER:
        return {"x-kubernetes-int-or-string": True}
    if "anyOf" in said:  # of several types: its shape is the operator's to check
        kept = {key: said[key] for key in ("description", "default") if said.get(key) is not None}
        return kept | {"x-kubernetes-preserve-unknown-fields": True}
    found: Schema = {key: said[key] for key in _KEPT if key in said}
    if found.get("default", 0) is None:
        del found["default"]
    if "const" in said:
        found["enum"] = [said["const"]]
    found |= _bounds(said)
    if nullable:
        found["nullable"] = True
    if said.get("type") == "object" and "properties" in said:
        found["properties"] = {
            name: _structural(inner, parts, f"{path}.{name}") for name, inner in said["properties"].items()
        }
        if "required" in said:
            found["required"] = said["required"]
    elif said.get("type") == "object":
        found["additionalProperties"] = _structural(said["additionalProperties"], parts, f"{path}.*")
    elif said.get("type") == "array":
        found |= _array(said, parts, path)
    return _ruled(found, path)


def _array(said: Mapping[str, Any], parts: Mapping[str, Schema], path: str) -> Schema:
    found: Schema = {"items": _structural(said["items"], parts, f"{path}[]")}
    if path in _KEYED:
        return found | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [_KEYED[path]]}
    return found | ({"x-kubernetes-list-type": "set"} if path in _SETS else {})


def _resolved(said: Mapping[str, Any], parts: Mapping[str, Schema]) -> tuple[Mapping[str, Any], bool]:
    """The schema behind references and `null`; and whether null is allowed."""
    nullable = False
    if "anyOf" in said:
        others = [one for one in said["anyOf"] if one != {"type": "null"}]
        nullable = len(others) < len(said["anyOf"])
        outer = {key: value for key, value in said.items() if key != "anyOf"}
        if len(others) == 1:
            said = {**others[0], **outer}
        elif all(one.get("type") == "array" for one in others):  # of text, or of whole numbers
            said = {"type": "array", "items": _EITHER, **outer}
        else:
            return {**outer, "anyOf": others}, nullable
    if "$ref" in said:
        outer = {key: value for key, value in said.items() if key != "$ref"}
        said = {**parts[said["$ref"].rsplit("/", 1)[1]], **outer}
    return said, nullable


def _bounds(said: Mapping[str, Any]) -> Schema:
    """Minimum and maximum; one that is excluded is a flag beside it in OpenAPI 3.0."""
    found: Schema = {}
    for bound in ("minimum", "maximum"):
        excluded = f"exclusive{bound.capitalize()}"
        if bound in said:
            found[bound] = said[bound]
        elif excluded in said:
            found |= {bound: said[excluded], excluded: True}
    return found


def _ruled(schema: Schema, path: str) -> Schema:
    rules = [_rule(rule) for rule in RULES.get(path, ())]
    return schema | ({"x-kubernetes-validations": rules} if rules else {})


def _rule(rule: Rule) -> Schema:
    return {"rule": rule.cel, "message": rule.message}


_TEXT = {"type": "string"}
_LOOSE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _status_text(description: str) -> Schema:
    return {"type": "string", "description": description}


_CONDITION = {
    "type": "object",
    "required": ["type", "status"],
    "properties": {
        "type": _TEXT,
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64"},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": _TEXT,
        "message": _TEXT,
    },
}

_STATUS: Schema = {
    "type": "object",
    "description": "Where the loop stands. Written by the operator alone.",
    "properties": {
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "description": "The generation of the resource that this status is about.",
        },
        "phase": _status_text("Bootstrapping, Serving, Retraining, AwaitingApproval, Canary, Promoting, Watching, …"),
        "champion": _status_text("The version that serves."),
        "candidate": _status_text("The version that wants to."),
        "previous": _status_text("The version that served before."),
        "traffic": _status_text("Versions and their shares as seen, in percent."),
        "drift": _status_text("What the watch says of the champion."),
        "quality": _status_text("The champion's quality with its interval."),
        "message": _status_text("What the loop is doing, or waits for, in one sentence."),
        "conditions": {
            "type": "array",
            "description": "Ready, Valid, Provisioned, TrafficAsAsked.",
            "items": _CONDITION,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
        "requests": _LOOSE
        | {"description": "The last request of each kind that was made by annotation, and its answer."},
        "loop": _LOOSE | {"description": "The loop's own record of itself; its shape may change with any version."},
    },
}


if __name__ == "__main__":
    print(crd_yaml(), end="")

"""The CustomResourceDefinition of ContinualModel, made from its Pydantic classes.

    python -m tidemill.spec.crd > helm/tidemill/files/crd.yaml

A structural schema knows no references, no `null` beside a type, and no unknown formats, so what Pydantic says is
written out. A field that may be None by default is simply optional: the API server drops a `null` there, or puts the
default in its place. Only where `null` says something else than the default is it kept (`nullable`).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from tidemill.spec.model import ContinualModel
from tidemill.spec.quantities import Rate, format_duration
from tidemill.spec.rules import KEYS, RULES, SETS
from tidemill.spec.status import Status

__all__ = ["GROUP", "NAME", "VERSION", "definition", "text"]

GROUP = "tidemill.dev"
VERSION = "v1alpha1"
NAME = f"continualmodels.{GROUP}"

_LONGEST_TEXT = 1024
_LONGEST_LIST = 100
"""Where a text or list names no length itself: the API server reckons the cost of a rule from them."""
_TAKEN_OVER = (
    *("type", "enum", "format", "pattern", "minLength", "maxLength", "minItems", "maxItems", "required"),
    *("minimum", "maximum", "multipleOf"),
)
_COLUMNS = (
    ("Champion", "string", ".status.champion", "The version that serves"),
    ("Candidate", "string", ".status.candidate", "The version that wants to"),
    ("Traffic", "string", ".status.traffic", "Shares of requests, as seen"),
    ("Phase", "string", ".status.phase", "Where the loop is"),
    ("Drift", "string", ".status.drift", "What has drifted"),
    ("Age", "date", ".metadata.creationTimestamp", "Since it was made"),
)

Schema = dict[str, Any]


def definition() -> Schema:
    """The CustomResourceDefinition as a manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Helm leaves it where it is when the chart goes: with it every resource would go.
        "metadata": {"name": NAME, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "ContinualModel",
                "listKind": "ContinualModelList",
                "plural": "continualmodels",
                "singular": "continualmodel",
                "shortNames": ["ctm"],
                "categories": ["ml"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "description": words}
                        for name, kind, path, words in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _resource()},
                }
            ],
        },
    }


def text() -> str:
    """The definition as YAML."""
    return yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True)


def _resource() -> Schema:
    whole = _Writer(ContinualModel).schema()
    # The rest of these is the API server's own.
    whole["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    whole["properties"]["status"] = _Writer(Status).schema()
    whole["required"] = ["spec"]
    return whole


class _Generator(GenerateJsonSchema):
    """Pydantic's own, with durations and rates as they are written."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return str(dft) if isinstance(dft, Rate) else super().encode_default(dft)


class _Writer:
    """Writes out the schema of one class."""

    def __init__(self, part: type[BaseModel]) -> None:
        self._name = part.__name__
        self._root: Schema = part.model_json_schema(schema_generator=_Generator)
        self._parts: dict[str, Schema] = self._root.pop("$defs", {})

    def schema(self) -> Schema:
        return self._part(self._name, self._root)

    def _part(self, name: str, found: Schema) -> Schema:
        """A class: an object with its fields and rules."""
        properties = {}
        for field, inner in found["properties"].items():
            properties[field] = self._field(inner) | dict(_list_type(name, field))
        written: Schema = {"type": "object", "description": _prose(found["description"]), "properties": properties}
        if found.get("required"):
            written["required"] = found["required"]
        if name in RULES:
            written["x-kubernetes-validations"] = [
                {"rule": rule.expression, "message": rule.message} for rule in RULES[name]
            ]
        return written

    def _field(self, found: Schema) -> Schema:
        """A field with its default."""
        written = self._value(found)
        if "description" in found:
            written["description"] = _prose(found["description"])
        default = found.get("default")
        if default is not None and not (default == [] and written.get("minItems")):
            written["default"] = _without_nulls(default)
            if any(choice.get("type") == "null" for choice in found.get("anyOf", ())):
                written["nullable"] = True
        return written

    def _value(self, found: Schema) -> Schema:
        if "$ref" in found:
            name = found["$ref"].removeprefix("#/$defs/")
            return self._part(name, self._parts[name])
        choices = [choice for choice in found.get("anyOf", ()) if choice.get("type") != "null"]
        if choices:
            return self._value(choices[0]) if len(choices) == 1 else self._mixed(choices)
        return self._plain(found)

    def _plain(self, found: Schema) -> Schema:
        written: Schema = {key: found[key] for key in _TAKEN_OVER if key in found}
        if "const" in found:
            written["enum"] = [found["const"]]
        for bound in ("minimum", "maximum"):
            exclusive = f"exclusive{bound.capitalize()}"
            if exclusive in found:
                written |= {bound: found[exclusive], exclusive: True}
        if written["type"] == "string" and not {"enum", "format"} & written.keys():
            written.setdefault("maxLength", _LONGEST_TEXT)
        if written["type"] == "array":
            written.setdefault("maxItems", _LONGEST_LIST)
            written["items"] = self._value(found["items"])
        if written["type"] == "object":  # a mapping of anything
            written["x-kubernetes-preserve-unknown-fields"] = True
            # As one value: what is stated anew takes the place of all of it, and nobody's fields are kept account of.
            written["x-kubernetes-map-type"] = "atomic"
        return written

    def _mixed(self, choices: list[Schema]) -> Schema:
        """Either of two types, which a structural schema has no word for: the nearest that it has."""
        written = [self._value(choice) for choice in choices]
        if all(choice["type"] == "array" for choice in written):
            return written[0] | {"items": {"x-kubernetes-int-or-string": True, "maxLength": _LONGEST_TEXT}}
        # A word or a mapping. Without a type each of these binds only values of its own.
        word, mapping = written
        return {
            "x-kubernetes-preserve-unknown-fields": True,
            "pattern": f"^({'|'.join(word['enum'])})$",
            "properties": mapping["properties"],
            "required": mapping["required"],
            "maxProperties": len(mapping["properties"]),
        }


def _list_type(part: str, field: str) -> Iterator[tuple[str, Any]]:
    if (part, field) in KEYS:
        yield "x-kubernetes-list-type", "map"
        yield "x-kubernetes-list-map-keys", [KEYS[part, field]]
    elif (part, field) in SETS:
        yield "x-kubernetes-list-type", "set"


def _without_nulls(default: Any) -> Any:
    """A default in full: the API server checks the rules of a part before it looks for defaults inside."""
    if not isinstance(default, dict):
        return default
    return {name: _without_nulls(value) for name, value in default.items() if value is not None}


def _prose(description: str) -> str:
    """A docstring as one line for each paragraph."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in description.split("\n\n"))


if __name__ == "__main__":
    print(text(), end="")

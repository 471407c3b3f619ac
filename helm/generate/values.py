"""values.yaml with its comments, as the schema of the values and as the table of the chart's README.

A comment stands above the value that it describes. A line `@schema {…}` in it adds to what the default says of its
type.
The settings are those of `tidemill.core.settings`, by the same names, whether values.yaml names them or not.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tidemill.core.settings import Settings

__all__ = ["OWN_SETTINGS", "Value", "described", "readme", "schema"]

OWN_SETTINGS = frozenset(
    {"state", "image", "context", "namespace", "log_format", "metrics_host", "metrics_port"}  # the pods' own
    | {"feast_repo", "envoy_admin", "envoy_port", "feedback_host", "feedback_port", "serve_host"}
    | {"dashboard_host", "dashboard_port"}
)
"""Settings that are no values: the templates say them, or they mean nothing in a pod."""

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}

Schema = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """One value of the file.

    Attributes:
        path: such as `image.tag`.
        default: as it is written.
        text: what its comment says, on one line.
        hints: what its comment adds to the schema.
        is_group: whether it only holds others.
    """

    path: str
    default: Any
    text: str
    hints: Mapping[str, Any]
    is_group: bool


def described(source: str) -> list[Value]:
    """The values of a file in their order. Raises `ValueError` where one has no comment."""
    return list(_values(yaml.compose(source), source.splitlines(), ""))


def _values(node: Any, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, inner in node.value:
        path = f"{prefix}{key.value}"
        text, hints = _comment(lines, key.start_mark.line)
        default = yaml.safe_load(yaml.serialize(inner))
        is_group = isinstance(inner, yaml.MappingNode) and bool(inner.value) and not hints
        if not text and not is_group:
            raise ValueError(f"{path} has no comment")
        yield Value(path, default, text, hints, is_group)
        if is_group:
            yield from _values(inner, lines, f"{path}.")


def _comment(lines: list[str], at: int) -> tuple[str, Mapping[str, Any]]:
    """The comment that ends above line `at`, and its hints."""
    start = at
    while start > 0 and lines[start - 1].strip().startswith("#"):
        start -= 1
    words: list[str] = []
    hints: dict[str, Any] = {}
    for line in lines[start:at]:
        said = line.strip().removeprefix("#").strip()
        if said.startswith("@schema "):
            hints |= json.loads(said.removeprefix("@schema "))
        else:
            words.append(said)
    return " ".join(words), hints


def schema(source: str) -> Schema:
    """The JSON schema of the values: closed, each described."""
    root: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart tidemill",
        "type": "object",
        "additionalProperties": False,
        # Helm's own: what a parent chart may hand to all of its parts.
        "properties": {"global": {"type": "object", "description": "Of a parent chart; not read."}},
    }
    for value in described(source):
        *above, name = value.path.split(".")
        where = root
        for step in above:
            where = where["properties"][step]
        where["properties"][name] = _one(value)
    known = root["properties"]["settings"]["properties"]
    for name, one in _settings().items():
        known.setdefault(name, one)
    return root


def _one(value: Value) -> Schema:
    found: Schema = {"description": value.text} if value.text else {}
    if value.is_group:
        return found | {"type": "object", "additionalProperties": False, "properties": {}}
    found["type"] = _TYPES.get(type(value.default), "null")
    return found | dict(value.hints) | {"default": value.default}


def _settings() -> dict[str, Schema]:
    """Each setting that a pod may be told, as the settings' own schema has it, or none."""
    found = {}
    for name, one in Settings.model_json_schema()["properties"].items():
        if name not in OWN_SETTINGS:
            choices = one.get("anyOf") or [
                {key: one[key] for key in ("type", "enum", "minimum", "maximum") if key in one}
            ]
            nullable = [*choices, {"type": "null"}] if {"type": "null"} not in choices else choices
            found[name] = {"description": " ".join(one["description"].split()), "anyOf": nullable}
    return found


def readme(source: str, before: str) -> str:
    """The chart's README: what is written by hand up to the heading `## Values`, then the table."""
    head, _, _ = before.partition("## Values\n")
    lines = [
        "## Values",
        "",
        "Made from values.yaml by `make manifests`.",
        "",
        "| value | default | what |",
        "| --- | --- | --- |",
    ]
    for value in described(source):
        if not value.is_group:
            text = value.text.replace("|", "\\|")
            lines.append(f"| `{value.path}` | `{json.dumps(value.default)}` | {text} |")
    return head + "\n".join(lines) + "\n"

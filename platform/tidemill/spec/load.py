"""A ContinualModel from the YAML that a person writes: valid, or every problem at once, each with its place."""

import difflib
import json
import pathlib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tidemill.core.errors import InvalidInput, NotFound, SpecError
from tidemill.spec import planned
from tidemill.spec.document import Document, Path, path_text, read
from tidemill.spec.model import PATTERNS, ContinualModel

__all__ = ["load", "loads", "resource_yaml"]


def load(path: pathlib.Path) -> ContinualModel:
    """The resource in a file. Raises `NotFound`, `InvalidInput` (it cannot be read) or `SpecError`."""
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    return loads(text, str(path))


def loads(text: str | bytes, origin: str) -> ContinualModel:
    """The resource in a text; `origin` is what errors call it. Raises `SpecError` with all problems found."""
    document = read(text, origin)
    resource = None
    try:
        # As JSON and strictly: a number in quotes is text, here as on a cluster.
        resource = ContinualModel.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _note(document, details)
    if resource is None or document.problems:
        raise SpecError.of(tuple(sorted(document.problems, key=lambda problem: problem.line or 0)))
    return resource


def _note(document: Document, details: ErrorDetails) -> None:
    path: Path = details["loc"]
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        document.problem(path, _unknown(path))
    elif kind == "missing":
        document.problem(path, f"is required: {_meaning(path)}", document.line(path[:-1]))
    elif kind == "too_short" and len(details["input"]) >= context["min_length"]:
        return  # its items have problems of their own
    else:
        message = _expected(path, details, context)
        # What is wrong between fields starts with the name of the one to look at.
        named: Path = tuple(message.split(" ", 1)[0].rstrip(":").split(".")) if kind == "value_error" else ()
        document.problem(path, message, document.line((*path, *named)))


def _unknown(path: Path) -> str:
    stage = planned.FIELDS.get(_generic(path))
    if stage is not None:
        return f"planned, not built yet (stage {stage}); remove it"
    part = _part_at(path[:-1])
    names = _fields(part) if part else {}
    near = difflib.get_close_matches(str(path[-1]), names, n=1, cutoff=0.5)
    if near:
        return f"unknown field; did you mean {near[0]}?"
    return f"unknown field; expected one of {', '.join(names)}" if names else "unknown field"


def _expected(path: Path, details: ErrorDetails, context: Mapping[str, Any]) -> str:
    found = details["input"]
    if details["type"] == "value_error":
        message = str(context["error"])
        return f"expected {message}" if message.startswith("a ") else message
    if details["type"] == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"expected {PATTERNS.get(pattern, pattern)}, not {_shown(found)}"
    if details["type"] == "literal_error":
        stage = planned.VALUES.get(_generic(path), {}).get(found) if isinstance(found, str) else None
        if stage is not None:
            return f"{found}: planned, not built yet (stage {stage}); expected {context['expected']}"
        near = difflib.get_close_matches(str(found), re.findall(r"'([^']*)'", context["expected"]), n=1)
        asked = f"; did you mean {near[0]}?" if near else ""
        return f"expected {context['expected']}, not {_shown(found)}{asked}"
    if details["type"] in {"too_short", "too_long"}:
        least, most = context.get("min_length"), context.get("max_length")
        return f"expected at {f'least {least}' if least else f'most {most}'} items, not {len(found)}"
    message = _KINDS.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return f"expected {message}, not {_shown(found)}"


_KINDS = {
    "string_type": "text (in quotes, if it looks like something else)",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
}


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _meaning(path: Path) -> str:
    part = _part_at(path[:-1])
    found = _fields(part).get(str(path[-1])) if part else None
    return (found or "see the reference").rstrip(".")


def _generic(path: Path) -> str:
    return path_text(tuple(part for part in path if isinstance(part, str)))


def _fields(part: type[BaseModel]) -> dict[str, str | None]:
    return {field.alias or name: field.description for name, field in part.model_fields.items()}


def _part_at(path: Path) -> type[BaseModel] | None:
    """The class of the part at `path`, None where there is none."""
    part: type[BaseModel] | None = ContinualModel
    for step in path:
        if isinstance(step, int) or part is None:
            continue
        field = next((field for name, field in part.model_fields.items() if (field.alias or name) == step), None)
        part = _part_in(field.annotation) if field else None
    return part


def _part_in(annotation: Any) -> type[BaseModel] | None:
    """The part that an annotation is about: itself, or in a tuple, an optional or both."""
    if isinstance(annotation, types.GenericAlias | types.UnionType) or typing.get_origin(annotation) is not None:
        return next((part for part in map(_part_in, typing.get_args(annotation)) if part), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def resource_yaml(resource: ContinualModel) -> str:
    """The resource as a person would write it: only what was said, in the order of the schema."""
    content = resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)

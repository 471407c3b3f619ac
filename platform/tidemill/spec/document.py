"""YAML text as plain data, with the line of everything in it, so that an error can say where.

Only what JSON can say is taken: mappings with text keys, lists, text, numbers, true, false, null. Sizes and
depth are bounded before anything is built, so that no text, however it was made, costs more than it is long.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tidemill.core.errors import Problem, SpecError

__all__ = ["Document", "Path", "path_text", "read"]

Path = tuple[str | int, ...]
"""Keys and list positions from the root."""

LIMIT_BYTES = 2**20
LIMIT_DEPTH = 40
LIMIT_NODES = 20_000
"""Values once aliases are followed: what a resource of the size limit could hold at most, several times over."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}


@dataclass
class Document:
    """One YAML document. `lines` has each key and list item by its path; lines count from 1."""

    origin: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest part of it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: Path, message: str, line: int | None = None) -> None:
        """Note what is wrong at `path`."""
        self.problems.append(Problem(self.origin, line or self.line(path), path_text(path), message))


def path_text(path: Path) -> str:
    """`spec.events.fields[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def read(text: str | bytes, origin: str) -> Document:
    """The one document of a text. Problems of single values are noted in it; raises `SpecError` for the rest."""
    document = Document(origin)
    text = _decode(text, origin)
    try:
        root = _compose(text, origin)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(part for part in (error.context, error.problem) if part) or "it is not valid YAML"
        line = text.split("\n")[mark.line] if mark and mark.line <= text.count("\n") else ""
        hint = "; indent with spaces, not tabs" if re.match(r" *\t", line) else ""
        raise _refused(origin, f"not valid YAML: {why}{hint}", mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise _refused(origin, f"not valid YAML: {str(error).splitlines()[0]}") from error
    document.lines[()] = _line(root)
    document.data = _value(document, root, ())
    return document


def _decode(text: str | bytes, origin: str) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="surrogatepass"))
    if size > LIMIT_BYTES:
        raise _refused(origin, f"{size:,} bytes; a resource has at most {LIMIT_BYTES:,}")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(origin, f"not UTF-8 text: {error.reason}", text.count(b"\n", 0, error.start) + 1) from error


def _compose(text: str, origin: str) -> yaml.Node:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):  # a generator: nothing is built yet
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > LIMIT_DEPTH:
            raise _refused(origin, f"nested more than {LIMIT_DEPTH} deep", _line(event))
    roots: Iterator[yaml.Node] = yaml.compose_all(text, Loader=_Loader)
    root = next(roots, None)
    if root is None:
        raise _refused(origin, "it is empty; a ContinualModel was expected", 1)
    second = next(roots, None)
    if second is not None:
        raise _refused(origin, "a second document starts here; a file holds one resource", _line(second))
    if not isinstance(root, yaml.MappingNode):
        raise _refused(origin, "a mapping was expected (apiVersion, kind, metadata, spec)", _line(root))
    return root


def _value(document: Document, node: yaml.Node, path: Path) -> Any:
    document.nodes += 1
    if document.nodes > LIMIT_NODES or len(path) > LIMIT_DEPTH:  # aliases: of aliases, or of what they stand in
        raise _refused(document.origin, "its aliases stand for too much", _line(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        found = []
        for position, item in enumerate(node.value):
            document.lines[*path, position] = _line(item)
            found.append(_value(document, item, (*path, position)))
        return found
    return _scalar(document, node, path)


def _mapping(document: Document, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            document.problem(path, "a key must be text", line)
            continue
        name = (*path, key.value)
        if key.value in found:
            document.problem(name, f"given twice; the first is on line {document.lines[name]}", line)
            continue
        document.lines[name] = line
        found[key.value] = _value(document, value, name)
    return found


def _scalar(document: Document, node: yaml.Node, path: Path) -> Any:
    if node.tag == "tag:yaml.org,2002:timestamp":  # text to us, as in JSON
        return node.value
    if node.tag not in _SCALARS:
        document.problem(path, f"the tag {node.tag} is not allowed", _line(node))
        return None
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, OverflowError) as error:
        document.problem(path, f"cannot be read: {error}", _line(node))
        return None


def _line(found: yaml.Node | yaml.Event) -> int:
    return found.start_mark.line + 1 if found.start_mark else 1


def _refused(origin: str, message: str, line: int | None = None) -> SpecError:
    return SpecError.of((Problem(origin, line, "", message),))

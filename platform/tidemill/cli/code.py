"""The user's code, as far as it can be judged without running it: the modules are there, and it is told its classes."""

import ast
import importlib.util
from pathlib import Path

from tidemill.core.errors import InvalidInput
from tidemill.spec.model import ContinualModel

__all__ = ["check_code"]

_CLASSES = "classes"


def check_code(resource: ContinualModel, folder: Path) -> None:
    """Raise `InvalidInput` where the resource's code cannot do what it asks.

    Its modules are found neither in the folder nor installed; or `triggers.newClass` lets classes come, and the source
    of a class shows no attribute by which it is told them. What the source does not show (the class inherits, is not
    in this file, or the module is installed) is left to the run, whose step `validate` says it.
    """
    for path in (resource.spec.model.codec, resource.spec.model.trainer):
        module, _, name = path.partition(":")
        source = _source(module, folder)
        if source is None and importlib.util.find_spec(module.partition(".")[0]) is None:
            raise InvalidInput(
                f"there is no module {module} in {folder}, and none is installed",
                hint=f"{path} is imported from the folder of the resource's file",
            )
        if resource.spec.triggers.new_class is not None and source is not None and _surely_lacks(source, name):
            raise InvalidInput(
                f"triggers.newClass lets classes come that nobody declared, and {path} has no attribute {_CLASSES}",
                hint=f"give it `{_CLASSES}: tuple[str, ...] = ()`, set before it is used, or remove the trigger",
            )


def _source(module: str, folder: Path) -> Path | None:
    """The module's file in the folder."""
    file = folder.joinpath(*module.split("."))
    return next((one for one in (file.with_suffix(".py"), file / "__init__.py") if one.is_file()), None)


def _surely_lacks(file: Path, name: str) -> bool:
    """Whether the class stands in the file, inherits from nothing, and never says `classes`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the run tells it with its line
        return False
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(found) != 1 or found[0].bases or found[0].keywords or found[0].decorator_list:
        return False
    return not any(_name(node) == _CLASSES for node in ast.walk(found[0]))


def _name(node: ast.AST) -> str | None:
    """What a node names: a variable, an attribute, a function."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.name if isinstance(node, ast.FunctionDef) else None

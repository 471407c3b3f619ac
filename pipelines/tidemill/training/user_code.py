"""The user's classes: found by `module:Class`, and every failure of theirs told as theirs, with the line.

Imports nothing heavy: serving comes through here, too.
"""

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from tidemill.core.errors import TidemillError, UserCodeError
from tidemill.training.protocols import Codec, Learner, Trainer

__all__ = ["CLASSES", "code_digest", "load_codec", "load_learner", "load_trainer", "takes_classes", "user_code"]

CLASSES = "classes"
"""Attribute by which a Codec or a Trainer is told its classes."""


def load_codec(path: str, classes: Sequence[str] = ()) -> Codec:
    """The user's Codec; raises `UserCodeError` where it cannot be imported, made, or lacks a method.

    One that has an attribute `classes` gets those of the run, or of the version that answers.
    """
    return cast("Codec", _with_classes(_load(path, ("encode", "decode", "targets")), classes))


def load_trainer(path: str, classes: Sequence[str] = ()) -> Trainer:
    """The user's Trainer; raises `UserCodeError` where it cannot be imported, made, or lacks a part.

    One that has an attribute `classes` gets those of the run.
    """
    parts = ("module", "loss", "epochs", "batch_size", "learning_rate")
    return cast("Trainer", _with_classes(_load(path, parts), classes))


def load_learner(path: str, classes: Sequence[str] = ()) -> Learner | None:
    """The user's Learner; None where the class is none, which then is a Trainer. Raises as `load_trainer` does."""
    instance = _load(path, ())
    if not hasattr(instance, "to_onnx"):
        return None
    return cast("Learner", _with_classes(_load(path, ("fit", "predict", "to_onnx", "keep")), classes))


def takes_classes(instance: object) -> bool:
    """Whether the user's code is told its classes; other code has them written into it."""
    return hasattr(instance, CLASSES)


@contextmanager
def user_code(instance: object, method: str) -> Iterator[None]:
    """Run a piece of the user's code: whatever it raises becomes a `UserCodeError` with its class, method and line."""
    with _told(f"{type(instance).__module__}:{type(instance).__qualname__}.{method}"):
        yield


def _with_classes(instance: object, classes: Sequence[str]) -> object:
    if classes and takes_classes(instance):
        with user_code(instance, CLASSES):
            setattr(instance, CLASSES, tuple(classes))
    return instance


def code_digest(instance: object) -> str:
    """SHA-256 of the source that an instance comes from: its module, or all of its package where it is in one."""
    top = sys.modules[type(instance).__module__.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    if not folders and (single := getattr(top, "__file__", None)):
        files = [Path(single)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def _load(path: str, parts: tuple[str, ...]) -> object:
    module_name, _, class_name = path.partition(":")
    with _told(path):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise
            raise UserCodeError(
                f"{path}: there is no module {error.name} to import",
                hint="apply the resource from the folder that holds the module, or correct its spec.model",
            ) from error
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            raise UserCodeError(f"{path}: {module.__name__} has no class {class_name}", hint="correct spec.model")
        instance: object = found()
    for part in parts:
        if not hasattr(instance, part):
            raise UserCodeError(f"{path} has no {part}", hint="see tidemill.training.protocols for what it needs")
    return instance


@contextmanager
def _told(who: str) -> Iterator[None]:
    try:
        yield
    except TidemillError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"{who} raised {type(error).__name__}: {error}{_last_line(error)}", hint="correct the model's code"
        ) from error


def _last_line(error: BaseException) -> str:
    """Where in the user's files it happened: the innermost frame that is neither ours nor a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    if not frames:
        return ""
    return f" (line {frames[-1].lineno} of {frames[-1].filename}: {frames[-1].line})"


def _is_library(filename: str) -> bool:
    ours = Path(__file__).parents[1]
    path = Path(filename)
    return (
        filename.startswith("<")
        or "site-packages" in path.parts
        or path.is_relative_to(ours)
        or path.is_relative_to(Path(traceback.__file__).parent)
    )

"""The resource store of one machine: a folder with two files per model, replaced by rename under a lock.

    <state>/resources/<id>.yaml            the ContinualModel; an annotation remembers the user's code folder
    <state>/resources/<id>.status.json     the loop's status

The version of a model is a hash of both files. A file that a person edits or removes by hand is a change like
any other, and there is no counter that could be lost.
"""

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidemill.control.protocols import StoredModel
from tidemill.core.errors import Conflict, InvalidInput, NotFound, SpecError
from tidemill.core.files import write_atomically
from tidemill.spec.load import loads, resource_yaml
from tidemill.spec.model import ContinualModel, Metadata

__all__ = ["CODE_ANNOTATION", "LocalResourceStore", "resource_yaml"]

CODE_ANNOTATION = "tidemill.dev/code"
"""Annotation with the folder from which the user's classes are imported."""

_RESOURCE = ".yaml"
_STATUS = ".status.json"


class LocalResourceStore:
    """Models as files in one folder. Safe for several processes; implements `ResourceStore`."""

    def __init__(self, folder: Path) -> None:
        """Store in `folder`, which is made on the first write."""
        self._folder = folder
        self._parsed: dict[str, tuple[bytes, tuple[ContinualModel, str | None] | SpecError]] = {}

    def path(self, model: str) -> Path:
        """The file of a model's resource, which the roles are started with."""
        if not model or set(model) & set("/\\\0") or model.startswith("."):
            raise InvalidInput(f"{model!r} is no model id", hint="an id is <namespace>.<name>, e.g. default.inspection")
        return self._folder / f"{model}{_RESOURCE}"

    def ids(self) -> set[str]:
        """The ids of all models, those included whose file cannot be read."""
        return {path.name.removesuffix(_RESOURCE) for path in self._folder.glob(f"[!.]*{_RESOURCE}")}

    def list(self) -> Sequence[StoredModel]:
        """All models that can be read, ordered by id; one that cannot is logged, and left out."""
        models = []
        for path in sorted(self._folder.glob(f"[!.]*{_RESOURCE}")):
            try:
                models.append(self.get(path.name.removesuffix(_RESOURCE)))
            except NotFound:
                continue  # deleted since the folder was read
            except SpecError as error:
                _log(path, error)
        return models

    def get(self, model: str) -> StoredModel:
        """One model by id; raises `NotFound`, or `SpecError` where its file is not a ContinualModel."""
        path = self.path(model)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(
                f"there is no model {model} in {self._folder}", hint="`tidemill get` lists what there is"
            ) from None
        status = self._status(model)
        resource, code = self._parse(path, content)
        return StoredModel(resource=resource, status=status, version=_version(content, status), code=code)

    def put(self, resource: ContinualModel, *, code: str | None = None) -> StoredModel:
        """Create or replace the resource; its status stays."""
        with self._locked():
            content = resource_yaml(_annotated(resource, code))
            write_atomically(self.path(resource.id), content, durable=True)
            return self.get(resource.id)

    def put_status(self, model: str, status: bytes, *, version: str) -> StoredModel:
        """Replace the status if `version` is still the stored one; raises `Conflict`, `NotFound`."""
        with self._locked():
            stored = self.get(model)
            if stored.version != version:
                raise Conflict(f"the status of {model} has changed: it is {stored.version}, not {version}")
            write_atomically(self._folder / f"{model}{_STATUS}", status, durable=True)
            return self.get(model)

    def delete(self, model: str) -> None:
        """Remove resource and status; removing what is not there is no error."""
        with self._locked():
            # The status first: a resource without status is a new model, a status without resource a leftover.
            (self._folder / f"{model}{_STATUS}").unlink(missing_ok=True)
            self.path(model).unlink(missing_ok=True)

    def _status(self, model: str) -> bytes | None:
        try:
            return (self._folder / f"{model}{_STATUS}").read_bytes()
        except FileNotFoundError:
            return None

    def _parse(self, path: Path, content: bytes) -> tuple[ContinualModel, str | None]:
        """The resource and its code folder; parsed once per content, since every tick reads it."""
        known = self._parsed.get(path.name)
        if known is None or known[0] != content:
            try:
                known = (content, _read(path, content))
            except SpecError as error:
                known = (content, error)
            self._parsed[path.name] = known
        if isinstance(known[1], SpecError):
            raise known[1]
        return known[1]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(path: Path, content: bytes) -> tuple[ContinualModel, str | None]:
    resource = loads(content, str(path))
    if f"{resource.id}{_RESOURCE}" != path.name:
        raise SpecError(f"{path} holds the model {resource.id}", hint="apply the model again")
    return _annotated(resource, None), resource.metadata.annotations.get(CODE_ANNOTATION)


def _log(path: Path, error: SpecError) -> None:
    from tidemill.core.telemetry import get_logger  # commands that read the store must start fast

    get_logger(__name__).error("a stored resource cannot be read", path=str(path), error=error.message)


def _annotated(resource: ContinualModel, code: str | None) -> ContinualModel:
    """The resource with its code folder among the annotations, or without it."""
    known = resource.metadata.annotations
    annotations = {key: text for key, text in known.items() if key != CODE_ANNOTATION}
    if code is not None:
        annotations[CODE_ANNOTATION] = code
    if annotations == known:
        return resource
    said = resource.metadata.model_dump(exclude_unset=True) | {"annotations": annotations}
    if not annotations:
        del said["annotations"]  # nobody wrote an empty one
    return resource.model_copy(update={"metadata": Metadata(**said)})


def _version(resource: bytes, status: bytes | None) -> str:
    digest = hashlib.sha256(resource)
    digest.update(b"\0" if status is None else b"\1" + status)
    return digest.hexdigest()[:16]

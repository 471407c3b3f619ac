"""A version from elsewhere: its artifact is copied, registered and proposed as if a run had made it.

It goes the way of every version: a grant, so that nothing else runs; the registry; a proposal. What was cut off is
ended by doing it again, because the version is named by what it is.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

import msgspec

from tidemill.artifacts import Manifest, read, verify, write
from tidemill.artifacts.manifest import encode_manifest
from tidemill.core.errors import Conflict, InvalidInput, TidemillError
from tidemill.events.records import Decision
from tidemill.retrain import grant as control
from tidemill.retrain.card import FILE
from tidemill.retrain.place import Place
from tidemill.spec.model import ContinualModel

__all__ = ["adopt"]

_NEEDED = ("model.onnx", "weights.safetensors", "reference.json")
"""What serves, what the next training starts from, and what drift is measured against."""


def adopt(place: Place, source: Path, *, reason: str, by: str) -> Decision:
    """Make the version in a folder one of the model's own; control's decision, which starts its rollout.

    Args:
        place: the surroundings.
        source: folder of a version, with its manifest.
        reason: why, in words; it stands with the version.
        by: who asks.

    Raises:
        NotFound, Corrupt: there is no version, or its files are not the ones that were written.
        InvalidInput: it is none that this model could serve.
        Conflict: control refuses it, because something else goes on, or it was proposed before.
    """
    manifest = verify(source)
    _check_fits(place.resource, manifest, source)
    version = f"adopted-{hashlib.sha256(encode_manifest(manifest)).hexdigest()[:12]}"
    # First of all, so that a grant is not held while gigabytes are copied.
    made = _copied(place, source, manifest, version)
    granted = control.claim(place, version, reason=reason, force=False, skip_gates=True, by=by)
    if granted is None:
        raise Conflict(f"control refused {version}: its reason is told above")
    try:
        artifact = place.version_uri(version)
        place.registry().register(
            place.resource.id, version, artifact, tags=_tags(made, manifest, reason), description=_card(place, made)
        )
        return control.propose(place, granted, artifact, ())
    except TidemillError as error:
        with suppress(TidemillError):
            control.tell_failed(place, granted, "adopt", error.message)
        raise


def _check_fits(resource: ContinualModel, manifest: Manifest, source: Path) -> None:
    declared, found = resource.spec.prediction, manifest.prediction
    problems = [f"it has no {name}" for name in _NEEDED if name not in manifest.files]
    if manifest.codec != resource.spec.model.codec:
        problems.append(f"its codec is {manifest.codec}, and spec.model.codec is {resource.spec.model.codec}")
    if found.type != declared.type:
        problems.append(f"it predicts a {found.type}, and spec.prediction.type is {declared.type}")
    elif declared.classes and found.classes[:1] != declared.classes[:1]:
        # What stands for "nothing was found" never moves; classes that one of them has besides are known, or learnt.
        problems.append(f"its first class is {found.classes[0]}, that of spec.prediction.classes {declared.classes[0]}")
    if problems:
        raise InvalidInput(f"{source} is no version for {resource.id}: {'; '.join(problems)}")


def _copied(place: Place, source: Path, manifest: Manifest, version: str) -> Manifest:
    own = msgspec.structs.replace(
        manifest,
        version=version,
        model=place.resource.id,
        run=version,
        warm_from="",
        created_at=place.clock.now().isoformat(timespec="seconds"),
    )
    return write(place.version_folder(version), {name: source / name for name in manifest.files}, own)


def _tags(made: Manifest, manifest: Manifest, reason: str) -> dict[str, str]:
    return {
        "tidemill.run": made.run,
        "tidemill.cause": "adopted",
        "tidemill.reason": reason,
        "tidemill.adopted": f"{manifest.version} of {manifest.model}, made at {manifest.created_at}",
        "tidemill.snapshot": made.snapshot,
    }


def _card(place: Place, made: Manifest) -> str:
    if FILE not in made.files:
        return ""
    return read(place.version_folder(made.version), made, FILE).decode()

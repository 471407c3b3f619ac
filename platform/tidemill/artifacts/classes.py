"""The classes that are known: those that a resource declares, and those that its versions have learnt besides."""

from collections.abc import Sequence

from tidemill.artifacts.folder import local_folder, manifest_of
from tidemill.core.errors import TidemillError
from tidemill.spec.model import ContinualModel

__all__ = ["as_known", "known_classes"]


def known_classes(declared: Sequence[str], version: Sequence[str]) -> tuple[str, ...]:
    """The version's, in its order, then what else is declared: what stands for a class never moves.

    Where the two do not begin with the same class, which means that nothing was found, the declared ones come first.
    """
    first, then = (version, declared) if version[:1] == declared[:1] else (declared, version)
    return tuple(dict.fromkeys((*first, *then)))


def as_known(resource: ContinualModel, *artifacts: str) -> ContinualModel:
    """The resource with all classes that are known.

    Args:
        resource: as declared.
        artifacts: URIs of versions, of which the last decides about the order; of one that cannot be read, or has no
            place yet (""), nothing more is known.
    """
    classes = resource.spec.prediction.classes
    for artifact in artifacts if classes else ():
        try:
            classes = known_classes(classes, manifest_of(local_folder(artifact)).prediction.classes)
        except TidemillError:
            continue
    return resource if classes == resource.spec.prediction.classes else resource.with_classes(classes)

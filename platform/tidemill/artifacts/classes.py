"""The classes that are known: those that a resource declares, and those that its champion has learnt besides."""

from collections.abc import Sequence

from tidemill.artifacts.folder import local_folder, manifest_of
from tidemill.core.errors import TidemillError
from tidemill.spec.model import ContinualModel

__all__ = ["as_known", "known_classes"]


def known_classes(declared: Sequence[str], champion: Sequence[str]) -> tuple[str, ...]:
    """The champion's, in its order, then what else is declared: what stands for a class never moves.

    Where the two do not begin with the same class, which means that nothing was found, the declared ones come first.
    """
    first, then = (champion, declared) if champion[:1] == declared[:1] else (declared, champion)
    return tuple(dict.fromkeys((*first, *then)))


def as_known(resource: ContinualModel, champion: str | None) -> ContinualModel:
    """The resource with all classes that are known.

    Args:
        resource: as declared.
        champion: URI of the champion's artifact; of one that cannot be read, or None, nothing more is known.
    """
    declared = resource.spec.prediction.classes
    if not champion or not declared:
        return resource
    try:
        answered = manifest_of(local_folder(champion)).prediction.classes
    except TidemillError:
        return resource
    return resource.with_classes(known_classes(declared, answered))

"""By what a model's predictions and outcomes can be cut."""

from tidemill.outcomes.quality import ENTITY
from tidemill.spec.model import ContinualModel

__all__ = ["groups_of", "slices_by"]


def groups_of(resource: ContinualModel) -> tuple[str, ...]:
    """The names of the slices that the resource declares, without the entity's, by which one may always look."""
    watched = resource.spec.triggers.drift.slices if resource.spec.triggers.drift else ()
    names = dict.fromkeys((*watched, *(gate.by for gate in resource.spec.gates.slices)))
    return tuple(one for one in names if one != resource.spec.events.entity.name)


def slices_by(resource: ContinualModel) -> tuple[str, ...]:
    """By what outcomes can be cut: the entity, the declared slices, and the features that are watched."""
    return tuple(dict.fromkeys((ENTITY, *groups_of(resource), *resource.watched_features)))

"""A model as its labels and answers are judged: as declared, with the classes that its versions have learnt besides."""

from tidemill.artifacts.classes import as_known
from tidemill.control.protocols import StoredModel
from tidemill.control.state import LoopStatus, decode_status
from tidemill.core.errors import Corrupt
from tidemill.spec.model import ContinualModel

__all__ = ["known_resource", "known_status"]


def known_status(stored: StoredModel) -> LoopStatus | None:
    """The model's status, or None before control has seen the model. Raises `Corrupt`."""
    return None if stored.status is None else decode_status(stored.status)


def known_resource(stored: StoredModel) -> ContinualModel:
    """The resource with the classes that champion, candidate and previous version answer."""
    try:
        status = known_status(stored)
    except Corrupt:  # control rebuilds it
        status = None
    if status is None:
        return stored.resource
    versions = (status.champion, status.candidate, status.previous)
    return as_known(stored.resource, *(one.artifact for one in versions if one is not None))

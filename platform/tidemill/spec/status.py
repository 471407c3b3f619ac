"""What a cluster shows of a model's loop: the `status` of a ContinualModel, from which the CRD has it.

The loop writes it, nobody else. `loop` and `requests` are its own memory; the rest is told to people.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from tidemill.spec.part import Part

__all__ = ["Condition", "Status"]


class Condition(Part):
    """One statement about the resource, as every Kubernetes object has them."""

    type: Annotated[str, Field(max_length=316)]
    """What it is about, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, in words for people."""
    last_transition_time: datetime
    """When it last changed."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The generation of the resource that it was said of."""


class Status(Part):
    """What the loop does and what it found."""

    observed_generation: int | None = None
    """The generation of the spec that the loop last acted on."""
    conditions: tuple[Condition, ...] = ()
    """Whether the resource is valid, its objects are there, and the model serves."""
    phase: str | None = None
    """Where the loop is: Bootstrapping, Serving, Retraining, Canary and so on."""
    champion: str | None = None
    """The version that serves."""
    candidate: str | None = None
    """The version that wants to."""
    previous: str | None = None
    """The version before, to which a rollback returns."""
    traffic: str | None = None
    """Shares of requests as they were seen at the proxy, in words."""
    drift: str | None = None
    """What has drifted, in words."""
    quality: str | None = None
    """How well the champion answers, in words."""
    message: str | None = None
    """What happened last, in words."""
    requests: dict[str, Any] | None = None
    """What people asked for by annotation, and what became of it: written by the loop for itself."""
    loop: dict[str, Any] | None = None
    """The loop's state, as JSON: written by the loop for itself."""

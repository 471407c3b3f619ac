"""The name of a model in predict paths, those paths, and the header that tells a copy of a request."""

from tidemill.spec.model import ContinualModel

__all__ = ["MIRROR_HEADER", "predict_path", "served_name"]

MIRROR_HEADER = "x-tidemill-mirror"
"""Names the version that gets copies of the requests, in each request and its copy: that version gets nothing else.
Whoever moves traffic sets it in the same route that makes the copies, and removes what a client sent of it."""


def served_name(resource: ContinualModel) -> str:
    """The model's name in predict paths: its own in the default namespace, else its id.

    All models of one machine share one endpoint, so a name alone is not enough outside the default namespace.
    """
    return resource.metadata.name if resource.metadata.namespace == "default" else resource.id


def predict_path(resource: ContinualModel) -> str:
    """The path that takes V1 predict requests, e.g. `/v1/models/phone-inspection:predict`."""
    return f"/v1/models/{served_name(resource)}:predict"

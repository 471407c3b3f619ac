"""Fields of ContinualModel that are planned but not built yet: refused, but not as if nobody had heard of them."""

__all__ = ["FIELDS"]

FIELDS = {
    "spec.model.resources": "cluster",
    "spec.rollout.shadow": "rollout",
    "spec.rollout.watch.holdback": "rollout",
    "spec.serving.replicas": "serving",
    "spec.serving.driver": "serving",
    "spec.serving.serviceAccountName": "serving",
}
"""Path of each such field, and the stage it belongs to."""

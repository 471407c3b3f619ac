"""Fields of ContinualModel that are planned but not built yet: refused, but not as if nobody had heard of them."""

__all__ = ["FIELDS", "VALUES"]

FIELDS = {
    "spec.rollout.cohorts": "rollout",
    "spec.rollout.shadow": "rollout",
    "spec.rollout.watch.holdback": "rollout",
}
"""Path of each such field, and the stage it belongs to."""

VALUES = {
    "spec.model.initial": {"version": "registry"},
}
"""Values of fields that exist, likewise."""

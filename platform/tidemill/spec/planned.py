"""Fields of ContinualModel that are planned but not built yet: refused, but not as if nobody had heard of them."""

__all__ = ["FIELDS"]

FIELDS = {
    "spec.rollout.watch.holdback": "rollout",
}
"""Path of each such field, and the stage it belongs to."""

"""What the pipeline's components call: runs a step here, or hands it to a process that has imported what it needs.

Imports the standard library alone, so that a component that hands its step over starts at once.
"""

from typing import Any

from tidemill.retrain import warm

__all__ = ["run"]


def run(step: str, **arguments: Any) -> Any:
    """Run a step of `tidemill.retrain.steps`; arguments and result are what JSON can hold."""
    handed = warm.hand_over(step, arguments)
    if handed is not None:
        return handed.result()
    from tidemill.retrain import steps

    return getattr(steps, step)(**arguments)

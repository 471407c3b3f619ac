"""What a gate of the data says: the verdicts of `tidemill.training.verdict`, made from reasons and figures."""

from collections.abc import Sequence

from tidemill.training.verdict import GateVerdict, Value

__all__ = ["passed", "refused", "shown", "warned"]

_SHOWN = 3
WARNING = "warning: "


def passed(gate: str, reason: str, **figures: Value) -> GateVerdict:
    """Nothing is wrong."""
    return GateVerdict(gate=f"data.{gate}", passed=True, reason=reason, figures=figures)


def warned(gate: str, reasons: Sequence[str], **figures: Value) -> GateVerdict:
    """Something may be wrong; no reason to stop."""
    return passed(gate, WARNING + "; ".join(reasons), **figures)


def refused(gate: str, reasons: Sequence[str], **figures: Value) -> GateVerdict:
    """This is no dataset to learn from."""
    return GateVerdict(gate=f"data.{gate}", passed=False, reason="; ".join(reasons), figures=figures)


def shown(names: Sequence[str]) -> str:
    """The first few of many."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")

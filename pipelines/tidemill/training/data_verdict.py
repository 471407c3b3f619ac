"""What a data gate says: the same form as the verdicts of a candidate's gates, with reasons and figures."""

from collections.abc import Sequence

import msgspec

__all__ = ["DataVerdict", "Figure", "passed", "refused", "shown", "warned"]

Figure = float | int | str | None

_SHOWN = 3
WARNING = "warning: "


class DataVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate says of a snapshot; as JSON it is what `tidemill.evaluation.gates.decode_verdicts` reads."""

    gate: str
    """`data.` and the gate's name."""
    passed: bool | None
    """None: not applicable."""
    enforced: bool = True
    """False: shown only, because the gates were skipped by force."""
    reason: str
    """Where it begins with `warning: `, a person should look, and the run goes on."""
    figures: dict[str, Figure] = {}


def passed(gate: str, reason: str, **figures: Figure) -> DataVerdict:
    """Nothing is wrong."""
    return DataVerdict(gate=f"data.{gate}", passed=True, reason=reason, figures=figures)


def warned(gate: str, reasons: Sequence[str], **figures: Figure) -> DataVerdict:
    """Something may be wrong; no reason to stop."""
    return passed(gate, WARNING + "; ".join(reasons), **figures)


def refused(gate: str, reasons: Sequence[str], **figures: Figure) -> DataVerdict:
    """This is no dataset to learn from."""
    return DataVerdict(gate=f"data.{gate}", passed=False, reason="; ".join(reasons), figures=figures)


def shown(names: Sequence[str]) -> str:
    """The first few of many."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")

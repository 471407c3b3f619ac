"""What a gate says: passed, refused or not applicable, each with its reason and figures; never a bare bool."""

from collections.abc import Sequence

import msgspec

from tidemill.core.errors import Corrupt

__all__ = [
    "WORDS",
    "GateVerdict",
    "Value",
    "decode_verdicts",
    "encode_verdicts",
    "may_pass",
    "not_applicable",
    "skipped",
]

WORDS = {None: "not applicable", True: "passed", False: "refused"}
"""A verdict in a word."""

Value = float | int | str | None


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate says of one candidate."""

    gate: str
    """Its name in `spec.gates`, and what it is of: `fresh`, `frozen.atLeast`, `slices.station`; `data.` and the name of
    a gate of the data."""
    passed: bool | None
    """None: not applicable."""
    enforced: bool = True
    """False: shown only, because the gates were skipped by force."""
    reason: str
    """Of a gate of the data that begins with `warning: `: a person should look, and the run goes on."""
    figures: dict[str, Value] = {}

    def __str__(self) -> str:
        """As a run's log has it."""
        return f"gate {self.gate}: {WORDS[self.passed]}: {self.reason}"


def not_applicable(gate: str, why: str, figures: dict[str, Value] | None = None) -> GateVerdict:
    """The verdict of a gate that has nothing to judge."""
    return GateVerdict(gate=gate, passed=None, reason=f"{why}: not applicable", figures=figures or {})


def skipped(verdict: GateVerdict) -> GateVerdict:
    """The verdict of a gate that a person chose to skip: shown, and not enforced."""
    return msgspec.structs.replace(verdict, enforced=False, reason=f"{verdict.reason} (skipped by force)")


def may_pass(verdicts: Sequence[GateVerdict]) -> bool:
    """Whether no enforced gate refuses."""
    return not any(verdict.enforced and verdict.passed is False for verdict in verdicts)


def encode_verdicts(verdicts: Sequence[GateVerdict]) -> str:
    """The verdicts as one line of JSON, as requests and the registry carry them."""
    return msgspec.json.encode(list(verdicts)).decode()


def decode_verdicts(text: str) -> tuple[GateVerdict, ...]:
    """The verdicts that `encode_verdicts` wrote; raises `Corrupt` on anything else."""
    try:
        return msgspec.json.decode(text, type=tuple[GateVerdict, ...])
    except msgspec.DecodeError as error:
        raise Corrupt(f"these are no gate verdicts: {error}") from error

"""What to state next of an InferenceService in Knative mode, so that traffic follows what is wanted. Pure.

KServe shares requests between two revisions: the newest that is ready gets `canaryTrafficPercent`, the one that was
rolled out last the rest. Without the percentage the newest that is ready gets everything, and counts as rolled out.
Hence the one rule that all others serve: another version is stated with 0 %, and gets more once *its* revision is
ready. Stated without a percentage it would give the version before it, good or bad, all requests meanwhile.
"""

from collections.abc import Mapping
from typing import NamedTuple

from tidemill.core.errors import InvalidInput, Unsupported

__all__ = ["UNKNOWN", "Standing", "Statement", "checked", "next_statement"]

UNKNOWN = "?"
"""The version of a revision that is there no longer."""


class Statement(NamedTuple):
    """The version that the spec names, and its share; None: no `canaryTrafficPercent`, all requests."""

    version: str
    percent: int | None


class Standing(NamedTuple):
    """How an InferenceService stands."""

    stated: Statement
    rolled_out: str
    """The version of `latestRolledoutRevision`; empty before the first, `UNKNOWN` where that is gone."""
    ready: bool
    """Whether the newest revision is of the stated version, and ready."""
    known: frozenset[str]
    """The versions that have a revision."""


def checked(wanted: Mapping[str, int]) -> Mapping[str, int]:
    """The shares as they are, where KServe can be asked for them: it accepts 101 and -1, and more than two versions.

    Raises `Unsupported` for three versions, `InvalidInput` for shares that are none.
    """
    if len(wanted) > 2:
        raise Unsupported(f"the knative driver shares requests between two versions, not {len(wanted)}")
    if any(not 0 <= share <= 100 for share in wanted.values()) or (wanted and sum(wanted.values()) != 100):
        raise InvalidInput(f"shares are 0 to 100 % and add up to 100, not {dict(wanted)}")
    return wanted


def next_statement(wanted: Mapping[str, int], standing: Standing | None) -> Statement:
    """What to state now; the same again once everything is as wanted, or waits for a revision to be ready.

    Args:
        wanted: share by version, one or two of them.
        standing: None where there is no InferenceService yet.
    """
    most = max(sorted(wanted), key=lambda version: wanted[version])
    if standing is None:
        return Statement(most, None)
    stated, rolled_out = standing.stated.version, standing.rolled_out
    if stated not in wanted:
        # The version that serves needs no new revision, unless the spec is to name it again.
        others = [version for version in wanted if version != rolled_out]
        return Statement(others[0] if rolled_out in wanted and others else most, 0)
    if not rolled_out:
        return Statement(stated, None)
    if rolled_out not in wanted:
        return Statement(most, _once_ready(standing, None) if stated == most else 0)
    if len(wanted) == 1:
        return Statement(stated, _once_ready(standing, None))
    if stated != rolled_out:
        return Statement(stated, _once_ready(standing, wanted[stated]))
    (other,) = (version for version in wanted if version != stated)
    if wanted[other] or other not in standing.known:
        return Statement(other, 0)
    return standing.stated


def _once_ready(standing: Standing, percent: int | None) -> int | None:
    """The share of the stated version, or 0 while its revision is not ready; what was given to it is left to it."""
    if standing.ready or standing.stated.percent == percent:
        return percent
    return 0

"""The traffic seam: what shares of the requests which version gets. One implementation per file beside this one.

A driver is level-triggered. `apply` states what is wanted, as often as one likes; `observe` tells what is
seen. A split that was applied but not observed has not happened. Neither call waits for traffic to move.
"""

from typing import Protocol

import msgspec

__all__ = ["RevisionSeen", "RevisionWanted", "Sticky", "TrafficDriver", "TrafficSeen", "TrafficWanted", "in_one_line"]


class RevisionWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A version to serve.

    `share` is its part of the requests in percent, 0 to 100; a version with 0 is started and kept ready
    without traffic. `artifact` is the directory (or URI) of its files.
    """

    version: str
    artifact: str
    share: int


class Sticky(msgspec.Struct, frozen=True, kw_only=True):
    """Who goes where follows from a key of the request, not from chance alone.

    A key's bucket, 0 to 99, is a hash of `salt` and the value of the request header `header`; the buckets below its
    share belong to `first`, so that raising that share moves nobody back. A request without the header goes by chance.
    """

    header: str
    salt: str
    first: str
    """The version whose buckets begin at 0: the candidate."""


class TrafficWanted(msgspec.Struct, frozen=True):
    """All versions of one model that are to exist; shares add up to 100, or there are none."""

    revisions: tuple[RevisionWanted, ...] = ()
    sticky: Sticky | None = None
    """None: each request goes by chance. Asked only of drivers that say `sticky`."""
    mirror: str | None = None
    """The version, one with share 0, that gets a copy of each request; its answers reach no user. Asked only of
    drivers that say `mirrors`."""
    decision: str = ""
    """What it follows from: an abort may want the shares that were wanted before, and yet be another decision."""


class RevisionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A version as the proxy and its server show it.

    `share` is the weight the proxy works with now, in percent. Counters grow from the start of the
    revision; `latency_p99_ms` is over the last interval and None without requests.
    """

    version: str
    share: int
    ready: bool
    failed: str | None = None
    """Why the server cannot become ready, where it has said so."""
    requests: int = 0
    errors: int = 0
    latency_p99_ms: float | None = None


class TrafficSeen(msgspec.Struct, frozen=True):
    """What is served now, and where."""

    revisions: tuple[RevisionSeen, ...] = ()
    endpoint: str | None = None
    """Base URL that takes predict requests, e.g. `http://127.0.0.1:8080`."""
    mirror: str | None = None
    """The version that gets copies of the requests now."""
    foreign: str | None = None
    """What somebody else has changed of the split, and who. It stands until it is taken back, or until the next
    decision (`TrafficWanted.decision`), which is made with the edit known."""
    unguarded: str | None = None
    """Why requests, errors and latency are not told, where they are not: guards then see none."""

    def revision(self, version: str) -> RevisionSeen | None:
        """The named version, or None where it is not there."""
        return next((seen for seen in self.revisions if seen.version == version), None)


class TrafficDriver(Protocol):
    """Moves the traffic of one model. Raises `Unavailable` where the proxy or platform does not answer."""

    sticky: bool
    """Whether a key keeps its version while weights rise (`Sticky`)."""
    mirrors: bool
    """Whether a version can get copies of the requests (`TrafficWanted.mirror`), each told by `MIRROR_HEADER`."""

    def observe(self) -> TrafficSeen:
        """What is seen now. Never cached, never inferred from what was applied."""
        ...

    def apply(self, wanted: TrafficWanted) -> None:
        """State what is wanted; returns at once. The same call twice changes nothing the second time.

        A version that is not ready yet gets no traffic: its share stays with the ready ones until it is.
        Versions that are no longer wanted are drained, then ended.
        """
        ...

    def close(self) -> None:
        """Drop connections; what is served goes on."""
        ...


def in_one_line(wanted: TrafficWanted) -> str:
    """What is wanted, to be compared: decision, split, whom it is sticky for or mirrored to."""
    revisions = sorted(wanted.revisions, key=lambda one: one.version)
    parts = [*([wanted.decision] if wanted.decision else []), *(f"{one.version} {one.share} %" for one in revisions)]
    if wanted.sticky is not None:
        parts.append(f"sticky by {wanted.sticky.header} and {wanted.sticky.salt}, {wanted.sticky.first} first")
    return ", ".join(parts + ([f"mirrored to {wanted.mirror}"] if wanted.mirror is not None else []))

"""A traffic driver in memory: servers become ready, fail and answer when the test says so."""

from collections.abc import Mapping

import msgspec

from tidemill.core.errors import Unavailable
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, Sticky, TrafficSeen, TrafficWanted

__all__ = ["MemoryTrafficDriver", "wanted_shares"]


class MemoryTrafficDriver:
    """Implements `TrafficDriver`. Weights move on `apply`, or with `slow` on the next `settle`.

    `applied` keeps every different wish, so that a test can look back at the shares that were asked for.
    """

    sticky = True
    mirrors = True

    def __init__(self, *, ready_at_once: bool = False, slow: bool = False) -> None:
        self.applied: list[TrafficWanted] = []
        self.unavailable = False
        self.foreign: str | None = None
        """Somebody else's edit, as the driver would tell it."""
        self._ready_at_once = ready_at_once
        self._slow = slow
        self._wanted: dict[str, RevisionWanted] = {}
        self._mirror: tuple[str | None, str | None] = None, None
        """Wanted, and seen."""
        self._seen: dict[str, RevisionSeen] = {}

    def observe(self) -> TrafficSeen:
        """What is seen now; raises `Unavailable` where the test asked for it."""
        self._answer()
        seen = tuple(self._seen[name] for name in sorted(self._seen))
        mirror = self._mirror[1]
        copied = mirror if mirror in self._seen and self._seen[mirror].ready else None
        return TrafficSeen(seen, "http://127.0.0.1:0", mirror=copied, foreign=self.foreign)

    def apply(self, wanted: TrafficWanted) -> None:
        """State what is wanted."""
        self._answer()
        wish = msgspec.structs.replace(wanted, decision="")
        if not self.applied or self.applied[-1] != wish:
            self.applied.append(wish)
        self._wanted = {one.version: one for one in wanted.revisions}
        self._mirror = wanted.mirror, self._mirror[1]
        for name in self._wanted:
            if name not in self._seen:
                self._seen[name] = RevisionSeen(version=name, share=0, ready=self._ready_at_once)
        if not self._slow:
            self.settle()

    def close(self) -> None:
        """Nothing is held."""

    def settle(self) -> None:
        """Let the weights follow what is wanted, and the versions that are no longer wanted end."""
        self._mirror = (self._mirror[0], self._mirror[0])
        serving = [one for one in self._wanted.values() if one.share and self._seen[one.version].ready]
        total = sum(one.share for one in serving)
        shares = {one.version: one.share for one in serving}
        if serving and total < 100:  # a share that nobody can take stays with the ready ones
            shares[serving[0].version] += 100 - total
        # While nothing that is to have traffic can serve, what serves goes on, unless it is wanted without traffic.
        waits = not serving and any(one.share for one in self._wanted.values())
        kept = {name for name in self._seen if name not in self._wanted} if waits else set()
        for name in list(self._seen):
            if name not in self._wanted and name not in kept:
                del self._seen[name]
            elif name not in kept:
                self._seen[name] = msgspec.structs.replace(self._seen[name], share=shares.get(name, 0))

    def become_ready(self, version: str) -> None:
        """The version's server answers from now on."""
        self._change(version, ready=True)

    def become_unready(self, version: str) -> None:
        """The version's server has stopped answering; its share goes to the others."""
        self._change(version, ready=False)

    def fail(self, version: str, why: str) -> None:
        """The version's server cannot become ready."""
        self._change(version, ready=False, failed=why)

    def answered(self, version: str, *, requests: int, errors: int = 0) -> None:
        """The version has taken so many more requests, of which so many failed."""
        seen = self._seen[version]
        self._change(version, requests=seen.requests + requests, errors=seen.errors + errors)

    def slow(self, version: str, latency_p99_ms: float | None) -> None:
        """The version's answers take so long from now on; None: there are none to tell it by."""
        self._change(version, latency_p99_ms=latency_p99_ms)

    def _change(self, version: str, **changes: object) -> None:
        self._seen[version] = msgspec.structs.replace(self._seen[version], **changes)
        if not self._slow:
            self.settle()

    def _answer(self) -> None:
        if self.unavailable:
            raise Unavailable("the proxy does not answer")


def wanted_shares(shares: Mapping[str, int], sticky: Sticky | None = None, mirror: str | None = None) -> TrafficWanted:
    """These versions with these shares, their artifacts in an object store."""
    revisions = (
        RevisionWanted(version=name, artifact=f"s3://models/{name}", share=one) for name, one in shares.items()
    )
    return TrafficWanted(tuple(revisions), sticky, mirror)

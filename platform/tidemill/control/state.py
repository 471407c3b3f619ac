"""The loop's status: everything that control knows about one model, as one JSON document.

It is written by compare-and-swap before anything is done about it, and everything that is done follows from
it, so that a crash at any line is repaired by the next tick. Times are milliseconds since the epoch (UTC).
"""

from typing import Literal

import msgspec

from tidemill.core.errors import Corrupt
from tidemill.events.records import Decision, Signal
from tidemill.rollout.driver import TrafficSeen, TrafficWanted
from tidemill.rollout.history import HistorySeen
from tidemill.rollout.late import RolloutWatch
from tidemill.rollout.machine import RolloutState

__all__ = [
    "Agreed",
    "Cause",
    "Drift",
    "Grant",
    "LoopStatus",
    "Offsets",
    "Phase",
    "Run",
    "Schedule",
    "Seen",
    "Version",
    "decode_status",
    "encode_status",
]

Offsets = dict[str, int]
"""The next offset to read, by source: a topic made anew under the same name starts from its beginning."""

Phase = Literal[
    "Bootstrapping",
    "Serving",
    "Watching",
    "Retraining",
    "AwaitingApproval",
    "Shadowing",
    "Canary",
    "Promoting",
    "RollingBack",
]
"""`Watching` is `Serving` while labels that come late may still bring back the version before."""
Cause = Literal[
    "initial", "schedule", "concept", "drift", "performance", "volume", "newClass", "combined", "manual", "pipeline"
]

KEPT_DECISIONS = 30
KEPT_ANSWERS = 256
KEPT_STARTS = 64
"""Starts of runs that are kept at least, for the budget."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every part: immutable; unknown fields ignored, so that an older control can read it."""


class Version(_Part, frozen=True, kw_only=True):
    """A version in one of its places: champion, candidate or previous."""

    version: str
    artifact: str
    since: int
    """When it took this place."""
    data_until: int | None = None
    """When its run was granted, just before its snapshot; labels that arrive later are new to it."""


class Grant(_Part, frozen=True, kw_only=True):
    """The right of one run to propose a version."""

    token: str
    granted_at: int
    expires_at: int
    claim: str = ""
    """The request that it answered: another one, by a second pipeline run of the same name, has no part in it."""


class Run(_Part, frozen=True, kw_only=True):
    """The run in flight. Without a grant it was started, or is about to be, and has not claimed yet."""

    run: str
    cause: Cause
    reason: str
    started_at: int
    by: str = "control"
    since: int | None = None
    """Event time from which the drift grew that caused it."""
    force: bool = False
    skip_gates: bool = False
    snapshot: str = ""
    """Digest of a snapshot, or name of a frozen dataset, to learn from again; empty: a new one."""
    image: str = ""
    """What its steps run in on a cluster; empty: the pipeline's own."""
    ours: bool = True
    """Whether control starts it; False for one that claimed by itself, from the KFP UI for instance."""
    grant: Grant | None = None
    step: str | None = None
    """The step that the runner last showed at work."""
    seen: bool = False
    """Whether the runner has ever shown it."""
    over_since: int | None = None
    """When the runner was first seen to have ended it, or to have lost it, with no word from the run itself."""


class Drift(_Part, frozen=True, kw_only=True):
    """What the watch says about the champion. All of it starts anew at a promotion."""

    alarms: tuple[Signal, ...] = ()
    """The newest alarm of each quantity: of drift, and of a rise of the error."""
    pending: tuple[Signal, ...] = ()
    """The alarms that no run has answered yet. The latch: while a run or a rollout goes on, none is added but those
    that are said only once."""
    states: tuple[Signal, ...] = ()
    """The newest state of each quantity, such as a reference that is too small."""


class Schedule(_Part, frozen=True, kw_only=True):
    """Where the loop is in its declared schedule: what fell due before it was declared, or was changed, is no cause."""

    cron: str
    timezone: str
    due: int | None
    """The next firing, or the first that no run has answered yet; None: there is none in the next 50 years."""


class Agreed(_Part, frozen=True, kw_only=True):
    """The newest word on how far labellers agree."""

    through: int
    """End of the time it is of."""
    alpha: float | None
    least: float
    """`labels.minAgreement`, as it was then."""
    trusted: bool | None
    """False: no run starts by itself. None: nothing can be said, and nothing is held."""


class Seen(_Part, frozen=True, kw_only=True):
    """What was observed last. For people only: nothing is decided from it, and it may be some seconds old."""

    at: int = 0
    traffic: TrafficSeen = TrafficSeen()
    labelled: int | None = None
    """Labelled events that count to the next run: all for the first, else those new since the champion's data."""
    new_classes: dict[str, int] = {}
    """Labelled events by class that the champion does not know."""
    progress: str = ""
    """How far the run in flight is within its step, in words."""
    history: HistorySeen = HistorySeen()
    """The champion's outcomes: how many, how fast, how often wrong."""
    rollout: dict[str, float | int | str | None] = {}
    """How the rollout stands: outcomes so far, e-values and what they need."""
    troubles: tuple[str, ...] = ()
    """What could not be observed or done at the last tick."""


class LoopStatus(_Part, frozen=True, kw_only=True):
    """Where the loop of one model stands."""

    created_at: int
    phase: Phase = "Bootstrapping"
    champion: Version | None = None
    candidate: Version | None = None
    previous: Version | None = None
    run: Run | None = None
    last_run: str = ""
    """The newest run id that was given; ids only grow."""
    stopping: tuple[str, ...] = ()
    """Runs that lost their right and are to be ended."""
    rollout: RolloutState | None = None
    watching: RolloutWatch | None = None
    """The rollout that made the champion, while labels that come late may still bring back `previous`."""
    traffic: TrafficWanted = TrafficWanted()
    """The traffic that is wanted."""
    drift: Drift = Drift()
    quiet_from: int | None = None
    """When the last run or its rollout ended: the cooldown counts from here."""
    starts: tuple[int, ...] = ()
    """When the last runs started, whoever asked for them: the budget counts these."""
    schedule: Schedule | None = None
    """The declared schedule, as far as it is answered; None: none is declared."""
    agreement: Agreed | None = None
    requests: Offsets = {}
    """What was consumed of `.requests`."""
    signals: Offsets = {}
    """What was consumed of `.signals`."""
    outcomes: Offsets = {}
    """Where the `.outcomes` begin of the rollout under way, or of the one that is watched."""
    answered: tuple[str, ...] = ()
    """The requests answered last, so that one which is written twice is answered once."""
    outbox: tuple[Decision, ...] = ()
    """The decisions of the last write; they are in `.decisions` before anything else is decided."""
    decisions: tuple[Decision, ...] = ()
    """The last decisions, newest last."""
    seen: Seen = Seen()


def encode_status(status: LoopStatus) -> bytes:
    """The status as JSON."""
    return msgspec.json.encode(status)


def decode_status(data: bytes) -> LoopStatus:
    """The status in `data`; raises `Corrupt` for anything else."""
    try:
        return msgspec.json.decode(data, type=LoopStatus)
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"the loop's status cannot be read: {error}",
            hint="remove the status file: the loop rebuilds it from the registry, the traffic and its decisions",
        ) from error

"""The record types: what passes between processes, each a JSON object on one topic with one writer.

Times are milliseconds since the epoch (UTC). `event_time` is when something happened; `available_at` is when
it reached the log. Ids are strings. Records are frozen; a changed fact is a new record.

    topic (prefix `<namespace>.<name>.`)    record            writer
    predictions                             Prediction; ServingCount, without a key        the predictor
    labels.resolved                         Resolved          outcomes
    outcomes                                Outcome; LabelAgreement, without a key    outcomes
    sketches                                Sketch            ingest; outcomes, of predictions and labels
    signals                                 Signal            watch
    requests                                Request           pipeline steps, CLI
    decisions                               Decision          control
    quarantine                              Quarantined       ingest
    quarantine.replayed                     Replayed          CLI
    alerts                                  Alert             alerts; compacted by key

Events and labels come from the user's systems: a `Label` is what theirs is parsed into.
"""

from itertools import pairwise
from typing import Any, Literal, TypeVar

import msgspec

__all__ = [
    "Alert",
    "Decision",
    "FeatureSketch",
    "Label",
    "LabelAgreement",
    "NewClass",
    "Outcome",
    "Prediction",
    "Quarantined",
    "Replayed",
    "Request",
    "Resolved",
    "ResolvedLabel",
    "ServingCount",
    "Signal",
    "Sketch",
    "TickVotes",
    "Told",
    "Topics",
    "Votes",
    "decode",
    "encode",
]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all records: immutable, JSON, unknown fields ignored so that a newer writer does no harm.

    Of some there are many at a time. They hold no cycles, so the garbage collector need not look at them (`gc`).
    """


R = TypeVar("R", bound=Record)


class Prediction(Record, frozen=True, kw_only=True, gc=False):
    """One row answered by one model version.

    `boot` and `seq` count the rows of one serving process from 0, so that a reader knows what it lost.
    """

    prediction_id: str
    version: str
    entity: str
    time: int
    output: dict[str, Any]
    event_id: str | None = None
    request_id: str | None = None
    cohort: str | None = None
    features: dict[str, float | int | str | bool | None] = {}
    feature_status: str | None = None
    """How the windows were read: `PRESENT` or `OUTSIDE_MAX_AGE` (of the last event; windows bound their own age), or
    why there was nothing to read; None where the model has none."""
    feature_statuses: dict[str, str] = {}
    """Of a FeatureService's features, those that are not `PRESENT`: `NULL_VALUE`, `NOT_FOUND`, `OUTSIDE_MAX_AGE` as
    Feast says, or `UNAVAILABLE`."""
    fence: dict[str, int] = {}
    boot: str
    seq: int
    answered: int = 0
    """Rows that the process had answered with this one, logged or not."""
    sample: float = 1.0
    """Probability with which this row was logged."""
    redacted: list[str] = []
    """Features and fields of the answer that the resource leaves out of the log."""


class ServingCount(Record, frozen=True, kw_only=True):
    """How far a serving process is: on the predictions topic, without a key, from the process itself.

    It says so at its start, every `every_ms`, and at its end. The end of one that was killed is told by the next one
    that finds what it left behind. A process that is silent for much longer than `every_ms` and has not ended was
    killed, or is cut off from the brokers: up to `capacity` rows that waited may be missing.
    """

    boot: str
    answered: int
    """Rows that it has answered, logged or not."""
    logged: int
    """Rows that it has numbered for the log: 0, 1, … logged - 1."""
    settled: int
    """Rows numbered below this are on the log, or are missing for good."""
    capacity: int
    """Most rows that are numbered, and neither on the log nor known to be missing."""
    every_ms: int
    ended: bool = False
    """It says no more, and numbers no more."""


class Label(Record, frozen=True, kw_only=True, gc=False):
    """A statement about a prediction (by its id) or an event (by entity and event id).

    Either what is true of it (`value`), or that it was picked to be labelled: `reasons` has the probability with
    which each reason would have picked it, known before any label of it.
    """

    value: dict[str, Any] | None = None
    reasons: dict[str, float] = {}
    labeller: str = ""
    prediction_id: str | None = None
    entity: str | None = None
    event_id: str | None = None
    time: int | None = None
    repair: bool = False
    """Whether it was said in view of what others had said: it counts as any label does, and is no independent witness
    of how far labellers agree."""


class ResolvedLabel(Record, frozen=True, kw_only=True, gc=False):
    """A label whose prediction is known. `label_id` is `<source>@<offset>` of the label's own record."""

    label_id: str
    prediction_id: str
    value: dict[str, Any] | None = None
    reasons: dict[str, float] = {}
    labeller: str = ""
    available_at: int


class Resolved(Record, frozen=True, kw_only=True):
    """What one partition of `labels.resolved` is told at a time: labels of its predictions, and then a mark.

    The mark says that each pair of a label and a prediction whose records both arrived by `through` (milliseconds) is
    resolved before this record's end; -1 says nothing.
    """

    labels: list[ResolvedLabel] = []
    through: int = -1


class Outcome(Record, frozen=True, kw_only=True, gc=False):
    """A prediction at the age at which it may be judged, labelled or not.

    `revision` 0 is emitted once, when the prediction becomes eligible; a later label that changes the
    outcome emits revision 1, 2, … for reports and the watch. Rollout verdicts read revision 0 only.
    `loss` is the bounded loss in [0, 1] of the metric `error`; None while unlabelled.
    """

    prediction_id: str
    revision: int = 0
    version: str
    entity: str
    event_id: str | None = None
    request_id: str | None = None
    cohort: str | None = None
    predicted_at: int
    eligible_at: int
    output: dict[str, Any]
    label: dict[str, Any] | None = None
    label_age_ms: int | None = None
    loss: float | None = None
    assumed: bool = False
    """Whether the label is the negative that stands for a label missing at the horizon."""
    disputed: bool = False
    """Whether labels came and, by the resource's `conflict`, none of them counts."""
    sample: float = 1.0
    """Probability with which the prediction was logged."""
    probability: float | None = None
    """Of a label: the probability with which its prediction was picked to be labelled, known before the label; None
    where it is not known (volunteered labels), so that no unbiased estimate may use it."""
    lost: int = 0
    """Predictions known to be missing from the log (gaps in boot and seq) when this one was written."""
    maybe_lost: int = 0
    """How many more may be missing, at most: those of serving processes that ended without a word."""


class NewClass(Record, frozen=True, kw_only=True):
    """A label's class that is none of `prediction.classes`: it is kept, and shown."""

    value: str
    labels: int
    first_seen: int
    """When the first of them arrived, in milliseconds."""


class LabelAgreement(Record, frozen=True, kw_only=True):
    """How far labellers agree, over the labels that arrived in [`since`, `through`) (milliseconds).

    It stands between the outcomes and has no key, by which a reader of outcomes knows that it is none. `agreement_id`
    follows from the model, the field and `through`: a repeat is dropped.
    """

    agreement_id: str
    model: str
    since: int
    through: int
    field: str
    alpha: float | None = None
    """Krippendorff's; None where it is not defined."""
    labels: int
    """Each labeller's last word on each thing."""
    compared: int
    """Things (events, or predictions without one) that at least two labellers labelled."""
    min_agreement: float
    trusted: bool | None = None
    """Whether alpha reaches `labels.minAgreement`; None where alpha is not defined."""
    verdict: str
    """That in words, or why nothing can be said."""
    classes: dict[str, float] = {}
    """Alpha of each class against all others, where it is defined."""
    reliability: dict[str, float] = {}
    """By labeller: the probability that their label is right (CROWDLAB); empty where that cannot be told."""
    new_classes: list[NewClass] = []
    """The commonest first."""


class FeatureSketch(Record, frozen=True, kw_only=True, gc=False):
    """One feature over the rows of one entity in one window tick: a number's sum, or a category's counts."""

    count: int
    """Rows with a value."""
    total: float = 0.0
    """Sum of the values of a number."""
    missing: int = 0
    """Rows without one."""
    values: dict[str, int] = {}
    """Of a category: rows by value, the commonest; the rest of `count` had others."""


class TickVotes(Record, frozen=True, kw_only=True):
    """What the rows of each entity were in one window tick, of each feature: a `FeatureSketch` of each, as columns.

    `tidemill.events.cells` reads and makes it. Raises `ValueError` where its parts are not of one size, its names are
    not in order, or a number is none.
    """

    entities: list[str]
    """In order."""
    features: list[str]
    """In order."""
    cells: bytes
    """Counts, totals and missing by entity and feature: float64, little-endian, in C order."""
    values: dict[str, list[dict[str, int]]] = {}
    """Of each category, and each entity."""
    kept: float = 1.0
    """Entities whose hash is below this are here, and none else (see `Sketch`)."""

    def __post_init__(self) -> None:
        import numpy as np  # who has no votes to look at need not wait for it

        entities = len(self.entities)
        if len(self.cells) != 24 * entities * len(self.features):
            size = f"{len(self.cells)} bytes of votes"
            raise ValueError(f"{size} do not fit {entities} entities with {len(self.features)} features")
        if any(len(of) != entities for of in self.values.values()):
            raise ValueError(f"the values of a category are not those of {entities} entities")
        if any(first >= second for names in (self.entities, self.features) for first, second in pairwise(names)):
            raise ValueError("the names of votes are not in order")
        counts, totals, missing = np.frombuffer(self.cells, dtype="<f8").reshape(3, -1)
        are_counts = all(((one >= 0) & (one <= 2**53)).all() for one in (counts, missing))
        if not (are_counts and np.isfinite(totals).all()):
            raise ValueError("a number of votes is none")


Votes = dict[int, TickVotes]
"""By window tick."""


class Sketch(Record, frozen=True, kw_only=True):
    """What ingest or outcomes saw in one offset range of one source, by window tick and entity.

    `votes[tick]` has them by entity and feature: a tick is `event_time // tick_ms`. Only events count that were taken
    in and arrived no later than `allowedLateness` after their event time. `max_event_time` is over all events of the
    range that were taken in, 0 where there were none: a reader takes the maximum. Of predictions the time is when they
    were made, of labels when they arrived; the features are `prediction.class`, `prediction.confidence`,
    `label.<field>` and the like, of which a number is the first row's, and predictions stand under the version that
    made them (`answers[version]` is as `votes`). A label that names no entity stands under "".

    **Bounded.** Of a tick with very many entities those are kept whose hash, a number in [0, 1) that depends on the
    entity and the tick, is below the tick's `kept`, whole; all where that is 1. Of two sketches of one tick the lower
    bound holds for both, so that what is merged is the same in any order: a sample drawn without regard to what
    was sent.

    **Once each.** A range is what one commit of the lake's events table took (`LakeTable.last_span`), or a part of it
    where its sketch would be too large for a record. Ranges and votes are a function of the rows it put there, so
    whoever writes the sketches of a commit writes the same ones. Ingest
    commits the next range of a source only when the sketch of the one before is acknowledged, whoever committed that:
    on start, and whenever someone else's commit is found, the last range's sketch is written again. Hence ranges of a
    source are contiguous in the log of sketches (`first_offset` is the last range's `last_offset + 1`, 0 at first;
    holes of the log lie inside) and each is there at least once, in order. **The reader's rule:** keep the largest
    `last_offset` used of each source, and drop a sketch whose `last_offset` is not above it; what is left is each
    range once. A range that begins at or below it and ends above can only follow a lake that was lost or restored:
    drop it whole and say so.

    The record's key is its source.
    """

    source: str
    first_offset: int
    last_offset: int
    max_event_time: int
    tick_ms: int
    of: Literal["events", "predictions", "labels"] = "events"
    votes: Votes = {}
    answers: dict[str, Votes] = {}


class Signal(Record, frozen=True, kw_only=True):
    """A measured statement: "brightness fell from 0.62 to 0.41, stations B and C".

    `kind` is `drift` (of what `subject` says), `concept` (the loss on matured outcomes rose; of the budget of false
    alarms), `performance` (it rose by `triggers.performance`, at its own risk), or `state` (something is not watched as
    declared, and why).
    """

    signal_id: str
    kind: Literal["drift", "concept", "performance", "state"]
    subject: Literal["inputs", "predictions", "labels", "errors"] = "inputs"
    feature: str
    time: int
    """Event time at which the window tick that completed the evidence ended."""
    since: int | None = None
    """Event time from which the evidence grew: the last time the detector stood at its floor."""
    version: str
    """The version whose reference this was measured against."""
    evidence: float
    """The detector's M; an alarm is M >= 1."""
    before: float | None = None
    now: float | None = None
    entities: list[str] = []
    also: list[str] = []
    """Further features, where they made the alarm together."""
    slice: str | None = None
    """The group it holds for, such as `station=B`; None: for all."""
    message: str


class Request(Record, frozen=True, kw_only=True):
    """Something that a pipeline step, a person or a program asks of control.

    `kind` and `arguments`: `retrain` {reason, force, skip_gates, snapshot}; `claim` {run, reason, force, skip_gates,
    requested_by}; `propose` {run, token, version, gates}; `failed` {run, token, step, error}; `finished`
    {run, token}; `abort` {reason}; `pause`; `resume`; `approve` {reason}; `promote` {reason};
    `revert` {reason}.
    """

    request_id: str
    kind: Literal[
        "retrain",
        "claim",
        "propose",
        "failed",
        "finished",
        "abort",
        "pause",
        "resume",
        "approve",
        "promote",
        "revert",
    ]
    model: str
    time: int
    by: str
    arguments: dict[str, str | int | float | bool | None] = {}


class Decision(Record, frozen=True, kw_only=True):
    """What control decided, why, and with which figures. `decision_id` is deterministic: a repeat is dropped.

    `kind` is a verb: `start-run`, `grant`, `refuse`, `run-failed`, `start-rollout`, `set-traffic`, `go-on`,
    `promote`, `roll-back`, `hold`, `watch-ended`, … `subject` is the run, version or request it is about.
    """

    decision_id: str
    kind: str
    model: str
    time: int
    subject: str
    reason: str
    figures: dict[str, Any] = {}
    answers: str | None = None
    """The request this answers, so that who asked can wait for it."""


class Told(Record, frozen=True, kw_only=True):
    """That a route has taken a message about an alert: when, and whether it said that the alert is over."""

    at: int
    over: bool = False


class Alert(Record, frozen=True, kw_only=True):
    """Something that people are told, and what they were told of it. The newest record of an `alert_id` counts.

    It is written when the alert opens, after each message that a route took, and when it is over: so what was told is
    known after a crash. `alert_id`, the record's key, is the same for the same kind, subject, feature, slice and
    version.
    """

    alert_id: str
    kind: str
    severity: str
    subject: str | None = None
    feature: str | None = None
    slice: str | None = None
    version: str | None = None
    """The version that it is about; of a failed run or a refused gate, the run."""
    since: int
    """When it began, as far as is known: a signal's `since`, else when it was decided."""
    last: int
    """Of the newest record that says so: when a signal reached the log, or when control decided."""
    message: str
    opened: int | None = None
    """When people were to be told; None where it was over before, or is not about the version that serves."""
    resolved: int | None = None
    resolution: str = ""
    """Why it is over."""
    told: dict[str, Told] = {}
    """The last word to each route, by name."""


class Quarantined(Record, frozen=True, kw_only=True):
    """A record that could not be taken in: why, from where, and its original bytes (base64).

    Written at least once: (source, offset) is its id, and readers drop what they know. Of a record above 1 MiB the
    value, if need be the headers and the key, are left out: `truncated` says so, and (source, offset) points to it.
    """

    source: str
    offset: int
    reason: str
    field: str | None = None
    available_at: int
    key: bytes | None = None
    value: bytes
    headers: list[tuple[str, bytes]] = []
    truncated: bool = False
    origin: str | None = None
    """Where the event first came, source/offset, if this record was a replay already."""


class Replayed(Record, frozen=True, kw_only=True):
    """A marker: the quarantined record of this source and offset was produced to the events topic again.

    It is written in one transaction with that. `origin` is what the replay bears, and by which the lake takes it once.
    """

    source: str
    offset: int
    origin: str
    time: int
    by: str


class Topics(msgspec.Struct, frozen=True):
    """The topics of one model; `events` and `labels` are the spec's own names."""

    model: str
    events: str
    labels: str

    @property
    def predictions(self) -> str:
        """What each version answered."""
        return f"{self.model}.predictions"

    @property
    def copies(self) -> str:
        """What a candidate answered to copies of requests (`rollout.shadow`): no user got any of it."""
        return f"{self.model}.copies"

    @property
    def resolved(self) -> str:
        """Labels keyed by prediction."""
        return f"{self.model}.labels.resolved"

    @property
    def outcomes(self) -> str:
        """Predictions at the age at which they may be judged."""
        return f"{self.model}.outcomes"

    @property
    def sketches(self) -> str:
        """What ingest saw, for the watch."""
        return f"{self.model}.sketches"

    @property
    def signals(self) -> str:
        """What the watch found."""
        return f"{self.model}.signals"

    @property
    def requests(self) -> str:
        """What is asked of control."""
        return f"{self.model}.requests"

    @property
    def decisions(self) -> str:
        """What control decided."""
        return f"{self.model}.decisions"

    @property
    def quarantine(self) -> str:
        """What could not be taken in."""
        return f"{self.model}.quarantine"

    @property
    def replayed(self) -> str:
        """Which of it was produced again."""
        return f"{self.model}.quarantine.replayed"

    @property
    def alerts(self) -> str:
        """What people are told, and were."""
        return f"{self.model}.alerts"


def encode(record: Record) -> bytes:
    """The record as JSON bytes."""
    return msgspec.json.encode(record)


def decode(kind: type[R], data: bytes) -> R:
    """The record in `data`; raises `msgspec.ValidationError` or `msgspec.DecodeError` on anything else."""
    return msgspec.json.decode(data, type=kind)

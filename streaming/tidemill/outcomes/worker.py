"""The outcomes worker of one model: labels are resolved, predictions judged, everything written to the lake once.

    labels ──► checked ──► lake: labels
                  │
                  ▼                                  marks
    predictions ─► index (Redis) ──► labels.resolved ──► judge ──► outcomes ──► lake: outcomes
        │  └────► lake: predictions                        ▲
        └────────────── read again when due ───────────────┘

Why a crash at any line neither loses nor doubles an outcome stands in `session` and `judge`; how it is known
that all labels up to a moment were read, in `marks`. Here is only the outermost loop: a life of the worker, and
after a failure that may pass, the next one.
"""

import threading
from itertools import chain

from tidemill.core.clock import Clock, to_ms
from tidemill.core.collecting import rare_collections
from tidemill.core.errors import Transient
from tidemill.core.telemetry import get_logger
from tidemill.events.kafka import RecordWriter, ensure_topics
from tidemill.events.records import Topics
from tidemill.events.upkeep import Policy, Upkeep
from tidemill.events.waiting import WAITING
from tidemill.outcomes.agreement import AgreementTeller
from tidemill.outcomes.kafka import KafkaLog
from tidemill.outcomes.label_rows import LabelRows
from tidemill.outcomes.late import Hot
from tidemill.outcomes.log import Channel
from tidemill.outcomes.session import Session
from tidemill.outcomes.sketches import Sketches
from tidemill.outcomes.state import RedisState
from tidemill.outcomes.tables import Tables
from tidemill.spec.model import ContinualModel

__all__ = ["run"]

_FIRST_S, _LONGEST_S = 0.25, 2.0
"""Pauses between lives: the first, and what doubling it ends at."""

_log = get_logger(__name__)


def run(
    resource: ContinualModel,
    *,
    kafka: str,
    redis: str,
    lake: str,
    clock: Clock,
    stop: threading.Event,
    policy: Policy | None = None,
) -> None:
    """Serve one model until `stop` is set. Brokers, Redis or lake that do not answer are waited for.

    Args:
        resource: the model.
        kafka: bootstrap servers.
        redis: URL of the server that holds the index.
        lake: folder or URI of the Delta tables.
        clock: measures pauses; what is judged depends on the log's times alone.
        stop: ends the worker after the step at work, with everything written that was taken in.
        policy: what the lake keeps, and for how long (default: everything).

    Raises:
        Conflict: another worker of this model took over, or the offsets up to which was judged are gone.
        InvalidInput: topics or Redis are set up so that outcomes could be lost.
    """
    pause = _FIRST_S
    while not stop.is_set():
        began = clock.monotonic()
        try:
            with rare_collections():
                _live(resource, kafka, redis, lake, clock, stop, policy or Policy())
        except Transient as error:
            if clock.monotonic() - began > _LONGEST_S:
                pause = _FIRST_S
            WAITING.labels(f"{resource.id}.outcomes").set(1)
            _log.warning("begins again", model=resource.id, reason=error.message, hint=error.hint, pause_s=pause)
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_S)


def _live(
    resource: ContinualModel,
    kafka: str,
    redis: str,
    lake: str,
    clock: Clock,
    stop: threading.Event,
    policy: Policy,
) -> None:
    keep = resource.spec.labels.maturity.kept
    topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
    ensure_topics(kafka, {topics.sketches: 1})
    log = KafkaLog(kafka, topics, keep_ms=to_ms(keep))
    try:
        state = RedisState(redis, resource.id, ttl_s=round(Hot.of(resource.spec.labels).kept.total_seconds()))
        try:
            tables = Tables(lake, resource.id)
            upkeep = Upkeep([one.table for one in tables.all], policy, clock)
            teller = AgreementTeller(resource, kafka=kafka, lake=lake, clock=clock, ready=lambda: bool(log.judged()))
            over_labels = bool(resource.spec.features.label_windows)
            rows = LabelRows(resource, redis, tables.labels.table, clock) if over_labels else None
            try:
                with RecordWriter(kafka, client_id=f"{resource.id}-outcomes") as writer:
                    sketches = Sketches(resource, tables.predictions.table, tables.labels.table, writer)
                    taken_in = (log.sources[channel].values() for channel in (Channel.PREDICTIONS, Channel.LABELS))
                    tables.tell(sketches, chain.from_iterable(taken_in))
                    session = Session(resource, log, state, tables, clock, rows=rows)
                    _log.info("taking in predictions and labels", model=resource.id)
                    while not stop.is_set():
                        session.step()
                        upkeep.begin_if_due()
                        teller.begin_if_due()
                    session.flush()
                    upkeep.close()
                    teller.close()
            finally:
                if rows is not None:
                    rows.close()
        finally:
            state.close()
    finally:
        log.close()

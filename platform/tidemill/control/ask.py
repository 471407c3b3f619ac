"""Ask control for something, and wait for its answer: a request on one topic, a decision on another.

Pipeline steps and the CLI ask in this way. A request keeps its id when it is asked again, and its answer stays
in the log, so that a step which is run a second time finds the answer that it was given the first time.
"""

from tidemill.core.clock import Clock
from tidemill.core.errors import DeadlineExceeded
from tidemill.events.kafka import RecordReader, RecordWriter
from tidemill.events.records import Decision, Request, Topics

__all__ = ["ask"]

_POLL_S = 0.2


def ask(kafka: str, topics: Topics, request: Request, *, clock: Clock, deadline_s: float) -> Decision:
    """Write `request` and return the decision that answers it.

    Args:
        kafka: bootstrap servers.
        topics: the model's topics.
        request: what is asked; its `request_id` is the same whenever the same thing is asked again.
        clock: for the deadline.
        deadline_s: seconds within which the answer must be there.

    Raises:
        DeadlineExceeded: control did not answer in time. The request stays in the log and may be answered later.
        Unavailable: the broker does not answer.
    """
    until = clock.monotonic() + deadline_s
    # From the start, not from the end: the answer may be there already.
    reader = RecordReader(kafka, topics.decisions, Decision)
    try:
        writer = RecordWriter(kafka, client_id=f"ask-{request.by}")
        try:
            writer.send(topics.requests, request, key=request.request_id)
            writer.flush(deadline_s)
        finally:
            writer.close()
        while clock.monotonic() < until:
            for stamped in reader.poll(timeout_s=_POLL_S):
                if stamped.record.answers == request.request_id:
                    return stamped.record
    finally:
        reader.close()
    raise DeadlineExceeded(
        f"control is not answering: no decision on {request.kind} of {topics.model} within {deadline_s:g} s",
        hint="see `tidemill status`: the control process must run; the request stays in the log",
    )

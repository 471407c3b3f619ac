"""Control's side of `.requests` and `.decisions` for tests: real topics, scripted answers."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.kafka import RecordReader, RecordWriter, ensure_topics
from tidemill.events.records import Decision, Request, Topics

__all__ = ["ScriptedControl", "granted", "refused"]

Answer = tuple[str, str, Mapping[str, Any]]
"""Kind, reason and figures of a decision."""
Script = Callable[[Request], Answer | None]


def granted(**figures: Any) -> Script:
    """Grants each claim and says yes to all else; `figures` replace those of the grant."""
    terms: dict[str, Any] = {
        "token": "token-1",
        "expires_at": 4_102_444_800_000,
        "champion": "",
        "champion_artifact": "",
        "since": None,
        "cause": "initial",
    }
    kinds = {"claim": "grant", "propose": "start-rollout", "failed": "run-failed", "finished": "run-finished"}
    return lambda request: (kinds[request.kind], "a test's", terms | figures if request.kind == "claim" else {})


def refused(reason: str) -> Script:
    """Refuses whatever is asked."""
    return lambda request: ("refuse", reason, {})


class ScriptedControl:
    """Answers requests as its script says, until it is closed; `requests` is what was asked so far.

    Args:
        kafka: bootstrap servers.
        topics: the model's; requests and decisions are made if they are not there.
        script: the answer to a request, or None for silence.
    """

    def __init__(self, kafka: str, topics: Topics, script: Script) -> None:
        self.requests: list[Request] = []
        self._topics, self._script = topics, script
        self._stop = threading.Event()
        ensure_topics(kafka, {topics.requests: 1, topics.decisions: 1})
        self._reader = RecordReader(kafka, topics.requests, Request)
        self._writer = RecordWriter(kafka, client_id="scripted-control")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> "ScriptedControl":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def asked(self, kind: str) -> list[Request]:
        """The requests of one kind so far."""
        return [request for request in self.requests if request.kind == kind]

    def close(self) -> None:
        """Answer no more."""
        self._stop.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for stamped in self._reader.poll(timeout_s=0.05):
                self.requests.append(stamped.record)
                answer = self._script(stamped.record)
                if answer is not None:
                    self._writer.send(self._topics.decisions, self._decision(stamped.record, answer))
                    self._writer.flush()

    def _decision(self, request: Request, answer: Answer) -> Decision:
        kind, reason, figures = answer
        return Decision(
            decision_id=f"decision-{request.request_id}",
            kind=kind,
            model=request.model,
            time=to_ms(SystemClock().now()),
            subject=str(request.arguments.get("run", "")),
            reason=reason,
            figures=dict(figures),
            answers=request.request_id,
        )

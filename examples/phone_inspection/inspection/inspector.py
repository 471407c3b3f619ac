"""The inspection program at the line: it asks the KServe endpoint about each picture, and accepts or rejects."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.metrics.losses import error
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import predict_path

from .render import Picture

__all__ = ["Inspected", "Inspector", "Phone"]

_ATONCE = 8
_WAITING = 200
"""Phones that wait for an answer; beyond that the line stands still until the endpoint answers."""
_TRIES = 40
_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone on the line."""

    event_id: str
    captured_at: int
    """Milliseconds since the epoch."""
    picture: Picture


@dataclass(frozen=True, slots=True)
class Inspected:
    """An answer, and whether it was right: the program itself cannot know, the factory can."""

    phone: Phone
    at: int
    """When the answer came, in milliseconds since the epoch."""
    version: str
    prediction_id: str
    output: dict[str, Any]
    right: bool
    took_s: float


class Inspector:
    """Asks about phones, a few at once; failures are counted and tried again, then given up.

    Args:
        resource: for the endpoint's path and what is an error.
        endpoint: base URL of predict requests.
        clock: when answers come.
        on_answer: called with each answer, on one of the inspector's threads.
    """

    def __init__(
        self, resource: ContinualModel, endpoint: str, clock: Clock, on_answer: Callable[[Inspected], None]
    ) -> None:
        self._resource, self._clock, self._on_answer = resource, clock, on_answer
        self._url = endpoint + predict_path(resource)
        self._client = httpx.Client(timeout=5.0, limits=httpx.Limits(max_connections=_ATONCE))
        self._pool = ThreadPoolExecutor(_ATONCE, "inspect")
        self._room = threading.Semaphore(_WAITING)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.asked = self.answered = self.failures = self.unanswered = self.accepted = self.rejected = 0

    def inspect(self, phone: Phone) -> None:
        """Ask about a phone; returns at once unless too many wait already."""
        while not self._room.acquire(timeout=0.2):
            if self._stop.is_set():
                return
        self._count("asked")
        self._pool.submit(self._inspect, phone)

    def close(self, *, finish: bool = True) -> None:
        """Wait for the answers that are still to come, or give them up."""
        if not finish:
            self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=not finish)
        self._stop.set()
        self._client.close()

    def _inspect(self, phone: Phone) -> None:
        try:
            for _ in range(_TRIES):
                if (found := self._ask(phone)) is not None:
                    self._take(found)
                    return
                self._count("failures")
                if self._stop.wait(_PAUSE_S):
                    break
            self._count("unanswered")
        finally:
            self._room.release()

    def _ask(self, phone: Phone) -> Inspected | None:
        picture = phone.picture
        body = {"instances": [{"station": picture.station, "event_id": phone.event_id, "image": picture.jpeg}]}
        begun = self._clock.monotonic()
        try:
            response = self._client.post(
                self._url, content=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
            )
            answer = msgspec.json.decode(response.content)["predictions"][0] if response.status_code == 200 else None
        except (httpx.HTTPError, msgspec.DecodeError, LookupError, TypeError):
            return None
        if answer is None:
            return None
        output = {name: answer[name] for name in ("class", "confidence", "box") if name in answer}
        return Inspected(
            phone=phone,
            at=to_ms(self._clock.now()),
            version=answer["version"],
            prediction_id=answer["prediction_id"],
            output=output,
            right=self._is_right(output, picture),
            took_s=self._clock.monotonic() - begun,
        )

    def _is_right(self, output: dict[str, Any], picture: Picture) -> bool:
        truth = {"defect": picture.defect, "box": None if picture.box is None else list(picture.box)}
        return error(self._resource.spec.prediction, self._resource.spec.labels.fields, output, truth) == 0

    def _take(self, found: Inspected) -> None:
        self._count("answered")
        self._count("accepted" if found.output["class"] == "ok" else "rejected")
        self._on_answer(found)

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

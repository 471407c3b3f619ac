"""The factory: three stations take pictures of phones, and the final check says later what was true.

It is the user's side of the story and knows nothing of what Tidemill does: it writes events and labels to Kafka,
and asks the endpoint. What it counts and sees is what a client of the system sees.
"""

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from tidemill.core.clock import Clock, to_ms
from tidemill.events.records import Label, encode
from tidemill.spec.model import ContinualModel

from .camera import Camera
from .delivery import Delivery
from .inspector import Inspected, Inspector, Phone
from .render import NORMAL, STATIONS, Light, Picture, render

__all__ = ["Counts", "Factory", "draw_history", "draw_returned"]

_LABEL_AFTER_S = (1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Counts:
    """What has happened so far, as the factory sees it. `labels` are of phones on the line, not of the archive."""

    events: int
    answered: int
    accepted: int
    rejected: int
    unanswered: int
    labels: int
    archived: int
    """Labels of the archive: history, and returned phones."""
    failures: int
    """Tries that failed, of Kafka and of the endpoint; they were tried again."""


class Factory:
    """Runs the line in a thread of its own between `start` and `stop`.

    Args:
        resource: the model's: its topics, its endpoint's path.
        kafka: bootstrap servers.
        endpoint: base URL of predict requests.
        rate: pictures per second of all stations together.
        seed: of the pictures.
        clock: the factory's.
        on_answer: called with each answer of the endpoint, on a thread of the inspector.
    """

    def __init__(
        self,
        resource: ContinualModel,
        *,
        kafka: str,
        endpoint: str,
        rate: float,
        seed: int,
        clock: Clock,
        on_answer: Callable[[Inspected], None] = lambda _: None,
    ) -> None:
        self.light: Light = NORMAL
        self.cameras: Mapping[str, Camera] = {}
        self._resource, self._clock, self._rate = resource, clock, rate
        self._rng = np.random.default_rng((seed, 1))
        self._delivery = Delivery(kafka, clock)
        self._inspector = Inspector(resource, endpoint, clock, on_answer)
        self._due: list[tuple[float, str, Phone]] = []
        # Ids are never given twice, not even by a line that is started again.
        self._batch, self._serial = f"{to_ms(clock.now()):x}", 0
        self._sent = {"events": 0, "labels": 0, "archived": 0}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def counts(self) -> Counts:
        """So far."""
        seen = self._inspector
        return Counts(
            **self._sent,
            answered=seen.answered,
            accepted=seen.accepted,
            rejected=seen.rejected,
            unanswered=seen.unanswered,
            failures=self._delivery.failures + seen.failures,
        )

    def start(self) -> None:
        """Let the line run."""
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._thread.start()

    def stop(self, *, finish: bool = True, deadline_s: float = 30.0) -> None:
        """Stop the line. `finish`: with all answers, and the labels of all phones that were on it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._inspector.close(finish=finish)
        try:
            if finish:
                while self._due:
                    self._label_due()
                    self._clock.sleep(0.05)
                self._delivery.flush(deadline_s)
        finally:
            self._delivery.close()

    def archive(self, pictures: Iterable[Picture], *, per_second: float, until_ms: int, name: str) -> None:
        """Enter labelled phones of earlier: events with past times, `per_second`, the last at `until_ms`; then labels.

        They were never shown to the model. Returns when Kafka has them. Raises `DeadlineExceeded`.
        """
        taken = list(pictures)
        begin = until_ms - round(len(taken) / per_second * 1000)
        phones = [
            Phone(f"{name}-{self._batch}-{number}", begin + round(number / per_second * 1000), picture)
            for number, picture in enumerate(taken)
        ]
        for phone in phones:
            self._send_event(phone)
        for phone in phones:
            self._send_label(phone, "archived", name)
        self._delivery.flush(60.0)

    def _run(self) -> None:
        """One phone per station and turn. A turn that comes late is not made up for: a line has no memory."""
        takt, due = len(STATIONS) / self._rate, self._clock.monotonic()
        while not self._stop.is_set():
            for phone in self._next_phones():
                self._send_event(phone)
                self._inspector.inspect(phone)
                after = self._rng.uniform(*_LABEL_AFTER_S)
                heapq.heappush(self._due, (self._clock.monotonic() + after, phone.event_id, phone))
            self._label_due()
            due = max(due + takt, self._clock.monotonic() - takt)
            self._stop.wait(max(0.0, due - self._clock.monotonic()))

    def _next_phones(self) -> Iterator[Phone]:
        for picture in render(self._rng, STATIONS, self.light, cameras=self.cameras):
            self._serial += 1
            yield Phone(f"line-{self._batch}-{self._serial}", to_ms(self._clock.now()), picture)

    def _label_due(self) -> None:
        while self._due and self._due[0][0] <= self._clock.monotonic():
            self._send_label(heapq.heappop(self._due)[2], "labels", "final-check")

    def _send_event(self, phone: Phone) -> None:
        picture = phone.picture
        event = {"event_id": phone.event_id, "station": picture.station, "captured_at": phone.captured_at}
        value = msgspec.json.encode({**event, "image": picture.jpeg})
        self._delivery.send(self._resource.events_topic, picture.station, value, lambda: self._count("events"))

    def _send_label(self, phone: Phone, what: str, labeller: str) -> None:
        picture = phone.picture
        label = Label(
            value={"defect": picture.defect, "box": picture.box},
            labeller=labeller,
            entity=picture.station,
            event_id=phone.event_id,
            time=to_ms(self._clock.now()),
        )
        self._delivery.send(self._resource.labels_topic, picture.station, encode(label), lambda: self._count(what))

    def _count(self, what: str) -> None:
        with self._lock:
            self._sent[what] += 1


def draw_history(seed: int, count: int) -> list[Picture]:
    """Pictures of earlier days in normal light, rightly labelled."""
    return render(np.random.default_rng((seed, 0)), _in_turn(count), NORMAL)


def draw_returned(seed: int, count: int, light: Light) -> list[Picture]:
    """Phones that customers sent back for their scratches, entered as `ok` by mistake: every label is wrong."""
    drawn = render(np.random.default_rng((seed, 2)), _in_turn(count), light, scratched=1.0)
    return [Picture(picture.station, picture.jpeg, "ok", None) for picture in drawn]


def _in_turn(count: int) -> list[str]:
    return [STATIONS[number % len(STATIONS)] for number in range(count)]

"""One route's attempts: one at a time, and after a failure a growing pause. No route knows of another."""

from collections.abc import Mapping

from tidemill.alerts.notifier import Answer, Failure, Notifier, Sending
from tidemill.alerts.telemetry import DELIVERED, FAILED
from tidemill.alerts.words import Message
from tidemill.core.clock import Clock
from tidemill.core.telemetry import get_logger
from tidemill.spec.alerts import AlertRoute

__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "RouteDelivery", "missing_variable"]

_log = get_logger(__name__)

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
"""Pauses double from the first to the longest."""
_TOLD_AGAIN_S = 3600.0
"""A route that stays dead is told in the log at its first failure, and then so often."""


def missing_variable(route: AlertRoute) -> Answer:
    """What is said where a route's environment variable is not set."""
    return Answer(f"the environment variable {route.url_env} is not set", Failure.MISCONFIGURED)


class RouteDelivery:
    """Sends to one route. One thread.

    Args:
        model: whose alerts they are.
        route: the route.
        environ: where its URL is found, by the name in the resource.
        notifier: sends.
        clock: measures pauses.
    """

    def __init__(
        self, model: str, route: AlertRoute, environ: Mapping[str, str], notifier: Notifier, clock: Clock
    ) -> None:
        self.route = route
        self._model, self._environ, self._notifier, self._clock = model, environ, notifier, clock
        self._under_way: tuple[Sending, Message] | None = None
        self._failures = 0
        self._not_before = self._told_at = float("-inf")
        self._failing_since: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an attempt is under way."""
        return self._under_way is not None

    def offer(self, message: Message) -> None:
        """Send the message, unless an attempt is under way or the pause after a failure is not over."""
        now = self._clock.monotonic()
        if self._under_way is not None or now < self._not_before:
            return
        url = self._environ.get(self.route.url_env)
        if not url:
            self._note_failure(missing_variable(self.route), now)
            return
        self._under_way = self._notifier.send(url, message), message

    def taken(self) -> Message | None:
        """The message that the route has taken since this was last asked; None where there is none."""
        if self._under_way is None:
            return None
        sending, message = self._under_way
        answer = sending.answer()
        if answer is None:
            return None
        self._under_way = None
        now = self._clock.monotonic()
        if answer.failure is not None:
            self._note_failure(answer, now)
            return None
        if self._failing_since is not None:
            _log.info("a route takes messages again", route=self.route.name, after_s=round(now - self._failing_since))
        self._failures, self._failing_since = 0, None
        self._not_before = self._told_at = float("-inf")
        DELIVERED.labels(self._model, self.route.name).inc()
        return message

    def close(self) -> None:
        """End the attempt under way; it is made again by the next process."""
        if self._under_way is not None:
            self._under_way[0].cancel()
            self._under_way = None

    def _note_failure(self, answer: Answer, now: float) -> None:
        self._failures += 1
        self._failing_since = now if self._failing_since is None else self._failing_since
        # Where only a person can help, it is not asked again every few seconds.
        first = LONGEST_PAUSE_S if answer.failure is Failure.MISCONFIGURED else FIRST_PAUSE_S
        pause = min(LONGEST_PAUSE_S, first * 2.0 ** min(self._failures - 1, 16))
        self._not_before = now + pause
        FAILED.labels(self._model, self.route.name, str(answer.failure)).inc()
        if now - self._told_at >= _TOLD_AGAIN_S:
            self._told_at = now
            _log.error(
                "a route does not take messages; it is tried again, and nothing is lost",
                route=self.route.name,
                said=answer.said,
                attempts=self._failures,
                for_s=round(now - self._failing_since),
            )

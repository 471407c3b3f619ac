"""A notifier in memory: services take, refuse or keep silent as the test says."""

from collections.abc import Callable

from tidemill.alerts.notifier import Answer, Failure, Sending
from tidemill.alerts.words import Message

__all__ = ["MemoryNotifier"]


class MemoryNotifier:
    """Implements `Notifier`. A URL that is in `dead` is answered so; one in `silent` is not, until it no longer is.

    `taken` has what each URL took, in order; `tried` every attempt.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[str, Message]] = []
        self.tried: list[tuple[str, Message]] = []
        self.dead: dict[str, Failure] = {}
        self.silent: set[str] = set()

    def send(self, url: str, message: Message) -> Sending:
        """Begin to send a message; it is taken once its answer is asked for."""
        self.tried.append((url, message))
        return _MemorySending(lambda: self._answer(url, message))

    def _answer(self, url: str, message: Message) -> Answer | None:
        if url in self.silent:
            return None
        if url in self.dead:
            return Answer("the test says no", self.dead[url])
        self.taken.append((url, message))
        return Answer("taken")


class _MemorySending:
    def __init__(self, ask: Callable[[], Answer | None]) -> None:
        self._ask, self._over = ask, False
        self._answer: Answer | None = None

    def answer(self) -> Answer | None:
        if self._answer is None and not self._over:
            self._answer = self._ask()
        return self._answer

    def cancel(self) -> None:
        self._over = True

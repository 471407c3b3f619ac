"""The seam to the services that carry messages to people."""

from enum import StrEnum
from typing import Protocol

import msgspec

from tidemill.alerts.words import Message

__all__ = ["Answer", "Failure", "Notifier", "Sending"]


class Failure(StrEnum):
    """Why a message was not taken: few values, since they are labels of a metric, and no word of the service's own."""

    MISCONFIGURED = "misconfigured"
    """The URL is missing, malformed, or of a scheme that is refused: trying again cannot help."""
    REFUSED = "refused"
    """The service answered, and did not take it."""
    UNREACHABLE = "unreachable"
    """There was no connection."""
    SILENT = "silent"
    """It did not answer in time."""
    BROKEN = "broken"
    """The sender itself ended without a word."""


class Answer(msgspec.Struct, frozen=True):
    """What became of one attempt. `said` is in our own words: it names no part of the URL."""

    said: str
    failure: Failure | None = None
    """None: the service took the message."""


class Sending(Protocol):
    """One attempt under way."""

    def answer(self) -> Answer | None:
        """What became of it; None while it is under way. Returns at once, and has an end by a deadline of its own."""
        ...

    def cancel(self) -> None:
        """End it; whether the message arrived is not known then."""
        ...


class Notifier(Protocol):
    """Sends messages, several at a time. Raises nothing: what goes wrong is an `Answer`."""

    def send(self, url: str, message: Message) -> Sending:
        """Begin to send a message to the service behind an Apprise URL; returns at once."""
        ...

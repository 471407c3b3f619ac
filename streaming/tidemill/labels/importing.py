"""A file of labels on its way to the topic: what is good is sent, what is not is told with its place, nothing twice."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from tidemill.core.errors import InvalidInput, Transient
from tidemill.events.replay import Outgoing
from tidemill.labels.check import Checked, LabelCheck
from tidemill.labels.lines import Row
from tidemill.labels.said import SaidBefore, statement

__all__ = ["Importing", "LabelSink", "Refused", "Summary", "outgoing", "refused_line"]

_TOGETHER, _TOGETHER_BYTES = 5_000, 8 << 20
"""Labels of one transaction at most, and bytes of them."""
_EXAMPLES = 10
_MOST_REASONS = 20
_LONGEST_REASON = 300
_OTHER = "other reasons"


class LabelSink(Protocol):
    """Where labels go; `TransactionWriter` is one."""

    def write(self, records: Sequence[Outgoing]) -> None:
        """Write all of them or none, acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class Refused:
    """What was not taken."""

    place: str
    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass
class Summary:
    """What became of a file."""

    taken: int = 0
    repeated: int = 0
    """Said before, in the lake, the topic or the file itself; not sent again."""
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """How many rows were refused for each reason, without the value that was wrong."""
    examples: list[Refused] = field(default_factory=list)
    """The first of them."""

    def refuse(self, refused: Refused) -> None:
        """Count a row."""
        self.refused += 1
        reason = refused.reason.partition(", not ")[0]
        known = reason in self.reasons or len(self.reasons) < _MOST_REASONS
        self.reasons[reason if known else _OTHER] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(refused)


class Importing:
    """Imports rows of one model.

    Args:
        topic: the labels topic.
        check: decides which rows are labels.
        sink: where they go; None: nowhere, to see what would happen.
        said: what was said before; None: rows are sent whether they were or not.
        on_refused: told of each row that is refused.
        on_progress: told how it stands now and then.
    """

    def __init__(
        self,
        topic: str,
        check: LabelCheck,
        *,
        sink: LabelSink | None,
        said: SaidBefore | None,
        on_refused: Callable[[Refused], None] = lambda _: None,
        on_progress: Callable[[Summary], None] = lambda _: None,
    ) -> None:
        self._topic, self._check, self._sink, self._said = topic, check, sink, said
        self._on_refused, self._on_progress = on_refused, on_progress
        self.summary = Summary()

    def run(self, rows: Iterable[Row]) -> Summary:
        """Import all rows.

        Raises:
            Unavailable: the brokers do not answer. What was taken stays; the same file imported again goes on there.
        """
        try:
            for labels in _together(self._good(rows)):
                self._take(labels)
                self._on_progress(self.summary)
        except Transient as error:
            hint = f"{self.summary.taken:,} labels were taken; import the file again, and it goes on with the rest"
            raise type(error)(error.message, hint=hint) from error
        return self.summary

    def _good(self, rows: Iterable[Row]) -> Iterator[Checked]:
        for row in rows:
            if row.said is None:
                self._refuse(row, row.why)
                continue
            try:
                yield self._check(row.said)
            except InvalidInput as refusal:
                self._refuse(row, refusal.message)

    def _refuse(self, row: Row, reason: str) -> None:
        refused = Refused(row.place, row.line, reason[:_LONGEST_REASON], row.text)
        self.summary.refuse(refused)
        self._on_refused(refused)

    def _take(self, labels: Sequence[Checked]) -> None:
        if self._said is not None:
            new = self._said.are_new([statement(one.label) for one in labels])
            self.summary.repeated += new.count(False)
            labels = [one for one, is_new in zip(labels, new, strict=True) if is_new]
        if labels and self._sink is not None:
            self._sink.write(outgoing(self._topic, labels))
        self.summary.taken += len(labels)


def outgoing(topic: str, labels: Iterable[Checked]) -> list[Outgoing]:
    """The records of labels."""
    return [Outgoing(topic, one.data, one.key.encode()) for one in labels]


def refused_line(refused: Refused) -> str:
    """A line of the file of what was refused: JSON."""
    about = {"line": refused.line, "place": refused.place, "reason": refused.reason, "text": refused.text}
    return msgspec.json.encode(about).decode() + "\n"


def _together(labels: Iterable[Checked]) -> Iterator[list[Checked]]:
    group: list[Checked] = []
    size = 0
    for one in labels:
        group.append(one)
        size += len(one.data)
        if len(group) >= _TOGETHER or size >= _TOGETHER_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group

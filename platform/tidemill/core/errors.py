"""The error tree. Whether to try again is a type; a message says what was wrong, where, and what to do.

    TidemillError
    ├── Permanent            trying again cannot help: the input or the installation must change
    │   ├── InvalidInput     a file, record, request or argument that is not what it should be
    │   │   └── SpecError    a ContinualModel: file, line, path, what was expected
    │   ├── NotFound         the thing that was named does not exist
    │   ├── Conflict         it exists already, or someone else changed it first
    │   ├── Corrupt          stored bytes are not the ones that were written
    │   ├── UserCodeError    the user's Codec or Trainer raised; carries where
    │   └── Unsupported      a known thing that this installation cannot do
    └── Transient            the same call may succeed later
        ├── Unavailable      a broker, store, proxy or server does not answer
        └── DeadlineExceeded it answered, but not in time

Errors of libraries stop at the adapter that calls them: it raises one of these `from` theirs.
"""

from dataclasses import dataclass

__all__ = [
    "Conflict",
    "Corrupt",
    "DeadlineExceeded",
    "InvalidInput",
    "NotFound",
    "Permanent",
    "Problem",
    "SpecError",
    "TidemillError",
    "Transient",
    "Unavailable",
    "Unsupported",
    "UserCodeError",
]


class TidemillError(Exception):
    """Any failure that Tidemill knows how to put into words.

    Args:
        message: what was wrong and where, in one sentence.
        hint: what the reader can do about it; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Permanent(TidemillError):
    """Trying again cannot help."""


class InvalidInput(Permanent):
    """Something from outside is not what it should be."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place of a file. `path` is empty where it is about the file as a whole."""

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        """`model.yaml:12: spec.events.topic: …`."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class SpecError(InvalidInput):
    """A ContinualModel that cannot be accepted. `problems` has each thing that is wrong."""

    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> "SpecError":
        """The error that tells all of these problems (at least one)."""
        lines = [str(problem) for problem in problems]
        head = [] if len(lines) == 1 else [f"{problems[0].file} has {len(lines)} problems"]
        error = cls("\n  ".join(head + lines))
        error.problems = problems
        return error


class NotFound(Permanent):
    """The thing that was named does not exist."""

    exit_code = 3


class Conflict(Permanent):
    """It exists already, or someone else changed it first."""

    exit_code = 4


class Corrupt(Permanent):
    """Stored bytes are not the ones that were written."""


class UserCodeError(Permanent):
    """The user's own code raised."""


class Unsupported(Permanent):
    """A known thing that this installation cannot do."""


class Transient(TidemillError):
    """The same call may succeed later."""

    exit_code = 5


class Unavailable(Transient):
    """A broker, store, proxy or server does not answer."""


class DeadlineExceeded(Transient):
    """It did not happen in time."""

"""The supervisor seam on one machine: wanted processes are files, and what is seen of them too.

    <state>/processes/wanted/<name>.json    ProcessWanted, written by whoever wants the process
    <state>/processes/seen/<name>.json      ProcessSeen, written by the supervisor

Both are replaced by rename, so that a reader never sees a part.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.core.files import write_atomically
from tidemill.stack.supervisor import ProcessSeen, ProcessWanted

__all__ = ["FileSupervisor", "WantedFiles"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FileSupervisor:
    """Asks the supervisor of `tidemill up` for processes. Implements `ProcessSupervisor`.

    Args:
        folder: `<state>/processes`.
    """

    def __init__(self, folder: Path) -> None:
        self._wanted = folder / "wanted"
        self._seen = folder / "seen"
        for one in (self._wanted, self._seen):
            one.mkdir(parents=True, exist_ok=True)

    def want(self, process: ProcessWanted) -> None:
        """State that a process is to run. Raises `InvalidInput` for a name that cannot be a file's."""
        file = self._file(process.name)
        content = msgspec.json.encode(process)
        if not file.is_file() or file.read_bytes() != content:
            write_atomically(file, content)

    def unwant(self, name: str) -> None:
        """State that it is no longer to run."""
        self._file(name).unlink(missing_ok=True)

    def observe(self) -> Sequence[ProcessSeen]:
        """All processes wanted or still ending; one that was not started yet is `starting` without a pid."""
        found = {file.stem: ProcessSeen(name=file.stem, state="starting") for file in self._wanted.glob("[!.]*.json")}
        for file in self._seen.glob("[!.]*.json"):
            try:
                found[file.stem] = msgspec.json.decode(file.read_bytes(), type=ProcessSeen)
            except FileNotFoundError:  # it ended since
                continue
        return [found[name] for name in sorted(found)]

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} cannot name a process", hint="letters, digits, dots and dashes, at most 128")
        return self._wanted / f"{name}.json"


class WantedFiles:
    """The supervisor's own view of the wanted files: each is read once per change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[tuple[int, int], ProcessWanted | None]] = {}
        self.broken: dict[str, str] = {}
        """By name, why a file could not be read; the process stays as it was."""

    def read(self) -> dict[str, ProcessWanted]:
        """The wanted processes by name."""
        found: dict[str, tuple[tuple[int, int], ProcessWanted | None]] = {}
        for file in self._folder.glob("[!.]*.json"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            mark = (status.st_ino, status.st_mtime_ns)
            before = self._read.get(file.stem)
            found[file.stem] = before if before and before[0] == mark else (mark, self._decode(file, before))
        self._read = found
        self.broken = {name: why for name, why in self.broken.items() if name in found}
        return {name: process for name, (_, process) in sorted(found.items()) if process is not None}

    def _decode(self, file: Path, before: tuple[tuple[int, int], ProcessWanted | None] | None) -> ProcessWanted | None:
        try:
            process = msgspec.json.decode(file.read_bytes(), type=ProcessWanted)
            if process.name != file.stem or not process.argv:
                raise msgspec.ValidationError(f"its name is {process.name!r} and it has {len(process.argv)} arguments")
        except (OSError, msgspec.DecodeError) as error:
            self.broken[file.stem] = f"{file}: {error}"
            return before[1] if before else None
        self.broken.pop(file.stem, None)
        return process

"""Requests at a fixed rate, whatever becomes of them: when each was sent, by whom it was answered, and after how long.

The rate does not follow the answers: a proxy or server that is slow gets as many requests as before, and the wait is
counted from when a request was due.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from tidemill.core.clock import Clock, to_ms

__all__ = ["Load", "Sent"]

CONNECTIONS = 32
LONGEST_S = 30.0


class _Row(msgspec.Struct):
    prediction_id: str
    version: str
    class_: str = msgspec.field(name="class")


class _Body(msgspec.Struct):
    predictions: list[_Row]


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. Times are milliseconds (UTC); `took_s` is from when it was due, in seconds."""

    at: int
    took_s: float
    status: int
    """Of the answer; 0 where there was none."""
    version: str = ""
    """Who answered."""


@dataclass
class Load:
    """A client of one model with some connections. `answered` is told id and class of each row that was answered."""

    url: str
    path: str
    per_second: float
    clock: Clock
    answered: Callable[[str, str], None] = lambda prediction_id, found: None
    sent: list[Sent] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask until the block ends; requests in flight are waited for."""
        stopped = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._run(stopped)), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(2 * LONGEST_S)

    def between(self, since: int, until: int) -> list[Sent]:
        """The requests sent in [since, until)."""
        return [one for one in self.sent if since <= one.at < until]

    @property
    def failed(self) -> list[Sent]:
        """Those without a good answer."""
        return [one for one in self.sent if one.status != 200]

    async def _run(self, stopped: threading.Event) -> None:
        due: asyncio.Queue[float | None] = asyncio.Queue()
        clients = [asyncio.create_task(self._client(due)) for _ in range(CONNECTIONS)]
        at = self.clock.monotonic()
        while not stopped.is_set():
            due.put_nowait(at)
            at += 1 / self.per_second
            if (wait := at - self.clock.monotonic()) > 0:
                await asyncio.sleep(wait)
        for _ in clients:
            due.put_nowait(None)
        await asyncio.gather(*clients)

    async def _client(self, due: asyncio.Queue[float | None]) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while (at := await due.get()) is not None:
            sent_at = to_ms(self.clock.now())
            status, content = 0, b""
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                async with asyncio.timeout(LONGEST_S):
                    streams = streams or await self._connect()
                    status, content = await self._ask(*streams)
            if not status and streams is not None:
                streams[1].close()
                streams = None
            version = self._told(content) if status == 200 else ""
            self.sent.append(Sent(sent_at, self.clock.monotonic() - at, status, version))
        if streams is not None:
            streams[1].close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = urlsplit(self.url)
        return await asyncio.open_connection(found.hostname, found.port)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bytes]:
        number = len(self.sent)
        body = msgspec.json.encode({"instances": [{"station": f"s{number % 100}", "exposure_ms": number % 1000}]})
        head = f"POST {self.path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        return int(head.split(" ", 2)[1]), await reader.readexactly(length)

    def _told(self, content: bytes) -> str:
        (row,) = msgspec.json.decode(content, type=_Body).predictions
        self.answered(row.prediction_id, row.class_)
        return row.version

"""Clients that cost little: one that asks and waits, for latency; many at once, for how many a second."""

import asyncio
import http.client
from collections.abc import Sequence
from urllib.parse import urlsplit

from tidemill.core.clock import Clock

__all__ = ["Asker", "most_a_second"]


class Asker:
    """One connection that sends the same request again and again.

    Raises `RuntimeError` for an answer that is no 200.
    """

    def __init__(self, url: str, path: str, body: bytes, clock: Clock) -> None:
        self._path, self._body, self._clock = path, body, clock
        self._http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def block(self, count: int) -> list[float]:
        """Seconds of each of some requests, one after the other."""
        took = []
        for _ in range(count):
            began = self._clock.monotonic()
            self._http.request("POST", self._path, self._body, {"content-type": "application/json"})
            answer = self._http.getresponse()
            content = answer.read()
            took.append(self._clock.monotonic() - began)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {content[:200]!r}")
        return took

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()


def most_a_second(url: str, path: str, body: bytes, *, seconds: float, connections: int, clock: Clock) -> float:
    """Requests answered a second by so many connections, each of which asks again as soon as it is answered."""
    counts = asyncio.run(_saturate(url, path, body, seconds, connections, clock))
    return sum(counts) / seconds


async def _saturate(url: str, path: str, body: bytes, seconds: float, connections: int, clock: Clock) -> Sequence[int]:
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request, end, found = head.encode() + body, clock.monotonic() + seconds, urlsplit(url)

    async def client() -> int:
        reader, writer = await asyncio.open_connection(found.hostname, found.port)
        count = 0
        while clock.monotonic() < end:
            writer.write(request)
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(told.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            count += told.startswith(b"http/1.1 200")
        writer.close()
        return count

    return await asyncio.gather(*(client() for _ in range(connections)))

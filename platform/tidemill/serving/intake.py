"""Bodies of requests, read within limits: of one body's size, of the time it takes, of all bodies in hand together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["Intake", "Refusal"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Refusal(Exception):
    """A request that is not answered: the status that says so, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Intake:
    """Reads bodies, and counts the bytes of those that are being answered. Used by one event loop.

    Args:
        limit: most bytes of a body.
        total: most bytes of all bodies in hand: what waits for the model must not fill the memory.
        patience_s: longest time for a body to come.
    """

    def __init__(self, *, limit: int, total: int, patience_s: float) -> None:
        self._limit, self._total, self._patience_s = limit, total, patience_s
        self._held = 0

    @asynccontextmanager
    async def body(self, scope: Message, receive: Receive) -> AsyncIterator[bytes]:
        """The request's body, counted until the block ends.

        Raises `Refusal`: 413 (too large), 408 (too slow), 415 (compressed), 503 (too many at once), 400 (cut off).
        """
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            raise self._too_large()
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refusal(415, "a compressed body is not taken (content-encoding)")
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._read(receive, parts)
            except TimeoutError as error:
                raise Refusal(408, f"the body has not come within {self._patience_s:g} s") from error
            yield b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _read(self, receive: Receive, parts: list[bytes]) -> None:
        more, read = True, 0
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the body is cut off")
            part = message.get("body", b"")
            parts.append(part)
            read += len(part)
            self._held += len(part)
            if read > self._limit:
                raise self._too_large()
            if self._held > self._total:
                raise Refusal(503, "too many requests at once")
            more = message.get("more_body", False)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is larger than {self._limit >> 20} MiB")

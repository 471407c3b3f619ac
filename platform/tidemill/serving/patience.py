"""Connections whose request line and headers do not come in time, or are too long, are closed with a word.

uvicorn waits for them without end and keeps what it has, so that a few thousand slow clients would be enough.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["PatientProtocol"]

HEADERS_S = 10.0
"""From the first byte, or the connection, until the headers are there."""
MAX_HEADERS = 64 << 10
"""Bytes of request line and headers."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with both limits."""

    _timer: asyncio.TimerHandle | None = None
    _unparsed = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for a first request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came; the next request's headers have begun with it, where no request is being read."""
        if self._timer is None and self.cycle.response_complete:
            self._expect()
        self._unparsed += len(data)
        super().data_received(data)
        if self._timer is not None and self._unparsed > MAX_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"headers of more than {MAX_HEADERS >> 10} KiB")

    def on_headers_complete(self) -> None:
        """Begin with the request."""
        self._arrived()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _expect(self) -> None:
        self._unparsed = 0
        self._timer = self.loop.call_later(
            HEADERS_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, f"no headers within {HEADERS_S:g} s"
        )

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._arrived()
        if self.transport.is_closing():
            return
        body = msgspec.json.encode({"error": why})
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

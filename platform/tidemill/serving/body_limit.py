"""Requests larger than a limit are refused before they are read into memory."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["BodyLimit"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `limit` bytes, announced or not."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(send)
            return
        read, is_over = 0, False

        async def counted() -> Message:
            nonlocal read, is_over
            message = await receive()
            read += len(message.get("body", b""))
            is_over = is_over or read > self._limit
            return {"type": "http.disconnect"} if is_over else message

        async def answered(message: Message) -> None:
            if not is_over:
                await send(message)

        try:
            await self._app(scope, counted, answered)
        except Exception:
            if not is_over:
                raise
        if is_over:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        body = json.dumps({"error": f"the request is larger than {self._limit >> 20} MiB"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})

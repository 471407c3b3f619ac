"""What is in front of KServe's app: predict requests are answered here, and everything else is KServe's.

KServe decodes a request several times over, takes what it should refuse, and answers some of it with a 500 and a
closed connection. Its model, its metrics, its health and metadata are used as they are.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.serving.intake import Intake, Message, Receive, Refusal
from tidemill.serving.model import Payload, Reply, Requests
from tidemill.serving.v2 import HEADER_LENGTH, MAX_ID

__all__ = ["Front"]

Send = Callable[[Message], Awaitable[None]]
_PREDICT = re.compile(r"/v1/models/([^/:]+):predict|/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_NOT_SERVED = re.compile(r"/v1/models/[^/]+:explain|/v2/repository/.*")
"""No explanations; and whoever may ask for predictions may not take the model away."""
_OF_VERSION = re.compile(r"(/v2/models/[^/]+)/versions/([^/]+)(/ready)?")


class Front:
    """ASGI application.

    Args:
        app: KServe's.
        model: the KServe model that answers (`make_model`).
        requests: what it answers with.
        intake: reads bodies.
    """

    def __init__(self, app: Any, model: Any, requests: Requests, intake: Intake) -> None:
        self._app, self._model, self._requests, self._intake = app, model, requests, intake

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not scope["path"].isprintable():  # what is behind this would take a line's end for the path's
            await self._refuse(send, Refusal(404, "there is no such path"))
        elif found := _PREDICT.fullmatch(scope["path"]):
            await self._predict(scope, receive, send, *found.groups())
        elif found := _OF_VERSION.fullmatch(scope["path"]):
            if found[2] != self._requests.version:
                await self._refuse(send, self._no_version(found[2]))
                return
            await self._app({**scope, "path": found[1] + (found[3] or ""), "query_string": b""}, receive, send)
        elif _NOT_SERVED.fullmatch(scope["path"]):
            await self._refuse(send, Refusal(404, f"{scope['path'][:200]} is not served here"))
        else:  # a model_version in the query is a 501 of KServe's
            await self._app({**scope, "query_string": b""}, receive, send)

    async def _predict(
        self, scope: Message, receive: Receive, send: Send, v1: str | None, v2: str | None, version: str | None
    ) -> None:
        try:
            self._check(scope["method"], v1 or v2 or "", version)
            async with self._intake.body(scope, receive) as body:
                reply = await self._answer(self._payload(scope, body, is_v2=v1 is None))
        except Refusal as refusal:
            self._requests.count("failed" if refusal.status == 500 else "refused")
            await self._refuse(send, refusal)
            return
        self._requests.count("answered")
        headers = [] if reply.json_length is None else [(HEADER_LENGTH.encode(), str(reply.json_length).encode())]
        await _send(send, 200, reply.body, headers, "application/octet-stream" if headers else "application/json")

    def _payload(self, scope: Message, body: bytes, *, is_v2: bool) -> Payload:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id, cohort = headers.get("x-request-id") or None, self._requests.cohort_of(headers)
        for name, value in (("x-request-id", request_id), ("the cohort's key", cohort)):
            if value is not None and len(value) > MAX_ID:
                raise Refusal(400, f"{name} has {len(value)} characters; at most {MAX_ID} are taken")
        length = headers.get(HEADER_LENGTH) if is_v2 else None
        return Payload(is_v2, body, request_id, length, cohort, self._requests.is_copy(headers))

    async def _answer(self, payload: Payload) -> Reply:
        try:
            reply, _ = await self._model(payload)
        except InvalidInput as error:
            raise Refusal(400, error.message) from error
        return reply  # type: ignore[no-any-return]

    def _check(self, method: str, name: str, version: str | None) -> None:
        if name != self._requests.name:
            raise Refusal(404, f"there is no model {name[:200]!r}; there is {self._requests.name}")
        if version not in {None, self._requests.version}:
            raise self._no_version(version or "")
        if method != "POST":
            raise Refusal(405, f"{method} is not taken here: POST a request")

    def _no_version(self, version: str) -> Refusal:
        return Refusal(404, f"there is no version {version[:200]!r} here; there is {self._requests.version}")

    async def _refuse(self, send: Send, refusal: Refusal) -> None:
        """Close the connection where the rest of a body may be on its way."""
        headers = [(b"allow", b"POST")] if refusal.status == 405 else []
        if refusal.status not in {400, 500}:
            headers.append((b"connection", b"close"))
        await _send(send, refusal.status, msgspec.json.encode({"error": refusal.message}), headers)


async def _send(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], kind: str = "application/json"
) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""The guard before every request and socket: who is there, from which page, and what a browser may do with an answer.

- Nobody without an identity gets in, neither to a page nor to its websocket (`tidemill.dashboard.viewers`).
- A page's events come over its websocket. It is taken from a page of this dashboard alone (`Origin` is the host that
  was asked: no other site can act in a viewer's name), and from the viewer for whom the page was made alone. What
  a socket says later is held by `tidemill.dashboard.pages.sockets`.
- Without a proxy the host must be this machine's name: a name of somebody else's that leads here is refused.

NiceGUI compiles its templates in the browser and starts them inline: scripts of this origin, inline ones and `eval`
must be allowed. All that is shown is set as text, and nothing can be loaded from, or sent to, anywhere else.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tidemill.core.telemetry import get_logger
from tidemill.dashboard.viewers import Trust, Viewer, is_loopback

__all__ = ["POLICY", "Guard"]

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_SOCKET = "/_nicegui_ws/"
_READING = frozenset({"GET", "HEAD"})

Owner = Callable[[str], str | None]
"""The name of the viewer for whom a page was made, by the id of NiceGUI's client; None where there is none."""

_log = get_logger(__name__)


class Guard:
    """An ASGI application around another one.

    Args:
        app: what is guarded.
        trust: whom requests are believed to be from.
        owner: whose page a socket is of.
    """

    def __init__(self, app: Any, trust: Trust, owner: Owner) -> None:
        self._app, self._trust, self._owner = app, trust, owner

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Let it through, or answer 403."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        peer = scope["client"][0] if scope.get("client") else None
        viewer = self._trust.viewer(headers, peer)
        refused = self._refusal(scope, headers, viewer)
        if refused or viewer is None:
            _log.warning("refused", reason=refused, path=scope["path"][:200], peer=peer)
            await _refuse(scope, send, refused or "")
            return
        scope.setdefault("state", {})["viewer"] = viewer
        await self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)

    def _refusal(self, scope: Mapping[str, Any], headers: Mapping[str, str], viewer: Viewer | None) -> str | None:
        """Why it is refused; None: it is not."""
        if viewer is None:
            return "nobody is known by this request: come through the proxy that signs you in"
        host = headers.get("host", "")
        if self._trust.header is None and not is_loopback(_name(host)):
            return "this dashboard is this machine's alone"
        if scope["type"] == "http":
            if scope["path"].startswith(_SOCKET):
                return "pages are live over a websocket alone"
            return None if scope["method"] in _READING else "pages are read; what changes goes over their websocket"
        if urlsplit(headers.get("origin", "")).netloc != host:
            return "another site may not act in your name"
        client = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("client_id", [""])[0]
        return None if self._owner(client) in {None, viewer.name} else "this page is somebody else's"


def _name(host: str) -> str:
    """The name in a host header, without the port."""
    return urlsplit(f"//{host}").hostname or ""


async def _refuse(scope: Mapping[str, Any], send: Any, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    answer = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _with_headers(send: Any) -> Any:
    extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in _HEADERS]
            message = {**message, "headers": [*own, *extra]}
        await send(message)

    return sending

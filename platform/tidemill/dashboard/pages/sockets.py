"""Whose page an event of a websocket is of: it is taken from the socket that joined that page alone.

Each event names the page (NiceGUI's client) that it is of, and NiceGUI believes it. So whoever knows the id of somebody
else's page could press its buttons, in that person's role. A socket joins one page, that of its own viewer, and
speaks for no other.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from nicegui import core

from tidemill.core.telemetry import get_logger
from tidemill.dashboard.guard import Owner

__all__ = ["hold_sockets"]

_SPOKEN = ("event", "javascript_response", "ack", "log")
"""What the browser says of a page that its socket has joined by a handshake."""
_NAMESPACE = "/"
_log = get_logger(__name__)


def hold_sockets(owner: Owner) -> None:
    """Put a check before NiceGUI's handlers of what sockets say. Before the server starts; once a process is enough.

    `Guard` has checked the page that is named when a socket connects; a handshake may name another one.

    Args:
        owner: for whom a page was made.
    """
    for name in _SPOKEN:
        _check(name, _has_joined)

    def is_own(sid: str, told: Mapping[str, Any]) -> bool:
        made_for = owner(str(told.get("client_id")))
        return made_for is None or made_for == _viewer_of(sid)

    _check("handshake", is_own)


def _check(name: str, is_right: Any) -> None:
    handle = core.sio.handlers[_NAMESPACE][name]

    async def checked(sid: str, told: Any = None) -> Any:
        if not isinstance(told, Mapping) or not is_right(sid, told):
            _log.warning("refused", reason="a socket spoke for a page that is not its own", message=name)
            return False
        answer = handle(sid, told)
        return await answer if inspect.isawaitable(answer) else answer

    core.sio.on(name, checked)


def _has_joined(sid: str, told: Mapping[str, Any]) -> bool:
    return told.get("client_id") in core.sio.rooms(sid)


def _viewer_of(sid: str) -> str | None:
    """Who opened the socket, as the guard knew them; None of one that came past it."""
    scope = (core.sio.get_environ(sid) or {}).get("asgi.scope", {})
    viewer = scope.get("state", {}).get("viewer")
    return None if viewer is None else str(viewer.name)

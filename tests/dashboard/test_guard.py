"""The guard before every request and socket."""

import asyncio
from typing import Any

import pytest

from tidemill.core.settings import Settings
from tidemill.dashboard.guard import POLICY, Guard
from tidemill.dashboard.viewers import Trust, Viewer

LOCAL = Trust.of(Settings())
PROXIED = Trust.of(Settings(dashboard_identity_header="X-User", dashboard_roles="ada=approver"))


def asked(trust: Trust, kind: str = "http", *, owner: str | None = None, **scope: Any) -> list[dict[str, Any]]:
    """What is answered; an application that is reached answers 200, and tells who is there."""
    sent: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        viewer: Viewer = scope["state"]["viewer"]
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        headers = [(b"X-Who", viewer.name.encode()), (b"X-Frame-Options", b"ALLOWALL")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    whole = {"type": kind, "method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 5)} | scope
    whole["headers"] = [(name.encode(), value.encode()) for name, value in whole["headers"]]
    asyncio.run(Guard(app, trust, lambda _: owner)(whole, None, send))
    return sent


def socket(trust: Trust, *headers: tuple[str, str], owner: str | None = None) -> str:
    (message,) = asked(
        trust, "websocket", headers=[("host", "127.0.0.1:1"), *headers], query_string=b"client_id=c1", owner=owner
    )
    return str(message["type"])


def test_what_is_let_through_bears_headers_that_bind_the_browser() -> None:
    start = asked(LOCAL, headers=[("host", "localhost:8642")])[0]
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    assert start["status"] == 200
    assert headers["content-security-policy"] == POLICY
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in POLICY
    assert "http" not in POLICY


def test_the_viewer_is_known_to_the_page() -> None:
    start = asked(PROXIED, headers=[("host", "tidemill.example"), ("x-user", "ada")])[0]
    assert (b"X-Who", b"ada") in start["headers"]


@pytest.mark.parametrize(
    ("trust", "scope"),
    [
        (PROXIED, {"headers": [("host", "a")]}),
        (PROXIED, {"headers": [("host", "a"), ("x-user", "ada")], "client": ("10.0.0.1", 5)}),
        (PROXIED, {"headers": [("host", "a"), ("x-user", "ada")], "client": None}),
        (LOCAL, {"headers": [("host", "evil.example")]}),
        (LOCAL, {"headers": []}),
        (LOCAL, {"headers": [("host", "localhost")], "method": "POST"}),
        (LOCAL, {"headers": [("host", "localhost")], "path": "/_nicegui_ws/socket.io/"}),
    ],
)
def test_what_is_refused_is_answered_403(trust: Trust, scope: dict[str, Any]) -> None:
    start, body = asked(trust, **scope)
    assert (start["status"], bool(body["body"])) == (403, True)


def test_a_socket_is_taken_from_a_page_of_this_dashboard_alone() -> None:
    assert socket(LOCAL, ("origin", "http://127.0.0.1:1")) == "websocket.accept"
    for origin in ("http://evil.example", "http://127.0.0.1:2", "null"):
        assert socket(LOCAL, ("origin", origin)) == "websocket.close"
    assert socket(LOCAL) == "websocket.close"


def test_a_socket_is_taken_from_who_the_page_was_made_for() -> None:
    ada = (("origin", "http://127.0.0.1:1"), ("x-user", "ada"))
    assert socket(PROXIED, *ada, owner="ada") == "websocket.accept"
    assert socket(PROXIED, *ada, owner="ben") == "websocket.close"
    assert socket(PROXIED, ada[0], owner="ada") == "websocket.close"

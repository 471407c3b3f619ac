"""A viewer who knows the id of somebody else's page: their socket speaks for their own page alone."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio  # type: ignore[import-untyped]
import uvicorn
from nicegui import Client

from tidemill.core.settings import Settings
from tidemill.dashboard.server import application
from tidemill.stack.ports import free_ports
from tidemill.testing.clock import ManualClock
from tidemill.wiring import Local

HEADER = "X-User"
NONSENSE: tuple[Any, ...] = (None, 7, [], {"client_id": ["a"]}, {"client_id": {}})
_CLIENT = re.compile(r"client_id[^0-9a-f]{1,8}([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class Dashboard:
    """A dashboard that is asked over the network, and what its pages took for their own."""

    def __init__(self, url: str) -> None:
        self.url, self.taken = url, list[tuple[str, str]]()

    async def page(self, name: str) -> str:
        """The id of a page that was made for somebody."""
        async with aiohttp.ClientSession() as session, session.get(self.url, headers={HEADER: name}) as answer:
            found = _CLIENT.search(await answer.text())
        assert found is not None
        return found[1]

    @asynccontextmanager
    async def socket(self, name: str, **query: str) -> AsyncIterator[socketio.AsyncClient]:
        """Somebody's socket."""
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        async with aiohttp.ClientSession() as session:
            client = socketio.AsyncClient(reconnection=False, http_session=session)
            await client.connect(
                f"{self.url}?{asked}",
                headers={HEADER: name, "Origin": self.url},
                transports=["websocket"],
                socketio_path="/_nicegui_ws/socket.io",
            )
            try:
                yield client
            finally:
                await client.disconnect()


@asynccontextmanager
async def dashboard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dashboard]:
    """One with people of two roles; events are noted instead of handled."""
    (port,) = free_ports(1)
    found = Dashboard(f"http://127.0.0.1:{port}")
    for kind in ("handle_event", "handle_javascript_response", "handle_log_message"):
        monkeypatch.setattr(Client, kind, lambda page, _, kind=kind: found.taken.append((page.id, kind)))
    settings = Settings(state=folder, dashboard_identity_header=HEADER, dashboard_roles="ada=approver")
    app = application(Local(settings, ManualClock()))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield found
    finally:
        server.should_exit = True
        await serving


def joining(page: str, tab: str = "tab") -> dict[str, Any]:
    return {"client_id": page, "tab_id": tab, "document_id": "d", "next_message_id": 0}


async def ask_of(socket: socketio.AsyncClient, page: str) -> None:
    """Say something of each kind of a page, and wait until it was heard."""
    for kind in ("event", "javascript_response", "log"):
        await socket.call(kind, {"client_id": page, "id": 1, "listener_id": "x", "args": []})


# NiceGUI looks through every object that there is for its server, those of torch too where that was imported before.
@pytest.mark.filterwarnings("ignore:.torch.distributed.reduce_op:FutureWarning")
def test_a_socket_joins_and_speaks_for_the_page_of_its_own_viewer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with dashboard(tmp_path, monkeypatch) as found:
            of_ada, of_eve = await found.page("ada"), await found.page("eve")
            with pytest.raises(socketio.exceptions.ConnectionError):
                async with found.socket("eve", client_id=of_ada):
                    raise AssertionError("it was let in")
            async with found.socket("eve") as eve:  # it names no page before its handshake
                assert await eve.call("handshake", joining(of_ada)) is False
                await ask_of(eve, of_ada)
            async with found.socket("ada", client_id=of_ada) as ada, found.socket("eve", client_id=of_eve) as eve:
                assert await ada.call("handshake", joining(of_ada)) is True
                assert await eve.call("handshake", joining(of_eve)) is True
                await ask_of(eve, of_ada)
                for told in NONSENSE:
                    await eve.call("event", told)
                assert found.taken == []
                await ask_of(eve, of_eve)
                await ask_of(ada, of_ada)
            assert [page for page, _ in found.taken] == [of_eve] * 3 + [of_ada] * 3

    asyncio.run(story())

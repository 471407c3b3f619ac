"""`tidemill feedback`: the HTTP service for labels, on this machine's loopback unless its setting says otherwise.

It has no accounts: whoever reaches it may send labels. So a host other than the loopback belongs behind a proxy that
knows who asks.
"""

import signal
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from tidemill.core.clock import Clock
from tidemill.core.telemetry import get_logger
from tidemill.labels.api import LabelService, make_app
from tidemill.spec.model import ContinualModel
from tidemill.stack.ports import bound

__all__ = ["make_server", "run"]

_GRACE_S = 12
"""For requests in flight at the end: longer than one waits for Kafka; the supervisor waits 15 s in all."""
_LOOPBACK = ("127.0.0.1", "localhost")

_log = get_logger(__name__)


def run(
    find: Callable[[str], ContinualModel],
    *,
    host: str,
    port: int,
    kafka: str,
    clock: Clock,
) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered.

    Args:
        find: the model of a name or id; raises `NotFound`.
        host: interface to listen on.
        port: where to listen.
        kafka: bootstrap servers. The service starts without them, and answers 503 until they are there.
        clock: the time.

    Raises:
        Unavailable: the port is taken.
    """
    service = LabelService(find, kafka, clock=clock)
    with bound(host, port) as listening:
        server = make_server(service, host)
        # uvicorn raises the signal again once it has stopped; connections are still to be closed then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        _log.info("taking labels", host=host, port=port)
        try:
            server.run(sockets=[listening])
        finally:
            service.close()


def make_server(service: LabelService, host: str) -> uvicorn.Server:
    """The server; its `should_exit` ends it."""
    app: Any = make_app(service)
    if host in _LOOPBACK:
        # A page whose name was made to mean this machine is answered with 400, not with our data.
        app = TrustedHostMiddleware(app, allowed_hosts=list(_LOOPBACK))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_S, timeout_keep_alive=30
    )
    return uvicorn.Server(config)

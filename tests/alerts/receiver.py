"""A service as Apprise's json:// meets it: a real HTTP server that takes, refuses, redirects, hangs or trickles."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Receiver", "receiver"]


class Receiver:
    """What came in, and how it is answered."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.messages: list[dict[str, Any]] = []
        """Of those that were taken."""
        self.requests = 0
        self.status = 200
        self.hangs = self.trickles = False
        self.released = threading.Event()
        """Ends whatever hangs."""

    def url(self, path: str = "hook") -> str:
        """The Apprise URL."""
        return f"json://127.0.0.1:{self.port}/{path}"


def is_gone(connection: socket.socket) -> bool:
    """Whether the client has hung up."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests += 1
            while found.hangs and not found.released.wait(0.05):
                pass
            if is_gone(self.connection):
                return
            if found.status == 200:
                found.messages.append(body)
            self.send_response(found.status)
            if found.status == 302:
                self.send_header("Location", f"http://127.0.0.1:{found.port}/elsewhere")
            self.send_header("Content-Length", "1000" if found.trickles else "0")
            self.end_headers()
            while found.trickles and not found.released.wait(0.2):
                self.wfile.write(b".")
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client went away
        found = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            found.released.set()
            server.shutdown()
            thread.join(10)

"""A reverse proxy that signs people in: it says in a header who is there, as the one before a dashboard would."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signing_in"]

_END = b"\r\n\r\n"


@contextmanager
def signing_in(port: int, upstream: int, header: str, name: str) -> Iterator[None]:
    """Pass requests and websockets from `port` on to `upstream`, as `name`. One request a connection."""
    server = socket.create_server(("127.0.0.1", port))
    line = f"{header}: {name}\r\n".encode()

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # the block has ended
                return
            threading.Thread(target=_pass, args=(client, upstream, line), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        server.close()


def _pass(client: socket.socket, upstream: int, line: bytes) -> None:
    with client, socket.create_connection(("127.0.0.1", upstream)) as server:
        head = b""
        while _END not in head:
            more = client.recv(65536)
            if not more:
                return
            head += more
        first, rest = head.split(b"\r\n", 1)
        if b"upgrade: websocket" not in rest.lower():
            rest = b"Connection: close\r\n" + rest.replace(b"Connection: keep-alive\r\n", b"")
        server.sendall(first + b"\r\n" + line + rest)
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # either side has gone
        pass

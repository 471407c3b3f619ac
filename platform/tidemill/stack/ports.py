"""Ports: free ones on the loopback interface, and sockets that hold one before anything listens."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from tidemill.core.errors import Conflict, Unavailable
from tidemill.core.files import write_atomically

__all__ = ["HOST", "bound", "free_ports", "is_taken", "kept_ports"]

HOST = "127.0.0.1"


def bound(host: str, port: int) -> socket.socket:
    """A socket that takes connections once a server listens on it; raises `Unavailable` where the port is taken."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise Unavailable(f"port {port} of {host} cannot be had: {error.strerror}") from error
    return listening


def free_ports(count: int) -> tuple[int, ...]:
    """`count` different ports that nothing listens on at this moment."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind((HOST, 0))
        return tuple(int(one.getsockname()[1]) for one in held)
    finally:
        for one in held:
            one.close()


def is_taken(port: int) -> bool:
    """Whether something else has the port."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def kept_ports(file: Path, names: Sequence[str], *, fixed: dict[str, int]) -> dict[str, int]:
    """A port for each name: the one in `fixed`, else the one kept in `file` if it is free, else a free one.

    `file` keeps what was chosen. Raises `Conflict` where a port in `fixed` is taken.
    """
    for name, port in fixed.items():
        if is_taken(port):
            raise Conflict(
                f"port {port}, set for {name}, is taken by another program",
                hint=f"free it (`ss -ltnp sport = :{port}` shows who has it), or set another",
            )
    kept = _read(file)
    ports = {name: kept[name] for name in names if name in kept and not is_taken(kept[name])} | fixed
    missing = [name for name in names if name not in ports]
    ports |= dict(zip(missing, free_ports(len(missing)), strict=True))
    write_atomically(file, json.dumps({name: ports[name] for name in names if name not in fixed}))
    return ports


def _read(file: Path) -> dict[str, int]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {name: port for name, port in found.items() if isinstance(port, int)} if isinstance(found, dict) else {}

"""Whether a process answers yet. One look, never a wait."""

import http.client
import socket
from urllib.parse import unquote, urlsplit

__all__ = ["is_ready"]


def is_ready(url: str, *, timeout_s: float = 0.5) -> bool:
    """True if `url` answers: `http://…` with status 200, `tcp://host:port` and `unix://path` by accepting one."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        if parts.scheme == "tcp":
            with socket.create_connection((host, port), timeout=timeout_s):
                return True
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as near:
                near.settimeout(timeout_s)
                near.connect(unquote(parts.path))
                return True
        # Not urllib: it would send a request for this machine through a proxy named in the environment.
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False

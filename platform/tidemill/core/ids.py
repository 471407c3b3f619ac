"""Identifiers: UUIDv7 (RFC 9562), which sort by time, and names derived from content."""

import hashlib
import re
import secrets
import uuid
from datetime import datetime

from tidemill.core.clock import to_ms

__all__ = ["deterministic_id", "model_id", "new_id", "time_of"]


_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


def new_id(now: datetime) -> str:
    """A UUIDv7 for the given time: 48 bits of milliseconds, 74 random bits."""
    value = (to_ms(now) << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)  # version 7
    value = (value & ~(0x3 << 62)) | (0x2 << 62)  # the RFC's variant
    return str(uuid.UUID(int=value))


def time_of(identifier: str) -> int | None:
    """When a UUIDv7 was made, in milliseconds since the epoch; None for any other identifier."""
    if _UUID7.fullmatch(identifier) is None:
        return None
    return int(identifier[:8] + identifier[9:13], 16)


def deterministic_id(*parts: str | int) -> str:
    """The same 32 hex digits for the same parts, so that a repeated write can be recognised and dropped."""
    joined = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


def model_id(namespace: str, name: str) -> str:
    """A model's id, `<namespace>.<name>`: the prefix of its topics, keys, paths and names."""
    return f"{namespace}.{name}"

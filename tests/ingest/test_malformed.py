"""Ten thousand malformed payloads among good ones, through the real worker: all in quarantine, no good one lost."""

import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.ingest.site import Site

from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.records import Quarantined
from tidemill.ingest.tables import quarantine_table
from tidemill.testing import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]

SEED = 20_261_001
BAD, GOOD = 10_000, 20_000
MIB = 1 << 20
MAX_PEAK = 160 * MIB
"""What Python objects may take up at once: two batches of 32 MiB of values, and what becomes of them."""

Make = Callable[[random.Random, dict[str, Any]], bytes]
"""A malformed payload, made of a good event."""


def encoded(**fields: Any) -> Make:
    return lambda rng, event: msgspec.json.encode({**event, **fields})


def without(name: str) -> Make:
    return lambda rng, event: msgspec.json.encode({key: value for key, value in event.items() if key != name})


def text(field: str, *choices: str) -> Make:
    """One field as JSON text, which may be no JSON."""

    def make(rng: random.Random, event: dict[str, Any]) -> bytes:
        rest = msgspec.json.encode({key: value for key, value in event.items() if key != field})
        return rest[:-1] + f',"{field}":{rng.choice(choices)}}}'.encode()

    return make


def truncated(rng: random.Random, event: dict[str, Any]) -> bytes:
    whole = msgspec.json.encode(event)
    return whole[: rng.randrange(1, len(whole))]


def garbage(rng: random.Random, event: dict[str, Any]) -> bytes:
    return b"\x00" + rng.randbytes(rng.randrange(200))


def twice_the_last_bad(rng: random.Random, event: dict[str, Any]) -> bytes:
    return msgspec.json.encode(event)[:-1] + b',"exposure_ms":"nine"}'


def invalid_utf8(rng: random.Random, event: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**event, "operator": "X"}).replace(b'"X"', b'"' + rng.choice([b"\xff", b"\xc3"]) + b'"')


def future(rng: random.Random, event: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**event, "captured_at": event["captured_at"] + rng.randrange(10**7, 10**10)})


KINDS: dict[str, tuple[Make, str | None, str]] = {
    "truncated": (truncated, None, "no JSON"),
    "garbage": (garbage, None, "no JSON"),
    "empty": (lambda rng, event: b"", None, "no JSON"),
    "two objects": (lambda rng, event: 2 * msgspec.json.encode(event), None, "no JSON"),
    "half of two": (lambda rng, event: msgspec.json.encode(event)[:-1] + b"},{", None, "no JSON"),
    "array": (lambda rng, event: msgspec.json.encode([event]), None, "a JSON object is expected"),
    "scalar": (lambda rng, event: rng.choice([b"7", b'"x"', b"null", b"true"]), None, "a JSON object is expected"),
    "deep": (lambda rng, event: b'{"a":' + b"[" * rng.randrange(2000, 9000), None, "no JSON"),
    "deep within": (text("more", "[" * 5000 + "]" * 5000), None, "no JSON"),
    "invalid UTF-8": (invalid_utf8, None, "no JSON"),
    "NaN": (text("exposure_ms", "NaN", "Infinity", "-Infinity", "nan"), None, "no JSON"),
    "no number of a float": (text("exposure_ms", "1e999", "-1e999"), None, "no JSON"),
    "leading zero": (text("shift", "01", "+1", "1.", ".5"), None, "no JSON"),
    "lone surrogate": (text("operator", '"\\ud800"', '"\\udfff"'), None, "no JSON"),
    "control character": (text("operator", '"\x01"', '"\n"'), None, "no JSON"),
    "huge number": (text("exposure_ms", "9" * 400, "1e200", "-1e151"), "exposure_ms", "is not between"),
    "huge whole number": (text("shift", str(2**63), str(-(2**70)), "9" * 300), "shift", "too large"),
    "thousands of digits": (text("event_id", "9" * 4000), "event_id", "characters"),
    "wrong type": (encoded(exposure_ms="8.5"), "exposure_ms", "a number is expected"),
    "truth for a number": (encoded(exposure_ms=True), "exposure_ms", "a number is expected"),
    "list for a number": (encoded(exposure_ms=[1.0]), "exposure_ms", "a number is expected"),
    "fraction": (encoded(shift=1.5), "shift", "a whole number is expected"),
    "number for a truth": (encoded(rework=1), "rework", "true or false is expected"),
    "object for a string": (encoded(operator={"a": 1}), "operator", "a string is expected"),
    "below": (encoded(exposure_ms=-0.001), "exposure_ms", "is below"),
    "above": (encoded(exposure_ms=1000.001), "exposure_ms", "is above"),
    "duplicate key": (twice_the_last_bad, "exposure_ms", "a number is expected"),
    "missing": (without("exposure_ms"), "exposure_ms", "is required"),
    "null": (encoded(exposure_ms=None), "exposure_ms", "is required"),
    "no entity": (without("station"), "station", "is required"),
    "empty entity": (encoded(station=""), "station", "characters"),
    "long entity": (encoded(station="x" * 513), "station", "characters"),
    "number for an entity": (encoded(station=7), "station", "a string is expected"),
    "no id": (without("event_id"), "event_id", "is required"),
    "no time": (without("captured_at"), "captured_at", "is required"),
    "future": (future, "captured_at", "after its arrival"),
    "before 1970": (encoded(captured_at=-1), "captured_at", "not in the years"),
    "local time": (encoded(captured_at="2026-10-01T10:00:00"), "captured_at", "ISO 8601"),
    "no time at all": (encoded(captured_at="yesterday"), "captured_at", "ISO 8601"),
    "no base64": (encoded(image="%%%"), "image", "base64"),
    "no picture": (encoded(image="R0lGODlh"), "image", "no picture"),
    "other keys": (lambda rng, event: msgspec.json.encode({f"x{key}": 1 for key in event}), "station", "is required"),
}
"""Name, how to make it, and the field and reason that it must be quarantined with."""
LARGE = 20
"""Values of one to three MiB, of which quarantine keeps the place alone."""


def large(rng: random.Random, event: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**event, "operator": "x" * rng.randrange(MIB, 3 * MIB), "exposure_ms": "bad"})


def test_ten_thousand_malformed_payloads_are_quarantined_with_their_reason_and_no_good_one_is_lost(site: Site) -> None:
    rng = random.Random(SEED)
    kinds = [*(list(KINDS) * (BAD // len(KINDS) + 1))[: BAD - LARGE], *["large"] * LARGE, *["good"] * GOOD]
    rng.shuffle(kinds)
    now = to_ms(SystemClock().now())
    sent: dict[bytes, str] = {}

    def values() -> Any:
        for number, kind in enumerate(kinds):
            station = rng.choice("ABD")
            event = {"station": station, "event_id": f"e{number}", "captured_at": now, "exposure_ms": rng.random()}
            make = {"good": encoded(), "large": large}.get(kind) or KINDS[kind][0]
            sent[key := f"{number}".encode()] = kind
            yield key.decode(), make(rng, event)

    site.send_values(values())
    good = sorted(f"e{number}" for number, kind in enumerate(kinds) if kind == "good")
    tracemalloc.start()
    try:
        with site.worker():
            eventually(lambda: len(quarantined(site)) == BAD and len(site.ids()) == GOOD, 180, every_s=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert site.ids() == good
    told: Counter[str] = Counter()
    for key, field, reason, truncated_, value in quarantined(site):
        kind = sent[key]
        expected = KINDS.get(kind, (None, "exposure_ms", "a number is expected"))
        assert (field, expected[2] in reason) == (expected[1], True), f"{kind}: {field}: {reason}"
        assert (truncated_, value == b"") == (kind == "large", kind in {"large", "empty"})
        told[kind] += 1
    assert told == Counter(kind for kind in kinds if kind != "good")
    assert len({(record.source, record.offset) for record in site.read("quarantine", Quarantined)}) == BAD
    site.check_rows()
    print(f"peak of Python objects: {peak / MIB:.0f} MiB")
    assert peak < MAX_PEAK


def quarantined(site: Site) -> list[tuple[Any, ...]]:
    table = quarantine_table(site.lake, site.resource)
    if not table.exists:
        return []
    return table.scan().select("key", "field", "reason", "truncated", "value").collect().rows()

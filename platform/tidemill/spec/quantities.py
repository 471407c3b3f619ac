"""Quantities as people write them: durations (`10m`), rates (`1 per 30d`)."""

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from tidemill.core.clock import to_ms

__all__ = ["Duration", "Rate", "format_duration", "parse_duration"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_LONGEST = 40
"""Characters of a duration."""


def parse_duration(text: Any) -> timedelta:
    """`1h30m` as a timedelta. Raises ValueError with an example for anything else."""
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or len(text) > _LONGEST or not _DURATION.fullmatch(text):
        raise ValueError(f"a duration such as 30s, 10m or 1h30m (units ms, s, m, h, d), not {text!r}")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))
    except OverflowError as error:
        raise ValueError(f"a duration of at most {timedelta.max.days}d, not {text!r}") from error


def format_duration(duration: timedelta) -> str:
    """A timedelta as it would be written: the largest units first, exact to a millisecond."""
    left = to_ms(duration)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_UNITS[unit] * 1000)
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_DURATION.pattern}$",
            "maxLength": _LONGEST,
            "examples": ["30s", "10m", "1h30m"],
        }
    ),
]


@dataclass(frozen=True)
class Rate:
    """A number of events in a period, written `1 per 30d`."""

    count: float
    per: timedelta

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.count:g} per {format_duration(self.per)}"

    @classmethod
    def parse(cls, text: Any) -> "Rate":
        """`1 per 30d` as a Rate; raises ValueError with an example for anything else."""
        if isinstance(text, Rate):
            return text
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) per (\S+)", text) if isinstance(text, str) else None
        if match is None or not 0 < float(match[1]) < math.inf:
            raise ValueError(f"a rate such as '1 per 30d', not {text!r}")
        per = parse_duration(match[2])
        if not per:
            raise ValueError(f"a rate over some time, such as '1 per 30d', not {text!r}")
        return cls(float(match[1]), per)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate from text, serialise to text."""
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A string with a pattern."""
        return {
            "type": "string",
            "pattern": rf"^[0-9]+(\.[0-9]+)? per {_DURATION.pattern}$",
            "maxLength": 2 * _LONGEST,
            "examples": ["1 per 30d"],
        }

"""What people ask of a model by annotation, made the same requests that the CLI sends. Pure.

    kubectl annotate ctm inspection tidemill.dev/retrain='{"id": "2026-11-26-a", "reason": "new camera"}'

The value is JSON, or `<id>` or `<id> <reason>` as plain text. The id is what makes a repeat harmless: the same one
under the same annotation is one request for ever; a new one is a new request.
"""

import json
import re
from typing import Any, Literal, get_args

import msgspec

from tidemill.cluster import Manifest
from tidemill.core.errors import InvalidInput
from tidemill.events.records import Request

__all__ = ["PREFIX", "Asked", "Kind", "annotation", "asked_in", "request_of"]

PREFIX = "tidemill.dev/"

Kind = Literal["retrain", "abort", "pause", "resume", "approve", "promote", "revert"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST = 1000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation that asks for something, read."""

    kind: Kind
    id: str
    reason: str = ""
    by: str = ""
    arguments: dict[str, str | bool] = {}


def annotation(asked: Asked) -> tuple[str, str]:
    """Name and value of the annotation that asks for this."""
    said: dict[str, Any] = {"id": asked.id, "reason": asked.reason, "by": asked.by, **asked.arguments}
    return PREFIX + asked.kind, json.dumps({name: value for name, value in said.items() if value})


def asked_in(manifest: Manifest) -> tuple[list[Asked], list[str]]:
    """What is asked in an object's annotations, and what cannot be read of it, in words.

    Whether it has been answered is not looked at.
    """
    found, problems = [], []
    for kind in get_args(Kind):
        text = manifest["metadata"].get("annotations", {}).get(PREFIX + kind)
        if text is None:
            continue
        try:
            found.append(_read(kind, text))
        except InvalidInput as error:
            problems.append(f"annotation {PREFIX}{kind}: {error.message}")
    return found, problems


def request_of(asked: Asked, manifest: Manifest, *, model: str, now_ms: int) -> Request:
    """The request that an annotation stands for; the same one for the same annotation of the same object."""
    arguments: dict[str, str | int | float | bool | None] = {"reason": asked.reason}
    if asked.kind == "retrain":
        arguments |= {
            "force": bool(asked.arguments.get("force")),
            "skip_gates": bool(asked.arguments.get("skip_gates")),
        }
        arguments["snapshot"] = str(asked.arguments.get("snapshot", ""))
    uid = manifest["metadata"]["uid"]
    return Request(
        request_id=f"annotation-{uid}-{asked.kind}-{asked.id}",
        kind=asked.kind,
        model=model,
        time=now_ms,
        by=asked.by or "annotation",
        arguments=arguments,
    )


def _read(kind: Kind, text: str) -> Asked:
    if len(text) > _LONGEST:
        raise InvalidInput(f"{len(text):,} characters; at most {_LONGEST:,}")
    said = _json(text) if text.lstrip().startswith("{") else _plain(text)
    name = said.pop("id", None)
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise InvalidInput("it needs an id of letters, digits, dots, dashes and _: a repeat is known by it")
    texts = {key: said.pop(key, "") for key in ("reason", "by")}
    known = {"force": bool, "skip_gates": bool, "snapshot": str} if kind == "retrain" else {}
    for key, value in (*texts.items(), *said.items()):
        if key not in {*texts, *known}:
            raise InvalidInput(
                f"unknown key {key[:60]!r}; expected id, reason, by{''.join(f', {one}' for one in known)}"
            )
        if not isinstance(value, known.get(key, str)):
            raise InvalidInput(f"{key} must be {'true or false' if known.get(key) is bool else 'text'}")
    return Asked(kind=kind, id=name, reason=texts["reason"], by=texts["by"], arguments=said)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"no JSON: {error}") from error
    return dict(found)


def _plain(text: str) -> dict[str, Any]:
    name, _, reason = text.strip().partition(" ")
    return {"id": name, "reason": reason.strip()}

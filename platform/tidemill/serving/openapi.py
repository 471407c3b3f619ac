"""The server's OpenAPI document: KServe's, with predict requests as this model takes them."""

import re
from typing import Any

import msgspec

from tidemill.serving.model import Requests
from tidemill.serving.v2 import REQUEST

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
_REPLACED = re.compile(r":predict|:explain|/infer|/repository/")
_ERROR: dict[str, Any] = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_REFUSED = {
    "400": "The request does not fit; the error names row and field.",
    "404": "There is no such model or version here.",
    "405": "Another method is taken here.",
    "408": "The request has not come in time.",
    "413": "The request is too large.",
    "415": "The body is compressed.",
    "500": "The model could not answer.",
    "503": "Too many requests at once.",
}


def describe(document: dict[str, Any], requests: Requests) -> dict[str, Any]:
    """KServe's document with the predict paths of `requests`, and its errors in their form."""
    (rows, body), schemas = msgspec.json.schema_components([requests.reader.type, REQUEST], ref_template=_REF)
    kept = {
        path.replace("{model_name}", requests.name): one
        for path, one in document["paths"].items()
        if not _REPLACED.search(path)
    }
    document["paths"] = kept
    document["info"] = {"title": f"{requests.name} {requests.version}", "version": requests.version}
    for one in kept.values():
        for operation in one.values():
            operation["responses"] |= {"404": _refusal("404"), "400": _refusal("400")}
            operation["responses"].pop("422", None)
            operation.pop("parameters", None)
    v1 = {"type": "object", "properties": {"instances": rows}, "required": ["instances"]}
    kept[f"/v1/models/{requests.name}:predict"] = _operation("V1", v1, "predictions")
    kept[f"/v2/models/{requests.name}/infer"] = _operation("V2", body, "outputs")
    document.setdefault("components", {}).setdefault("schemas", {}).update({**schemas, "Error": _ERROR})
    return document


def _operation(tag: str, schema: dict[str, Any], answers: str) -> dict[str, Any]:
    answer = {"type": "object", "properties": {answers: {"type": "array"}}, "required": [answers]}
    return {
        "post": {
            "tags": [tag],
            "summary": "Answer rows.",
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "200": {"description": "An answer for each row.", "content": {"application/json": {"schema": answer}}},
                **{status: _refusal(status) for status in _REFUSED},
            },
        }
    }


def _refusal(status: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}}
    return {"description": _REFUSED[status], "content": content}

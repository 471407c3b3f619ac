"""The V2 protocol (Open Inference Protocol): a request's bytes to columns, columns to a response's bytes.

JSON, and the extension of binary tensors: JSON first, as long as the header `inference-header-content-length` says,
then the tensors' bytes in the order of their `binary_data_size`. KServe's own reading is not used: it takes 4.7 for an
INT64, tensors that are shorter than announced, the same input twice, and answers what it cannot read with a 500.
"""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from tidemill.core.errors import InvalidInput
from tidemill.serving.rows import MAX_ROWS

__all__ = ["EXTENSION", "HEADER_LENGTH", "MAX_ID", "REQUEST", "Column", "V2Request", "read", "write"]

EXTENSION = "binary_tensor_data"
"""The protocol's name for binary tensors."""
HEADER_LENGTH = "inference-header-content-length"
"""Header of requests and responses with binary tensors: bytes of the JSON in front."""
MAX_ID = 512
_LONGEST_NUMBER = 64
"""Bytes of a number in JSON, with what is around it; what is longer is not read."""
_NESTED = re.compile(rb"\s*\[\s*\[")
"""Characters of a request's id."""
_NOT_IN_JSON = "FP16"
Datatype = Literal[
    "BOOL", "BYTES", "FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"
]
_DTYPES = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_DTYPES |= {f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)}
_DTYPES |= {f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)}


def _lists(datatype: str) -> tuple[Any, Any]:
    """Types of `data` of shape [n], and of [n, 1]."""
    kind: Any = {"BOOL": bool, "BYTES": str}.get(datatype, float)
    if "INT" in datatype:
        limits = np.iinfo(_DTYPES[datatype])
        kind = Annotated[int, msgspec.Meta(ge=int(limits.min), le=min(int(limits.max), 2**63 - 1))]
    return list[kind], list[Annotated[list[kind], msgspec.Meta(min_length=1, max_length=1)]]


_LISTS = {datatype: _lists(datatype) for datatype in ("BYTES", *_DTYPES) if datatype != _NOT_IN_JSON}


class _Parameters(msgspec.Struct):
    """Those that are understood; others are ignored."""

    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    binary_data: bool | None = None
    binary_data_output: bool | None = None


class _Input(msgspec.Struct):
    """One tensor."""

    name: str
    datatype: Datatype
    shape: list[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    """Read once its shape is known; `null` is none."""
    parameters: _Parameters | None = None


class _Output(msgspec.Struct):
    """One that is wanted."""

    name: str
    parameters: _Parameters | None = None


class _Body(msgspec.Struct):
    """A request."""

    inputs: list[_Input]
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


class V2Request(NamedTuple):
    """What was asked: values of each input by its name, and which outputs are wanted, each in binary or not."""

    id: str | None
    columns: dict[str, list[Any]]
    """Texts of binary tensors are bytes, of others str."""
    outputs: dict[str, bool]


class Column(NamedTuple):
    """One output: its datatype (`BYTES` or `FP64`), its shape, and its values row by row."""

    datatype: Literal["BYTES", "FP64"]
    shape: list[int]
    values: Sequence[Any]


REQUEST: Any = _Body
"""Type of a request's JSON, for its schema."""
_DECODER = msgspec.json.Decoder(_Body)


def read(body: bytes, json_length: str | None, outputs: Sequence[str]) -> V2Request:
    """A request's columns.

    Args:
        body: all of it.
        json_length: the header `HEADER_LENGTH`, where there is one.
        outputs: names of the outputs that there are.

    Raises:
        InvalidInput: it is none; the message says where.
    """
    head, tail = _split(body, json_length)
    try:
        found = _DECODER.decode(head)
    except msgspec.ValidationError as error:
        raise InvalidInput(_place(str(error))) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"the request is no JSON: {error}") from error
    columns: dict[str, list[Any]] = {}
    for one in found.inputs:
        if one.name in columns:
            raise InvalidInput(f"input {one.name} is there twice")
        values, tail = _values(one, tail)
        columns[one.name] = values
    if tail:
        raise InvalidInput(f"{len(tail)} bytes are left after the tensors; each needs its binary_data_size")
    return V2Request(found.id, columns, _wanted(found, outputs))


def write(request: V2Request, head: Mapping[str, Any], columns: Mapping[str, Column]) -> tuple[bytes, int | None]:
    """The response's bytes and, where tensors in it are binary, the length of the JSON in front.

    Args:
        request: whose outputs are wanted.
        head: the response's own fields.
        columns: all outputs.
    """
    outputs, tensors = [], []
    for name, is_binary in request.outputs.items():
        datatype, shape, values = columns[name]
        told: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if is_binary:
            tensors.append(_packed(datatype, values))
            told["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            told["data"] = values
        outputs.append(told)
    text = msgspec.json.encode({**head, "outputs": outputs})
    return b"".join((text, *tensors)), len(text) if tensors else None


def _split(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    is_number = json_length.isascii() and json_length.isdigit() and len(json_length) <= 20
    if not is_number or int(json_length) > len(body):
        raise InvalidInput(f"{HEADER_LENGTH}: {json_length[:20]} is not a length within {len(body)} bytes")
    return body[: int(json_length)], body[int(json_length) :]


def _values(one: _Input, tail: bytes) -> tuple[list[Any], bytes]:
    """The values of an input, and the bytes that are left."""
    if len(one.shape) not in {1, 2} or one.shape[1:] not in ([], [1]):
        raise InvalidInput(f"input {one.name}: the shape should be [n] or [n, 1], not {one.shape}")
    if math.prod(one.shape) > MAX_ROWS:  # before any of them is read
        raise InvalidInput(f"{math.prod(one.shape)} rows in one request; at most {MAX_ROWS} are taken")
    size = one.parameters.binary_data_size if one.parameters else None
    if (bytes(one.data) in {b"", b"null"}) == (size is None):
        raise InvalidInput(f"input {one.name}: needs data, or else a parameter binary_data_size")
    if size is None:
        return _of_json(one), tail
    if size > len(tail):
        raise InvalidInput(f"input {one.name}: {size} bytes are announced, and {len(tail)} are there")
    return _of_bytes(one, tail[:size]), tail[size:]


def _of_json(one: _Input) -> list[Any]:
    if one.datatype == _NOT_IN_JSON:
        raise InvalidInput(f"input {one.name}: {_NOT_IN_JSON} is taken in binary tensors only")
    given = bytes(one.data)
    if one.datatype != "BYTES" and len(given) > _LONGEST_NUMBER * (1 + math.prod(one.shape)):
        raise InvalidInput(f"input {one.name}: its data are longer than any {math.prod(one.shape)} numbers")
    is_nested = _NESTED.match(given) is not None
    try:
        found: list[Any] = msgspec.json.decode(given, type=_LISTS[one.datatype][is_nested])
    except msgspec.ValidationError as error:
        raise InvalidInput(f"input {one.name}, {one.datatype}: {_place(str(error), 'data')}") from error
    return _counted(one, [value for (value,) in found] if is_nested else found)


def _of_bytes(one: _Input, content: bytes) -> list[Any]:
    if one.datatype == "BYTES":
        return _counted(one, _texts(one, content))
    dtype = np.dtype(_DTYPES[one.datatype])
    if len(content) % dtype.itemsize:
        raise InvalidInput(f"input {one.name}: {len(content)} bytes are no whole number of {one.datatype}")
    return _counted(one, np.frombuffer(content, dtype).tolist())


def _texts(one: _Input, content: bytes) -> list[bytes]:
    """Each with its length in four bytes in front."""
    found, at = [], 0
    while at < len(content):
        if at + 4 > len(content):
            raise InvalidInput(f"input {one.name}: it ends within the length of an element")
        (length,) = struct.unpack_from("<I", content, at)
        at += 4 + length
        if at > len(content):
            raise InvalidInput(f"input {one.name}: an element of {length} bytes ends outside the tensor")
        found.append(content[at - length : at])
    return found


def _counted(one: _Input, values: list[Any]) -> list[Any]:
    if len(values) != math.prod(one.shape):
        raise InvalidInput(f"input {one.name}: the shape is {one.shape}, and there are {len(values)} elements")
    return values


def _wanted(found: _Body, outputs: Sequence[str]) -> dict[str, bool]:
    """All outputs, unless some are named; each in binary, where it or the request says so."""
    default = bool(found.parameters and found.parameters.binary_data_output)
    if not found.outputs:
        return dict.fromkeys(outputs, default)
    wanted = {}
    for one in found.outputs:
        if one.name not in outputs:
            raise InvalidInput(f"there is no output {one.name[:100]!r}; there are {', '.join(outputs)}")
        own = one.parameters.binary_data if one.parameters else None
        wanted[one.name] = default if own is None else own
    return wanted


def _packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "FP64":
        return np.asarray(values, "<f8").tobytes()
    encoded = [value.encode() for value in values]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))


def _place(message: str, root: str = "") -> str:
    """A message of msgspec with the place in front: "inputs[2].shape: Expected `array`, got `int`"."""
    what, _, where = message.partition(" - at `$")
    place = root + where.removesuffix("`") if root else where.removesuffix("`").removeprefix(".")
    return f"{place}: {what}" if place else what

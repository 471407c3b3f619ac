"""V2 in bytes: what is one is read exactly, what is none is refused with its place, whatever the bytes are."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.serving.v2 import Column, read, write

OUTPUTS = ("class", "confidence")


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def tensor(datatype: str = "FP64", data: Any = None, shape: Any = None, size: int | None = None) -> dict[str, Any]:
    """An input named x, of as many elements as there are."""
    found: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [len(data or [])] if shape is None else shape}
    return found | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})


def column(content: bytes, json_length: int | None = None) -> list[Any]:
    return read(content, None if json_length is None else str(json_length), OUTPUTS).columns["x"]


def in_binary(datatype: str, content: bytes, shape: list[int]) -> list[Any]:
    head = body(tensor(datatype, shape=shape, size=len(content)))
    return column(head + content, len(head))


def refused(content: bytes, json_length: str | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(content, json_length, OUTPUTS)
    return caught.value.message


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP64", [0.5, -2.0]),
        ("FP32", [0.5, -2.0]),
        ("INT8", [-128, 127]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT16", [0, 65535]),
        ("BOOL", [True, False]),
    ],
)
def test_numbers_are_the_same_in_json_and_in_binary(datatype: str, values: list[Any]) -> None:
    dtype = {"FP64": "<f8", "FP32": "<f4", "INT8": "i1", "INT64": "<i8", "UINT16": "<u2", "BOOL": "?"}[datatype]
    assert column(body(tensor(datatype, values))) == values
    assert column(body(tensor(datatype, [[one] for one in values], [2, 1]))) == values
    assert in_binary(datatype, np.array(values, dtype).tobytes(), [2]) == values


def test_texts_of_binary_tensors_are_bytes() -> None:
    content = b"".join(struct.pack("<I", len(one)) + one for one in (b"A", b"", b"\xff"))
    assert in_binary("BYTES", content, [3]) == [b"A", b"", b"\xff"]


def test_a_number_of_half_precision_comes_in_binary_alone() -> None:
    assert in_binary("FP16", np.array([0.5], "<f2").tobytes(), [1]) == [0.5]
    assert "binary tensors only" in refused(body(tensor("FP16", [0.5])))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (tensor("INT64", [4.7]), "input x, INT64: data[0]: Expected `int`, got `float`"),
        (tensor("INT8", [400]), "input x, INT8: data[0]: Expected `int` <= 127"),
        (tensor("UINT8", [-1]), "input x, UINT8: data[0]: Expected `int` >= 0"),
        (tensor("FP64", [True]), "input x, FP64: data[0]: Expected `float`, got `bool`"),
        (tensor("FP64", ["4"]), "input x, FP64: data[0]: Expected `float`, got `str`"),
        (tensor("BYTES", [4]), "input x, BYTES: data[0]: Expected `str`, got `int`"),
        (tensor("FP64", [10**400]), "longer than any 1 numbers"),
        (tensor("FP64", [1.0], [2]), "the shape is [2], and there are 1 elements"),
        (tensor("FP64", [1.0], [10**15]), "at most 1000 are taken"),
        (tensor("FP64", [1.0], [2**62, 1]), "at most 1000 are taken"),
        (tensor("FP64", [1.0], [-1]), "inputs[0].shape[0]: Expected `int` >= 0"),
        (tensor("FP64", [1.0], []), "the shape should be [n] or [n, 1], not []"),
        (tensor("FP64", [1.0], [1, 3]), "the shape should be [n] or [n, 1], not [1, 3]"),
        (tensor("FP64", [[1.0], [2.0, 3.0]], [2]), "data[1]: Expected `array` of length <= 1"),
        (tensor("FP64", [1.0], size=8), "input x: 8 bytes are announced, and 0 are there"),
        (tensor("FP64", size=-8), "binary_data_size: Expected `int` >= 0"),
        (tensor("FP64"), "input x: needs data, or else a parameter binary_data_size"),
        (tensor("BF16", [1.0]), "inputs[0].datatype: Invalid enum value 'BF16'"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_with_its_place(one: dict[str, Any], said: str) -> None:
    assert said in refused(body(one))


def test_an_input_may_not_come_twice() -> None:
    assert refused(body(tensor(data=[1.0]), tensor(data=[2.0]))) == "input x is there twice"


@pytest.mark.parametrize("length", ["-1", "x", "1000", "9" * 5000, "", "٣"])
def test_a_length_of_the_json_that_lies_is_refused(length: str) -> None:
    assert "is not a length within" in refused(body(tensor(data=[1.0])), length)


@pytest.mark.parametrize(
    ("datatype", "content", "shape", "said"),
    [
        ("FP64", b"1234567", [1], "7 bytes are no whole number of FP64"),
        ("FP64", b"12345678", [2], "the shape is [2], and there are 1 elements"),
        ("BYTES", b"\x01\x00", [1], "ends within the length of an element"),
        ("BYTES", b"\xff\xff\xff\xffab", [1], "an element of 4294967295 bytes ends outside the tensor"),
    ],
)
def test_a_binary_tensor_that_does_not_fit_is_refused(
    datatype: str, content: bytes, shape: list[int], said: str
) -> None:
    head = body(tensor(datatype, shape=shape, size=len(content)))
    assert said in refused(head + content, str(len(head)))


def test_bytes_that_no_tensor_claims_are_refused() -> None:
    head = body(tensor(data=[1.0]))
    assert "3 bytes are left after the tensors" in refused(head + b"abc", str(len(head)))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"inputs": 5}', b'{"id": "\\ud800", "inputs": []}'],
)
def test_what_is_no_request_is_refused(content: bytes) -> None:
    assert refused(content)


def test_an_output_that_there_is_not_is_refused_before_anything_is_answered() -> None:
    said = refused(body(tensor(data=[1.0]), outputs=[{"name": "box"}]))
    assert said == "there is no output 'box'; there are class, confidence"


def test_outputs_are_those_that_are_wanted_and_as_they_are_wanted() -> None:
    wanted = [{"name": "confidence"}, {"name": "class", "parameters": {"binary_data": False}}]
    asked = read(body(tensor(data=[1.0]), outputs=wanted, parameters={"binary_data_output": True}), None, OUTPUTS)
    columns = {"class": Column("BYTES", [1], ["ok"]), "confidence": Column("FP64", [1], [0.75])}
    content, length = write(asked, {"id": "1"}, columns)
    assert json.loads(content[:length]) == {
        "id": "1",
        "outputs": [
            {"name": "confidence", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}},
            {"name": "class", "datatype": "BYTES", "shape": [1], "data": ["ok"]},
        ],
    }
    assert content[length:] == struct.pack("<d", 0.75)


def test_texts_go_out_in_binary_with_their_lengths() -> None:
    asked = read(
        body(tensor(data=[1.0]), outputs=[{"name": "class", "parameters": {"binary_data": True}}]), None, OUTPUTS
    )
    content, length = write(asked, {}, {"class": Column("BYTES", [2], ["ä", ""])})
    assert content[length:] == b"\x02\x00\x00\x00\xc3\xa4\x00\x00\x00\x00"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "data", "shape"]), inner),
    max_leaves=8,
)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "datatype": st.sampled_from(["FP64", "BYTES", "INT8", "FP16"]) | JSON,
        "shape": st.lists(st.integers(0, 3), max_size=2) | JSON,
        "data": st.lists(st.floats() | st.text(max_size=2), max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | JSON}) | JSON,
    },
)


@given(
    inputs=st.lists(INPUT, max_size=2) | JSON,
    more=st.dictionaries(st.sampled_from(["id", "outputs"]), JSON),
    tail=st.binary(max_size=20),
    lie=st.integers(-3, 3),
)
def test_whatever_comes_is_read_or_refused(inputs: Any, more: dict[str, Any], tail: bytes, lie: int) -> None:
    head = json.dumps({"inputs": inputs} | more).encode()
    try:
        found = read(head + tail, str(len(head) + lie), OUTPUTS)
    except InvalidInput:
        return
    assert all(isinstance(values, list) for values in found.columns.values())


def test_what_is_longer_than_its_shape_allows_is_refused_before_it_is_read() -> None:
    body = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[' + b"[1]," * 100_000 + b"[1]]}]}"
    with pytest.raises(InvalidInput, match="longer than any 1 numbers"):
        read(body, None, ())


def test_more_rows_than_are_taken_are_refused_by_the_shape() -> None:
    body = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1001],"data":[]}]}'
    with pytest.raises(InvalidInput, match="1001 rows in one request; at most 1000"):
        read(body, None, ())


def test_a_length_of_too_many_digits_is_no_length() -> None:
    with pytest.raises(InvalidInput, match="is not a length"):
        read(b"{}", "0" * 20 + "9" * 5000, ())

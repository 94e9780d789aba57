"""V2 inference bodies to arrays and back, and compressed bodies."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from artifact.errors import InputError
from artifact.manifest import Axis, TensorSpec
from serve.errors import (
    BodyTooLarge,
    InvalidInput,
    MalformedBody,
    NotAcceptable,
    NotSupported,
    RequestError,
    UnsupportedMediaType,
)
from serve.inflate import PIECE, inflate, read_encoding
from serve.v2 import HEADER_LENGTH, InferRequest, decode_request, encode_response
from serve.v2_tensors import DATATYPES

NAMES = ("batch", "time", "channel", "feature")


def spec(
    name: str = "neural", dtype: str = "float32", sizes: tuple[int | None, ...] = (3, 2)
) -> TensorSpec:
    axes = (Axis("batch"), *map(Axis, NAMES[1:], sizes))
    return TensorSpec(name, dtype, axes, "", "")


ONE = (spec(),)
OUT = (spec("forecast", sizes=(3,)), spec("score", sizes=()))
WINDOW = np.arange(6, dtype=np.float32).reshape(1, 3, 2) / 7


def item(array: np.ndarray, name: str = "neural", **changes: Any) -> dict[str, Any]:
    """An item of `inputs` that announces binary data."""
    made = {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[array.dtype.name][0],
        "parameters": {"binary_data_size": array.nbytes},
    }
    return {key: value for key, value in (made | changes).items() if value is not ...}


def binary(document: dict[str, Any], *blobs: bytes) -> tuple[bytes, str]:
    head = orjson.dumps(document)
    return head + b"".join(blobs), str(len(head))


def ask(document: dict[str, Any], *blobs: bytes, inputs: Any = ONE) -> InferRequest:
    """Decode a document with blobs behind it; without the header where there are none."""
    body, size = binary(document, *blobs)
    return decode_request(body, size if blobs else None, inputs, OUT)


def ask_values(values: Any, shape: list[int], one: TensorSpec = ONE[0]) -> np.ndarray:
    document = {
        "name": one.name,
        "shape": shape,
        "datatype": DATATYPES[one.dtype][0],
        "data": values,
    }
    return ask({"inputs": [document]}, inputs=(one,)).inputs[one.name]


def test_a_binary_input_is_a_view_of_the_body() -> None:
    body, size = binary({"inputs": [item(WINDOW)]}, WINDOW.tobytes())
    request = decode_request(body, size, ONE, OUT)
    array = request.inputs["neural"]
    assert array.tobytes() == WINDOW.tobytes()
    assert (array.shape, array.dtype) == (WINDOW.shape, WINDOW.dtype)
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    assert (request.id, request.timeout) == (None, None)


def test_binary_and_json_inputs_may_be_mixed() -> None:
    mask = np.array([[True, False, True]])
    inputs = (spec(), spec("mask", "bool", (3,)), spec("behavior", "int64", (2,)))
    behavior = np.array([[-1, 2**62]])
    document = {
        "inputs": [
            item(behavior, "behavior"),
            item(mask, "mask", parameters=..., data=mask.reshape(-1).tolist()),
            item(WINDOW),
        ],
        "id": "a",
        "parameters": {"timeout": 1500, "priority": 0, "mine": "x", "binary_data_output": True},
    }
    request = ask(document, behavior.tobytes(), WINDOW.tobytes(), inputs=inputs)
    for name, array in (("mask", mask), ("behavior", behavior), ("neural", WINDOW)):
        assert request.inputs[name].tobytes() == array.tobytes()
    assert (request.id, request.timeout) == ("a", 0.0015)
    assert request.outputs == {"forecast": True, "score": True}


@pytest.mark.parametrize("values", [WINDOW.tolist(), WINDOW.reshape(-1).tolist()])
def test_json_data_are_flat_or_nested(values: list[Any]) -> None:
    assert ask_values(values, [1, 3, 2]).tobytes() == WINDOW.tobytes()


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({}, {"forecast": False, "score": False}),
        ({"outputs": []}, {"forecast": False, "score": False}),
        ({"outputs": None}, {"forecast": False, "score": False}),
        ({"parameters": {"timeout": 1}}, {"forecast": False, "score": False}),
        (
            {"parameters": {"binary_data_output": True}},
            {"forecast": True, "score": True},
        ),
        ({"outputs": [{"name": "score"}]}, {"score": False}),
        (
            {
                "outputs": [
                    {"name": "score", "parameters": {"binary_data": True}},
                    {"name": "forecast"},
                ],
                "parameters": {"binary_data_output": True},
            },
            {"score": True, "forecast": False},
        ),
    ],
)
def test_which_outputs_are_wanted_and_how(
    document: dict[str, Any], wanted: dict[str, bool]
) -> None:
    request = ask({"inputs": [item(WINDOW)], **document}, WINDOW.tobytes())
    assert list(request.outputs.items()) == list(wanted.items())


def test_empty_tensors_are_read_and_left_to_the_model() -> None:
    empty = WINDOW[:0]
    request = ask({"inputs": [item(empty)]})
    assert request.inputs["neural"].shape == (0, 3, 2)
    assert ask_values([], [0, 3, 2]).shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        *((text, "must be a decimal number") for text in ("-1", "+5", " 5", "5 ", "1_0", "", "x")),
        *((text, "must be a decimal number") for text in ("٣", "²", "0x10", "1e2", "1" * 20)),
        ("100000", "the body has only"),
        ("20", "not JSON"),
    ],
)
def test_header_lengths(length: str, text: str) -> None:
    body, _ = binary({"inputs": [item(WINDOW)]}, WINDOW.tobytes())
    with pytest.raises(MalformedBody, match=text):
        decode_request(body, length, ONE, OUT)


def test_a_forgotten_header_is_hinted_at() -> None:
    body, size = binary({"inputs": [item(WINDOW)]}, WINDOW.tobytes())
    with pytest.raises(MalformedBody, match=HEADER_LENGTH):
        decode_request(body, None, ONE, OUT)
    with pytest.raises(InvalidInput, match="only 0 bytes are left in the body"):
        decode_request(body[: int(size)], None, ONE, OUT)


def test_sizes_must_fit_exactly() -> None:
    body, size = binary({"inputs": [item(WINDOW)]}, WINDOW.tobytes())
    with pytest.raises(InvalidInput, match="is 24, but only 23 bytes are left"):
        decode_request(body[:-1], size, ONE, OUT)
    with pytest.raises(MalformedBody, match="holds 1 bytes beyond the tensors"):
        decode_request(body + b"\0", size, ONE, OUT)
    document = orjson.dumps({"inputs": [item(WINDOW, parameters=..., data=[0.0] * 6)]})
    with pytest.raises(MalformedBody, match="holds 2 bytes beyond the tensors"):
        decode_request(document + b"\0\0", str(len(document)), ONE, OUT)


WRONG: list[tuple[dict[str, Any], type[RequestError], str]] = [
    ({"name": "other"}, InvalidInput, r"inputs\[0\].name: 'other' is unknown; there are neural"),
    ({"name": 1}, MalformedBody, r"inputs\[0\].name: must be text, is the number 1"),
    ({"name": ...}, MalformedBody, r"inputs\[0\].name: must be text, is null"),
    ({"name": ["neural"]}, MalformedBody, "must be text, is a list"),
    ({"shape": [1, 3]}, InvalidInput, "shape has 2 axes; must have 3"),
    ({"shape": [1, 3, -2]}, InvalidInput, "shape holds the number -2"),
    ({"shape": [1, 3, True]}, InvalidInput, "shape holds a boolean"),
    ({"shape": [1, 3, 2.0]}, InvalidInput, "shape holds the number 2.0"),
    ({"shape": "1,3,2"}, InvalidInput, "shape must be a list of whole numbers, is '1,3,2'"),
    ({"shape": ...}, InvalidInput, "shape must be a list of whole numbers, is null"),
    ({"shape": [1] * 90}, InvalidInput, "shape has 90 axes"),
    ({"shape": [2, 3, 2]}, InvalidInput, "binary_data_size must be 48, .* is the number 24"),
    ({"shape": [2**40, 2**40, 1]}, InvalidInput, f"binary_data_size must be {2**82}"),
    ({"shape": [0, 2**62, 2**62]}, InvalidInput, "binary_data_size must be 0"),
    ({"datatype": "FP64"}, InvalidInput, "datatype must be FP32, is 'FP64'"),
    ({"datatype": "fp32"}, InvalidInput, "datatype must be FP32"),
    ({"datatype": ["FP32"]}, InvalidInput, "datatype must be FP32, is a list"),
    ({"data": WINDOW.tolist()}, InvalidInput, "has both data and binary_data_size"),
    ({"parameters": {"binary_data_size": True}}, InvalidInput, "must be 24.* is a boolean"),
    ({"parameters": {"binary_data_size": 24.0}}, InvalidInput, "must be 24.* the number 24.0"),
    ({"parameters": {"binary_data_size": "24"}}, InvalidInput, "must be 24.* is '24'"),
    ({"parameters": {"binary_data_size": -24}}, InvalidInput, "must be 24"),
    ({"parameters": ...}, InvalidInput, "must have a list `data`.*there is neither"),
    ({"parameters": {"binary_data_size": None}}, MalformedBody, r"inputs\[0\].parameters.bin"),
    ({"parameters": [24]}, MalformedBody, r"inputs\[0\].parameters: must be an object, is a list"),
    ({"parameters": {"shared_memory_region": "r"}}, NotSupported, "shared_memory_region is not"),
    ({"content": 1}, MalformedBody, r"inputs\[0\]: unknown 'content'; known: data, datatype"),
]


@pytest.mark.parametrize(("changes", "kind", "text"), WRONG)
def test_wrong_inputs(changes: dict[str, Any], kind: type[RequestError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        ask({"inputs": [item(WINDOW, **changes)]}, WINDOW.tobytes())
    assert caught.value.status == (501 if kind is NotSupported else 400)


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"inputs": ...}, MalformedBody, "inputs: must be a list, is null"),
        ({"inputs": {}}, MalformedBody, "inputs: must be a list, is an object"),
        ({"inputs": [1]}, MalformedBody, r"inputs\[0\]: must be an object"),
        ({"inputs": [item(WINDOW)] * 2}, InvalidInput, r"inputs\[1\].name: 'neural' is given t"),
        ({"input": []}, MalformedBody, "unknown 'input'; known: id, inputs"),
        ({"id": 7}, MalformedBody, "id: must be text, is the number 7"),
        ({"outputs": {}}, MalformedBody, "outputs: must be a list, is an object"),
        ({"outputs": ["score"]}, MalformedBody, r"outputs\[0\]: must be an object, is 'score'"),
        ({"outputs": [{"name": "x"}]}, InvalidInput, "'x' is unknown; there are forecast, score"),
        ({"outputs": [{"name": "score"}] * 2}, InvalidInput, "'score' is given twice"),
        ({"outputs": [{"name": "score", "shape": [1]}]}, MalformedBody, "unknown 'shape'"),
        (
            {"outputs": [{"name": "score", "parameters": {"binary_data": 1}}]},
            MalformedBody,
            r"outputs\[0\].parameters.binary_data: must be a boolean, is the number 1",
        ),
        (
            {"outputs": [{"name": "score", "parameters": {"classification": 2}}]},
            NotSupported,
            "score: parameters.classification is not served",
        ),
        ({"parameters": []}, MalformedBody, "parameters: must be an object"),
        ({"parameters": {"a": {}}}, MalformedBody, "parameters.a: must be text, a number or"),
        ({"parameters": {"a": None}}, MalformedBody, "parameters.a: must be text, a number or"),
        ({"parameters": {"binary_data_output": 1}}, MalformedBody, "must be a boolean"),
        ({"parameters": {"timeout": -1}}, MalformedBody, "timeout: must be a whole number"),
        ({"parameters": {"timeout": 1.5}}, MalformedBody, "timeout: must be a whole number"),
        ({"parameters": {"priority": True}}, MalformedBody, "priority: must be a whole number"),
        ({"parameters": {"sequence_id": 3}}, NotSupported, "sequences of requests"),
        ({"parameters": {"triton_x": 3}}, MalformedBody, "the protocol reserves this name"),
        ({"parameters": {"headers": "x"}}, MalformedBody, "the protocol reserves this name"),
    ],
)
def test_wrong_requests(changes: dict[str, Any], kind: type[RequestError], text: str) -> None:
    document = {"inputs": [item(WINDOW)], **changes}
    with pytest.raises(kind, match=text):
        ask({k: v for k, v in document.items() if v is not ...}, WINDOW.tobytes())


def test_nothing_asked_for_is_nothing_out_of_the_ordinary() -> None:
    parameters = {"sequence_id": 0, "sequence_start": False, "timeout": 0, "priority": 3}
    document = {"model_name": "x", "model_version": "1", "parameters": parameters, "id": None}
    request = ask({"inputs": [item(WINDOW)], **document}, WINDOW.tobytes())
    assert (request.id, request.timeout) == (None, None)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"[]", "must be a JSON object, is a list"),
        (b'{"inputs": [{"data": [NaN]}]}', "NaN and infinity are no JSON numbers"),
        (b'{"inputs": [{"data": [-Infinity]}]}', "NaN and infinity are no JSON numbers"),
        (b'{"inputs": [{"data": [1e999]}]}', "not JSON"),
        (b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", "not JSON"),
        (b'{"id": "\\ud800"}', "not JSON"),
        (b'{"id": "\xff"}', "not JSON"),
    ],
)
def test_what_is_no_request(body: bytes, text: str) -> None:
    with pytest.raises(MalformedBody, match=text):
        decode_request(body, None, ONE, OUT)


@pytest.mark.parametrize(
    ("values", "shape", "text"),
    [
        ([1.0] * 5, [1, 3, 2], r"shape \[1, 3, 2\] wants 6 values, data has 5"),
        ([1.0] * 7, [1, 3, 2], "wants 6 values, data has 7"),
        ([[[1, 2], [3, 4]]], [1, 3, 2], r"shape says \[1, 3, 2\], data has \[1, 2, 2\]"),
        ([[1, 2], [3, 4], [5, 6]], [1, 3, 2], r"inputs.neural\[0\]\[0\]: the number 1 where a"),
        ([[[1, 2], [3, 4], [5]]], [1, 3, 2], r"inputs.neural\[0\]\[2\]: a list of 1"),
        ([1, 2, True, 4, 5, 6], [1, 3, 2], r"inputs.neural\[2\]: a boolean where a float32"),
        ([1, 2, "3", 4, 5, 6], [1, 3, 2], r"inputs.neural\[2\]: text where a float32"),
        ([1, 2, None, 4, 5, 6], [1, 3, 2], r"inputs.neural\[2\]: null where a float32"),
        ([1, 2, [3], 4, 5, 6], [1, 3, 2], r"inputs.neural\[2\]: a list where a float32"),
        ([1, 2, 1e39, 4, 5, 6], [1, 3, 2], r"inputs.neural\[2\]: too large for a float32"),
        (1, [1, 3, 2], "must have a list `data`.*data is the number 1"),
        (None, [1, 3, 2], "must have a list `data`.*data is null"),
        ([], [0, 2**62, 2**62], "no tensor has the shape"),
    ],
)
def test_wrong_json_data(values: Any, shape: list[int], text: str) -> None:
    with pytest.raises(InvalidInput, match=text) as caught:
        ask_values(values, shape)
    assert caught.value.field == "neural"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int32", 2**31),
        ("int64", 2**63),
        ("uint8", 256),
        ("uint8", -1),
        ("int32", 1.0),
        ("bool", 1),
        ("bool", 0.0),
        ("int64", True),
    ],
)
def test_values_that_a_dtype_cannot_hold(dtype: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"where a {dtype} is expected"):
        ask_values([value], [1], spec(dtype=dtype, sizes=()))


def test_booleans_are_bytes_0_or_1() -> None:
    one = (spec("mask", "bool", (3,)),)
    mask = np.array([[True, False, True]])
    assert ask({"inputs": [item(mask, "mask")]}, b"\1\0\1", inputs=one).inputs["mask"].tolist() == [
        [True, False, True]
    ]
    with pytest.raises(InvalidInput, match="BOOL data must be bytes 0 or 1"):
        ask({"inputs": [item(mask, "mask")]}, b"\1\2\1", inputs=one)


def test_empty_tensors_beyond_numpy() -> None:
    large = {"shape": [0, 2**62, 2**62], "parameters": {"binary_data_size": 0}}
    with pytest.raises(InvalidInput, match="no tensor has the shape"):
        ask({"inputs": [item(WINDOW, **large)]})


@pytest.mark.parametrize(
    ("sizes", "count", "shape"),
    [((3, 2), 6, (1, 3, 2)), ((3, None), 6, (1, 3, 2)), ((None, 2), 2, (1, 1, 2)), ((), 1, (1,))],
)
def test_raw_bodies(sizes: tuple[int | None, ...], count: int, shape: tuple[int, ...]) -> None:
    body = np.arange(count, dtype=np.float32).tobytes()
    request = decode_request(body, "0", (spec(sizes=sizes),), OUT)
    assert request.inputs["neural"].shape == shape
    assert request.inputs["neural"].tobytes() == body
    assert request.outputs == {"forecast": True, "score": True}


@pytest.mark.parametrize(
    ("sizes", "count", "text"),
    [
        ((3, 2), 23, "the raw body has 23 bytes; one row .* has 24"),
        ((3, 2), 48, "the raw body has 48 bytes; one row .* has 24"),
        ((3, 2), 0, "has 24"),
        ((3, None), 0, "has a multiple of 12"),
        ((3, None), 13, "has a multiple of 12"),
        ((None, None), 24, "at most one variable axis beside batch"),
    ],
)
def test_wrong_raw_bodies(sizes: tuple[int | None, ...], count: int, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        decode_request(b"\0" * count, "0", (spec(sizes=sizes),), OUT)


def test_a_raw_body_needs_a_model_with_one_input() -> None:
    with pytest.raises(InvalidInput, match="models with one input"):
        decode_request(b"\0" * 24, "0", (spec(), spec("behavior")), OUT)


def test_errors_quote_little_of_a_long_name() -> None:
    long = "x" * 10**5
    documents: list[dict[str, Any]] = [
        {"inputs": [item(WINDOW, long)]},
        {"inputs": [item(WINDOW, datatype=long)]},
        {"inputs": [item(WINDOW, parameters={"shared_memory_" + long: 1})]},
        {"inputs": [item(WINDOW, **{long: 1})]},
        {"inputs": [item(WINDOW)], long: 1},
        {"inputs": [item(WINDOW)], "parameters": {"sequence_" + long: 1}},
        {"inputs": [item(WINDOW)], "outputs": [{"name": long}]},
        {"inputs": long},
    ]
    for document in documents:
        with pytest.raises(RequestError) as caught:
            ask(document, WINDOW.tobytes())
        assert len(str(caught.value)) < 300
        assert len(caught.value.field or "") <= 100


def answer(request: InferRequest, answers: dict[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """The JSON part of an answer, parsed, and the bytes behind it."""
    headers, body = encode_response(request, answers, "m", "2")
    if HEADER_LENGTH not in headers:
        assert headers == {"Content-Type": "application/json"}
        return orjson.loads(body), b""
    assert headers["Content-Type"] == "application/octet-stream"
    size = int(headers[HEADER_LENGTH])
    return orjson.loads(body[:size]), body[size:]


def test_answers_in_both_forms() -> None:
    answers = {"forecast": WINDOW[..., 0], "score": np.array([1.5], np.float32)}
    head, blobs = answer(InferRequest({}, {"score": False, "forecast": True}, "q"), answers)
    assert head == {
        "model_name": "m",
        "model_version": "2",
        "id": "q",
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [1], "data": [1.5]},
            {
                "name": "forecast",
                "datatype": "FP32",
                "shape": [1, 3],
                "parameters": {"binary_data_size": 12},
            },
        ],
    }
    assert blobs == WINDOW[..., 0].tobytes()
    head, blobs = answer(InferRequest({}, {"forecast": False}), answers)
    assert np.array(head["outputs"][0]["data"], np.float32).tobytes() == WINDOW[..., 0].tobytes()
    assert "id" not in head


def test_an_answer_of_empty_tensors_is_json() -> None:
    answers = {"y": np.empty((0, 3), np.float32)}
    headers, body = encode_response(InferRequest({}, {"y": True}), answers, "m", "1")
    assert headers == {"Content-Type": "application/json"}
    assert orjson.loads(body)["outputs"][0]["parameters"] == {"binary_data_size": 0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_answers_go_as_binary_only(value: float) -> None:
    answers = {"y": np.array([1, value], np.float32)}
    with pytest.raises(NotAcceptable, match="which JSON cannot say; ask for it with"):
        encode_response(InferRequest({}, {"y": False}), answers, "m", "1")
    assert answer(InferRequest({}, {"y": True}), answers)[1] == answers["y"].tobytes()


arrays = st.sampled_from(list(DATATYPES)).flatmap(
    lambda dtype: npst.arrays(
        dtype,
        npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if dtype[0] == "f" else None,
    )
)


@given(st.lists(arrays, min_size=1, max_size=3), st.data())
def test_what_goes_in_comes_out(tensors: list[np.ndarray], data: st.DataObject) -> None:
    inputs, document, blobs = [], [], []
    for index, array in enumerate(tensors):
        name = f"x{index}"
        inputs.append(spec(name, array.dtype.name, (None,) * (array.ndim - 1)))
        if data.draw(st.booleans(), f"{name} as binary"):
            document.append(item(array, name))
            blobs.append(array.tobytes())
        else:
            nested = array.size and data.draw(st.booleans(), f"{name} nested")
            values = (array if nested else array.reshape(-1)).tolist()
            document.append(item(array, name, parameters=..., data=values))
    body, size = binary({"inputs": document}, *blobs)
    request = decode_request(body, size, inputs, ())
    for one, array in zip(inputs, tensors, strict=True):
        assert request.inputs[one.name].tobytes() == array.tobytes()
        assert request.inputs[one.name].shape == array.shape
    # The answer can be sent back as a question, in the form that it came in.
    forms = {one.name: data.draw(st.booleans(), f"{one.name} back as binary") for one in inputs}
    headers, body = encode_response(InferRequest({}, forms), request.inputs, "m", "1")
    size = headers.get(HEADER_LENGTH, str(len(body)))
    document = orjson.loads(body[: int(size)])
    back, size = binary({"inputs": document["outputs"]}, body[int(size) :])
    again = decode_request(back, size, inputs, ())
    for one, array in zip(inputs, tensors, strict=True):
        assert again.inputs[one.name].tobytes() == array.tobytes()


def read(body: bytes, length: str | None, inputs: tuple[TensorSpec, ...]) -> InferRequest | None:
    """What the body asks; None where it is refused, in few words."""
    try:
        return decode_request(body, length, inputs, OUT)
    except (RequestError, InputError) as error:
        text = str(error)
    assert len(text) < 500
    return None


GOOD, GOOD_SIZE = binary(
    {
        "id": "a",
        "inputs": [item(WINDOW), item(WINDOW, "more", parameters=..., data=WINDOW.tolist())],
        "outputs": [{"name": "score", "parameters": {"binary_data": True}}],
        "parameters": {"binary_data_output": True, "timeout": 10},
    },
    WINDOW.tobytes(),
)


@settings(max_examples=400)
@given(st.data())
def test_mutated_bodies_are_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        change = data.draw(st.sampled_from(["set", "insert", "delete", "cut"]))
        if change == "set" and place < len(body):
            body[place] = data.draw(st.integers(0, 255))
        elif change == "insert":
            body[place:place] = data.draw(st.binary(min_size=1, max_size=6))
        elif change == "delete":
            del body[place : place + data.draw(st.integers(1, 6))]
        else:
            del body[place:]
    near = st.integers(-3, 3).map(lambda by: str(int(GOOD_SIZE) + by))
    length = data.draw(st.none() | near | st.just(GOOD_SIZE) | st.text(max_size=4))
    request = read(bytes(body), length, (spec(), spec("more")))
    if request is None:
        return
    assert request.inputs.keys() <= {"neural", "more"}
    assert all(array.ndim == 3 for array in request.inputs.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from(["neural", "FP32", "", "x"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"]),
        inner,
    ),
    max_leaves=10,
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {"inputs": JSON | st.lists(JSON, max_size=2)},
        optional={"outputs": JSON, "parameters": JSON, "id": JSON},
    )
)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    read(orjson.dumps(document), None, ONE)


def test_a_claim_of_size_costs_no_memory() -> None:
    claim = item(WINDOW, shape=[2**20, 2**20, 2], parameters={"binary_data_size": 2**43})
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="only 24 bytes are left"):
            ask({"inputs": [claim]}, WINDOW.tobytes())
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    return b"".join(inflate(body, encoding, limit))


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", " GZIP", "x-gzip"]))
def test_inflated_bodies(data: bytes, encoding: str) -> None:
    body = (zlib.compress if encoding == "deflate" else gzip.compress)(data)
    name = read_encoding(encoding)
    assert name is not None
    assert inflated(body, name, 200) == data


@pytest.mark.parametrize("data", [bytes(3 * PIECE + 5), np.random.default_rng(0).bytes(3 * PIECE)])
def test_inflating_goes_piece_by_piece(data: bytes) -> None:
    pieces = list(inflate(gzip.compress(data, 1), "gzip", len(data)))
    assert b"".join(pieces) == data
    assert 0 < min(map(len, pieces)) <= max(map(len, pieces)) <= PIECE
    many = inflate(gzip.compress(data, 1), "gzip", len(data) - 1)
    with pytest.raises(BodyTooLarge):
        list(many)


@pytest.mark.parametrize(
    ("pack", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate")]
)
def test_inflating_is_bounded(pack: Any, encoding: str) -> None:
    assert len(inflated(pack(bytes(1000)), encoding, 1000)) == 1000
    body = pack(bytes(50_000_000))
    assert len(body) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="more than the 1000 bytes"):
            inflated(body, encoding, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_damaged_compressed_bodies() -> None:
    body = gzip.compress(bytes(100))
    with pytest.raises(MalformedBody, match="is not gzip"):
        inflated(b"plain", "gzip", 1000)
    with pytest.raises(MalformedBody, match="is not deflate"):
        inflated(body, "deflate", 1000)
    with pytest.raises(MalformedBody, match="cut short"):
        inflated(body[:-9], "gzip", 1000)
    with pytest.raises(MalformedBody, match="5 bytes follow the gzip data"):
        inflated(body + b"again", "gzip", 1000)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "x" * 10**4])
def test_other_encodings(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="must be gzip, deflate") as caught:
        read_encoding(encoding)
    assert caught.value.headers == {"Accept-Encoding": "gzip, deflate"}
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate"]), st.booleans(), st.data())
def test_damage_is_refused_or_without_effect(
    data: bytes, encoding: str, cut: bool, draw: st.DataObject
) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    body = bytearray(pack(data))
    place = draw.draw(st.integers(0, len(body) - 1))
    if cut:
        del body[place:]
    else:
        body[place] ^= draw.draw(st.integers(1, 255))
    try:
        plain = inflated(bytes(body), encoding, 1000)
    except RequestError:
        return
    assert plain == data

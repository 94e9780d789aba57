"""Bodies as the client writes and reads them: to the byte, and BadAnswer for anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifact.arrays import Array
from serve.client_errors import BadAnswer, InvalidInput
from serve.client_tensors import DATATYPES, decode_prediction, encode_inputs

NAMES = {dtype.name: name for name, dtype in DATATYPES.items()}
DTYPES = st.sampled_from(sorted(NAMES)).map(np.dtype)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = hnp.arrays(DTYPES, SHAPES)


def answer(
    outputs: dict[str, Array], change: dict[str, Any] | None = None
) -> tuple[dict[bytes, bytes], bytes]:
    """An answer with these outputs; `change` goes into the first."""
    items = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": NAMES[array.dtype.name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in outputs.items()
    ]
    if change:
        items[0] |= change
    head = orjson.dumps({"model_name": "m", "model_version": "1", "outputs": items})
    headers = {
        b"inference-header-content-length": str(len(head)).encode(),
        b"x-artifact-id": b"abc",
    }
    return headers, head + b"".join(array.tobytes() for array in outputs.values())


@given(outputs=st.dictionaries(st.text(max_size=3), ARRAYS, max_size=4))
def test_answers_are_read_to_the_byte(outputs: dict[str, Array]) -> None:
    prediction = decode_prediction(*answer(outputs), "r")
    assert list(prediction) == list(outputs)
    for name, array in outputs.items():
        came = prediction[name]
        assert (came.dtype, came.shape) == (array.dtype, array.shape)
        assert came.tobytes() == array.tobytes()
        assert came.flags.writeable
        assert came.flags.aligned


@given(inputs=st.dictionaries(st.text(max_size=3), ARRAYS, min_size=1, max_size=4))
def test_requests_announce_what_they_hold(inputs: dict[str, Array]) -> None:
    length, body = encode_inputs(inputs, 2.5)
    document = orjson.loads(body[:length])
    assert document["parameters"] == {"binary_data_output": True, "timeout": 2_500_000}
    offset = length
    for item, (name, array) in zip(document["inputs"], inputs.items(), strict=True):
        size = item["parameters"]["binary_data_size"]
        assert (item["name"], item["shape"]) == (name, list(array.shape))
        assert item["datatype"] == NAMES[array.dtype.name]
        assert body[offset : offset + size] == array.tobytes()
        offset += size
    assert offset == len(body)


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "S3", "O", "i4,f4", "longdouble"])
def test_dtypes_that_no_datatype_says(dtype: str) -> None:
    with pytest.raises(InvalidInput, match=r"x: dtype .* has no datatype") as caught:
        encode_inputs({"x": np.zeros(3, dtype)}, 1.0)
    assert caught.value.field == "x"


SAMPLE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": [2, 4]}, "24 bytes are not what shape"),
        ({"shape": [-2, -3]}, "no list of sizes"),
        ({"shape": [2.0, 3]}, "no list of sizes"),
        ({"shape": [True, 6]}, "no list of sizes"),
        ({"shape": None}, "no list of sizes"),
        ({"shape": [1] * 65 + [6]}, "no array has the shape"),
        ({"shape": [0, 1 << 62, 1 << 62], "parameters": {"binary_data_size": 0}}, "no array"),
        ({"datatype": "BF16"}, "unknown datatype 'BF16'"),
        ({"datatype": ["FP32"]}, "unknown datatype"),
        ({"name": None}, "an output has no name"),
        ({"name": "b"}, "'b' comes twice"),
        ({"parameters": {}}, "did not come as binary"),
        ({"parameters": {"binary_data_size": "24"}}, "did not come as binary"),
        ({"parameters": None, "data": [1, 2, 3, 4, 5, 6]}, "did not come as binary"),
        ({"datatype": "BOOL", "shape": [24]}, "BOOL data must be bytes 0 or 1"),
        ({"shape": [2, 2], "parameters": {"binary_data_size": 16}}, "BOOL data|come after"),
        ({"shape": [8], "parameters": {"binary_data_size": 32}}, "are announced, 26 are left"),
    ],
)
def test_answers_that_do_not_fit(change: dict[str, Any], text: str) -> None:
    with pytest.raises(BadAnswer, match=text) as caught:
        decode_prediction(*answer(SAMPLE, change), "r")
    assert (caught.value.status, caught.value.request_id) == (200, "r")


@pytest.mark.parametrize("length", [b"", b"-1", b"1_0", b"+5", b" 5", b"9" * 20, b"999"])
def test_lengths_that_are_none(length: bytes) -> None:
    headers, content = answer(SAMPLE)
    with pytest.raises(BadAnswer, match="is no length"):
        decode_prediction({**headers, b"inference-header-content-length": length}, content, "r")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"model_name":1}', b'{"model_name":"m","outputs":{}}']
)
def test_documents_that_are_none(content: bytes) -> None:
    with pytest.raises(BadAnswer):
        decode_prediction({}, content, "r")


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_answers_never_pass_for_more_than_they_are(data: st.DataObject) -> None:
    """Bytes cut, added or changed: BadAnswer, or arrays of exactly the bytes that came."""
    headers, content = answer(SAMPLE)
    place = data.draw(st.integers(0, len(content)))
    content = content[:place] + data.draw(st.binary(max_size=3)) + content[place + 1 :]
    try:
        prediction = decode_prediction(headers, content, "r")
    except BadAnswer:
        return
    size = int(headers[b"inference-header-content-length"])
    assert b"".join(array.tobytes() for array in prediction.outputs.values()) == content[size:]

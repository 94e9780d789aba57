"""Bodies to arrays and back."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifact import Axis, TensorSpec
from artifact.arrays import Array, encode_npy, encode_npz
from artifact.errors import InputError
from serve.errors import InvalidInput, MalformedBody, NotAcceptable, RequestError
from serve.formats import decode, encode
from serve.negotiation import JSON, NPY, NPZ

LIMIT = 1 << 20


def spec(name: str = "neural", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, (Axis("batch"), Axis("time", 2)), "raw", "values")


def from_json(values: object, dtype: str = "float32") -> Array:
    body = values if isinstance(values, bytes) else orjson.dumps({"inputs": {"neural": values}})
    return decode(body, JSON, [spec(dtype=dtype)], LIMIT)["neural"]


@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False)))
def test_float32_comes_through_json_bit_for_bit(array: Array) -> None:
    if not np.isfinite(array).all():
        with pytest.raises(NotAcceptable, match="application/x-npy"):
            encode({"forecast": array}, JSON, "id", "model")
        return
    answer = orjson.loads(encode({"forecast": array}, JSON, "id", "model"))
    assert (answer["artifact"], answer["model"]) == ("id", "model")
    again = from_json(answer["outputs"]["forecast"])
    assert again.dtype == np.float32
    assert again.tobytes() == array.tobytes()


@given(
    st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "bool"]).flatmap(
        lambda dtype: (
            hnp.arrays(dtype, (3, 2), elements={"allow_nan": False, "allow_infinity": False})
            if dtype.startswith("float")
            else hnp.arrays(dtype, (3, 2))
        )
    )
)
def test_every_dtype_comes_through_json(array: Array) -> None:
    again = from_json(array.tolist(), str(array.dtype))
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("form", [NPY, NPZ])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_both_orders(form: str, order: str) -> None:
    array = np.asarray(np.arange(6, dtype=np.float32).reshape(3, 2), order=order)
    stream = io.BytesIO()
    if form == NPY:
        np.save(stream, array)
    else:
        np.savez_compressed(stream, neural=array)
    got = decode(stream.getvalue(), form, [spec()], LIMIT)["neural"]
    np.testing.assert_array_equal(got, array)


def test_answers_are_readable_and_deterministic() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    body = encode({"forecast": array}, NPY, "id", "model")
    np.testing.assert_array_equal(np.load(io.BytesIO(body), allow_pickle=False), array)
    body = encode({"b": array, "a": array[::-1]}, NPZ, "id", "model")
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["a"], array[::-1])
    assert body == encode({"a": array[::-1], "b": array}, NPZ, "id", "model")


@pytest.mark.parametrize(
    ("values", "dtype", "text"),
    [
        ([[1, 2], [3, None]], "float32", "inputs.neural[1][1]: null where a float32 is expected"),
        ([[1, "2"]], "float32", "inputs.neural[0][1]: text where a float32 is expected"),
        ([["", "long text"]], "float32", "inputs.neural[0][0]: text where"),
        ([[1, True]], "float32", "inputs.neural[0][1]: a boolean where a float32 is expected"),
        ([[True, False]], "float32", "inputs.neural[0][0]: a boolean where"),
        ([[1, [2]]], "float32", "inputs.neural[0][1]: a list where a float32 is expected"),
        ([[[1], [2]]], "float32", "inputs.neural[0][0]: a list where a float32 is expected"),
        ([[1, {"a": 1}]], "float32", "inputs.neural[0][1]: an object where"),
        (
            [[1, 2], [3]],
            "float32",
            "inputs.neural[1]: a list of 1, where the lists before it hold 2",
        ),
        (
            [[], [3, 4]],
            "float32",
            "inputs.neural[1]: a list of 2, where the lists before it hold 0",
        ),
        ([1.5, 2], "float32", "inputs.neural[0]: the number 1.5 where a list over axis time"),
        ([[1, 2], 3], "float32", "inputs.neural[1]: the number 3 where a list over axis time"),
        (5, "float32", "inputs.neural: the number 5 where a list over axis batch"),
        ("abc", "float32", "inputs.neural: text where a list over axis batch"),
        (None, "float32", "inputs.neural: null where a list over axis batch"),
        ({"a": [1]}, "float32", "inputs.neural: an object where a list over axis batch"),
        ([[1, 2], [3, 1e39]], "float32", "inputs.neural[1][1]: too large for a float32"),
        ([[1, -1e300]], "float32", "inputs.neural[0][1]: too large for a float32"),
        ([[1, 2.0]], "int64", "inputs.neural[0][1]: the number 2.0 where a int64 is expected"),
        (
            [[1, 2**63]],
            "int64",
            "inputs.neural[0][1]: the number 9223372036854775808 where a int64",
        ),
        ([[2**63, 2**63]], "int64", "inputs.neural[0][0]: the number 9223372036854775808"),
        ([[1, 2**31]], "int32", "inputs.neural[0][1]: the number 2147483648 where a int32"),
        ([[1, 256]], "uint8", "inputs.neural[0][1]: the number 256 where a uint8"),
        ([[1, -1]], "uint8", "inputs.neural[0][1]: the number -1 where a uint8"),
        ([[1, True]], "int64", "inputs.neural[0][1]: a boolean where a int64"),
        ([[True, 1]], "bool", "inputs.neural[0][1]: the number 1 where a bool is expected"),
        ([[0, 1]], "bool", "inputs.neural[0][0]: the number 0 where a bool is expected"),
    ],
)
def test_json_values_of_another_type(values: object, dtype: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_json(values, dtype)
    assert str(caught.value).startswith(text)
    assert caught.value.field == "neural"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"inputs": {"neural": [[1, NaN]]}}', "not JSON"),
        (b'{"inputs": {"neural": [[1, 1e999]]}}', "not JSON"),
        (b'{"inputs": {"neural": ' + b"[" * 5000 + b"]" * 5000 + b"}}", "not JSON"),
        (b"[]", "the body must be"),
        (b"{}", "the body must be"),
        (b'{"inputs": {}, "extra": 1}', "the body must be"),
        (b'{"inputs": []}', "inputs: must be an object, is a list"),
        (b'{"inputs": {"neural": [[1, 2]], "neural": [[1, 2]]}}', "a key is given twice"),
        (b'{"inputs": {"neural": [[1, 2]]}, "inputs": {"neural": [[1, 2]]}}', "given twice"),
    ],
)
def test_json_that_is_no_question(body: bytes, text: str) -> None:
    with pytest.raises(MalformedBody, match=text):
        from_json(body)


def test_unknown_names_are_named_and_cut() -> None:
    with pytest.raises(InvalidInput, match=r"inputs.other: unknown; inputs: neural") as caught:
        from_json(orjson.dumps({"inputs": {"other": []}}))
    assert caught.value.field == "other"
    with pytest.raises(InvalidInput) as caught:
        from_json(orjson.dumps({"inputs": {"x" * 10**5: []}}))
    assert len(str(caught.value)) < 200


def test_one_long_text_among_many_short_ones_costs_no_memory() -> None:
    values = [["", ""]] * 20_000 + [["x" * 100_000, ""]]
    body = orjson.dumps({"inputs": {"neural": values}})
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="text where a float32"):
            from_json(body)
        assert tracemalloc.get_traced_memory()[1] < 50 * len(body)
    finally:
        tracemalloc.stop()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(-(2**63), 2**64 - 1)
        | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=12,
    ),
    st.sampled_from(["float32", "int64", "bool"]),
)
def test_any_json_value_is_decoded_exactly_or_refused(values: object, dtype: str) -> None:
    try:
        array = from_json(values, dtype)
    except RequestError:
        return
    assert array.dtype == dtype
    if array.size:
        assert array.ndim == 2
        np.testing.assert_array_equal(array, np.array(values, dtype))


def crowded(members: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index in range(members):
            archive.writestr(f"{index}.npy", b"")
    return stream.getvalue()


def test_a_crowded_archive_is_refused_before_it_is_listed() -> None:
    body = crowded(20_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than the 1 members"):
            decode(body, NPZ, [spec()], LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_archive_that_inflates_beyond_the_limit() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, neural=np.zeros((1 << 20, 2), np.float32))
    assert len(stream.getvalue()) < 10_000
    with pytest.raises(InputError, match="inflates to more than"):
        decode(stream.getvalue(), NPZ, [spec()], LIMIT)


def test_archives_with_other_members() -> None:
    array = np.zeros((1, 2), np.float32)
    two = [spec(), spec("behavior")]
    with pytest.raises(InputError, match=r"2 members; at most 1"):
        decode(encode_npz({"neural": array, "behavior": array}), NPZ, [spec()], LIMIT)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("neural.npy", encode_npy(array))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("neural.npy", encode_npy(array))
    with pytest.raises(InputError, match=r"distinct NAME\.npy are wanted"):
        decode(stream.getvalue(), NPZ, two, LIMIT)
    for cut in (1, 22, 60):
        with pytest.raises(InputError, match="cut short"):
            decode(encode_npz({"neural": array})[:-cut], NPZ, two, LIMIT)


def test_shapes_that_overflow() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 140737488355327, 99999999)}"
    header += b" " * (117 - len(header)) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(InputError):
        decode(body, NPY, [spec()], LIMIT)

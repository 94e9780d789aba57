from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifact.arrays import DESCRIPTIONS, decode_npy, decode_npz, encode_npy, encode_npz
from artifact.errors import InputError

arrays = st.sampled_from(sorted(DESCRIPTIONS.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


@given(arrays)
def test_npy_and_back(array: np.ndarray) -> None:
    data = encode_npy(array)
    again = decode_npy(data)
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()
    assert np.load(io.BytesIO(data)).tobytes() == array.tobytes()


@given(arrays)
def test_what_numpy_saves_is_read(array: np.ndarray) -> None:
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(array))
    np.testing.assert_array_equal(decode_npy(stream.getvalue()), array)


@given(st.dictionaries(st.from_regex(r"[a-z_.]{1,8}", fullmatch=True), arrays, max_size=3))
@settings(max_examples=30)
def test_npz_and_back(table: dict[str, np.ndarray]) -> None:
    data = encode_npz(table)
    assert encode_npz(dict(reversed(table.items()))) == data
    again = decode_npz(data)
    assert {k: v.tobytes() for k, v in again.items()} == {k: v.tobytes() for k, v in table.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **table)
    assert decode_npz(stream.getvalue()).keys() == table.keys()


def npy(header: str, data: bytes = b"") -> bytes:
    raw = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04" + bytes(100),
        npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", bytes(4)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(5)),
        npy("{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': [1]}", bytes(4)),
        npy("{'descr': '|b1', 'fortran_order': False, 'shape': (1,)}", b"\x02"),
        npy(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 99999999999999, 99999999999999)}"
        ),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (1,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': 1is 1, 'shape': (1,)}", bytes(4)),
        npy("__import__('os')"),
        npy("(" * 3000),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
        b"\x93NUMPY\x09\x00" + bytes(100),
    ],
)
def test_a_hostile_npy_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode_npy(data, "neural")


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_input_errors(data: bytes) -> None:
    for reader, start in ((decode_npy, b"\x93NUMPY\x01\x00"), (decode_npz, b"PK\x03\x04")):
        with pytest.raises(InputError):
            reader(start + data)


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return stream.getvalue()


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zipped([("a.npy", bytes(30_000_000))])
    assert len(bomb) < 100_000
    with pytest.raises(InputError, match="inflates"):
        decode_npz(bomb, max_bytes=1 << 20)


def test_members_are_bounded_and_named() -> None:
    one = encode_npy(np.zeros(1, np.float32))
    with pytest.raises(InputError, match="members"):
        decode_npz(zipped([(f"a{i}.npy", one) for i in range(65)]))
    for name in ("a.txt", "a/b.npy", ".npy"):
        with pytest.raises(InputError, match="member"):
            decode_npz(zipped([(name, one)]))
    with pytest.raises(InputError, match="stored nor deflated"):
        decode_npz(zipped([("a.npy", one)], zipfile.ZIP_BZIP2))


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_npz_raises_only_input_errors(data: st.DataObject) -> None:
    raw = bytearray(zipped([("a.npy", encode_npy(np.arange(50, dtype=np.float32)))]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        decode_npz(bytes(raw))

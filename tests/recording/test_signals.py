"""Signals: any slice of a file is the array's, and settling changes no byte."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.signals import Derived, FileArray, Pointwise, blocks, is_derived, settle

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 3))
BOUNDS = st.one_of(st.none(), st.integers(-45, 45))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("signals")


def numbers(shape, dtype="<i2"):
    return np.random.default_rng(3).integers(-999, 999, shape).astype(dtype)


def derived(values, size):
    cuts = range(0, len(values), size)
    return Derived(values.shape, lambda: (values[a : a + size] for a in cuts), values.dtype)


@given(
    shape=SHAPES,
    axes=st.sampled_from([1, 2, 3]),
    order=st.sampled_from("CF"),
    dtype=st.sampled_from(["<i2", ">i2", "<f4", ">f8", "|u1"]),
    offset=st.integers(0, 20),
    start=BOUNDS,
    stop=BOUNDS,
)
def test_any_slice_of_a_file_is_that_of_the_array(
    folder, shape, axes, order, dtype, offset, start, stop
):
    values = numbers(shape[:axes], dtype)
    path = folder / "x.bin"
    path.write_bytes(b"\x7f" * offset + values.tobytes(order))
    signal = FileArray(path, values.dtype, values.shape, offset=offset, order=order)
    found = signal[start:stop]
    assert (len(signal), found.dtype, signal.shape) == (len(values), values.dtype, values.shape)
    np.testing.assert_array_equal(found, values[start:stop])
    assert found.shape == values[start:stop].shape


@given(shape=SHAPES, size=st.integers(1, 50), made=st.integers(1, 50))
def test_blocks_of_any_size_join_to_the_whole(shape, size, made):
    values = numbers(shape, "<f4")
    twice = values * np.float32(2)
    kinds = [
        (values, values),
        (derived(values, made), values),
        (Pointwise(values, lambda x: x * np.float32(2), shape[1:]), twice),
        (Pointwise(derived(values, made), lambda x: x * np.float32(2), shape[1:]), twice),
    ]
    for signal, expected in kinds:
        found = np.concatenate(list(blocks(signal, size)))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@given(shape=SHAPES, made=st.integers(1, 50), start=BOUNDS, stop=BOUNDS)
def test_a_settled_signal_has_the_same_bytes_in_memory_and_in_a_file(shape, made, start, stop):
    values = numbers(shape, "<f4")
    signal = Pointwise(derived(values, made), np.negative, shape[1:])
    counts: list[int] = []
    memory = settle(signal, progress=counts.append)
    file = settle(signal, memory=0, progress=counts.append)
    assert isinstance(memory, np.ndarray)
    assert isinstance(file, FileArray)
    assert sum(counts) == 2 * len(values)
    assert memory[start:stop].tobytes() == file[start:stop].tobytes()
    assert file[:].tobytes() == (-values).tobytes()


def test_what_can_be_read_by_slice_is_left_as_it_is():
    values = numbers((5, 2))
    outer = Pointwise(values, np.negative, (2,))
    assert settle(values) is values
    assert settle(outer) is outer
    assert [is_derived(s) for s in (values, outer, derived(values, 2))] == [False, False, True]
    assert is_derived(Pointwise(derived(values, 2), np.negative, (2,)))


def test_a_settled_file_has_no_name_and_goes_with_its_signal(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    signal = settle(derived(numbers((50, 2)), 7), memory=10)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(signal[3:9], numbers((50, 2))[3:9])
    handles = Path("/proc/self/fd")
    target = [os.readlink(handles / name) for name in os.listdir(handles) if _is_link(name)]
    assert any(str(tmp_path) in text for text in target)
    del signal
    gc.collect()
    target = [os.readlink(handles / name) for name in os.listdir(handles) if _is_link(name)]
    assert not any(str(tmp_path) in text for text in target)


def _is_link(name):
    return Path("/proc/self/fd", name).is_symlink()


def test_a_signal_that_breaks_off_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def produce():
        yield np.zeros((10, 2), np.float32)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        settle(Derived((50, 2), produce), memory=10)
    with pytest.raises(AssertionError, match="gave 10 samples of 50"):
        settle(Derived((50, 2), lambda: iter([np.zeros((10, 2))])), memory=10)
    assert list(tmp_path.iterdir()) == []


def test_misuse_is_refused(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(10))
    signal = FileArray(path, np.dtype("<i2"), (5, 1))
    with pytest.raises(IndexError, match="no step"):
        signal[::2]
    with pytest.raises(TypeError, match="read in order"):
        derived(numbers((5, 2)), 2)[1:2]
    os.truncate(path, 7)
    assert signal[:3].tolist() == [[0], [0], [0]]
    with pytest.raises(OSError, match=r"x\.bin: ends before byte 10"):
        signal[2:5]


def test_few_channels_of_many_are_taken_block_by_block(monkeypatch):
    monkeypatch.setattr("recording.signals.BLOCK_BYTES", 10 * 100 * 8)
    values = numbers((95, 100), "<f4")
    asked = []

    class Watched:
        shape, dtype = values.shape, values.dtype

        def __len__(self):
            return len(values)

        def __getitem__(self, rows):
            asked.append(rows.stop - rows.start)
            return values[rows]

    few = Pointwise(Pointwise(Watched(), np.negative, (100,)), lambda x: x[:, :2], (2,))
    assert few[3:93].tobytes() == (-values[3:93, :2]).tobytes()
    assert max(asked) == 10
    assert np.concatenate(list(blocks(few))).tobytes() == (-values[:, :2]).tobytes()
    assert max(asked) == 10
    assert few[50:20].shape == (0, 2)

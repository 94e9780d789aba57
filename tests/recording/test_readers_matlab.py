"""MATLAB files that scipy writes and ones of version 7.3, read back equal; hostile ones."""

from __future__ import annotations

import gc
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from recording import Recording, RecordingError, open_recording
from recording.readers import mat5
from recording.signals import FileArray, Pointwise

DATA = np.random.default_rng(0).normal(0, 30, (300, 4))


def _opened(path: Path, **options: object) -> Recording:
    recording = open_recording(path, options)
    gc.collect()
    return recording


def _cells(*values: object) -> np.ndarray:
    cells = np.empty(len(values), object)
    cells[:] = values
    return cells


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1", "i8"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_scipy_writes_is_read_back_equal(
    tmp_path: Path, compressed: bool, dtype: str, turned: bool
) -> None:
    data = np.abs(DATA).astype(dtype)
    values = {"data": data.T if turned else data, "fs": 250.0, "note": "hello"}
    scipy.io.savemat(tmp_path / "a.mat", values, do_compression=compressed)
    recording = _opened(tmp_path / "a.mat")
    assert recording.neural.rate == 250.0
    np.testing.assert_array_equal(recording.neural.values[0:300], data.astype("f4"))
    np.testing.assert_array_equal(recording.neural.values[17:20], data[17:20].astype("f4"))
    layout = "channel_time" if turned else "time_channel"
    assert any(one.kind == "layout" and layout in one.remedy for one in recording.findings)


def test_an_uncompressed_matrix_stays_in_the_file(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"data": DATA})
    values: Any = _opened(tmp_path / "a.mat", rate=100).neural.values.source
    while isinstance(values, Pointwise):
        values = values.source
    assert isinstance(values, FileArray)


def test_options_say_what_the_file_does_not(tmp_path: Path) -> None:
    eeg = {"data": DATA.T / 1e3, "srate": 128.0, "labels": _cells("a", "b", "c", "d")}
    scipy.io.savemat(tmp_path / "a.mat", {"session": eeg, "x": np.zeros((9, 9)), "z": 1})
    recording = _opened(tmp_path / "a.mat", key="session.data", unit="mV", type="eeg")
    assert (recording.neural.rate, recording.neural.names) == (128.0, ("a", "b", "c", "d"))
    assert {(c.unit, c.type) for c in recording.neural.channels} == {("µV", "eeg")}
    np.testing.assert_allclose(recording.neural.values[0:300], DATA, rtol=1e-5)
    names = _opened(tmp_path / "a.mat", key="session.data", channel_names=["1", "2", "3", "4"])
    assert names.neural.names == ("1", "2", "3", "4")
    square = _opened(tmp_path / "a.mat", key="x", layout="time_channel", rate=10)
    assert square.neural.values.shape == (9, 9)
    for options, message in (
        ({"key": "x", "rate": 10}, r"x: is square, \(9, 9\); set `layout`"),
        ({"key": "x", "layout": "time_channel"}, "x: the file has no rate .*; set `rate` in Hz"),
        ({"key": "y"}, "y: no variable 'y'; there is session, x, z"),
        ({"key": "session"}, "session: is a struct; name one of its fields: session.data"),
        ({"key": "session.dat"}, "session.dat: no field 'dat'; there is data, srate, labels"),
        ({"key": "session.labels"}, "session.labels: is a cell; must be a matrix of numbers"),
        ({"key": "session.data", "channel_names": ["a"]}, "neural: 1 channel_names for 4"),
        ({"key": "session.data", "unit": "apples", "type": "eeg"}, "neural: unit 'apples' is not"),
        ({"key": "session.data", "rate": -1}, "option 'rate'"),
    ):
        with pytest.raises(RecordingError, match=message):
            open_recording(tmp_path / "a.mat", options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": DATA, "b": DATA + 1}, "a and b are of one size; set `key` to one"),
        ({"a": "text", "fs": 1.0}, "no variable is a matrix of numbers; there is a, fs; set `key`"),
        ({"a": np.zeros((5, 4, 3)), "fs": 1.0}, r"a: has shape \(5, 4, 3\); must be"),
        ({"a": DATA, "fs": "many"}, "a: the rate in the file is no number above 0"),
        ({"a": DATA, "fs": -3.0}, "a: the rate in the file is no number above 0"),
    ],
)
def test_what_is_not_clear_is_asked(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    scipy.io.savemat(tmp_path / "a.mat", values)
    with pytest.raises(RecordingError, match=message):
        open_recording(tmp_path / "a.mat")


def test_a_complex_matrix_is_no_recording(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"a": DATA * 1j, "fs": 1.0})
    with pytest.raises(RecordingError, match="a: is complex matrix; must be"):
        open_recording(tmp_path / "a.mat", {"key": "a"})


def _units(*trains: object) -> np.ndarray:
    return _cells(
        *({"time": np.array(train)[:, None], "timerange": [0.0, 9.0]} for train in trains)
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_spikes_in_cells_are_units(tmp_path: Path, compressed: bool) -> None:
    tetrodes = _cells(_units([1.0, 4.0], [0.5]), _units([3.0], [4.0, 5.0]))
    scipy.io.savemat(tmp_path / "a.mat", {"spikes": tetrodes}, do_compression=compressed)
    spikes = _opened(tmp_path / "a.mat").modalities["spikes"]
    assert (spikes.counts, spikes.span) == ({"t1u1": 2, "t1u2": 1, "t2u1": 1, "t2u2": 2}, (0, 9))
    days = _cells(np.empty(0), _cells(tetrodes, _cells(_units([7.0], [8.0]), _units([1.0], [2.0]))))
    scipy.io.savemat(tmp_path / "b.mat", {"spikes": days}, do_compression=compressed)
    with pytest.raises(RecordingError, match=r"outer cells \[1, 2\] all hold.*such as \[2, 1\]"):
        open_recording(tmp_path / "b.mat")
    spikes = _opened(tmp_path / "b.mat", cell=[2, 2]).modalities["spikes"]
    assert spikes.times.tolist() == [1, 2, 7, 8]
    with pytest.raises(RecordingError, match=r"cell 1 holds no units; \[2\] do"):
        open_recording(tmp_path / "b.mat", {"cell": [1, 1]})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([1.0, 0.5], "spikes of t1u1: at 0.5 s: spike 1 is earlier than the one in front of it"),
        ([1.0, np.nan], "spikes of t1u1: spike 1 is at nan s"),
        (np.ones((2, 2)), r"spikes of t1u1: has shape \(2, 1, 2\)|spikes of t1u1: has shape"),
    ],
)
def test_spikes_that_are_wrong_are_named(tmp_path: Path, train: object, message: str) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"spikes": _cells(_units(train), _units([1.0]))})
    with pytest.raises(RecordingError, match=message):
        open_recording(tmp_path / "a.mat")


def test_fieldtrip_trials_are_pieces(tmp_path: Path) -> None:
    data = {
        "trial": _cells(DATA[:100].T, DATA[100:150].T),
        "time": _cells(np.arange(100) / 50 - 1, np.arange(50) / 50 - 1),
        "label": _cells("a", "b", "c", "d"),
        "sampleinfo": np.array([[101.0, 200], [301, 350]]),
        "trialinfo": np.array([[1.0], [2.0]]),
    }
    scipy.io.savemat(tmp_path / "a.mat", {"data": data})
    recording = _opened(tmp_path / "a.mat")
    assert (recording.neural.rate, recording.neural.names) == (50.0, ("a", "b", "c", "d"))
    assert [(p.start, len(p)) for p in recording.neural.pieces] == [(2.0, 100), (6.0, 50)]
    np.testing.assert_array_equal(recording.neural.values[0:150], DATA[:150].astype("f4"))
    assert recording.trials is not None
    assert recording.trials.counts == {"1": 1, "2": 1}
    data["sampleinfo"][1] = [151, 200]
    scipy.io.savemat(tmp_path / "a.mat", {"data": data})
    with pytest.raises(RecordingError, match="sampleinfo: trial 2 begins before trial 1 ends"):
        open_recording(tmp_path / "a.mat")


def _write73(path: Path, fill: Callable[[h5py.File], None]) -> Path:
    """A file as MATLAB writes version 7.3: HDF5 after 512 bytes with its own header."""
    with h5py.File(path, "w", userblock_size=512) as file:
        fill(file)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def _matrix73(file: Any, name: str, values: object, kind: str = "double", **storage: object) -> Any:
    data = file.create_dataset(name, data=np.atleast_2d(np.asarray(values)).T, **storage)
    data.attrs["MATLAB_class"] = np.bytes_(kind)
    return data


def _cell73(file: h5py.File, holder: Any, name: str, parts: list[Any]) -> None:
    refs = np.array([part.ref for part in parts], dtype=h5py.ref_dtype).reshape(-1, 1)
    holder.create_dataset(name, data=refs, dtype=h5py.ref_dtype)
    holder[name].attrs["MATLAB_class"] = np.bytes_("cell")


@pytest.mark.parametrize("turned", [False, True])
def test_a_matrix_of_version_73_is_read_back_equal(tmp_path: Path, turned: bool) -> None:
    def fill(file: h5py.File) -> None:
        values = DATA.T if turned else DATA
        _matrix73(file, "data", values, chunks=(2, 2), compression="gzip")
        _matrix73(file, "Fs", 250.0)
        codes = [_matrix73(file, f"#refs#/{c}", [ord(c)], "char") for c in "abcd"]
        _cell73(file, file, "labels", codes)

    neural = _opened(_write73(tmp_path / "a.mat", fill), unit="uV", type="lfp").neural
    assert (neural.rate, neural.names) == (250.0, ("a", "b", "c", "d"))
    np.testing.assert_array_equal(neural.values[0:300], DATA.astype("f4"))
    np.testing.assert_array_equal(neural.values[17:20], DATA[17:20].astype("f4"))


def test_spikes_of_version_73_are_units(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        refs = file.create_group("#refs#")
        tetrodes = []
        for tetrode, trains in enumerate([([1.0, 2.0], [0.5]), ([3.0],)]):
            units = []
            for unit, train in enumerate(trains):
                group = refs.create_group(f"s{tetrode}{unit}")
                group.attrs["MATLAB_class"] = np.bytes_("struct")
                _matrix73(group, "time", np.array(train)[:, None])
                units.append(group)
            _cell73(file, refs, f"t{tetrode}", units)
            tetrodes.append(refs[f"t{tetrode}"])
        _cell73(file, file, "spikes", tetrodes)

    spikes = _opened(_write73(tmp_path / "a.mat", fill)).modalities["spikes"]
    assert spikes.counts == {"t1u1": 2, "t1u2": 1, "t2u1": 1}


def test_hostile_files_of_version_73_are_errors(tmp_path: Path) -> None:
    def cycle(file: h5py.File) -> None:
        file.create_dataset("a", (1, 1), h5py.ref_dtype)
        file["a"].attrs["MATLAB_class"] = np.bytes_("cell")
        file["a"][0, 0] = file["a"].ref

    def giant(file: h5py.File) -> None:
        file.create_dataset("a", (4, 10**12), "f8", chunks=(4, 1000))
        _matrix73(file, "fs", 1.0)

    def giant_cell(file: h5py.File) -> None:
        file.create_dataset("a", (1, 10**10), h5py.ref_dtype, chunks=(1, 100))

    def outside(file: h5py.File) -> None:
        file["a"] = h5py.ExternalLink("/etc/hostname", "/x")

    for fill, message in (
        (cycle, "a: has cells or structs too deep"),
        (giant, "declares the shape .* but not all of it was written"),
        (giant_cell, "declares 10000000000 cells"),
        (outside, "no variable is a matrix of numbers; there is none"),
    ):
        with pytest.raises(RecordingError, match=message):
            open_recording(_write73(tmp_path / "a.mat", fill))


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def _head(kind: int, shape: tuple[int, ...]) -> bytes:
    flags = _element(6, struct.pack("<II", kind, 0))
    return flags + _element(5, struct.pack(f"<{len(shape)}i", *shape)) + _element(1, b"a")


def _nested(depth: int) -> bytes:
    content = _element(14, _head(6, (1, 1)) + _element(9, bytes(8)))
    for _ in range(depth):
        content = _element(14, _head(1, (1, 1)) + content)
    return content


FIELDS = _element(5, b"\x08\0\0\0") + _element(1, b"")
PACKED = zlib.compress(_element(14, _head(6, (1, 1)) + _element(9, bytes(8))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_element(14, _head(1, (2**30, 1))), "declares 1073741824 cells or fields"),
        (
            _element(14, _head(2, (2**30, 2**30)) + _element(5, b"\x08\0\0\0") + _element(1, b"")),
            "declares",
        ),
        (_element(14, _head(6, (2**30, 4)) + _element(9, bytes(64))), "holds 8 numbers"),
        (_element(14, _head(4, (1, 2**30)) + _element(16, b"")), "is text|no variable|is a matrix"),
        (_nested(2000), "deep"),
        (struct.pack("<II", 15, 20) + PACKED[:20], "cut off|damaged"),
        (struct.pack("<II", 14, 2**31), "ends within a variable at byte 128"),
        (struct.pack("<II", 99, 8) + bytes(8), "ends within a variable at byte 128"),
    ],
    ids=["cells", "structs", "numbers", "text", "deep", "short", "giant", "kind"],
)
def test_hostile_files_of_version_5_are_errors(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.mat").write_bytes(HEADER + content)
    with pytest.raises(RecordingError, match=message) as caught:
        open_recording(tmp_path / "a.mat", {"rate": 10})
    assert caught.value.file == "a.mat"


def test_a_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat5, "INFLATED_LEAST", 2**22)
    packer = zlib.compressobj(1)
    packed = packer.compress(struct.pack("<II", 14, 2**23) + _head(6, (2**20, 1)))
    for _ in range(6):
        packed += packer.compress(bytes(2**20))
    packed += packer.flush()
    (tmp_path / "a.mat").write_bytes(HEADER + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(RecordingError, match="a: a variable is larger than 4 MB once decompr"):
        open_recording(tmp_path / "a.mat", {"rate": 10})


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_bytes_give_recording_errors_alone(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    tetrodes = _cells(_units([1.0, 4.0], [0.5]), _units([3.0], [4.0, 5.0]))
    for values in ({"a": DATA, "fs": 10.0, "t": "text"}, {"spikes": tetrodes}):
        scipy.io.savemat(path, values, do_compression=compressed)
        content = path.read_bytes()
        rng = np.random.default_rng(1)
        errors = 0
        for _ in range(100):
            broken = bytearray(content)
            for at in rng.integers(116, min(len(content), 2000), 4):
                broken[at] = rng.integers(256)
            path.write_bytes(broken[: rng.integers(100, 2 * len(broken))])
            try:
                recording = open_recording(path)
                if "neural" in recording.modalities:
                    recording.neural.values[0:300]
            except RecordingError:
                errors += 1
        assert errors


def test_variables_agree_with_scipy(tmp_path: Path) -> None:
    values = {"a": DATA, "s": {"x": np.arange(3), "n": "é"}, "c": _cells("u", 2.0)}
    for order in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", values, do_compression=order)
        found = mat5.variables(tmp_path / "a.mat")
        shapes = [(name, shape) for name, shape, _ in scipy.io.whosmat(tmp_path / "a.mat")]
        assert [(one.name, one.shape) for one in found.values()] == shapes
        s = mat5.load(tmp_path / "a.mat", found["s"])
        assert s["n"] == "é"
        assert s["x"].whole().tolist() == [[0, 1, 2]]

"""The linear track from its own files, tracks of positions, and folders of one session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from recording import Events, RecordingError, Samples, open_recording

FIELDS = "<time uint32><xloc uint16><yloc uint16><xloc2 uint16><yloc2 uint16>"
RECORD = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")])


def test_the_linear_track_is_read_whole_from_its_own_files(shared_data: Path) -> None:
    folder = shared_data / "hippocampus_linear_track"
    recording = open_recording(folder)
    converted = np.load(folder / "linear_track.npz")
    spikes, track = recording.modalities["spikes"], recording.modalities["behavior"]
    assert isinstance(spikes, Events)
    assert isinstance(track, Samples)
    assert (len(spikes), len(spikes.names)) == (28829, 31)
    for unit in range(31):
        own = converted["spike_times"][converted["spike_unit"] == unit]
        np.testing.assert_array_equal(spikes.times[spikes.kinds == unit], own)
    # Record 45598 has the stamp of record 45597, and says the same place.
    assert len(track.times) == 118965 - 1
    np.testing.assert_array_equal(track.times, np.delete(converted["pos_t"], 45598))
    np.testing.assert_array_equal(track.values, np.delete(converted["pos_xy_px"], 45598, axis=0))
    assert [(c.name, c.unit) for c in track.channels] == [("x", "px"), ("y", "px")]
    assert spikes.span == (4396.9975, 6365.2707)
    texts = {one.kind: one.text for one in recording.findings}
    assert "records 45597 and 45598" in texts["duplicate"]
    assert "linear_track.npz is left out: spikes.mat gives 'spikes' already" in texts["files"]
    assert recording.session == "hippocampus_linear_track"


def _track(path: Path, records: np.ndarray, fields: str = FIELDS, **settings: str) -> Path:
    given = {"clockrate": "30000", "pixel scale": "0 pix/cm"} | settings
    lines = "".join(f"{name}: {value}\n" for name, value in given.items())
    header = f"<Start settings>\n{lines}Fields: {fields}\n<End settings>\n"
    path.write_bytes(header.encode() + records.tobytes())
    return path


def _records(count: int = 100, start: float = 0.0) -> np.ndarray:
    records = np.zeros(count, RECORD)
    records["t"] = 30000 * start + 1000 * np.arange(count)
    records["x"], records["y"] = 10 + np.arange(count), 20
    return records


def test_a_track_is_samples(tmp_path: Path) -> None:
    path = _track(tmp_path / "a.videoPositionTracking", _records(), **{"pixel scale": "2 pix/cm"})
    recording = open_recording(path)
    track = recording.modalities["behavior"]
    assert isinstance(track, Samples)
    np.testing.assert_allclose(track.times, np.arange(100) / 30)
    np.testing.assert_allclose(track.values[:, 0], (10 + np.arange(100)) / 200)
    assert {c.unit for c in track.channels} == {"m"}
    records = _records()
    records["x2"], records["y2"] = 3, 4
    two = open_recording(_track(path, records)).modalities["behavior"]
    assert two.names == ("x", "y", "x2", "y2")


def test_lost_positions_are_told_and_left_as_they_are(tmp_path: Path) -> None:
    records = _records()
    records["x"][[5, 6]], records["y"][[5, 6]] = 0, 0
    recording = open_recording(_track(tmp_path / "a.videoPositionTracking", records))
    track = recording.modalities["behavior"]
    assert isinstance(track, Samples)
    np.testing.assert_array_equal(track.values[5], [0, 0])
    (lost,) = [one for one in recording.findings if one.kind == "lost"]
    assert lost.steps == ({"step": "mask", "channels": ["x", "y"], "value": 0},)
    assert lost.times == pytest.approx((5 / 30, 6 / 30))


def test_bad_tracks_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.videoPositionTracking"
    back, far = _records(), _records()
    back["t"][50] = 0
    far["t"][50], far["x"][50] = far["t"][49], 300
    fields = FIELDS.replace("uint16><yloc2", "text><yloc2")
    for made, message in (
        (lambda: _track(path, back), r"behavior: at 0 s: record 50 is .* before record 49"),
        (lambda: _track(path, far), r"behavior: at 1.6\d+ s: records 49 and 50 have the same time"),
        (lambda: _track(path, _records(0)), "holds no records"),
        (lambda: _track(path, _records(), clockrate="fast"), "clockrate is 'fast' in the header"),
        (lambda: _track(path, _records(), clockrate="0"), "clockrate is 0; must be above 0"),
        (lambda: _track(path, _records(), "<time uint32>"), "fields must be time, xloc and yloc"),
        (lambda: _track(path, _records(), fields), "field 'xloc2' is 'text'; must be one of"),
    ):
        with pytest.raises(RecordingError, match=message):
            open_recording(made())
    whole = _track(path, _records()).read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(RecordingError, match=r"at 3.26667 s: ends within a record: 7 of 12 bytes"):
        open_recording(path)
    path.write_bytes(whole[:60])
    with pytest.raises(RecordingError, match="its header must run from <Start settings> to"):
        open_recording(path)


def _spikes(path: Path, times: np.ndarray) -> Path:
    units = np.empty(1, object)
    units[0] = {"time": times[:, None]}
    tetrodes = np.empty(1, object)
    tetrodes[0] = units
    scipy.io.savemat(path, {"spikes": tetrodes})
    return path


def test_a_folder_is_read_on_one_clock(tmp_path: Path) -> None:
    _spikes(tmp_path / "s.mat", np.array([1.0, 2.0]))
    _track(tmp_path / "p.videoPositionTracking", _records())
    (tmp_path / "LICENSE").write_text("free")
    recording = open_recording(tmp_path, {"subject": "m1"})
    assert (recording.format, recording.subject) == ("folder", "m1")
    assert set(recording.modalities) == {"spikes", "behavior"}
    only = open_recording(tmp_path, {"files": ["s.mat"]})
    assert set(only.modalities) == {"spikes"}

    _track(tmp_path / "q.videoPositionTracking", _records())
    with pytest.raises(RecordingError, match=r"p.videoPos.* and q.videoPos.* both give 'behavior'"):
        open_recording(tmp_path)
    _track(tmp_path / "q.videoPositionTracking", _records(start=500))
    with pytest.raises(
        RecordingError,
        match=r"behavior: at 500 s: runs from 500 to 503.3 s, but spikes from 1 to 2 s: the clocks",
    ):
        open_recording(tmp_path, {"files": ["s.mat", "q.videoPositionTracking"]})


def test_options_of_a_folder_name_its_files(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "lfp.mat", {"data": np.random.default_rng(0).normal(size=(300, 4))})
    _spikes(tmp_path / "s.mat", np.array([1.0, 2.0]))
    with pytest.raises(RecordingError, match=r"lfp.mat: data: the file has no rate"):
        open_recording(tmp_path)
    recording = open_recording(tmp_path, {"readers": {"lfp.mat": {"rate": 100.0}}})
    assert recording.neural.rate == 100.0
    outside = tmp_path.parent / "outside.mat"
    _spikes(outside, np.array([1.0]))
    (tmp_path / "link.mat").symlink_to(outside)
    for options, message in (
        ({"files": ["../outside.mat"]}, "option `files`: no file '../outside.mat' in the folder"),
        ({"files": ["link.mat"]}, "option `files`: no file 'link.mat' in the folder"),
        ({"readers": {"x.mat": {}}}, "option `readers`: 'x.mat' is not among the files"),
    ):
        with pytest.raises(RecordingError, match=message):
            open_recording(tmp_path, options)


def test_a_converted_copy_is_left_out_unless_it_adds_something(tmp_path: Path) -> None:
    _spikes(tmp_path / "s.mat", np.array([1.0, 2.0]))
    spikes = {"spike_times": np.array([1.0, 2.0]), "spike_unit": np.zeros(2, int)}
    np.savez(tmp_path / "copy.npz", **spikes)
    recording = open_recording(tmp_path)
    assert any(one.kind == "files" and one.stream == "copy.npz" for one in recording.findings)
    np.savez(tmp_path / "copy.npz", data=np.zeros((300, 2)) + np.arange(2), fs=100.0)
    assert set(open_recording(tmp_path).modalities) == {"spikes", "neural"}

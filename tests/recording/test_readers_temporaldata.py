"""Files of temporaldata, read back equal; damaged ones."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from temporaldata import ArrayDict, Data, Interval, IrregularTimeSeries, RegularTimeSeries

from recording import RecordingError, Samples, Series, open_recording

LFP = np.random.default_rng(0).normal(0, 50, (500, 3))
CURSOR = np.arange(40.0).reshape(20, 2)


def _write(path: Path, **changes: object) -> Path:
    parts: dict[str, object] = {
        "session": Data(id="day1", domain=Interval(0.0, 10.0)),
        "subject": Data(id="m1", domain=Interval(0.0, 10.0)),
        "spikes": IrregularTimeSeries(
            timestamps=np.array([0.5, 1.0, 1.0, 2.0]),
            unit_index=np.array([1, 0, 1, 1]),
            domain=Interval(0.0, 5.0),
        ),
        "units": ArrayDict(id=np.array(["a", "b", "silent"])),
        "lfp": RegularTimeSeries(raw=LFP, sampling_rate=100.0, domain_start=0.5),
        "channels": ArrayDict(id=np.array(["x1", "x2", "x3"])),
        "cursor": IrregularTimeSeries(
            timestamps=np.sort(np.random.default_rng(0).uniform(0.5, 5, 20)),
            pos=CURSOR,
            gain=np.arange(20),
            domain="auto",
        ),
        "trials": Interval(
            start=np.array([1.0, 3.0]), end=np.array([2.0, 4.0]), kind=np.array(["l", "r"])
        ),
    }
    parts |= changes
    given = {name: one for name, one in parts.items() if one is not None}
    with h5py.File(path, "w") as file:
        Data(**given, domain=Interval(0.0, 10.0)).to_hdf5(file)
    return path


def test_what_temporaldata_writes_is_read_back_equal(tmp_path: Path) -> None:
    recording = open_recording(_write(tmp_path / "a.h5"), {"trial_class": "kind"})
    gc.collect()
    assert (recording.format, recording.session, recording.subject) == (
        "temporaldata",
        "a",
        "m1",
    )
    neural = recording.neural
    assert (neural.names, neural.rate, neural.span) == (("x1", "x2", "x3"), 100.0, (0.5, 5.5))
    assert neural.channels[0].type == "lfp"
    np.testing.assert_array_equal(neural.values[100:110], LFP[100:110])
    spikes = recording.modalities["spikes"]
    assert (spikes.counts, spikes.span) == ({"a": 1, "b": 3}, (0.0, 5.0))
    cursor = recording.modalities["behavior"]
    assert isinstance(cursor, Samples)
    assert cursor.names == ("cursor.gain", "cursor.pos_x", "cursor.pos_y")
    np.testing.assert_array_equal(cursor.values[:, 1:], CURSOR)
    assert recording.trials is not None
    assert recording.trials.counts == {"l": 1, "r": 1}
    assert {one.kind for one in recording.findings} >= {"unit", "flat"}


def test_a_domain_with_gaps_gives_pieces_without_what_lies_between(tmp_path: Path) -> None:
    times = np.concatenate([np.arange(10) / 10, 3 + np.arange(20) / 10])
    values = np.arange(60).reshape(30, 2)
    series = RegularTimeSeries.from_gappy_timeseries(
        times, sampling_rate=10.0, raw=values, gap_value=-1
    )
    neural = open_recording(_write(tmp_path / "a.h5", lfp=series, channels=None)).neural
    assert [(p.start, len(p)) for p in neural.pieces] == [(0.0, 10), (3.0, 20)]
    np.testing.assert_array_equal(neural.values[0:30], values)
    np.testing.assert_array_equal(neural.values[8:13], values[8:13])
    np.testing.assert_allclose(neural.times(), times)


def test_the_series_to_model_can_be_named(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.h5",
        lfp=None,
        wheel=RegularTimeSeries(turn=LFP, sampling_rate=100.0, domain_start=1.0),
    )
    recording = open_recording(path)
    assert list(recording.modalities) == ["spikes", "behavior", "cursor"]
    assert isinstance(recording.modalities["behavior"], Series)
    named = open_recording(path, {"neural": "wheel", "behavior": ["cursor"]})
    assert named.neural.rate == 100.0
    with pytest.raises(RecordingError, match="option `neural`: 0 fields"):
        open_recording(path, {"neural": "eeg"})
    with pytest.raises(RecordingError, match="option `behavior`: no series 'hand'"):
        open_recording(path, {"behavior": ["hand"]})
    with pytest.raises(RecordingError, match="trials: no field 'color'; there is"):
        open_recording(path, {"trial_class": "color"})


def _put(where: str, data: object) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        del file[where]
        file[where] = data

    return damage


def _external(file: h5py.File) -> None:
    del file["lfp/domain"]
    file["lfp/domain"] = h5py.ExternalLink("/etc/hostname", "/data")


def _no_rate(file: h5py.File) -> None:
    file["lfp"].attrs["sampling_rate"] = -1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_put("spikes/timestamps", np.array([0.5, 1.0, 0.9, 2.0])), "spikes: at 0.9 s: times go b"),
        (
            _put("spikes/timestamps", np.array([0.5, 1.0, np.nan, 2])),
            "spikes of b: spike 1 is",
        ),
        (_put("spikes/timestamps", np.array([0.5, 1.0, 1.5, 9])), "spikes: at 9 s: a spike lies"),
        (_put("spikes/unit_index", np.array([0, 1, 7, 1])), "spikes.unit_index: unit 7 of 3"),
        (_put("spikes/unit_index", np.array([0, 1])), "spikes: columns of 2 and 4 rows"),
        (_put("spikes/unit_index", [b"a", b"b"]), "spikes.unit_index: holds text"),
        (_put("cursor/timestamps", np.zeros(20)), "cursor: at 0 s: times 0 and 1 are the same"),
        (
            _put("cursor/timestamps", 800 + np.arange(20.0)),
            "behavior: at 800 s: runs from 800",
        ),
        (_put("lfp/domain/start", np.array([np.inf])), "lfp.domain: its domain must be intervals"),
        (_put("trials/end", np.array([0.0, 4.0])), "trials: at 1 s: row 0 stops before"),
        (_external, "lfp: 'domain' lies in another file"),
        (_no_rate, "lfp: sampling_rate is -1.0; must be above 0"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(RecordingError, match=message) as caught:
        open_recording(path)
    assert caught.value.file == "a.h5"


def test_other_hdf5_is_told_what_would_do(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["voltage"] = np.zeros(3)
    with pytest.raises(RecordingError, match=r"HDF5, but not of temporaldata.*holds voltage; save"):
        open_recording(tmp_path / "a.h5")


def test_damaged_bytes_give_recording_errors_alone(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5")
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    errors = 0
    for _ in range(25):
        broken = bytearray(content)
        for at in rng.integers(0, len(content), 40):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            recording = open_recording(path)
            if "neural" in recording.modalities:
                recording.neural.values[0:500]
        except RecordingError:
            errors += 1
    assert errors

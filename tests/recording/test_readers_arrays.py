"""NumPy files: every layout read back equal, by slice, and everything wrong with one named."""

from __future__ import annotations

import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import RecordingError, open_recording
from recording.contract import Events, Samples
from recording.readers import array_signal
from recording.signals import FileArray, blocks, is_derived, settle

pytestmark = pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arrays")


def values(shape, dtype="<f4"):
    return (np.random.default_rng(1).normal(size=shape) * 100).astype(dtype)


def save(path, kind, array, **others):
    if kind == "npy":
        np.save(path.with_suffix(".npy"), array)
        return path.with_suffix(".npy")
    write = np.savez if kind == "npz" else np.savez_compressed
    write(path.with_suffix(".npz"), data=array, **others)
    return path.with_suffix(".npz")


@given(
    kind=st.sampled_from(["npy", "npz", "packed"]),
    trials=st.sampled_from([None, 1, 4]),
    layout=st.sampled_from(["time_channel", "channel_time"]),
    order=st.sampled_from("CF"),
    dtype=st.sampled_from(["<f4", ">f8", "<i2", "|u1"]),
    bounds=st.tuples(st.integers(0, 90), st.integers(0, 90)),
)
def test_every_layout_is_read_back_equal_and_by_slice(
    folder, kind, trials, layout, order, dtype, bounds
):
    expected = values((trials or 1, 20, 3), dtype).reshape(-1, 3)
    array = expected.reshape(trials or 1, -1, 3)
    array = array if layout == "time_channel" else array.swapaxes(1, 2)
    array = array if trials else array[0]
    path = save(folder / "x", kind, np.asarray(array, order=order))
    found = open_recording(path, {"rate": 10, "layout": layout})
    signal = found.neural.values
    assert signal.shape == expected.shape
    np.testing.assert_array_equal(signal[slice(*bounds)], expected[slice(*bounds)])
    np.testing.assert_array_equal(np.concatenate(list(blocks(signal, 7))), expected)
    starts = [piece.start for piece in found.neural.pieces]
    assert starts == [20 / 10 * trial for trial in range(trials or 1)]
    if trials:
        assert found.trials.times.tolist() == starts
        assert found.trials.stops.tolist() == [start + 2 for start in starts]
    else:
        assert found.trials is None


def test_stored_arrays_stay_in_the_file(tmp_path):
    path = save(tmp_path / "x", "npz", values((50, 2), "<i2"), other=np.zeros(3))
    assert isinstance(open_recording(path, {"rate": 10}).neural.values, FileArray)
    path = save(tmp_path / "x", "npz", values((3, 2, 50), "<i2"))
    trials = open_recording(path, {"rate": 10, "layout": "channel_time"}).neural.values
    assert isinstance(trials, array_signal.TrialsByChannel)
    with pytest.raises(IndexError, match="no step"):
        trials[::2]


def test_a_large_compressed_array_is_run_through_block_by_block(tmp_path, monkeypatch):
    array = values((400, 3))
    path = save(tmp_path / "x", "packed", array)
    monkeypatch.setattr(array_signal, "MEMORY_BYTES", 1000)
    monkeypatch.setattr("recording.array_files.BLOCK_BYTES", 700)
    signal = open_recording(path, {"rate": 10}).neural.values
    assert is_derived(signal)
    assert len(list(blocks(signal))) > 5
    np.testing.assert_array_equal(settle(signal)[:], array)
    array[77, 1] = np.inf
    signal = open_recording(save(tmp_path / "x", "packed", array), {"rate": 10}).neural.values
    with pytest.raises(RecordingError, match=r"neural: at 7\.7 s: sample 77 of channel '1'"):
        settle(signal)
    path = save(tmp_path / "x", "packed", np.asfortranarray(array))
    with pytest.raises(RecordingError, match="save it uncompressed and in C order"):
        open_recording(path, {"rate": 10})


def test_what_stands_beside_the_series(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(
        path,
        data=values((2, 50, 3)),
        fs=250.0,
        labels=["a", "b", "c"],
        unit="mV",
        xy_mm=[[1, 2], [3, 4], [np.nan, 0]],
        y=["left", "right"],
        rowcol=np.zeros(3),
    )
    found = open_recording(path, {"type": "ecog"})
    neural = found.neural
    assert (neural.rate, neural.names) == (250.0, ("a", "b", "c"))
    assert {(channel.type, channel.unit) for channel in neural.channels} == {("ecog", "µV")}
    assert [channel.position for channel in neural.channels] == [
        pytest.approx((0.001, 0.002, 0)),
        pytest.approx((0.003, 0.004, 0)),
        None,
    ]
    expected = values((2, 50, 3)).reshape(-1, 3) * np.float32(1000)
    np.testing.assert_array_equal(neural.values[:], expected)
    assert found.trials.counts == {"left": 1, "right": 1}
    assert found.facts == {"arrays not read": "rowcol"}
    assert found.findings == ()
    other = open_recording(path, {"rate": 100, "channel_names": ["x", "y", "z"], "unit": "V"})
    assert (other.neural.rate, other.neural.names) == (100.0, ("x", "y", "z"))
    assert "states 250 Hz, the option rate says 100 Hz" in other.findings[0].text


def test_an_array_by_name(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, first=values((50, 2)), second=values((40, 3)))
    assert open_recording(path, {"rate": 10, "key": "second"}).neural.values.shape == (40, 3)
    with pytest.raises(RecordingError, match=r"x\.npz: which array.*one of: first, second"):
        open_recording(path, {"rate": 10})
    with pytest.raises(RecordingError, match="no array 'third'; there are: first, second"):
        open_recording(path, {"rate": 10, "key": "third"})


def refuse(path, text, **options):
    def read():
        return settle(open_recording(path, {"rate": 10, **options}).neural.values)[:]

    with pytest.raises(RecordingError, match=text) as caught:
        read()
    assert str(caught.value).startswith(path.name)


@pytest.mark.parametrize(
    ("array", "options", "text"),
    [
        (values(50), {}, "neural: shape .* has 1 axes"),
        (values((2, 3, 4, 5)), {}, "has 4 axes"),
        (values((0, 2)), {}, "is empty"),
        (values((50, 2)).astype("U4"), {}, "is not a real number"),
        (values((50, 2)).astype(complex), {}, "is not a real number"),
        (values((50, 2)).astype("M8[s]"), {}, "is not a real number"),
        (values((2, 50)), {}, "look swapped; set layout: channel_time"),
        (values((50, 2)), {"channel_names": ["a"]}, "1 names for 2 channels"),
        (values((50, 2)), {"channel_names": ["a", "a"]}, "two channels are called 'a'"),
        (values((50, 2)), {"type": "brain"}, "channel type 'brain' is not one of"),
        (
            values((50, 2)),
            {"type": "eeg", "unit": "furlong"},
            "neural: unit 'furlong' is not known",
        ),
        (values((50, 2)), {"key": "data"}, "key: a .npy file has no names"),
        (values((50, 2)), {"rate": None}, r"rate in Hz is not in the file: give rate"),
        (np.array([[1e300, 0.0]] * 3), {}, "at 0 s: sample 0 of channel '0' .* beyond float32"),
        (np.array([[0.0, 0.0], [0.0, -np.inf]]), {}, "at 0.1 s: sample 1 of channel '1'"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, array, options, text):
    np.save(tmp_path / "x.npy", array)
    refuse(tmp_path / "x.npy", text, **options)


def test_runs_of_nan_are_missing_values(tmp_path):
    array = values((50, 2))
    array[10:20] = np.nan
    np.save(tmp_path / "x.npy", array)
    found = open_recording(tmp_path / "x.npy", {"rate": 10}).neural.values
    np.testing.assert_array_equal(found[:], array)


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ({"fs": 0.0}, "fs: must be one number of Hz"),
        ({"fs": np.nan}, "fs: must be one number of Hz"),
        ({"fs": [1.0, 2.0]}, "fs: must be one number of Hz"),
        ({"fs": "fast"}, "fs: dtype <U4 is not a real number"),
        ({"labels": ["a"]}, "labels: 1 names for 2 channels"),
        ({"xy_mm": np.zeros((3, 2))}, r"xy_mm: shape \(3, 2\); must be \(2, 2\)"),
        ({"unit": ["V", "V"]}, "unit: must be one text"),
        ({"y": [1, 2, 3]}, r"y: shape \(3,\); must be \(25,\)"),
        ({"labels": np.array([{}, {}], object)}, "Python objects"),
    ],
)
def test_wrong_things_beside_the_series_are_named(tmp_path, others, text):
    np.savez(tmp_path / "x.npz", data=values((25, 4, 2)), **others)
    refuse(tmp_path / "x.npz", text)


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "x.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "x.npz", data=trap)
    for name in ("x.npy", "x.npz"):
        refuse(tmp_path / name, "Python objects")
    assert not (tmp_path / "trapped").exists()


def test_stated_sizes_are_not_believed(tmp_path):
    np.save(tmp_path / "x.npy", values((50, 2)))
    whole = (tmp_path / "x.npy").read_bytes()
    for shape in ("(10000000000000, 2)", "(-5, -20)", "(50, 2000000000)", "(True, 2)"):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
        (tmp_path / "x.npy").write_bytes(header + whole[128:])
        refuse(tmp_path / "x.npy", "damaged|empty")
    np.savez_compressed(tmp_path / "x.npz", data=values((50, 2)))
    packed = bytearray((tmp_path / "x.npz").read_bytes())
    entry = packed.rindex(b"PK\x01\x02")
    packed[entry + 24 : entry + 28] = struct.pack("<I", 2**31)
    (tmp_path / "x.npz").write_bytes(packed)
    refuse(tmp_path / "x.npz", "cannot hold the 2147483648 stated")


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "none")
    refuse(tmp_path / "x.npz", "holds no array")
    for content in (b"PK\x03\x04 and no more", b"time,channel\n", b"\x93NUMPY\x09\x00\x10\x00"):
        (tmp_path / "x.npz").write_bytes(content)
        refuse(tmp_path / "x.npz", "damaged|neither|npy format")


@pytest.mark.parametrize("kind", ["npy", "npz", "packed"])
def test_files_cut_short_are_refused(tmp_path, kind):
    path = save(tmp_path / "x", kind, values((50, 2)), fs=10.0)
    whole = path.read_bytes()
    for size in np.random.default_rng(0).integers(1, len(whole), 40).tolist():
        path.write_bytes(whole[:size])
        with pytest.raises(RecordingError, match=path.name):
            open_recording(path, {"rate": 10})


@given(kind=st.sampled_from(["npy", "npz", "packed"]), data=st.data())
def test_flipped_bytes_are_refused_or_harmless(folder, kind, data):
    path = save(folder / "flipped", kind, values((30, 2)), fs=10.0, labels=["a", "b"])
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        signal = open_recording(path, {"rate": 10}, format=path.suffix[1:]).neural.values
        assert settle(signal)[:].size <= 100
    except RecordingError as error:
        assert path.name in str(error)  # noqa: PT017


def spikes(tmp_path, **changes):
    arrays = {
        "spike_times": [3.0, 1.0, 2.0],
        "spike_unit": np.array([0, 2, 0], np.int16),
        "n_units": 4,
        "pos_t": np.arange(5) / 2 + 1,
        "pos_xy_px": np.arange(10).reshape(5, 2).astype(np.uint16),
        **changes,
    }
    np.savez(tmp_path / "x.npz", **{k: v for k, v in arrays.items() if v is not None})
    return tmp_path / "x.npz"


def test_spikes_and_positions(tmp_path):
    found = open_recording(spikes(tmp_path))
    assert list(found.modalities) == ["spikes", "behavior"]
    events, position = found.modalities["spikes"], found.modalities["behavior"]
    assert isinstance(events, Events)
    assert isinstance(position, Samples)
    assert events.times.tolist() == [1.0, 2.0, 3.0]
    assert events.counts == {"unit 0": 2, "unit 1": 0, "unit 2": 1, "unit 3": 0}
    assert events.span == (1.0, 3.0)
    assert [(c.name, c.type, c.unit) for c in position.channels] == [
        ("x", "behavior", "px"),
        ("y", "behavior", "px"),
    ]
    assert position.values[1].tolist() == [2.0, 3.0]
    assert found.findings == ()
    alone = open_recording(spikes(tmp_path, n_units=None, pos_t=None, pos_xy_px=None))
    assert alone.modalities["spikes"].names == ("unit 0", "unit 2")


def test_a_repeated_time_is_kept_once_and_said(tmp_path):
    times = np.array([1.0, 1.5, 1.5, 2.0, 2.0])
    equal = np.array([[1, 1], [2, 2], [2, 2], [3, 3], [3, 3]])
    found = open_recording(spikes(tmp_path, pos_t=times, pos_xy_px=equal))
    assert found.modalities["behavior"].times.tolist() == [1.0, 1.5, 2.0]
    assert found.findings[0].kind == "duplicate"
    assert "records 1 and 2, 3 and 4" in found.findings[0].text
    once = np.array([[1, 1], [2, 2], [9, 9], [3, 3], [3, 3]])
    found = open_recording(spikes(tmp_path, pos_t=times, pos_xy_px=once))
    assert found.modalities["behavior"].values[1].tolist() == [2.0, 2.0]
    with pytest.raises(RecordingError, match=r"behavior: at 2 s: records 3 and 4 .* 2 pairs"):
        open_recording(spikes(tmp_path, pos_t=times, pos_xy_px=np.arange(10).reshape(5, 2)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"spike_unit": np.array([0, 1])}, "spikes: spike_unit .* one unit per spike"),
        ({"spike_unit": np.array([0, 1, 4])}, r"from 0 to 4; must be 0 … n_units - 1 \(4 units\)"),
        ({"spike_unit": np.array([-1, 1, 2])}, "from -1 to 2"),
        ({"n_units": 10**9}, "n_units - 1"),
        ({"spike_unit": np.array([0, 1, 0.5])}, "must be whole numbers"),
        ({"spike_times": [1.0, np.nan, 2.0]}, r"spikes: spike_times\[1\] is nan"),
        ({"pos_t": [1.0, 2.0, 1.5, 3.0, 4.0]}, "behavior: at 1.5 s: time 2 is 0.5 s before"),
        ({"pos_t": [1.0, 2.0]}, r"pos_xy_px \(5, 2\) for pos_t \(2,\)"),
        ({"pos_t": [1.0, np.inf, 1.5, 3.0, 4.0]}, "time 1 is inf"),
        ({"pos_t": None}, "no array 'pos_t'"),
        ({"pos_t": np.arange(5) + 900.0}, "behavior: at 900 s: .*the clocks disagree"),
    ],
)
def test_wrong_spikes_and_positions_are_named(tmp_path, changes, text):
    with pytest.raises(RecordingError, match=text) as caught:
        open_recording(spikes(tmp_path, **changes))
    assert str(caught.value).startswith("x.npz")


def test_the_goose_and_the_linear_track(shared_data):
    path = shared_data / "uecog_goose" / "goose_uecog_250hz.npz"
    found = open_recording(path, {"type": "ecog"}).neural
    with np.load(path) as stored:
        np.testing.assert_array_equal(found.values[:], stored["data"])
    assert (found.rate, found.values.shape) == (250.0, (10000, 62))
    assert found.channels[0].position == pytest.approx((0.0105, 0.0105, 0.0))
    found = open_recording(shared_data / "hippocampus_linear_track" / "linear_track.npz")
    assert len(found.modalities["spikes"].names) == 31
    assert len(found.modalities["spikes"]) == 28829
    assert len(found.modalities["behavior"].times) == 118964
    assert [f.kind for f in found.findings] == ["duplicate"]
    assert "45597 and 45598" in found.findings[0].text

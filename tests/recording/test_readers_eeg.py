"""EDF, BDF, BrainVision, EEGLAB and FIF as the reference libraries write them, read back equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import eeg_files
import h5py
import numpy as np
import pytest
import scipy.io

from recording.contract import Recording, Series
from recording.opening import find_format, open_recording
from recording.readers import bids, edf, edf_records
from recording.signals import blocks


def whole(series: Series) -> np.ndarray:
    return np.asarray(series.values[0 : len(series.values)])


def check_lazy(series: Series) -> None:
    """Any slice and any size of block gives the same bytes as the whole."""
    everything = whole(series)
    assert everything.dtype == np.float32
    for size in (7, 64, 333):
        assert np.concatenate(list(blocks(series.values, size))).tobytes() == everything.tobytes()
    for start, stop in ((0, 1), (99, 101), (250, 612), (998, 1000), (5, 5)):
        assert series.values[start:stop].tobytes() == everything[start:stop].tobytes()


def marks(recording: Recording) -> list[tuple[float, float, str]]:
    found = recording.markers
    assert found is not None
    assert found.durations is not None
    return [
        (float(t), float(d), found.names[k])
        for t, d, k in zip(found.times, found.durations, found.kinds, strict=True)
    ]


def kinds(recording: Recording) -> set[str]:
    return {finding.kind for finding in recording.findings}


@pytest.mark.parametrize("name", ["edf", "bdf"])
def test_edf_and_bdf(tmp_path: Path, name: str) -> None:
    values = eeg_files.write_edf(tmp_path / f"a.{name}", bdf=name == "bdf")
    shutil.move(tmp_path / f"a.{name}", tmp_path / "named.otherwise")
    recording = open_recording(tmp_path / "named.otherwise")
    neural = recording.neural
    assert (recording.format, recording.subject, recording.session) == (name, "S07", "named")
    assert neural.names == eeg_files.NAMES
    assert [c.type for c in neural.channels] == ["eeg", "eog", "emg"]
    assert {c.unit for c in neural.channels} == {"µV"}
    assert neural.rate == 100
    assert np.allclose(whole(neural), values, atol=1e-4)
    assert marks(recording) == [(1.25, 0.5, "left"), (4.0, 0.0, "right")]
    check_lazy(neural)


def test_edf_agrees_with_mne(tmp_path: Path) -> None:
    import mne

    eeg_files.write_edf(tmp_path / "a.edf")
    raw = mne.io.read_raw_edf(tmp_path / "a.edf", verbose="ERROR")
    ours = whole(open_recording(tmp_path / "a.edf").neural)
    assert np.allclose(ours, raw.get_data().T * 1e6, atol=1e-5)


def test_edf_channels_of_different_rates_are_not_resampled(tmp_path: Path) -> None:
    import edfio

    def signal(label: str, rate: float, unit: str) -> edfio.EdfSignal:
        data = np.random.default_rng(0).standard_normal(int(10 * rate)) * 10
        return edfio.EdfSignal(data, rate, label=label, physical_dimension=unit)

    signals = [signal("Temp rectal", 1, "degC"), signal("Fz", 100, "mV"), signal("Cz", 100, "uV")]
    edfio.Edf(signals).write(tmp_path / "a.edf")
    recording = open_recording(tmp_path / "a.edf")
    assert {n: m.rate for n, m in recording.modalities.items()} == {"neural": 100, "other_1hz": 1}
    assert recording.modalities["other_1hz"].channels[0].unit == "degC"
    assert np.allclose(whole(recording.neural)[:, 0], signals[1].data * 1000, rtol=1e-4, atol=1)
    assert "rate" in kinds(recording)


def test_edf_large_records_are_read_channel_by_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eeg_files.write_edf(tmp_path / "a.edf")
    together = whole(open_recording(tmp_path / "a.edf").neural)
    monkeypatch.setattr("recording.readers.edf_records.WHOLE_BYTES", 100)
    neural = open_recording(tmp_path / "a.edf").neural
    apart = np.concatenate([neural.values[at : at + 37] for at in range(0, 1000, 37)])
    assert apart.tobytes() == together.tobytes()


def test_few_edf_channels_of_many_are_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = eeg_files.write_edf(tmp_path / "a.edf")
    header = edf.read_header(tmp_path / "a.edf")
    first, samples = header.signals[1].first, header.signals[1].samples
    wide = edf_records.Records(tmp_path / "a.edf", header, [first], samples)
    monkeypatch.setattr(edf_records, "NARROW", 1)
    monkeypatch.setattr(edf_records, "NARROW_BYTES", 0)
    narrow = edf_records.Records(tmp_path / "a.edf", header, [first], samples)
    assert (wide.narrow, narrow.narrow) == (False, True)
    assert len(narrow) == len(expected)
    for start, stop in ((0, 1000), (95, 105), (250, 731), (10, 10)):
        np.testing.assert_array_equal(narrow[start:stop], wide[start:stop])


def test_the_later_parts_of_a_split_fif_are_no_recordings_of_their_own(tmp_path: Path) -> None:
    for name in (
        "x.fif",
        "x-1.fif",
        "run-2.fif",
        "sub-1_split-01_meg.fif",
        "sub-1_split-02_meg.fif",
    ):
        (tmp_path / name).write_bytes(b"")
    later = [one.name for one in sorted(tmp_path.iterdir()) if bids.is_later_part(one)]
    assert later == ["sub-1_split-02_meg.fif", "x-1.fif"]


def test_edf_with_gaps_becomes_pieces(tmp_path: Path) -> None:
    eeg_files.write_edf(tmp_path / "a.edf")
    data = bytearray((tmp_path / "a.edf").read_bytes())
    data[192:197] = b"EDF+D"
    # From the last one on, since a time that was moved reads like that of a later record.
    for record in range(9, 4, -1):
        old, new = f"+{record}\x14\x14\0\0", f"+{record + 3}\x14\x14\0\0\0"
        at = data.index(old.encode())
        data[at : at + 6] = new.encode()[:6]
    (tmp_path / "a.edf").write_bytes(data)
    neural = open_recording(tmp_path / "a.edf").neural
    assert [(p.start, p.first, p.stop) for p in neural.pieces] == [(0, 0, 500), (8, 500, 1000)]


def test_bdf_trigger_codes_become_markers(tmp_path: Path) -> None:
    import edfio

    codes = np.zeros(1000)
    codes[125:130], codes[400:410] = 3, 5
    status = edfio.BdfSignal.from_digital(
        codes.astype(np.int32), 100, label="Status", physical_range=(-8388608, 8388607),
        digital_range=(-8388608, 8388607),
    )  # fmt: skip
    eeg = edfio.BdfSignal(eeg_files.volts()[:, 0] * 1e6, 100, label="A1", physical_dimension="uV")
    edfio.Bdf([eeg, status]).write(tmp_path / "a.bdf")
    recording = open_recording(tmp_path / "a.bdf")
    assert marks(recording) == [(1.25, 0, "3"), (4.0, 0, "5")]
    assert recording.neural.names == ("A1",)
    assert recording.modalities["stimulus"].names == ("Status",)


@pytest.mark.parametrize("fmt", ["binary_float32", "binary_int16"])
def test_brainvision(tmp_path: Path, fmt: str) -> None:
    values = eeg_files.write_brainvision(tmp_path, fmt=fmt)
    for name in ("rec.vhdr", "rec.eeg", "rec.vmrk", "."):
        recording = open_recording(tmp_path / name)
        assert recording.source == "rec.vhdr"
        assert recording.neural.rate == 100
        assert np.allclose(whole(recording.neural), values, atol=0.101)
    assert marks(recording) == [(1.25, 0.5, "Stimulus/S  1"), (4.0, 0, "Comment/pressed")]
    assert [c.type for c in recording.neural.channels] == ["eeg", "eog", "emg"]
    check_lazy(recording.neural)


def test_brainvision_channel_after_channel_in_other_units(tmp_path: Path) -> None:
    values = eeg_files.write_brainvision(tmp_path)
    raw = np.fromfile(tmp_path / "rec.eeg", "<f4").reshape(-1, 3)
    raw.T.astype(">f4").tofile(tmp_path / "rec.eeg")
    header = (tmp_path / "rec.vhdr").read_text().replace("MULTIPLEXED", "VECTORIZED")
    header = header.replace("0.1,µV", "0.0001,mV").replace(
        "[Binary Infos]", "[Binary Infos]\nUseBigEndianOrder=YES"
    )
    (tmp_path / "rec.vhdr").write_text(header)
    neural = open_recording(tmp_path / "rec.vhdr").neural
    assert np.allclose(whole(neural), values, atol=1e-3)
    check_lazy(neural)


def test_brainvision_new_segments_are_borders(tmp_path: Path) -> None:
    eeg_files.write_brainvision(tmp_path)
    with (tmp_path / "rec.vmrk").open("a") as file:
        file.write("Mk9=New Segment,,501,1,0,20200102030405000000\n")
    recording = open_recording(tmp_path / "rec.vhdr")
    assert [(p.first, p.stop) for p in recording.neural.pieces] == [(0, 500), (500, 1000)]
    assert "discontinuity" in kinds(recording)


def test_two_recordings_in_a_folder_need_a_name(tmp_path: Path) -> None:
    eeg_files.write_brainvision(tmp_path, "one")
    eeg_files.write_brainvision(tmp_path, "two")
    with pytest.raises(ValueError, match=r"holds 2 recordings: one.vhdr, two.vhdr; name one"):
        open_recording(tmp_path)


def test_folders_with_other_files_are_not_of_one_format(tmp_path: Path) -> None:
    eeg_files.write_edf(tmp_path / "a.edf")
    assert find_format(tmp_path).name == "edf"
    assert open_recording(tmp_path).source == "a.edf"
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 2)))
    assert find_format(tmp_path).name == "folder"
    (tmp_path / "dataset_description.json").write_text("{}")
    assert find_format(tmp_path).name == "edf"


def test_fif(tmp_path: Path) -> None:
    raw = eeg_files.raw_array()
    eeg_files.save_fif(raw, tmp_path / "a_raw.fif")
    recording = open_recording(tmp_path / "a_raw.fif")
    neural = recording.neural
    assert neural.names == (*eeg_files.NAMES, "MEG1")
    assert [c.type for c in neural.channels] == ["eeg", "eog", "emg", "meg"]
    assert [c.unit for c in neural.channels] == ["µV", "µV", "µV", "T"]
    expected = raw.get_data().T
    assert np.allclose(whole(neural)[:, :3], expected[:, :3] * 1e6, rtol=1e-5, atol=1e-5)
    assert np.allclose(whole(neural)[:, 3], expected[:, 3], rtol=1e-5, atol=1e-18)
    behavior = recording.modalities["behavior"]
    assert (behavior.names, behavior.channels[0].type) == (("wheel",), "behavior")
    assert marks(recording) == [(1.25, 0.5, "left"), (4.0, 0.0, "right")]
    assert [f.channels for f in recording.findings if f.kind == "bad"] == [("Fz",)]
    check_lazy(neural)
    kept = open_recording(tmp_path / "a_raw.fif", {"behavior": []})
    assert kept.neural.names[-1] == "wheel"


def test_fif_trigger_channel_gives_markers_where_nothing_is_annotated(tmp_path: Path) -> None:
    eeg_files.save_fif(eeg_files.raw_array(trigger=True, annotated=False), tmp_path / "a_raw.fif")
    recording = open_recording(tmp_path / "a_raw.fif")
    assert marks(recording) == [(1.25, 0, "3"), (4.0, 0, "5")]
    eeg_files.save_fif(eeg_files.raw_array(trigger=True), tmp_path / "b_raw.fif")
    assert [m[2] for m in marks(open_recording(tmp_path / "b_raw.fif"))] == ["left", "right"]


def test_fif_joined_recordings_have_a_border(tmp_path: Path) -> None:
    import mne

    raw = mne.concatenate_raws(
        [eeg_files.raw_array(), eeg_files.raw_array()], verbose="ERROR", on_mismatch="ignore"
    )
    eeg_files.save_fif(raw, tmp_path / "a_raw.fif")
    recording = open_recording(tmp_path / "a_raw.fif")
    assert [(p.first, p.stop) for p in recording.neural.pieces] == [(0, 1000), (1000, 2000)]
    assert len(marks(recording)) == 4


def test_fif_parts_of_a_split_recording_must_be_there(tmp_path: Path) -> None:
    import mne

    short = eeg_files.raw_array(annotated=False)
    raw = mne.io.RawArray(np.tile(short.get_data(), 150), short.info, verbose="ERROR")
    eeg_files.save_fif(raw, tmp_path / "a_raw.fif", split_size="2MB")
    parts = sorted(tmp_path.glob("a_raw*.fif"))
    assert len(parts) > 1
    neural = open_recording(tmp_path / "a_raw.fif").neural
    assert np.allclose(whole(neural)[-1000:, :3], short.get_data()[:3].T * 1e6, rtol=1e-5)
    parts[0].unlink()
    with pytest.raises(ValueError, match=r"goes on in 'a_raw-\d.fif'; there is no such file"):
        open_recording(tmp_path / "a_raw.fif")


def test_fif_skipped_samples_are_missing(tmp_path: Path) -> None:
    import mne

    raw = eeg_files.raw_array()
    raw.set_annotations(mne.Annotations([3.0], [1.0], ["BAD_ACQ_SKIP"]))
    eeg_files.save_fif(raw, tmp_path / "a_raw.fif")
    neural = open_recording(tmp_path / "a_raw.fif").neural
    assert np.isnan(whole(neural)[300:400]).all()
    assert np.isfinite(np.delete(whole(neural), np.s_[300:400], axis=0)).all()
    assert [p.first for p in neural.pieces] == [0, 300, 400]


def test_eeglab(tmp_path: Path) -> None:
    values = eeg_files.write_set(tmp_path / "a.set")
    recording = open_recording(tmp_path / "a.set")
    assert recording.format == "eeglab"
    assert recording.neural.names == eeg_files.NAMES
    assert np.allclose(whole(recording.neural), values, rtol=1e-6)
    assert marks(recording) == [(1.25, 0.5, "left"), (4.0, 0.0, "right")]
    assert [p.first for p in recording.neural.pieces] == [0, 300]
    check_lazy(recording.neural)


def test_eeglab_epochs_are_trials_and_pieces(tmp_path: Path) -> None:
    values = eeg_files.write_set(tmp_path / "a.set", epochs=10)
    recording = open_recording(tmp_path / "a.set")
    assert np.allclose(whole(recording.neural), values, rtol=1e-6)
    assert [p.first for p in recording.neural.pieces] == list(range(0, 1000, 100))
    trials = recording.trials
    assert trials is not None
    assert len(trials) == 10
    assert [trials.names[k] for k in trials.kinds] == ["left", "right"] * 5
    assert trials.durations is not None
    assert (trials.durations == 1).all()


@pytest.mark.parametrize("epochs", [0, 10])
def test_eeglab_in_hdf5_and_uncompressed_stay_in_the_file(tmp_path: Path, epochs: int) -> None:
    values = eeg_files.volts() * 1e6
    events = [
        {"type": "go", "latency": 126.5, "duration": 50.0},
        {"type": "stop", "latency": 401.0},
    ]
    write_hdf5(tmp_path / "b.set", values, events, epochs)
    content = {
        "data": (values.T.reshape(3, epochs, -1).transpose(0, 2, 1) if epochs else values.T),
        "srate": 100.0, "nbchan": 3.0, "trials": float(epochs or 1), "xmin": 0.0,
        "pnts": 1000.0 / (epochs or 1), "event": np.array(events[:1]),
        "chanlocs": [{"labels": name, "type": "EEG"} for name in eeg_files.NAMES],
    }  # fmt: skip
    scipy.io.savemat(tmp_path / "a.set", {"EEG": content})
    for name in ("a.set", "b.set"):
        recording = open_recording(tmp_path / name)
        assert np.allclose(whole(recording.neural), values, rtol=1e-6)
        check_lazy(recording.neural)
        assert recording.neural.names == eeg_files.NAMES
        assert marks(recording)[0] == (1.255, 0.5, "go")
        assert (recording.trials is not None) == bool(epochs)
    assert marks(recording)[1] == (4.0, 0.0, "stop")


def write_hdf5(
    path: Path, values: np.ndarray, events: list[dict[str, object]], epochs: int
) -> None:
    """An EEG structure as MATLAB 7.3 lays it out."""
    with h5py.File(path, "w", userblock_size=512) as file:
        eeg, refs = file.create_group("EEG"), file.create_group("#refs#")
        data = values.reshape(epochs, -1, 3) if epochs else values
        eeg.create_dataset("data", data=data.astype("f4")).attrs["MATLAB_class"] = b"single"
        sizes = {"srate": 100, "nbchan": 3, "pnts": 1000 / (epochs or 1), "trials": epochs or 1}
        for name, number in {**sizes, "xmin": 0}.items():
            eeg.create_dataset(name, data=np.array([[float(number)]])).attrs["MATLAB_class"] = (
                b"double"
            )

        def put(value: object) -> h5py.Reference:
            name = f"r{len(refs)}"
            if isinstance(value, str):
                codes = np.array([[ord(letter)] for letter in value], np.uint16)
                refs.create_dataset(name, data=codes).attrs["MATLAB_class"] = b"char"
            else:
                number = np.array([[value]], float)
                refs.create_dataset(name, data=number).attrs["MATLAB_class"] = b"double"
            return refs[name].ref

        rows = {"event": events, "chanlocs": [{"labels": name} for name in eeg_files.NAMES]}
        for name, structs in rows.items():
            group = eeg.create_group(name)
            for key in structs[0]:
                column = [[put(row.get(key, float("nan")))] for row in structs]
                group.create_dataset(key, data=np.array(column, h5py.ref_dtype))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def test_eeglab_content_wins_over_matlab(tmp_path: Path) -> None:
    eeg_files.write_set(tmp_path / "a.set")
    (tmp_path / "a.set").rename(tmp_path / "a.mat")
    assert find_format(tmp_path / "a.mat").name == "eeglab"
    scipy.io.savemat(tmp_path / "b.mat", {"x": np.eye(3)})
    assert find_format(tmp_path / "b.mat").name != "eeglab"


def test_shared_eeglab(shared_data: Path) -> None:
    folder = shared_data / "eeg_eeglab"
    recording = open_recording(folder / "eeglab_data.set")
    neural = recording.neural
    raw = np.fromfile(folder / "eeglab_data.fdt", "<f4").reshape((32, -1), order="F").T
    assert np.array_equal(whole(neural), raw)
    assert (neural.rate, len(neural.pieces)) == (128, 1)
    assert [c.name for c in neural.channels if c.type == "eog"] == ["EOG1", "EOG2"]
    assert {c.unit for c in neural.channels} == {""}
    assert recording.markers is not None
    assert recording.markers.counts == {"rt": 74, "square": 80}
    struct = scipy.io.loadmat(folder / "eeglab_data.set", simplify_cells=True)["EEG"]
    exact = sorted((event["latency"] - 1) / 128 for event in struct["event"])
    assert np.array_equal(recording.markers.times, exact)
    # The nose is along y, the left ear along -x.
    places = {c.name: c.position for c in neural.channels}
    assert places["FPz"][1] > 0.08
    assert places["T7"][0] < -0.08
    unit = next(f for f in recording.findings if f.kind == "unit")
    assert unit.level == "note"
    assert unit.steps == ({"step": "declare", "unit": "µV", "factor": 1.0},)
    fields = {"event_fields": ["type", "position"]}
    told = open_recording(folder / "eeglab_data.fdt", fields).markers
    assert told is not None
    assert told.counts == {"rt": 74, "square/1": 40, "square/2": 40}


def test_shared_gripforce(shared_data: Path) -> None:
    recording = open_recording(shared_data / "gripforce")
    neural = recording.neural
    file = next((shared_data / "gripforce").rglob("*.eeg"))
    raw = np.fromfile(file, "<f4").reshape(-1, 10)
    assert np.allclose(whole(neural), raw[:, :9] * 0.1, rtol=1e-6)
    assert (recording.subject, recording.session) == (
        "testsub",
        "sub-testsub_ses-EphysMedOff_task-gripforce_run-0",
    )
    assert [c.type for c in neural.channels] == ["lfp"] * 3 + ["ecog"] * 6
    assert recording.modalities["behavior"].names == ("MOV_RIGHT",)
    assert neural.channels[0].position == pytest.approx((0.01182808, -0.01515975, -0.0077691))
    assert recording.facts["line_frequency"] == "60"
    scale = next(f for f in recording.findings if f.kind == "scale")
    assert scale.steps == ({"step": "declare", "unit": "µV", "factor": 1e-6},)
    assert "1.7e+07–4.8e+07 µV" in scale.text
    kept = open_recording(shared_data / "gripforce", {"behavior": []})
    assert kept.neural.names[-1] == "MOV_RIGHT"
    typed = open_recording(shared_data / "gripforce", {"types": {"LFP*": "seeg"}, "subject": "x"})
    assert typed.neural.channels[0].type == "seeg"
    assert typed.subject == "x"


def test_bids_sidecars(tmp_path: Path) -> None:
    stem = "sub-01_ses-a_task-rest"
    eeg_files.write_edf(tmp_path / f"{stem}_eeg.edf")
    rows = ["name\ttype\tunits\tstatus", "Fz\tEEG\tuV\tbad", "EOG1\tMISC\tuV\tgood"]
    (tmp_path / f"{stem}_channels.tsv").write_text("\n".join(rows))
    (tmp_path / f"{stem}_electrodes.tsv").write_text("name\tx\ty\tz\nFz\t0\t80\t40\n")
    (tmp_path / f"{stem}_coordsystem.json").write_text('{"EEGCoordinateUnits": "mm"}')
    side = tmp_path / "task-rest_eeg.json"
    side.write_text(json.dumps({"PowerLineFrequency": 50, "SamplingFrequency": 100}))
    recording = open_recording(tmp_path / f"{stem}_eeg.edf")
    assert (recording.subject, recording.session) == ("01", stem)
    assert recording.neural.channels[0].position == (0.0, 0.08, 0.04)
    assert recording.modalities["behavior"].names == ("EOG1",)
    assert recording.facts["line_frequency"] == "50"
    bad = next(f for f in recording.findings if f.kind == "bad")
    assert bad.steps == ({"step": "drop", "names": ["Fz"]},)
    side.write_text(json.dumps({"SamplingFrequency": 500}))
    with pytest.raises(ValueError, match=r"clocks disagree: the file says 100 Hz, .* 500 Hz"):
        open_recording(tmp_path / f"{stem}_eeg.edf")

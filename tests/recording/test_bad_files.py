"""Eight kinds of bad files, by the command line: each named by file, stream and time; no crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import eeg_files
import numpy as np
import pytest
import scipy.io

from recording.cli import main

Write = Callable[[Path], Path]


def _edf(folder: Path, at: int | None = None, new: bytes = b"", keep: int | None = None) -> Path:
    path = folder / "a.edf"
    eeg_files.write_edf(path)
    data = bytearray(path.read_bytes())
    if at is not None:
        data[at : at + len(new)] = new
    path.write_bytes(data[:keep])
    return path


def _brainvision(folder: Path, cut: int) -> Path:
    eeg_files.write_brainvision(folder, "a")
    samples = folder / "a.eeg"
    samples.write_bytes(samples.read_bytes()[:-cut])
    return folder / "a.vhdr"


def _set(folder: Path, channels: int, samples: int) -> Path:
    """An EEGLAB file of 3 channels × 1000 samples beside numbers of another size."""
    names = np.array([(name,) for name in "abc"], [("labels", object)])
    eeg = {"data": "a.fdt", "srate": 100.0, "nbchan": 3, "pnts": 1000, "trials": 1}
    scipy.io.savemat(folder / "a.set", {"EEG": eeg | {"chanlocs": names}})
    np.zeros((samples, channels), "<f4").tofile(folder / "a.fdt")
    return folder / "a.set"


def _binary(folder: Path, *, count: int = 0, text: bool = False) -> Path:
    (folder / "a.bin").write_bytes(bytes(count))
    fields = {"dtype": "int16", "channels": 4, "rate": "fast" if text else 100}
    (folder / "a.json").write_text(json.dumps(fields))
    return folder / "a.bin"


def _csv(folder: Path, change: Callable[[list[str]], None]) -> Path:
    """A table at 100 Hz with one thing changed among its lines of "time,C3,C4"."""
    lines = [f"{step / 100:.2f},{step % 7},{step % 5}" for step in range(300)]
    change(lines)
    (folder / "a.csv").write_text("\n".join(["time,C3,C4", *lines]))
    return folder / "a.csv"


def _swap(lines: list[str]) -> None:
    lines[150], lines[151] = lines[151], lines[150]


def _repeat(lines: list[str]) -> None:
    lines[151] = lines[150]


def _word(lines: list[str]) -> None:
    lines[150] = "1.50,bad,3"


def _furlongs(folder: Path) -> Path:
    path = _csv(folder, lambda lines: None)
    path.write_text(path.read_text().replace("time,C3,C4", "time,C3 [furlong],C4"))
    return path


def _spikes(folder: Path, times: list[float]) -> Path:
    units, tetrodes = np.empty(1, object), np.empty(1, object)
    units[0] = {"time": np.array(times)[:, None]}
    tetrodes[0] = units
    scipy.io.savemat(folder / "a.mat", {"spikes": tetrodes})
    return folder / "a.mat"


def _track(folder: Path, times: list[float], start: float = 0.0) -> Path:
    """Spikes and positions in an archive: positions at these times."""
    stamps = np.array(times) + start
    np.savez(
        folder / "a.npz",
        spike_times=np.array([0.1, 0.5, 1.0]),
        spike_unit=np.zeros(3, np.int64),
        pos_t=stamps,
        pos_xy_px=np.arange(2 * len(stamps)).reshape(-1, 2),
    )
    return folder / "a.npz"


def _nwb(folder: Path, unit: str, stamps: np.ndarray | None = None) -> Path:
    """The least of an NWB file with one electrical series."""
    import h5py

    path = folder / "a.nwb"
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        series = file.create_group("acquisition/lfp")
        series.attrs["neurodata_type"] = "ElectricalSeries"
        data = series.create_dataset("data", data=np.zeros((300, 2), "f4"))
        data.attrs["unit"] = unit
        if stamps is None:
            start = series.create_dataset("starting_time", data=0.0)
            start.attrs["rate"] = 100.0
        else:
            series.create_dataset("timestamps", data=stamps)
    return path


def _trials(folder: Path, line: str) -> Path:
    head = ["#sampling rate 100 Hz", "@dimensions 1", "@classLabel true a b", "@data"]
    (folder / "a.ts").write_text("\n".join([*head, "1,2,3,4:a", line]))
    return folder / "a.ts"


def _json_rate(folder: Path) -> Path:
    eeg_files.write_edf(folder / "sub-1_task-x_eeg.edf")
    (folder / "sub-1_task-x_eeg.json").write_text('{"SamplingFrequency": 250}')
    return folder / "sub-1_task-x_eeg.edf"


def _gone_back() -> np.ndarray:
    stamps = np.arange(300) / 100
    stamps[200:] -= 0.5
    return stamps


CASES: dict[str, tuple[Write, tuple[str, ...]]] = {
    # truncated
    "edf cut off": (
        lambda folder: _edf(folder, keep=-1000),
        ("a.edf", "10 data records", "the file holds 8", "truncated", "records: 8"),
    ),
    "edf cut off in its header": (lambda folder: _edf(folder, keep=400), ("a.edf", "header")),
    "brainvision cut off": (
        lambda folder: _brainvision(folder, cut=1201),
        ("a.eeg", "at 8.99 s", "truncated"),
    ),
    "eeglab samples cut off": (
        lambda folder: _set(folder, channels=3, samples=600),
        ("a.fdt", "at 6 s", "truncated"),
    ),
    # wrong channel count
    "edf with another number of channels": (
        lambda folder: _edf(folder, at=252, new=b"3   "),
        ("a.edf", "says 3 signals"),
    ),
    "eeglab with another number of channels": (
        lambda folder: _set(folder, channels=4, samples=1000),
        ("a.fdt", "number of channels is wrong"),
    ),
    "binary with another number of channels": (
        lambda folder: _binary(folder, count=301 * 6),  # 3 channels of int16, not 4
        ("a.bin", "neural", "at 2.25 s", "channels"),
    ),
    "a trial with another number of channels": (
        lambda folder: _trials(folder, "1,2,3,4:1,2,3,4:b"),
        ("a.ts", "neural", "at 0.04 s", "line 6", "2 channels; must be 1"),
    ),
    # time that goes back
    "table whose time goes back": (
        lambda folder: _csv(folder, _swap),
        ("a.csv", "neural", "at 1.5 s", "times must not go back"),
    ),
    "nwb whose time goes back": (
        lambda folder: _nwb(folder, "volts", _gone_back()),
        ("a.nwb", "acquisition/lfp", "at 1.5 s", "times must not go back"),
    ),
    "spikes that go back": (
        lambda folder: _spikes(folder, [1.0, 3.0, 2.0]),
        ("a.mat", "spikes of t1u1", "at 2 s", "times must not go back"),
    ),
    # time stamps twice
    "table with a time twice": (
        lambda folder: _csv(folder, _repeat),
        ("a.csv", "neural", "at 1.5 s", "150 and 151 are the same"),
    ),
    "positions with a time twice": (
        lambda folder: _track(folder, [0.1, 0.2, 0.2, 0.3, 0.3, 0.4]),
        ("a.npz", "behavior", "at 0.3 s", "one time stamp and different values"),
    ),
    # unknown units
    "table with an unknown unit": (
        lambda folder: _furlongs(folder),
        ("a.csv", "C3", "'furlong' is not known", "must be V, mV, µV"),
    ),
    "nwb with an unknown unit": (
        lambda folder: _nwb(folder, "furlong"),
        ("a.nwb", "acquisition/lfp", "'furlong'", "must be volts"),
    ),
    # text in numbers
    "table with text": (
        lambda folder: _csv(folder, _word),
        ("a.csv", "C3", "at 1.5 s", "line 152", "'bad' is text in numbers"),
    ),
    "edf header with text": (
        lambda folder: _edf(folder, at=244, new=b"fast    "),
        ("a.edf", "duration of a data record is 'fast'", "must be a number"),
    ),
    "sidecar with text": (
        lambda folder: _binary(folder, count=800, text=True),
        ("a.json", "rate", "valid number"),
    ),
    "trial with text": (
        lambda folder: _trials(folder, "1,2,x,4:b"),
        ("a.ts", "channel 1", "at 0.06 s", "line 6", "'x' is no number"),
    ),
    # clocks that disagree
    "sidecar with another rate": (
        _json_rate,
        ("sub-1_task-x_eeg.edf", "clocks disagree", "100 Hz", "250 Hz"),
    ),
    "positions of another clock": (
        lambda folder: _track(folder, [0.1, 0.2, 0.3], start=5000.0),
        ("a.npz", "behavior", "at 5000.1 s", "clocks disagree"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_files_are_refused_with_file_stream_and_time(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write, words = CASES[name]
    path = write(tmp_path)
    options = ["--option", "type=eeg"] if path.suffix == ".csv" else []
    assert main(["inspect", str(path), "--no-picture", *options]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.count("\n") == 1
    assert told.startswith("axonnx: error: ")
    missing = [word for word in words if word not in told]
    assert not missing, told


def test_runs_of_nan_are_told_with_their_times_and_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from recording import RecordingError, open_recording
    from recording.preparation import parse_steps, prepare

    values = np.random.default_rng(0).normal(0, 20, (1000, 3)).astype(np.float32)
    values[250:300, 1] = np.nan
    np.savez(tmp_path / "a.npz", data=values, fs=100.0, channel_names=["C3", "C4", "Cz"])
    assert main(["inspect", str(tmp_path / "a.npz"), "--no-picture", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    (missing,) = [one for one in found if one["kind"] == "missing"]
    assert (missing["times"], missing["channels"]) == ([2.5], ["C4"])
    assert missing["steps"] == [{"step": "split_missing"}]
    recording = open_recording(tmp_path / "a.npz")
    filtered = prepare(recording, parse_steps([{"step": "filter", "high": 20}]))
    with pytest.raises(RecordingError, match=r"a\.npz: C4: at 2\.5 s: .*missing \(NaN\)"):
        for _ in _blocks(filtered):
            pass
    cut = prepare(recording, parse_steps([{"step": "split_missing"}]))
    assert [(p.start, len(p)) for p in cut.neural.pieces] == [(0.0, 250), (3.0, 700)]


def _blocks(recording):  # type: ignore[no-untyped-def]
    from recording.signals import blocks

    return blocks(recording.neural.values)


def test_several_runs_of_a_bids_folder_are_named_and_have_names_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from recording import open_recording

    folder = tmp_path / "set" / "sub-1" / "ses-a" / "eeg"
    folder.mkdir(parents=True)
    first = folder / "sub-1_ses-a_task-x_run-1_eeg.edf"
    eeg_files.write_edf(first)
    shutil.copy(first, folder / "sub-1_ses-a_task-x_run-2_eeg.edf")
    eeg_files.write_brainvision(folder, "sub-1_ses-a_task-y_eeg")
    (tmp_path / "set" / "dataset_description.json").write_text("{}")
    assert main(["inspect", str(tmp_path / "set"), "--no-picture"]) == 2
    told = capsys.readouterr().err
    assert "holds 3 recordings" in told
    assert "sub-1/ses-a/eeg/sub-1_ses-a_task-x_run-1_eeg.edf" in told
    names = [open_recording(path).session for path in sorted(folder.glob("*.edf"))]
    assert names == ["sub-1_ses-a_task-x_run-1", "sub-1_ses-a_task-x_run-2"]


def test_a_file_that_belongs_to_another_is_not_read_twice(tmp_path: Path) -> None:
    from recording import open_recording

    _set(tmp_path, channels=3, samples=1000)
    eeg = np.arange(3000, dtype="<f4")
    eeg.tofile(tmp_path / "a.fdt")
    spikes = {"spike_times": np.array([1.0, 2.0]), "spike_unit": np.zeros(2, np.int64)}
    np.savez(tmp_path / "y.npz", **spikes)
    recording = open_recording(tmp_path)
    assert recording.format == "folder"
    assert recording.facts["files"] == "a.set, y.npz"
    assert set(recording.modalities) == {"neural", "spikes"}


def test_an_unknown_unit_of_an_edf_channel_is_told(tmp_path: Path) -> None:
    from recording import open_recording

    path = _edf(tmp_path)
    data = path.read_bytes()
    at = 256 + 4 * (16 + 80)  # of 4 signals, behind their labels and transducers
    path.write_bytes(data[:at] + b"furlong " + data[at + 8 :])
    recording = open_recording(path)
    (finding,) = [one for one in recording.findings if one.kind == "unit"]
    assert (finding.channels, finding.level) == (("Fz",), "warning")
    assert "unit 'furlong' of Fz is not known" in finding.text
    assert recording.neural.channels[0].unit == "furlong"


def test_missing_samples_inside_windows_are_not_trained_on(tmp_path: Path) -> None:
    from recording import RecordingError
    from trainer.data.recordings import recording

    values = np.random.default_rng(0).normal(0, 20, (1000, 3)).astype(np.float32)
    values[250:300, 1] = np.nan
    np.savez(tmp_path / "a.npz", data=values, fs=100.0, channel_names=["C3", "C4", "Cz"])
    with pytest.raises(RecordingError, match=r"a\.npz: neural channel C4: at 2\.5 s: .*NaN"):
        recording(path=str(tmp_path / "a.npz"), window=20, observed=10)


def test_links_that_name_links_come_to_an_end(tmp_path: Path) -> None:
    import h5py

    path = _nwb(tmp_path, "volts")
    with h5py.File(path, "r+") as file:
        file["here"] = file["/"]
        before = "here"
        for level in range(6):
            file[f"link{level}"] = h5py.SoftLink("/" + "/".join([before] * 500))
            before = f"link{level}"
        file["units"] = h5py.SoftLink(f"/{before}/units")
    assert main(["inspect", str(path), "--no-picture"]) == 2

"""Damaged and hostile EEG files: an error that names the file and the place, nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import eeg_files
import numpy as np
import pytest
import scipy.io

from recording.contract import Series
from recording.errors import RecordingError
from recording.opening import open_recording


def refuse(path: Path, format: str | None = None, **options: object) -> str:
    with pytest.raises(RecordingError) as caught:
        open_recording(path, options, format=format)
    return str(caught.value)


@pytest.fixture
def edf(tmp_path: Path) -> Path:
    eeg_files.write_edf(tmp_path / "a.edf")
    return tmp_path / "a.edf"


def change(path: Path, at: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


def test_truncated_edf(edf: Path) -> None:
    data = edf.read_bytes()
    edf.write_bytes(data[:-1000])
    text = refuse(edf)
    assert text.startswith("a.edf: the header says 10 data records of ")
    assert "the file holds 8 and " in text
    assert text.endswith("it is truncated; to read the whole ones set the option records: 8")
    neural = open_recording(edf, {"records": 8}).neural
    assert len(neural.values) == 800
    assert refuse(edf, records=9) == "a.edf: option records: 9; the file holds 8 whole ones"
    edf.write_bytes(data[:300])
    assert refuse(edf) == "a.edf: ends inside its header: 300 bytes of 1280"
    edf.write_bytes(data + b"12")
    assert "the file holds 10 and 2 bytes more" in refuse(edf)


@pytest.mark.parametrize(
    ("at", "new", "said"),
    [
        (236, b"-1      ", "-1 data records (not known)"),
        (236, b"ten     ", "number of data records is 'ten'; must be a whole number"),
        (252, b"0003", "says 3 signals in 1280 bytes"),
        (252, b"9999", "says 9999 signals in 1280 bytes"),
        (252, b"4e0 ", "number of signals is '4e0'"),
        (184, b"99999999", "says 4 signals in 99999999 bytes"),
        (244, b"0       ", "data records last 0 s"),
        (244, b"1,0     ", "duration of a data record is '1,0'; must be a number"),
        (244, b"nan     ", "duration of a data record is 'nan'"),
        (256 + 4 * 104, b"abc     ", "Fz: physical minimum is 'abc'; must be a number"),
        (256 + 4 * 120, b"32767   ", "Fz: digital minimum 32767 and maximum 32767; must rise"),
        (256 + 4 * 216, b"0       ", "Fz: 0 samples per data record"),
        (256 + 4 * 216, b"99999999", "the file holds 0"),
    ],
)
def test_edf_headers(edf: Path, at: int, new: bytes, said: str) -> None:
    assert said in refuse(change(edf, at, new))


def test_edf_times_and_annotations(edf: Path) -> None:
    data = edf.read_bytes()
    at = data.index(b"+5\x14\x14\0")
    assert "a.edf: at 5 s: data record 5 starts at 7 s, by the rate at 5 s" in refuse(
        change(edf, at, b"+7")
    )
    assert "at 5 s: data record 5 starts at 1 s, before" in refuse(change(edf, at, b"+1"))
    assert "at 5 s: annotation b'5" in refuse(change(edf, at, b"55"))


def test_edf_channel_with_one_physical_value_is_said(edf: Path) -> None:
    change(edf, 256 + 4 * 104, b"200     ")
    recording = open_recording(edf)
    assert (recording.neural.values[0:10][:, 0] == 200).all()
    assert any(f.kind == "scale" and f.channels == ("Fz",) for f in recording.findings)


def test_names_given_twice_are_told_apart(edf: Path) -> None:
    recording = open_recording(change(edf, 256 + 16, b"Fz".ljust(16)))
    assert recording.neural.names == ("Fz", "Fz (2)", "EMG chin")
    assert any(f.kind == "duplicate" for f in recording.findings)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DataFile=rec.eeg", "DataFile=/etc/passwd", "DataFile is '/etc/passwd'; must be a file"),
        ("DataFile=rec.eeg", "DataFile=../x.eeg", "DataFile is '../x.eeg'; must be a file in"),
        ("DataFile=rec.eeg", "DataFile=..", "DataFile is '..'; must be a file in"),
        ("DataFile=rec.eeg", "DataFile=no.eeg", "DataFile is 'no.eeg'; there is no such file"),
        ("MarkerFile=rec.vmrk", "MarkerFile=/etc/passwd", "MarkerFile is '/etc/passwd'"),
        ("NumberOfChannels=3", "NumberOfChannels=7", "NumberOfChannels is 7; [Channel Infos] has"),
        ("NumberOfChannels=3", "NumberOfChannels=three", "NumberOfChannels is 'three'; must be"),
        ("SamplingInterval=10000", "SamplingInterval=0", "SamplingInterval is 0 µs"),
        ("SamplingInterval=10000", "SamplingInterval=x", "SamplingInterval is 'x"),
        ("IEEE_FLOAT_32", "INT_24", "BinaryFormat is 'INT_24'; must be one of INT_16"),
        ("MULTIPLEXED", "SIDEWAYS", "DataOrientation is 'SIDEWAYS'"),
        ("DataFormat=BINARY", "DataFormat=ASCII", "DataFormat is ASCII; must be BINARY"),
        (",0.1,µV", ",tenth,µV", "ch1: resolution is 'tenth'; must be a number"),
        ("[Common Infos]", "[Common Thing]", "has no section [Common Infos]"),
    ],
)
def test_brainvision_headers(tmp_path: Path, old: str, new: str, said: str) -> None:
    eeg_files.write_brainvision(tmp_path)
    text = (tmp_path / "rec.vhdr").read_text()
    head, body = text.split("\n", 1)
    assert old in body
    (tmp_path / "rec.vhdr").write_text(head + "\n" + body.replace(old, new))
    assert refuse(tmp_path / "rec.vhdr").startswith(f"rec.vhdr: {said}")


def test_brainvision_samples_and_markers(tmp_path: Path) -> None:
    eeg_files.write_brainvision(tmp_path)
    data = (tmp_path / "rec.eeg").read_bytes()
    (tmp_path / "rec.eeg").write_bytes(data[:-1])
    assert refuse(tmp_path / "rec.vhdr").startswith("rec.eeg: at 9.99 s: 11999 bytes are no whole")
    (tmp_path / "rec.eeg").write_bytes(data[:4800])
    text = "rec.vmrk: at 4 s: marker mk"
    assert refuse(tmp_path / "rec.vhdr").startswith(text)
    (tmp_path / "rec.eeg").write_bytes(b"")
    assert "0 bytes are no whole number of samples" in refuse(tmp_path / "rec.vhdr")


def test_infinite_values_are_refused_when_read(tmp_path: Path) -> None:
    eeg_files.write_brainvision(tmp_path)
    data = np.fromfile(tmp_path / "rec.eeg", "<f4")
    data[1 + 3 * 777] = np.inf
    data.tofile(tmp_path / "rec.eeg")
    neural = open_recording(tmp_path / "rec.vhdr").neural
    with pytest.raises(RecordingError, match=r"rec.vhdr: neural: at 7.77 s: sample 777"):
        neural.values[700:800]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "x.fdt"}, "its samples are in 'x.fdt'; there is no such file"),
        ({"data": "/etc/passwd"}, "EEG.data is '/etc/passwd'; must be a file in"),
        ({"data": "../x.fdt"}, "EEG.data is '../x.fdt'; must be a file in"),
        ({"data": "short.fdt"}, "short.fdt: at 0.0166667 s: holds 20 bytes; 3 channels of 100"),
        ({"nbchan": 4.0}, "EEG.data has shape (3, 100); nbchan 4"),
        ({"pnts": 1e30}, "EEG.pnts is 1e+30"),
        ({"pnts": 2.5}, "EEG.pnts is 2.5; must be a whole number"),
        ({"srate": "fast"}, "EEG.srate is 'fast'; must be a number"),
        ({"srate": 0.0}, "EEG.srate is 0 Hz; must be above 0"),
        ({"event": {"type": "a", "latency": "soon"}}, "event 1 has no latency"),
        ({"chanlocs": {"labels": "Fz"}}, "EEG.nbchan is 3; EEG.chanlocs has 1"),
        ({"srate": None}, "its structure EEG has no field 'srate'"),
    ],
)
def test_eeglab_structures(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    content: dict[str, object] = {
        "data": np.ones((3, 100)), "srate": 100.0, "nbchan": 3.0, "pnts": 100.0, "trials": 1.0,
    }  # fmt: skip
    content |= changes
    (tmp_path / "short.fdt").write_bytes(b"12345678901234567890")
    kept = {key: value for key, value in content.items() if value is not None}
    scipy.io.savemat(tmp_path / "a.set", {"EEG": kept})
    assert said in refuse(tmp_path / "a.set")


def test_fif_files(tmp_path: Path) -> None:
    import mne

    raw = eeg_files.raw_array()
    eeg_files.save_fif(raw, tmp_path / "a_raw.fif")
    data = (tmp_path / "a_raw.fif").read_bytes()
    (tmp_path / "b_raw.fif").write_bytes(data[:-4000])
    assert "b_raw.fif: a tag at byte" in refuse(tmp_path / "b_raw.fif")
    epochs = mne.make_fixed_length_epochs(raw, 1.0, preload=True, verbose="ERROR")
    epochs.save(tmp_path / "c-epo.fif", verbose="ERROR")
    assert "c-epo.fif: holds epochs, not a continuous" in refuse(tmp_path / "c-epo.fif")


def test_formats_named_outright_refuse_other_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"something else entirely, and not that short" * 40)
    for name in ("edf", "bdf", "brainvision", "eeglab", "fif"):
        assert refuse(tmp_path / "x", format=name).startswith("x: ")


def _edf(folder: Path) -> Path:
    eeg_files.write_edf(folder / "a.edf")
    return folder / "a.edf"


def _vhdr(folder: Path) -> Path:
    eeg_files.write_brainvision(folder)
    return folder / "rec.vhdr"


def _set(folder: Path) -> Path:
    eeg_files.write_set(folder / "a.set")
    return folder / "a.set"


def _plain_set(folder: Path) -> Path:
    content = {"data": eeg_files.volts(60).T, "srate": 100.0, "nbchan": 3.0, "pnts": 60.0}
    content["event"] = {"type": "go", "latency": 5.0}
    content["chanlocs"] = [{"labels": name} for name in eeg_files.NAMES]
    scipy.io.savemat(folder / "a.set", {"EEG": content})
    return folder / "a.set"


def _fif(folder: Path) -> Path:
    eeg_files.save_fif(eeg_files.raw_array().crop(0, 0.5), folder / "a_raw.fif")
    return folder / "a_raw.fif"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("write", "format", "rounds"),
    [
        (_edf, "edf", 300),
        (_vhdr, "brainvision", 300),
        (_set, "eeglab", 150),
        (_plain_set, "eeglab", 300),
        (_fif, "fif", 60),
    ],
)
def test_flipped_bytes_give_recording_errors_only(
    tmp_path: Path, write: Callable[[Path], Path], format: str, rounds: int
) -> None:
    path = write(tmp_path)
    original = path.read_bytes()
    source = random.Random(5)
    refused = 0
    for _ in range(rounds):
        data = bytearray(original)
        header = min(len(data), 3000)
        for _ in range(source.choice((1, 2, 8))):
            data[source.randrange(header)] = source.randrange(256)
        if source.random() < 0.2:
            del data[source.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            recording = open_recording(path, format=format)
            for modality in recording.modalities.values():
                assert isinstance(modality, Series)
                modality.values[0 : min(len(modality.values), 50)]
        except RecordingError:
            refused += 1
    assert refused
    shutil.rmtree(tmp_path)

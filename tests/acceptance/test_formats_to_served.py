"""Files that the reference libraries write: inspect, init, train, evaluate, predict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

import axonnx
from recording.opening import open_recording

RATE, SECONDS = 100.0, 60
NAMES = ("Fz", "C3", "C4", "Pz")


def potentials() -> np.ndarray:
    """Coupled rhythms in noise, some 20 µV: (time, channel)."""
    generator = np.random.default_rng(3)
    time = np.arange(int(SECONDS * RATE)) / RATE
    phases = generator.normal(0, 0.05, (len(time), 1)).cumsum(axis=0) + np.arange(len(NAMES))
    rhythm = 20 * np.sin(2 * np.pi * 8 * time[:, None] + phases)
    return np.asarray(rhythm + generator.normal(0, 5, rhythm.shape))


def write_edf(path: Path) -> np.ndarray:
    """EDF of 16 bits; the values that these bits stand for, in µV."""
    import edfio

    values = potentials()
    signals = [
        edfio.EdfSignal(
            values[:, index],
            RATE,
            label=f"EEG {name}",
            physical_dimension="uV",
            physical_range=(-200.0, 200.0),
        )
        for index, name in enumerate(NAMES)
    ]
    file = edfio.Edf(signals, annotations=[edfio.EdfAnnotation(5.0, None, "begin")])
    file.write(path)
    return np.stack([signal.data for signal in edfio.read_edf(path).signals], axis=1)


def write_fif(path: Path) -> np.ndarray:
    """FIF of float64, in V; the values in µV."""
    import mne

    values = potentials()
    info = mne.create_info(list(NAMES), RATE, "eeg", verbose="error")
    raw = mne.io.RawArray(values.T * 1e-6, info, verbose="error")
    raw.save(path, fmt="double", verbose="error")
    return values


def write_nwb(path: Path) -> np.ndarray:
    """NWB with an ElectricalSeries of int16, 0.1 µV a step; the values in µV."""
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries

    steps = np.round(potentials() * 10).astype(np.int16)
    file = NWBFile(
        session_description="rhythms",
        identifier="one",
        session_start_time=datetime(2024, 1, 1, tzinfo=UTC),
        session_id="rest",
    )
    device = file.create_device(name="amplifier")
    group = file.create_electrode_group(
        name="cap", description="scalp", location="scalp", device=device
    )
    file.add_electrode_column("label", "name")
    for name in NAMES:
        file.add_electrode(x=0.0, y=0.0, z=0.0, group=group, location="scalp", label=name)
    region = file.create_electrode_table_region([0, 1, 2, 3], "all")
    file.add_acquisition(
        ElectricalSeries(name="eeg", data=steps, electrodes=region, rate=RATE, conversion=1e-7)
    )
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return steps * 0.1


def write_matlab5(path: Path) -> np.ndarray:
    """MATLAB 5 as scipy writes it, with its rate and labels; the values as they are."""
    values = potentials()
    savemat(path, {"data": values, "fs": RATE, "labels": np.array(NAMES, object)})
    return values


def write_matlab73(path: Path) -> np.ndarray:
    """MATLAB 7.3: HDF5 behind 512 bytes, matrices turned; the values as they are."""
    values = potentials()
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, matrix in (("data", values), ("fs", np.array([[RATE]]))):
            file.create_dataset(name, data=matrix.T)
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return values


Write = Callable[[Path], np.ndarray]
FORMATS: dict[str, tuple[str, Write, float]] = {
    "edf": ("session.edf", write_edf, 1e-4),
    "fif": ("session_raw.fif", write_fif, 1e-4),
    "nwb": ("session.nwb", write_nwb, 1e-4),
    "matlab5": ("session5.mat", write_matlab5, 1e-5),
    "matlab73": ("session73.mat", write_matlab73, 1e-5),
}


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """One command in this process; what it printed."""
    code = axonnx.main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    return said.out


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_becomes_a_model_and_its_predictions(
    format: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, write, tolerance = FORMATS[format]
    written = write(Path(name))
    told = ["--option", "unit=µV", "--option", "type=eeg"] if "matlab" in format else []

    neural = open_recording(Path(name)).neural
    assert (neural.rate, neural.values.shape) == (RATE, written.shape)
    np.testing.assert_allclose(neural.values[0 : len(written)], written, atol=tolerance)

    said = run(capsys, "inspect", name, *told)
    assert "100 Hz" in said
    assert list(tmp_path.glob("*.png"))

    run(capsys, "init", name, "--task", "forecast", *told, "--output", "mine.yaml")
    run(capsys, "train", "mine.yaml", "--output", "run", "--training.device", "cpu")
    assert "skill" in run(capsys, "evaluate", "run/artifact")

    words = ("--part", "test", "--output", "answers.npz", "--no-picture")
    run(capsys, "predict", "run/artifact", name, *words)
    with np.load("answers.npz") as file:
        table = dict(file)
    assert np.isfinite(table["prediction"]).all()
    # Of a channel the forecast follows what was written at these times.
    rows = np.rint(table["time_s"] * RATE).astype(int)
    assert rows.min() > 0.8 * len(written)
    order = [list(neural.names).index(str(one).split(" [")[0]) for one in table["names"]]
    truth = written[rows][:, order]
    error = np.square(table["prediction"] - truth).mean()
    assert error < 0.7 * np.square(truth).mean()

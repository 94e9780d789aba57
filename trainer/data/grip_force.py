"""ECoG and deep LFP of one person who grips three times: the force, 19 s."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from recording.contract import Recording, Series
from recording.opening import open_recording
from recording.preparation import parse_steps
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split, TimeSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

FOLDER = "${AXONNX_DATA}/gripforce"
# Its header makes a sample 0.1 µV, which would be volts; 1e-6 of that are plausible µV.
FACTOR = 1e-6
STEPS = (
    {"step": "declare", "unit": "µV", "factor": FACTOR},
    {"step": "resample", "rate": 500},
    {
        "step": "bands",
        "edges": [4, 8, 12, 20, 35, 60, 90, 200],
        "smoothing": 0.5,
        "potential": False,
    },
    {"step": "align"},
)


@DATASETS.register("grip_force")
def grip_force(
    *,
    path: DataPath = FOLDER,
    window: Annotated[int, Field(ge=1)] = 250,
    split: Split = TimeSplit(train=0.34, validation=0.33, test=0.33),  # noqa: B008
    stride: Stride = Stride(train=50, validation=50, test=50),  # noqa: B008
) -> Dataset:
    """ECoG (6) and deep LFP (3) of one person, 19 s at 1000 Hz, to decode grip force.

    The header's scale would mean volts: the values are declared µV after a factor of 1e-6. Causal
    log power in seven bands at 500 Hz, windows of 0.5 s, 10 a second. Thirds of the time: each part
    holds one of the three grips. One short run: a smoke test. Force in units not stated. From
    py-neuromodulation, MIT.
    """
    return build_recordings(
        "grip_force",
        [_without_unit(open_recording(resolve(path), format="brainvision"))],
        task="decode",
        preparation=parse_steps(STEPS),
        window=window,
        split=split,
        stride=stride,
        format="brainvision",
        description="ECoG, deep LFP and grip force of one person (py-neuromodulation, MIT)",
    )


def _without_unit(recording: Recording) -> Recording:
    """The force is no voltage, whatever the header says."""
    behavior = recording.modalities["behavior"]
    assert isinstance(behavior, Series)
    channels = tuple(replace(channel, unit="") for channel in behavior.channels)
    return recording.with_modality("behavior", replace(behavior, channels=channels))

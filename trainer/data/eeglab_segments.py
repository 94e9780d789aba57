"""Human EEG of a visual attention task: 3 s segments joined in one EEGLAB file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recording.opening import open_recording
from recording.preparation import parse_steps
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import SegmentSplit, Split
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

FIRST, LENGTH = 89, 385  # samples of the first segment, and of each of the 79 others


@DATASETS.register("eeglab_segments")
def eeglab_segments(
    *,
    path: DataPath = "${AXONNX_DATA}/eeg_eeglab/eeglab_data.set",
    window: Annotated[int, Field(ge=2)] = 20,
    observed: Annotated[int, Field(ge=1)] = 10,
    split: Split = SegmentSplit(by="segment"),  # noqa: B008
    stride: Stride = Stride(),  # noqa: B008
) -> Dataset:
    """Human EEG and EOG, 32 channels at 128 Hz, 80 segments of 3 s, to forecast.

    The file joins segments that were not recorded one after the other: no window crosses a border.
    Segments 0-55 train, 56-67 validate, 68-79 test; eleven neighbours overlap in the original
    recording, none of them across these borders. µV. From the sample data of EEGLAB, BSD-2-Clause.
    """
    return build_recordings(
        "eeglab_segments",
        [open_recording(resolve(path), format="eeglab")],
        task="forecast",
        preparation=parse_steps(
            [
                {"step": "declare", "unit": "µV"},
                {"step": "segment", "first": FIRST, "length": LENGTH},
            ]
        ),
        window=window,
        observed=observed,
        split=split,
        stride=stride,
        format="eeglab",
        description="human EEG of a visual attention task, joined 3 s segments (EEGLAB sample "
        "data, BSD-2-Clause)",
    )

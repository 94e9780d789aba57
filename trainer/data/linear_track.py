"""Spikes of 31 units while an animal runs on a linear track, and where it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recording.opening import open_recording
from recording.preparation import parse_steps
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split, TimeSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@DATASETS.register("linear_track")
def linear_track(
    *,
    path: DataPath = "${AXONNX_DATA}/hippocampus_linear_track/linear_track.npz",
    width: Positive = 0.25,
    above: Positive = 15.0,
    seconds: Positive = 990.0,
    window: Annotated[int, Field(ge=1)] = 12,
    split: Split = TimeSplit(train=0.6, validation=0.1, test=0.3),  # noqa: B008
    stride: Stride = Stride(train=1, validation=1, test=1),  # noqa: B008
) -> Dataset:
    """Spikes of 31 units and head position on a linear track, to decode x and y (px).

    Counts in bins of `width` seconds; windows of `window` bins, answered with the position at the
    last one. Position counts where its speed is above `above` px/s, in the first `seconds`: the
    rest of the recording is rest. The last 30 % of the time are the test part. The animal's cells
    fire at places: `place_field` decodes them. From nelpy's example data, MIT; species and site not
    stated.
    """
    recording = open_recording(resolve(path), format="npz")
    start = recording.modalities["behavior"].span[0]
    return build_recordings(
        "linear_track",
        [recording],
        task="decode",
        preparation=parse_steps(
            [
                {"step": "crop", "stop": start + seconds},
                {"step": "mask", "channels": ["x", "y"], "value": 0.0},
                {"step": "bin", "width": width},
                {"step": "align"},
                {"step": "moving", "channels": ["x", "y"], "above": above},
            ]
        ),
        window=window,
        split=split,
        stride=stride,
        format="npz",
        description="spikes of 31 units and position on a linear track (nelpy example data, MIT)",
    )

"""A user's own recordings: `.npy` or `.npz` arrays, time × channel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recording.contract import Recording
from trainer.data.cutting import Stride, cut_forecast, session
from trainer.data.errors import DataError
from trainer.data.files import check_finite, open_array
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split, SubjectSplit, TimeSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS


@DATASETS.register("array")
def array(
    *,
    path: DataPath | Annotated[tuple[DataPath, ...], Field(min_length=1)],
    key: str | None = None,
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)],
    unit: str = "raw",
    layout: Literal["time_channel", "channel_time"] = "time_channel",
    channel_names: tuple[str, ...] | None = None,
    subjects: tuple[str, ...] | None = None,
    window: Annotated[int, Field(ge=2)] = 20,
    observed: Annotated[int, Field(ge=1)] = 10,
    split: Split = TimeSplit(),  # noqa: B008
    stride: Stride = Stride(),  # noqa: B008
) -> Dataset:
    """Your own arrays: one .npy or .npz file (time × channel), or a list of files = sessions.

    `rate` in Hz. A file (trial × time × channel) has trials: windows stay inside them, and
    `split.by: trial` works. Sessions are named after their files, `subjects` names one per file.
    """
    paths = [resolve(item) for item in ((path,) if isinstance(path, str) else path)]
    if subjects is not None and len(subjects) != len(paths):
        raise DataError(
            f"subjects: {len(subjects)} names for {len(paths)} files; name one per file"
        )
    if subjects is None and isinstance(split, SubjectSplit):
        raise DataError("split.by: subject needs `subjects`, one name per file")
    recordings = [
        _read(
            file,
            key=key,
            rate=rate,
            unit=unit,
            layout=layout,
            channel_names=channel_names,
            subject="" if subjects is None else subjects[index],
        )
        for index, file in enumerate(paths)
    ]
    return cut_forecast(
        "array",
        recordings,
        window=window,
        observed=observed,
        split=split,
        stride=stride,
        settings={"subjects": list(subjects or ()), "channel_names": list(channel_names or ())},
        description=f"{len(recordings)} session(s) of {rate:g} Hz from the user's own arrays",
    )


def _read(
    file: Path,
    *,
    key: str | None,
    rate: float,
    unit: str,
    layout: str,
    channel_names: tuple[str, ...] | None,
    subject: str,
) -> Recording:
    values = open_array(file, key=key)
    if values.ndim not in (2, 3):
        raise DataError(
            f"{file}: shape {values.shape} has {values.ndim} axes; must be (time, channel) or "
            "(trial, time, channel)"
        )
    if layout == "channel_time":
        values = values.swapaxes(-1, -2)
    time, channels = values.shape[-2:]
    if values.ndim == 2 and time < channels:
        other = "time_channel" if layout == "channel_time" else "channel_time"
        raise DataError(
            f"{file}: {time} samples of {channels} channels: the axes look swapped; "
            f"set layout: {other}"
        )
    names = channel_names or tuple(str(index) for index in range(channels))
    if len(names) != channels:
        raise DataError(f"channel_names: {len(names)} names; {file} has {channels} channels")
    trial = None
    if values.ndim == 3:
        check_finite(values, str(file), ("trial", "row", "channel"))
        trial = time
        values = values.reshape(-1, channels)
    else:
        check_finite(values, str(file), ("row", "channel"))
    return session(
        file.stem,
        values[:, :, np.newaxis],
        rate=rate,
        channel_names=names,
        unit=unit,
        subject=subject,
        trial=trial,
    )

"""A user's own recordings, in any format that is read here: the data set `recording`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from recording.contract import Recording
from recording.opening import open_recording
from recording.preparation import Preparation
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.errors import DataError
from trainer.data.examples import Task
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

Count = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


@DATASETS.register("recording")
def recording(
    *,
    path: DataPath | Annotated[tuple[DataPath, ...], Field(min_length=1)],
    format: str | None = None,
    reader: dict[str, Any] = {},  # noqa: B006
    subjects: Names | None = None,
    sites: Names | None = None,
    task: Task = "forecast",
    preparation: Preparation = (),
    window: Count | None = None,
    observed: Count | None = None,
    classes: Names | None = None,
    target: Names | None = None,
    cut: Literal["sliding", "trial"] | None = None,
    stride: Stride = Stride(),  # noqa: B008
    split: Split | None = None,
) -> Dataset:
    """Your own recordings: a file, a folder, or a list of them; each is one session.

    `format` and `reader`: what the files are, and what their reader is told, where it cannot know.
    `subjects`, `sites`: one name per path. `preparation`: steps, in order. `window`, `observed`,
    `stride`: in samples after preparation. `classes` and `target`: which classes to tell apart, in
    this order, and which behaviour to decode. `cut`: one window per trial, or sliding ones.
    """
    paths = [resolve(item) for item in ((path,) if isinstance(path, str) else path)]
    opened = [open_recording(item, reader, format=format) for item in paths]
    opened = _named(_named(opened, "subject", subjects), "site", sites)
    formats = sorted({one.format for one in opened})
    return build_recordings(
        "recording",
        opened,
        task=task,
        preparation=preparation,
        window=window,
        observed=observed,
        classes=classes,
        target=target,
        cut=cut,
        stride=stride,
        split=split,
        reader=reader,
        format=format,
        description=f"the user's own recordings ({', '.join(formats)})",
    )


def _named(
    recordings: list[Recording], key: Literal["subject", "site"], names: tuple[str, ...] | None
) -> list[Recording]:
    if names is None:
        return recordings
    if len(names) != len(recordings):
        raise DataError(
            f"{key}s: {len(names)} names for {len(recordings)} recordings; name one per path"
        )
    return [replace(one, **{key: name}) for one, name in zip(recordings, names, strict=True)]

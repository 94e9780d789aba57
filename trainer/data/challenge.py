"""Files of the Neural Forecasting challenge: `.npz`, key `arr_0`, (window, 20, channel, 9)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from trainer.data.errors import DataError
from trainer.data.files import check_finite, open_array
from trainer.data.fingerprint import fingerprint
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Block, TrialSplit, split_blocks
from trainer.data.windows import PARTS, Dataset, Windows, flatten, forecast_specs
from trainer.registry import DATASETS

KEY = "arr_0"
STEPS, FEATURES = 20, 9
Files = DataPath | Annotated[tuple[DataPath, ...], Field(min_length=1)]


@DATASETS.register("challenge")
def challenge(
    *,
    train: Files,
    validation: Files | None = None,
    test: Files | None = None,
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1000 / 30,
    unit: str = "raw",
    observed: Annotated[int, Field(ge=1, lt=STEPS)] = 10,
    split: TrialSplit = TrialSplit(),  # noqa: B008
) -> Dataset:
    """Challenge files (.npz, key arr_0, window × 20 × channel × 9), one session each.

    With `validation` and `test` each file belongs to its part; with `train` alone each file is
    cut into three parts in the order of its windows, without a shuffle, by the fractions of
    `split`. `rate` in Hz (one bin of 30 ms if left out).
    """
    if (validation is None) != (test is None):
        raise DataError("give both validation and test, or neither: train is then split in order")
    listed = {"train": train, "validation": validation, "test": test}
    files = [(part, resolve(path)) for part, item in listed.items() for path in _list(item)]
    names = _session_names([file for _, file in files])
    arrays = [_read(file, observed) for _, file in files]
    for (_, file), windows in zip(files, arrays, strict=True):
        if windows.shape[2] != arrays[0].shape[2]:
            raise DataError(
                f"{file}: {windows.shape[2]} channels; {files[0][1]} has {arrays[0].shape[2]}"
            )
    channels = arrays[0].shape[2]
    blocks = [
        Block(name, STEPS * trial, STEPS * (trial + 1), trial=trial)
        for name, windows in zip(names, arrays, strict=True)
        for trial in range(len(windows))
    ]
    if validation is None:
        parts = split_blocks(blocks, split, window=STEPS)
    else:
        owner = {name: part for name, (part, _) in zip(names, files, strict=True)}
        parts = {part: [b for b in blocks if owner[b.session] == part] for part in PARTS}
    sessions = {name: index for index, name in enumerate(names)}
    _check_copies(parts, {name: arrays[index] for name, index in sessions.items()})
    inputs, outputs = forecast_specs(steps=STEPS, channels=channels, features=FEATURES, unit=unit)
    series = {"neural": tuple(flatten(windows)[0] for windows in arrays)}
    cut = {
        part: Windows(
            task="forecast",
            observed=observed,
            inputs=inputs,
            outputs=outputs,
            series=series,
            sessions=np.array([sessions[block.session] for block in chosen], np.int64),
            starts=np.array([block.start for block in chosen], np.int64),
        )
        for part, chosen in parts.items()
    }
    settings = {
        "rate": rate,
        "unit": unit,
        "observed": observed,
        "parts": [part for part, _ in files],
        "split": split.model_dump(mode="json") if validation is None else None,
    }
    return Dataset(
        name="challenge",
        train=cut["train"],
        validation=cut["validation"],
        test=cut["test"],
        fingerprint=fingerprint("challenge", settings, arrays),
        rate=rate,
        unit=unit,
        channel_names=tuple(str(index) for index in range(channels)),
        session_names=tuple(names),
        synthetic=False,
        description=f"{len(files)} file(s) of challenge windows, {channels} channels",
    )


def _list(item: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if item is None else (item,) if isinstance(item, str) else item


def _session_names(files: list[Path]) -> list[str]:
    for file in files:
        if files.count(file) > 1:
            raise DataError(f"{file} is listed twice; a file belongs to one part")
    stems = [file.stem for file in files]
    return [s if stems.count(s) == 1 else f"{s}.{stems[:i].count(s)}" for i, s in enumerate(stems)]


def _read(file: Path, observed: int) -> np.ndarray:
    """The windows of one file (window, 20, channel, 9), checked."""
    windows = open_array(file, key=KEY)
    if windows.ndim != 4 or windows.shape[1] != STEPS or windows.shape[3] != FEATURES:
        raise DataError(
            f"{file}: {KEY} has shape {windows.shape}; "
            f"must be (window, {STEPS}, channel, {FEATURES})"
        )
    check_finite(windows, f"{file}: {KEY}", ("window", "step", "channel", "feature"))
    hidden = windows[: min(len(windows), 64), observed:, :, 0]
    if (hidden == windows[: len(hidden), observed - 1 : observed, :, 0]).all():
        raise DataError(
            f"{file}: steps {observed} to {STEPS - 1} repeat step {observed - 1}: a masked file "
            "holds no targets; give the unmasked one"
        )
    return windows


def _check_copies(parts: dict[str, list[Block]], arrays: dict[str, np.ndarray]) -> None:
    """Raise DataError where one part holds a copy of a window of another."""
    seen: dict[bytes, tuple[str, str, int]] = {}
    for part, blocks in parts.items():
        for block in blocks:
            window = np.ascontiguousarray(arrays[block.session][block.trial])
            digest = hashlib.sha256(window.data).digest()
            owner = seen.setdefault(digest, (part, block.session, block.trial))
            if owner[0] != part and not (window == window[0]).all():
                raise DataError(
                    f"window {block.trial} of {block.session} ({part}) is a copy of window "
                    f"{owner[2]} of {owner[1]} ({owner[0]}); parts must not share windows"
                )

"""Data sets of trials that are made in memory: arrays of whole windows, one class each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.data.fingerprint import fingerprint
from trainer.data.windows import PARTS, Dataset, Windows, classify_specs, flatten

RATE = 1000.0  # a step is 1 ms


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials of one part: `inputs` (trial, time, channel), `targets` (trial,) class numbers."""

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray | slice) -> Trials:
        """The trials of `rows`, in that order."""
        return Trials(self.inputs[rows], self.targets[rows])


def divided(trials: Trials, shares: tuple[float, float, float]) -> dict[str, Trials]:
    """Train, validation and test part, one after the other, in the ratio of `shares`."""
    ends = np.cumsum(shares) / sum(shares) * len(trials)
    first, second = round(ends[0]), round(ends[1])
    rows = (slice(0, first), slice(first, second), slice(second, None))
    return {part: trials.take(own) for part, own in zip(PARTS, rows, strict=True)}


def trial_dataset(
    name: str,
    parts: Mapping[str, Trials],
    *,
    settings: Mapping[str, Any],
    channels: tuple[str, ...],
    classes: tuple[str, ...],
    description: str,
    synthetic: bool = True,
    unit: str = "1",
) -> Dataset:
    """The data set of `parts`, by the names of PARTS; `channels` and `classes` are names."""
    inputs = np.concatenate([parts[part].inputs for part in PARTS])[..., None].astype(np.float32)
    targets = np.concatenate([parts[part].targets for part in PARTS]).astype(np.int64)
    steps = inputs.shape[1]
    specs, outputs = classify_specs(
        steps=steps, channels=len(channels), features=1, classes=len(classes), unit=unit
    )
    series, starts = flatten(inputs)
    ends = np.cumsum([0, *(len(parts[part]) for part in PARTS)])
    windows = {}
    for number, part in enumerate(PARTS):
        rows = np.arange(ends[number], ends[number + 1])
        windows[part] = Windows(
            task="classify",
            observed=steps,
            inputs=specs,
            outputs=outputs,
            series={"neural": (series,)},
            sessions=np.zeros(len(rows), np.int64),
            starts=starts[rows],
            targets=targets[rows],
            trials=rows,
        )
    return Dataset(
        name=name,
        **windows,
        fingerprint=fingerprint(name, settings, [inputs, targets, ends]),
        rate=RATE,
        unit=unit,
        channel_names=channels,
        session_names=(name,),
        synthetic=synthetic,
        description=description,
        output_names=classes,
    )


def one_hot(numbers: np.ndarray, count: int) -> np.ndarray:
    """1 at each number and 0 elsewhere: (…,) int64 -> (…, count) float64."""
    return np.eye(count)[numbers]

"""From recordings and a split to the three parts of a forecast data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trainer.data.errors import DataError
from trainer.data.fingerprint import fingerprint
from trainer.data.recording import Recording
from trainer.data.splits import Block, Split, TimeSplit, split_blocks, window_starts
from trainer.data.windows import PARTS, Dataset, Windows, forecast_specs

Steps = Annotated[int, Field(ge=1)]


class Stride(BaseModel):
    """Samples from the start of one window to the start of the next, per part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Steps = 2
    validation: Steps = 2
    test: Steps = 10


def cut_forecast(
    name: str,
    recordings: Sequence[Recording],
    *,
    window: int,
    observed: int,
    split: Split,
    stride: Stride,
    settings: Mapping[str, Any],
    description: str,
    synthetic: bool = False,
) -> Dataset:
    """A forecast data set of windows (batch, time, channel, feature) cut from recordings.

    `settings` are what else shaped the recordings: they enter the fingerprint, so no path may be
    among them. Raises DataError where recordings do not fit together, SplitError for a bad split.
    """
    if not 1 <= observed < window:
        raise DataError(f"observed: is {observed}; must be 1 to {window - 1}, below window")
    sessions = _session_names(recordings)
    first = recordings[0].neural
    for recording in recordings[1:]:
        _check_alike(recordings[0], recording)
    channels, features = first.values.shape[1:]
    inputs, outputs = forecast_specs(
        steps=window, channels=channels, features=features, unit=recordings[0].unit
    )
    if isinstance(split, TimeSplit) and split.gap is None:
        split = split.model_copy(update={"gap": window})
    series = {"neural": tuple(recording.neural.values for recording in recordings)}
    blocks = [block for recording in recordings for block in _blocks(recording)]
    windows = {}
    for part, chosen in split_blocks(blocks, split, window=window).items():
        cut = window_starts(chosen, window=window, stride=getattr(stride, part))
        windows[part] = Windows(
            task="forecast",
            observed=observed,
            inputs=inputs,
            outputs=outputs,
            series=series,
            sessions=np.array([sessions.index(session) for session, _ in cut], np.int64),
            starts=np.array([start for _, start in cut], np.int64),
        )
    shaping = {
        **settings,
        "rate": first.rate,
        "unit": recordings[0].unit,
        "window": window,
        "observed": observed,
        "split": split.model_dump(mode="json"),
        "stride": stride.model_dump(mode="json"),
    }
    return Dataset(
        name=name,
        **{part: windows[part] for part in PARTS},
        fingerprint=fingerprint(name, shaping, series["neural"]),
        rate=first.rate,
        unit=recordings[0].unit,
        channel_names=recordings[0].channel_names,
        session_names=tuple(sessions),
        synthetic=synthetic,
        description=description,
    )


def _blocks(recording: Recording) -> list[Block]:
    trials = recording.trials or ((0, len(recording.neural.values)),)
    return [
        Block(recording.session, start, stop, recording.subject, trial)
        for trial, (start, stop) in enumerate(trials)
    ]


def _session_names(recordings: Sequence[Recording]) -> list[str]:
    names = [recording.session for recording in recordings]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two sessions are called {name!r}; rename a file")
    return names


def _check_alike(first: Recording, other: Recording) -> None:
    where = f"session {other.session!r}"
    expected, found = first.neural.values.shape[1:], other.neural.values.shape[1:]
    if expected != found:
        raise DataError(f"{where}: {found[0]} channels × {found[1]} features, {expected} expected")
    for what in ("unit", "channel_names"):
        if getattr(first, what) != getattr(other, what):
            raise DataError(f"{where}: its {what} differ from those of session {first.session!r}")
    if first.neural.rate != other.neural.rate:
        raise DataError(f"{where}: rate {other.neural.rate} Hz, expected {first.neural.rate} Hz")

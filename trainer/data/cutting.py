"""From recordings and a split to the three parts of a forecast data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recording.contract import Channel, Piece, Recording, Series
from trainer.data.errors import DataError
from trainer.data.fingerprint import fingerprint
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
    sessions = session_names(recordings)
    first = recordings[0].neural
    for recording in recordings[1:]:
        check_alike(recordings[0], recording)
    unit = common_unit(first.channels)
    inputs, outputs = forecast_specs(
        steps=window, channels=len(first.channels), features=len(first.features), unit=unit
    )
    if isinstance(split, TimeSplit) and split.gap is None:
        split = split.model_copy(update={"gap": window})
    series = {"neural": tuple(recording.neural.values for recording in recordings)}
    blocks = [block for recording in recordings for block in blocks_of(recording)]
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
        "unit": unit,
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
        unit=unit,
        channel_names=first.names,
        session_names=tuple(sessions),
        synthetic=synthetic,
        description=description,
        positions=positions_of(first.channels),
    )


def session(
    name: str,
    values: np.ndarray,
    *,
    rate: float,
    channel_names: Sequence[str],
    unit: str,
    subject: str = "",
    trial: int | None = None,
    positions: np.ndarray | None = None,
) -> Recording:
    """A session from an array (time, channel[, feature]), in pieces of `trial` samples each.

    positions: of the electrodes, (channel, 3) in m.
    """
    places = [None] * len(channel_names) if positions is None else map(tuple, positions.tolist())
    channels = tuple(
        Channel(name, "other", unit, place)
        for name, place in zip(channel_names, places, strict=True)
    )
    pieces: tuple[Piece, ...] = ()
    if trial is not None:
        starts = range(0, len(values), trial)
        pieces = tuple(Piece(start / rate, start, start + trial) for start in starts)
    features = tuple(map(str, range(values.shape[2] if values.ndim == 3 else 1)))
    series = Series(values, rate, channels, pieces, features)
    return Recording(
        source=name, format="array", session=name, modalities={"neural": series}, subject=subject
    )


def blocks_of(recording: Recording) -> list[Block]:
    """A session's pieces, each of which windows stay inside; they count as trials."""
    return [
        Block(recording.session, piece.first, piece.stop, recording.subject, trial)
        for trial, piece in enumerate(recording.neural.pieces)
    ]


def positions_of(channels: Sequence[Channel]) -> np.ndarray | None:
    """Positions (channel, 3) in m, NaN where not known; None where none is."""
    if all(channel.position is None for channel in channels):
        return None
    return np.array([channel.position or (np.nan,) * 3 for channel in channels])


def common_unit(channels: Sequence[Channel]) -> str:
    """The unit that channels share, "raw" where one states none or they differ."""
    units = {channel.unit for channel in channels}
    return units.pop() if len(units) == 1 and "" not in units else "raw"


def session_names(recordings: Sequence[Recording]) -> list[str]:
    """Names of the sessions, in order; raises DataError where two are called alike."""
    names = [recording.session for recording in recordings]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two sessions are called {name!r}; rename a file")
    return names


def check_alike(first: Recording, other: Recording) -> None:
    """Raise DataError, naming file and channels, unless both have the same channels and rate."""
    where = f"session {other.session!r}"
    if other.source not in ("", other.session):
        where += f" ({other.source})"
    expected, found = first.neural, other.neural
    hint = "choose those that all have with the preparation step {step: select}"
    if len(expected.channels) != len(found.channels) or expected.features != found.features:
        missing = [name for name in expected.names if name not in found.names]
        extra = [name for name in found.names if name not in expected.names]
        lists = [("lacks", missing), ("has besides", extra)]
        told = "; ".join(f"it {what} {', '.join(names)}" for what, names in lists if names)
        raise DataError(
            f"{where}: {len(found.channels)} channels × {len(found.features)} features, "
            f"{len(expected.channels)} × {len(expected.features)} expected as in session "
            f"{first.session!r}" + (f": {told}; {hint}" if told else "")
        )
    for what in ("unit", "name"):
        for one, same in zip(expected.channels, found.channels, strict=True):
            if getattr(one, what) != getattr(same, what):
                raise DataError(
                    f"{where}: its channels' {what}s differ from those of session "
                    f"{first.session!r}: {same.name} in {same.unit or 'no stated unit'} instead of "
                    f"{one.name} in {one.unit or 'no stated unit'}"
                )
    if first.neural.rate != other.neural.rate:
        raise DataError(f"{where}: rate {other.neural.rate} Hz, expected {first.neural.rate} Hz")

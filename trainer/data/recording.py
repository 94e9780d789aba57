"""A recording: the modalities of one session on one clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainer.data.errors import DataError


@dataclass(frozen=True, eq=False)
class Series:
    """A regular modality: values (time, ...), `rate` in Hz, first sample at `start` seconds."""

    values: np.ndarray
    rate: float
    start: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise DataError(f"rate: is {self.rate}; must be above 0 Hz")
        if self.values.ndim < 1 or len(self.values) == 0:
            raise DataError(f"values: shape {self.values.shape}; needs one sample or more")

    @property
    def times(self) -> np.ndarray:
        """Time of every sample on the session's clock, in seconds: (time,) float64."""
        return self.start + np.arange(len(self.values)) / self.rate


@dataclass(frozen=True, eq=False)
class Events:
    """An irregular modality: `times` (event,) in seconds, ascending, and values (event, ...)."""

    times: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.times.ndim != 1 or len(self.times) != len(self.values):
            raise DataError(f"events: times {self.times.shape} for values {self.values.shape}")
        if not np.isfinite(self.times).all():
            raise DataError("events: a time is not finite")
        if (falls := np.flatnonzero(np.diff(self.times) < 0)).size:
            raise DataError(f"events: time {falls[0] + 1} is before the one in front of it")


@dataclass(frozen=True, eq=False)
class Recording:
    """One session of one subject: `neural` (time, channel, feature) and what else was recorded.

    `trials` are the sample ranges [start, stop) of `neural` that hang together; empty where the
    session is one continuous stretch.
    """

    session: str
    modalities: Mapping[str, Series | Events]
    unit: str
    channel_names: tuple[str, ...]
    subject: str = ""
    trials: tuple[tuple[int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        neural = self.modalities.get("neural")
        if not isinstance(neural, Series) or neural.values.ndim != 3:
            raise DataError(
                f"session {self.session!r}: neural must be a Series (time, channel, feature)"
            )
        if neural.values.shape[1] != len(self.channel_names):
            raise DataError(
                f"session {self.session!r}: {len(self.channel_names)} channel names for "
                f"{neural.values.shape[1]} channels"
            )

    @property
    def neural(self) -> Series:
        """The neural modality."""
        neural = self.modalities["neural"]
        assert isinstance(neural, Series)
        return neural

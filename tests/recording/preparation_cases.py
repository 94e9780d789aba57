"""Small recordings for tests of preparation, and how to run its steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recording.contract import Channel, Events, Piece, Recording, Series
from recording.preparation import parse_steps, prepare
from recording.signals import Derived, Signal, blocks


def series(values: Signal, rate: float = 100.0, *, pieces=(), unit: str = "µV") -> Series:
    """A series of EEG channels c0, c1, …; `pieces` are (start in s, first, stop)."""
    channels = tuple(Channel(f"c{i}", "eeg", unit) for i in range(values.shape[1]))
    return Series(values, rate, channels, tuple(Piece(*piece) for piece in pieces))


def of(neural: Series | None = None, **changes) -> Recording:
    """A recording with this neural series; `modalities` are more of them."""
    modalities = dict(changes.pop("modalities", {}))
    if neural is not None:
        modalities = {"neural": neural, **modalities}
    return Recording("file.edf", "edf", "s1", modalities, **changes)


def run(recording: Recording, *steps: dict) -> Recording:
    """The recording after steps given as plain values."""
    return prepare(recording, parse_steps(list(steps)))


def read(signal: Signal) -> np.ndarray:
    """All of a signal."""
    return np.concatenate(list(blocks(signal)))


def neural(recording: Recording, *steps: dict) -> np.ndarray:
    """All values of `neural` after steps."""
    return read(run(recording, *steps).neural.values)


def in_blocks(values: np.ndarray, sizes: Sequence[int]) -> Derived:
    """The values as a signal that comes in blocks of these sizes, over and over."""

    def produce():
        at, turn = 0, 0
        while at < len(values):
            size = sizes[turn % len(sizes)]
            yield values[at : at + size]
            at, turn = at + size, turn + 1

    return Derived(values.shape, produce, values.dtype)


def noise(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Normal float32 with an offset of some hundred: (time, channel)."""
    random = np.random.default_rng(seed)
    return (random.normal(300, 40, (samples, channels))).astype(np.float32)


def events(times, kinds, names, **changes) -> Events:
    """Events from lists."""
    return Events(np.array(times, float), np.array(kinds, np.int64), tuple(names), **changes)

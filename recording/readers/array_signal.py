"""The numbers of a `.npy` or `.npz` array as a signal (time, channel), whatever their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from recording.array_files import StoredArray
from recording.errors import RecordingError
from recording.readers.checked_values import Checked, checked_blocks
from recording.signals import MEMORY_BYTES, Derived, Signal


def array_signal(
    stored: StoredArray,
    count: int,
    time: int,
    channels: int,
    layout: str,
    names: tuple[str, ...],
    rate: float,
    factor: float,
) -> Signal:
    """The array as (time, channel), trials one behind the other, by slice where that can be.

    `count` trials of `time` samples each. A slice raises RecordingError at an infinite value, also
    one that is so only times `factor`; this does where the array can neither be read by slice nor
    kept in memory.
    """
    shape = (count * time, channels)
    swapped = layout == "channel_time"
    # Fortran's order of (time, channel) is channel after channel, as is C's of (channel, time).
    by_channel = swapped != (stored.order == "F")
    scattered = len(stored.shape) == 3 and stored.order == "F"
    values: Signal
    if stored.size > MEMORY_BYTES and (scattered or (stored.offset is None and by_channel)):
        raise RecordingError(
            f"{stored.size} bytes in an order that cannot be read in parts; save it uncompressed "
            "and in C order: np.savez(path, data=np.ascontiguousarray(data))",
            stream="neural",
        )
    if stored.offset is None and stored.size > MEMORY_BYTES:
        values = Derived(shape, lambda: iter(()), stored.dtype)
    elif stored.offset is None or scattered:
        whole = stored.read()
        values = (whole.swapaxes(-1, -2) if swapped else whole).reshape(shape)
    elif len(stored.shape) == 3 and swapped:
        values = TrialsByChannel(stored.signal((count * time * channels,)), count, time, channels)
    else:
        values = stored.signal(shape, "F" if by_channel else "C")
    if stored.dtype.kind in "iu" and not isinstance(values, Derived):
        return values
    checked = Checked(
        values, names, lambda sample: sample / rate, file=stored.path.name, factor=factor
    )
    if not isinstance(values, Derived):
        return checked

    def produce() -> Any:
        rows = (block.reshape(-1, channels) for block in stored.stream())
        return checked_blocks(checked, rows)

    return Derived(shape, produce, stored.dtype)


class TrialsByChannel:
    """Trials (trial, channel, time) of a flat signal as one signal (time, channel)."""

    def __init__(self, flat: Signal, trials: int, length: int, channels: int) -> None:
        self.flat, self.length = flat, length
        self.shape, self.dtype = (trials * length, channels), flat.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        channels, length = self.shape[1], self.length
        parts = [np.empty((0, channels), self.dtype)]
        while start < stop:
            trial, first = divmod(start, length)
            last = min(length, first + stop - start)
            if (first, last) == (0, length):
                size = channels * length
                part = self.flat[trial * size : (trial + 1) * size].reshape(channels, length)
            else:
                begins = (np.arange(channels) + trial * channels) * length
                part = np.stack([self.flat[at + first : at + last] for at in begins.tolist()])
            parts.append(part.T)
            start += last - first
        return np.concatenate(parts)

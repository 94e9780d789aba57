"""Stretches of samples that a recording holds twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST = 8
LEAST_NUMBERS = 48  # a few channels can repeat some samples by chance


@dataclass(frozen=True)
class Repeat:
    """`length` samples from `first` on come again from `second` on."""

    first: int
    second: int
    length: int


def find_repeats(hashes: list[tuple[int, np.ndarray]], channels: int) -> list[Repeat]:
    """Stretches that occur again, in order of time.

    `hashes`: of each part its first sample and a number per sample that only equal samples share.
    Stretches in which nothing changes do not count.
    """
    least = max(LEAST, -(-LEAST_NUMBERS // max(channels, 1)))
    keys, places = [], []
    for start, row in hashes:
        if len(row) >= least:
            windows = _windows(row, least)
            changes = np.concatenate([[0], np.cumsum(row[1:] != row[:-1])])
            lively = changes[least - 1 :] - changes[: len(windows)] >= least // 2
            keys.append(windows[lively])
            places.append(start + np.flatnonzero(lively))
    if not keys:
        return []
    return _stretches(np.concatenate(keys), np.concatenate(places), least)


def _windows(row: np.ndarray, least: int) -> np.ndarray:
    """One number per stretch of `least` samples, from its samples in their order."""
    count = len(row) - least + 1
    windows = np.zeros(count, np.uint64)
    for offset in range(least):
        windows = windows * np.uint64(0x100000001B3) + row[offset : offset + count]
    return windows


def _stretches(keys: np.ndarray, places: np.ndarray, least: int) -> list[Repeat]:
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    first, second = places[order[:-1]][same], places[order[1:]][same]
    if not len(first):
        return []
    order = np.lexsort((first, second - first))
    first, second = first[order], second[order]
    apart = second - first
    new = np.concatenate([[True], (np.diff(first) != 1) | (np.diff(apart) != 0)])
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(first))) + least - 1
    found = [
        Repeat(int(first[at]), int(second[at]), int(length))
        for at, length in zip(starts, lengths, strict=True)
    ]
    return sorted(found, key=lambda repeat: (repeat.first, repeat.second))

"""Recordings prepared: steps fitted on the train part alone, the last of them left to the graph."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recording.contract import Recording, Series
from recording.errors import RecordingError
from recording.preparation import Operation, Step, graph_tail, prepare
from recording.preparation.steps import Ranges
from recording.signals import MEMORY_BYTES, Signal, blocks, settle
from trainer.data.windows import CHUNK_BYTES

# Told the number of samples of each block that is done.
Progress = Callable[[int], None]
# Which stretches, in seconds, of each recording a step may look at.
TrainRanges = Callable[[Sequence[Recording]], Sequence[Ranges]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Recordings after all steps, and as an artifact takes them: before its graph's own.

    `steps` are fitted; the last `graph_steps` of them are the `operations` of the graph.
    """

    recordings: list[Recording]
    outside: list[Recording]
    steps: tuple[Step, ...]
    graph_steps: int
    operations: tuple[Operation, ...]

    def in_front(self) -> Prepared:
        """The same with every step in front of the artifact and none inside its graph."""
        return Prepared(self.recordings, self.recordings, self.steps, 0, ())


def prepare_all(
    recordings: Sequence[Recording],
    steps: Sequence[Step],
    train_ranges: TrainRanges,
    progress: Progress | None = None,
) -> Prepared:
    """Apply the steps to every recording, fitting those that are not fitted yet.

    What belongs to the train part does not depend on statistics: `train_ranges` is asked once, of
    the recordings prepared without the steps to fit. Signals are read by slice afterwards, held in
    memory up to 512 MiB. `progress` gets the number of samples of each block that is computed.
    Raises RecordingError naming file and step.
    """
    ranges: Sequence[Ranges] = ()
    if not all(one.fitted for one in steps):
        known = [one if one.fitted else _SKIPPED for one in steps]
        ranges = train_ranges([prepare(recording, known) for recording in recordings])
    tail = graph_tail(steps)
    current, fitted = list(recordings), list[Step]()
    outside = current
    for index, one in enumerate(steps):
        if not one.fitted or index == len(steps) - tail:
            current = _settled(current, progress)
        if index == len(steps) - tail:
            outside = current
        if not one.fitted:
            one = _fit(one, index, current, ranges)
        fitted.append(one)
        current = [prepare(item, [*[_SKIPPED] * index, one]) for item in current]
    current = _settled(current, progress)
    if tail == 0:
        outside = current
    operations: list[Operation] = []
    channels = outside[0].neural.channels
    for one in fitted[len(fitted) - tail :]:
        operations += one.operations(channels) or ()
        channels = one.channels_after(channels)
    return Prepared(current, outside, tuple(fitted), tail, tuple(operations))


@dataclass(frozen=True, eq=False)
class Contents:
    """What a signal holds: its sha256, and the runs of samples [start, stop) not all finite."""

    digest: str
    starts: np.ndarray
    stops: np.ndarray

    def first_hit(self, windows: np.ndarray, steps: int) -> int | None:
        """First bad sample in any window of `steps` samples from `windows` on, None if none."""
        if len(self.starts) == 0:
            return None
        run = np.searchsorted(self.stops, windows, side="right")
        near = np.minimum(run, len(self.starts) - 1)
        hit = np.flatnonzero((run < len(self.starts)) & (self.starts[near] < windows + steps))
        if len(hit) == 0:
            return None
        return int(max(self.starts[near[hit[0]]], windows[hit[0]]))


def contents(signal: Signal, progress: Progress | None = None) -> Contents:
    """Read a signal once, in blocks; `progress` gets the number of samples of each."""
    digest = hashlib.sha256(f"{signal.dtype.str} {tuple(signal.shape)}".encode())
    row_bytes = math.prod(signal.shape[1:]) * signal.dtype.itemsize
    edges, at, bad_before = list[int](), 0, False
    for block in blocks(signal, max(1, CHUNK_BYTES // row_bytes)):
        digest.update(np.ascontiguousarray(block).data)
        bad = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
        changes = np.flatnonzero(np.diff(bad, prepend=bad_before))
        edges += (at + changes).tolist()
        at, bad_before = at + len(block), bool(bad[-1])
        if progress is not None:
            progress(len(block))
    if bad_before:
        edges.append(at)
    return Contents(digest.hexdigest(), np.array(edges[0::2], int), np.array(edges[1::2], int))


class _Skipped(Step):
    """Takes the place of a step that is not run, so that errors count steps as the config does."""

    step: str = "skipped"

    def apply(self, recording: Recording) -> Recording:
        return recording


_SKIPPED = _Skipped()


def _fit(one: Step, index: int, recordings: Sequence[Recording], ranges: Sequence[Ranges]) -> Step:
    try:
        return one.fit(list(zip(recordings, ranges, strict=True)))
    except RecordingError as error:
        raise RecordingError(
            f"preparation[{index}] ({one.step}): {error.problem}",
            file=error.file,
            stream=error.stream,
            at=error.at,
        ) from None


def _settled(recordings: Sequence[Recording], progress: Progress | None) -> list[Recording]:
    """Recordings whose neural series and behaviour can be read by slice, small ones in memory."""
    left = MEMORY_BYTES
    settled = []
    for recording in recordings:
        for name in ("neural", "behavior"):
            series = recording.modalities.get(name)
            if not isinstance(series, Series):
                continue
            try:
                values, left = _held(series.values, left, progress)
            except RecordingError as error:
                raise error.within(file=recording.source, stream=name) from None
            recording = recording.with_modality(name, series.with_values(values))
        settled.append(recording)
    return settled


def _held(signal: Signal, memory: int, progress: Progress | None) -> tuple[Signal, int]:
    """The signal, in memory where it has room there, and the room left."""
    if isinstance(signal, np.ndarray):
        return signal, memory
    size = math.prod(signal.shape) * signal.dtype.itemsize
    signal = settle(signal, memory=memory, progress=progress)
    if size > memory:
        return signal, memory
    if not isinstance(signal, np.ndarray):
        signal = np.concatenate(list(blocks(signal)))
    return signal, memory - size

"""From prepared recordings to examples: blocks, the windows inside them, and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from recording.contract import Channel, Events, Recording, Series
from recording.errors import RecordingError
from recording.plan import times_of, trial_range
from recording.preparation.steps import Ranges
from recording.signals import Signal
from trainer.data.blocks import Block, Parts
from trainer.data.cutting import Stride
from trainer.data.errors import DataError, SplitError
from trainer.data.splits import FoldSplit, Split, TimeSplit, TrialSplit, split_blocks
from trainer.data.windows import PARTS

Task = Literal["forecast", "classify", "decode"]
FORECAST_WINDOW = 20
READ_AT_ONCE = 65536  # samples of behaviour


@dataclass(frozen=True)
class Rule:
    """How recordings are cut, as the settings say; `completed` fills in what they leave open.

    `apart`: seconds between parts that the preparation mixes, the least gap where none is given.
    """

    task: Task
    window: int | None
    observed: int | None
    classes: tuple[str, ...] | None
    target: tuple[str, ...] | None
    cut: Literal["sliding", "trial"]
    stride: Stride
    split: Split
    apart: float = 0.0

    @property
    def by_trials(self) -> bool:
        """Whether windows stay inside trials rather than inside continuous stretches."""
        unit = getattr(self.split, "unit", self.split.by)
        return self.task == "classify" or self.cut == "trial" or unit == "trial"

    def completed(self, recordings: Sequence[Recording]) -> Rule:
        """The rule with classes, window and observed chosen from prepared recordings.

        Classes: those that occur, in alphabetical order. Window: 20 samples of a forecast, half of
        them observed; the shortest whole trial where each gives one window. Raises DataError.
        """
        classes = self.classes
        if self.task == "classify":
            classes = _classes(recordings, classes)
        rule = replace(self, classes=classes)
        window = self.window
        if window is None and self.cut == "trial":
            window = _shortest_trial(recordings, rule)
        elif window is None and self.task == "forecast":
            window = FORECAST_WINDOW
        elif window is None:
            raise DataError(f"window: is missing; task {self.task} needs it, in samples")
        observed = self.observed
        if self.task != "forecast":
            if observed not in (None, window):
                raise DataError(f"observed: belongs to forecast; {self.task} sees whole windows")
            observed = window
        elif observed is None:
            observed = max(1, window // 2)
        if self.task == "forecast" and not 1 <= observed < window:
            raise DataError(f"observed: is {observed}; must be 1 to {window - 1}, below window")
        split = self.split
        gap = max(window, int(np.ceil(self.apart * recordings[0].neural.rate - 1e-9)))
        timed = isinstance(split, TimeSplit) or (
            isinstance(split, FoldSplit) and split.unit == "block" and gap > window
        )
        if timed and getattr(split, "gap", 0) is None:
            split = split.model_copy(update={"gap": gap})
        return replace(rule, window=window, observed=observed, split=split)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Windows of one part: session number, first sample and trial (-1: none) of each."""

    sessions: np.ndarray
    starts: np.ndarray
    trials: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def keep(self, rows: np.ndarray) -> Cuts:
        """Some of the windows."""
        return Cuts(self.sessions[rows], self.starts[rows], self.trials[rows])


def default_split(task: Task) -> Split:
    """By trial to classify, else by time."""
    return TrialSplit() if task == "classify" else TimeSplit()


def parts_of(recordings: Sequence[Recording], rule: Rule) -> Parts:
    """The blocks of each part under a completed rule; raises SplitError, DataError."""
    assert rule.window is not None
    blocks = [block for recording in recordings for block in blocks_of(recording, rule)]
    rate = recordings[0].neural.rate
    return split_blocks(blocks, rule.split, window=rule.window, rate=rate)


def train_ranges(recordings: Sequence[Recording], rule: Rule) -> list[Ranges]:
    """Stretches of the train part, in seconds, one list for each recording."""
    train = parts_of(recordings, rule.completed(recordings))["train"]
    return [
        [_seconds(recording.neural, b) for b in train if b.session == recording.session]
        for recording in recordings
    ]


def blocks_of(recording: Recording, rule: Rule) -> list[Block]:
    """The trials of a recording, or else its pieces: windows stay inside them."""
    neural = recording.neural
    if not rule.by_trials:
        return [
            Block(
                recording.session,
                piece.first,
                piece.stop,
                recording.subject,
                segment=segment,
                site=recording.site,
            )
            for segment, piece in enumerate(neural.pieces)
        ]
    trials = trials_of(recording)
    firsts = np.array([piece.first for piece in neural.pieces])
    found = []
    for trial, (first, stop) in _chosen_trials(recording, rule.classes):
        found.append(
            Block(
                recording.session,
                first,
                stop,
                recording.subject,
                trial=trial,
                segment=int(np.searchsorted(firsts, first, side="right")) - 1,
                site=recording.site,
                kind=trials.names[trials.kinds[trial]],
            )
        )
    return found


def trials_of(recording: Recording) -> Events:
    """The trials of a recording; raises RecordingError where it has none."""
    if recording.trials is None or len(recording.trials) == 0:
        raise RecordingError(
            "has no trials; make some of its markers, {step: epochs}, or of the runs of a channel, "
            "{step: states}",
            file=recording.source,
        )
    return recording.trials


def cut_blocks(blocks: Sequence[Block], sessions: Sequence[str], rule: Rule, stride: int) -> Cuts:
    """Windows inside blocks: one from the start of each, or one every `stride` samples."""
    assert rule.window is not None
    starts, owners, trials = [], [], []
    numbers = {name: number for number, name in enumerate(sessions)}
    for block in blocks:
        last = block.stop - rule.window
        one = rule.cut == "trial"
        found = np.arange(block.start, min(last, block.start) + 1 if one else last + 1, stride)
        starts.append(found)
        owners.append(np.full(len(found), numbers[block.session]))
        trials.append(np.full(len(found), block.trial if rule.by_trials else -1))
    if not starts:
        return Cuts(*(np.empty(0, np.int64) for _ in range(3)))
    joined = (np.concatenate(each).astype(np.int64) for each in (owners, starts, trials))
    return Cuts(*joined)


def class_targets(recordings: Sequence[Recording], cuts: Cuts, rule: Rule) -> np.ndarray:
    """Number of each window's class, that of its trial: (window,) int64."""
    assert rule.classes is not None
    numbers = {name: number for number, name in enumerate(rule.classes)}
    targets = np.empty(len(cuts), np.int64)
    for session, recording in enumerate(recordings):
        rows = cuts.sessions == session
        if rows.any():
            trials = trials_of(recording)
            of_kind = np.array([numbers.get(name, -1) for name in trials.names])
            targets[rows] = of_kind[trials.kinds[cuts.trials[rows]]]
    return targets


def behavior_channels(recording: Recording, patterns: tuple[str, ...] | None) -> list[int]:
    """Which behaviour channels are decoded; raises RecordingError where they do not fit."""
    behavior, neural = recording.modalities.get("behavior"), recording.neural

    def wrong(problem: str) -> RecordingError:
        return RecordingError(problem, file=recording.source, stream="behavior")

    if behavior is None:
        raise wrong("there is none to decode; move channels there: {step: behavior}")
    on_time = (
        isinstance(behavior, Series)
        and behavior.rate == neural.rate
        and behavior.pieces == neural.pieces
        and len(behavior.features) == 1
    )
    if not on_time or isinstance(behavior, Events):
        raise wrong("is not on the neural samples; put it there: {step: align}")
    names = behavior.names
    if patterns is None:
        return list(range(len(names)))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise wrong(f"target: no channel {pattern!r}; there are: {', '.join(names)}")
    return [
        index
        for index, name in enumerate(names)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def targets_channels(recording: Recording, patterns: tuple[str, ...] | None) -> list[Channel]:
    """The decoded behaviour channels themselves."""
    chosen = behavior_channels(recording, patterns)
    behavior = recording.modalities["behavior"]
    assert isinstance(behavior, Series)
    return [behavior.channels[index] for index in chosen]


def behavior_targets(recordings: Sequence[Recording], cuts: Cuts, rule: Rule) -> np.ndarray:
    """Behaviour at each window's last sample: (window, variable) float32, NaN = not measured."""
    assert rule.window is not None
    variables = len(behavior_channels(recordings[0], rule.target))
    targets = np.empty((len(cuts), variables), np.float32)
    for session, recording in enumerate(recordings):
        rows = np.flatnonzero(cuts.sessions == session)
        if len(rows):
            chosen = behavior_channels(recording, rule.target)
            behavior = recording.modalities["behavior"]
            assert isinstance(behavior, Series)
            last = cuts.starts[rows] + rule.window - 1
            targets[rows] = _samples(behavior.values, last, chosen)
    return targets


def stretches_of_test(
    recordings: Sequence[Recording], parts: Parts
) -> tuple[tuple[str, float, float], ...]:
    """Session, first and end second of what the test part spans, other parts left out.

    Test blocks of a session are one stretch as long as no block of another part lies between.
    """
    stretches = []
    for recording in recordings:
        placed = sorted(
            (block.start, block.stop, part)
            for part in PARTS
            for block in parts[part]
            if block.session == recording.session
        )
        begun: tuple[float, float] | None = None
        for start, stop, part in placed:
            if part == "test":
                first, end = _seconds(recording.neural, Block("", start, stop))
                begun = (begun[0] if begun else first, end)
            elif begun:
                stretches.append((recording.session, *begun))
                begun = None
        if begun:
            stretches.append((recording.session, *begun))
    return tuple(stretches)


def check_classes(targets: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raise SplitError where a class has no window in the train part."""
    counts = np.bincount(targets, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise SplitError(
                f"split.train: no window of class {name!r}; give it more trials, a shorter window, "
                "or leave the class out of `classes`"
            )


def _classes(recordings: Sequence[Recording], chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    found: set[str] = set()
    for recording in recordings:
        found |= {name for name, count in trials_of(recording).counts.items() if count}
    if chosen is None:
        chosen = tuple(sorted(found))
    for name in chosen:
        if name not in found:
            raise DataError(f"classes: no trial of {name!r}; there are: {', '.join(sorted(found))}")
    if len(set(chosen)) < max(2, len(chosen)):
        raise DataError(f"classes: {', '.join(chosen)}; must be two or more, each once")
    return chosen


def _chosen_trials(
    recording: Recording, classes: tuple[str, ...] | None
) -> list[tuple[int, tuple[int, int]]]:
    trials = trials_of(recording)
    return [
        (trial, (first, stop))
        for trial in range(len(trials))
        if classes is None or trials.names[trials.kinds[trial]] in classes
        for first, stop in [trial_range(recording.neural, trials, trial)]
        if stop > first
    ]


def _shortest_trial(recordings: Sequence[Recording], rule: Rule) -> int:
    """Samples of the shortest trial that lies wholly inside a piece."""
    lengths = []
    for recording in recordings:
        trials, rate = trials_of(recording), recording.neural.rate
        for trial, (first, stop) in _chosen_trials(recording, rule.classes):
            seconds = float(trials.stops[trial]) - float(trials.times[trial])
            if stop - first == round(seconds * rate):
                lengths.append(stop - first)
    if not lengths:
        raise DataError("window: no whole trial tells how long it may be; set it, in samples")
    return min(lengths)


def _samples(values: Signal, samples: np.ndarray, channels: list[int]) -> np.ndarray:
    """Single samples of some channels: (sample, channel) float32."""
    if isinstance(values, np.ndarray):
        return values[samples].reshape(len(samples), -1)[:, channels].astype(np.float32)
    found = np.empty((len(samples), len(channels)), np.float32)
    for start in range(0, len(values), READ_AT_ONCE):
        rows = np.flatnonzero((samples >= start) & (samples < start + READ_AT_ONCE))
        if len(rows):
            block = values[start : start + READ_AT_ONCE]
            found[rows] = block.reshape(len(block), -1)[samples[rows] - start][:, channels]
    return found


def _seconds(neural: Series, block: Block) -> tuple[float, float]:
    first, last = times_of(neural, np.array([block.start, block.stop - 1]))
    return float(first), float(last) + 1.0 / neural.rate

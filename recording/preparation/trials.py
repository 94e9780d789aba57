"""Steps that make trials, intervals with a class, out of markers or of behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from recording.contract import Events, Recording, Samples, Series
from recording.errors import RecordingError
from recording.preparation.channels import Names, matching, potential_only
from recording.preparation.piece_parts import parts
from recording.preparation.steps import Step, step
from recording.preparation.time import noted
from recording.signals import Pointwise

MAX_STATES = 100


def _named_by_text(value: Any) -> Any:
    """YAML reads `{0: open}` as a number; names are text."""
    if not isinstance(value, Mapping):
        return value
    return {
        f"{key:g}" if isinstance(key, (int, float)) and not isinstance(key, bool) else key: name
        for key, name in value.items()
    }


Classes = Annotated[dict[str, str], BeforeValidator(_named_by_text), Field(min_length=1)]


@step("epochs")
class Epochs(Step):
    """Trials around markers: from `start` to `stop` seconds after each of these events.

    `events` are patterns of marker names; left out, they are the keys of `classes`. `classes` maps
    patterns to classes, the first that fits in the written order; without it the event's name is
    the class. Trials that do not lie in one piece of `neural` are left out, and trials may overlap;
    both are noted.
    """

    step: Literal["epochs"] = "epochs"
    events: Names = ()
    start: float
    stop: float
    classes: Classes | None = None

    @model_validator(mode="after")
    def _is_an_interval(self) -> Epochs:
        if self.start >= self.stop:
            raise ValueError(f"start: {self.start:g} s must be before stop, {self.stop:g} s")
        if not self.events and self.classes is None:
            raise ValueError("events or classes: give one or both")
        return self

    def apply(self, recording: Recording) -> Recording:
        """The recording with trials, in place of others; RecordingError where there are none."""
        markers = recording.markers
        if markers is None or len(markers) == 0:
            raise RecordingError("has no markers to cut epochs at", stream="markers")
        labels = self._labels(markers)
        names = _unique(self.classes.values() if self.classes else filter(None, labels))
        chosen = np.array([labels[kind] is not None for kind in markers.kinds])
        kinds = [names.index(str(labels[kind])) for kind in markers.kinds[chosen]]
        times = markers.times[chosen] + self.start
        length = np.full(len(times), self.stop - self.start)
        trials = Events(times, np.array(kinds, np.int64), names, length, markers.span)
        return _with_trials(recording, trials, "epochs")

    def _labels(self, markers: Events) -> list[str | None]:
        """The class of every marker name, None where the step leaves it alone."""
        have = ", ".join(f"{name} ({count})" for name, count in markers.counts.items())
        for pattern in self.events or self.classes or ():
            if not any(c and fnmatchcase(n, pattern) for n, c in markers.counts.items()):
                raise RecordingError(f"no event {pattern!r}; there are: {have}", stream="markers")
        labels: list[str | None] = []
        for name in markers.names:
            wanted = any(
                fnmatchcase(name, pattern) for pattern in self.events or self.classes or ()
            )
            labels.append(self._class_of(name) if wanted else None)
        return labels

    def _class_of(self, name: str) -> str:
        if self.classes is None:
            return name
        for pattern, label in self.classes.items():
            if fnmatchcase(name, pattern):
                return label
        raise RecordingError(
            f"event {name!r} has no class; classes has {', '.join(self.classes)}", stream="markers"
        )


@step("states")
class States(Step):
    """Trials where a channel of `behavior` keeps one value, such as eyes open or closed.

    `classes` maps values, as text, to classes; other values are no trial. Without it each value is
    a class. Runs shorter than `minimum` seconds are left out, which is noted. A run ends where a
    piece ends or the value is missing. The step reads the channel once.
    """

    step: Literal["states"] = "states"
    channel: str
    classes: Classes | None = None
    minimum: float = Field(default=0.0, ge=0)

    def has_work(self, recording: Recording) -> bool:
        """Whether there is behaviour."""
        return "behavior" in recording.modalities

    def apply(self, recording: Recording) -> Recording:
        """The recording with trials, in place of others; RecordingError where there are none."""
        behavior = behavior_of(recording)
        (column, *more) = matching(behavior.channels, (self.channel,))
        if more:
            raise RecordingError(f"{self.channel!r} fits {1 + len(more)} channels; name one")
        runs = _series_runs if isinstance(behavior, Series) else _sample_runs
        times, values, lengths = runs(behavior, column)  # type: ignore[arg-type]
        have = [f"{value:g}" for value in np.unique(values)]
        classes = self.classes or {value: value for value in have}
        labels = [classes.get(f"{value:g}") for value in values]
        names = _unique(classes.values())
        known = np.array([label is not None for label in labels], bool)
        if not known.any():
            raise RecordingError(
                f"none of the values {', '.join(classes)}; there are: {', '.join(have) or 'none'}",
                stream=behavior.names[column],
            )
        kept = known & (lengths >= self.minimum)
        if not kept.any():
            raise RecordingError(
                f"no run lasts {self.minimum:g} s; the longest lasts {lengths[known].max():g} s",
                stream=behavior.names[column],
            )
        if short := int((known & ~kept).sum()):
            text = f"{short} of {known.sum()} runs of states are shorter than {self.minimum:g} s"
            recording = noted(recording, "trials", text, "lower minimum to keep them")
        kinds = [names.index(str(labels[run])) for run in np.flatnonzero(kept)]
        trials = Events(times[kept], np.array(kinds, np.int64), names, lengths[kept])
        return replace(recording, trials=trials)


def behavior_of(recording: Recording) -> Series | Samples:
    """The modality "behavior" as (time, channel); raises RecordingError where there is none."""
    behavior = recording.modalities.get("behavior")
    if isinstance(behavior, Series) and len(behavior.values.shape) == 3:
        potential_only(behavior, "it")
        shape = behavior.values.shape[1:2]
        flat = Pointwise(
            behavior.values, lambda values: values[:, :, 0], shape, behavior.values.dtype
        )
        return behavior.with_values(flat)
    if isinstance(behavior, (Series, Samples)):
        return behavior
    have = ", ".join(recording.modalities) or "nothing"
    raise RecordingError(
        f"no behavior; there is {have}; move channels there: {{step: behavior, channels: [...]}}",
    )


def _with_trials(recording: Recording, trials: Events, name: str) -> Recording:
    inside = _in_one_piece(recording, trials)
    if outside := int((~inside).sum()):
        if outside == len(trials):
            raise RecordingError(
                f"{name}: none of the {outside} trials lies in one piece of neural",
                stream="neural",
                at=float(trials.times[0]),
            )
        recording = noted(
            recording,
            "trials",
            f"{outside} of {len(trials)} trials reach out of their piece and are left out",
            "shorten the epochs to keep them",
        )
    assert trials.durations is not None
    trials = replace(
        trials,
        times=trials.times[inside],
        kinds=trials.kinds[inside],
        durations=trials.durations[inside],
    )
    overlaps = int((trials.stops[:-1] > trials.times[1:] + 1e-9).sum())
    if overlaps:
        recording = noted(
            recording,
            "trials",
            f"{overlaps} of {len(trials)} trials overlap the next one",
            "split by segment, session or time, so that no sample is in two parts",
        )
    return replace(recording, trials=trials)


def _in_one_piece(recording: Recording, trials: Events) -> np.ndarray:
    neural = recording.modalities.get("neural")
    if not isinstance(neural, Series):
        return np.ones(len(trials), bool)
    step = 1 / neural.rate
    # A marker may lie between two samples: half a sample outside is inside.
    starts = np.array([piece.start for piece in neural.pieces]) - step / 2
    order = np.argsort(starts, kind="stable")
    ends = np.array([piece.start + len(piece) * step for piece in neural.pieces]) + step / 2
    own = np.searchsorted(starts[order], trials.times, side="right") - 1
    found = np.zeros(len(trials), bool)
    # Pieces may touch, and a start in the half sample that two share belongs to either.
    for candidate in (own, own - 1):
        inside = candidate >= 0
        found |= inside & (trials.stops <= ends[order][np.maximum(candidate, 0)])
    return found


def _unique(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


Runs = tuple[np.ndarray, np.ndarray, np.ndarray]


def _series_runs(behavior: Series, column: int) -> Runs:
    """Runs of one value in a series: their times, values and lengths in seconds."""
    times, values, lengths, distinct = [], [], [], set[float]()
    for start, count, value in _counted(behavior, column):
        distinct.add(value)
        if len(distinct) > MAX_STATES:
            raise _too_many(behavior.names[column])
        times.append(start)
        values.append(value)
        lengths.append(count / behavior.rate)
    return np.array(times, float), np.array(values, float), np.array(lengths, float)


def _counted(behavior: Series, column: int) -> Iterator[tuple[float, int, float]]:
    start, count, value = 0.0, 0, np.nan
    for part in parts(behavior):
        block = np.asarray(part.values[:, column], float).reshape(-1)
        borders = np.flatnonzero(np.diff(block) != 0) + 1
        for first, stop in zip([0, *borders], [*borders, len(block)], strict=True):
            if first == 0 and not part.begins and block[0] == value:
                count += int(stop)
                continue
            if count:
                yield start, count, value
            value, count = float(block[first]), int(stop - first)
            start = part.piece.start + (part.offset + int(first)) / behavior.rate
            if np.isnan(value):
                count = 0
    if count:
        yield start, count, value


def _sample_runs(behavior: Samples, column: int) -> Runs:
    """The same of irregular samples: a run lasts until the next one's first sample."""
    values = behavior.values[:, column].astype(float)
    if len(np.unique(values[~np.isnan(values)])) > MAX_STATES:
        raise _too_many(behavior.names[column])
    firsts = np.flatnonzero(np.concatenate([[True], np.diff(values) != 0]))
    ends = np.append(behavior.times[firsts[1:]], behavior.times[-1])
    lengths, known = ends - behavior.times[firsts], ~np.isnan(values[firsts])
    return behavior.times[firsts][known], values[firsts][known], lengths[known]


def _too_many(name: str) -> RecordingError:
    problem = f"has more than {MAX_STATES} values; it is no channel of states"
    return RecordingError(problem, stream=name)

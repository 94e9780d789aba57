"""How a recording becomes an artifact's inputs: what a manifest keeps of a data set.

The trainer writes a Plan into the manifest (`provenance.data.plan`); `axonnx predict` and the
service read it back and apply the same steps and the same cut to another recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recording.contract import Channel, Events, Piece, Recording, Series
from recording.errors import RecordingError
from recording.preparation import Preparation, prepare


class PlannedChannel(BaseModel):
    """A channel that a window must have, in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: str
    unit: str


class Plan(BaseModel):
    """Preparation and cut of an artifact's windows.

    steps: the whole preparation, fitted; the last `graph_steps` of them are inside the graph.
    rate, channels, features: of `neural` as the artifact takes it. window, observed, stride: in
    samples. cut: "sliding" over every piece, or "trial": from each trial's start. outputs: classes
    of classify, variables of decode, channels of forecast, with their units. test: session, first
    and end second of every stretch that the model is judged by and was not trained on. format,
    reader: of the files trained on, and what their reader was told, for files like them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["forecast", "classify", "decode"]
    steps: Preparation = ()
    graph_steps: int = Field(default=0, ge=0)
    rate: float = Field(gt=0)
    channels: tuple[PlannedChannel, ...]
    features: tuple[str, ...] = ("value",)
    window: int = Field(ge=1)
    observed: int = Field(ge=1)
    stride: int = Field(ge=1)
    cut: Literal["sliding", "trial"] = "sliding"
    outputs: tuple[str, ...]
    output_units: tuple[str, ...]
    test: tuple[tuple[str, float, float], ...] = ()
    format: str | None = None
    reader: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Plan:
        """The plan in a manifest, `provenance.data.plan`; raises RecordingError naming the key."""
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            details = error.errors()[0]
            key = ".".join(map(str, details["loc"]))
            raise RecordingError(f"the artifact's plan: {key}: {details['msg']}") from None

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return self.model_dump(mode="json")

    def prepare(self, recording: Recording) -> Recording:
        """The recording as the artifact takes it: every step but those inside the graph.

        Steps on behaviour that the recording does not hold are left out. Raises RecordingError
        where it does not fit: rate, channels, or a step.
        """
        prepared = recording
        for index, one in enumerate(self.steps[: len(self.steps) - self.graph_steps]):
            if one.has_work(prepared):
                prepared = prepare(prepared, [one], first=index)
        self._check(prepared)
        return prepared

    def _check(self, prepared: Recording) -> None:
        neural = prepared.neural

        def wrong(problem: str) -> RecordingError:
            return RecordingError(problem, file=prepared.source, stream="neural")

        if not np.isclose(neural.rate, self.rate, rtol=1e-6):
            raise wrong(
                f"is at {neural.rate:g} Hz; the artifact was trained at {self.rate:g} Hz: "
                "train with a resample step to take other rates"
            )
        wanted = tuple(channel.name for channel in self.channels)
        if neural.names != wanted:
            missing = [name for name in wanted if name not in neural.names]
            extra = [name for name in neural.names if name not in wanted]
            what = f"lacks {', '.join(missing)}" if missing else "has them in another order"
            if extra:
                what += f", has {', '.join(extra)} besides"
            raise wrong(
                f"its channels differ from those trained on: it {what}; "
                "must be the same names in the same order"
            )
        units = [
            (c.name, c.unit, p.unit) for c, p in zip(neural.channels, self.channels, strict=True)
        ]
        for name, unit, planned in units:
            if unit != planned:
                raise wrong(
                    f"channel {name} is in {unit or 'no stated unit'}, trained in "
                    f"{planned or 'no stated unit'}: declare or scale it"
                )
        if neural.features != self.features:
            raise wrong(f"features {neural.features}, trained on {self.features}")


@dataclass(frozen=True, eq=False)
class Cut:
    """Windows of a prepared recording: first sample, its time in seconds, trial (-1: none)."""

    starts: np.ndarray
    times: np.ndarray
    trials: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def cut(
    recording: Recording,
    plan: Plan,
    *,
    stride: int | None = None,
    stretches: Sequence[tuple[float, float]] = ((-np.inf, np.inf),),
) -> Cut:
    """Every window of a prepared recording by the plan's rule that lies in one of the stretches.

    `stretches` are seconds from and to; sliding windows begin where each of them does. Raises
    RecordingError where there is no window, or no trial for a cut by trials.
    """
    neural = recording.neural
    if plan.cut == "trial":
        if recording.trials is None or len(recording.trials) == 0:
            raise RecordingError(
                "has no trials; the artifact answers one window per trial", file=recording.source
            )
        found = trial_windows(neural, recording.trials, plan.window)
        if len(found):
            found = _inside(found, plan, stretches)
    else:
        found = sliding_windows(neural, plan.window, stride or plan.stride, stretches)
    if len(found) == 0:
        seconds = plan.window / plan.rate
        raise RecordingError(
            f"no window of {plan.window} samples = {seconds:g} s lies in what was asked for",
            file=recording.source,
        )
    return found


def sliding_windows(
    neural: Series,
    window: int,
    stride: int,
    stretches: Sequence[tuple[float, float]] = ((-np.inf, np.inf),),
) -> Cut:
    """Windows every `stride` samples inside each piece, from the beginning of each stretch on."""
    starts = [
        np.arange(first, stop - window + 1, stride, dtype=np.int64)
        for piece in neural.pieces
        for first, stop in (_samples(neural, piece, stretch) for stretch in stretches)
    ]
    joined = np.concatenate(starts)
    return Cut(joined, times_of(neural, joined), np.full(len(joined), -1, np.int64))


def _samples(neural: Series, piece: Piece, stretch: tuple[float, float]) -> tuple[int, int]:
    """Samples [first, stop) of a piece that lie in a stretch of seconds."""
    ends = [(second - piece.start) * neural.rate for second in stretch]
    # Within the piece before anything is rounded: a border may be infinite.
    begin, end = (min(max(place, 0.0), float(len(piece))) for place in ends)
    # A border is a sample's own time, give or take the rounding of seconds.
    first = round(begin) if abs(begin - round(begin)) < 1e-3 else -(-begin // 1)
    stop = int(end + 1e-3)
    return piece.first + int(first), piece.first + max(int(first), stop)


def _inside(windows: Cut, plan: Plan, stretches: Sequence[tuple[float, float]]) -> Cut:
    ends, slack = windows.times + plan.window / plan.rate, 0.5 / plan.rate
    keep = np.zeros(len(windows), bool)
    for first, last in stretches:
        keep |= (windows.times >= first - slack) & (ends <= last + slack)
    return Cut(windows.starts[keep], windows.times[keep], windows.trials[keep])


def trial_windows(neural: Series, trials: Events, window: int) -> Cut:
    """One window per trial, from its first sample; trials that do not hold one are left out."""
    starts, owners = [], []
    for trial in range(len(trials)):
        first, stop = trial_range(neural, trials, trial)
        if stop - first >= window:
            starts.append(first)
            owners.append(trial)
    joined = np.array(starts, np.int64)
    return Cut(joined, times_of(neural, joined), np.array(owners, np.int64))


def trial_range(neural: Series, trials: Events, trial: int) -> tuple[int, int]:
    """Samples [first, stop) of a trial, cut where the piece that it begins in ends.

    The first sample is the one nearest to the trial's start; (0, 0) where no piece has it.
    """
    start, end = float(trials.times[trial]), float(trials.stops[trial])
    for piece in neural.pieces:
        first = round((start - piece.start) * neural.rate)
        if 0 <= first < len(piece):
            count = round((end - start) * neural.rate)
            return piece.first + first, min(piece.first + first + count, piece.stop)
    return 0, 0


def times_of(neural: Series, samples: np.ndarray) -> np.ndarray:
    """Time of single samples, in seconds: (sample,) float64."""
    firsts = np.array([piece.first for piece in neural.pieces])
    starts = np.array([piece.start for piece in neural.pieces])
    own = np.searchsorted(firsts, samples, side="right") - 1
    return np.asarray(starts[own] + (samples - firsts[own]) / neural.rate)


def window_values(neural: Series, starts: np.ndarray, plan: Plan) -> np.ndarray:
    """Windows as the artifact takes them: (batch, time, channel, feature) float32.

    Of a forecast, every step from `observed` on repeats the last observed one.
    """
    channels, features = len(neural.channels), len(neural.features)
    values = np.empty((len(starts), plan.window, channels, features), np.float32)
    for row, start in enumerate(starts):
        samples = neural.values[int(start) : int(start) + plan.window]
        values[row] = np.asarray(samples, np.float32).reshape(plan.window, channels, features)
    values[:, plan.observed :] = values[:, plan.observed - 1 : plan.observed]
    return values


def planned(channels: tuple[Channel, ...]) -> tuple[PlannedChannel, ...]:
    """Channels as a plan keeps them."""
    return tuple(PlannedChannel(name=c.name, type=c.type, unit=c.unit) for c in channels)

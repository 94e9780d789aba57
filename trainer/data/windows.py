"""Examples cut from recordings: windows, batches, statistics, and the data set of three parts.

A window is all steps of an example; the observed steps come first, the horizon follows. A model
gets masked inputs: every step from `observed` on repeats the last observed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from artifact.manifest import Axis, TensorSpec
from recording.plan import Plan
from recording.preparation.operations import Operation
from recording.signals import Signal
from trainer.data.errors import DataError

CHUNK_BYTES = 32 * 2**20
RESEMBLANCE = (0.5, 2.0)  # of a part's mean squared target, in train z-scores
PARTS = ("train", "validation", "test")
# What each task predicts, by the name of its target in a batch.
TARGETS = {"forecast": "forecast", "classify": "choice", "decode": "behavior"}


@dataclass(frozen=True, eq=False)
class Batch:
    """Named arrays of a few windows, batch axis first."""

    inputs: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and standard deviation (ddof 0) over windows and steps: (channel, feature) float64."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True, eq=False)
class Windows:
    """One part of a data set, cut lazily.

    `series` holds, for each input, one array (time, ...) per session, in memory or mapped; window i
    is the `steps` samples from `starts[i]` on in session `sessions[i]`. Arrays that are windows
    already, (window, time, ...), are series too: see `flatten`. `targets`: of classify (window,)
    int64 class numbers, of decode (window, variable) float32; of forecast None, the targets being
    steps of the window. `raw` are the series as an artifact takes them where its graph prepares
    them first, `raw_inputs` their specs; None where they are the same. `trials` (window,) int64 is
    the trial of each window, -1 for none; `times` (window,) float64 the second of each first sample
    on its session's clock, None where sessions begin at 0 and have no gaps.
    """

    task: str
    observed: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    series: Mapping[str, tuple[Signal, ...]]
    sessions: np.ndarray
    starts: np.ndarray
    targets: np.ndarray | None = None
    raw: Mapping[str, tuple[Signal, ...]] | None = None
    raw_inputs: tuple[TensorSpec, ...] = ()
    trials: np.ndarray | None = None
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.observed <= self.steps:
            raise DataError(f"observed: is {self.observed}; a window has {self.steps} steps")
        if len(self.starts) == 0:
            raise DataError("no window: the part is empty")
        if self.sessions.shape != self.starts.shape:
            raise DataError(f"{len(self.sessions)} sessions for {len(self.starts)} windows")
        if (self.targets is None) != (self.task == "forecast"):
            raise DataError(f"task {self.task}: targets go with classify and decode")
        if self.targets is not None and len(self.targets) != len(self.starts):
            raise DataError(f"{len(self.targets)} targets for {len(self.starts)} windows")
        for name, arrays in self.series.items():
            lengths = np.array([len(array) for array in arrays])
            over = self.starts + self.steps > lengths[self.sessions]
            if over.any() or self.starts.min() < 0:
                raise DataError(f"{name}: a window lies outside its session")

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def steps(self) -> int:
        """Steps of a window, observed and horizon together."""
        size = _axis(self.inputs[0], "time")
        assert size is not None
        return size

    def recorded(self, rows: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of `rows` as recorded, nothing masked: each (batch, time, ...)."""
        return self._read(rows)

    def take(self, rows: np.ndarray) -> Windows:
        """The windows of `rows` (row,) int64, in that order; series are shared, not copied."""
        chosen = {
            name: None if (values := getattr(self, name)) is None else values[rows]
            for name in ("sessions", "starts", "targets", "trials", "times")
        }
        return replace(self, **chosen)

    def outside(self) -> Windows:
        """The same windows as an artifact takes them, before the preparation inside its graph.

        Their inputs serve; targets and statistics of what is predicted are those of this part.
        """
        if self.raw is None:
            return self
        return replace(self, inputs=self.raw_inputs, series=self.raw, raw=None, raw_inputs=())

    def _read(self, rows: slice | np.ndarray) -> dict[str, np.ndarray]:
        sessions, starts = self.sessions[rows], self.starts[rows]
        offsets = np.arange(self.steps)
        read = {}
        for spec in self.inputs:
            arrays = self.series[spec.name]
            tail = tuple(size for size in spec.shape[2:] if size is not None)
            values = np.empty((len(starts), self.steps, *tail), spec.dtype)
            for session in np.unique(sessions):
                at = np.flatnonzero(sessions == session)
                array = arrays[session]
                if isinstance(array, np.ndarray):
                    chosen = array[starts[at, None] + offsets]
                    values[at] = chosen.reshape(len(at), self.steps, *tail)
                    continue
                for row in at:
                    chosen = array[int(starts[row]) : int(starts[row]) + self.steps]
                    values[row] = chosen.reshape(self.steps, *tail)
            read[spec.name] = values
        return read

    def _mask(self, inputs: Mapping[str, np.ndarray]) -> None:
        for values in inputs.values():
            values[:, self.observed :] = values[:, self.observed - 1 : self.observed]

    def batch(self, rows: slice | np.ndarray) -> Batch:
        """Masked inputs and full targets of `rows`.

        Forecast: targets `forecast` (batch, time, channel) float32, feature 0 in raw units.
        Classify: targets `choice` (batch,) int64. Decode: targets `behavior` (batch, variable)
        float32 in raw units, NaN where it was not measured.
        """
        inputs = self.recorded(rows)
        if self.targets is None:
            targets = {"forecast": inputs["neural"][..., 0].copy()}
        else:
            targets = {TARGETS[self.task]: self.targets[rows]}
        self._mask(inputs)
        return Batch(inputs, targets)

    def chunks(self) -> Iterator[slice]:
        """Row slices small enough to hold one at a time."""
        per_window = sum(math.prod(a[0].shape[1:]) * self.steps * 8 for a in self.series.values())
        size = max(1, CHUNK_BYTES // max(1, per_window))
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the unmasked `neural` over (window, time), in float64."""
        return self._statistics

    @cached_property
    def _statistics(self) -> Statistics:
        # Kept: a run asks for them many times, and each time would read the whole part twice.
        shape = self.inputs[0].shape[2:]
        rows = len(self) * self.steps
        total, squares = np.zeros(shape), np.zeros(shape)
        for chunk in self.chunks():
            total += self.recorded(chunk)["neural"].sum(axis=(0, 1), dtype=np.float64)
        mean = total / rows
        for chunk in self.chunks():
            centred = self.recorded(chunk)["neural"].astype(np.float64) - mean
            squares += np.square(centred, out=centred).sum(axis=(0, 1))
        return Statistics(mean, np.sqrt(squares / rows))

    def target_statistics(self) -> Statistics:
        """Mean and standard deviation of what is predicted, (variable,) float64, NaN left out.

        Of a forecast those of feature 0, (channel,).
        """
        if self.task == "forecast":
            statistics = self.statistics()
            return Statistics(statistics.mean[:, 0], statistics.std[:, 0])
        assert self.targets is not None
        if self.task == "classify":
            return Statistics(np.zeros(1), np.ones(1))
        values = self.targets.astype(np.float64)
        return Statistics(np.nanmean(values, axis=0), np.nanstd(values, axis=0))


@dataclass(frozen=True, eq=False)
class ModelContext:
    """What a model's constructor learns of the data; None where a task has no such thing.

    classes: of classify; behavior_dim: columns of the input `behavior`; variables: of decode;
    positions: of electrodes (channel, 3) in m, NaN where not known; rate: steps per second;
    sessions: how many a window's session number may name.
    """

    task: str
    steps: int
    observed: int
    channels: int
    features: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    statistics: Statistics
    classes: int | None = None
    behavior_dim: int | None = None
    variables: int | None = None
    target_statistics: Statistics | None = None
    channel_names: tuple[str, ...] = ()
    positions: np.ndarray | None = None
    rate: float | None = None
    sessions: int = 1

    @property
    def horizon(self) -> int:
        """Steps to forecast."""
        return self.steps - self.observed


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint parts and where they come from.

    `fingerprint` is the sha256 of contents and settings, without paths; `rate` in Hz; `unit` of
    feature 0; `sessions` of the parts index `session_names`. `plan` says how a recording becomes
    the artifact's inputs, None where the data are windows already; `operations` are the steps that
    its graph performs; `output_names` are the classes of classify or the variables of decode;
    `positions` of electrodes are (channel, 3) in m, NaN where not known, None where none is.
    """

    name: str
    train: Windows
    validation: Windows
    test: Windows
    fingerprint: str
    rate: float
    unit: str
    channel_names: tuple[str, ...]
    session_names: tuple[str, ...]
    synthetic: bool
    description: str
    plan: Plan | None = None
    operations: tuple[Operation, ...] = ()
    output_names: tuple[str, ...] = ()
    positions: np.ndarray | None = None

    @property
    def task(self) -> str:
        """`forecast`, `classify` or `decode`."""
        return self.train.task

    @property
    def parts(self) -> dict[str, Windows]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def ends(self, windows: Windows) -> np.ndarray:
        """Second of the last sample of each window of a part, on its session's clock."""
        begins = windows.starts / self.rate if windows.times is None else windows.times
        return np.asarray(begins + (windows.steps - 1) / self.rate)

    def context(self) -> ModelContext:
        """What a model needs to know; statistics come from the train part alone."""
        train = self.train
        channels, features = _axis(train.inputs[0], "channel"), _axis(train.inputs[0], "feature")
        assert channels is not None
        assert features is not None
        inputs = {spec.name: spec for spec in train.inputs}
        output = train.outputs[0]
        return ModelContext(
            task=train.task,
            steps=train.steps,
            observed=train.observed,
            channels=channels,
            features=features,
            inputs=train.inputs,
            outputs=train.outputs,
            statistics=train.statistics(),
            classes=_axis(output, "class") if train.task == "classify" else None,
            behavior_dim=_axis(inputs["behavior"], "dim") if "behavior" in inputs else None,
            variables=_axis(output, "variable") if train.task == "decode" else None,
            target_statistics=train.target_statistics(),
            channel_names=self.channel_names,
            positions=self.positions,
            rate=self.rate,
            sessions=len(self.session_names),
        )


def resembles(train: Windows, part: Windows) -> bool:
    """Whether targets of `part` spread like those of `train`, so that choices on it carry over.

    Their mean square in train z-scores is within a factor 2 of 1; it is not where the level drifts
    or an artefact fills the part. True where nothing was measured, and for classify.
    """
    if train.task == "classify":
        return True
    statistics = train.target_statistics()
    scale = np.where(statistics.std > 0, statistics.std, 1.0)
    total, count = 0.0, 0
    for rows in part.chunks():
        batch = part.batch(rows)
        values = batch.targets[TARGETS[train.task]].astype(np.float64)
        if train.task == "forecast":
            values = values[:, part.observed :]
        squares = ((values - statistics.mean) / scale) ** 2
        total += float(np.nansum(squares))
        count += int(np.isfinite(squares).sum())
    return count == 0 or RESEMBLANCE[0] <= total / count <= RESEMBLANCE[1]


def flatten(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows (window, time, ...) as one series (window * time, ...) and the start of each.

    A view where the memory order allows, so that a mapped file stays mapped.
    """
    count, steps = windows.shape[:2]
    return windows.reshape(count * steps, *windows.shape[2:]), steps * np.arange(count)


def forecast_specs(
    *, steps: int, channels: int, features: int, unit: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a forecast: neural → forecast."""
    batch, time, channel = Axis("batch"), Axis("time", steps), Axis("channel", channels)
    neural = TensorSpec(
        name="neural",
        dtype="float32",
        axes=(batch, time, channel, Axis("feature", features)),
        unit=unit,
        meaning="neural activity, feature 0 to forecast; later steps repeat the last observed",
    )
    forecast = TensorSpec(
        name="forecast",
        dtype="float32",
        axes=(batch, time, channel),
        unit=unit,
        meaning="feature 0 of each channel at every step",
    )
    return (neural,), (forecast,)


def neural_spec(*, steps: int, channels: int, features: int, unit: str) -> TensorSpec:
    """The input `neural` of a window that is observed whole."""
    return TensorSpec(
        name="neural",
        dtype="float32",
        axes=(
            Axis("batch"),
            Axis("time", steps),
            Axis("channel", channels),
            Axis("feature", features),
        ),
        unit=unit,
        meaning="neural activity of a trial",
    )


def probability_spec(classes: int) -> TensorSpec:
    """The output of classify."""
    return TensorSpec(
        name="probability",
        dtype="float32",
        axes=(Axis("batch"), Axis("class", classes)),
        unit="1",
        meaning="probability of each choice; a row sums to 1",
    )


def decode_specs(
    *, steps: int, channels: int, features: int, variables: int, unit: str, target_unit: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of decode: neural → behavior at the last sample of the window."""
    behavior = TensorSpec(
        name="behavior",
        dtype="float32",
        axes=(Axis("batch"), Axis("variable", variables)),
        unit=target_unit,
        meaning="behaviour at the last sample of the window",
    )
    neural = neural_spec(steps=steps, channels=channels, features=features, unit=unit)
    return (neural,), (behavior,)


def classify_specs(
    *, steps: int, channels: int, features: int, classes: int, unit: str, dim: int = 0
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of classify: neural → probability.

    With `dim` above 0 behaviour is an input too: behavior (batch, time, dim), behavior_mask.
    """
    batch, time = Axis("batch"), Axis("time", steps)
    neural = neural_spec(steps=steps, channels=channels, features=features, unit=unit)
    if dim == 0:
        return (neural,), (probability_spec(classes),)
    behavior = TensorSpec(
        name="behavior",
        dtype="float32",
        axes=(batch, time, Axis("dim", dim)),
        unit="raw",
        meaning="behaviour of a trial; 0 where it is missing",
    )
    mask = TensorSpec(
        name="behavior_mask",
        dtype="bool",
        axes=(batch, time),
        unit="",
        meaning="true where behavior is present",
    )
    return (neural, behavior, mask), (probability_spec(classes),)


def _axis(spec: TensorSpec, name: str) -> int | None:
    sizes = {axis.name: axis.size for axis in spec.axes}
    return sizes[name]

"""Examples cut from recordings: windows, batches, statistics, and the data set of three parts.

A window is all steps of an example; the observed steps come first, the horizon follows. A model
gets masked inputs: every step from `observed` on repeats the last observed one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from artifact.manifest import Axis, TensorSpec
from trainer.data.errors import DataError

CHUNK_BYTES = 32 * 2**20
PARTS = ("train", "validation", "test")


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
    already, (window, time, ...), are series too: see `flatten`. `labels` (window,) int64 are the
    targets of a decode task.
    """

    task: str
    observed: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    series: Mapping[str, tuple[np.ndarray, ...]]
    sessions: np.ndarray
    starts: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.observed <= self.steps:
            raise DataError(f"observed: is {self.observed}; a window has {self.steps} steps")
        if len(self.starts) == 0:
            raise DataError("no window: the part is empty")
        if self.sessions.shape != self.starts.shape:
            raise DataError(f"{len(self.sessions)} sessions for {len(self.starts)} windows")
        if self.labels is not None and self.labels.shape != self.starts.shape:
            raise DataError(f"{len(self.labels)} labels for {len(self.starts)} windows")
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
        sessions, starts = self.sessions[rows], self.starts[rows]
        offsets = np.arange(self.steps)
        recorded = {}
        for spec in self.inputs:
            arrays = self.series[spec.name]
            values = np.empty((len(starts), self.steps, *arrays[0].shape[1:]), spec.dtype)
            for session in np.unique(sessions):
                at = np.flatnonzero(sessions == session)
                values[at] = arrays[session][starts[at, None] + offsets]
            recorded[spec.name] = values
        return recorded

    def batch(self, rows: slice | np.ndarray) -> Batch:
        """Masked inputs and full targets of `rows`.

        Forecast: targets `forecast` (batch, time, channel) float32, feature 0 in raw units.
        Decode: targets `choice` (batch,) int64.
        """
        inputs = self.recorded(rows)
        if self.labels is not None:
            targets = {"choice": self.labels[rows]}
        else:
            targets = {"forecast": inputs["neural"][..., 0].copy()}
        for values in inputs.values():
            values[:, self.observed :] = values[:, self.observed - 1 : self.observed]
        return Batch(inputs, targets)

    def chunks(self) -> Iterator[slice]:
        """Row slices small enough to hold one at a time."""
        per_window = sum(a[0][0].size * self.steps * 8 for a in self.series.values())
        size = max(1, CHUNK_BYTES // max(1, per_window))
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the unmasked `neural` over (window, time), in float64."""
        return self._statistics

    @cached_property
    def _statistics(self) -> Statistics:
        # Kept: a run asks for them many times, and each time would read the whole part twice.
        shape = self.series["neural"][0].shape[1:]
        rows = len(self) * self.steps
        total, squares = np.zeros(shape), np.zeros(shape)
        for chunk in self.chunks():
            total += self.recorded(chunk)["neural"].sum(axis=(0, 1), dtype=np.float64)
        mean = total / rows
        for chunk in self.chunks():
            centred = self.recorded(chunk)["neural"].astype(np.float64) - mean
            squares += np.square(centred, out=centred).sum(axis=(0, 1))
        return Statistics(mean, np.sqrt(squares / rows))


@dataclass(frozen=True, eq=False)
class ModelContext:
    """What a model's constructor learns of the data; None where a task has no such thing."""

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

    @property
    def horizon(self) -> int:
        """Steps to forecast."""
        return self.steps - self.observed


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint parts and where they come from.

    `fingerprint` is the sha256 of contents and settings, without paths; `rate` in Hz; `unit` of
    feature 0; `sessions` of the parts index `session_names`.
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

    @property
    def task(self) -> str:
        """`forecast` or `decode`."""
        return self.train.task

    @property
    def parts(self) -> dict[str, Windows]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def context(self) -> ModelContext:
        """What a model needs to know; statistics come from the train part alone."""
        train = self.train
        channels, features = train.series["neural"][0].shape[1:]
        sizes = {spec.name: spec for spec in (*train.inputs, *train.outputs)}
        decode = train.task == "decode"
        return ModelContext(
            task=train.task,
            steps=train.steps,
            observed=train.observed,
            channels=channels,
            features=features,
            inputs=train.inputs,
            outputs=train.outputs,
            statistics=train.statistics(),
            classes=_axis(sizes["probability"], "class") if decode else None,
            behavior_dim=_axis(sizes["behavior"], "dim") if "behavior" in sizes else None,
        )


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


def decode_specs(
    *, steps: int, channels: int, features: int, dim: int, classes: int, unit: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a decoder: neural, behavior, behavior_mask → probability."""
    batch, time = Axis("batch"), Axis("time", steps)
    neural = TensorSpec(
        name="neural",
        dtype="float32",
        axes=(batch, time, Axis("channel", channels), Axis("feature", features)),
        unit=unit,
        meaning="neural activity of a trial",
    )
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
    probability = TensorSpec(
        name="probability",
        dtype="float32",
        axes=(batch, Axis("class", classes)),
        unit="1",
        meaning="probability of each choice; a row sums to 1",
    )
    return (neural, behavior, mask), (probability,)


def _axis(spec: TensorSpec, name: str) -> int | None:
    sizes = {axis.name: axis.size for axis in spec.axes}
    return sizes[name]

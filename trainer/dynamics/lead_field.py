"""EEG and MEG: what sensors see of dipoles, with the noise of the sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from recording import array_files
from recording.errors import RecordingError
from trainer.dynamics.observation import (
    OBSERVATIONS,
    Observation,
    ObservationError,
    check_values,
)
from trainer.dynamics.parameters import Param

NANOAMPERE_METER = 1e-9
MOST_BYTES = 2**30  # of a matrix in a file
# Samples whose noise comes from one generator.
BLOCK = 1024
# Keeps the noise of sensors apart from that of a simulation with the same seed.
_SENSOR_STREAM = 3


@dataclass(frozen=True)
class SensorState:
    """How many samples were observed so far: what their noise depends on."""

    done: int


class LeadField(Observation):
    """Sensor values y = (scale · x) Lᵀ + e, e ~ N(0, covariance), white in time.

    matrix: L, (sensor, node), in `unit` per A·m; an array, nested lists, a `Param`, or the path of
    a .npy file. scale: A·m of one unit of activity, by default 1e-9 (activity in nA·m). covariance:
    of the sensors' noise, (sensor, sensor) in `unit`², or one standard deviation for all of them in
    `unit`; None for no noise. seed: of the noise (Philox), first_member: number of the first batch
    member. sensors: names.
    """

    def __init__(
        self,
        *,
        matrix: Any,
        scale: float = NANOAMPERE_METER,
        covariance: Any = None,
        seed: int = 0,
        first_member: int = 0,
        sensors: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        own_matrix(self, "matrix", matrix)
        if not (math.isfinite(scale) and scale != 0):
            raise ObservationError(f"scale is {scale}; must be a number of A·m per unit, not 0")
        self.scale = float(scale)
        count = len(matrix_of(self.matrix))
        self.register_buffer("root", None if covariance is None else _root(covariance, count))
        if seed < 0 or first_member < 0:
            raise ObservationError(f"seed {seed} and first_member {first_member} are 0 or more")
        self.seed, self.first_member = seed, first_member
        if sensors and (len(sensors) != count or len(set(sensors)) != count):
            raise ObservationError(f"{len(sensors)} names for {count} sensors, or one twice")
        self.sensors = tuple(sensors) or tuple(f"sensor {k}" for k in range(count))

    def observe(
        self, values: Tensor, interval: float, state: SensorState | None = None
    ) -> tuple[Tensor, float, SensorState]:
        """See Observation; values are sources (batch, time, node), the answer is per sensor."""
        check_values(values, interval)
        done = state.done if state else 0
        seen = weighted_sums(self.scale * values, matrix_of(self.matrix).to(values))
        if self.root is not None:
            batch, count, sensors = seen.shape
            members = range(self.first_member, self.first_member + batch)
            drawn = torch.from_numpy(sensor_normals(self.seed, members, done, count, sensors))
            seen = seen + weighted_sums(drawn.to(seen), self.root.to(seen))
        return seen, interval, SensorState(done + values.shape[1])

    def channels(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """See Observation."""
        return self.sensors


@OBSERVATIONS.register("eeg")
class EegLeadField(LeadField):
    """Electrodes in V, of a lead field in V per A·m; see LeadField."""

    unit = "V"


@OBSERVATIONS.register("meg")
class MegLeadField(LeadField):
    """Magnetometers in T, of a lead field in T per A·m; see LeadField."""

    unit = "T"


@OBSERVATIONS.register("readout")
class Readout(Observation):
    """Fitted sensors y = gain · M x − offset, M from a lead field by two steps.

    matrix: (sensor, node), a `Param` to fit it. normalize: rows are divided by Σ|m| ("l1"), by
    √Σm² ("l2") or stay; demean: then the mean over sensors is taken from every column, as an
    average reference does. gain, offset: numbers or Params of one value; the unit is that of the
    offset.
    """

    def __init__(
        self,
        *,
        matrix: Any,
        gain: float | Param = 1.0,
        offset: float | Param = 0.0,
        normalize: Literal["l1", "l2"] | None = "l1",
        demean: bool = True,
        unit: str = "1",
    ) -> None:
        super().__init__()
        own_matrix(self, "matrix", matrix)
        if normalize not in (None, "l1", "l2"):
            raise ObservationError(f"normalize is {normalize!r}; must be l1, l2 or null")
        self.gain, self.offset = gain, offset
        self.normalize, self.demean, self.unit = normalize, demean, unit

    def weights(self) -> Tensor:
        """M, (sensor, node): the matrix normalised and without its mean over sensors."""
        matrix = matrix_of(self.matrix)
        if self.normalize is not None:
            size = matrix.abs() if self.normalize == "l1" else matrix * matrix
            total = size.sum(dim=1, keepdim=True)
            # The square root of 0 has no gradient; a row of zeros stays one.
            total = torch.where(total == 0, torch.ones_like(total), total)
            matrix = matrix / (total if self.normalize == "l1" else torch.sqrt(total))
        return matrix - matrix.mean(dim=0) if self.demean else matrix

    def observe(
        self, values: Tensor, interval: float, state: Any = None
    ) -> tuple[Tensor, float, None]:
        """See Observation; there is no state."""
        check_values(values, interval)
        gain, offset = (
            each.value().to(values) if isinstance(each, Param) else each
            for each in (self.gain, self.offset)
        )
        return gain * weighted_sums(values, self.weights().to(values)) - offset, interval, None

    def channels(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """See Observation."""
        return tuple(f"sensor {k}" for k in range(len(matrix_of(self.matrix))))


def compress_vertices(lead_field: Tensor, weights: Tensor) -> Tensor:
    """Lead field of regions (sensor, region), of one of vertices (sensor, 3 · vertex).

    weights: (3 · vertex, region), the dipole of every vertex when a region is active by one unit,
    see `fixed_orientations`; axes x, y, z of a vertex follow one another in both.
    """
    if lead_field.ndim != 2 or weights.ndim != 2 or lead_field.shape[1] != weights.shape[0]:
        raise ObservationError(
            f"a lead field {tuple(lead_field.shape)} and weights {tuple(weights.shape)}; must be "
            "(sensor, 3 · vertex) and (3 · vertex, region)"
        )
    if lead_field.shape[1] % 3:
        raise ObservationError(
            f"the lead field has {lead_field.shape[1]} columns; must be three for every vertex"
        )
    return lead_field @ weights


def fixed_orientations(normals: Tensor, parcels: Tensor, areas: Tensor | None = None) -> Tensor:
    """Weights (3 · vertex, region) of dipoles perpendicular to the cortex.

    normals: (vertex, 3), scaled to length 1; parcels: (vertex, region), the share of a vertex that
    belongs to a region; areas: (vertex,), by which dipoles grow, by default 1.
    """
    vertices = len(normals)
    shapes = normals.shape == (vertices, 3) and parcels.ndim == 2 and len(parcels) == vertices
    if not shapes or (areas is not None and areas.shape != (vertices,)):
        found = [tuple(each.shape) for each in (normals, parcels, areas) if each is not None]
        raise ObservationError(
            f"normals, parcels and areas are {found}; must be (vertex, 3), (vertex, region), "
            "(vertex,)"
        )
    length = torch.linalg.vector_norm(normals, dim=1)
    if bool((length == 0).any()):
        raise ObservationError(
            f"normals[{int((length == 0).nonzero()[0])}] is 0; it has no direction"
        )
    dipoles = normals / length[:, None]
    if areas is not None:
        dipoles = dipoles * areas[:, None]
    return (dipoles[:, :, None] * parcels[:, None, :]).reshape(3 * vertices, parcels.shape[1])


def weighted_sums(values: Tensor, matrix: Tensor) -> Tensor:
    """values (batch, time, node) @ matrixᵀ, matrix (sensor, node), node after node.

    A matrix product may add up in another order where there are more samples; this does not.
    """
    if matrix.shape[1] != values.shape[-1]:
        raise ObservationError(
            f"the matrix is for {matrix.shape[1]} nodes, (sensor, node); values have "
            f"{values.shape[-1]}"
        )
    total = values[..., :1] * matrix[:, 0]
    for place in range(1, matrix.shape[1]):
        total = total + values[..., place : place + 1] * matrix[:, place]
    return total


def sensor_normals(seed: int, members: range, first: int, count: int, sensors: int) -> np.ndarray:
    """Standard normal numbers (batch, time, sensor) float32 of samples `first` to `first` + count.

    members: numbers of the batch members. A sample has the same numbers however a run is cut.
    """
    drawn = np.empty((len(members), count, sensors), np.float32)
    for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
        start = max(first, block * BLOCK)
        stop = min(first + count, (block + 1) * BLOCK)
        for row, member in enumerate(members):
            key = np.array([seed, member], np.uint64)
            generator = np.random.Generator(
                np.random.Philox(key=key, counter=[0, 0, block, _SENSOR_STREAM])
            )
            numbers = generator.standard_normal((stop - block * BLOCK, sensors), np.float32)
            drawn[row, start - first : stop - first] = numbers[start - block * BLOCK :]
    return drawn


def own_matrix(module: nn.Module, name: str, matrix: Any) -> None:
    """Make a matrix (sensor, node) a module's buffer or, if it is a `Param`, its submodule.

    A text is the path of a .npy file, or of a .npz file with one array.
    """
    if isinstance(matrix, str | Path):
        matrix = _stored(Path(matrix), name)
    if isinstance(matrix, Param):
        setattr(module, name, matrix)
    else:
        try:
            values = torch.as_tensor(np.asarray(matrix, np.float64))
        except (TypeError, ValueError):
            raise ObservationError(f"{name} is no (sensor, node) matrix of numbers") from None
        module.register_buffer(name, values)
    values = matrix_of(getattr(module, name)).detach()
    if values.ndim != 2 or not values.numel():
        raise ObservationError(f"{name} is {tuple(values.shape)}; must be (sensor, node)")
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        raise ObservationError(f"{name}{bad[0].tolist()} is no finite number")


def matrix_of(matrix: Tensor | Param) -> Tensor:
    """The tensor of a buffer or Param."""
    return matrix.value() if isinstance(matrix, Param) else matrix


def _stored(path: Path, name: str) -> np.ndarray:
    if not path.is_file():
        raise ObservationError(f"{name}: there is no file {path}")
    try:
        stored = array_files.find_array(path)
        if stored.size > MOST_BYTES:
            raise ObservationError(
                f"{name}: {path.name} holds {stored.size} bytes; {MOST_BYTES} at most"
            )
        return stored.read()
    except RecordingError as error:
        raise ObservationError(f"{name}: {error.within(file=path.name)}") from None


def _root(covariance: Any, sensors: int) -> Tensor:
    """A lower triangular matrix R with R Rᵀ = covariance."""
    given = np.asarray(covariance, np.float64)
    if given.shape == ():
        given = np.eye(sensors) * float(given) ** 2
    if given.shape != (sensors, sensors) or not np.isfinite(given).all():
        raise ObservationError(
            f"covariance is {given.shape}; must be finite, ({sensors}, {sensors}) or one standard "
            "deviation"
        )
    if not np.allclose(given, given.T, rtol=1e-6, atol=0):
        raise ObservationError("covariance is not symmetric")
    try:
        # In volts or tesla the entries are near 1e-12 or 1e-30: scaled before the factorisation.
        size = float(np.abs(given).max()) or 1.0
        root = np.linalg.cholesky(given / size) * math.sqrt(size)
    except np.linalg.LinAlgError:
        raise ObservationError(
            "covariance is not positive definite; leave it out for no noise"
        ) from None
    return torch.from_numpy(root)

"""Rate maps of cells over places, and how an animal goes from place to place: plain estimates."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch

TRACK = 0.9  # share of the variance along one axis that makes the places a track
RATE_WINDOWS = 0.5  # windows at a unit's mean rate, added to what was seen at a place
LEAST_RATE = 1e-4  # spikes in a step: a unit that never fired somewhere may yet
TURN = 0.1  # probability to turn round in one step of a directed walk
STILL = 1e-6  # of the range: a walk of less spread stays on the nearest place


@dataclass(frozen=True)
class Tuning:
    """Spreads as parts of the range of positions, and whether directions have their own maps."""

    smoothing: float
    drift: float
    directed: bool


@dataclass(frozen=True, eq=False)
class Observed:
    """What maps are fitted on, in float64.

    counts (window, unit) of one step; positions (window, variable) there; sessions and starts
    (window,); a window has `steps` steps.
    """

    counts: np.ndarray
    positions: np.ndarray
    sessions: np.ndarray
    starts: np.ndarray
    steps: int


@dataclass(frozen=True, eq=False)
class PlaceMaps:
    """Maps of `place` places in each of `direction` directions; states are their pairs, in order.

    rates (direction, place, unit) spikes in a step; transition (state, state), rows sum to 1;
    occupancy (state,) sums to 1; visited (place,) bool; positions (place, variable), the mean of
    those observed there.
    """

    rates: np.ndarray
    transition: np.ndarray
    occupancy: np.ndarray
    visited: np.ndarray
    positions: np.ndarray


def fit_maps(observed: Observed, places: int, directions: int, tuning: Tuning) -> PlaceMaps:
    """Maps in closed form; where `directions` are 2 but not used, both are the same."""
    coordinates = principal(observed.positions)
    track = coordinates.shape[1] == 1
    place = _quantiles(coordinates[:, 0], places) if track else _cells(coordinates, places)
    windows = np.bincount(place, minlength=places).astype(np.float64)
    visited = windows > 0
    centres = _means(place, coordinates, windows)
    extent = float(np.ptp(coordinates, axis=0).max()) or 1.0
    velocity = np.full(len(place), np.nan)
    if tuning.directed and track and directions == 2:
        velocity = _velocity(observed, coordinates[:, 0])
    going = _directions(velocity, directions)
    # 1. spikes over windows, both smoothed over places
    near = np.exp(-0.5 * _squares(centres, centres) / (tuning.smoothing * extent) ** 2)
    near *= visited[:, np.newaxis] & visited
    rates, occupancy = [], []
    for weights in going.T:
        spent = np.bincount(place, weights, minlength=places)
        spikes = _sums(place, observed.counts * weights[:, np.newaxis], places)
        spikes, smooth = _product(near, spikes), _product(near, spent[:, np.newaxis])
        mean = observed.counts.mean(axis=0)
        rate = (spikes + RATE_WINDOWS * mean) / (smooth + RATE_WINDOWS)
        rates.append(np.maximum(rate, LEAST_RATE))
        occupancy.append(spent)
    # 2. a walk from centre to centre
    known = np.abs(velocity[np.isfinite(velocity)])
    speed = float(known.mean()) if len(known) else 0.0
    turn = TURN if len(known) else 0.5
    spread = max(tuning.drift, STILL) * extent
    transition = _walk(centres, visited, directions, speed, turn, spread)
    shares = np.concatenate(occupancy)
    return PlaceMaps(
        rates=np.stack(rates),
        transition=transition,
        occupancy=shares / shares.sum(),
        visited=visited,
        positions=_means(place, observed.positions, windows),
    )


def principal(positions: np.ndarray) -> np.ndarray:
    """Coordinates (window, 1 or 2) of positions (window, variable) along principal axes."""
    centred = torch.from_numpy(positions - positions.mean(axis=0))
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    share = float(variances[-1] / variances.sum()) if float(variances.sum()) > 0 else 1.0
    count = 1 if share >= TRACK else 2
    axes = axes.flip(1)[:, :count]
    # An axis has no sign of its own: its largest entry is positive.
    signs = torch.sign(axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)))
    return np.asarray((centred @ (axes * signs)).numpy())


def _quantiles(coordinate: np.ndarray, places: int) -> np.ndarray:
    """The place of each window: (window,), as many windows in each as can be."""
    edges = np.quantile(coordinate, np.arange(1, places) / places)
    return np.asarray(np.searchsorted(edges, coordinate, side="right"))


def _cells(coordinates: np.ndarray, places: int) -> np.ndarray:
    """The place of each window: (window,), visited squares of the finest grid that has no more."""
    low, extent = coordinates.min(axis=0), float(np.ptp(coordinates, axis=0).max())
    place = np.zeros(len(coordinates), np.int64)
    for side in range(isqrt(places), places + 1):
        cell = np.minimum((coordinates - low) / extent * side, side - 1).astype(np.int64)
        visited, number = np.unique(cell[:, 0] * side + cell[:, 1], return_inverse=True)
        if len(visited) > places:
            break
        place = number.reshape(-1)
    return place


def _velocity(observed: Observed, coordinate: np.ndarray) -> np.ndarray:
    """Way in one step (window,), from neighbours in time no further than a window; NaN: none."""
    order = np.lexsort((observed.starts, observed.sessions))
    starts, sessions = observed.starts[order], observed.sessions[order]
    gap = np.diff(starts).astype(np.float64)
    beside = (np.diff(sessions) == 0) & (gap > 0) & (gap <= observed.steps)
    way = np.diff(coordinate[order])
    way = np.divide(way, gap, out=np.zeros_like(way), where=beside)
    total, count = np.zeros(len(order)), np.zeros(len(order))
    for side in (slice(None, -1), slice(1, None)):
        total[side] += np.where(beside, way, 0.0)
        count[side] += beside
    velocity = np.empty(len(order))
    velocity[order] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return velocity


def _directions(velocity: np.ndarray, directions: int) -> np.ndarray:
    """How much a window counts for each direction: (window, direction), all where not known."""
    going = np.ones((len(velocity), directions))
    known = np.isfinite(velocity) & (velocity != 0)
    if known.any():
        going[known, 0] = velocity[known] > 0
        going[known, 1] = velocity[known] < 0
    return going


def _walk(
    centres: np.ndarray,
    visited: np.ndarray,
    directions: int,
    speed: float,
    turn: float,
    spread: float,
) -> np.ndarray:
    """Probability of each state after each: (state, state)."""
    stay = 1.0 - turn if directions == 2 else 1.0
    rows = []
    for direction, sign in enumerate((1.0, -1.0)[:directions]):
        squares = _squares(centres + sign * speed, centres)
        logs = np.where(visited, -0.5 * squares / spread**2, -np.inf)
        chance = np.exp(logs - logs.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        kept = [stay if other == direction else turn for other in range(directions)]
        rows.append(np.concatenate([share * chance for share in kept], axis=1))
    return np.concatenate(rows)


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared distances (a, b) of points (a, dimension) and (b, dimension)."""
    return np.asarray(np.square(first[:, np.newaxis] - second).sum(axis=2))


def _sums(place: np.ndarray, values: np.ndarray, places: int) -> np.ndarray:
    total = np.zeros((places, values.shape[1]))
    np.add.at(total, place, values)
    return total


def _means(place: np.ndarray, values: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Mean of values (window, column) at each place, 0 where there was none."""
    return np.asarray(_sums(place, values, len(windows)) / np.maximum(windows, 1.0)[:, np.newaxis])


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """By torch, whose thread count, and with it the bytes, is fixed by the config."""
    return np.asarray((torch.from_numpy(left) @ torch.from_numpy(right)).numpy())

"""Inputs to try a submission with when no test data are at hand: golden rows, noise, extremes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact import Bundle, TensorSpec
from artifact.arrays import decode_npz
from submission.challenges import Array, Challenge

EXTREMES = (0.0, 1.0, -1e3, 1e4, 1e-30, -1e6)
BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Probe:
    """One call: what it is called in the report, and the arrays by input name."""

    name: str
    arrays: Mapping[str, Array]


def golden_inputs(bundle: Bundle) -> dict[str, Array]:
    """The golden rows' inputs by name, batch first."""
    stored = decode_npz(bundle.files["golden.npz"])
    return {spec.name: stored[f"input.{spec.name}"] for spec in bundle.manifest.inputs}


def probes(challenge: Challenge, settings: Any, subject: str, bundle: Bundle) -> list[Probe]:
    """Golden rows (where they have the challenge's size), then 1, 2 and 7 made-up rows."""
    golden = golden_inputs(bundle)
    wanted, _ = challenge.row_shapes(settings, subject, bundle.manifest)
    shapes = {name: _filled(wanted[name], golden[name].shape[1:]) for name in wanted}
    found = []
    if all(golden[name].shape[1:] == shapes[name] for name in golden):
        found.append(Probe("golden", golden))
    generator = np.random.default_rng(0)
    for rows in BATCHES:
        arrays = {
            spec.name: _noise(spec, golden[spec.name], (rows, *shapes[spec.name]), generator)
            for spec in bundle.manifest.inputs
        }
        found.append(Probe(f"random{rows}", challenge.mask(settings, arrays)))
    arrays = {
        spec.name: _extreme(spec, golden[spec.name], shapes[spec.name], generator)
        for spec in bundle.manifest.inputs
    }
    return [*found, Probe("extreme", challenge.mask(settings, arrays))]


def _filled(wanted: tuple[int | None, ...], seen: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of a row; those that may vary are taken from the golden rows."""
    return tuple(have if want is None else want for want, have in zip(wanted, seen, strict=True))


def _noise(
    spec: TensorSpec, golden: Array, shape: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Values of the golden rows' size; whole numbers and booleans are drawn from them."""
    if not spec.dtype.startswith("float"):
        return generator.choice(golden.ravel(), shape).astype(spec.dtype)
    finite = golden[np.isfinite(golden)].astype(np.float64)
    mean, spread = (float(finite.mean()), float(finite.std())) if finite.size else (0.0, 1.0)
    return generator.normal(mean, spread or 1.0, shape).astype(spec.dtype)


def _extreme(
    spec: TensorSpec, golden: Array, row: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Constant rows, one for each of EXTREMES, and one that alternates between ±1e5."""
    shape = (len(EXTREMES) + 1, *row)
    if not spec.dtype.startswith("float"):
        return _noise(spec, golden, shape, generator)
    array = np.empty(shape, spec.dtype)
    for place, value in enumerate(EXTREMES):
        array[place] = value
    array[-1] = 1e5 * (-1.0) ** np.arange(array[-1].size).reshape(row)
    return array

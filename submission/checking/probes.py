"""Inputs to try a submission with when no test data are at hand: golden rows, noise, extremes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from artifact import Bundle
from artifact.arrays import decode_npz
from submission.challenges import ARRAY_KEY, Array, Arrays, Contract, Definition, Tensor
from submission.errors import ConfigError

EXTREME = "extreme"
EXTREMES = (0.0, 1.0, -1e3, 1e4, 1e-30, -1e6)
BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Probe:
    """One call: what it is called in the report, and the arrays by their keys in a file."""

    name: str
    arrays: Arrays


def probes(definition: Definition, subject: str, bundle: Bundle | None) -> list[Probe]:
    """Golden rows (where they have the challenge's size), then 1, 2 and 7 made-up rows, extremes.

    Without an artifact the challenge's own contract says the sizes. Raises ConfigError where it
    has none.
    """
    contract = definition.contract(subject, bundle.manifest if bundle else None)
    if contract is None:
        raise ConfigError(
            f"{subject}: sizes of the inputs are not known without an artifact; this challenge "
            "checks zips that `axonnx submission build` wrote"
        )
    golden = _golden(bundle, contract) if bundle else {}
    shapes = {key: _filled(tensor, golden.get(key)) for key, tensor in contract.inputs.items()}
    found = []
    if golden and all(golden[key].shape[1:] == shapes[key] for key in shapes):
        found.append(Probe("golden", golden))
    generator = np.random.default_rng(0)
    for rows in BATCHES:
        arrays = {
            key: _noise(tensor, golden.get(key), (rows, *shapes[key]), generator)
            for key, tensor in contract.inputs.items()
        }
        found.append(Probe(f"random{rows}", definition.mask(arrays)))
    arrays = {
        key: _extreme(tensor, golden.get(key), shapes[key], generator)
        for key, tensor in contract.inputs.items()
    }
    return [*found, Probe(EXTREME, definition.mask(arrays))]


def _golden(bundle: Bundle, contract: Contract) -> dict[str, Array]:
    """The golden rows under the keys of the challenge's files; empty where they do not fit."""
    stored = decode_npz(bundle.files["golden.npz"])
    inputs = {spec.name: stored[f"input.{spec.name}"] for spec in bundle.manifest.inputs}
    keys: Mapping[str, str] = {name: name for name in inputs}
    if set(contract.inputs) == {ARRAY_KEY} and len(inputs) == 1:
        keys = dict.fromkeys(inputs, ARRAY_KEY)
    found = {keys[name]: array for name, array in inputs.items()}
    fits = set(found) == set(contract.inputs) and all(
        array.ndim == len(contract.inputs[key].shape) + 1 for key, array in found.items()
    )
    return found if fits else {}


def _filled(tensor: Tensor, golden: Array | None) -> tuple[int, ...]:
    """Sizes of a row; those that may vary are taken from the golden rows."""
    seen = golden.shape[1:] if golden is not None else (4,) * len(tensor.shape)
    return tuple(
        have if want is None else want for want, have in zip(tensor.shape, seen, strict=True)
    )


def _noise(
    tensor: Tensor,
    golden: Array | None,
    shape: tuple[int, ...],
    generator: np.random.Generator,
) -> Array:
    """Values of the golden rows' size; whole numbers and booleans are drawn from them."""
    seen = np.zeros(0) if golden is None else golden
    if not tensor.dtype.startswith("float"):
        values = seen.ravel() if seen.size else np.arange(2)
        return generator.choice(values, shape).astype(tensor.dtype)
    finite = seen[np.isfinite(seen)].astype(np.float64)
    mean, spread = (float(finite.mean()), float(finite.std())) if finite.size else (0.0, 1.0)
    return generator.normal(mean, spread or 1.0, shape).astype(tensor.dtype)


def _extreme(
    tensor: Tensor, golden: Array | None, row: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Constant rows, one for each of EXTREMES, and one that alternates between ±1e5."""
    shape = (len(EXTREMES) + 1, *row)
    if not tensor.dtype.startswith("float"):
        return _noise(tensor, golden, shape, generator)
    array = np.empty(shape, tensor.dtype)
    for place, value in enumerate(EXTREMES):
        array[place] = value
    array[-1] = 1e5 * (-1.0) ** np.arange(array[-1].size).reshape(row)
    return array

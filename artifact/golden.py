"""The golden rows: real inputs stored with the answers that the artifact gave for them."""

from __future__ import annotations

import numpy as np

from artifact import bundle, noise
from artifact.arrays import Array, decode_npz
from artifact.errors import GoldenError, InputError, ManifestError
from artifact.inputs import check_array
from artifact.manifest import Manifest, TensorSpec

CEILING = 1e-4


def read(manifest: Manifest, data: bytes) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and stored outputs of `golden.npz`, by name; raises GoldenError."""
    try:
        arrays = decode_npz(data)
    except InputError as error:
        raise GoldenError(f"{bundle.GOLDEN}: {error}") from None
    wanted = [f"input.{spec.name}" for spec in manifest.inputs]
    wanted += [f"output.{spec.name}" for spec in manifest.outputs]
    if sorted(arrays) != sorted(wanted):
        raise GoldenError(f"{bundle.GOLDEN}: holds {sorted(arrays)}; must hold {sorted(wanted)}")
    sizes: dict[str, tuple[int, str]] = {}
    try:
        for spec in manifest.inputs:
            check_array(spec, arrays[f"input.{spec.name}"], sizes)
        inputs = {spec.name: arrays[f"input.{spec.name}"] for spec in manifest.inputs}
        if manifest.noise is not None:
            noise.check_steps(manifest.noise, inputs)
            noise.check_seeds(manifest.noise, inputs)
    except InputError as error:
        raise GoldenError(f"{bundle.GOLDEN}: {error}") from None
    return inputs, {spec.name: arrays[f"output.{spec.name}"] for spec in manifest.outputs}


def check_answer(spec: TensorSpec, answer: Array, stored: Array) -> None:
    """Refuse an answer of another shape or dtype than declared and stored."""
    sizes = zip(spec.shape, answer.shape, strict=False)
    fits = answer.ndim == len(spec.shape) and all(want in (None, got) for want, got in sizes)
    if str(answer.dtype) != spec.dtype or not fits:
        raise ManifestError(f"{spec.name}: declared {spec.layout}, comes out as {answer.shape}")
    if stored.shape != answer.shape or stored.dtype != answer.dtype:
        raise GoldenError(f"golden rows: {spec.name} is stored as {stored.shape} {stored.dtype}")


def refuse_loose_bound(name: str, bound: float, stored: Array) -> None:
    """A bound that any answer would meet is no test."""
    ceiling = CEILING * float(stored.std(dtype=np.float64))
    if bound > ceiling * (1 + 1e-9):
        raise GoldenError(
            f"golden rows: the bound {bound:.3g} on {name} is above {ceiling:.3g}, "
            f"{CEILING:g} of its standard deviation"
        )


def gap(answer: Array, stored: Array) -> float:
    """Largest absolute difference; infinite where only one of the two is a number."""
    if answer.tobytes() == stored.tobytes():
        return 0.0
    first, second = answer.astype(np.float64), stored.astype(np.float64)
    both = np.isnan(first) & np.isnan(second) | (first == second)
    with np.errstate(invalid="ignore"):
        difference = np.where(both, 0.0, np.abs(first - second))
    return float(np.nan_to_num(difference, nan=np.inf).max())

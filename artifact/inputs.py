"""What an input must be: dtype, byte order, axes, sizes, finite values; errors that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from artifact.arrays import Array
from artifact.errors import InputError
from artifact.manifest import TensorSpec

MAX_ROW_ELEMENTS = 1 << 26
CHECKED_AT_ONCE = 1 << 20


def refuse_names(wanted: Sequence[str], inputs: Mapping[str, Array]) -> None:
    """Raise InputError for a name that is missing among the inputs, or that nobody asked for."""
    for kind, names in (
        ("missing", [name for name in wanted if name not in inputs]),
        ("unknown", [name for name in inputs if name not in wanted]),
    ):
        if names:
            raise InputError(f"{names[0]}: {kind}; inputs: {', '.join(wanted)}", names[0])


def with_defaults(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs, and those left out that have a default, filled with it in every row."""
    absent = [spec for spec in specs if spec.default is not None and spec.name not in inputs]
    given = [array for array in inputs.values() if np.ndim(array)]
    if not absent or not given:
        return dict(inputs)
    rows = len(given[0])
    filled = {
        spec.name: np.full(
            (rows, *(size for size in spec.shape[1:] if size is not None)), spec.default, spec.dtype
        )
        for spec in absent
    }
    return {**inputs, **filled}


def check_array(spec: TensorSpec, array: Array, sizes: dict[str, tuple[int, str]]) -> None:
    """Check one input's type, rank and sizes; `sizes` collects axis sizes shared by name."""
    name = spec.name
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: must be a numpy array, is {type(array).__name__}", name)
    if array.dtype != spec.dtype:  # equal only in native byte order
        if array.dtype.newbyteorder("=") == np.dtype(spec.dtype):
            raise InputError(f"{name}: byte order {array.dtype.str!r}; must be native", name)
        raise InputError(f"{name}: dtype {array.dtype}; must be {spec.dtype}", name)
    if array.ndim != len(spec.axes):
        raise InputError(
            f"{name}: {array.ndim} axes {array.shape}; must be {len(spec.axes)}: {spec.layout}",
            name,
        )
    for axis, size in zip(spec.axes, array.shape, strict=True):
        if axis.size is not None and size != axis.size:
            raise InputError(
                f"{name}: axis {axis.name} has {size}; must have {axis.size}: {spec.layout}", name
            )
        if size == 0:
            raise InputError(f"{name}: axis {axis.name} is empty; at least 1 is wanted", name)
        known, owner = sizes.setdefault(axis.name, (size, name))
        if known != size:
            raise InputError(
                f"{name}: axis {axis.name} has {size}, but {known} in {owner}; must agree", name
            )
    if math.prod(array.shape[1:]) > MAX_ROW_ELEMENTS:
        raise InputError(f"{name}: a row holds more than {MAX_ROW_ELEMENTS} values", name)


def refuse_nonfinite(spec: TensorSpec, array: Array) -> None:
    """Refuse NaN and infinity, a bounded stretch of rows at a time."""
    with np.errstate(over="ignore", invalid="ignore"):
        if array.size <= CHECKED_AT_ONCE and math.isfinite(array.sum()):
            return  # NaN and infinity would have stayed in the sum
    step = max(1, CHECKED_AT_ONCE // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        finite = np.isfinite(array[start : start + step])
        if not finite.all():
            place = np.unravel_index(int(np.argmin(finite)), finite.shape)
            where = ", ".join(
                f"{axis.name} {int(index) + (start if axis.name == 'batch' else 0)}"
                for axis, index in zip(spec.axes, place, strict=True)
            )
            raise InputError(f"{spec.name}: not a finite number at {where}", spec.name)

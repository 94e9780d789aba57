"""What must hold of a submission's answers, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from artifact import Manifest
from artifact.arrays import Array
from submission.challenges import RowShapes


def answer_problems(
    answer: Mapping[str, Array], manifest: Manifest, shapes: RowShapes, rows: int
) -> list[str]:
    """What is wrong with the names, shapes, dtypes and values of one answer; empty when right."""
    specs = {spec.name: spec for spec in manifest.outputs}
    if set(answer) != set(specs):
        return [f"gives {', '.join(sorted(answer))}; must give {', '.join(sorted(specs))}"]
    found = []
    for name, array in answer.items():
        wanted = (rows, *shapes[name])
        fits = array.ndim == len(wanted) and all(
            want in (None, got) for want, got in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            text = ", ".join("any" if size is None else str(size) for size in wanted)
            found.append(f"{name} has shape {array.shape}; must be ({text})")
        if str(array.dtype) != specs[name].dtype:
            found.append(f"{name} is {array.dtype}; must be {specs[name].dtype}")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            row = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
            found.append(f"{name} holds {bad} NaN or infinite values, the first in row {row}")
    return found


def difference(one: Mapping[str, Array], other: Mapping[str, Array]) -> str | None:
    """Where two answers differ first, or None when every bit agrees."""
    if set(one) != set(other):
        return f"names {sorted(one)} and {sorted(other)}"
    for name in sorted(one):
        first, second = one[name], other[name]
        if first.shape != second.shape or first.dtype != second.dtype:
            return f"{name}: {first.dtype} {first.shape} and {second.dtype} {second.shape}"
        unequal = _bits(first) != _bits(second)
        if not unequal.any():
            continue
        place = tuple(int(i) for i in np.argwhere(unequal)[0])
        return (
            f"{name}: {int(unequal.sum())} of {first.size} values, the first at "
            f"{place}: {first[place]!r} and {second[place]!r}"
        )
    return None


def gap(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """Largest absolute difference between two answers of one shape."""
    return max(
        float(np.abs(one[n].astype(np.float64) - other[n].astype(np.float64)).max(initial=0.0))
        for n in one
    )


def _bits(array: Array) -> Array:
    """The array with each value replaced by its bytes as a whole number."""
    return np.ascontiguousarray(array).view(np.dtype(f"u{array.dtype.itemsize}"))

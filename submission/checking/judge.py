"""What must hold of a submission's answers, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from submission.challenges import Array, Arrays, Tensor


def answer_problems(answer: Arrays, wanted: Mapping[str, Tensor] | None, rows: int) -> list[str]:
    """What is wrong with the names, shapes, dtypes and values of one answer; empty when right.

    Without `wanted`, names, dtypes and the shapes of rows may be anything.
    """
    if wanted is None:
        wanted = {
            name: Tensor(str(array.dtype), (None,) * (array.ndim - 1))
            for name, array in answer.items()
        }
    if set(answer) != set(wanted):
        return [f"gives {', '.join(sorted(answer))}; must give {', '.join(sorted(wanted))}"]
    found = []
    for name, array in answer.items():
        shape = (rows, *wanted[name].shape)
        fits = array.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits:
            text = ", ".join("any" if size is None else str(size) for size in shape)
            found.append(f"{name} has shape {array.shape}; must be ({text})")
        if str(array.dtype) != wanted[name].dtype:
            found.append(f"{name} is {array.dtype}; must be {wanted[name].dtype}")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            row = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
            found.append(f"{name} holds {bad} NaN or infinite values, the first in row {row}")
    return found


def difference(one: Arrays, other: Arrays) -> str | None:
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
            f"{place}: {first[place].item()!r} and {second[place].item()!r}"
        )
    return None


def gap(one: Arrays, other: Arrays) -> float:
    """Largest absolute difference between two answers of one shape."""
    return max(
        float(np.abs(one[n].astype(np.float64) - other[n].astype(np.float64)).max(initial=0.0))
        for n in one
    )


def largest(answer: Arrays) -> float:
    """Largest absolute value of an answer."""
    return max(
        float(np.abs(array.astype(np.float64)).max(initial=0.0)) for array in answer.values()
    )


def _bits(array: Array) -> Array:
    """The array with each value replaced by its bytes as a whole number."""
    return np.ascontiguousarray(array).view(np.dtype(f"u{array.dtype.itemsize}"))

"""Which batch sizes give a row the very bytes it gets alone, found by trying.

ONNX Runtime chooses kernels by shape, so a row's answer may depend on how many rows run with it. A
probe runs rows alone and then in every allowed batch size and slot, and compares bytes; what passes
is certified. Invariance depends on the whole row shape (the channel count too), so each row shape
is probed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from artifact.arrays import Array
from artifact.manifest import TensorSpec

Arrays = Mapping[str, Array]
Run = Callable[[Arrays], dict[str, Array]]
RowShape = tuple[tuple[str, tuple[int, ...]], ...]
BATCH_SIZES = (1, 2, 4, 8, 16)
PADDED_ROWS = 8
_DISTINCT_ROWS = 5
_SHIFTS = (0, 2)


@dataclass(frozen=True)
class Policy:
    """How rows of one shape are run: how many together, and padded to which constant size.

    A row's bytes are those it gets alone (or, where runs are padded, among copies of itself); a
    policy only says how many rows may share a run without changing them.
    """

    sizes: tuple[int, ...] = (1,)
    padded: int | None = None

    def describe(self) -> str:
        """The policy in words."""
        padding = f", each run padded to {self.padded} rows" if self.padded else ""
        if self.sizes == (1,):
            return f"row by row{padding}"
        return f"runs of {', '.join(map(str, self.sizes))} rows, each row as it is alone{padding}"

    def chunks(self, rows: int) -> list[int]:
        """Numbers of rows to run one after the other, largest first, `rows` in all."""
        plan: list[int] = []
        for size in sorted(self.sizes, reverse=True):
            plan += [size] * (rows // size)
            rows %= size
        return plan


def row_shape(inputs: Arrays) -> RowShape:
    """Sizes of every input without the batch axis, by name: what invariance depends on."""
    return tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))


def probe(run: Run, rows: Arrays, sizes: tuple[int, ...] = BATCH_SIZES) -> Policy:
    """Certify batch sizes for the shape of `rows`, in rising order until one fails.

    `run` answers a batch; `rows` holds several distinct rows. A size passes when, in every slot,
    every row comes out byte for byte as it does alone.
    """
    alone = [run(take(rows, [index])) for index in range(_count(rows))]
    passed = [1]
    for size in sorted(sizes):
        if size == 1:
            continue
        if not all(_agrees(run, rows, alone, size, shift) for shift in _SHIFTS):
            break
        passed.append(size)
    return Policy(tuple(passed))


def probe_padded(run: Run, rows: Arrays, size: int = PADDED_ROWS) -> Policy:
    """Certify one constant padded shape: every slot and neighbour must leave a row's bytes alone.

    Where it fails, each row runs among copies of itself.
    """
    alone = [take_output(run(take(rows, [i] * size)), 0) for i in range(_count(rows))]
    if all(_agrees(run, rows, alone, size, shift) for shift in range(size)):
        return Policy(tuple(range(1, size + 1)), padded=size)
    return Policy((1,), padded=size)


def probe_rows(specs: tuple[TensorSpec, ...], shape: RowShape, golden: Arrays) -> dict[str, Array]:
    """Distinct rows of the given shape, with the scale of the golden rows; the same every time."""
    generator = np.random.Generator(np.random.Philox(key=20))
    shapes = dict(shape)
    return {
        spec.name: _rows_like(generator, golden[spec.name], shapes[spec.name]) for spec in specs
    }


def take(arrays: Arrays, rows: list[int]) -> dict[str, Array]:
    """The named rows of every array, in that order."""
    return {name: np.ascontiguousarray(array[rows]) for name, array in arrays.items()}


def take_output(outputs: Arrays, row: int) -> dict[str, Array]:
    """One row of every output, batch axis kept."""
    return {name: array[row : row + 1] for name, array in outputs.items()}


def same_bytes(first: Arrays, second: Arrays) -> bool:
    """Whether both hold the same names, shapes, dtypes and bytes."""
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape
        and first[name].dtype == second[name].dtype
        and first[name].tobytes() == second[name].tobytes()
        for name in first
    )


def _agrees(run: Run, rows: Arrays, alone: list[dict[str, Array]], size: int, shift: int) -> bool:
    order = [(slot + shift) % len(alone) for slot in range(size)]
    together = run(take(rows, order))
    return all(
        same_bytes(take_output(together, slot), alone[index]) for slot, index in enumerate(order)
    )


def _count(rows: Arrays) -> int:
    return len(next(iter(rows.values())))


def _rows_like(generator: np.random.Generator, golden: Array, shape: tuple[int, ...]) -> Array:
    full = (_DISTINCT_ROWS, *shape)
    if golden.dtype.kind == "f":
        finite = golden[np.isfinite(golden)].astype(np.float64)
        center, spread = (finite.mean(), finite.std()) if finite.size else (0.0, 1.0)
        drawn = center + (spread or 1.0) * generator.standard_normal(full)
        return drawn.astype(golden.dtype)
    values = golden.reshape(-1) if golden.size else np.zeros(1, golden.dtype)
    return generator.choice(values, size=full)

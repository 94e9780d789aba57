"""Noise from a seed: standard normal numbers by numpy's Philox generator, the trainer's too.

A graph holds no random operator. Where its manifest says so, callers send a seed and the number of
a batch member, and the numbers that the graph wants are drawn here. They are a pure function of
seed, member and step: who else calls, and how runs are cut, does not enter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from artifact.arrays import Array
from artifact.errors import InputError
from artifact.inputs import MAX_ROW_ELEMENTS
from artifact.manifest import Axis, SeededNoise, TensorSpec

# Steps whose numbers come from one generator: what makes any step's numbers cheap to find again.
BLOCK = 1024


def standard_normals(
    seed: int, members: range, first: int, steps: int, numbers: int, nodes: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Standard normal numbers of some steps: (batch, step, number, node) float32.

    members: numbers of the batch members; first: number of the first step of the run, from 0;
    numbers: how many each node takes a step. The same step of the same member has the same numbers
    however a run is cut.
    """
    drawn = np.empty((len(members), steps, numbers, nodes), np.float32)
    shape = (BLOCK, numbers, nodes)
    for block in range(first // BLOCK, -(-(first + steps) // BLOCK)):
        start, stop = block * BLOCK - first, (block + 1) * BLOCK - first
        needed = min(BLOCK, first + steps - block * BLOCK)
        inside = slice(max(start, 0) - start, min(stop, steps) - start)
        for row, member in enumerate(members):
            key = np.array([seed, member], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, block, 1]))
            numbers_of_block = generator.standard_normal((needed, *shape[1:]), np.float32)
            drawn[row, max(start, 0) : min(stop, steps)] = numbers_of_block[inside]
    return drawn


def graph_inputs(inputs: tuple[TensorSpec, ...], noise: SeededNoise | None) -> list[TensorSpec]:
    """What the graph itself takes: the manifest's inputs, the noise in place of its seed."""
    if noise is None:
        return list(inputs)
    axes = (
        Axis("batch"),
        Axis("time"),
        Axis("number", noise.numbers),
        Axis("node", noise.nodes),
    )
    drawn = TensorSpec(noise.tensor, "float32", axes, "1", "standard normal numbers")
    return [spec for spec in inputs if spec.name not in (noise.seed, noise.member)] + [drawn]


def check_steps(noise: SeededNoise, inputs: Mapping[str, Array]) -> None:
    """Refuse more steps than noise is drawn for."""
    steps = inputs[noise.time].shape[1]
    most = MAX_ROW_ELEMENTS // math.prod((noise.numbers, noise.nodes))
    if steps > most:
        raise InputError(
            f"{noise.time}: axis time has {steps}; noise is drawn for at most {most} steps",
            noise.time,
        )


def check_seeds(noise: SeededNoise, inputs: Mapping[str, Array]) -> None:
    """Refuse seeds and members below 0."""
    for name in (noise.seed, noise.member):
        below = np.flatnonzero(np.less(inputs[name], 0))
        if below.size:
            place = int(below[0])
            raise InputError(
                f"{name}: is {inputs[name][place]} at batch {place}; must be 0 up", name
            )


def with_noise(noise: SeededNoise, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs as the graph takes them, (batch, time, number, node) in place of the seed."""
    seeds, members = inputs[noise.seed].tolist(), inputs[noise.member].tolist()
    steps = inputs[noise.time].shape[1]
    rows = [
        standard_normals(seed, range(member, member + 1), 0, steps, noise.numbers, noise.nodes)
        for seed, member in zip(seeds, members, strict=True)
    ]
    kept = {k: v for k, v in inputs.items() if k not in (noise.seed, noise.member)}
    return {**kept, noise.tensor: np.concatenate(rows)}

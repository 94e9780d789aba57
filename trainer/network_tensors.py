"""The tensors of an exported network: what it takes, what it answers, and its golden rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from artifact import batching
from artifact.manifest import Axis, TensorSpec
from artifact.noise import standard_normals
from trainer.dynamics.network import Network
from trainer.dynamics.scan import FINAL_STATE, NOISE, STATE, Exported

BOLD = "bold"
SEED, MEMBER = "seed", "member"
GOLDEN_ROWS = 3


def input_specs(exported: Exported, seeded: bool, width: int) -> tuple[TensorSpec, ...]:
    """What callers send; seeded: a seed in place of the noise; width: values of a state."""
    network, batch, time = exported.network, Axis("batch"), Axis("time")
    node = Axis("node", network.nodes)
    kind = type(network.node).__name__

    def spec(name: str, axes: tuple[Axis, ...], unit: str, meaning: str, **more: Any) -> TensorSpec:
        return TensorSpec(name, more.pop("dtype", "float32"), axes, unit, meaning, **more)

    found = [
        spec(
            exported.stimulus(name),
            (batch, time, node),
            "1",
            f"stimulus that enters {name} of every node of {kind}, a value per step of "
            f"{exported.dt:g} ms",
        )
        for name in exported.driven
    ]
    if seeded:
        words = "number of the batch member, whose noise is its own"
        found.append(spec(SEED, (batch,), "", "seed of the noise", dtype="int64", default=0))
        found.append(spec(MEMBER, (batch,), "", words, dtype="int64", default=0))
    elif exported.numbers:
        axes = (batch, time, Axis("number", exported.numbers), node)
        found.append(spec(NOISE, axes, "1", "independent standard normal numbers"))
    units = _units(network)
    for name in exported.parameters:
        wide = exported.width(name) > 1
        own = None if wide else float(np.asarray(exported.values[name]).reshape(-1)[0])
        axis = node if wide else Axis("value", 1)
        found.append(
            spec(name, (batch, axis), units.get(name, "1"), f"parameter {name}", default=own)
        )
    if exported.carries_on:
        axes = (batch, Axis("value", width))
        found.append(spec(STATE, axes, "1", "state at the start, as `final_state` of another run"))
    return tuple(found)


def output_specs(exported: Exported, width: int) -> tuple[TensorSpec, ...]:
    """What the graph answers; width: values of a state."""
    node = exported.network.node
    axes = (Axis("batch"), Axis("time"), Axis("node", exported.network.nodes))
    every = exported.every * exported.dt
    found = [
        TensorSpec(
            name,
            "float32",
            axes,
            node.state_units.get(name, "1"),
            f"{name} of {type(node).__name__}, a value every {every:g} ms",
        )
        for name in exported.monitors
    ]
    if exported.observed is not None:
        period = exported.observed.steps * exported.dt
        source = exported.observed.source
        meaning = f"BOLD of {source}, share of the resting signal, a volume every {period:g} ms"
        found.append(TensorSpec(BOLD, "float32", axes, "1", meaning))
    if exported.carries_on:
        axes = (Axis("batch"), Axis("value", width))
        found.append(TensorSpec(FINAL_STATE, "float32", axes, "1", "state at the end"))
    return tuple(found)


def _units(network: Network) -> dict[str, str]:
    parts = [("node", network.node), ("coupling", network.coupling)]
    parts += [(f"noise.{number}", noise) for number, noise in enumerate(network.noise)]
    return {
        f"{prefix}.{name}": unit
        for prefix, part in parts
        if part is not None
        for name, unit in part.units().items()
    }


def golden_steps(exported: Exported) -> int:
    """Steps for a few values of every output, and for one in half the steps."""
    longest = exported.every if exported.observed is None else exported.observed.steps
    return max(200, 20 * exported.every, 2 * longest)


def golden_rows(
    exported: Exported,
    inputs: tuple[TensorSpec, ...],
    start: np.ndarray,
    steps: int,
    *,
    seed: int,
    amplitude: float,
) -> dict[str, np.ndarray]:
    """Golden rows: a pulse of stimulus, one seed, parameters around their own."""
    count = GOLDEN_ROWS
    place = np.arange(count, dtype=np.float32).reshape(-1, 1)
    pulse = np.zeros((count, steps, exported.network.nodes), np.float32)
    pulse[:, steps // 5 : 2 * steps // 5] = amplitude
    pulse *= 1 - 0.1 * place[..., None]
    rows: dict[str, np.ndarray] = {}
    for spec in inputs:
        if spec.name.startswith("stimulus"):
            rows[spec.name] = pulse
        elif spec.name == SEED:
            rows[spec.name] = np.full(count, seed)
        elif spec.name == MEMBER:
            rows[spec.name] = np.arange(count)
        elif spec.name == NOISE:
            rows[spec.name] = standard_normals(
                seed, range(count), 0, steps, exported.numbers, exported.network.nodes
            )
        elif spec.name == STATE:
            rows[spec.name] = np.repeat(start, count, axis=0)
        else:
            own = np.asarray(exported.values[spec.name], np.float32).reshape(1, -1)
            rows[spec.name] = own * (1 + 0.02 * place)
    return rows


def shorter(
    inputs: tuple[TensorSpec, ...], rows: dict[str, np.ndarray], exported: Exported, steps: int
) -> batching.RowShape:
    """The row shape of another number of steps."""
    other = steps // 2 + exported.every
    sizes = {
        spec.name: tuple(
            other if axis.name == "time" else size
            for axis, size in zip(spec.axes[1:], rows[spec.name].shape[1:], strict=True)
        )
        for spec in inputs
    }
    return tuple((name, sizes[name]) for name in sorted(sizes))

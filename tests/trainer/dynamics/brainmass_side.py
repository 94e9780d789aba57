"""brainmass's side of the comparison: runs cases in an environment that holds brainmass alone.

python brainmass_side.py CASES.json TRAJECTORIES.npz

A case, all under the names of brainmass: "model" (class), "nodes", "parameters", "method",
"dt" in ms, "steps", "start" (state → one number or one per node), "inputs" (positional, likewise),
"units" (state or input → unit; "inputs" are named "0", "1", …) and, for networks, "network"
(arguments of brainmass.Network). Written: "CASE/STATE", (step, node) float64, in the units told.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import brainmass
import brainstate
import braintools
import brainunit
import jax
import jax.numpy as jnp
import numpy as np

UNITS = {
    "Hz": brainunit.Hz,
    "1/ms": brainunit.ms**-1,
    "ms": brainunit.ms,
    "mV": brainunit.mV,
    "mV/ms": brainunit.mV / brainunit.ms,
}


def with_unit(value: Any, unit: str | None) -> Any:
    """A number or array as brainmass takes it."""
    array = jnp.asarray(value, dtype=jnp.float64)
    return array if unit is None else array * UNITS[unit]


class WongWangEuler(brainmass.WongWangStep):
    """The decision model by Euler's scheme: its own update holds the rate in the Jacobian."""

    def update(self, coherence: Any = 0.0) -> None:
        """One step."""
        dt = brainstate.environ.get_dt()
        current_1, current_2 = self.compute_inputs(coherence)
        moved_1 = self.S1.value + dt * self.dS1_dt(self.S1.value, self.phi(current_1))
        moved_2 = self.S2.value + dt * self.dS2_dt(self.S2.value, self.phi(current_2))
        self.S1.value, self.S2.value = jnp.clip(moved_1, 0, 1), jnp.clip(moved_2, 0, 1)


class Called(brainstate.nn.Module):
    """A node that is called: their Simulator's own way leaves its delay buffers as they were."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.node = node

    def update(self, *inputs: Any) -> Any:
        """One step."""
        return self.node(*inputs)


MODELS = {"WongWangStep": WongWangEuler}


def build(case: dict[str, Any]) -> tuple[Any, Any]:
    """What is run, and the node in it that has the states."""
    parameters = {
        name: with_unit(*value) if isinstance(value, list) else value
        for name, value in case["parameters"].items()
    }
    for name, state in case.get("history", {}).items():
        unit = case["units"].get(state)
        start = case["start"][state]
        parameters[name] = braintools.init.Constant(start if unit is None else start * UNITS[unit])
    if "method" in case:
        parameters["method"] = case["method"]
    kind = MODELS.get(case["model"]) or getattr(brainmass, case["model"])
    node = kind(case["nodes"], **parameters)
    if "network" not in case:
        return Called(node), node
    given = {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in case["network"].items()
    }
    if "laplacian" in given:
        # Theirs would learn the weights, and starts from others than it is given.
        normalize = given.pop("laplacian")
        given["conn"] = brainmass.laplacian_connectivity(given["conn"], normalize=normalize)
        given["self_connection"] = True
    start = case["start"][given["coupled_var"]]
    # Before the run the sources stood where they start, as on the other side.
    return brainmass.Network(node, delay_init=braintools.init.Constant(start), **given), node


def run(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Trajectories (step, node) of all states."""
    units, names = case["units"], list(case["start"])
    shape = (case["nodes"],)
    inputs = tuple(
        with_unit(np.broadcast_to(value, shape), units.get(str(place)))
        for place, value in enumerate(case["inputs"])
    )
    dt = case["dt"] * brainunit.ms
    with brainstate.environ.context(dt=dt):
        model, node = build(case)
        brainstate.nn.init_all_states(model)
        for name, value in case["start"].items():
            getattr(node, name).value = with_unit(np.broadcast_to(value, shape), units.get(name))
    simulator = brainmass.Simulator(model, dt=dt)
    kept = simulator.run(
        case["steps"] * dt * (1 + 1e-9),
        inputs=(lambda i, t: inputs) if inputs else None,
        monitors={name: lambda _, name=name: getattr(node, name).value for name in names},
        init_states=False,
    )
    found = {}
    for name in names:
        value = kept[name]
        if name in units:
            value = value.to_decimal(UNITS[units[name]])
        found[name] = np.asarray(value, dtype=np.float64)
        assert found[name].shape == (case["steps"], case["nodes"]), found[name].shape
    return found


def main() -> None:
    """Run every case and write all trajectories."""
    jax.config.update("jax_enable_x64", True)
    brainstate.environ.set(precision=64)
    cases = json.loads(Path(sys.argv[1]).read_text())
    found = {}
    for place, (name, case) in enumerate(cases.items(), start=1):
        print(f"{place}/{len(cases)} {name}", file=sys.stderr, flush=True)
        found |= {f"{name}/{state}": value for state, value in run(case).items()}
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()

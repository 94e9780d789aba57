"""tvb-library's side of the dynamics benchmark: Euler's scheme, one network at a time.

python tvb_side.py FOLDER RUNS [CASE,CASE,…]

tvb-library has no batches, no gradients and no float32. Its rates come from 2,000 steps, for it
takes long; the raw monitor keeps every step of the first state.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tvb.datatypes.connectivity import Connectivity
from tvb.simulator import coupling, integrators, models, monitors
from tvb.simulator.simulator import Simulator

DT, STEPS, SPEED = 0.1, 2_000, 10.0
NOTE = "float64, 2,000 steps"
# Node-steps per processor second of earlier measurements, on another machine.
EARLIER = {"hopf/b1/compiled": 0.53e6, "wilson_cowan/b1": 0.51e6}


def main() -> None:
    """Time every case and print one line of JSON."""
    logging.disable(logging.WARNING)
    given = np.load(Path(sys.argv[1]) / "connectome.npz")
    weights, lengths, runs = given["weights"], given["lengths"], int(sys.argv[2])
    only = sys.argv[3].split(",") if len(sys.argv) > 3 else []
    without = np.zeros_like(lengths)
    found = {}
    if not only or "hopf/first_result" in only:
        found["hopf/first_result"] = _timed(_simulator("hopf", weights, without), 1_000, 0)
    for name, far in (
        ("hopf/b1/compiled", without),
        ("hopf/b1/delays", lengths),
        ("wilson_cowan/b1", without),
    ):
        if only and name not in only:
            continue
        found[name] = _timed(_simulator(name.split("/")[0], weights, far), STEPS, runs)
        rate = len(weights) * STEPS / float(np.median(found[name]["cpu"]))
        if name in EARLIER and not 0.5 <= rate / EARLIER[name] <= 2:
            found[name]["note"] += f"; {EARLIER[name] / 1e6:.2f} M/s measured elsewhere"
    print(json.dumps(found))


def _simulator(node: str, weights: np.ndarray, lengths: np.ndarray) -> Simulator:
    """A configured network that starts at 0.1 and 0."""
    nodes = len(weights)
    graph = Connectivity(
        weights=weights,
        tract_lengths=lengths,
        speed=np.array([SPEED]),
        region_labels=np.array([f"node {number}" for number in range(nodes)]),
        centres=np.zeros((nodes, 3)),
    )
    if node == "hopf":
        mass: Any = models.SupHopf(a=np.array([0.1]), omega=np.array([0.2]))
        joined: Any = coupling.Difference(a=np.array([1.0]))
    else:
        mass, joined = models.WilsonCowan(), coupling.Linear(a=np.array([1.0]))
    graph.configure()
    history = int(np.ceil(lengths.max() / SPEED / DT)) + 2
    start = np.zeros((history, 2, nodes, 1))
    start[:, 0] = 0.1
    simulator = Simulator(
        model=mass,
        connectivity=graph,
        coupling=joined,
        integrator=integrators.EulerDeterministic(dt=DT),
        monitors=(monitors.Raw(variables_of_interest=np.array([0])),),
        initial_conditions=start,
    )
    simulator.configure()
    return simulator


def _timed(simulator: Simulator, steps: int, runs: int) -> dict[str, Any]:
    """The first call and `runs` more, each from where the last one ended."""
    nodes = len(simulator.connectivity.weights)
    began = time.perf_counter()
    ((_, kept),) = simulator.run(simulation_length=steps * DT)
    found: dict[str, Any] = {"first_wall": time.perf_counter() - began, "cpu": [], "wall": []}
    assert kept.shape == (steps, 1, nodes, 1), kept.shape
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        ((_, kept),) = simulator.run(simulation_length=steps * DT)
        found["cpu"].append(time.process_time() - cpu)
        found["wall"].append(time.perf_counter() - wall)
    note = NOTE if np.isfinite(kept).all() else f"{NOTE}; values are not finite"
    return found | {"updates": nodes * steps, "note": note}


if __name__ == "__main__":
    main()

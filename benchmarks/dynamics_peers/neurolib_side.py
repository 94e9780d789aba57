"""neurolib's side of the dynamics benchmark: its numba loops, one network at a time.

python neurolib_side.py FOLDER RUNS [CASE,CASE,…]

neurolib has no batches, no gradients and no float32: states are float64, both are kept, and every
call draws the noise of all steps although its strength is 0. That is what a call of it costs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from neurolib.models.hopf import HopfModel
from neurolib.models.hopf import timeIntegration as hopf
from neurolib.models.wc import WCModel
from neurolib.models.wc import timeIntegration as wilson_cowan

DT, STEPS, SPEED = 0.1, 10_000, 10.0
NOTE = "float64, both states kept, noise of strength 0 is drawn"
# Node-steps per processor second of earlier measurements, on another machine.
EARLIER = {"hopf/b1/compiled": 9.6e6, "hopf/b1/delays": 6.4e6, "wilson_cowan/b1": 8.9e6}


def main() -> None:
    """Time every case and print one line of JSON."""
    given = np.load(Path(sys.argv[1]) / "connectome.npz")
    weights, lengths, runs = given["weights"], given["lengths"], int(sys.argv[2])
    only = sys.argv[3].split(",") if len(sys.argv) > 3 else []
    without = np.zeros_like(lengths)
    first = _parameters(HopfModel(Cmat=weights, Dmat=without), 1_000)
    found = {}
    if not only or "hopf/first_result" in only:
        found["hopf/first_result"] = _timed(hopf, first, 0)
    for name, kind, module, far in (
        ("hopf/b1/compiled", HopfModel, hopf, without),
        ("hopf/b1/delays", HopfModel, hopf, lengths),
        ("wilson_cowan/b1", WCModel, wilson_cowan, without),
    ):
        if only and name not in only:
            continue
        found[name] = _timed(module, _parameters(kind(Cmat=weights, Dmat=far), STEPS), runs)
        rate = len(weights) * STEPS / float(np.median(found[name]["cpu"]))
        if not 0.5 <= rate / EARLIER[name] <= 2:
            found[name]["note"] += f"; {EARLIER[name] / 1e6:.1f} M/s measured elsewhere"
    print(json.dumps(found))


def _parameters(model: Any, steps: int) -> dict[str, Any]:
    """A model's parameters, with those of the benchmark."""
    model.params.update(dt=DT, duration=steps * DT, signalV=SPEED, K_gl=1.0, seed=0)
    if isinstance(model, HopfModel):
        start = np.full((len(model.params["Cmat"]), 1), 0.1)
        model.params.update(a=0.1, w=0.2, xs_init=start, ys_init=np.zeros_like(start))
    return dict(model.params)


def _timed(module: Any, parameters: dict[str, Any], runs: int) -> dict[str, Any]:
    """The first call and `runs` more. Its Model.run adds nothing but the copying of results."""
    nodes, steps = len(parameters["Cmat"]), round(parameters["duration"] / DT)
    began = time.perf_counter()
    kept = module.timeIntegration(parameters)[1]
    found: dict[str, Any] = {"first_wall": time.perf_counter() - began, "cpu": [], "wall": []}
    assert kept.shape[1] >= steps
    assert np.isfinite(kept).all()
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        module.timeIntegration(parameters)
        found["cpu"].append(time.process_time() - cpu)
        found["wall"].append(time.perf_counter() - wall)
    return found | {"updates": nodes * steps, "note": NOTE}


if __name__ == "__main__":
    main()

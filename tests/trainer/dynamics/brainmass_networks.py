"""Networks compared with brainmass: each case under our names and under theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from brainmass_cases import FIXED, RATES, Case

from trainer.dynamics import Coupling, coupling, nodes

# Row = target, column = source.
WEIGHTS = np.array(
    [
        [0.0, 0.9, 0.1, 0.0, 0.4, 0.2],
        [0.7, 0.0, 0.5, 0.1, 0.0, 0.3],
        [0.1, 0.6, 0.0, 0.8, 0.2, 0.0],
        [0.0, 0.2, 1.0, 0.0, 0.3, 0.1],
        [0.5, 0.0, 0.1, 0.4, 0.0, 0.6],
        [0.3, 0.2, 0.0, 0.1, 0.9, 0.0],
    ]
)
# Delays in steps; a tenth of a step less in length, which both sides round to the same step.
DELAYS = np.array(
    [
        [0, 3, 12, 7, 1, 25],
        [4, 0, 2, 9, 30, 6],
        [11, 2, 0, 1, 5, 8],
        [8, 10, 1, 0, 2, 17],
        [1, 29, 6, 3, 0, 4],
        [24, 5, 9, 16, 4, 0],
    ]
)
TRAVEL = {"distance": (np.maximum(DELAYS - 0.1, 0) * 0.1 * 2.0).tolist(), "speed": 2.0}


def of_hopf(ours: Coupling, schemes: tuple[str, ...] = FIXED, **theirs: Any) -> Case:
    """Six Hopf oscillators."""
    network = {"coupled_var": "x"} | theirs
    return Case(
        nodes.Hopf(a=0.1),
        "HopfStep",
        start={"x": 0.2, "y": [0.0, 0.1, -0.3, 0.5, 0.2, -0.1]},
        parameters={"a": 0.1},
        schemes=schemes,
        count=6,
        coupling=ours,
        weights=WEIGHTS,
        network=network,
    )


def of_wilson_cowan(ours: Coupling, **theirs: Any) -> Case:
    """Six Wilson–Cowan pairs, which oscillate."""
    network = {"coupled_var": "rE"} | theirs
    return Case(
        nodes.WilsonCowan(
            w_ee=16.0, w_ei=12.0, w_ie=15.0, w_ii=3.0, a_e=1.3, theta_e=4.0, a_i=2.0, theta_i=3.7
        ),
        "WilsonCowanStep",
        start={"E": 0.2, "I": [0.0, 0.1, 0.3, 0.5, 0.2, 0.1]},
        states=RATES,
        inputs={"I": [0.0, -0.2, 0.1, 0.3, 0.0, 0.1]},
        places=("I",),
        parameters={"wEE": 16.0, "wIE": 12.0, "wEI": 15.0, "wII": 3.0, "a_E": 1.3, "theta_E": 4.0}
        | {"a_I": 2.0, "theta_I": 3.7},
        schemes=FIXED,
        count=6,
        coupling=ours,
        weights=WEIGHTS,
        network=network,
    )


TWO = ("exponential_euler", "euler")
COUPLED = {
    "hopf, diffusive": of_hopf(coupling.Diffusive(k=0.3), TWO, coupling="diffusive", k=0.3),
    "hopf, additive": of_hopf(coupling.Additive(k=0.2), TWO, coupling="additive", k=0.2),
    "hopf, sigmoidal": of_hopf(coupling.Sigmoidal(k=0.4), coupling="sigmoidal", k=0.4),
    "hopf, tanh": of_hopf(coupling.HyperbolicTangent(k=0.4), coupling="tanh", k=0.4),
    "hopf, jansen_rit_sigmoidal": of_hopf(
        coupling.JansenRitSigmoidal(k=300.0), coupling="sigmoidal_jansen_rit", k=300.0
    ),
    "hopf, laplacian": of_hopf(
        coupling.Laplacian(k=0.3), coupling="additive", k=0.3, laplacian=None
    ),
    "hopf, laplacian random_walk": of_hopf(
        coupling.Laplacian(k=0.3, normalize="random_walk"),
        coupling="additive",
        k=0.3,
        laplacian="rw",
    ),
    "hopf, laplacian symmetric": of_hopf(
        coupling.Laplacian(k=0.3, normalize="symmetric"),
        coupling="additive",
        k=0.3,
        laplacian="sym",
    ),
    "hopf, diffusive, delays": of_hopf(
        coupling.Diffusive(k=0.3), TWO, coupling="diffusive", k=0.3, **TRAVEL
    ),
    "hopf, additive, delays": of_hopf(
        coupling.Additive(k=0.2), coupling="additive", k=0.2, **TRAVEL
    ),
    "hopf, tanh, delays": of_hopf(
        coupling.HyperbolicTangent(k=0.4), coupling="tanh", k=0.4, **TRAVEL
    ),
    "wilson_cowan, diffusive": of_wilson_cowan(
        coupling.Diffusive(k=1.5), coupling="diffusive", k=1.5
    ),
    "wilson_cowan, additive": of_wilson_cowan(coupling.Additive(k=0.7), coupling="additive", k=0.7),
    "wilson_cowan, sigmoidal": of_wilson_cowan(
        coupling.Sigmoidal(k=1.5), coupling="sigmoidal", k=1.5
    ),
    "wilson_cowan, additive, delays": of_wilson_cowan(
        coupling.Additive(k=0.7), coupling="additive", k=0.7, **TRAVEL
    ),
    # Their Kuramoto model has its coupling inside; the phases' diagonal is left out on both sides.
    "kuramoto": Case(
        nodes.Kuramoto(w=0.1),
        "KuramotoNetwork",
        start={"theta": [0.0, 1.0, 2.5, 4.0, 5.0, 6.0]},
        inputs={"theta": [0.0, 0.02, -0.03, 0.05, 0.0, 0.01]},
        places=("theta",),
        parameters={"omega": 0.1, "K": 0.6, "alpha": 0.4, "conn": (WEIGHTS.tolist(), None)},
        schemes=FIXED,
        method=False,
        count=6,
        coupling=coupling.KuramotoCoupling(k=0.6, alpha=0.4),
        weights=WEIGHTS,
    ),
}

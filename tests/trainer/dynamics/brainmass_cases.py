"""Single nodes compared with brainmass: each case under our names and under theirs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.dynamics import Connectome, Coupling, Network, Node, nodes

SCHEMES = {"exponential_euler": "exp_euler", "euler": "euler", "rk4": "rk4"}
# Models whose step upstream is fixed.
FIXED = ("exponential_euler",)

Numbers = float | list[float]


@dataclass(frozen=True)
class Case:
    """One comparison.

    node: ours; model: class of brainmass; parameters: its arguments, (value, unit) where one has a
    unit. states: our name → theirs, None for the same names; start and inputs by our names, one
    number or one per node; places: our inputs in the order of theirs, "" for one that is absent
    here; units: of states and inputs that have one there, under our names. schemes: ours, each
    compared; method: whether their model takes the scheme's name. network: arguments of their
    Network but `weights`, (target, source), and `coupling`, ours. history: their arguments that set
    the states before the run.
    """

    node: Node
    model: str
    start: dict[str, Numbers]
    states: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Numbers] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    schemes: tuple[str, ...] = tuple(SCHEMES)
    method: bool = True
    dt: float = 0.1
    steps: int = 1000
    count: int = 4
    coupling: Coupling | None = None
    weights: np.ndarray | None = None
    network: dict[str, Any] = field(default_factory=dict)
    history: dict[str, str] = field(default_factory=dict)

    def theirs(self, scheme: str) -> dict[str, Any]:
        """The case as brainmass_side.py takes it."""
        case: dict[str, Any] = {
            "model": self.model,
            "nodes": self.count,
            "parameters": self.parameters,
            "dt": self.dt,
            "steps": self.steps,
            "start": {self.upstream(name): value for name, value in self.start.items()},
            "inputs": [self.inputs.get(name, 0.0) for name in self.places],
            "units": {self.upstream(name): unit for name, unit in self.units.items()},
            "history": {name: self.upstream(state) for name, state in self.history.items()},
        }
        # States and inputs of one name may have different units, so that inputs go by their place.
        for place, name in enumerate(self.places):
            if f"input {name}" in self.units:
                case["units"][str(place)] = self.units[f"input {name}"]
        if self.method:
            case["method"] = SCHEMES[scheme]
        if self.network:
            assert self.weights is not None
            case["network"] = {"conn": self.weights.tolist()} | self.network
        return case

    def upstream(self, state: str) -> str:
        """Their name of our state."""
        return self.states.get(state, state)

    def ours(self) -> Network:
        """The network on our side."""
        if self.coupling is None or self.weights is None:
            return Network(self.node, nodes=self.count)
        lengths = self.network.get("distance")
        connectome = Connectome(
            self.weights, lengths=None if lengths is None else np.array(lengths), directed=True
        )
        return Network(
            self.node, connectome, coupling=self.coupling, speed=self.network.get("speed")
        )


RATES = {"E": "rE", "I": "rI"}
VARIANT = ("exponential_euler", "rk4")
MASS = {"states": RATES, "places": ("E", "I"), "start": {"E": [0, 0.1, 0.3, 0.7], "I": 0.1}}
DRIVEN = {"E": [0.0, 0.5, 1.25, 2.0], "I": [0.3, 0.0, 0.0, 0.5]}
PLANE = {"start": {"x": [0.01, 0.3, -0.6, 1.2], "y": [0.0, 0.1, 0.4, -0.5]}, "places": ("x", "y")}
PUSHED = {"x": [0.0, 0.1, -0.2, 0.3], "y": [0.0, 0.05, 0.1, -0.1]}
VOLTS = {"M": "mV", "E": "mV", "I": "mV", "M_v": "mV/ms", "E_v": "mV/ms", "I_v": "mV/ms"}
FIELD = {"start": {"r": [0.02, 0.1, 0.4, 0.9], "v": [0.0, -2.0, -0.5, 0.3]}, "places": ("r", "v")}
CORTEX = {"start": {"M": 0.0, "E": 0.0, "I": 0.0, "M_v": 0.0, "E_v": 0.0, "I_v": 0.0}}
SEIZING = {
    "start": {"x1": [-1.5, -1.0, 0.2, -1.8], "y1": -10.0, "z": [3.5, 3.0, 2.8, 3.4]}
    | {"x2": [-1.0, -0.5, 0.3, -0.2], "y2": 0.0, "g": 0.0}
}

SINGLE = {
    "hopf": Case(nodes.Hopf(), "HopfStep", inputs=PUSHED, **PLANE),
    "stuart_landau": Case(nodes.StuartLandau(), "StuartLandauStep", inputs=PUSHED, **PLANE),
    "van_der_pol": Case(nodes.VanDerPol(), "VanDerPolStep", inputs=PUSHED, dt=0.02, **PLANE),
    "fitzhugh_nagumo": Case(
        nodes.FitzHughNagumo(),
        "FitzHughNagumoStep",
        start={"V": [0.02, 0.5, 1.2, -0.2], "w": [0.01, 0.1, 0.4, 0.0]},
        inputs={"V": [0.0, 0.5, 0.72, 1.2], "w": 0.01},
        places=("V", "w"),
    ),
    "generic_2d_oscillator": Case(
        nodes.Generic2dOscillator(),
        "Generic2dOscillatorStep",
        start={"V": [0.0, 0.5, 1.2, -0.7], "W": [0.0, -2.0, 3.0, 1.0]},
        inputs={"I": [0.0, 1.0, 2.0, -0.5]},
        places=("I",),
    ),
    "lorenz": Case(
        nodes.Lorenz(),
        "LorenzStep",
        start={"x": [1.0, -3.0, 0.1, 8.0], "y": 1.0, "z": [1.0, 20.0, 0.2, 30.0]},
        inputs={"x": [0.0, 1.0, 0.0, -2.0]},
        places=("x",),
        dt=0.01,
        steps=100,
    ),
    "linear": Case(
        nodes.Linear(),
        "LinearStep",
        start={"x": [0.01, 1.0, -1.0, 0.0]},
        inputs={"x": [0.0, 0.5, 0.0, 2.0]},
        places=("x",),
        dt=0.01,
    ),
    # Their inhibition grows where it should decay; a negative time constant mends the equation.
    "threshold_linear": Case(
        nodes.ThresholdLinear(),
        "ThresholdLinearStep",
        start={"E": [0.0, 1.0, 5.0, 2.0], "I": [0.0, 2.0, 1.0, 9.0]},
        inputs={"E": [0.0, 100.0, -5.0, 300.0], "I": [50.0, 0.0, 20.0, -3.0]},
        places=("E", "I"),
        parameters={"tau_I": (-10.0, "ms")},
        schemes=FIXED,
        method=False,
    ),
    "wilson_cowan": Case(nodes.WilsonCowan(), "WilsonCowanStep", inputs=DRIVEN, **MASS),
    "wilson_cowan_no_saturation": Case(
        nodes.WilsonCowanNoSaturation(),
        "WilsonCowanNoSaturationStep",
        inputs=DRIVEN,
        schemes=VARIANT,
        **MASS,
    ),
    "wilson_cowan_symmetric": Case(
        nodes.WilsonCowanSymmetric(),
        "WilsonCowanSymmetricStep",
        inputs=DRIVEN,
        schemes=VARIANT,
        **MASS,
    ),
    "wilson_cowan_simplified": Case(
        nodes.WilsonCowanSimplified(),
        "WilsonCowanSimplifiedStep",
        inputs=DRIVEN,
        schemes=VARIANT,
        **MASS,
    ),
    "wilson_cowan_linear": Case(
        nodes.WilsonCowanLinear(), "WilsonCowanLinearStep", inputs=DRIVEN, schemes=VARIANT, **MASS
    ),
    # From here on their wEI is onto E from I, and their defaults are exchanged.
    "wilson_cowan_divisive": Case(
        nodes.WilsonCowanDivisive(w_ei=6.5, w_ie=2.0),
        "WilsonCowanDivisiveStep",
        inputs=DRIVEN,
        schemes=VARIANT,
        **MASS,
    ),
    "wilson_cowan_divisive_input": Case(
        nodes.WilsonCowanDivisiveInput(w_ei=6.5, w_ie=2.0),
        "WilsonCowanDivisiveInputStep",
        inputs=DRIVEN,
        schemes=VARIANT,
        **MASS,
    ),
    "wilson_cowan_delayed": Case(
        nodes.WilsonCowanDelayed(w_ei=13.0, w_ie=4.0),
        "WilsonCowanDelayedStep",
        inputs=DRIVEN,
        schemes=VARIANT,
        history={"rE_init": "E", "rI_init": "I"},
        **(MASS | {"start": {"E": 0.2, "I": 0.1}}),
    ),
    "wilson_cowan_adaptive": Case(
        nodes.WilsonCowanAdaptive(w_ei=13.0, w_ie=4.0),
        "WilsonCowanAdaptiveStep",
        start={"E": [0.0, 0.1, 0.3, 0.7], "I": 0.1, "adaptation_e": 0.0, "adaptation_i": 0.1},
        states=RATES | {"adaptation_e": "aE", "adaptation_i": "aI"},
        inputs=DRIVEN,
        schemes=VARIANT,
        places=("E", "I"),
    ),
    "wilson_cowan_three_population": Case(
        nodes.WilsonCowanThreePopulation(w_ei=13.0, w_ie=4.0),
        "WilsonCowanThreePopulationStep",
        start={"E": [0.0, 0.1, 0.3, 0.7], "I": 0.1, "M": [0.0, 0.5, 0.2, 0.1]},
        states=RATES | {"M": "rM"},
        schemes=VARIANT,
        inputs=DRIVEN | {"M": [0.0, 0.2, 1.0, 0.0]},
        places=("E", "I", "M"),
    ),
    "jansen_rit": Case(
        nodes.JansenRit(),
        "JansenRitStep",
        states={"M_v": "Mv", "E_v": "Ev", "I_v": "Iv"},
        inputs={"E": [0.22, 0.12, 0.0, 0.32], "M": [0.0, 0.5, 0.0, -1.0], "I": [0, 0, 1.0, 0.5]},
        places=("M", "E", "I"),
        units=VOLTS | {"input M": "mV", "input E": "1/ms", "input I": "mV"},
        **CORTEX,
    ),
    # Their Δ of 1 Hz is 0.001/ms; with 1/ms, and τ of 1 ms, it is the literature's.
    "montbrio_pazo_roxin": Case(
        nodes.MontbrioPazoRoxin(delta=0.001),
        "MontbrioPazoRoxinStep",
        inputs={"v": [0.0, 1.0, 0.0, 2.0], "r": [0.0, 0.0, 0.01, 0.0]},
        units={"r": "1/ms", "input r": "1/ms"},
        dt=0.01,
        **FIELD,
    ),
    "montbrio_pazo_roxin, literature": Case(
        nodes.MontbrioPazoRoxin(),
        "MontbrioPazoRoxinStep",
        inputs={"v": [0.0, 1.0, 0.0, 2.0], "r": [0.0, 0.0, 0.01, 0.0]},
        parameters={"delta": (1.0, "1/ms")},
        units={"r": "1/ms", "input r": "1/ms"},
        dt=0.01,
        **FIELD,
    ),
    "coombes_byrne": Case(
        nodes.CoombesByrne(),
        "CoombesByrneStep",
        inputs={"v": [0.0, 1.0, 0.0, -1.0], "r": [0.0, 0.0, 0.01, 0.0]},
        dt=0.01,
        **FIELD,
    ),
    # Their exponential Euler leaves the rate out of the Jacobian, so that Euler's is compared.
    "wong_wang_decision": Case(
        nodes.WongWangDecision(),
        "WongWangStep",
        start={"S1": [0.0, 0.1, 0.5, 0.9], "S2": [0.0, 0.1, 0.05, 0.95]},
        inputs={"coherence": [0.0, 0.128, -0.512, 1.0]},
        places=("coherence",),
        schemes=("euler",),
        method=False,
    ),
    "wong_wang_exc_inh": Case(
        nodes.WongWangExcInh(),
        "WongWangExcInhStep",
        start={"S_e": [0.001, 0.1, 0.5, 0.9], "S_i": [0.001, 0.05, 0.3, 0.1]},
        inputs={"coupling": [0.0, 0.1, 0.5, 1.0]},
        places=("coupling",),
    ),
    "epileptor": Case(
        nodes.Epileptor(),
        "EpileptorStep",
        places=("coupling_1", "coupling_2"),
        **SEIZING,
    ),
    "epileptor, coupled and modified": Case(
        nodes.Epileptor(k_vf=0.3, k_f=0.2, k_s=-0.5, modification=0.5),
        "EpileptorStep",
        inputs={"coupling_1": [0.0, 0.5, -0.5, 0.2], "coupling_2": [0.1, 0.0, 0.3, -0.2]},
        places=("coupling_1", "coupling_2"),
        parameters={"Kvf": 0.3, "Kf": 0.2, "Ks": -0.5, "modification": 0.5},
        **SEIZING,
    ),
    "larter_breakspear": Case(
        nodes.LarterBreakspear(),
        "LarterBreakspearStep",
        start={"V": [0.0, 0.1, -0.3, 0.2], "W": [0.0, 0.2, 0.4, 0.1], "Z": [0.0, 0.1, -0.1, 0.2]},
        inputs={"coupling": [0.0, 0.1, 0.5, 1.0]},
        places=("coupling",),
        steps=100,
    ),
    "horn": Case(
        nodes.Horn(),
        "HORNStep",
        start={"x": [0.0, 0.1, -0.5, 0.3], "y": [0.0, 0.02, 0.0, -0.1]},
        inputs={"I": [1.0, 0.5, 0.0, -2.0]},
        places=("I",),
        schemes=("symplectic_euler",),
        method=False,
        dt=1.0,
    ),
}

"""The balloon of Buxton and Friston: from neural activity to blood flow and the BOLD signal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainer.dynamics.network import Network
from trainer.dynamics.node import Node, State, Value, node, parameter
from trainer.dynamics.observation import (
    OBSERVATIONS,
    SAME_TIME,
    Observation,
    ObservationError,
    check_interval,
    check_period,
    check_values,
    join,
    whole_ratio,
)
from trainer.dynamics.simulator import Engine, SimulationState, Simulator
from trainer.dynamics.temporal_average import at_step, check_step

MS_PER_SECOND = 1000.0
# Flow and volume as shares of rest stay above this; nothing keeps them from growing.
LEAST = 0.01
MOST = 1e6
# The longest step in ms that is taken without being asked for: see the tests for its error.
LONGEST_STEP = 20.0


@node("balloon_windkessel")
class BalloonWindkessel(Node):
    """Blood flow f, volume v and deoxyhaemoglobin q, as shares of rest, that activity z drives.

    s' = ε z − κ s − γ (f − 1),  f' = s,  v' = (f − v^(1/α)) / τ,
    q' = (f E(f)/ρ − v^(1/α) q/v) / τ,  E(f) = 1 − (1 − ρ)^(1/f);
    bold = V0 (k1 (1 − q) + k2 (1 − q/v) + k3 (1 − v)), as a share of the resting signal.

    Times are seconds in these equations and their parameters, ms outside. At rest (z = 0) s = 0
    and f = v = q = 1, where every derivative and bold are 0 exactly. The equations mean nothing
    for f ≤ 0, which z ≤ −γ/ε would lead to: f and v are held at 0.01 of rest or more, after each
    step and within it. Source: Friston et al. 2003, NeuroImage 19:1273; the coefficients of bold at
    1.5 T: Buxton et al. 1998, Magn. Reson. Med. 39:855.
    """

    states = ("s", "f", "v", "q")
    inputs = ("z",)
    outputs = ("bold",)
    start: ClassVar = {"s": 0.0, "f": 1.0, "v": 1.0, "q": 1.0}
    limits: ClassVar = {"f": (LEAST, MOST), "v": (LEAST, MOST)}
    state_units: ClassVar = {"s": "1/s"}
    source = "Friston et al. 2003, NeuroImage 19:1273"

    epsilon: Value = parameter(1.0, "1/s² per unit of z", "efficacy of activity")
    kappa: Value = parameter(0.65, "1/s", "decay of the signal to the vessels")
    gamma: Value = parameter(0.41, "1/s²", "feedback of the flow on that signal")
    alpha: Value = parameter(0.32, "1", "stiffness: v = f^α where nothing changes")
    tau: Value = parameter(0.98, "s", "mean transit time through the veins")
    rho: Value = parameter(0.34, "1", "share of the oxygen that is taken up at rest")
    V0: Value = parameter(0.02, "1", "share of the tissue that is venous blood at rest")
    k1: Value = parameter(2.38, "1", "weight of deoxyhaemoglobin, 7 ρ")
    k2: Value = parameter(2.0, "1", "weight of its concentration")
    k3: Value = parameter(0.48, "1", "weight of the volume, 2 ρ − 0.2")

    def derivative(self, state: State, input: State) -> State:
        """See the class; per ms; state (s, f, v, q), input (z,)."""
        signal, flow, volume, deoxy = state
        # The predictors of a scheme are not limited as the states are.
        flow, volume = flow.clamp(min=LEAST), volume.clamp(min=LEAST)
        ds = self.epsilon * input[0] - self.kappa * signal - self.gamma * (flow - 1)
        out = torch.exp(torch.log(volume) / self.alpha)
        # E(f)/ρ, written so that it is 1 exactly at rest.
        left = 1 - self.rho
        uptake = 1 - left / self.rho * torch.expm1(_log(left) * (1 / flow - 1))
        seconds = self.tau * MS_PER_SECOND
        dq = (flow * uptake - out * (deoxy / volume)) / seconds
        return ds / MS_PER_SECOND, signal / MS_PER_SECOND, (flow - out) / seconds, dq

    def output(self, name: str, state: State) -> Tensor:
        """The state called `name`, or "bold"."""
        if name != "bold":
            return super().output(name, state)
        _, _, volume, deoxy = state
        return self.V0 * (
            self.k1 * (1 - deoxy) + self.k2 * (1 - deoxy / volume) + self.k3 * (1 - volume)
        )


def _log(value: Any) -> Any:
    return torch.log(value) if isinstance(value, Tensor) else math.log(value)


@dataclass(frozen=True, eq=False)
class BoldState:
    """Where an observation stands.

    rest: samples that do not fill a step of the balloon yet, (batch, time, node); run: state of the
    balloon, None before its first step; interval of the samples and step of the balloon in ms.
    """

    rest: Tensor
    run: SimulationState | None
    interval: float
    step: float


@OBSERVATIONS.register("bold")
class Bold(Observation):
    """BOLD of a scanner that takes a volume every `period` ms, by a balloon at every node.

    balloon: a BalloonWindkessel, or its parameters by name. step: of its integration in ms, by
    default the longest up to 20 ms that fits both the activity's interval and `period`. Activity
    sampled more often is averaged over a step, activity sampled less often is held. scheme, engine:
    see Simulator; where pieces shall have the bits of a whole of another length, name the engine,
    as "auto" goes by length. The balloon begins at rest; the first volume is taken after `period`.
    """

    unit = "1"

    def __init__(
        self,
        *,
        period: float = 720.0,
        balloon: Any = None,
        step: float | None = None,
        scheme: str = "heun",
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        check_period("period", period)
        if step is not None:
            check_period("step", step)
        self.period = float(period)
        self.step = step
        self.scheme = scheme
        self.engine: Engine = engine
        # pydantic, told its type, would put the defaults back on the dataclass.
        if not isinstance(balloon, BalloonWindkessel | Mapping | None):
            raise ObservationError(f"balloon is {balloon!r}; must be a model or its parameters")
        model = balloon if isinstance(balloon, BalloonWindkessel) else None
        self.balloon = model or BalloonWindkessel(**(balloon or {}))

    def observe(
        self, values: Tensor, interval: float, state: BoldState | None = None
    ) -> tuple[Tensor, float, BoldState]:
        """See Observation; values are activity (batch, time, node), which enters as z."""
        check_values(values, interval)
        if state is None:
            step = self._step(interval)
        else:
            check_interval(interval, state.interval)
            interval, step = state.interval, state.step
        activity = join(state.rest if state else None, values)
        activity, rest = at_step(activity, interval, step)
        run = state.run if state else None
        if not activity.shape[1]:
            return activity, self.period, BoldState(rest, run, interval, step)
        network = Network(self.balloon, nodes=values.shape[2])
        simulator = Simulator(
            network, step, scheme=self.scheme, engine=self.engine, dtype=values.dtype
        )
        every = whole_ratio(self.period, step)
        assert every is not None
        trajectory = simulator.run(
            activity.shape[1] * step,
            batch_size=values.shape[0],
            inputs={"z": activity},
            monitors=("bold",),
            sample_every=every,
            state=run,
        )
        return trajectory["bold"], self.period, BoldState(rest, trajectory.state, interval, step)

    def _step(self, interval: float) -> float:
        """The step of the balloon; raises ObservationError where none fits."""
        if self.step is not None:
            check_step(self.step, interval, self.period)
            return self.step
        if interval <= LONGEST_STEP:
            for many in range(math.floor(LONGEST_STEP / interval + SAME_TIME), 0, -1):
                if whole_ratio(self.period, many * interval):
                    return many * interval
        else:
            fewest = math.ceil(interval / LONGEST_STEP)
            for parts in range(fewest, 100 * fewest):
                if whole_ratio(self.period, interval / parts):
                    return interval / parts
        raise ObservationError(
            f"period {self.period:g} ms is no multiple of the interval, {interval:g} ms, nor of a "
            "whole part of it"
        )

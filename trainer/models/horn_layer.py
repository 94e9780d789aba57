"""A layer of damped oscillators: a network of `trainer.dynamics` that a signal drives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from trainer.dynamics import Additive, Connectome, Network, Param, Simulator, bounded, positive
from trainer.dynamics.nodes.horn import Horn
from trainer.dynamics.parameters import Transform
from trainer.dynamics.simulator import Engine

SCHEME = "symplectic_euler"


class HornLayer(nn.Module):
    """Oscillators that read a signal and, one step later, one another's velocities.

    inputs, units: width of the signal and of the layer. values: "alpha", "omega", "gamma" and "v"
    of all units, see `Horn`. spread: of every unit alpha, omega and gamma are drawn evenly within
    this share of their values. fit: names of those that are fitted, unit by unit. dt: ms of a step.
    delay: ms, the longest between two units; every pair's is drawn from 0 to it, in whole steps.
    input_delay: the same for the signal. bias: whether the recurrent input has one. seed: of the
    draws. engine: of the simulator. Weights are drawn by torch, with standard deviation
    √(2 / inputs of a unit), biases are 0.

    Every call starts at rest: nothing is kept between calls.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        values: Mapping[str, float],
        spread: float = 0.0,
        fit: tuple[str, ...] = (),
        dt: float = 1.0,
        delay: float = 0.0,
        input_delay: float = 0.0,
        bias: bool = True,
        seed: int = 0,
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        self.dt = dt
        self.engine: Engine = engine
        draws = np.random.Generator(np.random.Philox(key=seed))
        node = Horn(**_of_units(values, spread, fit, dt, units, draws))
        self.steps = _delay_steps(draws, delay, dt, (units, units))
        self.input_steps = _delay_steps(draws, input_delay, dt, (units, inputs))
        self.project = nn.Linear(inputs, units)
        nn.init.kaiming_normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        weights = nn.init.kaiming_normal_(torch.empty(units, units))
        connectome = Connectome(
            np.ones((units, units)),
            lengths=None if self.steps is None else self.steps * dt,
            self_connections=True,
            name="horn",
        )
        self.network = Network(
            node,
            connectome,
            coupling=Additive(source="y", b=Param(torch.zeros(units)) if bias else 0.0),
            weights=Param(weights),
            speed=None if self.steps is None else 1.0,  # so that lengths are delays in ms
            sparse=False,  # never by what the weights are: the graph has one form
        )

    def forward(self, signal: Tensor, *, last: bool = False) -> Tensor:
        """Positions x of the units after every step, or after the last one alone.

        signal: (batch, time, input). Returns (batch, time, unit), (batch, 1, unit) with `last`.
        """
        drive = self.current(signal)
        if torch.compiler.is_exporting():
            return self._scanned(drive)[:, -1 if last else 0 :]
        steps = drive.shape[1]
        simulator = Simulator(
            self.network, self.dt, scheme=SCHEME, engine=self.engine, dtype=drive.dtype
        )
        run = simulator.run(
            steps * self.dt,
            batch_size=len(drive),
            inputs={"I": drive},
            monitors=("x",),
            sample_every=steps if last else 1,
        )
        return run["x"]

    def current(self, signal: Tensor) -> Tensor:
        """What the signal adds to the input of every unit: (batch, time, input) -> (…, unit)."""
        weight, bias = self.project.weight, self.project.bias
        if self.input_steps is None:
            return self.project(signal).to(weight.dtype)  # float32 under autocast too
        # A delay that differs from pair to pair is a filter with one tap for each pair.
        taps = weight[:, :, None] * _taps(self.input_steps, weight)
        late = nn.functional.pad(signal.transpose(1, 2), (taps.shape[2] - 1, 0))
        return nn.functional.conv1d(late, taps.flip(2), bias).transpose(1, 2).to(weight.dtype)

    def _scanned(self, drive: Tensor) -> Tensor:
        """The run of the simulator in the form that becomes one ONNX Scan.

        Delayed velocities are kept in a line (batch, delay * unit), the newest first.
        """
        # Nothing but the export needs it, and torch keeps it in a private module.
        from torch._higher_order_ops.scan import scan

        network, units = self.network, drive.shape[2]
        values = network.values()
        system = network.system(values, self.dt, SCHEME)
        rest = drive.new_zeros(drive.shape[0], units)
        start = [rest, rest.clone()]
        if self.steps is not None:
            weights = values["weights"]
            assert isinstance(weights, Tensor)
            # (delay, source, target), flat: one product gives what arrives of all delays.
            taps = (weights[:, :, None] * _taps(self.steps, weights)).permute(2, 1, 0).flatten(0, 1)
            start.append(rest.repeat(1, len(taps) // units))

        def step(carry: list[Tensor], current: Tensor) -> tuple[list[Tensor], Tensor]:
            arrived = () if self.steps is None else (carry[2] @ taps,)
            moved = list(system.step((carry[0], carry[1]), (current,), (), arrived))
            if self.steps is not None:
                moved.append(torch.cat([moved[1], carry[2][:, :-units]], dim=1))
            return moved, moved[0].clone()

        _, positions = scan(step, start, drive.transpose(0, 1))
        return positions.transpose(0, 1)


def _of_units(
    values: Mapping[str, float],
    spread: float,
    fit: tuple[str, ...],
    dt: float,
    units: int,
    draws: np.random.Generator,
) -> dict[str, float | Tensor | Param]:
    """The parameters of `Horn`: numbers, or one per unit where they differ or are fitted."""
    found: dict[str, float | Tensor | Param] = {}
    for name in ("alpha", "omega", "gamma", "v"):
        factors = 1.0 + spread * draws.uniform(-1.0, 1.0, units)
        if name not in fit and (spread == 0.0 or name == "v"):
            found[name] = float(values[name])
            continue
        own = values[name] * (np.ones(units) if name == "v" else factors)
        each = torch.from_numpy(own.astype(np.float32))
        found[name] = Param(each, transform=_range(name, dt)) if name in fit else each
    return found


def _range(name: str, dt: float) -> Transform | None:
    """The range in which a fitted parameter leaves every step stable, see `Horn`."""
    if name == "alpha":
        return positive()
    return {"omega": bounded(0.0, LARGEST_OMEGA / dt), "gamma": bounded(0.0, 0.5 / dt)}.get(name)


LARGEST_OMEGA = math.sqrt(2.0)
"""Largest angular frequency times dt: with γ dt ≤ ½ the free oscillation decays."""


def _delay_steps(
    draws: np.random.Generator, longest: float, dt: float, shape: tuple[int, int]
) -> np.ndarray | None:
    """Whole steps from each source to each target, (target, source) int64; None without delays."""
    most = round(longest / dt)
    return None if most == 0 else draws.integers(0, most + 1, shape)


def _taps(steps: np.ndarray, like: Tensor) -> Tensor:
    """1 at the delay of each pair and 0 elsewhere: (target, source, delay)."""
    places = torch.from_numpy(steps).to(like.device)
    return nn.functional.one_hot(places, int(steps.max()) + 1).to(like.dtype)

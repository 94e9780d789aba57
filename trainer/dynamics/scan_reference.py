"""What an exported network has to answer: runs of `Simulator` with the inputs of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainer.dynamics.network import Network
from trainer.dynamics.scan import Exported
from trainer.dynamics.simulator import SimulationState, Simulator, Trajectory


@torch.no_grad()
def begin(
    network: Network,
    dt: float,
    scheme: str,
    *,
    inputs: Mapping[str, Any],
    seed: int,
    start: Mapping[str, Any] | None = None,
    transient: float = 0.0,
) -> SimulationState:
    """Where a run of one batch member begins, or is after `transient` ms, with its history."""
    simulator = Simulator(network, dt, scheme=scheme, engine="plain")
    if transient:
        every = max(1, round(transient / dt))
        run = simulator.run(
            transient, inputs=inputs, seed=seed, start=start, sample_every=every, batch_size=1
        )
        return replace(run.state, step=0)
    values = simulator._values(None)
    system = network.system(values, dt, scheme)
    state = simulator._start(system, 1, start, seed, 0, None)
    delays = network.delays(values, dt)
    if delays is None:
        return state
    return replace(state, history=simulator._history(system, state, delays.length, 1))


@torch.no_grad()
def simulated(
    exported: Exported,
    stimulus: Mapping[str, Tensor],
    normals: Tensor | None,
    values: Mapping[str, Tensor],
    state: Tensor | None = None,
) -> Trajectory:
    """The run that the graph makes, by the plain engine.

    stimulus: (batch, time, node) of every driven input; normals: (batch, time, number, node);
    values: of the parameters that are inputs; state: (batch, value), see `packed`.
    """
    batch, steps = next(iter(stimulus.values())).shape[:2]
    held = {name: torch.as_tensor(value).float() for name, value in exported.held.items()}
    inputs = {name: each.reshape(1, 1, -1) for name, each in held.items()}
    for name, each in stimulus.items():
        inputs[name] = each + inputs.get(name, torch.zeros(()))
    observed = exported.observed
    seen = () if observed is None or observed.source in exported.monitors else (observed.source,)
    simulator = Simulator(exported.network, exported.dt, scheme=exported.scheme, engine="plain")
    start = exported.start
    return simulator.run(
        steps * exported.dt,
        batch_size=batch,
        inputs=inputs,
        state=_repeated(start, batch) if state is None else unpacked(state, start),
        normals=normals,
        values=values,
        monitors=(*exported.monitors, *seen),
        sample_every=exported.every,
    )


def _repeated(state: SimulationState, batch: int) -> SimulationState:
    """The state of one batch member in all members of a batch, before the first step."""
    carry = tuple(each.detach().float().expand(batch, -1).contiguous() for each in state.carry)
    history = state.history
    if history is not None:
        history = history.detach().float().expand(-1, -1, batch, -1).contiguous()
    return replace(state, carry=carry, history=history, step=0)


def packed(state: SimulationState) -> Tensor:
    """States and noise's memories, then the history, one after the other: (batch, value)."""
    parts = list(state.carry)
    if state.history is not None:
        parts.append(state.history.permute(2, 0, 1, 3).flatten(1))
    return torch.cat(parts, dim=1)


def unpacked(values: Tensor, like: SimulationState) -> SimulationState:
    """What `packed` has put together; `like`: a state with the same parts."""
    nodes, carries = like.carry[0].shape[-1], len(like.carry)
    carry = values[:, : carries * nodes].split(nodes, dim=1)
    history = like.history
    if history is not None:
        rest = values[:, carries * nodes :]
        history = rest.unflatten(1, (-1, history.shape[1], nodes)).permute(1, 2, 0, 3)
    return replace(like, carry=carry, history=history, step=0)

"""The network that benchmarks/connectome_fit.py fits, its fit, and what it is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.data.subject_bold import functional_connectivity
from trainer.dynamics import Connectome, Diffusive, Gaussian, Network, Param, Simulator, bounded
from trainer.dynamics.balloon import Bold
from trainer.dynamics.nodes.hopf import Hopf
from trainer.dynamics.parameters import Transform
from trainer.dynamics.simulator import Engine, SimulationError
from trainer.objectives import combined

PER_SECOND = 1e-3  # in 1/ms
DT = 100.0  # ms
LEVELS = ("global", "nodes", "weights")
OBJECTIVE = combined((1.0, "fc_matrix_correlation"), (1.0, "fc_matrix_rmse"))


@dataclass(frozen=True)
class Lengths:
    """Of simulations: runs side by side, ms of each and at its start that are not kept, engine."""

    batch: int = 8
    duration: float = 200_000.0
    transient: float = 50_000.0
    engine: Engine = "compiled"


FITTING = Lengths()
JUDGING = Lengths(batch=4, duration=960_000.0, transient=60_000.0)

# exp(raw) keeps steps relative to a value, which matters for numbers of a thousandth.
RELATIVE = Transform("exponential", torch.exp, torch.log, low=0.0)
RELATIVE_SYMMETRIC = Transform(
    "symmetric exponential", lambda raw: torch.exp((raw + raw.mT) / 2), torch.log, low=0.0
)


def make_network(level: str, weights: np.ndarray) -> Network:
    """The network of a level before its fit; weights: (node, node), of the connectome."""
    nodes = len(weights)
    shape = () if level == "global" else (nodes,)
    between = bounded(-2 * PER_SECOND, -1e-3 * PER_SECOND)
    # One noise strength for both states would be two Params here: they start alike.
    noise = [
        Gaussian(
            sigma=Param(np.full(shape, 0.02 * math.sqrt(PER_SECOND)), transform=RELATIVE),
            target=state,
        )
        for state in ("x", "y")
    ]
    effective = None
    if level == "weights":
        floored = np.maximum(weights, 1e-4 * weights.max())
        effective = Param(floored, transform=RELATIVE_SYMMETRIC)
    return Network(
        Hopf(
            a=Param(np.full(shape, -0.05 * PER_SECOND), transform=between),
            w=2 * math.pi * 0.05 * PER_SECOND,
            beta=PER_SECOND,
        ),
        Connectome(weights),
        coupling=Diffusive(k=Param(0.5 * PER_SECOND, transform=RELATIVE)),
        noise=noise,
        weights=effective,
    )


def simulated(network: Network, lengths: Lengths, seed: int, *, every: int = 7) -> Tensor:
    """Activity x (batch, time, node), every so many-th step."""
    simulator = Simulator(network, DT, scheme="euler", engine=lengths.engine)
    run = simulator.run(
        lengths.duration,
        batch_size=lengths.batch,
        monitors=("x",),
        transient=lengths.transient,
        sample_every=every,
        seed=seed,
    )
    return run["x"]


def pooled(values: Tensor) -> Tensor:
    """Runs side by side (batch, time, node) as one series (time, node), means taken off each."""
    return (values - values.mean(dim=1, keepdim=True)).flatten(0, 1)


def fit(
    network: Network,
    target: np.ndarray,
    learning_rate: float,
    steps: int,
    *,
    seed: int = 0,
    lengths: Lengths = FITTING,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> None:
    """Fit a network's Params to functional connectivity (node, node); new noise in every step.

    A step after which the simulation explodes is taken back, and later ones are half as long.
    on_step: called before step n, and once after the last, with n, the loss and the pooled
    activity.
    """
    wanted = torch.from_numpy(target).to(torch.float32)
    raws = [param.raw for param in network.params().values()]
    optimizer = torch.optim.Adam(raws, learning_rate)
    before = [raw.detach().clone() for raw in raws]
    for step in range(steps + 1):
        optimizer.zero_grad()
        try:
            activity = pooled(simulated(network, lengths, seed + step))
        except SimulationError:
            with torch.no_grad():
                for raw, value in zip(raws, before, strict=True):
                    raw.copy_(value)
            optimizer.param_groups[0]["lr"] /= 2
            activity = pooled(simulated(network, lengths, seed + step))
        loss = OBJECTIVE(activity, wanted)
        if on_step is not None:
            on_step(step, float(loss.detach()), activity.detach())
        if step < steps:
            before = [raw.detach().clone() for raw in raws]
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def judged(network: Network, lengths: Lengths = JUDGING, *, seed: int) -> dict[str, np.ndarray]:
    """Functional connectivity of a fresh simulation: of x, and of BOLD by the balloon.

    The volumes of the first minute after the balloon's start are left out.
    """
    with torch.no_grad():
        activity = simulated(network, lengths, seed, every=1)
        bold, interval, _ = Bold(period=700.0, engine=lengths.engine).observe(activity, DT)
    settled = min(bold.shape[1] // 2, math.ceil(60_000 / interval))
    return {
        "x": functional_connectivity(pooled(activity[:, ::7]).double().numpy()),
        "balloon": functional_connectivity(pooled(bold[:, settled:]).double().numpy()),
    }

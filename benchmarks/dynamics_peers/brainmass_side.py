"""brainmass's side of the dynamics benchmark: compiled loops, batches mapped over k, gradients.

python brainmass_side.py FOLDER RUNS [CASE,CASE,…]

A network is built once, for it cannot be built inside a mapped or compiled function; a batch is
`brainstate.transform.vmap2` over the global coupling k. Of every step the first state is kept.
The loss of the gradient step is written as on the other side, so that both do the same work; so is
the training step of HORN, whose states are set by hand because `init_state` knows no batch.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brainmass
import brainstate
import braintools
import brainunit
import jax
import jax.numpy as jnp
import numpy as np

DT, STEPS, MEMBERS, SPEED = 0.1 * brainunit.ms, 10_000, 64, 10.0
GRADIENT_STEPS, LONGEST = 1_000, 120.0
# Node-steps per processor second, or processor seconds, of earlier measurements, elsewhere.
EARLIER = {
    "hopf/b64/compiled": 14.0e6,
    "hopf/b1/compiled": 15.5e6,
    "hopf/b64/delays": 5.8e6,
    "hopf/b1/delays": 9.5e6,
    "wilson_cowan/b64": 23.6e6,
    "wilson_cowan/b1": 6.6e6,
    "hopf/gradient_1000": 0.065,
    "hopf/gradient_1000/delays": 0.085,
    "horn/T784_b128": 0.0606,
}


def main() -> None:
    """Time every case and print one line of JSON."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    only = sys.argv[3].split(",") if len(sys.argv) > 3 else []
    given = np.load(folder / "connectome.npz")
    graph = {name: given[name].astype(np.float32) for name in ("weights", "lengths")}
    nodes = len(graph["weights"])
    whole = nodes * STEPS
    cases: dict[str, tuple[Callable[[], Callable[[], Any]], int, int]] = {
        "hopf/first_result": (lambda: forward(graph, "hopf", 1, steps=1_000), nodes * 1_000, 0),
        "hopf/b1/compiled": (lambda: forward(graph, "hopf", 1), whole, runs),
        "hopf/b1/delays": (lambda: forward(graph, "hopf", 1, delays=True), whole, runs),
        "wilson_cowan/b1": (lambda: forward(graph, "wilson_cowan", 1), whole, runs),
        "hopf/gradient_1000": (lambda: gradient(graph), nodes * GRADIENT_STEPS, runs),
        "hopf/gradient_1000/delays": (
            lambda: gradient(graph, delays=True),
            nodes * GRADIENT_STEPS,
            runs,
        ),
        "horn/T784_b128": (horn, 32 * 784 * 128, runs),
        "hopf/b64/compiled": (lambda: forward(graph, "hopf", MEMBERS), MEMBERS * whole, runs),
        "wilson_cowan/b64": (
            lambda: forward(graph, "wilson_cowan", MEMBERS),
            MEMBERS * whole,
            runs,
        ),
        "hopf/b64/delays": (
            lambda: forward(graph, "hopf", MEMBERS, delays=True),
            MEMBERS * whole,
            runs,
        ),
    }
    found = {}
    with brainstate.environ.context(dt=DT):
        for name, (make, updates, times) in cases.items():
            if not only or name in only:
                print(name, file=sys.stderr, flush=True)
                found[name] = timed(name, make(), updates, times)
    print(json.dumps(found))


def network(
    graph: dict[str, np.ndarray], node: str, *, delays: bool = False, fitted: bool = False
) -> Any:
    """Hopf joined by diffusion, or Wilson–Cowan with its defaults joined by addition."""
    nodes = len(graph["weights"])
    one = jnp.asarray(1.0, jnp.float32)
    if node == "hopf":
        a = jnp.full(nodes, 0.1, jnp.float32)
        mass = brainmass.HopfStep(nodes, a=brainstate.nn.Param(a) if fitted else 0.1, w=0.2)
    else:
        mass = brainmass.WilsonCowanStep(nodes)
    made = brainmass.Network(
        mass,
        conn=graph["weights"],
        coupling="diffusive" if node == "hopf" else "additive",
        coupled_var="x" if node == "hopf" else "rE",
        k=brainstate.nn.Param(one) if fitted else 1.0,
        **({"distance": graph["lengths"], "speed": SPEED} if delays else {}),
    )
    brainstate.nn.init_all_states(made)
    return made


def trajectory(made: Any, node: str, steps: int, start: Any) -> Any:
    """The first state after every step, (step, node)."""
    first, second = ("x", "y") if node == "hopf" else ("rE", "rI")
    kept = getattr(made.node, first)
    kept.value = start
    getattr(made.node, second).value = jnp.zeros_like(start)

    def step(number: Any) -> Any:
        with brainstate.environ.context(i=number, t=number * DT):
            made.update()
        return kept.value

    return brainstate.transform.for_loop(step, np.arange(steps))


def forward(
    graph: dict[str, np.ndarray], node: str, batch: int, *, delays: bool = False, steps: int = STEPS
) -> Callable[[], Any]:
    """A run without gradients."""
    made = network(graph, node, delays=delays)
    start = jnp.full(len(graph["weights"]), 0.1, jnp.float32)
    if batch == 1:
        return brainstate.transform.jit(lambda: trajectory(made, node, steps, start))

    def member(k: Any) -> Any:
        made.coupling.k = brainstate.nn.Const(k)
        return trajectory(made, node, steps, start)

    mapped = brainstate.transform.jit(brainstate.transform.vmap2(member))
    values = jnp.linspace(0.5, 1.5, batch, dtype=jnp.float32)
    return lambda: mapped(values)


def gradient(graph: dict[str, np.ndarray], *, delays: bool = False) -> Callable[[], Any]:
    """An Adam step on the global coupling and one `a` for each node, through 1,000 steps."""
    made = network(graph, "hopf", delays=delays, fitted=True)
    nodes = len(graph["weights"])
    weights = made.states(brainstate.ParamState)
    assert sum(each.value.size for each in weights.values()) == nodes + 1
    optimizer = braintools.optim.Adam(lr=1e-3)
    optimizer.register_trainable_weights(weights)
    upper = np.triu_indices(nodes, 1)
    wanted = np.random.default_rng(0).standard_normal(len(upper[0])).astype(np.float32)
    start = jnp.linspace(0.1, 0.5, nodes, dtype=jnp.float32)

    def loss() -> Any:
        kept = trajectory(made, "hopf", GRADIENT_STEPS, start)
        return 1 - jnp.corrcoef(jnp.corrcoef(kept.T)[upper], wanted)[0, 1]

    return trained(loss, weights, optimizer)


def horn() -> Callable[[], Any]:
    """A training step of 32 oscillators on random sequences of 784 numbers, 128 at a time."""
    made = brainmass.HORNSeqNetwork(1, 32, 10, alpha=0.2)
    brainstate.nn.init_all_states(made)
    weights = made.states(brainstate.ParamState)
    optimizer = braintools.optim.Adam(lr=3e-2)
    optimizer.register_trainable_weights(weights)
    draws = np.random.default_rng(0)
    signal = jnp.asarray(draws.standard_normal((784, 128, 1)), jnp.float32)
    classes = jnp.asarray(draws.integers(0, 10, 128))

    def loss() -> Any:
        for state in (made.layers[0].horn.x, made.layers[0].horn.y):
            state.value = jnp.zeros((128, 32), jnp.float32)
        return braintools.metric.softmax_cross_entropy_with_integer_labels(
            made(signal), classes
        ).mean()

    return trained(loss, weights, optimizer)


def trained(loss: Callable[[], Any], weights: Any, optimizer: Any) -> Callable[[], Any]:
    """One compiled step: loss, gradients and Adam."""

    def step() -> Any:
        gradients, value = brainstate.transform.grad(loss, weights, return_value=True)()
        optimizer.step(gradients)
        return value

    return brainstate.transform.jit(step)


def timed(name: str, call: Callable[[], Any], updates: int, runs: int) -> dict[str, Any]:
    """The first call, those that compile again for states of another shape, and at most `runs`."""
    began = time.perf_counter()
    kept = np.asarray(jax.block_until_ready(call()))
    found: dict[str, Any] = {"first_wall": time.perf_counter() - began, "cpu": [], "wall": []}
    assert kept.dtype == np.float32, name
    assert np.isfinite(kept).all(), name
    assert name.startswith("horn") or not kept.ndim or kept.size == updates, kept.shape
    for _ in range(bool(runs) * (1 if "/b64" in name else 2)):
        jax.block_until_ready(call())
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(call())
        found["cpu"].append(time.process_time() - cpu)
        found["wall"].append(time.perf_counter() - wall)
        if sum(found["wall"]) > LONGEST and len(found["cpu"]) > 1:
            break
    return found | {"updates": updates, "note": note(name, found["cpu"], updates)}


def note(name: str, cpu: list[float], updates: int) -> str:
    """What differs, by more than twice, from what was measured before."""
    batch = "mapped over k by vmap2" if "/b64" in name else ""
    if name not in EARLIER:
        return batch
    earlier, seconds = EARLIER[name], float(np.median(cpu))
    rate = earlier > 1e3
    ratio = (updates / seconds if rate else seconds) / earlier
    if 0.5 <= ratio <= 2:
        return batch
    told = f"{earlier / 1e6:.1f} M/s" if rate else f"{earlier:.3g} s"
    return f"{batch}; {told} measured elsewhere".removeprefix("; ")


assert math.isclose(brainmass.HORNStep(1).omega.value().item(), 2 * math.pi / 28, rel_tol=1e-5)

if __name__ == "__main__":
    main()

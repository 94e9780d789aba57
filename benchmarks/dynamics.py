"""Speed of neural-mass networks beside brainmass, neurolib and tvb-library, in one run.

    uv run python benchmarks/dynamics.py                 # all; some ten minutes, an idle machine
    uv run python benchmarks/dynamics.py --runs 3 --only hopf/b64/compiled,hopf/gradient_1000

N = 90, dt 0.1 ms, float32, 10,000 steps, one thread. Dense random symmetric connectivity divided by
its largest row sum; Hopf a .1, w .2, diffusive; Wilson–Cowan with its defaults, additive; delays
from distances up to 150 mm at 10 mm/ms. Every step of the first state is kept, as the peers do;
cases named "every_10" keep every tenth. `node_steps_per_cpu_s` counts processor time of all
threads, once what is compiled is there; the first, uncompiled call is told beside it. Every peer
runs in an environment of its own, in turns with our cases. Writes results/dynamics.json and .png.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from environments import HERE, BuildError, installed, make_environment
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.providers import processor
from trainer.dynamics import Additive, Connectome, Diffusive, Network, Node, Param, Simulator
from trainer.dynamics.nodes.hopf import Hopf
from trainer.dynamics.nodes.wilson_cowan import WilsonCowan
from trainer.models.horn_layer import HornLayer

RESULTS = HERE / "results"
CACHE = HERE / ".cache" / "dynamics"
COMMAND = " ".join(["uv run python benchmarks/dynamics.py", *sys.argv[1:]])
NODES, DT, STEPS, MEMBERS = 90, 0.1, 10_000, 64
SPEED, GRADIENT_STEPS = 10.0, 1_000
# The goals stand for that machine; the rows by_hand tell how far another one is from it.
HAND = "177-178 M/s where the goals were set"
RATE, SECONDS, WALL = "node_steps_per_cpu_s", "cpu_s", "wall_s"


@dataclass(frozen=True)
class Peer:
    """What we compare with: the program that runs its side and what its environment holds."""

    name: str
    program: str
    requirements: tuple[str, ...]


PEERS = (
    Peer(
        "brainmass 0.1.1",
        "brainmass_side.py",
        (
            "brainmass==0.1.1",
            "brainstate==0.5.4",
            "braintools==0.3.0",
            "brainunit==0.5.2",
            "jax==0.10.2",
        ),
    ),
    Peer("neurolib 0.6.2", "neurolib_side.py", ("neurolib==0.6.2",)),
    Peer("tvb-library 2.10.0", "tvb_side.py", ("tvb-library==2.10.0",)),
)


@dataclass(frozen=True)
class Case:
    """One row: how it is made, what it counts, and its goal.

    make: builds what is timed. updates: node-steps of one call, for rates. peer_case: the row whose
    figures of the peers stand here too, "" for those of this name.
    """

    name: str
    metric: str
    make: Callable[[], Callable[[], Any]]
    goal: str = "none"
    updates: int = 0
    steps: int = STEPS
    note: str = ""
    peer_case: str = ""


@dataclass
class Measured:
    """Processor and wall seconds of every timed call, and of the first one."""

    first_wall: float = 0.0
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def connectome() -> Connectome:
    """Weights and lengths that every side is given."""
    draws = np.random.default_rng(0)
    weights = draws.random((NODES, NODES))
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 0.0)
    lengths = draws.random((NODES, NODES)) * 150.0
    lengths = (lengths + lengths.T) / 2
    np.fill_diagonal(lengths, 0.0)
    return Connectome(weights / weights.sum(axis=1).max(), lengths=lengths)


def forward(
    node: str,
    engine: str,
    *,
    batch: int = MEMBERS,
    delays: bool = False,
    sample_every: int = 1,
    steps: int = STEPS,
) -> Callable[[], Callable[[], Any]]:
    """A run without gradients."""

    def make() -> Callable[[], Any]:
        mass: Node = Hopf(a=0.1, w=0.2) if node == "hopf" else WilsonCowan()
        coupling = Diffusive() if node == "hopf" else Additive()
        speed = SPEED if delays else None
        network = Network(mass, connectome(), coupling=coupling, speed=speed)
        simulator = Simulator(network, DT, scheme="euler", engine=engine)
        state = network.node.states[0]
        # A batch is mapped over k, as the peers' is: nobody runs equal members.
        over_k = {"coupling.k": torch.linspace(0.5, 1.5, batch)[:, None]}

        def call() -> Any:
            with torch.no_grad():
                return simulator.run(
                    steps * DT,
                    batch_size=batch,
                    values=over_k if batch > 1 else None,
                    start={state: 0.1},
                    monitors=(state,),
                    sample_every=sample_every,
                )

        return call

    return make


def by_hand(library: str) -> Callable[[], Callable[[], Any]]:
    """Euler's scheme for this one model, by hand into arrays made once: what a machine gives."""

    def make() -> Callable[[], Any]:
        make_array = torch.from_numpy if library == "torch" else np.asarray
        xp: Any = torch if library == "torch" else np
        shape = (MEMBERS, NODES)
        graph = connectome().weights.astype(np.float32)
        weights = make_array(np.ascontiguousarray(graph.T))
        rows = make_array(graph.sum(axis=1))
        k = make_array(np.linspace(0.5, 1.5, MEMBERS, dtype=np.float32)[:, None])
        kept = make_array(np.empty((STEPS, *shape), np.float32))
        work = [make_array(np.empty(shape, np.float32)) for _ in range(3)]

        def call() -> Any:
            growth, coupled, change = work
            x = make_array(np.full(shape, 0.1, np.float32))
            y = make_array(np.zeros(shape, np.float32))
            with torch.no_grad():
                for step in range(STEPS):
                    xp.matmul(x, weights, out=coupled)
                    xp.multiply(x, rows, out=change)
                    coupled -= change
                    coupled *= k
                    xp.multiply(x, x, out=growth)
                    xp.multiply(y, y, out=change)
                    growth += change
                    xp.subtract(0.1, growth, out=growth) if xp is np else growth.neg_().add_(0.1)
                    xp.multiply(growth, x, out=change)
                    change += coupled
                    xp.multiply(y, 0.2, out=coupled)
                    change -= coupled
                    growth *= y
                    xp.multiply(x, 0.2, out=coupled)
                    growth += coupled
                    change *= DT
                    growth *= DT
                    x += change
                    y += growth
                    kept[step] = x
            return kept

        return call

    return make


def gradient(*, delays: bool = False, engine: str = "compiled") -> Callable[[], Callable[[], Any]]:
    """An Adam step on the global coupling and one `a` for each node, through 1,000 steps."""

    def make() -> Callable[[], Any]:
        network = Network(
            Hopf(a=Param(np.full(NODES, 0.1)), w=0.2),
            connectome(),
            coupling=Diffusive(k=Param(1.0)),
            speed=SPEED if delays else None,
        )
        simulator = Simulator(network, DT, scheme="euler", engine=engine)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        target = torch.randn(NODES, NODES, generator=torch.Generator().manual_seed(0))
        upper = torch.triu_indices(NODES, NODES, 1)
        start = {"x": torch.linspace(0.1, 0.5, NODES)}

        def call() -> Any:
            optimizer.zero_grad()
            run = simulator.run(GRADIENT_STEPS * DT, start=start, monitors=("x",))
            found = torch.corrcoef(run["x"][0].T)[upper[0], upper[1]]
            pair = torch.stack([found, target[upper[0], upper[1]]])
            loss = 1 - torch.corrcoef(pair)[0, 1]
            loss.backward()
            optimizer.step()
            return loss

        return call

    return make


def horn() -> Callable[[], Any]:
    """A training step of 32 oscillators on random sequences of 784 numbers, 128 at a time."""
    torch.manual_seed(0)
    values = {"alpha": 0.2, "omega": 2 * math.pi / 28, "gamma": 0.01, "v": 0.0}
    layer = HornLayer(1, 32, values=values, engine="compiled")
    readout = torch.nn.Linear(32, 10)
    optimizer = torch.optim.Adam([*layer.parameters(), *readout.parameters()], 3e-2)
    signal, classes = torch.randn(128, 784, 1), torch.randint(10, (128,))

    def call() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(readout(layer(signal, last=True)[:, -1]), classes)
        loss.backward()
        optimizer.step()
        return loss

    return call


UPDATES = NODES * STEPS
CASES = (
    Case("hopf/b64/compiled", RATE, forward("hopf", "compiled"), ">= 300e6", MEMBERS * UPDATES),
    Case(
        "hopf/b64/compiled/every_10",
        RATE,
        forward("hopf", "compiled", sample_every=10),
        updates=MEMBERS * UPDATES,
        peer_case="hopf/b64/compiled",
    ),
    Case(
        "hopf/b64/eager",
        RATE,
        forward("hopf", "replay"),
        ">= 120e6",
        MEMBERS * UPDATES,
        STEPS,
        "engine replay: numpy, nothing compiled",
        "hopf/b64/compiled",
    ),
    Case("hopf/b1/compiled", RATE, forward("hopf", "compiled", batch=1), ">= 30e6", UPDATES),
    Case(
        "hopf/b1/eager",
        RATE,
        forward("hopf", "replay", batch=1),
        updates=UPDATES,
        peer_case="hopf/b1/compiled",
    ),
    Case(
        "hopf/b64/delays",
        RATE,
        forward("hopf", "compiled", delays=True),
        ">= 29e6",
        MEMBERS * UPDATES,
    ),
    Case(
        "hopf/b1/delays", RATE, forward("hopf", "compiled", batch=1, delays=True), updates=UPDATES
    ),
    Case(
        "wilson_cowan/b64",
        RATE,
        forward("wilson_cowan", "compiled"),
        ">= 47.2e6",
        MEMBERS * UPDATES,
    ),
    Case("wilson_cowan/b1", RATE, forward("wilson_cowan", "compiled", batch=1), updates=UPDATES),
    Case(
        "hopf/b64/by_hand/numpy",
        RATE,
        by_hand("numpy"),
        updates=MEMBERS * UPDATES,
        note=f"what this machine gives; {HAND}",
    ),
    Case(
        "hopf/b64/by_hand/torch",
        RATE,
        by_hand("torch"),
        updates=MEMBERS * UPDATES,
        note=f"what this machine gives; {HAND}",
    ),
    Case("hopf/gradient_1000", SECONDS, gradient(), "<= .065", steps=GRADIENT_STEPS),
    Case("hopf/gradient_1000/delays", SECONDS, gradient(delays=True), steps=GRADIENT_STEPS),
    Case(
        "hopf/gradient_1000/plain",
        SECONDS,
        gradient(engine="plain"),
        steps=GRADIENT_STEPS,
        peer_case="hopf/gradient_1000",
    ),
    Case("horn/T784_b128", SECONDS, horn, "<= .061", steps=784),
)


def main() -> None:
    """Time every case and every peer, in turns, and write table and picture."""
    options = _options()
    torch.set_num_threads(1)
    console = Console()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    peers = _peers(console, options.peers)
    measured = {case.name: Measured() for case in cases}
    theirs: dict[str, dict[str, Any]] = {peer.name: {} for peer, _ in peers}
    first_results: list[float] = []
    with Progress(console=console) as progress:
        turns = options.runs
        task = progress.add_task("first calls", total=len(cases) * (turns + 1) + len(peers))
        calls = {}
        for case in cases:
            progress.update(task, description=f"first call, {case.name}")
            calls[case.name] = case.make()
            began = time.perf_counter()
            calls[case.name]()
            measured[case.name].first_wall = time.perf_counter() - began
            progress.advance(task)
        for turn in range(turns):
            for case in cases:
                progress.update(task, description=case.name)
                _time(calls[case.name], measured[case.name])
                progress.advance(task)
            # Every peer once, between our turns; what is left of them after the last one.
            last = turn == turns - 1
            for peer, python in peers[turn:] if last else peers[turn : turn + 1]:
                progress.update(task, description=peer.name)
                theirs[peer.name] = _run_peer(peer, python, turns, _asked(cases, options.only))
                progress.advance(task)
        if not options.only or "hopf/first_result" in options.only:
            progress.update(task, description="hopf/first_result")
            first_results = [_first_result() for _ in range(turns)]
    rows = [_row(case, measured[case.name], theirs) for case in cases]
    if first_results:
        rows.append(_first_row(first_results, theirs))
    report = {
        "benchmark": "dynamics",
        "machine": {"processor": processor(), "system": platform.system()},
        "load": os.getloadavg()[1],
        "versions": {name: version(name) for name in ("torch", "numpy")}
        | {peer.name: installed(python) for peer, python in peers},
        "settings": {"nodes": NODES, "dt_ms": DT, "steps": STEPS, "runs": options.runs},
        "rows": rows,
    }
    write_file(options.output / "dynamics.json", canonical_json(report))
    _draw(rows, options.output / "dynamics.png")
    console.print(_table(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="timed calls of every case")
    parser.add_argument("--only", type=_words, default=[], help="names of rows, with commas")
    parser.add_argument("--peers", type=_words, help="brainmass,neurolib,tvb-library or none")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: benchmarks/results")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _peers(console: Console, wanted: list[str] | None) -> list[tuple[Peer, Path]]:
    """The peers whose environments can be made."""
    found = []
    for peer in PEERS:
        if wanted is not None and peer.name.split()[0] not in wanted:
            continue
        console.print(f"environment of {peer.name}", highlight=False)
        try:
            name = peer.name.split()[0]
            found.append((peer, make_environment(name, peer.requirements, CACHE)))
        except BuildError as error:
            console.print(f"{peer.name} is left out: {error}", style="yellow")
    return found


def _time(call: Callable[[], Any], into: Measured) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    into.cpu.append(time.process_time() - cpu)
    into.wall.append(time.perf_counter() - wall)


def _asked(cases: list[Case], only: list[str]) -> list[str]:
    """The peers' cases that the chosen rows need; none for all."""
    return sorted({case.peer_case or case.name for case in cases} | {*only}) if only else []


def _run_peer(peer: Peer, python: Path, runs: int, names: list[str]) -> dict[str, Any]:
    """Case → {"first_wall": s, "cpu": [s], "wall": [s], "updates": n} of a peer's side."""
    graph = connectome()
    folder = CACHE / "given"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "connectome.npz", weights=graph.weights, lengths=graph.lengths)
    program = str(HERE / "dynamics_peers" / peer.program)
    done = subprocess.run(
        [str(python), program, str(folder), str(runs), *([",".join(names)] if names else [])],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        timeout=3600,
    )
    if done.returncode:
        raise SystemExit(f"{peer.name}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _first_result() -> float:
    """Wall seconds of the first 1,000 steps of a new process, imports left out as for the peers."""
    program = (
        "import time, sys; sys.path[:0] = ['benchmarks', '.']; import torch, dynamics as d; "
        "torch.set_num_threads(1); made = d.forward('hopf', 'auto', batch=1, steps=1000)(); "
        "t = time.perf_counter(); made(); print(time.perf_counter() - t)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE.parent,
    )
    return float(done.stdout.splitlines()[-1])


def _row(case: Case, found: Measured, theirs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    values = [case.updates / s for s in found.cpu] if case.metric == RATE else found.cpu
    others = {}
    for name, cases in theirs.items():
        if (case.peer_case or case.name) in cases:
            other = cases[case.peer_case or case.name]
            cpu = statistics.median(other["cpu"])
            others[name] = {
                "value": other["updates"] / cpu if case.metric == RATE else cpu,
                "first_call_wall_s": other["first_wall"],
                "note": other.get("note", ""),
            }
    return _filled(case.name, case.metric, values, case.goal, others) | {
        "first_call_wall_s": found.first_wall,
        "wall_s": statistics.median(found.wall),
        "steps": case.steps,
        "note": case.note,
    }


def _first_row(values: list[float], theirs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    others = {
        name: {"value": cases["hopf/first_result"]["first_wall"], "note": ""}
        for name, cases in theirs.items()
        if "hopf/first_result" in cases
    }
    return _filled("hopf/first_result", WALL, values, "< 2", others) | {
        "note": "1,000 steps in a new process, after imports",
        "steps": 1000,
    }


def _filled(
    name: str, metric: str, values: list[float], goal: str, others: dict[str, Any]
) -> dict[str, Any]:
    value = statistics.median(values)
    # "inclusive": no quartile lies outside what was measured, also of two runs.
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (value,) * 3
    )
    best = max if metric == RATE else min
    peer = best(others, key=lambda each: others[each]["value"]) if others else None
    sign, _, bound = goal.partition(" ")
    met = None
    if goal != "none":
        meets = {">=": operator.ge, "<=": operator.le, "<": operator.lt}[sign]
        met = meets(value, float(bound))
    return {
        "case": name,
        "metric": metric,
        "unit": {RATE: "node-steps/s", SECONDS: "s", WALL: "s"}[metric],
        "value": value,
        "spread": (high - low) / 2,
        "runs": values,
        "peer": peer,
        "peer_value": None if peer is None else others[peer]["value"],
        "peers": others,
        "goal": goal,
        "met": met,
        "command": COMMAND,
    }


def _shown(row: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.1f} M" if row["metric"] == RATE else f"{value:.3g}"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="neural-mass networks, 90 nodes, float32, processor time of one thread")
    for head in ("case", "metric", "value", "± half IQR", "best peer", "its value", "goal", "met"):
        table.add_column(head)
    for row in rows:
        table.add_row(
            row["case"],
            row["metric"],
            _shown(row, row["value"]),
            _shown(row, row["spread"]),
            row["peer"] or "–",
            _shown(row, row["peer_value"]),
            row["goal"],
            {True: "yes", False: "no", None: "–"}[row["met"]],
        )
    return table


def _draw(rows: list[dict[str, Any]], destination: Path) -> None:
    """Rates and seconds, ours beside every peer's, on logarithmic axes, with the goals."""
    groups = [
        ("node-steps per processor second", [row for row in rows if row["metric"] == RATE]),
        ("seconds", [row for row in rows if row["metric"] != RATE]),
    ]
    groups = [group for group in groups if group[1]]
    names = ("axonnx", *(p.name for p in PEERS), "by hand")
    colors = dict(zip(names, _COLORS, strict=True))
    heights = [max(1, len(each)) for _, each in groups]
    figure = Figure(figsize=(9.5, 1.5 + 0.55 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), squeeze=False, height_ratios=heights)[:, 0]
    for panel, (unit, own) in zip(panels, groups, strict=True):
        for place, row in enumerate(own):
            bars = {"by hand" if "/by_hand/" in row["case"] else "axonnx": row["value"]}
            bars |= {name: other["value"] for name, other in row["peers"].items()}
            for part, (name, value) in enumerate(bars.items()):
                height = 0.8 / len(bars)
                where = place - 0.4 + (part + 0.5) * height
                panel.barh(where, value, height * 0.9, color=colors[name])
            if row["goal"] != "none":
                goal = float(row["goal"].split()[-1])
                panel.plot([goal] * 2, [place - 0.42, place + 0.42], "--", color="black")
        panel.set_yticks(range(len(own)), [row["case"] for row in own])
        panel.invert_yaxis()
        panel.set_xscale("log")
        panel.set_xlabel(unit)
    for name, color in colors.items():
        panels[0].barh([0], [0], color=color, label=name)
    panels[0].plot([], [], "--", color="black", label="goal")
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    destination.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(destination, dpi=130, metadata={"Software": None})


_COLORS = ("#0072B2", "#D55E00", "#999999", "#CC79A7", "#E69F00")


if __name__ == "__main__":
    main()

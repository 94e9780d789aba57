"""Trajectories against brainmass 0.1.1, in an environment that `uv` makes for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from brainmass_cases import SINGLE, Case
from brainmass_networks import COUPLED

from trainer.dynamics import NODES, Simulator, nodes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BRAINMASS = "brainmass==0.1.1"
CASES = SINGLE | COUPLED
RUNS = [(name, scheme) for name, case in CASES.items() for scheme in case.schemes]

Trajectories = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Trajectories:
    """Every trajectory of brainmass, (step, node) by "CASE/SCHEME/STATE"."""
    folder = tmp_path_factory.mktemp("brainmass")
    cases, found = folder / "cases.json", folder / "trajectories.npz"
    cases.write_text(json.dumps({f"{n}/{s}": CASES[n].theirs(s) for n, s in RUNS}))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--isolated"]
    uv += ["--python", sys.executable, "--exclude-newer", settings["exclude-newer"]]
    script = ["python", "-W", "ignore", HERE / "brainmass_side.py", cases, found]
    done = subprocess.run(
        [*uv, "--with", BRAINMASS, *script],
        cwd=folder,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(found) as read:
        return dict(read)


def ours(case: Case, scheme: str) -> Trajectories:
    """Our trajectories (step, node) by state."""
    network = case.ours()
    delayed = network.node.lags or network.speed is not None
    engine = "plain" if delayed else "replay"
    simulator = Simulator(network, case.dt, scheme=scheme, engine=engine, dtype=torch.float64)
    run = simulator.run(
        case.steps * case.dt,
        start={name: np.atleast_2d(value) for name, value in case.start.items()},
        inputs={
            name: np.broadcast_to(value, case.count).reshape(1, 1, -1).copy()
            for name, value in case.inputs.items()
        },
    )
    return {name: run[name][0].numpy() for name in case.node.states}


def deviations(case: Case, name: str, scheme: str, theirs: Trajectories) -> dict[str, float]:
    """Largest difference of each state, as a share of its range over all steps and nodes."""
    found = {}
    for state, mine in ours(case, scheme).items():
        other = theirs[f"{name}/{scheme}/{case.upstream(state)}"]
        assert mine.shape == other.shape == (case.steps, case.count)
        found[state] = float(np.abs(mine - other).max() / max(np.ptp(other), 1e-9))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), RUNS)
def test_trajectories_agree(name: str, scheme: str, theirs: Trajectories) -> None:
    found = deviations(CASES[name], name, scheme, theirs)
    print(f"deviation {max(found.values()):.0e} {name} {scheme}")
    assert max(found.values()) < 1e-4, found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hopf", "wilson_cowan", "hopf, additive, delays"])
def test_a_hundredth_of_a_parameter_is_seen(name: str, theirs: Trajectories) -> None:
    case = CASES[name]
    parameter = case.node.parameter_names()[0]
    moved = case.node.having({parameter: 1.01 * case.node.values()[parameter]})
    found = deviations(replace(case, node=moved), name, "exponential_euler", theirs)
    assert max(found.values()) > 1e-4


def test_every_model_is_compared() -> None:
    kinds = {name: NODES.get(name) for name in NODES.names()}
    own = {name for name, kind in kinds.items() if kind.__module__.startswith(nodes.__name__)}
    compared = {type(case.node) for case in CASES.values()}
    assert {name for name in own if kinds[name] not in compared} == set()


def test_every_case_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "data_driven" / "brainmass.md").read_text()
    assert [name for name in CASES if f"\n| {name} |" not in text] == []

"""The dynamics benchmark's own instruments: its rows, their goals, its peers, and a small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

dynamics = import_module("dynamics")

# The keys that every row of a result has (DESIGN, "Figures").
ROW = ["case", "metric", "unit", "value", "spread", "peer", "peer_value", "goal", "met", "command"]
REQUIRED = {
    "hopf/b64/compiled": "node_steps_per_cpu_s",
    "hopf/b64/eager": "node_steps_per_cpu_s",
    "hopf/b1/compiled": "node_steps_per_cpu_s",
    "hopf/b64/delays": "node_steps_per_cpu_s",
    "wilson_cowan/b64": "node_steps_per_cpu_s",
    "hopf/gradient_1000": "cpu_s",
    "horn/T784_b128": "cpu_s",
}
OTHER = {"first_wall": 3.0, "cpu": [0.5, 0.25, 1.0], "wall": [1.0], "updates": 1_000, "note": "n"}


def test_the_required_rows_are_there_once() -> None:
    names = [case.name for case in dynamics.CASES]
    assert len(set(names)) == len(names)
    assert {c.name: c.metric for c in dynamics.CASES if c.name in REQUIRED} == REQUIRED
    for case in dynamics.CASES:
        assert not case.peer_case or case.peer_case in names
        assert (case.updates > 0) == (case.metric == "node_steps_per_cpu_s")


def test_a_row_of_rates_and_one_of_seconds() -> None:
    rates, seconds = (
        next(case for case in dynamics.CASES if case.name == name)
        for name in ("hopf/b1/compiled", "hopf/gradient_1000")
    )
    found = dynamics.Measured(2.0, [0.02, 0.03, 0.04], [1.0, 2.0, 3.0])
    theirs = {
        "slow": {rates.name: OTHER, seconds.name: OTHER},
        "fast": {rates.name: OTHER | {"updates": 9_000}, seconds.name: OTHER | {"cpu": [0.01]}},
        "none": {},
    }
    row = dynamics._row(rates, found, theirs)
    assert set(ROW) <= set(row)
    assert row["value"] == pytest.approx(900_000 / 0.03)
    assert (row["peer"], row["peer_value"], row["met"]) == ("fast", 18_000, True)
    assert set(row["peers"]) == {"slow", "fast"}
    row = dynamics._row(seconds, found, theirs)
    assert (row["value"], row["spread"]) == (0.03, pytest.approx(0.005))
    assert (row["peer"], row["peer_value"], row["met"]) == ("fast", 0.01, True)
    json.dumps(row, allow_nan=False)


def test_the_rows_that_are_not_compiled_stand_beside_the_same_peer() -> None:
    case = next(case for case in dynamics.CASES if case.name == "hopf/b64/eager")
    found = dynamics.Measured(2.0, [1.0], [1.0])
    row = dynamics._row(case, found, {"peer": {"hopf/b64/compiled": OTHER}})
    assert row["peer_value"] == 2_000
    assert dynamics._asked([case], [case.name]) == ["hopf/b64/compiled", "hopf/b64/eager"]
    assert dynamics._asked([case], []) == []


def test_the_first_result_is_below_its_goal_and_not_at_it() -> None:
    for values, met in (([1.0, 1.5], True), ([2.0], False)):
        row = dynamics._first_row(values, {"peer": {"hopf/first_result": OTHER}})
        assert (row["case"], row["metric"], row["met"]) == ("hopf/first_result", "wall_s", met)
        assert row["peer_value"] == 3.0
    # Quartiles of two runs lie between them.
    assert dynamics._first_row([1.0, 1.5], {})["spread"] == pytest.approx(0.125)


def test_a_picture_of_a_few_rows(tmp_path: Path) -> None:
    row = dynamics._first_row([1.0], {dynamics.PEERS[0].name: {"hopf/first_result": OTHER}})
    dynamics._draw([row], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_every_peer_has_pinned_versions_and_its_own_program() -> None:
    for peer in dynamics.PEERS:
        assert (BENCHMARKS / "dynamics_peers" / peer.program).is_file()
        assert all("==" in requirement for requirement in peer.requirements)


@pytest.mark.slow
def test_a_small_run(tmp_path: Path) -> None:
    words = ["--runs", "1", "--only", "hopf/b1/eager", "--peers", "none", "--output", str(tmp_path)]
    subprocess.run(
        [sys.executable, str(BENCHMARKS / "dynamics.py"), *words],
        check=True,
        capture_output=True,
        cwd=BENCHMARKS.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    report = json.loads((tmp_path / "dynamics.json").read_text())
    assert report["benchmark"] == "dynamics"
    (row,) = report["rows"]
    assert (row["case"], row["peer"], row["met"]) == ("hopf/b1/eager", None, None)
    assert row["value"] > 0
    assert (tmp_path / "dynamics.png").is_file()

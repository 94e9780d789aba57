"""A network of neural masses from its config to an answer over HTTP, with the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from server_process import running

import artifact
from artifact.arrays import decode_npz, encode_npz
from trainer import cli
from trainer.dynamics.scan_reference import begin
from trainer.simulation_config import build, load_simulation

CONFIG = Path(__file__).parents[2] / "configs" / "simulate_network.yaml"
STEPS = 600

pytestmark = pytest.mark.slow


def test_a_config_becomes_a_service_with_the_runs_of_the_simulator(tmp_path: Path) -> None:
    place = tmp_path / "artifact"
    command = ["simulate", str(CONFIG), "--simulation.duration", "1200", "--export", str(place)]
    assert cli.main([*command, "--output", str(tmp_path / "run")]) == 0
    config = load_simulation(CONFIG, [])
    network, simulator = build(config)
    settings = config.simulation
    start = begin(
        network, settings.dt, settings.scheme, inputs={}, seed=0, transient=settings.transient
    )
    stimulus = np.zeros((1, STEPS, network.nodes), np.float32)
    stimulus[:, 100:200] = 0.05
    feed = {"stimulus": stimulus, "seed": np.array([3]), "member": np.array([2])}
    with running(tmp_path, place) as server:
        response = server.client.post(
            "/predict",
            content=encode_npz(feed),
            headers={"Content-Type": "application/x-npz", "Accept": "application/x-npz"},
        )
        assert response.status_code == 200, response.text
        answer = decode_npz(response.content)
        too_long = server.client.post(
            "/predict",
            content=encode_npz({"stimulus": np.zeros((1, 5, network.nodes + 1), np.float32)}),
            headers={"Content-Type": "application/x-npz"},
        )
        assert too_long.status_code == 400
    for name, values in artifact.load(place).predict(feed).items():
        assert values.tobytes() == answer[name].tobytes()
    with torch.no_grad():
        run = simulator.run(
            STEPS * settings.dt,
            inputs={"x": torch.from_numpy(stimulus)},
            state=replace(start, seed=3),
            first_member=2,
            sample_every=settings.sample_every,
        )
    for name in ("x", "y"):
        wanted = run[name].numpy()
        np.testing.assert_allclose(answer[name], wanted, rtol=0, atol=1e-4 * wanted.std())

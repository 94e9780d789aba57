"""The benchmark of the fit to functional connectivity, its functions on a made-up network."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

benchmark = import_module("connectome_fit")
model = import_module("connectome_fit_network")
SHORT = model.Lengths(batch=2, duration=8_000.0, transient=1_000.0, engine="plain")


@pytest.fixture
def weights() -> np.ndarray:
    drawn = np.random.default_rng(0).random((4, 4))
    drawn = (drawn + drawn.T) * (1 - np.eye(4))
    drawn[0, 1] = drawn[1, 0] = 0.0
    return np.asarray(drawn / drawn.sum(1).max())


@pytest.mark.parametrize("level", model.LEVELS)
def test_levels_differ_in_what_they_fit(level: str, weights: np.ndarray) -> None:
    params = model.make_network(level, weights).params()
    sizes = {name: param.raw.numel() for name, param in params.items()}
    per_node = 1 if level == "global" else 4
    wanted = {"node.a": per_node, "noise.0.sigma": per_node, "noise.1.sigma": per_node}
    wanted["coupling.k"] = 1
    if level == "weights":
        wanted["weights"] = 16
    assert sizes == wanted


def test_a_fit_changes_every_param_and_keeps_weights_symmetric(weights: np.ndarray) -> None:
    network = model.make_network("weights", weights)
    before = {name: param.value().detach().clone() for name, param in network.params().items()}
    target = np.where(np.eye(4) > 0, 1.0, 0.5)
    seen: list[tuple[int, float]] = []

    def on_step(step: int, loss: float, activity: torch.Tensor) -> None:
        seen.append((step, loss))

    model.fit(network, target + 0.3 * weights, 0.1, 2, lengths=SHORT, on_step=on_step)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert len({loss for _, loss in seen}) == 3
    for name, param in network.params().items():
        assert not torch.equal(param.value(), before[name]), name
    fitted = network.values()["weights"]
    assert torch.equal(fitted, fitted.T)
    assert bool((fitted > 0).all())


def test_pooling_takes_every_runs_mean_off() -> None:
    values = torch.randn(3, 10, 4) + torch.tensor([5.0, -5.0, 0.0])[:, None, None]
    found = model.pooled(values)
    assert found.shape == (30, 4)
    assert float(found[:10].mean(0).abs().max()) < 1e-5


def test_judging_takes_x_and_the_balloon(weights: np.ndarray) -> None:
    network = model.make_network("global", weights)
    found = model.judged(network, SHORT, seed=3)
    again = model.judged(network, SHORT, seed=3)
    for signal in ("x", "balloon"):
        assert found[signal].shape == (4, 4)
        np.testing.assert_array_equal(found[signal], again[signal])
    assert np.abs(found["x"] - found["balloon"]).max() > 1e-3


def test_baseline_gives_missing_connections_the_smallest_weight(weights: np.ndarray) -> None:
    found = benchmark.logarithm(weights)
    assert found[0, 1] == np.log(weights[weights > 0].min())
    assert np.isfinite(found).all()


def test_rows_and_picture(tmp_path: Path) -> None:
    scores = {"global": 0.5, "nodes": 0.6, "weights": 0.72}
    folds = [
        {"subject": k, "ceiling": 0.8, "baseline": 0.4, "x": scores, "balloon": scores}
        for k in (1, 2)
    ]
    rows = {row["case"]: row for row in benchmark._rows(folds)}
    assert rows["weights, x as BOLD"]["met"] is True
    assert rows["nodes, x as BOLD"]["met"] is False
    assert rows["weights, BOLD by the balloon"]["met"] is None
    matrices = {name: np.eye(4) for name in ("held-out person", *model.LEVELS)}
    benchmark.draw(folds, matrices, tmp_path / "picture.png", 0.7)
    assert (tmp_path / "picture.png").stat().st_size > 10_000

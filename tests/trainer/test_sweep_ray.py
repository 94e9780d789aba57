"""Sweeps as Ray tasks, with a Ray that is really started."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest

from trainer.sweep import sweep
from trainer.sweep_config import load_sweep

SWEEP = """
base:
  data: {name: synthetic}
  model: {name: gru}
  training: {epochs: 1, device: cpu, threads: 1}
space:
  model.hidden_size: {choices: [2, 3]}
sampler: grid
refit_best: false
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_trials_run_as_tasks_and_score_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    plan = load_sweep(path, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        report = sweep(plan, tmp_path / "ray", ray="local", workers=2)
    finally:
        ray.shutdown()
    assert [row["state"] for row in report["trials"]] == ["scored", "scored"]
    alone = sweep(plan, tmp_path / "alone")
    assert json.dumps(report, sort_keys=True) == json.dumps(alone, sort_keys=True)
    assert os.path.exists(tmp_path / "ray" / "trial-0")

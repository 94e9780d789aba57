"""The committed demo artifact is what `configs/demo.yaml` gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import artifact
from artifact import providers
from trainer.config import load_config
from trainer.export import libraries

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
CONFIG = ROOT / "configs" / "demo.yaml"


def test_the_demo_is_small_and_answers() -> None:
    model = artifact.load(DEMO)
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 1_000_000
    assert model.manifest.provenance["data"]["synthetic"] is True
    inputs = model.golden_inputs
    assert model.predict(inputs)["forecast"].shape == inputs["neural"].shape[:3]


def test_the_demo_was_made_from_its_config() -> None:
    assert dict(artifact.read(DEMO).manifest.config) == load_config(CONFIG, []).public()


@pytest.mark.slow
def test_training_it_again_gives_the_demo(tmp_path: Path) -> None:
    """Close everywhere; the same bytes where versions and processor are those of its manifest."""
    output = tmp_path / "run"
    command = [sys.executable, ROOT / "axonnx.py", "train", CONFIG, "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    demo, again = artifact.load(DEMO), artifact.load(output / "artifact")
    for name, value in demo.manifest.metrics.items():
        if name.endswith("mse"):
            assert again.manifest.metrics[name] == pytest.approx(value, rel=0.02)
    inputs = demo.golden_inputs
    want, got = (model.predict(inputs)["forecast"] for model in (demo, again))
    assert np.abs(got - want).max() < 0.25 * want.std()
    provenance = demo.manifest.provenance
    here = {name: libraries().get(name) for name in provenance["libraries"]}
    if (here, providers.processor()) == (provenance["libraries"], provenance["processor"]):
        first, second = artifact.read(DEMO).files, artifact.read(output / "artifact").files
        assert first["model.onnx"] == second["model.onnx"]
        assert first["golden.npz"] == second["golden.npz"]

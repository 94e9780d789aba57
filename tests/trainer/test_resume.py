"""kill -9 at any instant, then --resume: the same bytes as a run that nobody disturbed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from interrupted_run import contents, finish, instants, start

CONFIG = """
data: {name: synthetic, channels: 3, samples: 600}
training: {epochs: 3, batch_size: 32, device: cpu, threads: 1}
export: {golden_rows: 1}
model:
"""
GRU = "  {name: gru, hidden_size: 4}"
# Draws random numbers in every minibatch.
DROPOUT = "  {name: patchformer, width: 8, heads: 2, temporal_blocks: 1, dropout: 0.2}"
# Keeps more than the weights: their average, and files beside the checkpoint.
KEYS = (
    "ema: 0.9, schedule: cycles, cycles: 3, snapshots: true, accumulate: 2, "
    "augmentation: {noise: 0.1, gain: 0.1, shift: 0.1, channel_dropout: 0.2, mixup: 0.4}, epochs"
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(GRU, id="gru"),
        pytest.param(DROPOUT, id="dropout", marks=pytest.mark.slow),
        pytest.param("recipe", id="recipe", marks=pytest.mark.slow),
    ],
)
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "interrupted.yaml"
    if request.param == "recipe":
        path.write_text(CONFIG.replace("epochs", KEYS) + DROPOUT)
    else:
        path.write_text(CONFIG + request.param)
    return path


@pytest.fixture(scope="module")
def undisturbed(
    config: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], int, float]:
    """The run's files, the number of instants in it, its duration in seconds."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    count = instants(config, output)
    return contents(output), count, time.monotonic() - began


def resume_to_the_end(config: Path, output: Path, wanted: dict[str, bytes]) -> None:
    assert finish(start(config, output)) == 0
    found = contents(output)
    assert sorted(found) == sorted(wanted)
    for name, data in wanted.items():
        assert found[name] == data, name


def test_the_run_folder_is_complete(undisturbed: tuple[dict[str, bytes], int, float]) -> None:
    files, count, _ = undisturbed
    assert {"checkpoint.safetensors", "metrics.jsonl", "loss.png", "config.yaml"} <= set(files)
    assert {"artifact/manifest.json", "artifact/model.onnx", "artifact/golden.npz"} <= set(files)
    # 1 + 3 checkpoints, metrics, config, plots and artifact, and some 20 minibatches or 10 pairs.
    assert count > 70


def test_three_kills_in_one_run(
    config: Path, undisturbed: tuple[dict[str, bytes], int, float], tmp_path: Path
) -> None:
    files, count, _ = undisturbed
    draw = random.Random(1)
    for low, high in ((0.05, 0.4), (0.1, 0.3), (0.4, 0.9)):
        at = draw.randrange(int(low * count), int(high * count))
        assert finish(start(config, tmp_path / "run", kill_at=at)) == -signal.SIGKILL
    resume_to_the_end(config, tmp_path / "run", files)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_chains_of_kills_at_seeded_calls(
    seed: int, config: Path, undisturbed: tuple[dict[str, bytes], int, float], tmp_path: Path
) -> None:
    """Three kills each: 12 for each model."""
    files, count, _ = undisturbed
    draw = random.Random(seed)
    kills = [draw.randrange(count), draw.randrange(count // 2), draw.randrange(count // 4)]
    killed = 0
    for at in kills:
        killed += finish(start(config, tmp_path / "run", kill_at=at)) == -signal.SIGKILL
    assert killed > 0
    resume_to_the_end(config, tmp_path / "run", files)


@pytest.mark.slow
def test_kills_all_along_the_plots_and_the_export(
    config: Path, undisturbed: tuple[dict[str, bytes], int, float], tmp_path: Path
) -> None:
    """A finished run, resumed and killed at every third call until it comes through."""
    files, count, _ = undisturbed
    assert finish(start(config, tmp_path / "run", kill_at=count - 2)) == -signal.SIGKILL
    at = 0
    while finish(start(config, tmp_path / "run", kill_at=at)) == -signal.SIGKILL:
        at += 3
    assert at > 20
    resume_to_the_end(config, tmp_path / "run", files)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_kills_by_the_clock(
    seed: int, config: Path, undisturbed: tuple[dict[str, bytes], int, float], tmp_path: Path
) -> None:
    """Two kills each at moments that nobody chose."""
    files, _, seconds = undisturbed
    draw = random.Random(100 + seed)
    for _ in range(2):
        process = start(config, tmp_path / "run")
        time.sleep(draw.uniform(0.0, seconds))
        process.kill()
        assert finish(process) in (-signal.SIGKILL, 0)
    resume_to_the_end(config, tmp_path / "run", files)

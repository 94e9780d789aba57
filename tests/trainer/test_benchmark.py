"""Benchmarks end to end: run, resumed, compared, drawn, published, written as pages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer import benchmark_docs, benchmark_running, benchmark_scores, cli
from trainer.benchmark_config import jobs, load_benchmark
from trainer.config import ConfigError
from trainer.folder import CHECKPOINT

FORECAST = """
name: small
seeds: [0, 1]
reference: linear
data:
  one: {name: synthetic, channels: 4, samples: 1000, stride: {test: 2}}
training: {epochs: 1, device: cpu, threads: 1}
models:
  linear: {model: {name: linear}, seeds: [0]}
  last: {model: {name: persistence}, seeds: [0]}
  gru: {model: {name: gru, hidden_size: 3}}
goals:
  - {model: linear, below: last, percent: 1, interval: true}
  - {model: gru, below: linear, percent: 50}
ablations:
  reference: gru
  items: {wider: {model: {hidden_size: 4}}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small benchmark in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    path = Path("small.yaml")
    path.write_text(FORECAST)
    return path


def axonnx(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)


def report() -> dict:
    return json.loads(Path("runs/benchmarks/small/report.json").read_text())


@pytest.mark.slow
def test_a_benchmark_is_run_once_compared_drawn_and_published(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert axonnx("benchmark", config, "--docs") == 0
    said = capsys.readouterr().out
    assert "[6 of 6] one · gru/wider · seed 1" in said
    found = report()
    (rows,) = (one["rows"] for one in found["summary"]["data"].values())
    by_model = {row["model"]: row for row in rows}
    assert set(by_model) == {"linear", "last", "gru"}
    assert by_model["linear"]["paired"] is None
    assert by_model["last"]["paired"]["interval"][0] > 0
    assert by_model["gru"]["scores"]["mse"]["half_width"] > 0
    assert by_model["linear"]["skill"] == 0.0
    assert by_model["gru"]["latency_ms"] > 0
    # What is said of each run is what its artifact says of itself.
    place = Path("runs/benchmarks/small/runs/one/linear/seed-0/artifact/manifest.json")
    manifest = json.loads(place.read_text())
    expected = manifest["metrics"]["test_mse"]
    assert by_model["linear"]["scores"]["mse"]["mean"] == pytest.approx(expected, rel=1e-5)
    validation = by_model["linear"]["scores"]["mse"]["validation"]
    assert validation == pytest.approx(manifest["metrics"]["validation_mse"], rel=1e-5)
    goals = [row for row in found["rows"] if row["goal"]]
    assert [goal["met"] for goal in goals] == [True, False]
    keys = {"case", "metric", "unit", "value", "spread", "peer", "peer_value", "goal", "met"}
    assert all(keys | {"command"} <= set(row) for row in found["rows"])
    (item,) = found["summary"]["ablation"]
    assert item["item"] == "wider"
    assert item["validation"]["value"] is not None
    assert found["looks_at_test_parts"] == {
        "synthetic": {"runs": 4, "configs": 3, "earlier": 0, "total": 4}
    }
    assert found["distinct_sources"] == 1
    published = Path("benchmarks/results/small.json")
    assert json.loads(published.read_text()) == found
    for name in found["pictures"]:
        with Image.open(published.with_suffix("") / name) as picture:
            assert picture.width > 400
    pages = Path("docs/results.md").read_text(), Path("docs/models.md").read_text()
    assert "| linear |" in pages[0]
    assert "](../benchmarks/results/small/one-errors.png)" in pages[0]
    assert "## persistence" in pages[1]
    # Once more: nothing is trained or scored again, and the tables are the same.
    monkeypatch.setattr(benchmark_running, "train", None)
    assert axonnx("benchmark", config) == 0
    assert "finished before, scored before" in capsys.readouterr().out
    assert report() == found
    # A part of it is not published.
    published.unlink()
    assert axonnx("benchmark", config, "--only", "one/l*", "--seeds", 1) == 0
    assert not published.exists()
    assert {row["model"] for row in report()["summary"]["data"]["one"]["rows"]} == {
        "linear",
        "last",
    }


@pytest.mark.slow
def test_a_changed_config_trains_anew_and_counts_as_another_look(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("benchmark", config, "--only", "one/gru", "--seeds", 1)
    assert axonnx(*words) == 0
    before = report()
    config.write_text(FORECAST.replace("hidden_size: 3", "hidden_size: 5"))
    assert axonnx(*words) == 0
    after = report()
    rows = [one["summary"]["data"]["one"]["rows"][0] for one in (before, after)]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    assert after["looks_at_test_parts"] == {
        "synthetic": {"runs": 2, "configs": 2, "earlier": 0, "total": 2}
    }
    # Stopped before its artifact was whole: it goes on from the checkpoint.
    place = Path("runs/benchmarks/small/runs/one/gru/seed-0")
    saved = (place / CHECKPOINT).read_bytes()
    (place / "artifact/manifest.json").unlink()
    for file in (place / "artifact").iterdir():
        file.unlink()
    (place / "artifact").rmdir()
    assert axonnx(*words) == 0
    assert (place / CHECKPOINT).read_bytes() == saved
    again = report()
    assert again["summary"]["data"]["one"]["rows"][0]["scores"] == rows[1]["scores"]
    assert again["looks_at_test_parts"] == {
        "synthetic": {"runs": 3, "configs": 2, "earlier": 0, "total": 3}
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "model", "metric"),
    [
        ("{name: synthetic_decoding, trials: 120}", "{name: linear_readout}", "balanced_accuracy"),
    ],
)
def test_classes_are_compared_trial_by_trial(
    config: Path, data: str, model: str, metric: str
) -> None:
    text = FORECAST.split("models:")[0].replace(
        "{name: synthetic, channels: 4, samples: 1000, stride: {test: 2}}", data
    )
    config.write_text(
        text + f"models:\n  linear: {{model: {model}, seeds: [0]}}\n"
        "  shrunk: {model: {name: linear_readout, bins: 2}, seeds: [0]}\n"
    )
    assert axonnx("benchmark", config) == 0
    one = report()["summary"]["data"]["one"]
    assert one["metric"] == metric
    other = next(row for row in one["rows"] if row["model"] == "shrunk")
    assert other["paired"]["unit"] == "points"
    assert len(report()["pictures"]) == 4


def test_mistakes_are_told_before_anything_runs(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert axonnx("benchmark", config, "--only", "two/*") == 2
    assert "fits none of one/gru" in capsys.readouterr().err
    assert axonnx("benchmark") == 2
    assert axonnx("benchmark", config, "--seeds", 0) == 2
    assert not Path("runs").exists()


def test_what_is_kept_is_read_back(config: Path) -> None:
    from trainer.data import load_dataset

    loaded = load_benchmark(config)
    (job, *_) = jobs(loaded)
    dataset = load_dataset(job.values["data"])
    benchmark_scores.keep_data(dataset, "one", Path("scores"))
    kept = benchmark_scores.read(Path("scores/one/data"))
    np.testing.assert_array_equal(kept.arrays["test_starts"], dataset.test.starts)
    assert kept.facts["fingerprint"] == dataset.fingerprint
    assert benchmark_scores.read(Path("scores/none/data")) is None
    assert benchmark_scores.looks(Path("scores")) == []


def test_an_item_alone_brings_what_it_is_compared_with(config: Path) -> None:
    chosen = jobs(load_benchmark(config), "one/gru/wider", 1)
    assert [job.model for job in chosen] == ["gru", "gru/wider"]


def test_pages_are_not_replaced_where_there_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/other.json").write_text('{"benchmark": "other", "rows": []}')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results.md").write_text("figures")
    with pytest.raises(ConfigError, match="no results of axonnx benchmark"):
        benchmark_docs.write(tmp_path / "results", tmp_path / "docs")
    assert (tmp_path / "docs/results.md").read_text() == "figures"

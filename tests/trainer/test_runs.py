from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from trainer import runs
from trainer.folder import RunFolderError


def make(root: Path, name: str, *, errors: list[float], test: float | None, **model: Any) -> Path:
    """A run folder as training writes it, without weights; `test`: the artifact's metric."""
    folder = root / name
    folder.mkdir(parents=True)
    config = {
        "name": name,
        "seed": 0,
        "data": {"name": "synthetic"},
        "model": {"name": "gru", **model},
        "training": {"learning_rate": 1e-3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {"epoch": epoch, "step": 9 * epoch, "loss": 1.0 if epoch else None, "mse": error}
        for epoch, error in enumerate(errors)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if test is not None:
        (folder / "artifact").mkdir()
        metrics = {"epoch": 1, "validation_mse": min(errors), "test_mse": test}
        (folder / "artifact" / "manifest.json").write_text(json.dumps({"metrics": metrics}))
    return folder


def text(table: object) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return out.getvalue().splitlines()


def line(table: object, start: str) -> str:
    return next(row for row in text(table) if row.strip("│ ").startswith(start))


def test_list_shows_finished_and_unfinished_runs(tmp_path: Path) -> None:
    make(tmp_path, "b", errors=[0.9, 0.5, 0.7], test=0.6)
    make(tmp_path, "a", errors=[0.9], test=None)
    (tmp_path / "notes").mkdir()
    found = runs.folders(tmp_path)
    assert [path.name for path in found] == ["a", "b"]
    table = runs.list_table([runs.read(path) for path in found])
    assert line(table, "b").split() == [
        "b",
        "gru",
        "synthetic",
        "1",
        "of",
        "2",
        "mse",
        "0.5",
        "0.6",
    ]
    assert line(table, "a").split()[-3:] == ["0.9", "not", "yet"]


def test_a_run_that_was_killed_at_once_can_be_listed(tmp_path: Path) -> None:
    folder = make(tmp_path, "young", errors=[1.0], test=None)
    (folder / "metrics.jsonl").unlink()
    record = runs.read(folder)
    assert record.metric == ""
    assert line(runs.list_table([record]), "young")
    assert text(runs.show_table(record))
    with pytest.raises(RunFolderError, match="young: none yet"):
        runs.compare_plot([record], tmp_path / "x.png")


def test_show_marks_the_best_epoch(tmp_path: Path) -> None:
    record = runs.read(make(tmp_path, "run", errors=[0.9, 0.5, 0.7], test=0.6))
    marked = [row for row in text(runs.show_table(record)) if "best" in row]
    assert len(marked) == 1
    assert "0.5" in marked[0]


def test_compare_shows_metrics_and_only_the_settings_that_differ(tmp_path: Path) -> None:
    one = runs.read(make(tmp_path, "one", errors=[0.9, 0.5], test=0.6, hidden_size=4))
    two = runs.read(make(tmp_path, "two", errors=[0.9, 0.4], test=0.7, hidden_size=8))
    table = runs.compare_table([one, two])
    assert line(table, "test mse").strip("│ ").split("│")[1:] == [" 0.6 ", " 0.7"]
    assert "4" in line(table, "model.hidden_size")
    assert "8" in line(table, "model.hidden_size")
    for key in ("training.learning_rate", "model.name", "name"):
        assert not any(row.strip("│ ").startswith(key) for row in text(table))


def test_compare_plot_is_a_picture_and_repeats(tmp_path: Path) -> None:
    records = [
        runs.read(make(tmp_path, "one", errors=[0.9, 0.5], test=0.6)),
        runs.read(make(tmp_path, "floor", errors=[0.7], test=0.6)),
    ]
    for name in ("a.png", "b.png"):
        runs.compare_plot(records, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300


def test_runs_of_different_tasks_share_no_curve(tmp_path: Path) -> None:
    one = runs.read(make(tmp_path, "one", errors=[0.9], test=None))
    folder = make(tmp_path, "two", errors=[0.9], test=None)
    row = {"epoch": 0, "step": 0, "loss": None, "cross_entropy": 1.1}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RunFolderError, match="one: mse, two: cross_entropy"):
        runs.compare_plot([one, runs.read(folder)], tmp_path / "x.png")


def test_find_by_path_by_name_and_by_nobody(tmp_path: Path) -> None:
    folder = make(tmp_path / "runs", "goose_gru", errors=[1.0], test=None)
    assert runs.find("goose_gru", tmp_path / "runs") == folder
    assert runs.find(str(folder), tmp_path / "elsewhere") == folder
    with pytest.raises(RunFolderError) as caught:
        runs.find("goose_gro", tmp_path / "runs")
    assert "did you mean 'goose_gru'?" in str(caught.value)
    with pytest.raises(RunFolderError, match="none"):
        runs.find("x", tmp_path / "nowhere")


def test_an_artifact_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout holds demo/, an artifact with a config.yaml; a run may be called so too."""
    monkeypatch.chdir(tmp_path)
    for place in (Path("demo"), Path("runs/bare")):
        place.mkdir(parents=True)
        for name in ("config.yaml", "manifest.json"):
            (place / name).write_text("{}")
    with pytest.raises(RunFolderError, match="demo is no run folder: it is an artifact"):
        runs.find("demo", Path("runs"))
    run = make(Path("runs"), "demo", errors=[1.0], test=None)
    assert runs.find("demo", Path("runs")) == run
    assert runs.folders(Path("runs")) == [run]
    with pytest.raises(RunFolderError, match="it is an artifact"):
        runs.read(Path("demo"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.yaml", b"[1, 2]"),
        ("config.yaml", b"a: ["),
        ("metrics.jsonl", b"{"),
        ("metrics.jsonl", b'{"mse": "high", "epoch": 0}\n{"mse": 1, "epoch": 1}\n'),
        ("metrics.jsonl", b"\xff\n"),
    ],
)
def test_a_damaged_run_is_named(name: str, data: bytes, tmp_path: Path) -> None:
    folder = make(tmp_path, "run", errors=[1.0, math.pi], test=None)
    (folder / name).write_bytes(data)
    with pytest.raises(RunFolderError, match="run"):
        runs.read(folder)


def test_submissions_of_the_artifact_are_shown(tmp_path: Path) -> None:
    folder = make(tmp_path, "run", errors=[0.9], test=0.6)
    record = runs.read(folder)
    assert runs.submissions_table(record, tmp_path) is None
    identity = hashlib.sha256((folder / "artifact" / "manifest.json").read_bytes()).hexdigest()
    steps = [
        {"upload": "a", "artifacts": {"affi": identity}, "file": "s.zip"},
        {"upload": "b", "artifacts": {"affi": "0" * 64}, "file": "other.zip"},
        {"upload": "a", "submission": 77, "status": "Finished", "scores": {"total": "1.5"}},
    ]
    (tmp_path / "submissions").mkdir()
    lines = "".join(json.dumps(step) + "\n" for step in steps) + '{"upload": "c", "fil'
    (tmp_path / "submissions" / "records.jsonl").write_text(lines)
    table = runs.submissions_table(record, tmp_path)
    assert table is not None
    assert table.row_count == 1
    shown = line(table, "77")
    assert all(word in shown for word in ("s.zip", "Finished", "total 1.5"))

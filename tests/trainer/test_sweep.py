"""Sweeps: the same trials from the same seed, stopped and gone on with, the test part unseen."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from trainer import cli, sweep, sweep_report, sweep_study, sweep_trial
from trainer.config import RunConfig, load_config
from trainer.data import load_dataset
from trainer.folder import RunFolderError
from trainer.models import ModelError
from trainer.sweep_config import Plan, load_sweep
from trainer.training import TrainingError

RUN = """
data:
  name: array
  path: [one.npy]
  rate: 100.0
  window: 12
  observed: 6
  stride: {train: 6, validation: 6, test: 6}
model: {name: gru, hidden_size: 3}
training: {epochs: 2, batch_size: 64, device: cpu, threads: 1}
"""
SPACE = """
run: run.yaml
space:
  model.hidden_size: {low: 2, high: 5}
  training.learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
refit_best: false
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A short recording and a run in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    values = np.cumsum(np.random.default_rng(0).standard_normal((600, 2)), axis=0)
    np.save("one.npy", values.astype(np.float32))
    Path("run.yaml").write_text(RUN)
    sweep_trial._dataset.cache_clear()
    yield
    sweep_trial._dataset.cache_clear()


def plan_of(text: str = SPACE, **more: Any) -> Plan:
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in more.items())
    Path("mine.yaml").write_text(text + lines)
    return load_sweep(Path("mine.yaml"), [])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Trainings take no time and score the distance from a learning rate of 0.01."""
    trained: list[RunConfig] = []

    def train(config: RunConfig, place: Path, **options: Any) -> SimpleNamespace:
        trained.append(config)
        score = abs(np.log10(config.training.learning_rate) + 2)
        if (on_epoch := options.get("on_epoch")) is not None:
            for epoch in range(config.training.epochs + 1):
                on_epoch({"epoch": epoch, "mse": score + 1 / (epoch + 1)})
        return SimpleNamespace(metrics={"validation_mse": score, "test_mse": score})

    monkeypatch.setattr(sweep_trial, "train", train)
    monkeypatch.setattr(sweep_report, "draw", lambda report, destination: destination.touch())
    return trained


def scores(report: dict[str, Any]) -> list[Any]:
    return [(row["values"], row["score"]) for row in report["trials"]]


def test_the_same_seed_gives_the_same_trials(quick: list[RunConfig]) -> None:
    first = sweep.sweep(plan_of(trials=12), Path("first"))
    again = sweep.sweep(plan_of(trials=12), Path("again"))
    other = sweep.sweep(plan_of(trials=1, seed=1), Path("other"))
    assert Path("first/sweep.json").read_bytes() == Path("again/sweep.json").read_bytes()
    assert first == again
    assert scores(first)[:1] != scores(other)
    best = min(row["score"] for row in first["trials"] if row["score"] is not None)
    assert first["best"]["score"] == best
    written = load_config(Path("first/best.yaml"), [])
    assert written.training.learning_rate == first["best"]["values"]["training.learning_rate"]
    assert written.name == "mine-best"


def test_more_trials_go_on_and_no_more_do_nothing(
    quick: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.sweep(plan_of(trials=2), Path("out"))
    sweep.sweep(plan_of(trials=2), Path("out"), trials=5)
    times = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    before = len(quick)
    sweep.sweep(plan_of(trials=5), Path("out"))
    assert len(quick) == before == 5
    assert "5 trials are done already" in capsys.readouterr().out
    own = [path for path in times if "sweep.db" not in path.name]
    assert {path: path.stat().st_mtime_ns for path in own} == {path: times[path] for path in own}
    whole = sweep.sweep(plan_of(trials=5), Path("whole"))
    assert Path("out/sweep.json").read_bytes() == Path("whole/sweep.json").read_bytes()
    assert [row["trial"] for row in whole["trials"]] == [0, 1, 2, 3, 4]


def test_a_sweep_that_was_stopped_ends_as_one_that_was_not(
    quick: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(trials=13)
    sweep.sweep(plan, Path("whole"))
    train, calls = sweep_trial.train, []

    def stopped(config: RunConfig, place: Path, **options: Any) -> Any:
        calls.append(place.name)
        if len(calls) in (3, 12):
            raise KeyboardInterrupt
        return train(config, place, **options)

    monkeypatch.setattr(sweep_trial, "train", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep.sweep(plan, Path("out"))
    sweep.sweep(plan, Path("out"))
    assert calls[2] == calls[3] == "trial-2"  # the folder is gone on with
    assert Path("out/sweep.json").read_bytes() == Path("whole/sweep.json").read_bytes()


def test_a_trial_whose_process_is_gone_is_tried_again(quick: list[RunConfig]) -> None:
    plan = plan_of(trials=3)
    Path("out").mkdir()
    study = sweep_study.open_study(plan, sweep_study.database(None, Path("out")))
    sweep._check_same(study, plan, load_dataset(plan.base.data).fingerprint)
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = study.ask()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = sweep_study.worker().split()[0]
    trial.set_user_attr(sweep_study.WORKER, f"{host} {gone.pid}")
    values = sweep_study.suggest(plan, trial)
    report = sweep.sweep(plan, Path("out"))
    assert [row["trial"] for row in report["trials"]] == [0, 1, 2]
    assert report["trials"][0]["values"] == values
    assert sorted(t.state.name for t in study.get_trials()) == ["COMPLETE"] * 3 + ["FAIL"]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_commands_at_once_run_as_many_trials_as_one(
    sampler: str, quick: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each index is trained once, however many commands begin and have the same one in line."""
    text = SPACE.replace("{low: 1.0e-4, high: 1.0e-1, log: true}", "{choices: [0.01, 0.1]}")
    text = SPACE if sampler == "random" else text.replace("high: 5", "high: 4")
    plan = plan_of(text, trials=6, sampler=sampler)
    places, train = [], sweep_trial.train

    def slow(config: RunConfig, place: Path, **options: Any) -> Any:
        places.append(place.name)
        time.sleep(0.02)
        return train(config, place, **options)

    monkeypatch.setattr(sweep_trial, "train", slow)
    monkeypatch.setattr(sweep, "POLL", 0.05)
    with ThreadPoolExecutor(3) as commands:
        running = [commands.submit(sweep.sweep, plan, Path("out")) for _ in range(3)]
        reports = [one.result() for one in running]
    assert [row["trial"] for row in reports[0]["trials"]] == list(range(6))
    assert len(places) == len(set(places))
    assert {row["state"] for row in reports[0]["trials"]} == {"scored"}
    assert scores(reports[0]) == scores(sweep.sweep(plan, Path("alone")))


def test_a_trial_in_line_twice_goes_on_once(quick: list[RunConfig]) -> None:
    plan = plan_of(trials=2)
    Path("out").mkdir()
    url = sweep_study.database(None, Path("out"))
    study = sweep_study.open_study(plan, url)
    for _ in range(2):
        study.enqueue_trial({}, user_attrs={sweep_study.RETRIES: 0})
    study.enqueue_trial({}, user_attrs={sweep_study.RETRIES: 7})
    report = sweep.sweep(plan, Path("out"))
    assert [row["trial"] for row in report["trials"]] == [0, 1]
    assert len(quick) == 2
    # Those that were one too many are begun when more are wanted.
    report = sweep.sweep(plan, Path("out"), trials=9)
    assert [row["trial"] for row in report["trials"]] == list(range(9))


@pytest.mark.parametrize("objective", ["validation", "inner_folds"])
def test_the_test_part_is_not_looked_at(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real trainings: whatever is asked of the test part, beyond its being there, fails."""

    class Unseen:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"the test part was asked for its {name}")

    def load(data: Any) -> Any:
        return replace(load_dataset(data), test=Unseen())

    monkeypatch.setattr(sweep, "load_dataset", load)
    monkeypatch.setattr(sweep_trial, "load_dataset", load)
    plan = plan_of(trials=2, objective=objective, folds=2)
    report = sweep.sweep(plan, Path("out"))
    assert [row["state"] for row in report["trials"]] == ["scored", "scored"]
    assert report["scored_on_test"] == []


def test_a_config_is_trained_once(quick: list[RunConfig]) -> None:
    text = SPACE[: SPACE.index("  training")].replace("high: 5", "high: 3")
    report = sweep.sweep(plan_of(text, trials=6, sampler="random", refit_best=False), Path("out"))
    assert sorted(config.model["hidden_size"] for config in quick) == [2, 3]
    copies = [row for row in report["trials"] if row["same_as"] is not None]
    assert len(copies) == 4
    for row in copies:
        assert row["values"] == report["trials"][row["same_as"]]["values"]
        assert row["score"] == report["trials"][row["same_as"]]["score"]


def test_a_grid_takes_every_point_in_order(quick: list[RunConfig]) -> None:
    text = (
        "run: run.yaml\nsampler: grid\nrefit_best: false\nspace:\n"
        "  seed: {choices: [5, 3]}\n  model.hidden_size: {low: 2, high: 4}\n"
    )
    report = sweep.sweep(plan_of(text), Path("out"))
    found = [tuple(row["values"].values()) for row in report["trials"]]
    assert found == [(seed, size) for seed in (5, 3) for size in (2, 3, 4)]


def test_what_is_worse_than_the_median_is_pruned(quick: list[RunConfig]) -> None:
    text = SPACE.replace("run: run.yaml", "run: run.yaml\nsampler: random")
    Path("run.yaml").write_text(RUN.replace("epochs: 2", "epochs: 4"))
    report = sweep.sweep(plan_of(text, trials=12), Path("out"))
    pruned = [row for row in report["trials"] if row["state"] == "pruned"]
    assert pruned
    assert all(2 <= len(row["reported"]) < 4 for row in pruned)
    first = pruned[0]["trial"] + 1
    kept = sweep.sweep(plan_of(text, trials=first, pruner="none"), Path("all"))
    assert {row["state"] for row in kept["trials"]} == {"scored"}


def test_impossible_values_fail_alone(
    quick: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = sweep_trial.train

    def picky(config: RunConfig, place: Path, **options: Any) -> Any:
        if config.model["hidden_size"] == 2:
            raise ModelError("two are too few")
        return train(config, place, **options)

    monkeypatch.setattr(sweep_trial, "train", picky)
    report = sweep.sweep(plan_of(trials=8, sampler="random"), Path("out"))
    failed = [row for row in report["trials"] if row["state"] == "failed"]
    assert {row["values"]["model.hidden_size"] for row in failed} == {2}
    assert {row["reason"] for row in failed} == {"two are too few"}
    assert report["best"]["score"] is not None
    sweep_report.table(report)
    text = SPACE.replace("high: 5", "high: 3").replace("low: 2, high: 3", "choices: [2]")
    with pytest.raises(TrainingError, match="no trial of 2 could be scored; the first: two are"):
        sweep.sweep(plan_of(text, trials=2), Path("none"))


def test_another_sweep_is_not_gone_on_with(quick: list[RunConfig]) -> None:
    sweep.sweep(plan_of(trials=1), Path("out"))
    with pytest.raises(RunFolderError, match=r"sampler: 'tpe', now 'random'"):
        sweep.sweep(plan_of(trials=1, sampler="random"), Path("out"))
    np.save("one.npy", np.load("one.npy") + 1)
    with pytest.raises(RunFolderError, match="the data changed since this sweep began"):
        sweep.sweep(plan_of(trials=1), Path("out"))
    Path("out/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"notes\.txt, which is no sweep's"):
        sweep.sweep(plan_of(trials=1), Path("out"))


def test_a_run_that_cannot_be_is_told_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("mine.yaml").write_text(SPACE)
    assert cli.main(["sweep", "mine.yaml", "--data.window", "900", "--output", "out"]) == 2
    assert "one window needs 900" in capsys.readouterr().err
    assert not Path("out").exists()
    with pytest.raises(SystemExit):
        cli.main(["sweep", "mine.yaml", "--ray", "head:6379"])
    assert "needs --storage" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["sweep", "mine.yaml", "--workers", "0"])
    assert "0: must be 1 or more" in capsys.readouterr().err


def test_pictures_of_few_and_of_far_scores(tmp_path: Path) -> None:
    space = {
        "model.a": {"low": 1, "high": 4, "log": False},
        "model.b": {"low": 0.1, "high": 1.0, "log": True},
        "model.c": {"choices": [None, "x"]},
    }

    def row(trial: int, score: float | None) -> dict[str, Any]:
        values = {"model.a": 1 + trial % 4, "model.b": 0.1 * (trial + 1), "model.c": None}
        state = "pruned" if score is None else "scored"
        more = {"reported": [2.0], "same_as": None, "reason": None, "values": values}
        return {"trial": trial, "state": state, "score": score, **more}

    for number, found in enumerate([[1.0], [1.0, 1.0], [1.0, 1.1, 1.2, None, 90.0]]):
        rows = [row(trial, score) for trial, score in enumerate(found)]
        report = {
            "name": "few",
            "objective": "inner_folds",
            "metric": "mse",
            "folds": 3,
            "space": space,
            "best": rows[0],
            "importance": {"model.b": 0.9, "model.a": 0.1} if number else {},
            "trials": rows,
        }
        drawn = sweep_report.draw(report, tmp_path / f"{number}.png").read_bytes()
        assert drawn[:4] == b"\x89PNG"
        assert sweep_report.table(report).row_count == len(rows) + bool(number)


@pytest.mark.slow
def test_the_best_config_is_trained_to_the_same_artifact(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By real trainings and the command: refit, same bytes, best.yaml as `train` takes it."""
    plan_of(SPACE.replace("refit_best: false\n", ""), trials=3)
    for output in ("first", "again"):
        assert cli.main(["sweep", "mine.yaml", "--seed", "4", "--output", output]) == 0
    assert "3 of 3 trials; trial " in capsys.readouterr().out
    for name in ("sweep.json", "sweep.png", "best.yaml", "best/artifact/manifest.json"):
        assert Path("first", name).read_bytes() == Path("again", name).read_bytes()
    report = json.loads(Path("first/sweep.json").read_bytes())
    assert report["scored_on_test"] == [report["best"]["trial"]]
    assert cli.main(["train", "first/best.yaml", "--output", "alone"]) == 0
    trained = Path("alone/artifact/manifest.json").read_bytes()
    assert trained == Path("first/best/artifact/manifest.json").read_bytes()


@pytest.mark.slow
def test_several_processes_share_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    plan_of(trials=4)
    assert cli.main(["sweep", "mine.yaml", "--workers", "2", "--output", "out"]) == 0
    assert "4 of 4 trials" in capsys.readouterr().out
    report = json.loads(Path("out/sweep.json").read_bytes())
    assert [row["state"] for row in report["trials"]] == ["scored"] * 4
    study = optuna.load_study(study_name="mine", storage="sqlite:///out/sweep.db")
    assert len({trial.user_attrs[sweep_study.WORKER] for trial in study.trials}) <= 2

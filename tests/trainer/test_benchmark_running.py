"""A benchmark's runs: when scores hold, when a run goes on, what it cost, who may work on them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trainer import benchmark_running as running
from trainer import benchmark_scores as scores
from trainer import blending, folder
from trainer.benchmark_config import Job
from trainer.folder import RunFolderError

DATA = {"name": "synthetic", "channels": 3, "samples": 400}
TRAINING = {"epochs": 1, "device": "cpu", "threads": 1}


def job(label: str, model: dict[str, Any], seed: int = 0, members: tuple[Job, ...] = ()) -> Job:
    values = {"name": f"{label}-{seed}", "seed": seed, "data": DATA, "model": model}
    return Job("one", label, seed, {**values, "training": TRAINING}, members)


LAST = job("last", {"name": "persistence"})
AR = job("ar", {"name": "ar"})
GRU = job("gru", {"name": "gru", "hidden_size": 2})
BOTH = job("both", {"weights": "out_of_fold", "folds": 2}, members=(LAST, GRU))


def run(output: Path, *jobs: Job) -> str:
    """Run the jobs; what was said."""
    said = io.StringIO()
    running.run(jobs, output, Console(file=said, width=200))
    return said.getvalue()


def facts(output: Path, of: Job) -> dict[str, Any]:
    found = scores.read_facts(output / running.SCORES / of.place)
    assert found is not None
    return found


def rewrite(output: Path, of: Job, **changes: Any) -> None:
    path = output / running.SCORES / of.place.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.slow
def test_scores_hold_for_the_artifact_config_and_data_that_are_there(tmp_path: Path) -> None:
    run(tmp_path, LAST)
    first = facts(tmp_path, LAST)
    assert first["training_cpu_s"] == first["own_training_cpu_s"] > 0
    assert "finished before, scored before" in run(tmp_path, LAST)
    assert len(scores.looks(tmp_path / running.SCORES)) == 1
    for number, key in enumerate(("fingerprint", "config_sha256", "artifact"), start=2):
        rewrite(tmp_path, LAST, **{key: "0" * 64})
        said = run(tmp_path, LAST)
        # The run is that of the job and is not trained again; its scores were another's.
        assert "scored before" not in said
        assert "exporting" not in said
        again = facts(tmp_path, LAST)
        assert again[key] == first[key]
        assert (again["training_cpu_s"] is None) == (key == "artifact")
        assert len(scores.looks(tmp_path / running.SCORES)) == number
    # Another data set of the same label: trained and scored anew.
    other = replace(LAST, values={**LAST.values, "data": {**DATA, "samples": 420}})
    assert "exporting" in run(tmp_path, other)
    assert facts(tmp_path, LAST)["fingerprint"] != first["fingerprint"]


@pytest.mark.slow
def test_a_stopped_ensemble_goes_on_and_costs_what_its_members_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = (LAST, GRU, BOTH)
    with monkeypatch.context() as patched:
        patched.setattr(blending, "together", lambda parts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, *jobs)
    place = tmp_path / running.RUNS / BOTH.place
    assert not (place / folder.CHECKPOINT).exists()
    folds = {path: path.stat().st_mtime_ns for path in place.rglob(folder.CHECKPOINT)}
    assert len(folds) == 2  # those of the first fold
    run(tmp_path, *jobs)
    assert {path: path.stat().st_mtime_ns for path in folds} == folds
    both, members = facts(tmp_path, BOTH), [facts(tmp_path, each) for each in (LAST, GRU)]
    assert both["members"] == [one["artifact"] for one in members]
    assert both["resumed"] is True
    cost = both["own_training_cpu_s"] + sum(one["training_cpu_s"] for one in members)
    assert both["training_cpu_s"] == pytest.approx(cost)
    assert run(tmp_path, *jobs).count("scored before") == 3
    # A member that is exported and not scored is scored; the ensemble is still of it.
    for suffix in (".json", ".npz"):
        (tmp_path / running.SCORES / GRU.place.with_suffix(suffix)).unlink()
    assert run(tmp_path, *jobs).count("scored before") == 2
    # Another member makes it another ensemble, whose folds start anew.
    wider = replace(GRU, values={**GRU.values, "model": {"name": "gru", "hidden_size": 3}})
    run(tmp_path, LAST, wider, replace(BOTH, members=(LAST, wider)))
    assert facts(tmp_path, BOTH)["members"] != both["members"]
    assert all(path.stat().st_mtime_ns != before for path, before in folds.items())


def test_the_cost_of_members_counts_once_and_is_unknown_where_one_is(tmp_path: Path) -> None:
    own = {"own_training_cpu_s": 1.0, "resumed": False}
    twice = replace(BOTH, members=(LAST, AR, LAST))
    for each, cost in ((LAST, 2.0), (AR, 4.0)):
        known = {"training_cpu_s": cost, "resumed": False}
        scores._write(tmp_path / running.SCORES / each.place, {}, known)
    assert running._with_members(own, twice, tmp_path)["training_cpu_s"] == 7.0
    assert running._with_members(own, LAST, tmp_path)["training_cpu_s"] == 1.0
    rewrite(tmp_path, AR, training_cpu_s=None, resumed=True)
    found = running._with_members(own, twice, tmp_path)
    assert (found["training_cpu_s"], found["resumed"]) == (None, True)


def test_a_data_set_is_one_commands_at_a_time(tmp_path: Path) -> None:
    with running._alone(["one"], tmp_path):
        with pytest.raises(RunFolderError, match="another benchmark command is at one; wait"):
            run(tmp_path, LAST)
        with running._alone(["two"], tmp_path):
            pass
    with running._alone(["one", "two"], tmp_path):
        pass


def test_configs_are_told_apart_by_what_they_do_and_not_by_seed_or_name() -> None:
    digest = running._settings_digest
    assert digest(GRU) == digest(job("other", {"name": "gru", "hidden_size": 2}, seed=7))
    assert digest(GRU) != digest(job("gru", {"name": "gru", "hidden_size": 3}))
    again = job("gru", {"name": "gru", "hidden_size": 2}, seed=1)
    assert digest(BOTH) == digest(replace(BOTH, seed=1, members=(LAST, again)))
    assert digest(BOTH) != digest(replace(BOTH, members=(LAST, AR)))


def test_looks_are_counted_by_data_over_labels_with_those_from_before(tmp_path: Path) -> None:
    lines = [
        {"data": "goose", "place": "slow/a/seed-0", "config": "x", "artifact": "1"},
        {"data": "goose", "place": "fast/a/seed-0", "config": "y", "artifact": "2"},
        {"data": "goose", "place": "fast/a/seed-1", "config": "y", "artifact": "3"},
        {"place": "eeg/a/seed-0", "config": "z", "artifact": "4"},
    ]
    (tmp_path / scores.LOOKS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = {"slow": "goose", "fast": "goose", "eeg": "eye"}
    counted = scores.count_looks(tmp_path, names, {"goose": 11})
    assert counted == {
        "goose": {"runs": 3, "configs": 2, "earlier": 11, "total": 14},
        "eye": {"runs": 1, "configs": 1, "earlier": 0, "total": 1},
    }
    before = {
        "goose": {"runs": 9, "configs": 1, "earlier": 4, "total": 13},
        "gone": {"runs": 1, "configs": 1, "earlier": 0, "total": 1},
    }
    assert scores.at_least(counted, before) == {
        "goose": {"runs": 9, "configs": 2, "earlier": 11, "total": 20},
        "eye": counted["eye"],
        "gone": before["gone"],
    }

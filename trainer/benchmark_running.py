"""The runs of a benchmark, one after the other: trained, exported and scored once, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from artifact.manifest import config_digest
from trainer import benchmark_scores as scores
from trainer import checkpoint, folder
from trainer.benchmark_config import Job
from trainer.checkpoint import CheckpointError
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.data.windows import Dataset
from trainer.ensembles import train
from trainer.pipeline import finish

RUNS, SCORES = "runs", "scores"


def run(jobs: Sequence[Job], output: Path, console: Console) -> None:
    """Train and score what is not there yet: `output`/runs and `output`/scores.

    A finished run of the same config and data is not trained again, one that was stopped goes on,
    one of another config starts anew. What stops one run stops all; what was done is kept.
    """
    left = list(jobs)
    label, dataset = None, None
    started = time.monotonic()
    for number, job in enumerate(jobs, start=1):
        if job.data != label:
            label, dataset = job.data, load_dataset(job.values["data"])
            scores.keep_data(dataset, label, output / SCORES)
        assert dataset is not None
        title = f"[{number} of {len(jobs)}] {job.data} · {job.model} · seed {job.seed}"
        console.print(title + _time_left(left, output, time.monotonic() - started))
        _one(job, dataset, output, console)
        left.remove(job)


def _one(job: Job, dataset: Dataset, output: Path, console: Console) -> None:
    """One run: what is finished is left alone."""
    config = job.config(output / RUNS)
    place = output / RUNS / job.place
    members = _members(job, output)
    before = scores.read(output / SCORES / job.place)
    complete = (place / folder.ARTIFACT / folder.MANIFEST).is_file()
    same = _same(place, config, dataset)
    if before is not None and before.facts["members"] != members:
        same = complete = False  # other members make it another ensemble, whatever its config says
    facts: dict[str, Any] = {}  # scores that are kept may be of an earlier config's run
    if not (same and complete):
        trained = _train(config, place, dataset, console, resume=same)
        facts = {"config": config.resolved(), "members": members, **trained}
    elif before is not None and before.facts["config_sha256"] == config_digest(config.resolved()):
        console.print("  finished before, scored before")
        return
    facts.setdefault("config", config.resolved())
    facts.setdefault("members", members)
    for unknown in (
        "training_cpu_s",
        "wall_s",
        "resumed",
        "epochs",
    ):  # of a run that was not scored in time
        facts.setdefault(unknown, None)
    facts |= {"data": job.data, "label": job.model, "seed": job.seed}
    facts["config_sha256"] = config_digest(config.resolved())
    scores.keep_run(dataset, job.place, place, output / SCORES, facts)


def _train(
    config: RunConfig, place: Path, dataset: Dataset, console: Console, *, resume: bool
) -> dict[str, Any]:
    """Train and export; what it cost. The seconds of a resumed run are those since it went on."""
    wall, cpu = time.monotonic(), time.process_time()
    there = place.exists()
    run = train(
        config,
        place,
        resume=resume,
        overwrite=there and not resume,
        console=console,
        dataset=dataset,
    )
    spent = time.process_time() - cpu
    finish(run, console)
    return {
        "training_cpu_s": spent,
        "wall_s": time.monotonic() - wall,
        "resumed": resume,
        "epochs": run.history[-1]["epoch"] if run.history else 0,
        "best_epoch": run.metrics.get("epoch"),
    }


def _same(place: Path, config: RunConfig, dataset: Dataset) -> bool:
    """Whether the checkpoint in `place` is of this config and these data."""
    if not (place / folder.CHECKPOINT).is_file():
        return False
    try:
        saved = checkpoint.load(place / folder.CHECKPOINT)
    except CheckpointError:
        return False
    told = _told(saved.config) == _told(config.resolved())
    return told and saved.data_fingerprint == dataset.fingerprint


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without what training fills in: what an ensemble's members were."""
    model = {key: value for key, value in values["model"].items() if key != "trained"}
    return {**values, "model": model}


def _members(job: Job, output: Path) -> list[str]:
    """The ids of the artifacts that an ensemble joins."""
    found = (scores.read_facts(output / SCORES / member.place) for member in job.members)
    return [facts["artifact"] for facts in found if facts is not None]


def _time_left(left: Sequence[Job], output: Path, elapsed: float) -> str:
    """What the runs that are left may take, by what others of their model took."""
    todo = [job for job in left if scores.read_facts(output / SCORES / job.place) is None]
    known: dict[tuple[str, str], float] = {}
    for path in sorted((output / SCORES).glob("*/**/seed-*.json")):
        facts = json.loads(path.read_text())
        if facts["wall_s"] is not None:
            known[facts["data"], facts["label"]] = facts["wall_s"]
    if not known or not todo:
        return f"  ({elapsed:.0f} s so far)"
    mean = sum(known.values()) / len(known)
    models: dict[str, float] = {model: wall for (_, model), wall in known.items()}
    rest = sum(known.get((j.data, j.model), models.get(j.model, mean)) for j in todo)
    return f"  ({elapsed:.0f} s so far, about {rest:.0f} s left)"

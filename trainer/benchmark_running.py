"""The runs of a benchmark, one after the other: trained, exported and scored once, resumable."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from artifact import bundle
from artifact.manifest import config_digest
from trainer import benchmark_scores as scores
from trainer import checkpoint, folder
from trainer.benchmark_config import Job
from trainer.checkpoint import CheckpointError
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data import load_dataset
from trainer.data.windows import Dataset
from trainer.ensembles import train
from trainer.folder import RunFolderError
from trainer.pipeline import finish

RUNS, SCORES = "runs", "scores"
# What a run cost; null where it was not scored in the command that trained it.
COSTS = ("training_cpu_s", "own_training_cpu_s", "wall_s", "resumed", "epochs")


def run(jobs: Sequence[Job], output: Path, console: Console) -> None:
    """Train and score what is not there yet: `output`/runs and `output`/scores.

    A finished run of the same config, data and members is not trained again, one that was stopped
    goes on, any other starts anew; scores are kept while they are those of the artifact that is
    there. What stops one run stops all; what was done is kept. Raises RunFolderError where another
    command is at one of the data sets in `output`.
    """
    left = list(jobs)
    label, dataset = None, None
    started = time.monotonic()
    with _alone(list(dict.fromkeys(job.data for job in jobs)), output):
        for number, job in enumerate(jobs, start=1):
            if job.data != label:
                label, dataset = job.data, load_dataset(job.values["data"])
                scores.keep_data(dataset, label, output / SCORES)
            assert dataset is not None
            title = f"[{number} of {len(jobs)}] {job.data} · {job.model} · seed {job.seed}"
            console.print(title + _time_left(left, output, time.monotonic() - started))
            _one(job, dataset, output, console)
            left.remove(job)


@contextmanager
def _alone(labels: Sequence[str], output: Path) -> Iterator[None]:
    """Hold these data sets of `output` for one command; the system lets go of a killed one's."""
    import fcntl

    with ExitStack() as held:
        for label in labels:
            path = output / SCORES / label / ".lock"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunFolderError(
                    f"{output}: another benchmark command is at {label}; wait for it, choose other "
                    "data sets with --only, or another --output"
                ) from None
        yield


def _one(job: Job, dataset: Dataset, output: Path, console: Console) -> None:
    """One run: what is finished is left alone."""
    config, place = job.config(output / RUNS), output / RUNS / job.place
    before = scores.read(output / SCORES / job.place)
    same = _same(job, config, dataset, output)
    if same and (place / folder.ARTIFACT).is_dir():
        facts = _facts(job, config, dataset, output)
        if before is not None and all(before.facts.get(key) == facts[key] for key in facts):
            console.print("  finished before, scored before")
            return
        of_it = before is not None and before.facts["artifact"] == facts["artifact"]
        costs = {key: before.facts.get(key) if before and of_it else None for key in COSTS}
    else:
        costs = _with_members(_train(config, place, dataset, console, resume=same), job, output)
        facts = _facts(job, config, dataset, output)
    own = {"label": job.model, "seed": job.seed, "settings_sha256": _settings_digest(job)}
    kept = {**facts, **costs, **own, "data": job.data, "config": config.resolved()}
    scores.keep_run(dataset, job.place, place, output / SCORES, kept, job.parts)


def _facts(job: Job, config: RunConfig, dataset: Dataset, output: Path) -> dict[str, Any]:
    """What kept scores must be of to hold for the run that is there."""
    return {
        "config_sha256": config_digest(config.resolved()),
        "fingerprint": dataset.fingerprint,
        "artifact": _artifact(job, output),
        "members": [_artifact(member, output) for member in job.members],
    }


def _artifact(job: Job, output: Path) -> str:
    return bundle.read(output / RUNS / job.place / folder.ARTIFACT).id


def _train(
    config: RunConfig, place: Path, dataset: Dataset, console: Console, *, resume: bool
) -> dict[str, Any]:
    """Train and export; what it cost. The seconds of a resumed run are those since it went on."""
    wall, cpu = time.monotonic(), time.process_time()
    run = train(
        config,
        place,
        resume=resume,
        overwrite=place.exists() and not resume,
        console=console,
        dataset=dataset,
    )
    spent = time.process_time() - cpu
    finish(run, console)
    return {
        "own_training_cpu_s": spent,
        "wall_s": time.monotonic() - wall,
        "resumed": resume,
        "epochs": run.history[-1]["epoch"] if run.history else 0,
    }


def _with_members(costs: Mapping[str, Any], job: Job, output: Path) -> dict[str, Any]:
    """Costs with `training_cpu_s`, which holds what the members took too, each counted once.

    It is null where that of a member is not known, and too small where one was `resumed`.
    """
    places = dict.fromkeys(member.place for member in job.members)
    members = [scores.read_facts(output / SCORES / place) or {} for place in places]
    spent = [costs["own_training_cpu_s"], *(facts.get("training_cpu_s") for facts in members)]
    known = [seconds for seconds in spent if seconds is not None]
    return {
        **costs,
        "training_cpu_s": sum(known) if len(known) == len(spent) else None,
        "resumed": costs["resumed"] or any(facts.get("resumed") for facts in members),
    }


def _same(job: Job, config: RunConfig, dataset: Dataset, output: Path) -> bool:
    """Whether what lies in the run's folder is of this config, these data and these members.

    An ensemble has no checkpoint before the folds of all its members are done; until then its
    config.yaml tells. That the data are the same its members' checkpoints tell then.
    """
    place = output / RUNS / job.place
    try:
        if (place / folder.CHECKPOINT).is_file():
            saved = checkpoint.load(place / folder.CHECKPOINT)
            values, fingerprint = saved.config, saved.data_fingerprint
        elif (place / folder.FOLDS).is_dir():
            values = load_config(place / folder.CONFIG, []).resolved()
            fingerprint = dataset.fingerprint
        else:
            return False
    except (CheckpointError, ConfigError):
        return False
    of_members = [member["checkpoint"] for member in values["model"].get("trained", [])]
    return (
        _told(values) == _told(config.resolved())
        and fingerprint == dataset.fingerprint
        and of_members == [_checkpoint_digest(member, output) for member in job.members]
    )


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without what training fills in: what an ensemble's members were."""
    model = {key: value for key, value in values["model"].items() if key != "trained"}
    return {**values, "model": model}


def _checkpoint_digest(job: Job, output: Path) -> str:
    """What an ensemble's config says of a member that it was made of."""
    path = output / RUNS / job.place / folder.CHECKPOINT
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _settings_digest(job: Job) -> str:
    """Of what makes one config of many seeds: no names, no folders."""
    values = {key: value for key, value in job.values.items() if key not in ("name", "seed")}
    return config_digest({**values, "members": [_settings_digest(each) for each in job.members]})


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

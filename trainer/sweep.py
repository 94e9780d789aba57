"""`axonnx sweep SWEEP`: train a run with many settings, keep the one that does best.

What is chosen by is the validation part or inner folds of the train part; the test part is scored
once, by the best config, when all is chosen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from rich.console import Console

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from trainer import folder, sweep_ray, sweep_report, sweep_study, training
from trainer.config import RunConfig, load_config
from trainer.data import load_dataset
from trainer.folder import RunFolderError
from trainer.pipeline import train_and_export
from trainer.progress import plain_console
from trainer.sweep_config import Plan, load_sweep
from trainer.sweep_report import SweepProgress
from trainer.sweep_trial import run_next, run_one, without_test
from trainer.trained import differences
from trainer.training import TrainingError

RUNS = Path("runs")
REPORT, PICTURE, BEST_CONFIG, BEST = "sweep.json", "sweep.png", "best.yaml", "best"
OWN = re.compile(r"sweep\.(json|png|db.*)|best|best\.yaml|trial-\d+|.*\.tmp-.*")
LOCK = f"{sweep_study.DATABASE}.lock"
POLL = 5  # seconds between looks at trials that run elsewhere


def run(argv: list[str], overrides: Sequence[tuple[str, str]] = ()) -> int:
    """The command; `overrides` are `("section.key", "value")` of the run that is varied.

    Raises ConfigError, DataError, RunFolderError and what training raises.
    """
    parser = argparse.ArgumentParser(
        prog="axonnx sweep",
        description="Train a run with many settings and keep the one with the best held-out "
        "metric. What is done is kept: the same command goes on where it was stopped, with more "
        "--trials after its end too. Any key of the run can be overridden, as for `axonnx train`.",
        epilog="example: axonnx sweep configs/sweeps/scp1.yaml --trials 30 --workers 2",
        allow_abbrev=False,
        usage="axonnx sweep SWEEP [--section.key value …] [--trials N] [--workers N] "
        "[--storage URL|VARIABLE] [--ray ADDRESS|local] [--output DIR]",
    )
    parser.add_argument("sweep", metavar="SWEEP", type=Path, help="YAML file of the sweep")
    parser.add_argument("--trials", metavar="N", type=_count, help="default: as the file says")
    parser.add_argument(
        "--workers", metavar="N", type=_count, default=1, help="processes here (default: 1)"
    )
    parser.add_argument(
        "--storage",
        metavar="URL|VARIABLE",
        help="the database that machines share, or the environment variable that holds its URL "
        "(default: sweep.db in the output folder)",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS|local", help="run trials as tasks of Ray, of --workers here"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/<sweep name>")
    options = parser.parse_args(argv)
    if options.ray not in (None, sweep_ray.LOCAL) and options.storage is None:
        parser.error("--ray ADDRESS: needs --storage, a database that all its machines reach")
    plan = load_sweep(options.sweep, list(overrides))
    output = options.output or RUNS / plan.settings.name
    console = plain_console()
    report = sweep(
        plan,
        output,
        trials=options.trials,
        workers=options.workers,
        storage=options.storage,
        ray=options.ray,
        console=console,
    )
    console.print(sweep_report.table(report))
    for name in (REPORT, PICTURE, BEST_CONFIG):
        console.print(f"  {output / name}", soft_wrap=True)
    if (output / BEST / folder.ARTIFACT).is_dir():
        console.print(f"  {output / BEST / folder.ARTIFACT}", soft_wrap=True)
    return 0


def sweep(
    plan: Plan,
    output: Path,
    *,
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    ray: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run what is left of a sweep in `output`; write and return what sweep.json holds.

    Raises ConfigError, RunFolderError for a folder or a study of something else, ModelError or
    DataError where the run itself cannot be, TrainingError where no trial could be scored.
    """
    console = console or plain_console()
    base = plan.base
    _check_output(output)
    dataset = load_dataset(base.data)
    training.build(base, without_test(dataset))
    url = sweep_study.database(storage, output)
    output.mkdir(parents=True, exist_ok=True)
    study = sweep_study.open_study(plan, url)
    _check_same(study, plan, dataset.fingerprint)
    wanted = plan.trials(trials)
    _run_all(study, plan, output, url, wanted, workers, ray, console)
    if sweep_study.best(study) is None:
        reasons = [t.user_attrs.get(sweep_study.ERROR) for t in study.get_trials(deepcopy=False)]
        first = next((reason for reason in reasons if reason), "all were pruned")
        raise TrainingError(f"no trial of {wanted} could be scored; the first: {first}")
    with FileLock(output / LOCK):  # commands that shared the trials end at once
        best = best_config(plan, study)
        _write(output / BEST_CONFIG, best.to_yaml().encode())
        if plan.settings.refit_best:
            _refit(study, best, output / BEST, console)
        report = sweep_report.found(plan, study, folder.HELD_OUT[dataset.task])
        if _write(output / REPORT, canonical_json(report)) or not (output / PICTURE).exists():
            sweep_report.draw(report, output / PICTURE)
    return report


def best_config(plan: Plan, study: optuna.Study) -> RunConfig:
    """The config of the best trial, named after the sweep."""
    winner = sweep_study.best(study)
    assert winner is not None
    config = plan.config(sweep_study.chosen(plan, winner[1]))
    return config.model_copy(update={"name": f"{plan.settings.name}-best"})


def _run_all(
    study: optuna.Study,
    plan: Plan,
    output: Path,
    url: str,
    wanted: int,
    workers: int,
    ray: str | None,
    console: Console,
) -> None:
    """Run trials until `wanted` are done, those of other processes and machines included."""
    elsewhere, done = sweep_study.recover(study, wanted), sweep_study.done(study, wanted)
    if done >= wanted and not elsewhere:
        console.print(f"{done} trials are done already; --trials N asks for more", soft_wrap=True)
        return
    told = False
    with SweepProgress(console, plan, done, wanted) as progress:
        while done < wanted or elsewhere:
            left = sweep_study.left(study, wanted)
            if left <= 0:
                if not told:
                    console.print(
                        f"waiting for {elsewhere} trial(s) that run elsewhere, or were killed "
                        f"less than {sweep_study.GRACE} s ago",
                        soft_wrap=True,
                    )
                told = True
                time.sleep(POLL)
            for _ in _trials(study, plan, output, url, left, wanted, workers, ray, progress):
                progress.update(study)
            elsewhere, done = sweep_study.recover(study, wanted), sweep_study.done(study, wanted)


def _trials(
    study: optuna.Study,
    plan: Plan,
    output: Path,
    url: str,
    count: int,
    wanted: int,
    workers: int,
    ray: str | None,
    progress: SweepProgress,
) -> Iterator[None]:
    """Run `count` of `wanted` trials, yielding after each."""
    if count <= 0:
        return
    if ray is not None:
        yield from sweep_ray.run(plan, output, url, count, wanted, address=ray, workers=workers)
    elif workers == 1:
        for _ in range(count):
            run_next(study, plan, output, wanted, progress.note)
            yield
    else:
        processes = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(workers, count), mp_context=processes, initializer=_end_with_parent
        ) as pool:
            futures = [pool.submit(run_one, plan, output, url, wanted) for _ in range(count)]
            try:
                for future in as_completed(futures):
                    future.result()
                    yield
            finally:
                pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refit(study: optuna.Study, config: RunConfig, place: Path, console: Console) -> None:
    """Train and export the best config, unless that is done; note which trials were scored."""
    winner = sweep_study.best(study)
    assert winner is not None
    there = place / folder.CONFIG
    same = there.is_file() and load_config(there, []) == config
    if same and (place / folder.ARTIFACT / folder.MANIFEST).is_file():
        return
    console.print(f"training the best config (trial {winner[0]}): {place}", soft_wrap=True)
    scored = study.user_attrs.get(sweep_study.SCORED, [])
    if winner[0] not in scored:  # noted first: a run that is stopped may have been scored
        study.set_user_attr(sweep_study.SCORED, [*scored, winner[0]])
    train_and_export(
        config, place, resume=same, overwrite=there.is_file() and not same, console=console
    )


def _check_output(output: Path) -> None:
    """Raise RunFolderError where `output` holds anything but a sweep; changes nothing."""
    if output.exists() and not output.is_dir():
        raise RunFolderError(f"{output} is a file; --output takes a folder")
    present = sorted(path.name for path in output.iterdir()) if output.exists() else []
    foreign = [name for name in present if not OWN.fullmatch(name)]
    if foreign:
        raise RunFolderError(
            f"{output} holds {', '.join(foreign[:3])}, which is no sweep's; choose another --output"
        )


def _check_same(study: optuna.Study, plan: Plan, fingerprint: str) -> None:
    """Note what a new study is of; raise RunFolderError where an old one is of something else."""
    definition, known = plan.definition(), study.user_attrs
    # One by one: another command may be noting the same at this moment.
    for key, value in ((sweep_study.DEFINITION, definition), (sweep_study.DATA, fingerprint)):
        if key not in known:
            study.set_user_attr(key, value)
    known = study.user_attrs
    if keys := differences(known.get(sweep_study.DEFINITION, {}), definition):
        raise RunFolderError(
            f"the study {plan.settings.name!r} there is another one: {'; '.join(keys[:4])}. Give "
            "the old values to go on, or another --output (in a shared database, another `name`)"
        )
    if known.get(sweep_study.DATA) != fingerprint:
        raise RunFolderError(
            "the data changed since this sweep began; choose another --output to begin anew"
        )


def _write(path: Path, data: bytes) -> bool:
    """Write a file unless it holds the same; returns whether it was written."""
    if path.is_file() and path.read_bytes() == data:
        return False
    write_file(path, data)
    return True


def _count(text: str) -> int:
    """An argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return int(text)

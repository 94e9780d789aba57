"""`axonnx submission score`: the leaderboard's row on local data with known answers.

Both jobs of the platform run on them, with the challenge's own scoring program or with those of a
competition bundle. Intervals and the comparison with an earlier submission are computed here, from
the statistics that the scoring program leaves.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel

import artifact
from artifact import Manifest
from artifact.arrays import decode_npz
from artifact.bundle import write_file
from artifact.errors import ArtifactError
from submission import archive
from submission.bundle import competition
from submission.challenges import Challenge, Column, Definition, Image, Limits
from submission.checking import explain, trial
from submission.checking.case import stated_definition
from submission.checking.trial import EngineName, Place, Trial
from submission.contents import FILE, Contents
from submission.errors import ArchiveError, ConfigError, RunError, printable
from submission.programs import write_task
from submission.rules import generic_metric
from submission.scoring.data import fingerprint, read_local
from submission.scoring.intervals import Interval, Statistics, bootstrap, intervals
from submission.scoring.records import MAX_SETS
from submission.scoring.row import Score, Scored, groups
from submission.worker.run import Job, Outcome, Task, run_task
from submission.worker.transfer import read_left, workplace

Notify = Callable[[str], None]
SAVED = ("scores.json", "scores.txt", "detailed_results.html", "statistics.npz")
MAX_STATISTICS = 1 << 28
CLOSE = 1e-9  # between the platform's column and the one that follows from the statistics


def score(
    path: Path,
    *,
    data: Path | None = None,
    bundle: Path | None = None,
    task: int = 0,
    challenge: tuple[Challenge, BaseModel] | None = None,
    time_limit: float | None = None,
    engine: EngineName = "process",
    python: str | None = None,
    image: str | None = None,
    memory: int | None = None,
    output: Path | None = None,
    notify: Notify = lambda text: None,
) -> Score:
    """Score the zip at `path` on the files in `data`, or by the task `task` of the `bundle`.

    `output` is a folder for the scores, the page with details, both jobs' logs and the record.
    Raises ArchiveError, ConfigError, RunError; a submission that fails is a Score with causes.
    """
    if found := archive.problems(path, ()):
        raise ArchiveError(f"{path}: {'; '.join(found)}")
    if (data is None) == (bundle is None):
        raise ConfigError("name the data with known answers (--data DIR), or a --bundle")
    with ExitStack() as stack:
        work = stack.enter_context(workplace("axonnx-score-"))
        case = _case(path, work, data is None, challenge)
        if data is not None:
            chosen = _local(case, data, time_limit, notify)
        else:
            assert bundle is not None
            folder = stack.enter_context(competition.opened(bundle))
            chosen = _bundled(case, folder, task, time_limit)
        image = image or (chosen.definition.image.name if case.contents is None else None)
        place = trial.best_place(
            chosen.definition, case.contents, engine, python=python, image=image, memory=memory
        )
        notify(f"running both jobs with {place.label}")
        run = _run(path, chosen, place, case.work / "run", notify)
        result = _result(case, chosen, place, run, notify)
        if output is not None:
            _save(output, run.outcome, result)
    return result


@dataclass(frozen=True)
class _Case:
    """An unpacked submission; `definition` is None where nothing says what it is."""

    path: Path
    program: Path
    work: Path
    contents: Contents | None
    definition: Definition | None

    def manifests(self) -> dict[str, Manifest]:
        entries = self.contents.artifacts if self.contents else {}
        return {
            name: artifact.read(self.program / "artifacts" / entry.folder).manifest
            for name, entry in entries.items()
            if (self.program / "artifacts" / entry.folder).is_dir()
        }


@dataclass(frozen=True)
class _Chosen:
    """What is run: the task, the challenge with the sets it has, how its columns are described.

    `data` is the sha256 of the data and of what scores them.
    """

    task: Task
    definition: Definition
    columns: tuple[Column, ...]
    data: str
    notes: tuple[str, ...]
    own: bool  # the definition is a challenge's, its rule may be asked


def _case(
    path: Path, work: Path, stranger: bool, challenge: tuple[Challenge, BaseModel] | None
) -> _Case:
    program = trial.unpack(path, work / "unpacked")
    try:
        contents, definition = stated_by(path, program, challenge)
    except ArchiveError:
        if not stranger:
            raise
        return _Case(path, program, work, None, None)
    return _Case(path, program, work, contents, definition)


def stated_by(
    path: Path, program: Path, challenge: tuple[Challenge, BaseModel] | None
) -> tuple[Contents | None, Definition]:
    """`stated_definition` of the zip at `path`, unpacked in `program`; its errors name the zip."""
    try:
        return stated_definition(program, challenge)
    except ArchiveError as error:
        there = (program / FILE).is_file()
        hint = "" if there else ", or name its challenge with --challenge or --config"
        raise ArchiveError(f"{path}: {error}{hint}") from None


def _local(case: _Case, data: Path, time_limit: float | None, notify: Notify) -> _Chosen:
    """The challenge's own programs on the files in `data`."""
    assert case.definition is not None
    notify(f"reading {data}")
    local = read_local(case.definition, data, case.manifests())
    sets = local.definition.sets
    task = write_task(
        local.definition,
        sets,
        local.inputs,
        local.references,
        case.work / "task",
        time_limit,
    )
    columns = case.definition.columns
    data_and_rule = _with_rule(local.fingerprint, local.definition)
    return _Chosen(task, local.definition, columns, data_and_rule, local.notes, True)


def _bundled(case: _Case, folder: Path, index: int, time_limit: float | None) -> _Chosen:
    """The programs and data of a competition bundle, opened in `folder`."""
    found = competition.read(folder)
    task = competition.read_task(folder, index)
    if time_limit is not None:
        task = replace(task, time_limit=time_limit)
    listed = sorted(found.leaderboards[0].columns, key=lambda column: column.index)
    columns = tuple(Column(c.key, c.title, c.sorting, c.precision) for c in listed)
    definition = case.definition or _stranger(task, columns, found.docker_image, found.title)
    return _Chosen(task, definition, columns, _fingerprint(task), (), case.definition is not None)


def _stranger(task: Task, columns: tuple[Column, ...], image: str, title: str) -> Definition:
    """What is known of a competition that is no challenge of this installation."""
    return Definition(
        kind="result" if task.ingestion_program is None else "code",
        entry="",
        subjects=(),
        sets=(),
        columns=columns,
        rule=generic_metric,
        contract=lambda subject, manifest: None,
        image=Image(image, None),
        limits=Limits(task.time_limit),
        name=title,
    )


def _with_rule(data: str, definition: Definition) -> str:
    """sha256 of local data and of how they are scored: other options are another score."""
    assert definition.rule.__file__ is not None
    total = hashlib.sha256(data.encode())
    total.update(Path(definition.rule.__file__).read_bytes())
    total.update(json.dumps(dict(definition.options), sort_keys=True).encode())
    return total.hexdigest()


def _fingerprint(task: Task) -> str:
    """sha256 of everything that a bundle's score depends on."""
    files = {}
    for name in ("scoring_program", "ingestion_program", "input_data", "reference_data"):
        part: Path | None = getattr(task, name)
        if part is not None and part.is_file():
            files[name] = part
        elif part is not None:
            inside = sorted(path for path in part.rglob("*") if path.is_file())
            files |= {f"{name}/{path.relative_to(part).as_posix()}": path for path in inside}
    return fingerprint(files)


def _run(path: Path, chosen: _Chosen, place: Place, work: Path, notify: Notify) -> Trial:
    if chosen.own and chosen.definition.sets:
        return trial.run(
            chosen.definition, chosen.definition.sets, chosen.task, path, place.engine, work
        )
    outcome = run_task(chosen.task, path, place.engine, work, notify)
    return Trial(outcome, {}, {}, "")


def _result(case: _Case, chosen: _Chosen, place: Place, run: Trial, notify: Notify) -> Score:
    outcome, notes = run.outcome, list(chosen.notes)
    causes: tuple[str, ...] = ()
    if outcome.status == "Failed":
        causes = tuple(explain.causes(run, chosen.definition, case.program))
    if outcome.scores_wrong:
        notes.append(f"scores file: {outcome.scores_wrong}; the platform drops it")
    if outcome.missing_columns:
        notes.append(f"no score, so n/a: {', '.join(outcome.missing_columns)}")
    if outcome.dropped_scores:
        notes.append(f"no column, so dropped: {', '.join(outcome.dropped_scores)}")
    statistics = _statistics(chosen, outcome)
    found: dict[str, Interval] = {}
    resampled = None
    if statistics is not None:
        definition, sets = chosen.definition, groups(chosen.definition)
        common = (definition.rule, definition.options, statistics, sets)
        resampled = bootstrap(*common, notify=notify)
        found = intervals(*common, resampled)
    elif outcome.status == "Finished":
        notes.append("no intervals: the scoring program leaves no statistics that give its scores")
    return Score(
        zip=case.path.name,
        sha256=hashlib.sha256(case.path.read_bytes()).hexdigest(),
        challenge=chosen.definition.name,
        artifacts={n: e.id for n, e in (case.contents.artifacts if case.contents else {}).items()},
        data=chosen.data,
        place=place.label,
        status=outcome.status,
        columns=_columns(chosen, outcome, found) if outcome.status == "Finished" else (),
        causes=causes,
        notes=tuple(map(printable, notes)),
        definition=chosen.definition,
        statistics=statistics,
        resampled=resampled,
    )


def _columns(
    chosen: _Chosen, outcome: Outcome, found: Mapping[str, Interval]
) -> tuple[Scored, ...]:
    """Those of the leaderboard, in order; where sets are left out, those that have a score."""
    whole = bool(chosen.task.columns)
    known = {column.key for column in chosen.columns}
    columns = [column for column in chosen.columns if whole or column.key in outcome.scores]
    columns += [Column(key, key) for key in outcome.scores if not whole and key not in known]
    return tuple(
        Scored(column, outcome.scores.get(column.key), found.get(column.key)) for column in columns
    )


def _statistics(chosen: _Chosen, outcome: Outcome) -> Statistics | None:
    """Statistics from which the very scores of the scoring program follow, else None."""
    if not chosen.own or outcome.status != "Finished" or outcome.scoring is None:
        return None
    try:
        data = read_left(outcome.scoring.output / "statistics.npz", MAX_STATISTICS)
        arrays = decode_npz(data or b"", max_members=MAX_SETS)
    except (RunError, ArtifactError):
        return None
    wanted = [entry.name for entry in chosen.definition.sets]
    if set(arrays) != set(wanted) or any(array.ndim != 2 for array in arrays.values()):
        return None
    found = {name: np.asarray(arrays[name], np.float64) for name in wanted}
    totals = {name: rows.sum(axis=0) for name, rows in found.items()}
    try:
        scores = chosen.definition.rule.columns(totals, chosen.definition.options)
    except (ValueError, LookupError):
        return None
    same = all(
        key in scores and math.isclose(scores[key], value, rel_tol=CLOSE, abs_tol=CLOSE)
        for key, value in outcome.scores.items()
    )
    return found if same else None


def _save(output: Path, outcome: Outcome, result: Score) -> None:
    """Scores, page, statistics, logs and record into the folder `output`."""
    output.mkdir(parents=True, exist_ok=True)
    record = result.record()
    if outcome.scoring is not None:
        for name in SAVED:
            source = outcome.scoring.output / name
            target = record.statistics if name == "statistics.npz" else name
            if target and source.is_file() and not source.is_symlink():
                write_file(output / target, source.read_bytes())
    write_file(output / "record.json", (record.model_dump_json(indent=1) + "\n").encode())
    for job in (outcome.prediction, outcome.scoring):
        _save_logs(output / "logs", job)


def _save_logs(folder: Path, job: Job | None) -> None:
    for run in job.runs if job else ():
        folder.mkdir(parents=True, exist_ok=True)
        assert job is not None
        for path in (run.stdout, run.stderr):
            if path.is_file():
                shutil.copyfile(path, folder / f"{job.name}_{path.name}")

"""One submission through a task, by the rules of CodaBench's compute worker (compute_worker.py).

A submission is two jobs, each in a fresh folder. In the prediction job the submission is the
program and the task's ingestion program may run beside it; in the scoring job the scoring program
runs, and finds the output of the first job in `/app/input/res`. Nothing here knows a challenge.

Left out: the pull of the image, caches, retries of a bad zip, quotas, the order of uploads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from submission.errors import ConfigError
from submission.worker.engines import Engine
from submission.worker.job import Job, JobFailedError, JobFolder, ProgramRun
from submission.worker.score_file import ScoreFileError, Scores, read_scores

__all__ = ["Job", "Outcome", "ProgramRun", "Task", "run_task"]


@dataclass(frozen=True)
class Task:
    """The organiser's side; each part is a folder or a zip, a folder is zipped from inside.

    `columns` are the leaderboard's column keys, () where they are not known. `time_limit` is in
    seconds and holds for each of the two jobs. Without `ingestion_program` the submission's files
    are the predictions.
    """

    scoring_program: Path
    ingestion_program: Path | None = None
    input_data: Path | None = None
    reference_data: Path | None = None
    ingestion_only_during_scoring: bool = False
    columns: tuple[str, ...] = ()
    time_limit: float = 600.0


@dataclass(frozen=True)
class Outcome:
    """What the platform would show.

    `details` is its own text, "" when Finished. `scores` holds every number of the scores file;
    `missing_columns` of the leaderboard have none, `dropped_scores` are no column of it.
    `scores_wrong` says what of the file is no flat {key: number}; the platform drops it unseen.
    """

    status: Literal["Finished", "Failed"]
    details: str
    prediction: Job | None
    scoring: Job | None
    scores: Mapping[str, float]
    missing_columns: tuple[str, ...]
    dropped_scores: tuple[str, ...]
    scores_wrong: str


def _silent(status: str) -> None:
    pass


def run_task(
    task: Task,
    submission: Path,
    engine: Engine,
    work: Path,
    notify: Callable[[str], None] = _silent,
) -> Outcome:
    """Run a submission (zip or folder) through both jobs, in new folders below `work`.

    `notify` is told each status: Preparing, Running, Scoring, then Finished or Failed.
    Raises ConfigError for a part of the task that is missing, a `work` that was used before or an
    engine that cannot run; ArchiveError for a zip that nobody should unpack; RunError for output
    too large to be kept.
    """
    prediction, scoring = _jobs(task, submission, engine, work)
    scores: Scores | None = None
    try:
        notify("Preparing")
        prediction.unpack()
        notify("Running")
        prediction.run()
        notify("Scoring")
        prediction.close()
        scoring.unpack()
        scoring.run()
        scores = read_scores(scoring.output)
        scoring.close()
    except (JobFailedError, ScoreFileError) as failure:
        notify("Failed")
        return _outcome(task, "Failed", str(failure), prediction, scoring, scores)
    notify("Finished")
    return _outcome(task, "Finished", "", prediction, scoring, scores)


def _outcome(
    task: Task,
    status: Literal["Finished", "Failed"],
    details: str,
    prediction: JobFolder,
    scoring: JobFolder,
    scores: Scores | None,
) -> Outcome:
    values = scores.values if scores else {}
    known = bool(task.columns) and scores is not None
    return Outcome(
        status=status,
        details=details,
        prediction=prediction.job(),
        scoring=scoring.job() if scoring.begun else None,
        scores=dict(values),
        missing_columns=tuple(key for key in task.columns if known and key not in values),
        dropped_scores=tuple(key for key in values if known and key not in task.columns),
        scores_wrong=scores.wrong if scores else "",
    )


def _jobs(task: Task, submission: Path, engine: Engine, work: Path) -> tuple[JobFolder, JobFolder]:
    """The two jobs with what is unpacked where, nothing done yet."""
    late = task.ingestion_only_during_scoring
    data, ingestion = task.input_data, task.ingestion_program
    for part in (submission, task.scoring_program, ingestion, data, task.reference_data):
        if part is not None and not part.exists():
            raise ConfigError(f"{part}: no such file or folder")
    work = work.resolve()
    for name in ("prediction", "scoring", "data"):
        if (work / name).exists():
            raise ConfigError(f"{work / name}: is there already; name a new folder for the jobs")
    (work / "data").mkdir(parents=True)
    first = {
        "program": submission,
        "ingestion_program": None if late else ingestion,
        "input_data": data,
    }
    prediction = JobFolder("prediction", work / "prediction", first, engine, late, task.time_limit)
    second = {
        "program": task.scoring_program,
        "ingestion_program": ingestion if late else None,
        "input_data": data if late else None,
        "input/ref": task.reference_data,
        "input/res": prediction.output,
    }
    return prediction, JobFolder("scoring", work / "scoring", second, engine, late, task.time_limit)

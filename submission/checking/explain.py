"""Why a run failed, in the participant's words: the platform's own texts name the symptom only.

What is known comes first from what the jobs left (exit status, time limit, memory cap, files), and
only then from the text of a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from submission import predictions
from submission.challenges import ARRAY_KEY, Arrays, Definition, TestSet
from submission.checking import crash
from submission.checking.advice import SIGNALS, advice
from submission.checking.crash import Crash
from submission.checking.trial import Trial
from submission.errors import RunError, printable
from submission.rules import forecast_error
from submission.worker.run import Job, Outcome, ProgramRun
from submission.worker.transfer import read_left

TAIL = 1500
MAX_TEXT = 1 << 20
MAX_HEADLINE = 400
MAX_LINES = 12
MANY_BYTES = 1 << 20
IMPORTED = "when it was imported"
RAW = 50.0  # root mean square of µECoG in raw units and more; normalized values are about 1
LISTED = "  - "  # before each problem that our scoring program names


def causes(trial: Trial, definition: Definition, program: Path) -> list[str]:
    """What made the run of a submission, unpacked in `program`, fail; the first says it shortest.

    Then come the participant's lines of a traceback, what CodaBench would show, what to do.
    """
    return [printable(text) for text in _causes(trial, definition, program)]


def _causes(trial: Trial, definition: Definition, program: Path) -> list[str]:
    outcome, job = trial.outcome, trial.outcome.prediction
    if outcome.details.startswith("Bad or empty zip file"):
        found = ["CodaBench cannot unpack it: " + "; ".join(job.notes if job else ())]
        return [*found, platform(outcome), "to do: rebuild it with `axonnx submission build`"]
    for where, run in _runs(outcome):
        if run.exit_status != 0 or run.out_of_memory:
            progress = _progress(where, definition)
            return _of_run(run, where, outcome, progress, definition, program)
    if trial.problem and definition.ingestion is not None and not trial.facts:
        progress = _progress(job, definition) if job else ""
        return [
            f"your model ended the ingestion program with status 0{progress}: {trial.problem}",
            platform(outcome),
            "to do: take out os._exit() and what kills its own process",
        ]
    return [*_left_behind(outcome), *([trial.problem] * bool(trial.problem)), platform(outcome)]


def platform(outcome: Outcome) -> str:
    """What the platform would show, and where it hides the cause."""
    text = f"CodaBench would show: {outcome.status}"
    if outcome.details:
        text += f', "{outcome.details.splitlines()[0]}"'
    for job, run in _runs(outcome):
        if run.exit_status is None:
            return f"{text}; the logs are lost after that"
        if run.exit_status and run.kind == "ingestion":
            return (
                f"{text}. The ingestion program ended with status {run.exit_status}, which "
                f"CodaBench ignores: the cause stands in its log {job.name}_ingestion_stderr"
            )
    return text


def crashed(trial: Trial) -> bool:
    """Whether the model crashed, also where there are predictions: the zip may carry some."""
    job = trial.outcome.prediction
    return job is not None and any(
        run.kind == "ingestion" and run.exit_status and _kept(job) for run in job.runs
    )


def late_end(trial: Trial) -> list[str]:
    """How the ingestion program ended that had predicted everything."""
    return [
        f"after everything was predicted, it {_ended(run.exit_status)}; CodaBench ignores that, "
        "but look what ends it"
        for run in (trial.outcome.prediction.runs if trial.outcome.prediction else ())
        if run.kind == "ingestion" and run.exit_status
    ]


def noise(trial: Trial) -> list[str]:
    """What a run that went well did too much of."""
    found = []
    for run in trial.outcome.prediction.runs if trial.outcome.prediction else ():
        size = run.stdout.stat().st_size + run.stderr.stat().st_size
        if size > MANY_BYTES:
            found.append(
                f"your model prints {size / 1e6:.0f} MB; CodaBench sends and keeps every line: "
                "print less"
            )
    return found


def units(trial: Trial, definition: Definition, inputs: Mapping[str, Arrays]) -> list[str]:
    """Forecasts that are far smaller than what was observed of their target: normalized ones.

    It can be known where the target is a feature of the inputs, in the units of a recording.
    """
    if definition.rule is not forecast_error:
        return []
    found = []
    for entry in definition.sets:
        seen, answer = (
            arrays.get(entry.name, {}).get(ARRAY_KEY) for arrays in (inputs, trial.answers)
        )
        if seen is None or answer is None or seen.ndim != 4:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            squares = (np.square(a, dtype=np.float64) for a in (seen[..., 0], answer))
            there, here = (float(np.sqrt(square.mean())) for square in squares)
        if there > RAW and here < there / RAW:
            found.append(
                f"{entry.name}: answers of size {here:.3g} to inputs of size {there:.3g} look "
                "normalized; CodaBench scores raw units, and expects mean(mean²+std²) of such"
            )
    return found


def _runs(outcome: Outcome) -> list[tuple[Job, ProgramRun]]:
    """The programs that the participant's code runs in, the ingestion program first."""
    found = [
        (job, run)
        for job in (outcome.prediction, outcome.scoring)
        if job is not None
        for run in job.runs
        if run.kind == "ingestion" or job is outcome.prediction
    ]
    return sorted(found, key=lambda pair: pair[1].kind == "program")


def _of_run(
    run: ProgramRun,
    job: Job,
    outcome: Outcome,
    progress: str,
    definition: Definition,
    program: Path,
) -> list[str]:
    who = "your model" if run.kind == "ingestion" else "your program"
    if run.exit_status is None:
        found = [f"{who} was still running at the time limit{progress}: {outcome.details}"]
        hint = "make it faster, or look where it waits: on CodaBench each job has its own clock"
        return [*found, platform(outcome), f"to do: {hint}"]
    if run.out_of_memory:
        peak = [f"it held {run.peak_bytes / 1e6:.0f} MB then"] if run.peak_bytes else []
        hint = (
            "predict in smaller batches. CodaBench sets no cap of its own: there the machine "
            "ends what does not fit"
        )
        return [
            f"{who} was ended for holding more memory than the cap of --memory{progress}",
            *peak,
            platform(outcome),
            f"to do: {hint}",
        ]
    text = _error_text(run, job)
    crashed = crash.read(text)
    if crashed is None:
        return _of_status(run, who, text, outcome, progress)
    found = [_headline(crashed, who, progress), *map(str, crashed.own)]
    if len(crashed.error) > MAX_HEADLINE or "\n" in crashed.error:
        found += crashed.error.splitlines()[:MAX_LINES]
    to_do = [f"to do: {text}" for text in advice(crashed, program, definition)]
    return [*found, platform(outcome), *to_do]


def _error_text(run: ProgramRun, job: Job) -> str:
    """What the ingestion program kept of a failure, else the end of stderr."""
    text = _kept(job) if run.kind == "ingestion" else ""
    return text if crash.HEADER in text else _tail(run.stderr)


def _kept(job: Job) -> str:
    """What the ingestion program kept of a failure, "" where that is nothing."""
    try:
        return _plain(read_left(job.output / "ingestion_error.txt", MAX_TEXT) or b"")
    except RunError:
        return ""


def _tail(path: Path, size: int = 1 << 16) -> str:
    with open(path, "rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        return _plain(stream.read()).strip()


def _plain(data: bytes) -> str:
    return printable(data.decode("utf-8", errors="replace"))


def _of_status(run: ProgramRun, who: str, text: str, outcome: Outcome, progress: str) -> list[str]:
    """A program that ended without a traceback: by a signal, or with a status of its own."""
    last = text[-TAIL:].splitlines()[-MAX_LINES:]
    return [f"{who} {_ended(run.exit_status or 0)}{progress}", *last, platform(outcome)]


def _ended(status: int) -> str:
    """ "ended with status 139, by a segmentation fault: …"."""
    if status <= 128:
        return f"ended with status {status}"
    return f"ended with status {status}, by {SIGNALS.get(status - 128, f'signal {status - 128}')}"


def _headline(crashed: Crash, who: str, progress: str) -> str:
    error = crashed.error.splitlines()[0]
    if len(error) > MAX_HEADLINE:
        error = error[:MAX_HEADLINE] + "…"
    when = _when(crashed)
    return f"{who} crashed {when}{progress if when != IMPORTED else ''}: {error}"


def _when(crashed: Crash) -> str:
    """In which call of the challenge's: by the first line of the participant's, else by ours."""
    if crashed.own:
        function = crashed.own[0].function
        if function in ("", "<module>"):
            return IMPORTED
        return f"in {function}()"
    functions = {frame.function for frame in crashed.frames}
    if "write" in functions:
        return "when its answer was stored"
    if "predicted" in functions:
        return "when it was called to predict"
    return "when it was loaded" if "loaded" in functions else IMPORTED


def _progress(job: Job, definition: Definition) -> str:
    """Which set it was at, how many rows that has, and what it had predicted before."""
    if definition.ingestion is None:
        return ""
    left = [entry for entry in definition.sets if not (job.output / entry.output).is_file()]
    done = [entry.name for entry in definition.sets if entry not in left]
    if not left:
        return ""
    rows = _rows(job, left[0])
    size = f" ({rows} rows)" if rows is not None else ""
    after = f", after {', '.join(done)}" if done else ""
    return f", at the set {left[0].name}{size}{after}"


def _rows(job: Job, entry: TestSet) -> int | None:
    try:
        arrays = predictions.read_arrays(job.folder / "input_data" / entry.input, left=True)
    except RunError:
        return None
    return next((len(array) for array in arrays.values() if array.ndim), None)


def _left_behind(outcome: Outcome) -> list[str]:
    """What the scoring program, or the worker, found wrong with what was predicted."""
    if "already contains a metadata file" in outcome.details:
        return [
            "a file `metadata` was written to the output; CodaBench keeps that name for itself: "
            "give yours another"
        ]
    found = [] if outcome.scoring is None else [*_scoring(outcome.scoring)]
    notes = outcome.prediction.notes if outcome.prediction else ()
    return found + [note for note in notes if "nothing was copied" in note]


def _scoring(job: Job) -> Iterable[str]:
    for run in job.runs:
        if run.kind != "program" or run.exit_status == 0:
            continue
        if run.exit_status is None or run.out_of_memory:
            end = "held more memory than the cap" if run.exit_status else "ran out of time"
            yield f"the scoring program {end}"
            continue
        text = _tail(run.stderr)
        lines = [line for line in text.splitlines() if line.startswith(LISTED)]
        said = [line.removeprefix(LISTED) for line in lines] or text[-TAIL:].splitlines()
        first, *others = said or [f"ended with status {run.exit_status}"]
        yield f"the scoring program cannot score it: {first}"
        yield from others[:MAX_LINES]
        if len(others) > MAX_LINES:
            yield f"and {len(others) - MAX_LINES} more"

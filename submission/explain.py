"""Why a run failed, in the participant's words: the platform's own texts name the symptom only."""

from __future__ import annotations

from pathlib import Path

from submission.challenges import Definition
from submission.trial import Trial

HINTS = {
    "ModuleNotFoundError": "the image has numpy; what else the entry imports, the zip must carry",
    "FileNotFoundError": "find files by __file__: the working folder is not the submission's",
}
TAIL = 1500


def causes(trial: Trial, definition: Definition, program: Path) -> list[str]:
    """What made the run of a submission, unpacked in `program`, fail; the first says it shortest."""
    outcome = trial.outcome
    found = [f"CodaBench would say: {outcome.details}"] if outcome.details else []
    for job in (outcome.prediction, outcome.scoring):
        for run in job.runs if job else ():
            if not run.exit_status:
                continue
            text = run.stderr.read_text("utf-8", errors="replace").strip()[-TAIL:]
            name = "your model" if run.kind == "ingestion" else "the scoring program"
            found.append(f"{name} ended with status {run.exit_status}:\n{text}")
            found += [hint for sign, hint in HINTS.items() if sign in text]
    if trial.problem:
        found.append(trial.problem)
    return found

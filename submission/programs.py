"""The organiser's side of a challenge: ingestion and scoring programs, input and reference data."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from artifact.arrays import encode_npz
from submission import challenges
from submission.challenges import Arrays, Definition, TestSet, template
from submission.worker.run import Task

Files = dict[str, bytes]
INGESTION = (
    "python3 /app/program/ingestion.py /app/input_data/ /app/output/ /app/program "
    "/app/ingested_program"
)
SCORING = "python3 /app/program/scoring.py /app/input /app/output /app/program"


def plan(definition: Definition, sets: Iterable[TestSet], *, scoring: bool) -> dict[str, Any]:
    """`plan.json` of a program: what is called and scored, and with which files.

    The names of the answers stand in that of the scoring program alone.
    """
    described = [asdict(entry) for entry in sets]
    for entry in described:
        if not scoring:
            del entry["reference"]
    return {
        "call": definition.call,
        "format": definition.format,
        "sets": described,
        "options": dict(definition.options),
        "columns": [column.key for column in definition.columns],
    }


def _plan_file(definition: Definition, sets: Iterable[TestSet], *, scoring: bool) -> bytes:
    value = plan(definition, sets, scoring=scoring)
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def ingestion_program(definition: Definition, sets: Iterable[TestSet]) -> Files | None:
    """Files of the program that calls a submission; None where nothing is called."""
    if definition.ingestion is None:
        return None
    return {
        "metadata.yaml": f"command: {INGESTION}\n".encode(),
        "ingestion.py": definition.ingestion,
        "measure.py": template("measure.py"),
        **definition.beside,
        "plan.json": _plan_file(definition, sets, scoring=False),
    }


def scoring_program(definition: Definition, sets: Iterable[TestSet]) -> Files:
    """Files of the program that scores predictions: the common part and the challenge's rule."""
    assert definition.rule.__file__ is not None
    files = {
        "metadata.yaml": f"command: {SCORING}\n".encode(),
        "scoring.py": template("scoring.py"),
        "rule.py": Path(definition.rule.__file__).read_bytes(),
        "plan.json": _plan_file(definition, sets, scoring=True),
    }
    if definition.format == "pickled":
        files["pickled.py"] = resources.files("submission").joinpath("pickled.py").read_bytes()
    return files


def write_task(
    definition: Definition,
    sets: tuple[TestSet, ...],
    inputs: Mapping[str, Arrays],
    references: Mapping[str, Arrays],
    folder: Path,
    seconds: float | None = None,
) -> Task:
    """Write a task that predicts and scores `sets` below `folder`.

    `inputs` and `references` are arrays by set name, under their keys in the files. A result
    submission has no ingestion program, and its inputs stay at home.
    """
    ingestion = ingestion_program(definition, sets)
    write_files(folder / "scoring_program", scoring_program(definition, sets))
    write_files(
        folder / "reference_data",
        {entry.reference: encode_npz(dict(references[entry.name])) for entry in sets},
    )
    if ingestion is not None:
        write_files(folder / "ingestion_program", ingestion)
        write_files(
            folder / "input_data",
            {entry.input: encode_npz(dict(inputs[entry.name])) for entry in sets},
        )
    return Task(
        scoring_program=folder / "scoring_program",
        ingestion_program=folder / "ingestion_program" if ingestion is not None else None,
        input_data=folder / "input_data" if ingestion is not None else None,
        reference_data=folder / "reference_data",
        columns=tuple(column.key for column in definition.columns),
        time_limit=definition.limits.seconds if seconds is None else seconds,
    )


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files`, name to bytes, into `folder`, which is made."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main(words: list[str]) -> int:
    """Write the ingestion program of a challenge, without its plan, into a folder.

    Nothing is written where none can be made without settings, as for files of predictions.
    """
    if len(words) != 2:
        print("usage: python -m submission.programs CHALLENGE FOLDER", file=sys.stderr)
        return 2
    challenge = challenges.get(words[0])
    try:
        definition = challenge.definition(challenge.settings(), ())
    except ValidationError:
        print(f"{challenge.name}: no program without settings", file=sys.stderr)
        return 0
    files = ingestion_program(definition, ()) or {}
    write_files(Path(words[1]), {n: d for n, d in files.items() if n.endswith(".py")})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

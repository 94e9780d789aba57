"""A whole competition for CodaBench, from a data set and the definition of a challenge.

`competition.yaml` version 2, logo, terms, pages, ingestion and scoring programs, inputs, answers,
starting kit and one solution. The same inputs give the same bytes, and nothing half-written stays.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from artifact.arrays import encode_npz
from artifact.bundle import write_zip
from submission import archive
from submission.bundle import competition
from submission.bundle import data as bundle_data
from submission.bundle import kit as bundle_kit
from submission.bundle import logo as bundle_logo
from submission.bundle import pages as bundle_pages
from submission.bundle.competition_check import problems
from submission.bundle.config import CompetitionSettings, load_config
from submission.bundle.data import Data
from submission.bundle.kit import First
from submission.challenges import Arrays, Definition
from submission.errors import ConfigError
from submission.programs import Files, ingestion_program, scoring_program, write_files

IMAGE = "codalab/codalab-legacy:py312"  # Debian 12, numpy 1.26: for what needs numpy alone
SOLUTION = "solution/solution.zip"
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """What `build` wrote: place, sha256 of the zip ("" for a folder), bytes by part.

    `scores` are those of the first submission on the hidden answers, {} where none could be made
    up. `compared` counts arrays of answers and of what is shown that were held against each other,
    `notes` are for the organiser.
    """

    path: Path
    sha256: str
    parts: Mapping[str, int]
    scores: Mapping[str, float]
    compared: tuple[int, int]
    notes: tuple[str, ...]


def build(
    config: Path,
    data: Path,
    output: Path,
    *,
    solution: Path | None = None,
    notify: Notify = lambda text: None,
) -> Built:
    """Write the bundle that `config` describes for the data in the folder `data`.

    `output` is a zip where it ends so, else a new folder. `solution` is a submission to show; left
    out, one is made up. Raises ConfigError for what does not fit, answers that are shown included.
    """
    _, definition, settings = load_config(config)
    if output.suffix != ".zip" and output.exists():
        raise ConfigError(f"{output}: is there already; remove it, or name another folder")
    notify("reading the data")
    found = bundle_data.load(definition, data)
    made = bundle_kit.first(definition, found)
    if made is None and solution is None:
        raise ConfigError(
            f"no first submission can be made up for {definition.name or definition.kind}: "
            "name one with --solution ZIP"
        )
    notify("scoring the first submission")
    scores = score(definition, found, made.answers) if made else {}
    shown = _shown(definition, settings, found, made)
    notify("comparing the answers with what is shown")
    compared, blind = _compare(definition, found, shown)
    files = {
        **_site(definition, settings, found, made, scores),
        **_hidden(definition, found),
        **shown,
        SOLUTION: _solution(definition, made, solution),
    }
    notify(f"writing {output}")
    _write(files, output)
    digest = hashlib.sha256(output.read_bytes()).hexdigest() if output.suffix == ".zip" else ""
    return Built(output, digest, _parts(files), scores, compared, (*found.notes, *blind))


def score(definition: Definition, data: Data, answers: Mapping[str, Arrays]) -> dict[str, float]:
    """The leaderboard row of some answers, by the rule itself; ConfigError where it cannot say.

    A column that is not a number is left out.
    """
    totals = {}
    for entry in definition.sets:
        truth = data.references[entry.name]
        try:
            rows = definition.rule.statistics(answers[entry.name], truth, definition.options)
        except ValueError as error:
            raise ConfigError(
                f"{entry.reference}: the first submission cannot be scored by it: {error}"
            ) from None
        totals[entry.name] = rows.sum(axis=0)
    found = definition.rule.columns(totals, definition.options)
    order = bundle_pages.leaderboard_order(definition.columns)
    return {c.key: float(found[c.key]) for c in order if found[c.key] == found[c.key]}


def _shown(
    definition: Definition, settings: CompetitionSettings, data: Data, made: First | None
) -> Files:
    """What every participant gets: starting kit and public data, by name in the bundle."""
    kit = {
        "README.md": bundle_pages.readme(settings, definition, made),
        **bundle_kit.kit(definition, data, made),
        **data.kit,
    }
    public = dict(data.public)
    if definition.kind == "result":
        public |= {
            f"input_data/{entry.input}": encode_npz(dict(data.inputs[entry.name]))
            for entry in definition.sets
            if entry.name in data.inputs
        }
    return {
        **{f"starting_kit/{name}": content for name, content in kit.items()},
        **{f"public_data/{name}": content for name, content in public.items()},
    }


def _compare(
    definition: Definition, data: Data, shown: Files
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Raise ConfigError where answers are shown; arrays compared, and notes on what was not."""
    if found := bundle_data.leaks(definition, data, shown):
        more = f"\nand {len(found) - 5} more" if len(found) > 5 else ""
        raise ConfigError("answers would be shown:\n" + "\n".join(found[:5]) + more)
    secret = sum(len(arrays) for arrays in data.references.values())
    public = sum(len(arrays) for arrays in data.inputs.values())
    public += sum(len(bundle_data.arrays_of(name, content)) for name, content in shown.items())
    given = [f"public_data/{name}" for name in data.public]
    given += [f"starting_kit/{name}" for name in data.kit]
    blind = [name for name in given if not name.endswith((".npz", ".npy"))]
    return (secret, public), tuple(f"not compared with the answers: {name}" for name in blind)


def _hidden(definition: Definition, data: Data) -> Files:
    """Programs, and the data that only they see."""
    ingestion = ingestion_program(definition, definition.sets)
    folders = {
        "scoring_program": scoring_program(definition, definition.sets),
        "reference_data": {
            entry.reference: encode_npz(dict(data.references[entry.name]))
            for entry in definition.sets
        },
    }
    if ingestion is not None:
        folders["ingestion_program"] = ingestion
        folders["input_data"] = {
            entry.input: encode_npz(dict(data.inputs[entry.name])) for entry in definition.sets
        }
    return {f"{name}/{file}": d for name, files in folders.items() for file, d in files.items()}


def _site(
    definition: Definition,
    settings: CompetitionSettings,
    data: Data,
    made: First | None,
    scores: Mapping[str, float],
) -> Files:
    """`competition.yaml`, pages, terms and logo."""
    texts = bundle_pages.pages(settings, definition, data, made, scores)
    pages = {title: f"page_{number}.md" for number, title in enumerate(texts)}
    value = {
        "version": 2,
        "title": settings.title,
        "description": settings.description,
        "image": "logo.png",
        "terms": "terms.md",
        "docker_image": settings.docker_image or definition.image.name or IMAGE,
        "registration_auto_approve": settings.auto_approve,
        "make_programs_available": settings.programs_available,
        "make_input_data_available": settings.inputs_available,
        "enable_detailed_results": True,
        "pages": [{"title": title, "file": file} for title, file in pages.items()],
        "tasks": [_task(definition, settings)],
        "solutions": [{"index": 0, "tasks": [0], "path": SOLUTION}],
        "phases": _phases(definition, settings, data),
        "leaderboards": [_leaderboard(definition, settings)],
    }
    optional = (
        ("contact_email", settings.contact),
        ("queue", settings.queue),
        ("reward", settings.reward),
    )
    value |= {key: text for key, text in optional if text is not None}
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return {
        competition.FILE: text.encode(),
        "logo.png": _logo(settings),
        "terms.md": bundle_pages.terms(settings).encode(),
        **{pages[title]: content.encode() for title, content in texts.items()},
    }


def _logo(settings: CompetitionSettings) -> bytes:
    if settings.logo is None:
        return bundle_logo.draw(settings.title)
    try:
        return settings.logo.read_bytes()
    except OSError as error:
        raise ConfigError(f"competition.logo: {settings.logo}: {error.strerror}") from None


def _task(definition: Definition, settings: CompetitionSettings) -> dict[str, Any]:
    called = definition.ingestion is not None
    return {
        "index": 0,
        "name": settings.title,
        "description": settings.description or settings.title,
        **({"ingestion_program": "ingestion_program"} if called else {}),
        "scoring_program": "scoring_program",
        **({"input_data": "input_data"} if called else {}),
        "reference_data": "reference_data",
        "ingestion_only_during_scoring": False,
    }


def _phases(
    definition: Definition, settings: CompetitionSettings, data: Data
) -> list[dict[str, Any]]:
    limits = definition.limits
    public = bool(data.public) or (definition.kind == "result" and bool(data.inputs))
    found = []
    for number, phase in enumerate(settings.phases):
        entry = {
            "index": number,
            "name": phase.name,
            "description": phase.description,
            "start": phase.start.isoformat(),
            "max_submissions_per_day": phase.per_day or limits.per_day,
            "max_submissions": phase.total or limits.total,
            "execution_time_limit": phase.seconds or max(1, round(limits.seconds)),
            # Statistics of single rows would tell the answers to whoever predicts zeros.
            "hide_score_output": not settings.score_output_available,
            "tasks": [0],
            "starting_kit": "starting_kit",
        }
        entry |= {"end": phase.end.isoformat()} if phase.end else {}
        found.append(entry | ({"public_data": "public_data"} if public else {}))
    return found


def _leaderboard(definition: Definition, settings: CompetitionSettings) -> dict[str, Any]:
    columns = bundle_pages.leaderboard_order(definition.columns)
    return {
        "title": settings.leaderboard.title,
        "key": settings.leaderboard.key,
        "submission_rule": settings.leaderboard.rule,
        "columns": [
            {
                "title": column.title[: competition.MAX_KEY],
                "key": column.key,
                "index": number,
                "sorting": column.sorting,
                "precision": column.precision,
            }
            for number, column in enumerate(columns)
        ],
    }


def _solution(definition: Definition, made: First | None, given: Path | None) -> bytes:
    if given is None:
        assert made is not None
        with tempfile.TemporaryDirectory(prefix="axonnx-bundle-") as name:
            return write_zip(made.files, Path(name) / "solution.zip").read_bytes()
    outputs = tuple(dict.fromkeys(entry.output for entry in definition.sets))
    entries = outputs if definition.kind == "result" else (definition.entry,)
    if not given.is_file():
        raise ConfigError(f"--solution {given}: no such file")
    if wrong := archive.problems(given, entries):
        raise ConfigError("\n".join(f"--solution {given}: {text}" for text in wrong))
    return given.read_bytes()


def _write(files: Files, output: Path) -> None:
    """Lay the bundle out beside `output`, check it, then put it in place."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{output.name}.tmp-{os.getpid()}-", dir=output.parent
    ) as name:
        folder = Path(name) / "bundle"
        write_files(folder, files)
        if wrong := problems(folder):
            raise ConfigError("the bundle would not work on the platform:\n" + "\n".join(wrong))
        if output.suffix == ".zip":
            write_zip(files, output)
        else:
            shutil.move(folder, output)


def _parts(files: Files) -> dict[str, int]:
    """Bytes by first folder, files at the root together, sorted by name."""
    parts: dict[str, int] = {}
    for name, content in sorted(files.items()):
        part = name.split("/")[0] + "/" if "/" in name else "site"
        parts[part] = parts.get(part, 0) + len(content)
    return parts

"""What CodaBench would make of a competition bundle: every requirement and pitfall, in words.

A "failed" finding keeps the bundle from being unpacked, or its submissions from being scored; a
"warning" is something that the platform does silently and few would expect.
"""

from __future__ import annotations

import difflib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from submission.archive import LITTER
from submission.bundle import competition
from submission.bundle.competition import (
    FILE,
    MAX_KEY,
    Competition,
    Leaderboard,
    Phase,
    ScoreColumn,
    TaskEntry,
)
from submission.checking.findings import Finding
from submission.errors import ConfigError, SubmissionError
from submission.worker.commands import MAX_BYTES, NAMES, NoCommandError, plan
from submission.worker.transfer import BROKEN, leaves

MAX_DIGITS = 10  # behind the point of a stored score
IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")
METADATA = tuple([name] for name in NAMES)
SHELL = ("|", "&", "&&", "||", ";", ">", ">>", "<", "2>&1")
Found = Iterator[Finding]
Kind = Literal["program", "ingestion"]


def problems(bundle: Path) -> list[str]:
    """What keeps a bundle, folder or zip, from working on the platform; empty when nothing does."""
    return [finding.text for finding in findings(bundle) if finding.status == "failed"]


def findings(bundle: Path) -> list[Finding]:
    """Everything there is to say of a bundle, folder or zip, good news left out."""
    try:
        with competition.opened(bundle) as folder:
            return list(_bundle(folder))
    except SubmissionError as error:
        return [_failed(str(error))]


def _failed(text: str) -> Finding:
    return Finding("failed", text)


def _warning(text: str) -> Finding:
    return Finding("warning", text)


def _bundle(folder: Path) -> Found:
    wrong, found = competition.parse(folder)
    yield from map(_failed, wrong)
    if found is None:
        return
    yield from _unread("", found)
    yield from _files(folder, found)
    yield from _phases(found)
    yield from _tasks(folder, found)
    yield from _solutions(folder, found)
    yield from _leaderboards(found)
    litter = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    yield from (_warning(f"{name} does not belong in a bundle") for name in litter if _litter(name))


def _litter(name: str) -> bool:
    return LITTER.search(name) is not None


def _unread(place: str, value: object) -> Found:
    """Keys that the platform does not know, which it passes over in silence."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        for number, entry in enumerate(value):
            yield from _unread(f"{place}[{number}]", entry)
    if not isinstance(value, BaseModel):
        return
    known = [name for name in type(value).model_fields if name != "version"]
    for key in value.model_extra or {}:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield _warning(f"{FILE}: {place}{'.' * bool(place)}{key}: is read nowhere{hint}")
    for name in type(value).model_fields:
        yield from _unread(f"{place}{'.' * bool(place)}{name}", getattr(value, name))


def _files(folder: Path, found: Competition) -> Found:
    """Pages, terms, logo, and what a phase hands out."""
    for number, page in enumerate(found.pages):
        yield from _text(folder, f"pages[{number}].file", page.file)
    yield from _text(folder, "terms", found.terms)
    image = _content(folder, "image", found.image)
    if isinstance(image, Finding):
        yield image
    elif not image.startswith(IMAGES):
        yield _failed(f"{FILE}: image: {found.image} is no PNG, JPEG, GIF or WebP image")
    for number, phase in enumerate(found.phases):
        for name in ("starting_kit", "public_data"):
            place = f"phases[{number}].{name}"
            yield from _part(folder, place, getattr(phase, name))


def _text(folder: Path, place: str, name: str) -> Found:
    data = _content(folder, place, name)
    if isinstance(data, Finding):
        yield data
        return
    try:
        empty = not data.decode("utf-8").strip()
    except UnicodeDecodeError:
        yield _failed(f"{FILE}: {place}: {name} is no UTF-8 text")
        return
    if empty:
        yield _failed(f"{FILE}: {place}: {name} is empty; the platform refuses the bundle")


def _content(folder: Path, place: str, name: str) -> bytes | Finding:
    try:
        path = competition.part(folder, place, name)
    except ConfigError as error:
        return _failed(_here(folder, error))
    if path is None or not path.is_file():
        return _failed(f"{FILE}: {place}: {name} is a folder; a file is wanted")
    with open(path, "rb") as stream:
        return stream.read(competition.MAX_TEXT)


def _here(folder: Path, error: Exception) -> str:
    return str(error).replace(f"{folder}: ", f"{FILE}: ", 1)


def _phases(found: Competition) -> Found:
    """Order, dates, tasks: the phases follow one another, and all but the last have an end."""
    order = sorted(enumerate(found.phases), key=lambda pair: pair[1].index or 0)
    if order != list(enumerate(found.phases)):
        yield _warning(f"{FILE}: phases: their index puts them in another order than the file")
    known = {entry.index for entry in found.tasks}
    for number, phase in order:
        place = f"{FILE}: phases[{number}] ({phase.name})"
        if phase.end is not None and phase.end <= phase.start:
            yield _failed(f"{place}: end: is not after its start")
        for index in phase.tasks:
            if index not in known:
                yield _failed(f"{place}: tasks: there is no task {index}")
        if phase.max_submissions < phase.max_submissions_per_day:
            yield _warning(f"{place}: max_submissions: is less than max_submissions_per_day")
        if not found.queue and phase.execution_time_limit > competition.DEFAULT_SECONDS:
            yield _warning(
                f"{place}: execution_time_limit: {phase.execution_time_limit} s; the default queue "
                f"may end each job after {competition.DEFAULT_SECONDS} s. Name a queue of your own"
            )
    for (number, earlier), (_, later) in pairwise(order):
        yield from _in_turn(f"{FILE}: phases[{number}] ({earlier.name})", earlier, later)
    for index in sorted(known - {index for phase in found.phases for index in phase.tasks}):
        yield _warning(f"{FILE}: tasks: no phase runs the task {index}")


def _in_turn(place: str, earlier: Phase, later: Phase) -> Found:
    if earlier.end is None:
        yield _failed(f"{place}: end: is missing; only the last phase may have none")
    elif later.start <= earlier.end:
        yield _failed(
            f"{place}: end: {earlier.end:%Y-%m-%d %H:%M} is not before the start of {later.name}, "
            f"{later.start:%Y-%m-%d %H:%M}; each phase starts after the end of the one before"
        )


def _tasks(folder: Path, found: Competition) -> Found:
    for index, count in Counter(entry.index for entry in found.tasks).items():
        if count > 1:
            yield _failed(f"{FILE}: tasks: index {index} stands {count} times; each has its own")
    for number, entry in enumerate(found.tasks):
        if entry.key is None:
            yield from _task(folder, f"tasks[{number}]", entry)


def _task(folder: Path, place: str, entry: TaskEntry) -> Found:
    yield from _program(folder, f"{place}.scoring_program", entry.scoring_program, "program")
    yield from _program(folder, f"{place}.ingestion_program", entry.ingestion_program, "ingestion")
    for name in ("input_data", "reference_data"):
        yield from _part(folder, f"{place}.{name}", getattr(entry, name))
    if entry.ingestion_only_during_scoring and entry.ingestion_program is None:
        yield _failed(f"{FILE}: {place}: ingestion_only_during_scoring: has no ingestion_program")
    if entry.reference_data is None:
        yield _warning(f"{FILE}: {place}: has no reference_data, so /app/input/ref is not there")
    elif entry.reference_data in (entry.input_data, entry.ingestion_program):
        yield _failed(f"{FILE}: {place}: reference_data: is shown to submissions as well")


def _part(folder: Path, place: str, name: str | None) -> Found:
    """A folder or zip that the platform is to take as it is."""
    if name is not None:
        names = _names(folder, place, name)
        if isinstance(names, Finding):
            yield names
        elif not names:
            yield _failed(f"{FILE}: {place}: {name} holds no file")


def _names(folder: Path, place: str, name: str) -> list[str] | Finding:
    """Files in a folder or zip of the bundle."""
    try:
        path = competition.part(folder, place, name)
        assert path is not None
        if path.is_dir():
            files = (child for child in path.rglob("*") if child.is_file())
            return sorted(child.relative_to(path).as_posix() for child in files)
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            damaged = archive.testzip()
    except ConfigError as error:
        return _failed(_here(folder, error))
    except BROKEN as error:
        return _failed(f"{FILE}: {place}: {name} is neither a folder nor a sound zip ({error})")
    if damaged is not None:
        return _failed(f"{FILE}: {place}: {name}: {damaged} does not match its checksum")
    for member in names:
        if leaves(member):
            return _failed(f"{FILE}: {place}: {name}: {member!r} leaves the folder of the zip")
    return sorted(names)


def _program(folder: Path, place: str, name: str | None, kind: Kind) -> Found:
    """A program: `metadata.yaml` at its root, with a command that can be run."""
    if name is None:
        return
    names = _names(folder, place, name)
    if isinstance(names, Finding):
        yield names
        return
    where = f"{FILE}: {place}: {name}"
    if not any(entry in names for entry in NAMES):
        inside = sorted(
            {entry.split("/")[0] for entry in names if entry.split("/")[1:] in METADATA}
        )
        hint = f"; it lies in {inside[0]}/, and no top folder is stripped" if inside else ""
        yield _failed(f"{where}: has no metadata.yaml at its root, so nothing is run{hint}")
        return
    with tempfile.TemporaryDirectory(prefix="axonnx-bundle-") as temporary:
        program = folder / name
        if program.is_file():
            _extract(program, Path(temporary))
            program = Path(temporary)
        try:
            found = plan(program, kind, scoring=kind == "program", late=False)
        except NoCommandError as error:
            yield _failed(f"{where}: {error}; write `command: python3 /app/program/….py`")
            return
    if found.command is None:
        yield _failed(f"{where}: {found.metadata} has no command, so nothing is run")
    else:
        yield from _command(where, found.words, names)


def _extract(path: Path, folder: Path) -> None:
    """The metadata of a zipped program."""
    with zipfile.ZipFile(path) as archive:
        for name in NAMES:
            if name in archive.namelist():
                with archive.open(name) as stream:
                    (folder / name).write_bytes(stream.read(MAX_BYTES))


def _command(where: str, words: Sequence[str], names: Iterable[str]) -> Found:
    for word in words:
        file = word.removeprefix("/app/program/")
        if word in SHELL:
            yield _warning(f"{where}: no shell reads the command: {word} is handed to the program")
        if file != word and file.endswith(".py") and file not in names:
            yield _failed(f"{where}: its command runs {word}, but the program holds no {file}")
        if word.startswith("/app/ingestion_program"):
            yield _warning(f"{where}: there is no /app/ingestion_program; it lies in /app/program")


def _solutions(folder: Path, found: Competition) -> Found:
    known = {entry.index for entry in found.tasks}
    for number, entry in enumerate(found.solutions):
        place = f"solutions[{number}]"
        yield from _part(folder, f"{place}.path", entry.path)
        for index in entry.tasks:
            if index not in known:
                yield _failed(f"{FILE}: {place}: tasks: there is no task {index}")


def _leaderboards(found: Competition) -> Found:
    if len(found.leaderboards) > 1:
        yield _warning(f"{FILE}: leaderboards: phases show the first of {len(found.leaderboards)}")
    for number, board in enumerate(found.leaderboards):
        place = f"{FILE}: leaderboards[{number}]"
        yield from _short(place, board)
        for name in ("key", "index"):
            values = Counter(getattr(column, name) for column in board.columns)
            for value, count in values.items():
                if count > 1:
                    yield _failed(f"{place}.columns: {name} {value} stands {count} times")
        yield from _columns(place, board)


def _columns(place: str, board: Leaderboard) -> Found:
    indices = {column.index for column in board.columns}
    for number, column in enumerate(board.columns):
        here = f"{place}.columns[{number}] ({column.key[:MAX_KEY]})"
        yield from _short(here, column)
        if "precision" not in column.model_fields_set:
            yield _warning(f"{here}: precision: is left out; scores are shown with 2 digits")
        elif column.precision > MAX_DIGITS:
            yield _warning(f"{here}: precision: scores are stored with {MAX_DIGITS} digits")
        if "sorting" not in column.model_fields_set:
            yield _warning(f"{here}: sorting: is left out; the highest score stands first")
        if column.computation and not column.computation_indexes:
            yield _failed(f"{here}: computation_indexes: is missing; {column.computation} of what?")
        for index in column.computation_indexes:
            if index not in indices:
                yield _failed(f"{here}: computation_indexes: there is no column {index}")


def _short(place: str, value: Leaderboard | ScoreColumn) -> Found:
    for name in ("key", "title"):
        text = getattr(value, name)
        if len(text) > MAX_KEY:
            yield _failed(
                f"{place}: {name}: has {len(text)} characters; at most {MAX_KEY} are taken"
            )

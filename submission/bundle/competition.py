"""`competition.yaml`, version 2, of a competition bundle: what it says, and the tasks it describes.

A bundle is a folder, or the zip of one, and comes from anyone: names are kept inside it, links are
refused, sizes are bounded. What the platform would make of it is `competition_check`'s question.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from submission.errors import ConfigError
from submission.worker.run import Task
from submission.worker.transfer import BROKEN, BadZipError, leaves, unpack

FILE = "competition.yaml"
DEFAULT_IMAGE = "codalab/codalab-legacy:py37"
DEFAULT_SECONDS = 600  # of a phase, and of the default queue, whatever a phase asks for
MAX_KEY = 36  # characters of a leaderboard's or column's key and title
MAX_TEXT = 1_000_000
MAX_NODES = 100_000
MAX_BYTES = 15 << 30  # what a user may store on the platform
PARTS = ("scoring_program", "ingestion_program", "input_data", "reference_data")
_YAML_ERRORS = (
    *(yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    RecursionError,
)


def _when(value: object) -> object:
    """A YAML date, or one as text, as UTC, which is meant where it names no zone."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = repr(value)
    if not isinstance(value, datetime):
        raise ValueError(f"{str(value)[:40]} is no date; write it as 2027-01-31 12:00:00")
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"{str(value)[:40]} is no date that UTC has") from None


def _inside(value: object) -> object:
    if isinstance(value, str) and leaves(value):
        raise ValueError(f"{value[:80]!r} leads out of the bundle")
    return value


Text = Annotated[str, Field(min_length=1)]
File = Annotated[str, Field(min_length=1, max_length=1024), BeforeValidator(_inside)]
When = Annotated[datetime, BeforeValidator(_when)]
Index = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Entry(BaseModel):
    """A mapping of the file; keys that the platform does not read are kept aside."""

    model_config = ConfigDict(extra="allow", frozen=True, coerce_numbers_to_str=True)


class Page(Entry):
    """A page of the competition's site: Markdown or HTML."""

    title: Text
    file: File


class Phase(Entry):
    """A phase: what is run (`tasks`, by index), when, how often and how long."""

    name: Text
    start: When
    tasks: Annotated[tuple[Index, ...], Field(min_length=1)]
    end: When | None = None
    index: Index | None = None
    description: str | None = None
    max_submissions_per_day: Positive = 5
    max_submissions: Positive = 100
    execution_time_limit: Positive = DEFAULT_SECONDS
    auto_migrate_to_this_phase: bool = False
    hide_output: bool = False
    hide_prediction_output: bool = False
    hide_score_output: bool = False
    starting_kit: File | None = None
    public_data: File | None = None


class TaskEntry(Entry):
    """A task: programs and data, each a folder or a zip, or the UUID of one on the platform."""

    index: Index
    key: Text | None = None
    name: Text | None = None
    description: str | None = None
    scoring_program: File | None = None
    ingestion_program: File | None = None
    input_data: File | None = None
    reference_data: File | None = None
    ingestion_only_during_scoring: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.key is None and self.name is None:
            raise ValueError("name: is missing")
        if self.key is None and self.scoring_program is None:
            raise ValueError("scoring_program: is missing")
        return self


class Solution(Entry):
    """A submission of the organiser's that shows how one looks."""

    index: Index
    tasks: Annotated[tuple[Index, ...], Field(min_length=1)]
    path: File | None = None
    key: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.key is None and self.path is None:
            raise ValueError("path: is missing")
        return self


class ScoreColumn(Entry):
    """A column of the leaderboard; `precision` counts digits behind the point."""

    title: Text
    key: Text
    index: Index
    sorting: Literal["desc", "asc"] = "desc"
    computation: Literal["sum", "avg", "min", "max"] | None = None
    computation_indexes: tuple[Index, ...] = ()
    precision: Index = 2
    hidden: bool = False


class Leaderboard(Entry):
    """A leaderboard; `submission_rule` says whose and which submissions stand on it."""

    title: Text
    key: Text
    columns: Annotated[tuple[ScoreColumn, ...], Field(min_length=1)]
    submission_rule: Literal[
        "Add",
        "Add_And_Delete",
        "Add_And_Delete_Multiple",
        "Force_Last",
        "Force_Latest_Multiple",
        "Force_Best",
    ] = "Add"
    hidden: bool = False


class Competition(Entry):
    """The whole file (V2 unpacker of the platform)."""

    version: Annotated[str, Field(pattern="^2$")]
    title: Text
    image: File
    terms: File
    pages: Annotated[tuple[Page, ...], Field(min_length=1)]
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    tasks: Annotated[tuple[TaskEntry, ...], Field(min_length=1)]
    leaderboards: Annotated[tuple[Leaderboard, ...], Field(min_length=1)]
    solutions: tuple[Solution, ...] = ()
    description: str | None = None
    docker_image: Annotated[str, Field(min_length=1, max_length=128)] = DEFAULT_IMAGE
    registration_auto_approve: bool = False
    make_programs_available: bool = False
    make_input_data_available: bool = False
    queue: str | None = None
    enable_detailed_results: bool = False
    show_detailed_results_in_submission_panel: bool = True
    show_detailed_results_in_leaderboard: bool = True
    contact_email: str | None = None
    reward: str | None = None
    auto_run_submissions: bool = True
    can_participants_make_submissions_public: bool = True
    forum_enabled: bool = True
    fact_sheet: Any = None
    competition_type: str | None = None

    def phase_of(self, index: int) -> Phase | None:
        """The first phase that runs the task `index`; None where no phase does."""
        return next((phase for phase in self.phases if index in phase.tasks), None)

    def seconds(self, index: int) -> int:
        """Time limit of each job of a task: on the default queue never over its 600 s."""
        phase = self.phase_of(index)
        limit = phase.execution_time_limit if phase else DEFAULT_SECONDS
        return limit if self.queue else min(limit, DEFAULT_SECONDS)


def read(folder: Path) -> Competition:
    """`competition.yaml` of an opened bundle; raises ConfigError with everything wrong with it."""
    found, competition = parse(folder)
    if competition is None:
        raise ConfigError("\n".join(f"{folder}: {text}" for text in found))
    return competition


def parse(folder: Path) -> tuple[list[str], Competition | None]:
    """What keeps the file from being read, in words; the competition where nothing does."""
    path = folder / FILE
    if not path.is_file() or path.is_symlink():
        inside = sorted(child.parent.name for child in folder.glob(f"*/{FILE}"))
        hint = (
            f"; it lies in {inside[0]}/: zip that folder from inside, no top folder is stripped"
            if inside
            else ""
        )
        return [f"{FILE}: is missing at the root{hint}"], None
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            return [f"{FILE}: is longer than {MAX_TEXT} bytes; it is a short text"], None
        content = _plain(data.decode("utf-8-sig"))
    except _YAML_ERRORS as error:
        text = " ".join(str(error).split())[:300] or "nested too deeply"
        return [f"{FILE}: is no YAML that can be read ({text})"], None
    if not isinstance(content, dict):
        return [f"{FILE}: must be keys and values, such as `version: 2`"], None
    try:
        return [], Competition.model_validate(content)
    except ValidationError as error:
        return [_complaint(content, entry) for entry in error.errors()], None


def _plain(text: str) -> Any:
    """The document as plain values; what aliases would blow up raises YAMLError."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _size(root, {}) > MAX_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_NODES} values")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are once every alias is written out."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # for an alias of what it stands in
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _complaint(content: dict[Any, Any], error: Any) -> str:
    place = tuple(error["loc"])
    keys = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        text = "is missing"
        if place == ("version",):
            text += ", so the platform reads the bundle as version 1; write `version: 2`"
        if place == ("leaderboards",) and "leaderboard" in content:
            text += "; it is called `leaderboards`, not `leaderboard`, and is a list"
    elif error["type"] == "too_short" or error["type"] == "string_too_short":
        text = "is empty"
    elif place == ("version",):
        text = f"is {str(error['input'])[:20]}; write `version: 2`"
    if text.endswith(": is missing"):
        keys, text = f"{keys}.{text.removesuffix(': is missing')}", "is missing"
    return f"{FILE}: {keys.lstrip('.')}: {text}"


@contextmanager
def opened(bundle: Path) -> Iterator[Path]:
    """A bundle as a folder: itself, or the zip unpacked into a temporary one.

    Raises ConfigError for what is neither, ArchiveError for a zip that nobody should unpack.
    """
    if bundle.is_dir():
        yield bundle
        return
    if not bundle.is_file():
        raise ConfigError(f"{bundle}: no such bundle (a folder or a zip is wanted)")
    with tempfile.TemporaryDirectory(prefix="axonnx-bundle-") as name:
        folder = Path(name) / "bundle"
        try:
            with zipfile.ZipFile(bundle) as archive:
                size = sum(info.file_size for info in archive.infolist())
            if size > MAX_BYTES:
                raise ConfigError(f"{bundle}: unpacks to {size} bytes; at most {MAX_BYTES} are")
            unpack(bundle, folder)
        except (BadZipError, *BROKEN) as error:
            raise ConfigError(f"{bundle}: is no zip that can be unpacked ({error})") from None
        yield folder


@contextmanager
def task_of(bundle: Path, index: int = 0) -> Iterator[Task]:
    """Task `index` of a bundle, folder or zip, for as long as the context lasts.

    Raises as `opened` and `read_task` do.
    """
    with opened(bundle) as folder:
        yield read_task(folder, index)


def read_task(folder: Path, index: int = 0) -> Task:
    """Task `index` of an opened bundle, with the leaderboard's columns and the phase's time limit.

    Raises ConfigError where `competition.yaml` cannot be read, has no such task, or names a part
    that is missing, a link, or outside the bundle.
    """
    competition = read(folder)
    found = [entry for entry in competition.tasks if entry.index == index]
    if not found:
        known = ", ".join(str(entry.index) for entry in competition.tasks)
        raise ConfigError(f"{folder}: has no task {index}; there are {known}")
    entry = found[0]
    if entry.scoring_program is None:
        raise ConfigError(f"{folder}: task {index} is one on the platform (key {entry.key})")
    parts = {name: part(folder, f"tasks[{index}].{name}", getattr(entry, name)) for name in PARTS}
    scoring_program = parts.pop("scoring_program")
    assert scoring_program is not None
    return Task(
        scoring_program,
        **parts,
        ingestion_only_during_scoring=entry.ingestion_only_during_scoring,
        columns=tuple(column.key for column in competition.leaderboards[0].columns),
        time_limit=float(competition.seconds(index)),
    )


def part(folder: Path, place: str, name: str | None) -> Path | None:
    """The file or folder `name` of an opened bundle, which holds no link; else ConfigError."""
    if name is None:
        return None
    path = folder / name
    steps = (path, *path.parents)
    try:
        if any(step.is_symlink() for step in steps[: len(path.relative_to(folder).parts)]):
            raise ConfigError(f"{folder}: {place}: {name} is a link; copy what it leads to")
        there = path.exists()
    except OSError as error:
        raise ConfigError(f"{folder}: {place}: {name[:80]}: {error.strerror}") from None
    if not there:
        raise ConfigError(f"{folder}: {place}: there is no {name} in the bundle")
    links = (child for child in path.rglob("*") if child.is_symlink())
    if (link := next(links, None)) is not None:
        name = link.relative_to(folder).as_posix()
        raise ConfigError(f"{folder}: {place}: {name} is a link; copy what it leads to")
    return path

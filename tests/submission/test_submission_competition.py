from __future__ import annotations

import copy
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.bundle import competition
from submission.bundle.competition import opened, parse, read_task, task_of
from submission.bundle.competition_check import findings, problems
from submission.errors import ArchiveError, ConfigError

FILES = {
    "logo.png": b"\x89PNG\r\n\x1a\n",
    "terms.md": b"Be fair.",
    "overview.md": b"# A competition",
    "ingestion/metadata": b"command: python3 /app/program/run.py /app/input_data",
    "ingestion/run.py": b"",
    "scoring/metadata.yaml": b"command: python3 /app/program/score.py $input $output",
    "scoring/score.py": b"",
    "inputs/x.npz": b"x",
    "answers/y.npz": b"y",
    "solution.zip": b"",
}
COLUMN = {"title": "Error", "key": "mse", "index": 0, "sorting": "asc", "precision": 4}
VALID: dict[str, Any] = {
    "version": 2,
    "title": "A competition",
    "image": "logo.png",
    "terms": "terms.md",
    "pages": [{"title": "Overview", "file": "overview.md"}],
    "tasks": [
        {
            "index": 0,
            "name": "all",
            "scoring_program": "scoring",
            "ingestion_program": "ingestion",
            "input_data": "inputs",
            "reference_data": "answers",
        }
    ],
    "solutions": [{"index": 0, "tasks": [0], "path": "solution.zip"}],
    "phases": [
        {"name": "first", "start": "2027-01-01", "end": "2027-02-01 12:00:00", "tasks": [0]},
        {"name": "second", "start": "2027-02-02T00:00:00Z", "tasks": [0]},
    ],
    "leaderboards": [{"title": "Results", "key": "main", "columns": [COLUMN]}],
}


def write(folder: Path, value: Any = VALID, **files: bytes | None) -> Path:
    contents = {**FILES, **files, "competition.yaml": yaml.safe_dump(value).encode()}
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "solution.zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("model.py", "")
        elif data is not None:
            path.write_bytes(data)
    return folder


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    value = copy.deepcopy(VALID)
    change(value)
    return value


def zipped(folder: Path, target: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{top}{path.relative_to(folder).as_posix()}")
    return target


def test_sound_bundle_has_no_finding(tmp_path: Path):
    folder = write(tmp_path / "bundle")
    assert findings(folder) == []
    assert findings(zipped(folder, tmp_path / "bundle.zip")) == []


def test_task_of_a_folder_and_of_a_zip(tmp_path: Path):
    value = changed(lambda v: v["phases"][0].update(execution_time_limit=30))
    folder = write(tmp_path / "bundle", value)
    task = read_task(folder)
    assert task.scoring_program == folder / "scoring"
    assert task.reference_data == folder / "answers"
    assert (task.columns, task.time_limit) == (("mse",), 30.0)
    with task_of(zipped(folder, tmp_path / "bundle.zip")) as other:
        assert other.columns == task.columns
        assert (other.scoring_program / "score.py").is_file()
        kept = other.scoring_program
    assert not kept.exists()


@pytest.mark.parametrize(("queue", "seconds"), [(None, 600.0), ("ours", 3000.0)])
def test_only_an_own_queue_gives_more_than_600_seconds(
    queue: str | None, seconds: float, tmp_path: Path
):
    def change(value: dict[str, Any]) -> None:
        value["phases"][0]["execution_time_limit"] = 3000
        value["queue"] = queue

    folder = write(tmp_path, changed(change))
    assert read_task(folder).time_limit == seconds
    warned = any("execution_time_limit" in finding.text for finding in findings(folder))
    assert warned == (queue is None)


def test_no_such_task(tmp_path: Path):
    with pytest.raises(ConfigError, match="has no task 3; there are 0"):
        read_task(write(tmp_path), 3)


REQUIRED = (
    *("version", "title", "image", "terms", "pages", "phases", "tasks", "leaderboards"),
    *("pages.0.title", "pages.0.file", "phases.0.name", "phases.0.start", "phases.0.end"),
    *("phases.0.tasks", "tasks.0.index", "tasks.0.name", "tasks.0.scoring_program"),
    *("solutions.0.index", "solutions.0.tasks", "solutions.0.path"),
    *("leaderboards.0.title", "leaderboards.0.key", "leaderboards.0.columns"),
    *("leaderboards.0.columns.0.title", "leaderboards.0.columns.0.key"),
    "leaderboards.0.columns.0.index",
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every key and every place in a list, from the top down."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def owner(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundle"))


@settings(max_examples=40, deadline=None)
@given(place=st.sampled_from(REQUIRED), empty=st.booleans())
def test_a_required_key_that_is_gone_is_named(place: str, empty: bool, bundle: Path):
    path = tuple(int(part) if part.isdigit() else part for part in place.split("."))
    value = copy.deepcopy(VALID)
    if empty:
        owner(value, path)[path[-1]] = None
    else:
        del owner(value, path)[path[-1]]
    (bundle / "competition.yaml").write_text(yaml.safe_dump(value))
    named = [text for text in problems(bundle) if f"{path[-1]}: " in text]
    assert len(named) == 1
    assert empty or "is missing" in named[0]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=40),
    st.dates(),
    st.datetimes(),
    st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "../..", "."]),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(list(places(VALID))), odd=ODD)
def test_odd_values_are_findings_and_never_crash(
    place: tuple[str | int, ...], odd: object, bundle: Path
):
    value = copy.deepcopy(VALID)
    owner(value, place)[place[-1]] = odd
    (bundle / "competition.yaml").write_text(yaml.safe_dump(value, allow_unicode=True))
    for finding in findings(bundle):
        assert finding.status in ("failed", "warning")


LATER = {"name": "second", "start": "2027-02-01 12:00:00", "tasks": [0]}
LONG = "k" * 37
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "singular": (
        lambda v: v.update(leaderboard=v.pop("leaderboards")),
        "leaderboards: is missing; it is called `leaderboards`, not `leaderboard`",
    ),
    "no version": (lambda v: v.pop("version"), "reads the bundle as version 1"),
    "version 1": (lambda v: v.update(version=1), "version: is 1; write `version: 2`"),
    "no page": (lambda v: v.update(pages=[]), "pages: is empty"),
    "no phase": (lambda v: v.update(phases=[]), "phases: is empty"),
    "unknown page": (lambda v: v["pages"][0].update(file="no.md"), "there is no no.md"),
    "escape": (lambda v: v.update(terms="../terms.md"), "'../terms.md' leads out of the bundle"),
    "absolute": (lambda v: v["tasks"][0].update(input_data="/etc"), "leads out of the bundle"),
    "no image": (lambda v: v.update(image="terms.md"), "terms.md is no PNG, JPEG, GIF or WebP"),
    "long name": (lambda v: v.update(terms="n" * 500), "File name too long"),
    "overlap": (lambda v: v["phases"].__setitem__(1, LATER), "is not before the start of second"),
    "backwards": (lambda v: v["phases"][0].update(end="2026-12-31"), "end: is not after its start"),
    "open end": (lambda v: v["phases"][0].pop("end"), "only the last phase may have none"),
    "no date": (lambda v: v["phases"][0].update(start="soon"), "start: 'soon' is no date"),
    "odd date": (lambda v: v["phases"][0].update(start="1/2/2027"), "write it as 2027-01-31"),
    "phase task": (lambda v: v["phases"][0].update(tasks=[0, 7]), "there is no task 7"),
    "twice": (lambda v: v["tasks"].append(v["tasks"][0]), "index 0 stands 2 times"),
    "program": (lambda v: v["tasks"][0].update(scoring_program="gone"), "there is no gone"),
    "no command": (
        lambda v: v["tasks"][0].update(scoring_program="answers"),
        "answers: has no metadata.yaml at its root, so nothing is run",
    ),
    "shown": (
        lambda v: v["tasks"][0].update(reference_data="inputs"),
        "reference_data: is shown to submissions as well",
    ),
    "late": (
        lambda v: v["tasks"][0].update(ingestion_only_during_scoring=1, ingestion_program=None),
        "ingestion_only_during_scoring: has no ingestion_program",
    ),
    "solution task": (lambda v: v["solutions"][0].update(tasks=[1]), "there is no task 1"),
    "solution": (lambda v: v["solutions"][0].update(path="terms.md"), "nor a sound zip"),
    "long key": (
        lambda v: v["leaderboards"][0]["columns"][0].update(key=LONG),
        "key: has 37 characters; at most 36",
    ),
    "long title": (lambda v: v["leaderboards"][0].update(title=LONG), "title: has 37 characters"),
    "key twice": (
        lambda v: v["leaderboards"][0]["columns"].append({**COLUMN, "index": 1}),
        "key mse stands 2 times",
    ),
    "sorting": (
        lambda v: v["leaderboards"][0]["columns"][0].update(sorting="down"),
        "sorting: Input should be 'desc' or 'asc'",
    ),
    "of what": (
        lambda v: v["leaderboards"][0]["columns"][0].update(computation="avg"),
        "computation_indexes: is missing",
    ),
    "of no column": (
        lambda v: v["leaderboards"][0]["columns"][0].update(
            computation="avg", computation_indexes=[4]
        ),
        "there is no column 4",
    ),
    "rule": (
        lambda v: v["leaderboards"][0].update(submission_rule="Best"),
        "submission_rule: Input should be 'Add'",
    ),
    "not a list": (lambda v: v.update(pages={"title": "x"}), "pages: Input should be a valid"),
    "image name": (lambda v: v.update(docker_image="i" * 129), "docker_image: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bundle(name: str, tmp_path: Path):
    change, text = BROKEN[name]
    found = problems(write(tmp_path, changed(change)))
    assert any(text in problem for problem in found), found


UNWISE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "precision": (
        lambda v: v["leaderboards"][0]["columns"][0].pop("precision"),
        "precision: is left out; scores are shown with 2 digits",
    ),
    "sorting": (
        lambda v: v["leaderboards"][0]["columns"][0].pop("sorting"),
        "sorting: is left out; the highest score stands first",
    ),
    "container": (
        lambda v: v.update(docker_imge="x"),
        "nowhere; did you mean docker_image",
    ),
    "documented": (
        lambda v: v.update(accepts_only_result_submissions=True),
        "accepts_only_result_submissions: is read nowhere",
    ),
    "unused task": (
        lambda v: v["tasks"].append({**v["tasks"][0], "index": 1}),
        "no phase runs the task 1",
    ),
    "no reference": (lambda v: v["tasks"][0].pop("reference_data"), "has no reference_data"),
}


@pytest.mark.parametrize("name", UNWISE)
def test_unwise_bundle_is_taken_with_a_warning(name: str, tmp_path: Path):
    change, text = UNWISE[name]
    folder = write(tmp_path, changed(change))
    assert problems(folder) == []
    assert any(text in finding.text for finding in findings(folder))


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("terms.md", b" \n", "terms.md is empty; the platform refuses the bundle"),
        ("terms.md", b"\xff\xfe", "terms.md is no UTF-8 text"),
        ("overview.md", b"", "overview.md is empty"),
        ("scoring/metadata.yaml", b"x: 1", "has no command, so nothing is run"),
        ("scoring/metadata.yaml", b"command: 'a", "no command, so nothing is run"),
        ("scoring/metadata.yaml", b'command: python3 "a', "cannot be split"),
        (
            "scoring/metadata.yaml",
            b"command: python3 /app/program/other.py",
            "the program holds no other.py",
        ),
        ("ingestion/metadata", b"run: x", "Program directory missing 'command' in metadata"),
    ],
)
def test_broken_file(name: str, data: bytes, text: str, tmp_path: Path):
    found = problems(write(tmp_path, **{name: data}))
    assert any(text in problem for problem in found), found


def test_command_that_needs_a_shell_is_warned_of(tmp_path: Path):
    command = b"command: python3 score.py && ls /app/ingestion_program"
    told = [f.text for f in findings(write(tmp_path, **{"scoring/metadata.yaml": command}))]
    assert any("&& is handed to the program" in text for text in told)
    assert any("there is no /app/ingestion_program" in text for text in told)


def test_zipped_parts_have_no_top_folder(tmp_path: Path):
    value = changed(lambda v: v["tasks"][0].update(scoring_program="scoring.zip"))
    folder = write(tmp_path / "bundle", value)
    zipped(folder / "scoring", folder / "scoring.zip", "scoring/")
    (found,) = problems(folder)
    assert "it lies in scoring/, and no top folder is stripped" in found
    zipped(folder / "scoring", folder / "scoring.zip")
    assert problems(folder) == []


def test_bundle_with_a_top_folder(tmp_path: Path):
    folder = write(tmp_path / "bundle")
    (found,) = problems(zipped(folder, tmp_path / "top.zip", "mine/"))
    assert "competition.yaml: is missing at the root; it lies in mine/" in found


BOMB = "\n".join(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}']) if n else 1}]" for n in range(9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "must be keys and values"),
        ("a: *b", "no YAML"),
        ("a: &a [*a]", "stand for more than 100000 values"),
        (BOMB, "stand for more than 100000 values"),
        ("a: [" * 3000, "no YAML"),
        ("a: !!python/object:os.system x", "no YAML"),
        ("a: 2027-13-45", "no YAML"),
        ("x" * 1_000_001, "is longer than"),
    ],
)
def test_text_that_is_no_competition(text: str, said: str, tmp_path: Path):
    (tmp_path / "competition.yaml").write_text(text)
    found, competition = parse(tmp_path)
    assert competition is None
    assert said in found[0]


def test_links_are_refused(tmp_path: Path):
    folder = write(tmp_path / "bundle")
    (folder / "answers" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="answers/passwd is a link; copy what it leads to"):
        read_task(folder)
    shutil.rmtree(folder / "answers")
    (folder / "answers").symlink_to("/etc")
    with pytest.raises(ConfigError, match="answers is a link"):
        read_task(folder)
    assert any("answers is a link" in text for text in problems(folder))


def hostile(path: Path, name: str, mode: int = 0o644, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, data)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "text"),
    [
        ("../out", 0o644, "leaves the folder"),
        ("/etc/x", 0o644, "leaves the folder"),
        ("link", stat.S_IFLNK | 0o777, "is a link"),
    ],
)
def test_hostile_zip_is_not_unpacked(name: str, mode: int, text: str, tmp_path: Path):
    path = hostile(tmp_path / "bundle.zip", name, mode)
    with pytest.raises(ArchiveError, match=text), opened(path):
        pass
    assert any(text in problem for problem in problems(path))


def test_too_large_damaged_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = hostile(tmp_path / "bundle.zip", "a", data=bytes(5000))
    monkeypatch.setattr(competition, "MAX_BYTES", 4999)
    assert "unpacks to 5000 bytes; at most 4999 are" in problems(path)[0]
    path.write_bytes(path.read_bytes()[:40])
    assert "is no zip that can be unpacked" in problems(path)[0]
    assert "no such bundle" in problems(tmp_path / "absent.zip")[0]

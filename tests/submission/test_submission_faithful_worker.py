"""The local worker beside an independent emulation of CodaBench's, case by case."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.errors import ArchiveError, ConfigError, RunError
from submission.worker import process as engine_process
from submission.worker import sandbox
from submission.worker.commands import NoCommandError, Plan, plan, with_variables
from submission.worker.engines import DockerEngine, Engine, Mount, ProcessEngine
from submission.worker.run import Outcome, Task, run_task
from submission.worker.score_file import ScoreFileError, Scores, flat, read_scores
from submission.worker.transfer import copy_given, copy_left, leaves, unpack

IMAGE = "python:3.11-slim-bookworm"
Files = Mapping[str, str]

INGEST = """
import os, sys
sys.path.insert(0, "/app/ingested_program")
import model
with open("/app/input_data/x.txt") as rows, open("/app/output/answer.txt", "w") as answers:
    for row in rows:
        print(model.predict(float(row)), file=answers)
with open("/app/output/seen.txt", "w") as seen:
    print(os.getcwd(), os.getpid(), sorted(os.listdir("/app")), file=seen)
    for top in sorted(os.listdir("/app")):
        print(top, sorted(os.listdir(f"/app/{top}")), os.access(f"/app/{top}", os.W_OK), file=seen)
    print([os.environ[key] for key in ("PYTHONUNBUFFERED", "http_proxy", "https_proxy")], file=seen)
"""
SCORE = """
import json, os
truth = open("/app/input/ref/truth.txt").read().split()
answer = open("/app/input/res/answer.txt").read().split()
error = sum((float(a) - float(b)) ** 2 for a, b in zip(answer, truth, strict=True))
scores = {"error": error, "rows": len(answer)}
scores["seen"] = len(json.dumps([os.getcwd(), sorted(os.listdir("/app"))]))
scores["results"] = len(os.listdir("/app/input/res"))
json.dump(scores, open("/app/output/scores.json", "w"))
"""
MODEL = {"model.py": "predict = lambda x: 2 * x\n", "deep/data.txt": "d"}
INGESTION = {"metadata.yaml": "command: python3 /app/program/ingest.py", "ingest.py": INGEST}
SCORING = {"metadata.yaml": "command: python3 /app/program/score.py", "score.py": SCORE}
ANSWER = {"answer.txt": "2\n4\n7\n"}


def program(code: str, command: str = "python3 /app/program/main.py") -> dict[str, str]:
    return {"metadata": f"command: {json.dumps(command)}", "main.py": textwrap.dedent(code)}


@dataclass(frozen=True)
class Case:
    """One submission (its files, or the bytes of its zip) and the programs it meets."""

    submission: Files | bytes
    ingestion: Files | None = None
    scoring: Files = field(default_factory=lambda: SCORING)
    late: bool = False
    columns: tuple[str, ...] = ()
    limit: int = 60


ARGUMENTS = "import json, sys; json.dump(sys.argv, open('/app/output/{}.json', 'w'))"
EVERY_VARIABLE = " ".join(
    "$" + name
    for name in (
        *("input", "output", "tmp", "program", "ingestion_program", "submission_program"),
        *("hidden", "shared", "predictions", "unknown", "input_data"),
    )
)
LATE = """
import os, time
while not os.path.exists("/app/shared/ready"):
    time.sleep(0.02)
import json
json.dump({"error": float(open("/app/shared/ready").read())}, open("/app/output/scores.json", "w"))
"""
LATE_INGESTION = """
import os, sys
sys.path.insert(0, "/app/ingested_program")
import model
with open("/app/shared/part", "w") as file:
    file.write(str(model.predict(len(os.listdir("/app/input_data")))))
os.rename("/app/shared/part", "/app/shared/ready")
sys.exit(4)
"""
TALK = """
import os, time
while not os.path.exists("/app/output/question"):
    time.sleep(0.02)
open("/app/output/answer.txt", "w").write("2 4 6")
"""
ASK = """
import os, time
open("/app/output/question", "w").close()
while not os.path.exists("/app/output/answer.txt"):
    time.sleep(0.02)
print(sorted(os.listdir("/app/output")), sorted(os.listdir("/app")))
"""
NO_SCORES: Files = program("open('/app/output/other.json', 'w').write('{}')")


def scores_file(name: str, text: str) -> Files:
    return program(f"open('/app/output/{name}', 'w').write({text!r})")


CASES = {
    "results": Case(ANSWER, columns=("error", "rows", "seen", "results")),
    "code": Case(MODEL, INGESTION, columns=("error",)),
    "command_beside_ingestion": Case(program(TALK), program(ASK)),
    "command_fails": Case(program("import sys; print('no'); sys.exit(5)"), INGESTION),
    "metadata_without_command": Case({"metadata": "description: mine", **ANSWER}),
    "metadata_is_no_yaml": Case({"metadata": "a: [", **ANSWER}),
    "metadata_is_a_list": Case({"metadata.yaml": "- command", **ANSWER}),
    "metadata_is_a_folder": Case({"metadata/x.txt": "", **ANSWER}),
    "metadata_yaml_goes_first": Case(
        {"metadata.yaml": "description: x", **program("open('/app/output/answer.txt', 'w')")}
    ),
    "ingestion_crashes": Case(MODEL, program("raise SystemExit(9)")),
    "ingestion_without_metadata": Case({**MODEL, **ANSWER}, {"ingest.py": INGEST}),
    "ingestion_without_command": Case({**MODEL, **ANSWER}, {"metadata": "a: 1"}),
    "no_such_command": Case({"metadata": "command: no-such-command now"}, program("")),
    "command_cannot_be_split": Case({"metadata": "command: python3 'x"}, INGESTION),
    "no_shell": Case(program("", "python3 -c \"print('a && b | c')\" > $HOME; ls"), INGESTION),
    "scoring_crashes": Case(ANSWER, scoring=program("print('half'); raise SystemExit(3)")),
    "scoring_without_command": Case(ANSWER, scoring={"metadata": "a: 1"}),
    "scoring_without_metadata": Case(ANSWER, scoring={"scores.json": '{"error": 1}'}),
    "scoring_command_is_a_list": Case(ANSWER, scoring={"metadata": "command: [python3, x]"}),
    "no_scores": Case(ANSWER, scoring=NO_SCORES),
    "scores_txt": Case(ANSWER, scoring=scores_file("scores.txt", "error: 0.5\nrows: 3\n")),
    "scores_json_is_broken": Case(ANSWER, scoring=scores_file("scores.json", '{"error": ')),
    "scores_json_before_txt": Case(
        ANSWER,
        scoring=program(
            "for name in ('scores.json', 'scores.txt'):\n"
            "    open('/app/output/' + name, 'w').write('{\"%s\": 1}' % name[-4:])"
        ),
    ),
    "missing_and_dropped": Case(
        ANSWER,
        scoring=scores_file("scores.json", '{"error": 1, "other": 2}'),
        columns=("error", "accuracy", "time"),
    ),
    "ingestion_writes_metadata": Case(ANSWER, program("open('/app/output/metadata', 'w')")),
    "scoring_writes_metadata": Case(
        ANSWER,
        scoring=program(SCORE + "\nopen('/app/output/metadata', 'w').close()"),
    ),
    "metadata_json_is_fine": Case(ANSWER, program("open('/app/output/metadata.json', 'w')")),
    "prediction_time_limit": Case(MODEL, program("while True: pass"), limit=1),
    "scoring_time_limit": Case(ANSWER, scoring=program("while True: pass"), limit=1),
    "no_zip": Case(b"no zip"),
    "empty_file": Case(b""),
    "empty_zip": Case({}, program("open('/app/output/answer.txt', 'w').write('2 4 6')")),
    "nested": Case({f"sub/{name}": text for name, text in MODEL.items()}, INGESTION),
    "only_during_scoring": Case(MODEL, program(LATE_INGESTION), program(LATE), late=True),
    "old_variables": Case(
        program(ARGUMENTS.format("program"), f"python3 $program/main.py {EVERY_VARIABLE}"),
        program(ARGUMENTS.format("ingestion"), f"python3 $program/main.py {EVERY_VARIABLE}"),
        program(ARGUMENTS.format("scores"), f"python3 $ingestion_program/main.py {EVERY_VARIABLE}"),
    ),
    "old_variables_during_scoring": Case(
        {"metadata": "a: 1"},
        program(
            ARGUMENTS.format("ingestion"), f"python3 $ingestion_program/main.py {EVERY_VARIABLE}"
        ),
        program(ARGUMENTS.format("scores"), f"python3 /app/program/main.py {EVERY_VARIABLE}"),
        late=True,
    ),
}
IN_CONTAINERS = (
    *("results", "code", "command_beside_ingestion", "no_such_command", "scoring_crashes"),
    *("prediction_time_limit", "only_during_scoring", "old_variables"),
)


def write(folder: Path, files: Files) -> Path:
    folder.mkdir()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_zip(path: Path, content: Files | bytes) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


def lay_out(case: Case, folder: Path) -> tuple[Task, Path]:
    """The task's folders and the submission's zip, written below `folder`."""
    task = Task(
        scoring_program=write(folder / "scoring", case.scoring),
        ingestion_program=None
        if case.ingestion is None
        else write(folder / "ingestion", case.ingestion),
        input_data=write(folder / "input", {"x.txt": "1\n2\n3\n"}),
        reference_data=write(folder / "reference", {"truth.txt": "2 4 6"}),
        ingestion_only_during_scoring=case.late,
        columns=case.columns,
        time_limit=case.limit,
    )
    return task, write_zip(folder / "submission.zip", case.submission)


def emulate(
    worker: Path, task: Task, submission: Path, work: Path, *options: str
) -> dict[str, object]:
    """The independent emulation's report on the same task."""
    words = [sys.executable, str(worker), "--submission", str(submission), "--work", str(work)]
    words += ["--scoring", str(task.scoring_program), "--input", str(task.input_data)]
    words += ["--ref", str(task.reference_data), "--time-limit", f"{task.time_limit:g}", "--json"]
    if task.ingestion_program:
        words += ["--ingestion", str(task.ingestion_program)]
    if task.ingestion_only_during_scoring:
        words += ["--ingestion-only-during-scoring"]
    if task.columns:
        words += ["--leaderboard", ",".join(task.columns)]
    done = subprocess.run([*words, *options], capture_output=True, text=True)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def tree(folder: Path) -> dict[str, bytes]:
    """Files by name; the times in the worker's own `metadata` differ from run to run."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.name == "metadata" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def statuses(outcome: Outcome) -> dict[str, dict[str, int | None]]:
    found = {}
    for job in (outcome.prediction, outcome.scoring):
        if job is not None:
            found[job.name] = {run.kind: run.exit_status for run in job.runs}
    return found


def check_same(outcome: Outcome, report: dict[str, object], told: list[str]) -> None:
    """Final status, details, scores, columns, exit statuses, outputs, streams: all the same."""
    assert told == report["status"][1:]
    assert outcome.status == report["status"][-1]
    details = str(report.get("status_details", "")).partition(" (program_rc=")[0]
    assert outcome.details == details
    scores = report.get("scores", {})
    if isinstance(scores, dict):
        assert dict(outcome.scores) == {k: v for k, v in scores.items() if not outcome.scores_wrong}
    else:
        assert outcome.scores_wrong
    if "missing_columns" in report:
        assert list(outcome.missing_columns) == report["missing_columns"]
        assert list(outcome.dropped_scores) == report["dropped_scores"]
    ends = statuses(outcome)
    if prediction := report.get("prediction"):
        assert ends["prediction"].get("ingestion") == prediction["ingestion_exit"]
        assert ends["prediction"].get("program") == prediction["program_exit"]
        assert outcome.prediction is not None
        output = outcome.prediction.output
        assert sorted(path.name for path in output.iterdir()) == prediction["output"]
        assert tree(output) == tree(Path(prediction["root"]) / "output")
    if scoring := report.get("scoring"):
        assert ends["scoring"].get("ingestion") == scoring["ingestion_exit"]
        assert ends["scoring"].get("program") == scoring["exit"]
    if scoring is None and prediction is None:
        assert outcome.scoring is None
    last = outcome.scoring or outcome.prediction
    assert last is not None
    root = Path(str(scoring["root"] if scoring else report["failed_root"]))
    theirs = root / "output"
    assert tree(last.output) == (tree(theirs) if theirs.exists() else {})
    for run in last.runs:
        name = f"{run.kind}_stdout.txt"
        assert run.stdout.read_bytes() == (root / name).read_bytes()


@pytest.fixture(scope="module")
def worker(shared_data: Path) -> Path:
    """The independent emulation, which lies beside the recordings."""
    path = shared_data.parent / "tools" / "codabench-worker"
    if not path.is_file():
        pytest.skip(f"no emulated worker at {path}")
    return path


@pytest.fixture(scope="module")
def process() -> ProcessEngine:
    found = sandbox.find_python("3.11")
    assert found is not None
    engine = ProcessEngine(sandbox.environment(found), None)
    if "NOT ISOLATED" in engine.describe():
        pytest.skip(engine.describe())
    return engine


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_as_in_the_emulated_worker(name: str, worker: Path, process: ProcessEngine, tmp_path: Path):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("the emulated worker's engine `unshare` needs root and unshare")
    task, submission = lay_out(CASES[name], tmp_path)
    options = ("--engine", "unshare", "--path", str(process.interpreter.path.parent))
    report = emulate(worker, task, submission, tmp_path / "theirs", *options)
    told: list[str] = []
    outcome = run_task(task, submission, process, tmp_path / "ours", told.append)
    check_same(outcome, report, told)


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("name", IN_CONTAINERS)
def test_as_in_the_emulated_workers_containers(name: str, worker: Path, tmp_path: Path):
    task, submission = lay_out(CASES[name], tmp_path)
    options = ("--engine", "docker", "--image", IMAGE)
    report = emulate(worker, task, submission, tmp_path / "theirs", *options)
    told: list[str] = []
    outcome = run_task(task, submission, DockerEngine(IMAGE), tmp_path / "ours", told.append)
    check_same(outcome, report, told)


@pytest.mark.slow
def test_without_namespaces_programs_find_their_files_by_their_words(
    process: ProcessEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Paths inside a program are the system's own there: what is named in the command works."""
    code = "import sys; open(sys.argv[1] + '/scores.json', 'w').write('{\"error\": 0}')"
    (tmp_path / "scoring").mkdir()
    (tmp_path / "scoring" / "metadata").write_text("command: python3 main.py $output")
    (tmp_path / "scoring" / "main.py").write_text(code)
    submission = write_zip(tmp_path / "submission.zip", ANSWER)
    monkeypatch.setattr(engine_process, "_namespaces", lambda interpreter: (None, "as a test"))
    outcome = run_task(Task(tmp_path / "scoring"), submission, process, tmp_path / "work")
    assert (outcome.status, outcome.scores) == ("Finished", {"error": 0.0})


# Without a program: an engine that answers at once.


@dataclass(frozen=True)
class Ended:
    status: int
    peak_bytes: int | None = 5
    out_of_memory: bool = False

    def wait(self, seconds: float) -> int | None:
        return self.status

    def kill(self) -> None:
        pass


@dataclass(frozen=True)
class Pretended:
    """Writes `left` into the output of a program whose words name a job's file."""

    left: Mapping[str, Mapping[str, str]]
    ends: Mapping[str, Ended] = field(default_factory=dict)
    name: str = "pretended"

    def describe(self) -> str:
        return "nothing runs"

    def start(
        self, words: Sequence[str], mounts: Sequence[Mount], stdout: Path, stderr: Path
    ) -> Ended:
        stdout.touch()
        stderr.touch()
        output = next(mount.host for mount in mounts if mount.container == "/app/output")
        for name, text in self.left.get(words[0], {}).items():
            (output / name).write_text(text)
        return self.ends.get(words[0], Ended(0))


def pretend(tmp_path: Path, engine: Engine, submission: Files = ANSWER) -> Outcome:
    scoring = write(tmp_path / "scoring", {"metadata": "command: score"})
    zipped = write_zip(tmp_path / "submission.zip", submission)
    task = Task(scoring, columns=("error", "time"))
    return run_task(task, zipped, engine, tmp_path / "work")


def test_a_result_submission_and_its_notes(tmp_path: Path):
    engine = Pretended({"score": {"scores.json": '{"error": 1, "x": true, "more": 2}'}})
    outcome = pretend(tmp_path, engine, {**ANSWER, "a/b.txt": ""})
    assert outcome.status == "Finished"
    assert outcome.scores == {"error": 1.0, "more": 2.0}
    assert (outcome.missing_columns, outcome.dropped_scores) == (("time",), ("more",))
    assert outcome.scores_wrong == "scores.json: x is True, not a number"
    assert outcome.prediction is not None
    assert outcome.prediction.notes == (
        "the submission has no metadata: its 2 files were copied to the output, "
        "none of them was run",
        "the task has no ingestion program",
    )
    assert outcome.scoring is not None
    assert outcome.scoring.runs[0].peak_bytes == 5
    assert sorted(path.name for path in (outcome.scoring.folder / "input" / "res").iterdir()) == [
        *("a", "answer.txt", "metadata")
    ]


def test_what_ended_a_program_is_said(tmp_path: Path):
    engine = Pretended({}, {"score": Ended(137, out_of_memory=True), "mine": Ended(1)})
    outcome = pretend(tmp_path, engine, {"metadata": "command: mine"})
    assert outcome.details == "Child task failed or non-zero return code"
    assert outcome.prediction is not None
    assert outcome.scoring is not None
    assert outcome.prediction.notes[-1] == (
        "the submission ended with status 1, which CodaBench ignores: see program_stderr.txt"
    )
    said = "the scoring program was ended for holding more memory than the cap"
    assert outcome.scoring.notes == (said,)
    assert outcome.scoring.runs[0].out_of_memory


def test_a_scoring_program_that_cannot_start_fails(tmp_path: Path):
    """Its start raises, which is no exit status, and no missing scores file either."""
    scoring = write(tmp_path / "scoring", {"metadata": "command: python3 'x"})
    zipped = write_zip(tmp_path / "submission.zip", ANSWER)
    outcome = run_task(Task(scoring), zipped, Pretended({}), tmp_path / "work")
    assert outcome.details == "Child task failed or non-zero return code"
    assert outcome.scoring is not None
    assert outcome.scoring.notes == (
        "the scoring program: command in metadata cannot be split: No closing quotation",
    )


def test_a_used_folder_or_a_missing_part_is_refused(tmp_path: Path):
    pretend(tmp_path, Pretended({}))
    task = Task(tmp_path / "scoring")
    with pytest.raises(ConfigError, match="is there already"):
        run_task(task, tmp_path / "submission.zip", Pretended({}), tmp_path / "work")
    with pytest.raises(ConfigError, match="absent: no such file or folder"):
        run_task(task, tmp_path / "absent", Pretended({}), tmp_path / "other")


KINDS = st.sampled_from(["program", "ingestion"])
VARIABLE = st.sampled_from(EVERY_VARIABLE.split())


@given(st.lists(VARIABLE | st.text(), max_size=6), KINDS, st.booleans(), st.booleans())
def test_old_variables_are_replaced_once_and_for_all(
    parts: list[str], kind: str, scoring: bool, late: bool
):
    command = "".join(parts)
    once = with_variables(command, kind, scoring=scoring, late=late)
    for name in EVERY_VARIABLE.split():
        assert name in ("$unknown", "$input_data") or name not in once
    assert once == with_variables(once, kind, scoring=scoring, late=late)
    if "$" not in command:
        assert once == command


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_characters="$\0", max_codepoint=0xD7FF)), min_size=1))
def test_words_of_a_command_arrive_as_written(tmp_path_factory, words: list[str]):
    folder = tmp_path_factory.getbasetemp() / "words"
    folder.mkdir(exist_ok=True)
    command = shlex.join(words)
    (folder / "metadata.yaml").write_text(json.dumps({"command": command}))
    got = plan(folder, "program", scoring=False, late=False)
    assert got == Plan("metadata.yaml", command, tuple(words))


def test_metadata_that_the_worker_raises_at(tmp_path: Path):
    path = tmp_path / "metadata"
    texts = ("command: [a, b]", "command: ' '", "command: 'a \"b'", "command: 3")
    for text in (*texts, 'command: "\\0"', 'command: "\\ud800"'):
        path.write_text(text)
        with pytest.raises(NoCommandError, match="command in metadata"):
            plan(tmp_path, "program", scoring=True, late=False)
    path.write_bytes(b"command: \xff")
    with pytest.raises(NoCommandError, match="cannot be read"):
        plan(tmp_path, "program", scoring=True, late=False)
    path.write_text("[" * 1000)
    with pytest.raises(NoCommandError, match="cannot be read"):
        plan(tmp_path, "program", scoring=True, late=False)
    path.write_text(" " * (2 << 20))
    with pytest.raises(NoCommandError, match="at most 1048576"):
        plan(tmp_path, "program", scoring=True, late=False)


NUMBERS = st.floats(-9e9, 9e9) | st.integers(-(10**9), 10**9)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=8), NUMBERS))
def test_flat_numbers_are_scores_as_they_are(content: dict[str, float]):
    assert flat("scores.json", json.loads(json.dumps(content))) == Scores(content)


@given(ANYTHING)
def test_whatever_a_scores_file_holds_is_numbers_or_words(content: object):
    scores = flat("scores.json", content)
    assert all(math.isfinite(value) for value in scores.values.values())
    kept = len(scores.values) == len(content) if isinstance(content, dict) else False
    assert bool(scores.wrong) is not kept


def test_scores_that_are_none(tmp_path: Path):
    for content, text in (
        ([1], "scores.json holds a list, not one flat {column key: number}"),
        ({"a": {"b": 1}}, "scores.json: a is an object, not a number"),
        ({"a": math.nan}, "scores.json: a is nan, not a number"),
        ({"a": 10**400}, "scores.json: a is a large integer, at least 1e10 in size"),
    ):
        assert flat("scores.json", content).wrong == text
    (tmp_path / "scores.txt").write_text("a: 1e-05\nb: x\n")
    assert read_scores(tmp_path) == Scores({"a": 1e-05}, "scores.txt: b is 'x', not a number")
    for name, data in (("scores.txt", b"a: ["), ("scores.json", b"\xff"), ("scores.json", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ScoreFileError, match="Could not decode scores json properly"):
            read_scores(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "C:/x", "a\\..\\x"])
def test_hostile_zips_are_not_unpacked(tmp_path: Path, name: str):
    path = write_zip(tmp_path / "x.zip", {name: "x"})
    with pytest.raises(ArchiveError, match="leaves the folder"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert leaves(name)


def test_links_and_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="link is a link"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    monkeypatch.setattr("submission.worker.transfer.MAX_BYTES", 3)
    with pytest.raises(ArchiveError, match="unpacks to 1 files of 4 bytes"):
        unpack(write_zip(tmp_path / "y.zip", {"a": "four"}), tmp_path / "out")


def test_what_a_program_left_is_copied_without_following(tmp_path: Path):
    left = write(tmp_path / "left", {"a/b.txt": "b", "shut/c.txt": "c"})
    (left / "passwd").symlink_to("/etc/passwd")
    (left / "folder").symlink_to("/etc")
    os.mkfifo(left / "pipe")
    (left / "shut" / "c.txt").chmod(0)
    (left / "shut").chmod(0)
    copied = copy_left(left, tmp_path / "got")
    assert (copied.files, copied.left_out) == (2, ("folder", "passwd", "pipe"))
    assert sorted(tree(tmp_path / "got")) == ["a/b.txt", "shut/c.txt"]
    (left / "scores.json").symlink_to("/etc/passwd")
    with pytest.raises(ScoreFileError, match="Could not find scores file"):
        read_scores(left)


def test_output_without_bounds_is_refused(tmp_path: Path):
    write(tmp_path / "left", {})
    with open(tmp_path / "left" / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunError, match="bytes"):
        copy_left(tmp_path / "left", tmp_path / "got")


def test_a_folder_of_the_users_arrives_as_its_zip_would(tmp_path: Path):
    given_folder = write(tmp_path / "given", {"run.sh": "x", "deep/data.txt": "d"})
    (given_folder / "run.sh").chmod(0o755)
    (given_folder / "linked.txt").symlink_to(given_folder / "run.sh")
    (given_folder / "empty").mkdir()
    zipped = shutil.make_archive(str(tmp_path / "made"), "zip", given_folder)
    assert copy_given(given_folder, tmp_path / "copied").files == 3
    assert unpack(Path(zipped), tmp_path / "unpacked") == 3
    both = [tmp_path / "copied", tmp_path / "unpacked"]
    names = [
        {path.relative_to(root): path.stat().st_mode for path in root.rglob("*")} for root in both
    ]
    assert names[0] == names[1]
    assert tree(both[0]) == tree(both[1])
    (given_folder / "elsewhere").symlink_to("/etc")
    with pytest.raises(ConfigError, match="is a link to a folder"):
        copy_given(given_folder, tmp_path / "again")

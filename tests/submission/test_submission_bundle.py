from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from emulated_worker import emulator_or_skip
from submission_helpers import Artifacts, configuration

from artifact.arrays import encode_npz
from artifact.bundle import write_zip
from submission.build import build as build_submission
from submission.bundle import cli as bundle_cli
from submission.bundle import data as bundle_data
from submission.bundle import logo as bundle_logo
from submission.bundle import pages as bundle_pages
from submission.bundle.build import _phases, build
from submission.bundle.competition import read, task_of
from submission.bundle.competition_check import findings
from submission.bundle.config import load_config
from submission.bundle.data import Data
from submission.challenges import Limits
from submission.errors import ConfigError
from submission.worker import sandbox
from submission.worker.engines import DockerEngine, Engine, ProcessEngine
from submission.worker.run import Outcome, run_task

ROOT = Path(__file__).resolve().parents[2]
ROWS = 12
COMPETITION = """
competition:
  title: Small benchmark
  description: A | b.
  contact: organiser@example.org
  docker_image: axonnx-codabench:test
  pages: {Rules: No external data.}
  phases:
    - {name: Development, start: "2027-01-01", end: "2027-03-01", per_day: 3, seconds: 120}
    - {name: Final, start: "2027-03-02T08:00:00+01:00", total: 9}
"""
FORECASTING = """
challenge:
  name: neural_forecasting
  channels: {affi: 5, beignet: 3}
  data:
    affi: {file: test_data_affi_masked.npz, subject: affi}
    beignet: {file: test_data_beignet_masked.npz, subject: beignet}
"""
CODE = """
challenge:
  name: generic
  metric: accuracy
  data: {test: {subject: decoder, input: test.npz, reference: answers.npz}}
"""
RESULT = """
challenge:
  name: generic
  kind: result
  metric: mse
  data: {test: {subject: main, input: test.npz, reference: answers.npz}}
"""


def save(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def organise(folder: Path, challenge: str) -> tuple[Path, Path]:
    """The YAML file and the data of a small benchmark."""
    config, data = folder / "bundle.yaml", folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(challenge + COMPETITION)
    generator = np.random.default_rng(5)
    if challenge == FORECASTING:
        for name, channels in (("affi", 5), ("beignet", 3)):
            rows = generator.normal(100, 40, (ROWS, 20, channels, 9)).astype(np.float32)
            save(data / f"test_data_{name}.npz", arr_0=rows)
    elif challenge == CODE:
        neural = generator.normal(size=(ROWS, 20, 6, 1)).astype(np.float32)
        behavior = generator.normal(size=(ROWS, 20, 2)).astype(np.float32)
        mask = np.ones((ROWS, 20), bool)
        asked = {"neural": neural, "behavior": behavior, "behavior_mask": mask}
        save(data / "input_data" / "test.npz", **asked)
        save(data / "reference_data" / "answers.npz", probability=generator.integers(0, 3, ROWS))
    else:
        save(data / "input_data" / "test.npz", x=generator.normal(size=(40, 3)))
        save(data / "reference_data" / "answers.npz", y=generator.normal(size=(ROWS, 2)))
    return config, data


@pytest.fixture(scope="module", params=[FORECASTING, CODE, RESULT], ids=["hdr", "code", "result"])
def organised(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """Challenge, bundle as a folder, bundle as a zip."""
    folder = tmp_path_factory.mktemp("organised")
    config, data = organise(folder, request.param)
    build(config, data, folder / "bundle")
    return request.param, folder / "bundle", build(config, data, folder / "bundle.zip").path


def test_bundle_is_sound_and_the_same_twice(organised: tuple[str, Path, Path], tmp_path: Path):
    challenge, folder, archive = organised
    assert findings(folder) == []
    assert findings(archive) == []
    again = build(*organise(tmp_path, challenge), tmp_path / "again.zip").path
    assert again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as members:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
        files = {name: (folder / name).read_bytes() for name in names}
        assert files == {name: members.read(name) for name in members.namelist()}
    left = [path for path in archive.parent.iterdir() if ".tmp-" in path.name]
    assert left == []


def test_competition_says_what_the_configuration_says(organised: tuple[str, Path, Path]):
    challenge, folder, _ = organised
    found = read(folder)
    assert (found.title, found.contact_email) == ("Small benchmark", "organiser@example.org")
    titles = ["Overview", "Data", "Evaluation", "Submission", "Rules"]
    assert [page.title for page in found.pages] == titles
    first, last = found.phases
    assert (first.max_submissions_per_day, first.execution_time_limit) == (3, 120)
    assert (last.max_submissions_per_day, last.max_submissions, last.end) == (5, 9, None)
    assert last.start.isoformat() == "2027-03-02T07:00:00+00:00"
    assert all(phase.hide_score_output for phase in found.phases)
    best = {FORECASTING: "total_MSR", CODE: "accuracy", RESULT: "mse"}[challenge]
    assert found.leaderboards[0].columns[0].key == best
    assert (found.tasks[0].ingestion_program is None) == (challenge == RESULT)


def test_pages_tell_shapes_and_no_answer_file(organised: tuple[str, Path, Path]):
    challenge, folder, _ = organised
    text = "".join(path.read_text() for path in sorted(folder.glob("*.md")))
    row = {FORECASTING: "| 20 × 5 × 9 |", CODE: "| 20 × 2 |", RESULT: "| float32 | 12 | 2 |"}
    assert row[challenge] in text
    shown = [*folder.glob("*.md"), *(folder / "starting_kit").rglob("*")]
    shown += (folder / "public_data").rglob("*")
    for name in (path.name for path in (folder / "reference_data").iterdir()):
        for path in shown:
            assert path.name != name
            assert not path.is_file() or name.encode() not in path.read_bytes(), path


def local_run(kit: Path, *words: Path) -> dict[str, float]:
    command = [sys.executable, "-B", "-I", str(kit / "run_local.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pairs = [line.split(": ") for line in done.stdout.splitlines()]
    return {pair[0]: float(pair[1]) for pair in pairs if pair[-1].lstrip("-")[0].isdigit()}


@pytest.mark.slow
def test_starting_kit_runs_without_this_project(organised: tuple[str, Path, Path], tmp_path: Path):
    _, folder, _ = organised
    kit = shutil.copytree(folder / "starting_kit", tmp_path / "kit")
    scores = local_run(kit)
    assert set(scores) == {column.key for column in read(folder).leaderboards[0].columns}
    assert local_run(kit, folder / "solution" / "solution.zip") == scores


# --- both jobs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process() -> ProcessEngine:
    found = sandbox.find_python("3.11")
    assert found is not None
    return ProcessEngine(sandbox.environment(found), None)


@pytest.fixture(scope="module")
def worker(shared_data: Path) -> Path:
    """The independent emulation of CodaBench's worker, which lies beside the recordings."""
    return emulator_or_skip(shared_data)


def emulate(worker: Path, bundle: Path, submission: Path, *options: str) -> dict[str, object]:
    command = [sys.executable, str(worker), "--bundle", str(bundle)]
    command += ["--submission", str(submission), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report: dict[str, object] = json.loads(done.stdout)
    return report


def local(bundle: Path, submission: Path, engine: Engine, work: Path) -> Outcome:
    with task_of(bundle) as task:
        return run_task(task, submission, engine, work)


def submit(challenge: str, artifacts: Artifacts, output: Path) -> Path:
    """A submission of artifacts, built as a participant would."""
    if challenge == FORECASTING:
        return build_submission(configuration(artifacts, output)).path
    settings = yaml.safe_load(challenge)["challenge"]
    name = settings.pop("name")
    config = configuration(
        artifacts,
        output,
        challenge=name,
        settings=settings,
        models={"decoder": artifacts.decoder},
    )
    return build_submission(config).path


def agree(outcome: Outcome, report: Mapping[str, object]) -> None:
    assert (outcome.status, outcome.details) == ("Finished", ""), outcome
    assert report["status"][-1] == "Finished", report  # type: ignore[index]
    assert dict(outcome.scores) == report["scores"]
    assert (outcome.missing_columns, report["missing_columns"]) == ((), [])
    assert (outcome.dropped_scores, report["dropped_scores"]) == ((), [])


@pytest.mark.slow
def test_solution_scores_the_same_here_and_in_the_emulated_worker(
    organised: tuple[str, Path, Path], process: ProcessEngine, worker: Path, tmp_path: Path
):
    challenge, folder, archive = organised
    solution = folder / "solution" / "solution.zip"
    outcome = local(archive, solution, process, tmp_path / "work")
    options = ("--engine", "unshare", "--path", str(process.interpreter.path.parent))
    agree(outcome, emulate(worker, folder, solution, *options))
    config, data = organise(tmp_path, challenge)
    assert dict(build(config, data, tmp_path / "again.zip").scores) == pytest.approx(
        dict(outcome.scores), rel=1e-12
    )


@pytest.mark.slow
def test_built_submission_scores_the_same_here_and_in_the_emulated_worker(
    organised: tuple[str, Path, Path],
    artifacts: Artifacts,
    runtime_cache: Path,
    process: ProcessEngine,
    worker: Path,
    tmp_path: Path,
):
    challenge, folder, archive = organised
    if challenge == RESULT:
        ones = encode_npz({"y": np.ones((ROWS, 2), np.float32)})
        submission = write_zip({"test.predictions.npz": ones}, tmp_path / "submission.zip")
    else:
        submission = submit(challenge, artifacts, tmp_path / "submission.zip")
    outcome = local(archive, submission, process, tmp_path / "work")
    options = ("--engine", "unshare", "--path", str(process.interpreter.path.parent))
    agree(outcome, emulate(worker, folder, submission, *options))


@pytest.fixture(scope="module")
def image() -> str:
    """The codabench image of this tree: numpy alone, named as the bundles here name it."""
    if shutil.which("docker") is None:
        pytest.fail("no Docker engine; start one, or leave out the marker `docker`")
    tag, file = "axonnx-codabench:test", str(ROOT / "docker" / "codabench.Dockerfile")
    words = ["docker", "build", "--quiet", "--network", "host", "-f", file, "-t", tag, str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tag


@pytest.mark.slow
@pytest.mark.docker
def test_bundle_in_containers(
    image: str, worker: Path, artifacts: Artifacts, runtime_cache: Path, tmp_path: Path
):
    config, data = organise(tmp_path, FORECASTING)
    folder = build(config, data, tmp_path / "bundle").path
    built = submit(FORECASTING, artifacts, tmp_path / "submission.zip")
    for number, submission in enumerate((folder / "solution" / "solution.zip", built)):
        outcome = local(folder, submission, DockerEngine(image), tmp_path / f"work{number}")
        agree(outcome, emulate(worker, folder, submission, "--engine", "docker"))


# --- what is shown, and what is not ----------------------------------------------------------


def test_masked_inputs_hide_what_is_forecast(tmp_path: Path):
    config, data = organise(tmp_path, FORECASTING)
    folder = build(config, data, tmp_path / "bundle").path
    for name in ("affi", "beignet"):
        whole = np.load(folder / "reference_data" / f"test_data_{name}.npz")["arr_0"]
        shown = np.load(folder / "input_data" / f"test_data_{name}_masked.npz")["arr_0"]
        assert np.array_equal(shown[:, :10], whole[:, :10])
        assert np.array_equal(shown[:, 10:], np.repeat(whole[:, 9:10], 10, axis=1))
        assert np.array_equal(whole, np.load(data / f"test_data_{name}.npz")["arr_0"])


def lay_out(folder: Path, feature: bool = False) -> tuple[Path, Path]:
    """The forecasting data as input_data/ and reference_data/, the latter of feature 0 alone."""
    config, data = organise(folder, FORECASTING)
    for name in ("affi", "beignet"):
        path = data / f"test_data_{name}.npz"
        whole = np.load(path)["arr_0"]
        masked = whole.copy()
        masked[:, 10:] = whole[:, 9:10]
        save(data / "input_data" / f"test_data_{name}_masked.npz", arr_0=masked)
        save(data / "reference_data" / path.name, arr_0=whole[..., 0] if feature else whole)
        path.unlink()
    return config, data


@pytest.mark.parametrize("feature", [False, True])
def test_challenge_layout(feature: bool, tmp_path: Path):
    config, data = lay_out(tmp_path, feature)
    (data / "input_data" / "notes.txt").write_text("x")
    built = build(config, data, tmp_path / "bundle.zip")
    assert built.compared == (2, 6)
    assert any("notes.txt, which no test set names" in note for note in built.notes)


def spoil(data: Path, how: str) -> None:
    """Let answers stand where participants see them."""
    answers = np.load(data / "reference_data" / "test_data_affi.npz")["arr_0"]
    steps = answers[:, 10:]
    if how == "not masked":
        save(data / "input_data" / "test_data_affi_masked.npz", arr_0=answers)
    elif how == "one step left":
        path = data / "input_data" / "test_data_affi_masked.npz"
        arrays = np.load(path)["arr_0"]
        arrays[:, 15] = answers[:, 15]
        save(path, arr_0=arrays)
    elif how == "whole file":
        save(data / "public_data" / "deep" / "train.npz", x=answers.astype(np.float64))
    elif how == "some rows":
        save(data / "public_data" / "train.npz", x=answers[[7, 3]])
    elif how == "other order":
        save(data / "starting_kit" / "more.npz", x=answers[::-1])
    elif how == "one channel":
        np.save(data / "starting_kit.npy", answers[:, 12, 3, 0])
        (data / "starting_kit").mkdir()
        (data / "starting_kit.npy").rename(data / "starting_kit" / "x.npy")
    else:
        save(data / "public_data" / "target.npz", x=steps[..., 0].reshape(ROWS, -1))


@pytest.mark.parametrize(
    "how",
    [
        *("not masked", "one step left", "whole file", "some rows", "other order"),
        *("one channel", "flat"),
    ],
)
def test_an_answer_that_is_shown_stops_it(how: str, tmp_path: Path):
    config, data = lay_out(tmp_path)
    spoil(data, how)
    with pytest.raises(ConfigError, match=r"answers would be shown:\ntest_data_affi\.npz: arr_0"):
        build(config, data, tmp_path / "bundle.zip")
    assert not (tmp_path / "bundle.zip").exists()


def test_labels_among_the_inputs_are_found(tmp_path: Path):
    config, data = organise(tmp_path, CODE)
    labels = np.random.default_rng(0).integers(0, 3, 200)
    save(data / "reference_data" / "answers.npz", label=labels)
    save(data / "input_data" / "test.npz", x=np.stack([labels, labels**2], 1).astype(np.float32))
    with pytest.raises(ConfigError, match="1 of its 1 hidden columns stand"):
        build(config, data, tmp_path / "bundle.zip")


def test_sparse_events_that_agree_by_chance_are_no_leak():
    events = np.zeros((50, 4), np.float32)
    events[3] = 1.0
    assert bundle_data._shared(events, np.ones(events.shape, bool), events + 0.0) == ""


def test_public_data_and_kit_reach_participants(tmp_path: Path):
    config, data = lay_out(tmp_path)
    save(data / "public_data" / "train.npz", x=np.random.default_rng(8).normal(size=(ROWS, 30)))
    (data / "starting_kit").mkdir()
    (data / "starting_kit" / "README.md").write_text("Our own.")
    (data / "starting_kit" / "slides.pdf").write_bytes(b"%PDF")
    built = build(config, data, tmp_path / "bundle")
    assert (built.path / "starting_kit" / "README.md").read_text() == "Our own."
    assert (built.path / "public_data" / "train.npz").is_file()
    assert {phase.public_data for phase in read(built.path).phases} == {"public_data"}
    assert "not compared with the answers: starting_kit/slides.pdf" in built.notes


def test_dates_are_shown_in_utc_and_no_limit_is_zero(tmp_path: Path):
    path = tmp_path / "bundle.yaml"
    path.write_text(FORECASTING + COMPETITION)
    _, definition, settings = load_config(path)
    definition = replace(definition, limits=Limits(seconds=0.3))
    shown = bundle_pages._phases(settings.phases, definition)
    assert "| Final | 2027-03-02 07:00 | open | 5 | 9 | 1 |" in shown
    phase = _phases(definition, settings, Data({}, {}, {}, {}))[1]
    assert phase["start"] == "2027-03-02T07:00:00+00:00"
    assert phase["execution_time_limit"] == 1


def test_mistakes_in_the_configuration_have_a_line(tmp_path: Path):
    path = tmp_path / "bundle.yaml"
    start = "challenge: {name: generic}\ncompetition:\n  title: x\n"
    text = f"{start}  phases:\n  - {{name: a, start: soon}}\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"yaml:5: competition\.phases\.0\.start: 'soon' is no"):
        load_config(path)
    path.write_text(text.replace("soon", '"2027-01-01"').replace("generic", "generik"))
    with pytest.raises(ConfigError, match=r"yaml:1: challenge: no challenge 'generik'"):
        load_config(path)


# --- what does not fit -----------------------------------------------------------------------


def test_data_that_do_not_fit(tmp_path: Path):
    config, data = lay_out(tmp_path)
    inputs = data / "input_data" / "test_data_affi_masked.npz"
    answers = data / "reference_data" / "test_data_affi.npz"
    right, truth = np.load(inputs)["arr_0"], np.load(answers)["arr_0"]
    cases = [
        (inputs, {"x": right}, "holds x; must hold arr_0"),
        (inputs, {"arr_0": right.astype("f8")}, r"float64 .*; the challenge asks for float32"),
        (inputs, {"arr_0": right[:, :, :4]}, r"\(rows, 20, 5, 9\)"),
        (inputs, {"arr_0": right[:5]}, "test_data_affi.npz: arr_0 has 12 rows; the set affi has 5"),
        (answers, {"arr_0": truth[:, :, :4]}, "the first submission cannot be scored by it"),
        (answers, {"arr_0": truth * np.nan}, "the reference holds NaN"),
    ]
    for path, arrays, text in cases:
        save(path, **arrays)
        with pytest.raises(ConfigError, match=text):
            build(config, data, tmp_path / "bundle.zip")
        save(inputs, arr_0=right)
        save(answers, arr_0=truth)
    answers.unlink()
    with pytest.raises(ConfigError, match=r"reference_data: test_data_affi\.npz: is missing"):
        build(config, data, tmp_path / "bundle.zip")
    shutil.rmtree(data / "reference_data")
    with pytest.raises(ConfigError, match="has input_data/ and no reference_data/"):
        build(config, data, tmp_path / "bundle.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.yaml", "data"]


def test_recordings_of_a_challenge_that_hides_nothing(tmp_path: Path):
    config, data = organise(tmp_path, CODE)
    save(data / "answers.npz", x=np.ones((ROWS, 2)))
    for name in ("input_data", "reference_data"):
        shutil.rmtree(data / name)
    with pytest.raises(ConfigError, match="hides nothing of a recording"):
        build(config, data, tmp_path / "bundle.zip")


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, data = organise(tmp_path, FORECASTING)
    config.write_text(config.read_text().replace("2027-03-02T08", "2027-02-02T08"))
    with pytest.raises(ConfigError, match="is not before the start of Final"):
        build(config, data, tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.yaml", "data"]
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        build(config, data, tmp_path / "bundle")


def test_given_solution(tmp_path: Path):
    config, data = organise(tmp_path, FORECASTING)
    wrong = write_zip({"deep/model.py": b""}, tmp_path / "wrong.zip")
    with pytest.raises(ConfigError, match="has a top folder deep/"):
        build(config, data, tmp_path / "bundle.zip", solution=wrong)
    right = write_zip({"model.py": b""}, tmp_path / "right.zip")
    built = build(config, data, tmp_path / "bundle", solution=right)
    assert (built.path / "solution" / "solution.zip").read_bytes() == right.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("title: Small", "titel: Small", "competition.titel: unknown key; did you mean 'title'"),
        (
            "per_day: 3",
            "per_days: 3",
            "competition.phases.0.per_days: unknown key; did you mean 'per_day'",
        ),
        ('"2027-01-01"', "2027-01-01", "is a date; quote it"),
        ('"2027-01-01"', "soon", "competition.phases.0.start: 'soon' is no date"),
        ("per_day: 3", "per_day: 0", "competition.phases.0.per_day: "),
        (
            "name: neural_forecasting",
            "name: neural_forcasting",
            "did you mean 'neural_forecasting'",
        ),
        ("channels: {affi: 5", "channels: {affi: none", "challenge.channels.affi: "),
        ("\n  name: neural_forecasting", "", "challenge.name: must name one of"),
        ("challenge:", "submission:", "challenge: "),
    ],
)
def test_wrong_configuration(old: str, new: str, text: str, tmp_path: Path):
    config, _ = organise(tmp_path, FORECASTING)
    written = config.read_text()
    assert old in written
    config.write_text(written.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_config(config)
    assert text in str(caught.value)
    assert str(config) in str(caught.value)


@pytest.mark.parametrize("kind", ["code", "result"])
def test_challenge_without_test_sets(kind: str, tmp_path: Path):
    config = tmp_path / "bundle.yaml"
    config.write_text(f"challenge: {{name: generic, kind: {kind}}}\n{COMPETITION}")
    with pytest.raises(ConfigError, match=r"has no test set; name them under challenge\.data"):
        load_config(config)


def test_example_can_be_read():
    _, definition, settings = load_config(ROOT / "configs" / "submissions" / "bundle.yaml")
    assert [entry.reference for entry in definition.sets] == ["test_data_rat.npz"]
    assert len(settings.phases) == 2


ALGONAUTS = """
challenge:
  name: algonauts2025
  subjects: [sub-01, sub-02]
  parcels: 9
  target_samples: {sub-01: {one: 20, two: 14}, sub-02: {one: 20, two: 14}}
"""
EEG = "challenge: {name: eeg2025, channels: 4, samples: 6}"
MOUSE = "challenge: {name: mouse_vs_ai, recordings: [a], rate: 1.0, folds: 2}"


def organise_published(folder: Path, challenge: str) -> tuple[Path, Path]:
    """As `organise`, for the challenges with contracts of their own."""
    config, data = organise(folder, challenge)
    shutil.rmtree(data)
    _, definition, _ = load_config(config)
    generator = np.random.default_rng(6)
    for entry in definition.sets:
        shape = {ALGONAUTS: (entry.rows or 0, 9), EEG: (ROWS, 1), MOUSE: (ROWS, 3)}[challenge]
        answers = generator.normal(size=shape).astype(np.float32)
        save(data / "reference_data" / entry.reference, arr_0=answers)
        row = {ALGONAUTS: (7,), EEG: (4, 6), MOUSE: (1, 86, 155)}[challenge]
        inputs = generator.random((ROWS, *row), np.float32)
        save(data / "input_data" / entry.input, arr_0=inputs)
    return config, data


@pytest.mark.parametrize("challenge", [ALGONAUTS, EEG, MOUSE], ids=["algonauts", "eeg", "mouse"])
def test_published_challenges(challenge: str, tmp_path: Path):
    config, data = organise_published(tmp_path, challenge)
    solution = None
    if challenge == MOUSE:
        with pytest.raises(ConfigError, match="no first submission can be made up for mouse_vs_ai"):
            build(config, data, tmp_path / "bundle")
        solution = write_zip({"model.onnx": b""}, tmp_path / "solution.zip")
    built = build(config, data, tmp_path / "bundle", solution=solution)
    assert findings(built.path) == []
    if challenge == ALGONAUTS:
        assert set(local_run(built.path / "starting_kit")) == {"sub-01", "sub-02", "mean"}
    if challenge == EEG:
        source = (built.path / "starting_kit" / "submission.py").read_text()
        compile(source, "submission.py", "exec")
        assert built.scores["challenge_1"] == pytest.approx(1.0, abs=0.5)


def test_logo_is_a_picture_of_the_title():
    one, other = (bundle_logo.draw(title) for title in ("one", "other"))
    assert one == bundle_logo.draw("one") != other
    assert one.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\2")


# --- the command -----------------------------------------------------------------------------


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    bundle_cli.add_words(parser.add_subparsers())
    options = parser.parse_args(["bundle", *map(str, words)])
    code: int = options.run(options)
    return code


def test_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config, data = organise(tmp_path, FORECASTING)
    output = tmp_path / "bundle.zip"
    assert command(config, "--data", data, "--output", output) == 0
    told = capsys.readouterr().out
    assert "no answer is shown: 2 arrays of answers compared with 6" in told
    assert "total_MSR" in told
    assert command("--check", output) == 0
    assert "passed" in capsys.readouterr().out
    assert command("--check", tmp_path) == 1
    assert "competition.yaml: is missing" in capsys.readouterr().out
    for words in ((), (config,), (config, "--check", output)):
        with pytest.raises(ConfigError):
            command(*words)

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from eeg_regressors import (
    CHANNELS,
    LAYOUTS,
    ROWS,
    SAMPLES,
    SUBJECTS,
    answer,
    define,
    windows,
    write_regressor,
)
from pydantic import ValidationError
from torch_environment import environment_or_skip

import artifact
from submission import programs
from submission.build import build
from submission.challenges import ARRAY_KEY, Definition, template
from submission.checking.check import check
from submission.config import SubmissionConfig
from submission.worker.sandbox import Interpreter

BOOTSTRAP = template("bootstrap.py")


def lay_out(folder: Path, models: dict[str, Path], definition: Definition) -> Path:
    """A program as in the zip, which takes the runtime from this environment."""
    (folder / "vendor" / f"cp3{sys.version_info[1]}").mkdir(parents=True)
    (folder / "submission.py").write_bytes(BOOTSTRAP + (definition.template or b""))
    stored = {name: {"folder": path.name} for name, path in models.items()}
    (folder / "submission.json").write_text(json.dumps({"artifacts": stored}))
    for path in models.values():
        shutil.copytree(path, folder / "artifacts" / path.name, dirs_exist_ok=True)
    package = Path(artifact.__file__).parent
    shutil.copytree(package, folder / "artifact", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def regressors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An artifact for every layout; that of `time_channel` answers (batch,)."""
    root = tmp_path_factory.mktemp("regressors")
    return {
        name: write_regressor(root / name, axes, flat=name == "time_channel")
        for name, axes in LAYOUTS.items()
    }


def test_definition_has_the_published_facts():
    definition = define()
    assert definition.entry == "submission.py"
    assert [(entry.name, entry.input) for entry in definition.sets] == [
        ("challenge_1", "challenge_1.npz"),
        ("challenge_2", "challenge_2.npz"),
    ]
    contract = definition.contract("challenge_1", None)
    assert contract.inputs[ARRAY_KEY].shape == (129, 200)
    assert contract.outputs[ARRAY_KEY].shape == (1,)
    assert definition.image.python == "3.10"
    assert set(definition.image.packages) == {"numpy==2.2.6", "torch==2.2.2"}
    assert [column.key for column in definition.columns] == [*SUBJECTS, "overall"]
    assert definition.interface[0] == "Submission"


def test_settings_name_files_and_sizes():
    definition = define(channels=5, rate=250.5, files={"challenge_2": "other.npz"}, rows={})
    assert [entry.input for entry in definition.sets] == ["challenge_1.npz", "other.npz"]
    assert definition.options["rate"] == 250.5
    text = (BOOTSTRAP + (definition.template or b"")).decode()
    ast.parse(text, feature_version=(3, 10))
    assert "CHANNELS, SAMPLES, RATE = 5, 200, 250.5" in text
    with pytest.raises(ValidationError, match=r"challenge_2\.npz is named twice"):
        define(files={"challenge_1": "challenge_2.npz"})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_to_the_artifact_and_back(regressors: dict[str, Path], layout: str):
    definition, X = define(channels=CHANNELS, samples=SAMPLES), windows(3)
    model = artifact.load(regressors[layout])
    assert definition.problems("challenge_1", model.manifest) == []
    inputs = definition.to_model({ARRAY_KEY: X}, model.manifest)
    found = definition.from_model(model.predict(inputs), model.manifest)[ARRAY_KEY]
    assert found.tobytes() == answer(regressors[layout], LAYOUTS[layout], X).tobytes()
    assert found.shape == (3, 1)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"samples": 9}, [r"eeg is (batch, channel=6, time=9); it must have the axes"]),
        ({"axes": ("time",), "channels": 1}, ["(batch, channel=6, time=8), in any order"]),
        (
            {"dtype": "float64", "outputs": 2},
            [
                "input eeg is float64, not float32",
                "score is (batch, dim=2); it must be (batch,) or (batch, 1)",
                "output score is float64, not float32",
            ],
        ),
    ],
)
def test_artifact_that_does_not_fit(tmp_path: Path, changes, messages):
    folder = write_regressor(tmp_path / "model", **changes)
    definition = define(channels=CHANNELS, samples=SAMPLES)
    found = definition.problems("challenge_1", artifact.read(folder).manifest)
    assert len(found) == len(messages)
    for text, part in zip(found, messages, strict=True):
        assert part in text


DRIVER = """
import importlib.util, json, sys
import torch
import numpy as np

def program(path):
    spec = importlib.util.spec_from_file_location("program", path + "/submission.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def text_of(function, *words):
    try:
        function(*words)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

first, second, data, output = sys.argv[1:]
X = torch.from_dlpack(np.load(data)["arr_0"])
found, notes = {}, {}
for place, device in ((first, "cpu"), (second, torch.device("cpu"))):
    made = program(place).Submission(100, device)
    for number in (1, 2):
        model = getattr(made, f"get_model_challenge_{number}")().to(device)
        model.eval()
        assert isinstance(model, torch.nn.Module)
        assert next(model.parameters()).device == X.device
        key = f"{place.rsplit('/')[-1]}_{number}"
        with torch.inference_mode():
            whole = model.forward(X)
            parts = [model(X[i : i + 5]) for i in range(0, len(X), 5)]
        assert whole.dtype == torch.float32 and whole.device == X.device
        found[key] = np.from_dlpack(whole)
        found[key + "_parts"] = np.concatenate([np.from_dlpack(part) for part in parts])
        trained = X.clone().requires_grad_().swapaxes(1, 2).contiguous().swapaxes(1, 2)
        found[key + "_strided"] = np.from_dlpack(model(trained))
notes["shape"] = text_of(model, X[:, :-1])
notes["flat"] = text_of(model, X[0])
notes["rate"] = text_of(program(first).Submission, 128, "cpu")
notes["nan"] = text_of(model, X * float("nan"))
np.savez(output, **found)
print(json.dumps(notes))
"""


@pytest.fixture(scope="module")
def driven(
    regressors: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Answers of two programs called by hand in torch, and the messages of bad calls.

    The second program's artifacts lie in the current folder.
    """
    root = tmp_path_factory.mktemp("driven")
    definition = define(channels=CHANNELS, samples=SAMPLES)
    pairs = (("first", tuple(LAYOUTS)[:2]), ("second", tuple(LAYOUTS)[2:]))
    for name, layouts in pairs:
        models = dict(zip(SUBJECTS, (regressors[layout] for layout in layouts), strict=True))
        lay_out(root / name, models, definition)
    (root / "second" / "artifacts").rename(root / "artifacts")
    np.savez(root / "data.npz", windows())
    (root / "driver.py").write_text(DRIVER)
    words = [str(root / name) for name in ("first", "second", "data.npz", "answers.npz")]
    done = subprocess.run(
        [sys.executable, "-I", "driver.py", *words], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(root / "answers.npz") as data:
        return {name: data[name] for name in data.files}, json.loads(done.stdout)


def test_module_answers_as_the_artifact_in_every_layout_and_batch(regressors, driven):
    answers, _ = driven
    for place, (layout, axes) in enumerate(LAYOUTS.items()):
        key = f"{('first', 'second')[place // 2]}_{place % 2 + 1}"
        expected = answer(regressors[layout], axes, windows())
        for name in (key, f"{key}_parts", f"{key}_strided"):
            assert answers[name].shape == (ROWS, 1)
            assert answers[name].tobytes() == expected.tobytes(), name


def test_bad_calls_of_the_module_say_what_is_wrong(driven):
    _, notes = driven
    assert "X has shape (37, 5, 8); it must be (batch, channel=6, time=8)" in notes["shape"]
    assert "X has shape (6, 8); it must be" in notes["flat"]
    assert "SFREQ is 128; the models of this submission take EEG at 100 Hz" in notes["rate"]
    assert "not a finite number at batch 0" in notes["nan"]


def ingest(folder: Path, data: np.ndarray, python: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the challenge's ingestion program in `folder`, which holds the submission twice."""
    definition = define(channels=data.shape[1], samples=data.shape[2], batch=16)
    files = programs.ingestion_program(definition, definition.sets)
    assert files is not None
    programs.write_files(folder / "program", files)
    (folder / "input_data").mkdir()
    for entry in definition.sets:
        np.savez(folder / "input_data" / entry.input, data)
    names = ("input_data", "output", "program", "ingested_program")
    words = [*python, "program/ingestion.py", *(str(folder / name) for name in names)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_interpreter_without_torch_gets_a_clear_message(tmp_path: Path):
    (tmp_path / "output").mkdir()
    blocked = "import runpy, sys; sys.modules['torch'] = None; sys.argv[:] = sys.argv[1:]; "
    blocked += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = ingest(tmp_path, windows(), [sys.executable, "-I", "-c", blocked])
    assert done.returncode == 1
    text = (tmp_path / "output" / "ingestion_error.txt").read_text()
    assert "has no torch, the challenge's image has: use an image" in text
    assert text in done.stderr
    assert not (tmp_path / "output" / "ingestion.json").exists()


@pytest.mark.slow
def test_ingestion_with_a_new_torch(regressors: dict[str, Path], tmp_path: Path):
    definition = define(channels=CHANNELS, samples=SAMPLES)
    models = dict.fromkeys(SUBJECTS, regressors["time_channel_feature"])
    lay_out(tmp_path / "ingested_program", models, definition)
    shutil.copytree(tmp_path / "ingested_program", tmp_path / "output")
    done = ingest(tmp_path, windows(), [sys.executable])
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "output" / "ingestion.json").read_text())
    assert facts["modules"]["submission"] == str(tmp_path / "output" / "submission.py")
    assert set(facts["seconds"]) == {"import", "load challenge_1", "load challenge_2"}
    assert [(call["name"], call["rows"]) for call in facts["calls"]] == [
        ("challenge_1", ROWS),
        ("challenge_2", ROWS),
    ]
    layout = "time_channel_feature"
    expected = answer(regressors[layout], LAYOUTS[layout], windows())
    for entry in definition.sets:
        with np.load(tmp_path / "output" / entry.output) as data:
            assert data[ARRAY_KEY].shape == (ROWS, 1)
            assert data[ARRAY_KEY].tobytes() == expected.tobytes()


@pytest.fixture(scope="module")
def image_python() -> Interpreter:
    """Python 3.10, torch 2.2.2 and numpy 2.2.6, in which torch and numpy share no arrays."""
    return environment_or_skip(define().image)


@pytest.fixture(scope="module")
def full_size(
    image_python: Interpreter, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Path]]:
    """A zip of the challenge's own size for Python 3.10, and its artifacts by subject."""
    root = tmp_path_factory.mktemp("full_size")
    sizes = {"channels": 129, "samples": 200}
    models = {
        "challenge_1": write_regressor(root / "c1", LAYOUTS["time_channel_feature"], **sizes),
        "challenge_2": write_regressor(root / "c2", flat=True, **sizes),
    }
    values = {
        "challenge": "eeg2025",
        "settings": {},
        "models": models,
        "python": ("3.10",),
        "output": root / "submission.zip",
    }
    return build(SubmissionConfig.model_validate(values)).path, models


@pytest.mark.slow
def test_check_with_the_packages_of_the_image(full_size: tuple[Path, dict[str, Path]]):
    report = check(full_size[0], engine="process", pythons=["3.10"])
    assert report.passed, report.findings
    assert {row.set for row in report.rows} == set(SUBJECTS)
    assert all(row.equal for row in report.rows)
    assert any("every bit equal in two runs" in finding.text for finding in report.findings)


@pytest.mark.slow
def test_emulated_worker_with_the_packages_of_the_image(
    image_python: Interpreter,
    full_size: tuple[Path, dict[str, Path]],
    shared_data: Path,
    tmp_path: Path,
):
    emulator = shared_data.parent / "tools" / "codabench-worker"
    if not emulator.is_file() or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip(f"no {emulator}, or neither root nor unshare")
    definition, (path, models) = define(), full_size
    X = {entry.name: {ARRAY_KEY: windows(150, 129, 200)} for entry in definition.sets}
    targets = np.random.default_rng(3).normal(size=(150, 1))
    references = {name: {ARRAY_KEY: targets} for name in X}
    programs.write_task(definition, definition.sets, X, references, tmp_path / "task")
    folders = {"ingestion": "ingestion_program", "scoring": "scoring_program"}
    folders |= {"input": "input_data", "ref": "reference_data"}
    words = [w for key, name in folders.items() for w in (f"--{key}", f"{tmp_path}/task/{name}")]
    words += ["--submission", str(path), "--leaderboard", ",".join((*SUBJECTS, "overall"))]
    words += ["--json", "--engine", "unshare", "--path", str(image_python.path.parent)]
    words += ["--work", str(tmp_path / "work")]
    done = subprocess.run([sys.executable, str(emulator), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads(done.stdout)["leaderboard"]
    layouts = (LAYOUTS["time_channel_feature"], LAYOUTS["channel_time"])
    for entry, axes in zip(definition.sets, layouts, strict=True):
        written = next((tmp_path / "work").rglob(entry.output))
        with np.load(written) as data:
            predicted = data[ARRAY_KEY]
        # onnxruntime 1.23.2 there, this environment's here
        expected = answer(models[entry.subject], axes, X[entry.name][ARRAY_KEY])
        np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-4)
        error = np.sqrt(np.mean((predicted.astype(np.float64) - targets) ** 2)) / targets.std()
        assert scores[entry.name] == pytest.approx(error)
    expected_overall = 0.3 * scores["challenge_1"] + 0.7 * scores["challenge_2"]
    assert scores["overall"] == pytest.approx(expected_overall)

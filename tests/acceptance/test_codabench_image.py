"""The images submissions run in: no network, the bytes of `Model.predict`."""

# ruff: noqa: F811  (arguments named like the imported fixtures)
from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from challenge_artifacts import write_seer
from codabench_competition import check_outcome, words, write_competition
from small_artifacts import write_forecaster
from submission_helpers import (  # noqa: F401  (fixtures)
    CHANNELS,
    Artifacts,
    artifacts,
    runtime_cache,
    small_zip,
    with_predict,
)

import artifact
from submission import challenges
from submission.challenges import Image

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
# What CodaBench's worker takes away, besides the network.
PLATFORM = ["--network", "none", "--security-opt", "no-new-privileges"]
TAKEN = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
PLATFORM += [f"--cap-drop={name}" for name in TAKEN]


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True)


def build_image(tag: str, context: Path, *options: str) -> str:
    file = str(context / "docker" / "codabench.Dockerfile")
    done = docker("build", "--network", "host", "-f", file, "-t", tag, *options, str(context))
    assert done.returncode == 0, done.stderr
    return tag


@pytest.fixture(scope="module")
def image() -> str:
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.fail("no Docker engine answers; start one, or leave out the marker `docker`")
    return build_image("axonnx-codabench:test", ROOT)


NAMES = challenges.names()


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_what_the_challenge_says(name: str):
    written = (ROOT / "docker" / "requirements" / f"codabench-{name}.in").read_text().split()
    module = importlib.import_module(f"submission.challenges.{name}")
    stated = getattr(module, "IMAGE", Image(None, None)).packages
    assert tuple(written) == (stated or ("numpy",))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, np.ndarray]:
    """Test files of the small challenge in `data`: 64 rows and a few extreme ones per subject."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(4)
    arrays = {}
    for name, channels in CHANNELS.items():
        rows = generator.normal(100, 40, (67, 20, channels, 9)).astype(np.float32)
        rows[64:] = np.array([0, 1e6, -1e-30], np.float32)[:, None, None, None]
        rows[:, 10:] = rows[:, 9:10]
        np.savez(folder / f"test_data_{name}_masked.npz", rows)
        arrays[name] = rows
    return arrays


def run_submission(image: str, folder: Path, *mounts: str) -> subprocess.CompletedProcess[str]:
    """Run the image's own command on `folder`/data, as the platform runs containers."""
    predictions = folder / "predictions"
    predictions.mkdir(exist_ok=True)
    predictions.chmod(0o777)
    mounts += (f"{folder / 'data'}:/app/input_data:ro", f"{predictions}:/predictions")
    volumes = [word for mount in mounts for word in ("-v", mount)]
    return docker("run", "--rm", *PLATFORM, *volumes, image)


def differing(folder: Path, inputs: dict[str, np.ndarray], artifacts: Artifacts) -> list[str]:
    """Subjects whose written predictions are not the bytes of `Model.predict`."""
    found = []
    for name, rows in inputs.items():
        path = folder / "predictions" / f"test_{name}.predictions.npz"
        expected = artifact.load(getattr(artifacts, name)).predict({"neural": rows})["forecast"]
        got = np.load(path)["arr_0"]
        if got.dtype != expected.dtype or got.tobytes() != expected.tobytes():
            found.append(name)
    return found


def test_image_holds_numpy_alone(image: str):
    code = "import numpy, importlib.util as u; print([n for n in NAMES if u.find_spec(n)])"
    code = code.replace("NAMES", "('onnxruntime', 'torch', 'artifact', 'pydantic')")
    done = docker("run", "--rm", image, "python3", "-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_zip_in_the_image_gives_the_bytes_of_model_predict(
    image: str,
    small_zip: Path,
    artifacts: Artifacts,
    inputs: dict[str, np.ndarray],
    tmp_path: Path,
):
    done = run_submission(image, tmp_path, f"{small_zip}:/submission.zip:ro")
    assert done.returncode == 0, done.stderr
    assert differing(tmp_path, inputs, artifacts) == []


def test_one_flipped_bit_is_noticed(
    image: str,
    small_zip: Path,
    artifacts: Artifacts,
    inputs: dict[str, np.ndarray],
    tmp_path: Path,
):
    body = (
        "answer.view(np.uint32)[3, 11, 0] ^= np.uint32(self.monkey_name == 'affi')\nreturn answer"
    )
    bent = with_predict(small_zip, tmp_path / "bent.zip", body)
    done = run_submission(image, tmp_path, f"{bent}:/submission.zip:ro")
    assert done.returncode == 0, done.stderr
    assert differing(tmp_path, inputs, artifacts) == ["affi"]


def test_image_with_the_submission_inside(
    image: str,
    small_zip: Path,
    artifacts: Artifacts,
    inputs: dict[str, np.ndarray],
    tmp_path: Path,
):
    context = context_with(tmp_path / "context")
    shutil.copyfile(small_zip, context / "submission.zip")
    filled = build_image("axonnx-codabench:test-submission", context, "--target", "submission")
    done = run_submission(filled, tmp_path)
    assert done.returncode == 0, done.stderr
    assert differing(tmp_path, inputs, artifacts) == []


def context_with(folder: Path) -> Path:
    """What the Dockerfile copies, in a folder of its own."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("artifact", "submission", "configs/submissions", "docker", "demo"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copyfile(ROOT / "axonnx.py", folder / "axonnx.py")
    return folder


@pytest.mark.parametrize("name", ["neural_forecasting", "generic", "mouse_vs_ai"])
def test_image_from_an_artifact(name: str, tmp_path: Path):
    """Zip, image and `Model.predict` here: one runtime, the same bytes, as the platform runs it."""
    context = context_with(tmp_path / "context")
    folder = context / "runs" / "any" / "artifact"
    if name == "mouse_vs_ai":
        write_seer(folder)
    else:
        write_forecaster(folder, channels=4, dynamic_channel=True)
    words = ["--target", "artifact", "--build-arg", f"CHALLENGE={name}"]
    words += ["--build-arg", "ARTIFACT=runs/any/artifact"]
    if name != "neural_forecasting":
        words += ["--build-arg", "CONFIG=one"]
        text = {"generic": "{name: generic, call: array}", "mouse_vs_ai": SEEN}[name]
        config = f"challenge: {text}\nartifact: any\n"
        (context / "configs" / "submissions" / "one.yaml").write_text(config)
    filled = build_image(f"axonnx-codabench:test-{name}", context, *words)
    (tmp_path / "data").mkdir()
    model = artifact.load(folder)
    spec = model.manifest.inputs[0]
    shape = (5, 1, 86, 155) if name == "mouse_vs_ai" else (5, 20, 89, 9)
    rows = np.random.default_rng(2).random(shape).astype(np.float32)
    file = {"generic": "main", "mouse_vs_ai": "one"}.get(name, "test_data_beignet_masked")
    np.savez(tmp_path / "data" / f"{file}.npz", rows)
    done = run_submission(filled, tmp_path)
    assert done.returncode == 0, done.stderr
    if name == "mouse_vs_ai":
        assert (tmp_path / "predictions" / "one.predictions.npz").is_file()
        return
    expected = model.predict({spec.name: rows})["forecast"]
    output = {"generic": "main"}.get(name, "test_beignet")
    got = np.load(tmp_path / "predictions" / f"{output}.predictions.npz")["arr_0"]
    assert got.tobytes() == expected.tobytes()


SEEN = "{name: mouse_vs_ai, recordings: [one]}"


def test_missing_zip_and_missing_data_are_named(
    image: str,
    small_zip: Path,
    inputs: dict[str, np.ndarray],
    tmp_path: Path,
):
    done = run_submission(image, tmp_path)
    assert done.returncode == 2
    assert "/submission.zip: no such file; mount your zip there" in done.stderr
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    done = run_submission(image, tmp_path, f"{small_zip}:/submission.zip:ro")
    assert done.returncode == 2
    assert "holds none of test_data_affi_masked.npz" in done.stderr


def test_emulated_worker_with_its_docker_engine(
    image: str,
    small_zip: Path,
    artifacts: Artifacts,
    shared_data: Path,
    tmp_path: Path,
):
    worker = shared_data.parent / "tools" / "codabench-worker"
    if not worker.is_file():
        pytest.skip(f"no emulated worker at {worker}")
    competition = write_competition(tmp_path / "competition")
    arguments = words(competition, small_zip, tmp_path / "work")
    arguments += ["--engine", "docker", "--image", image]
    done = subprocess.run([sys.executable, str(worker), *arguments], capture_output=True, text=True)
    outcome = {"affi": artifacts.affi, "beignet": artifacts.beignet}
    check_outcome(json.loads(done.stdout), competition, outcome)

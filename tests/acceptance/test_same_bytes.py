"""Training, artifact, service, submission and image: one answer, the same bytes everywhere."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from server_process import running

import artifact
from artifact.arrays import decode_npy, decode_npz, encode_npy, encode_npz
from trainer.data import load_dataset

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = 61
OLD_RUNTIME = "1.23.2"  # the newest for Python 3.10
NPY, NPZ, JSON = "application/x-npy", "application/x-npz", "application/json"


def axonnx(*words: object, cwd: Path) -> str:
    """Run one command as a user does; its output."""
    done = subprocess.run(
        [sys.executable, ROOT / "axonnx.py", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same_bytes(answers: Mapping[str, np.ndarray]) -> None:
    """Every array has the dtype, shape and bytes of the first."""
    (first, want), *others = answers.items()
    for name, got in others:
        assert got.dtype == want.dtype, f"{name}: {got.dtype}, {first}: {want.dtype}"
        assert got.shape == want.shape, f"{name}: {got.shape}, {first}: {want.shape}"
        apart = np.ascontiguousarray(got).view(np.uint8) != np.ascontiguousarray(want).view(
            np.uint8
        )
        assert not apart.any(), f"{name} differs from {first} in {int(apart.sum())} bytes"


def test_one_flipped_bit_is_seen() -> None:
    want = np.random.default_rng(0).normal(size=(70, 20, CHANNELS)).astype(np.float32)
    assert_same_bytes({"one": want, "other": want.copy()})
    generator = np.random.default_rng(1)
    for _ in range(50):
        got = want.copy()
        place = int(generator.integers(got.nbytes))
        got.reshape(-1).view(np.uint8)[place] ^= 1 << int(generator.integers(8))
        with pytest.raises(AssertionError, match="differs"):
            assert_same_bytes({"one": want, "other": got})


@pytest.fixture(scope="module")
def windows(shared_data: Path) -> np.ndarray:
    """70 windows (batch, 20, 61, 9): 64 real ones, and constant, tiny and extreme ones."""
    real = load_dataset({"name": "uecog_goose"}).test.batch(slice(0, 64)).inputs["neural"]
    generator = np.random.default_rng(5)
    wild = generator.normal(size=(3, *real.shape[1:])).astype(np.float32)
    rows = [
        real,
        np.zeros_like(real[:1]),
        np.full_like(real[:1], 1e4),
        wild[:1] * np.float32(1e-30),
        wild[1:2] * np.float32(1e4),
        wild[2:] * np.float32(1e6),
        np.where(np.arange(CHANNELS)[:, None] == 7, np.float32(1e6), real[:1]),
    ]
    return np.concatenate(rows).astype(np.float32)


@pytest.fixture(scope="module", params=["gru", "patchformer"])
def trained(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The artifact of a model trained for a few steps on the µECoG recording."""
    folder = tmp_path_factory.mktemp(request.param)
    model = {"name": request.param} | ({"output_units": "raw"} if request.param == "gru" else {})
    config = {
        "data": {"name": "uecog_goose", "stride": {"train": 10, "validation": 20, "test": 10}},
        "model": model,
        "training": {"max_steps": 30, "epochs": 1, "device": "cpu", "threads": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    axonnx("train", "config.yaml", "--output", "run", cwd=folder)
    return folder / "run" / "artifact"


def predict(client: httpx.Client, body: bytes, content: str, accept: str) -> bytes:
    answer = client.post(
        "/predict", content=body, headers={"Content-Type": content, "Accept": accept}
    )
    assert answer.status_code == 200, answer.text
    return answer.content


def over_http(client: httpx.Client, x: np.ndarray) -> dict[str, np.ndarray]:
    """The service's answers: whole, in three forms, and row by row."""
    few = x[:3]
    as_json = httpx.Response(
        200,
        content=predict(
            client,
            httpx.Request("POST", "http://x", json={"inputs": {"neural": few.tolist()}}).content,
            JSON,
            JSON,
        ),
    ).json()
    rest = decode_npy(predict(client, encode_npy(x[3:]), NPY, NPY))
    listed = np.array(as_json["outputs"]["forecast"], np.float32)
    rows = [decode_npy(predict(client, encode_npy(x[i : i + 1]), NPY, NPY)) for i in range(len(x))]
    return {
        "HTTP .npy": decode_npy(predict(client, encode_npy(x), NPY, NPY)),
        "HTTP .npz": decode_npz(predict(client, encode_npz({"neural": x}), NPZ, NPZ))["forecast"],
        "HTTP JSON": np.concatenate([listed, rest]),
        "HTTP row by row": np.concatenate(rows),
    }


def build_zip(folder: Path, model: Path, x: np.ndarray, *words: object) -> Path:
    """A submission of the artifact, and the test set beside it in `folder`/data."""
    config = {
        "challenge": {"name": "neural_forecasting", "channels": {"goose": CHANNELS}},
        "models": {"goose": str(model)},
        "output": str(folder / "submission.zip"),
    }
    (folder / "submission.yaml").write_text(yaml.safe_dump(config))
    axonnx("submission", "build", "submission.yaml", "--no-report", *words, cwd=folder)
    (folder / "data").mkdir()
    (folder / "data" / "test_data_goose_masked.npz").write_bytes(encode_npz({"arr_0": x}))
    return folder / "submission.zip"


def prediction(folder: Path) -> np.ndarray:
    (array,) = decode_npz((folder / "test_goose.predictions.npz").read_bytes()).values()
    return array


def from_zip(folder: Path, python: str) -> np.ndarray:
    """What the zip answers in a process of its own under that Python."""
    words = ("--data", "data", "--output", "predictions", "--python", python)
    axonnx("submission", "predict", "submission.zip", *words, cwd=folder)
    return prediction(folder / "predictions")


def test_service_and_submission_give_the_same_bytes(
    trained: Path, windows: np.ndarray, tmp_path: Path
) -> None:
    answers = {"Model.predict": artifact.load(trained).predict({"neural": windows})["forecast"]}
    with running(tmp_path, trained) as server:
        answers |= over_http(server.client, windows)
    build_zip(tmp_path, trained, windows, "--python", "3.11")
    answers["zip, Python 3.11"] = from_zip(tmp_path, "3.11")
    assert answers["Model.predict"].shape == (70, 20, CHANNELS)
    assert np.isfinite(answers["Model.predict"]).all()
    assert_same_bytes(answers)


@pytest.fixture(scope="module")
def pinned_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the service and the runtime that Python 3.10 has."""
    folder = tmp_path_factory.mktemp("pinned") / "environment"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    wanted = [f"{ROOT}[serve]", f"onnxruntime=={OLD_RUNTIME}"]
    python = folder / "bin" / "python"
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", python, *wanted], check=True, cwd=ROOT
    )
    return python


@pytest.mark.slow
def test_a_zip_for_python_3_10_and_a_service_with_its_runtime_give_the_same_bytes(
    trained: Path, windows: np.ndarray, pinned_python: Path, tmp_path: Path
) -> None:
    if shutil.which("python3.10") is None and not python_3_10():
        pytest.skip("no Python 3.10 on this machine")
    with running(tmp_path, trained, python=pinned_python) as server:
        answers = over_http(server.client, windows)
    build_zip(tmp_path, trained, windows, "--python", "3.10")
    answers["zip, Python 3.10"] = from_zip(tmp_path, "3.10")
    assert_same_bytes(answers)


def python_3_10() -> bool:
    found = subprocess.run([sys.executable, "-m", "uv", "python", "find", "3.10"], check=False)
    return found.returncode == 0


def docker(*words: object) -> str:
    done = subprocess.run(
        ["docker", *map(str, words)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def images() -> Mapping[str, str]:
    """Tags of the images of the service and of the submission's runner, built from this tree."""
    tags = {"serve": "axonnx-serve:cpu", "codabench": "axonnx-codabench"}
    for name, tag in tags.items():
        file = f"docker/{name}.Dockerfile"
        docker("build", "--quiet", "--network", "host", "--file", file, "--tag", tag, ".")
    return tags


def wait_until_ready(client: httpx.Client, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"not ready after {seconds} seconds")


@pytest.fixture
def served_image(images: Mapping[str, str], trained: Path) -> Iterator[httpx.Client]:
    mount = f"type=bind,source={trained},target=/artifact,readonly"
    words = ("--detach", "--rm", "--read-only", "--tmpfs", "/tmp", "--publish", "127.0.0.1::8000")
    name = docker("run", *words, "--mount", mount, images["serve"])
    try:
        address = docker("port", name, "8000").splitlines()[0]
        with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            wait_until_ready(client)
            yield client
    finally:
        docker("stop", name)


@pytest.mark.docker
def test_images_give_the_same_bytes(
    trained: Path,
    windows: np.ndarray,
    images: Mapping[str, str],
    served_image: httpx.Client,
    tmp_path: Path,
) -> None:
    answers = {"Model.predict": artifact.load(trained).predict({"neural": windows})["forecast"]}
    image = over_http(served_image, windows)
    answers |= {f"image, {name}": values for name, values in image.items()}
    archive = build_zip(tmp_path, trained, windows, "--python", "3.11")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    mounts = (
        f"{archive}:/submission.zip:ro",
        f"{tmp_path / 'data'}:/app/input_data:ro",
        f"{tmp_path / 'out'}:/predictions",
    )
    words = [word for mount in mounts for word in ("--volume", mount)]
    docker("run", "--rm", "--network", "none", *words, images["codabench"])
    answers["submission image"] = prediction(tmp_path / "out")
    assert_same_bytes(answers)

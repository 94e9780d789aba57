"""The image of the service and its compose file, built and run for real."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from small_artifacts import write_decoder, write_forecaster

import artifact
from artifact.arrays import decode_npy, encode_npy, encode_npz

pytestmark = pytest.mark.docker
ROOT = Path(__file__).resolve().parents[2]
IMAGE = "axonnx-serve:cpu"
NPY, NPZ = "application/x-npy", "application/x-npz"
BUILD_SECONDS, RUN_SECONDS = 900, 120


def docker(
    *words: object, timeout: float = RUN_SECONDS, **environment: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def build(tag: str, **arguments: str) -> subprocess.CompletedProcess[str]:
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    return docker(
        *("build", "--network", "host", "-f", "docker/serve.Dockerfile", "-t", tag, *options, "."),
        timeout=BUILD_SECONDS,
        DOCKER_BUILDKIT=1,
    )


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.fail("no Docker engine answers; start one, or leave out the marker `docker`")


@pytest.fixture(scope="module")
def image() -> str:
    done = build(IMAGE)
    assert done.returncode == 0, done.stderr[-3000:]
    return IMAGE


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_forecaster(tmp_path_factory.mktemp("image") / "forecaster")


class Compose:
    """One `docker compose` project with a free port."""

    def __init__(self, path: Path) -> None:
        self.project = f"axonnx-{uuid.uuid4().hex[:8]}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.environment = {"AXONNX_ARTIFACT": path, "AXONNX_PORT": self.port}
        self.url = f"http://127.0.0.1:{self.port}"

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        return docker("compose", "-p", self.project, *words, **self.environment)


@pytest.fixture(scope="module")
def service(image: str, forecaster: Path) -> Iterator[Compose]:
    compose = Compose(forecaster)
    try:
        up = compose("up", "--detach", "--no-build", "--wait", "serve")
        assert up.returncode == 0, up.stderr + compose("logs", "serve").stdout
        yield compose
    finally:
        compose("down", "--timeout", "5", "--volumes")


def test_answers_are_those_of_predict(service: Compose, forecaster: Path) -> None:
    model = artifact.load(forecaster)
    rows = np.random.default_rng(0).normal(0, 3, (70, 20, 4, 9)).astype(np.float32)
    rows[-1] = 3e38
    expected = model.predict({"neural": rows})["forecast"]
    said = httpx.get(f"{service.url}/model").json()
    assert said["artifact"] == model.id
    assert said["onnxruntime"] == model.onnxruntime_version
    answer = httpx.post(
        f"{service.url}/predict", content=encode_npy(rows), headers={"Content-Type": NPY}
    )
    assert answer.status_code == 200
    assert answer.headers["x-artifact-id"] == model.id
    assert decode_npy(answer.content).tobytes() == expected.tobytes()
    answer = httpx.post(f"{service.url}/predict", json={"inputs": {"neural": rows.tolist()}})
    got = np.array(answer.json()["outputs"]["forecast"], np.float32)
    assert got.tobytes() == expected.tobytes()


def test_the_container_is_locked_down(service: Compose) -> None:
    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        return service("exec", "-T", "serve", *words)

    assert inside("id", "-u").stdout.strip() == "10001"
    for place in ("/opt/axonnx/x", "/artifact/x", "/etc/x"):
        refused = inside("touch", place)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
    assert inside("touch", "/tmp/x").returncode == 0
    status = inside("cat", "/proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    code = (
        "import importlib.util as u, json; print(json.dumps([n for n in ('torch', 'trainer', "
        "'submission', 'onnx', 'pip') if u.find_spec(n)]))"
    )
    assert json.loads(inside("python", "-c", code).stdout) == []


def test_compose_publishes_on_this_machine_alone(service: Compose) -> None:
    assert service("port", "serve", "8000").stdout.strip() == f"127.0.0.1:{service.port}"
    with urllib.request.urlopen(f"{service.url}/health/ready", timeout=5) as answer:
        assert answer.status == 200


def test_sigterm_stops_it_with_0(image: str, tmp_path: Path) -> None:
    compose = Compose(path := write_decoder(tmp_path / "decoder"))
    try:
        assert compose("up", "--detach", "--no-build", "--wait", "serve").returncode == 0
        rows = {
            "neural": np.ones((2, 20, 6, 1), np.float32),
            "behavior": np.ones((2, 20, 2), np.float32),
            "behavior_mask": np.ones((2, 20), bool),
        }
        answer = httpx.post(
            f"{compose.url}/predict",
            content=encode_npz(rows),
            headers={"Content-Type": NPZ, "Accept": NPY},
        )
        expected = artifact.load(path).predict(rows)["probability"]
        assert decode_npy(answer.content).tobytes() == expected.tobytes()
        assert compose("stop", "serve").returncode == 0
        state = json.loads(compose("ps", "--all", "--format", "json", "serve").stdout)
        assert state["ExitCode"] == 0
        assert "axonnx: stopped" in compose("logs", "serve").stdout
    finally:
        compose("down", "--timeout", "5")


def run(image: str, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return docker("run", "--rm", *options, "-v", f"{path}:/artifact:ro", image)


def test_what_does_not_start_says_why(image: str, forecaster: Path, tmp_path: Path) -> None:
    done = run(image, forecaster, "-e", "AXONNX_PROVIDER=cuda")
    assert done.returncode == 1
    assert "CUDA was asked for and cannot start" in done.stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(forecaster, damaged)
    (damaged / "model.onnx").write_bytes(b"")
    done = run(image, damaged)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "model.onnx" in done.stderr
    done = docker("run", "--rm", image)
    assert done.returncode == 2
    assert "/artifact: no such file or folder" in done.stderr


def test_serve_gpu_names_the_missing_driver(image: str, forecaster: Path, tmp_path: Path) -> None:
    if "nvidia" in docker("info", "--format", "{{.Runtimes}}").stdout:
        pytest.skip("this engine has the NVIDIA runtime")
    small = tmp_path / "small.yaml"
    small.write_text(f"services:\n  serve-gpu:\n    image: {image}\n    build: !reset null\n")
    compose = Compose(forecaster)
    try:
        done = compose("-f", "compose.yaml", "-f", small, "up", "--no-build", "serve-gpu")
        assert done.returncode != 0
        assert 'could not select device driver "nvidia"' in done.stderr
    finally:
        compose("--profile", "gpu", "down", "--timeout", "5")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"RUNTIME": "tpu"}, "tpu"),
        ({"RUNTIME": "gpu", "CUDA": "11"}, "CUDA=11; must be 12 or 13"),
        (
            {"ONNXRUNTIME_VERSION": "9.9.9"},
            "there is no docker/requirements/onnxruntime-9.9.9.txt with its hashes",
        ),
    ],
)
def test_builds_that_are_refused(arguments: dict[str, str], text: str) -> None:
    done = build("axonnx-serve:refused", **arguments)
    assert done.returncode != 0
    assert text in done.stderr


def test_another_onnxruntime_version(forecaster: Path) -> None:
    tag = "axonnx-serve:ort-1.23.2"
    done = build(tag, ONNXRUNTIME_VERSION="1.23.2")
    assert done.returncode == 0, done.stderr[-3000:]
    code = (
        "import sys; sys.path.insert(0, '/opt/axonnx'); import artifact; "
        "print(artifact.load('/artifact').onnxruntime_version)"
    )
    done = docker(
        *("run", "--rm", "--network", "none", "--read-only", "-v", f"{forecaster}:/artifact:ro"),
        *("--entrypoint", "python", tag, "-c", code),
    )
    assert done.stdout.strip() == "1.23.2", done.stderr

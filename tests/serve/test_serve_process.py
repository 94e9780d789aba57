"""Start and stop of the process, and what it imports."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
from fastapi import FastAPI
from server_process import ROOT, Server

from artifact.arrays import encode_npy
from serve import cli
from serve.app import create_app
from serve.front import Front
from serve.settings import Settings

Main = Callable[..., tuple[int, str]]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Main]:
    """The command in this process; gives the exit code and what it wrote to standard error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*words: object, **environment: str) -> tuple[int, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        try:
            code = cli.main(["serve", *map(str, words)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert out == ""  # whoever listens says so
        return code, err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def one_line(result: tuple[int, str], code: int, text: str) -> None:
    assert result[0] == code, result
    assert text in result[1]
    assert len(result[1].splitlines()) == 1
    assert result[1].startswith("axonnx: error: ")


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, serve, serve.app, serve.cli\n"
        "bad = {name.split('.')[0] for name in sys.modules} & {'torch', 'trainer', 'submission', "
        "'onnx', 'scipy', 'matplotlib'}\n"
        "assert 'onnxruntime' in sys.modules\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_wrong_arguments_end_with_2(
    main: Main, tmp_path: Path, forecaster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_line(main(), 2, "no artifact: name its folder or zip, or set AXONNX_MODELS")
    one_line(main(tmp_path / "nothing"), 2, "nothing: no such file or folder")
    for wrong in (("--provider", "tpu"), ("--port", "eighty"), ("--colour",)):
        code, text = main(forecaster, *wrong)
        assert code == 2
        assert text.startswith("usage: axonnx serve")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        one_line(main(forecaster, "--port", port), 2, text)
    one_line(main(forecaster, AXONNX_API_KEYS=""), 2, "AXONNX_API_KEYS: is set and empty; name")
    monkeypatch.delenv("AXONNX_API_KEYS")
    one_line(main(forecaster, AXONNX_SLOTS="0"), 2, "AXONNX_SLOTS: Input should be greater")


def test_paths_that_cannot_be_looked_at_end_with_2(main: Main, tmp_path: Path) -> None:
    one_line(main("n" * 300), 2, "File name too long")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    user = os.geteuid()
    if user == 0:  # who may look everywhere
        os.seteuid(65534)
    try:
        result = main(closed / "artifact")
    finally:
        os.seteuid(user)
    one_line(result, 2, "Permission denied")


@pytest.fixture
def damaged(tmp_path: Path, forecaster: Path) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(forecaster, folder)
    with (folder / "model.onnx").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\0\1\2")
    return folder


def start(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that ends by itself."""
    return subprocess.run(
        [sys.executable, ROOT / "axonnx.py", "serve", *map(str, words), "--port", "0"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_where_nothing_loads_the_process_ends_with_1(damaged: Path) -> None:
    empty = damaged.parent / "empty"
    empty.mkdir()
    done = start(damaged, empty)
    assert done.returncode == 1
    assert done.stdout.startswith("axonnx: listening on ")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.splitlines() == [
        "axonnx: error: damaged: model.onnx: its sha256 is not the manifest's",
        "axonnx: error: empty: no manifest.json, so this is no artifact",
    ]


def test_what_is_broken_takes_nobody_down(
    damaged: Path, forecaster: Path, decoder: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path / "log", damaged, forecaster, decoder, forecaster)
    try:
        assert [line.split()[2] for line in server.said[1:-1]] == [
            "small-forecaster",
            "small-decoder",
        ]
        twice = (
            "a model 'small-forecaster' of version '1' is there already; "
            "names and versions of models served together must differ"
        )
        broken = "model.onnx: its sha256 is not the manifest's"
        assert server.log.read_text().splitlines() == [
            f"axonnx: error: damaged: {broken}",
            f"axonnx: error: forecaster: {twice}",
        ]
        told = server.client.get("/models").json()
        assert set(told["models"]) == {"small-forecaster", "small-decoder"}
        assert [failure["reason"] for failure in told["failures"]] == [broken, twice]
        assert told["failures"][0] == {
            "name": "small-forecaster",
            "version": "1",
            "state": "UNAVAILABLE",
            "reason": broken,
            "source": "damaged",
        }
        assert server.client.get("/health/ready").status_code == 200
    finally:
        assert server.stop() == 0


def test_cuda_without_a_gpu_does_not_start(forecaster: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this environment has the GPU build of onnxruntime")
    done = start(forecaster, AXONNX_PROVIDER="cuda")
    one_line((done.returncode, done.stderr), 1, "CUDA was asked for and cannot start")


def test_the_environment_names_the_models(forecaster: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", models=forecaster, access_log="true", host="localhost")
    server.client.get("/health/live")
    assert server.stop(signal.SIGINT) == 0
    assert "small-forecaster" in server.said[1]
    assert '"GET /health/live HTTP/1.1" 200' in server.last_words


def test_sigterm_lets_what_runs_finish(tiny: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", tiny, max_rows=1, slots=1)
    answers: list[httpx.Response] = []

    def predict() -> None:
        content = encode_npy(np.ones((50_000, 20, 1, 1), np.float32))
        headers = {"Content-Type": "application/x-npy"}
        answers.append(
            httpx.post(f"{server.url}/predict", content=content, headers=headers, timeout=60)
        )

    thread = threading.Thread(target=predict)
    thread.start()
    server.wait_for_pending(1)
    server.process.send_signal(signal.SIGTERM)
    thread.join()
    assert answers[0].status_code == 200
    assert server.stop(0) == 0  # no second signal
    assert server.last_words == "axonnx: stopped\n"
    assert (tmp_path / "log").read_text() == ""


@pytest.fixture
def faulty(forecaster: Path) -> Iterator[Front]:
    """The application with two routes more: one that fails, one that takes a number."""
    service = cli.create_service(Settings(models=(forecaster,)))
    list(service.repository.load_all())
    front = create_app(service)
    assert isinstance(front, Front)
    api = front.app
    assert isinstance(api, FastAPI)

    @api.get("/fails")
    async def fails() -> None:
        raise RuntimeError("secret /etc/path")

    @api.get("/number")
    async def number(value: int) -> int:
        return value

    yield front
    service.engine.close()
    assert service.engine.join(30)


async def ask(app: Front, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers={"X-Request-Id": "r1"})


def test_faults_of_the_service_say_nothing_of_its_inside(
    faulty: Front, caplog: pytest.LogCaptureFixture
) -> None:
    response = asyncio.run(ask(faulty, "/fails"))
    assert response.status_code == 500
    assert response.json()["type"] == "internal_error"
    assert response.json()["request_id"] == "r1"
    assert "secret" not in response.text
    assert "request r1 failed" in caplog.text
    assert "secret /etc/path" in caplog.text
    response = asyncio.run(ask(faulty, "/number?value=x"))
    assert response.status_code == 400
    assert response.json()["field"] == "query.value"

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

import artifact
from artifact.arrays import encode_npy
from serve import cli
from serve.app import create_app
from serve.settings import Settings

Main = Callable[..., tuple[int, str]]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Main]:
    """The command in this process; gives the exit code and what it wrote to standard error."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: object, **environment: str) -> tuple[int, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        try:
            code = cli.main(["serve", *map(str, words)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    yield run
    signal.signal(signal.SIGTERM, handler)


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


def test_wrong_arguments_end_with_2(main: Main, tmp_path: Path, forecaster: Path) -> None:
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


def test_artifacts_that_do_not_load_end_with_1(
    main: Main, forecaster: Path, decoder: Path, damaged: Path
) -> None:
    free = ("--port", "0")
    one_line(main(decoder, damaged, *free), 1, "damaged: ")
    one_line(main(forecaster, forecaster, *free), 1, "'small-forecaster' is there already")


def test_cuda_without_a_gpu_does_not_start(main: Main, forecaster: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this environment has the GPU build of onnxruntime")
    text = "CUDA was asked for and cannot start"
    one_line(main(forecaster, "--port", "0", AXONNX_PROVIDER="cuda"), 1, text)


def test_the_process_ends_with_one_line(damaged: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "axonnx.py", "serve", damaged, "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    one_line((done.returncode, done.stderr), 1, "damaged: ")


def test_the_environment_names_the_models(forecaster: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", models=forecaster, access_log="true", host="localhost")
    server.client.get("/health/live")
    assert server.stop(signal.SIGINT) == 0
    assert "small-forecaster" in server.said[0]
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


def app_with_faults(path: Path) -> FastAPI:
    """The application with two routes more: one that fails, one that takes a number."""
    app = create_app({"small": artifact.load(path)}, Settings())

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("secret /etc/path")

    @app.get("/number")
    async def number(value: int) -> int:
        return value

    return app


async def ask(app: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers={"X-Request-Id": "r1"})


def test_faults_of_the_service_say_nothing_of_its_inside(
    forecaster: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with_faults(forecaster)
    response = asyncio.run(ask(app, "/fails"))
    assert response.status_code == 500
    assert response.json()["type"] == "internal_error"
    assert response.json()["request_id"] == "r1"
    assert "secret" not in response.text
    assert "x-artifact-id" in response.headers
    assert "request r1 failed" in caplog.text
    assert "secret /etc/path" in caplog.text
    response = asyncio.run(ask(app, "/number?value=x"))
    assert response.status_code == 400
    assert response.json()["field"] == "query.value"

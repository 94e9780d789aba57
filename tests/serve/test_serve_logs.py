"""What the process writes: every line whole, every line readable, no secret in any."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_process import ROOT, Server

import artifact
from artifact.arrays import encode_npy
from serve.app import create_app
from serve.engine import Engine
from serve.logs import JsonFormatter, TextFormatter, log_answer
from serve.repository import Repository
from serve.service import Service
from serve.settings import Settings

NPY = {"Content-Type": "application/x-npy"}
KEY, SECRET = "a-key-of-many-letters", "sesame-of-the-query"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|error) [a-z.]+: ")
# All characters, and often those that end a line for some reader.
ANY = st.text(st.characters() | st.sampled_from('\n\r\x85\u2028\x1b\ud800"\\'))


def record(text: str, name: str = "axonnx.serve", **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, __file__, 1, "%s", (text,), None)
    made.__dict__.update(fields)
    return made


@given(text=ANY, path=ANY)
def test_no_text_breaks_a_line_of_json(text: str, path: str) -> None:
    line = JsonFormatter().format(record(text, path=path, status=200, seconds=0.5, model=None))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    read = orjson.loads(line)  # strict: refuses halves of characters
    assert read["message"] == text.encode("utf-8", "backslashreplace").decode()
    assert read["path"] == path.encode("utf-8", "backslashreplace").decode()
    assert (read["status"], read["seconds"]) == (200, 0.5)
    assert "model" not in read


@given(text=ANY)
def test_no_text_breaks_a_line_of_text(text: str) -> None:
    line = TextFormatter().format(record(text))
    assert len(line.splitlines()) == 1
    assert LINE.match(line)
    assert line.isprintable()
    for line in TextFormatter().format(record(text, "axonnx.life")).splitlines():
        assert line.startswith("axonnx: error: ")


@given(text=ANY)
def test_no_error_breaks_a_traceback(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        failed = record("it failed")
        failed.exc_info = sys.exc_info()
    read = orjson.loads(JsonFormatter().format(failed))
    assert read["traceback"].startswith("Traceback (most recent call last):\n")
    first, *others = TextFormatter().format(failed).splitlines()
    assert first.endswith("it failed")
    assert all(line.startswith("  ") for line in others)


@given(path=ANY, request_id=st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True))
def test_the_path_of_a_request_is_one_word(path: str, request_id: str) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, made: logging.LogRecord) -> None:
            lines.append(TextFormatter().format(made))

    scope = {
        **{"method": "GET", "path": "/" + path, "client": ("10.0.0.1", 5), "http_version": "1.1"},
        **{"request_id": request_id, "protocol": "rest", "error_type": None, "served": None},
        "waited": 0.25,
    }
    logger, keep = logging.getLogger("axonnx.access"), Keep()
    level = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    try:
        log_answer(scope, 404, 0.0123456789)
    finally:
        logger.removeHandler(keep)
        logger.setLevel(level)
    (line,) = lines
    found = re.fullmatch(
        r'\S+ info axonnx\.access: 10\.0\.0\.1 "GET /\S* HTTP/1\.1" 404 seconds=0\.012346 '
        r"request_id=(\S+) protocol=rest waited=0\.25",
        line,
    )
    assert found
    assert found[1] == request_id
    assert len(line) < 13_000


@pytest.fixture(scope="module")
def damaged(forecaster: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "damaged"
    shutil.copytree(forecaster, folder)
    (folder / "config.yaml").write_text("damaged: true\n")
    return folder


def ask(server: Server) -> httpx.Response:
    """Requests of several kinds, secrets in all their parts; the answer of the prediction."""
    client, key = server.client, {"X-API-Key": KEY}
    window = encode_npy(np.ones((2, 20, 4, 9), np.float32))
    headers = {**NPY, **key, "X-Request-Id": "mine"}
    answer = client.post("/predict", content=window, headers=headers)
    assert answer.status_code == 200
    bad = client.post(
        f"/predict?token={SECRET}", content=f"body {SECRET}".encode(), headers={**NPY, **key}
    )
    assert bad.status_code == 400
    assert client.get("/models", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 401
    assert client.get("/models/x%0A%7B%22level%22:%22error%22%7D", headers=key).status_code == 404
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(f"{SECRET}\r\n\r\n".encode())
        assert b" 400 " in caller.recv(1000)
    return answer


def test_every_line_is_json(forecaster: Path, damaged: Path, tmp_path: Path) -> None:
    server = Server(
        tmp_path / "log",
        *(forecaster, damaged),
        **{"log_format": "json", "access_log": "true", "log_level": "info"},
        **{"api_keys": KEY, "drain_seconds": 0},
    )
    answer = ask(server)
    assert server.stop() == 0
    written = "\n".join([*server.said, server.last_words, server.log.read_text()])
    assert KEY not in written
    assert SECRET not in written
    lines = [json.loads(line) for line in written.splitlines() if line]
    for line in lines:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        said = datetime.fromisoformat(line["time"])
        assert said.utcoffset() == timedelta()
        assert line["level"] in {"info", "warning", "error"}
    messages = [line["message"] for line in lines if line["logger"] == "axonnx.life"]
    assert messages[0].startswith("listening on http://127.0.0.1:")
    assert messages[1].startswith("model small-forecaster version 1, artifact ")
    assert sorted(messages[2:4]) == sorted(["ready", "stopped"])
    assert messages[4].startswith("damaged: ")  # to standard error
    assert any(line["logger"] == "uvicorn.error" for line in lines)

    first, bad, closed, unknown = (line for line in lines if line["logger"] == "axonnx.access")
    assert first.pop("message") == '127.0.0.1 "POST /predict HTTP/1.1" 200'
    assert 0 <= first.pop("waited") <= first.pop("seconds") < 60
    assert {key: first[key] for key in list(first)[3:]} == {
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "request_id": "mine",
        "protocol": "rest",
        "model": "small-forecaster",
        "version": "1",
        "artifact": answer.headers["x-artifact-id"],
        "rows": 2,
    }
    assert (bad["status"], bad["error"], bad["path"]) == (400, "invalid_input", "/predict")
    assert (closed["status"], closed["error"]) == (401, "unauthorized")
    assert unknown["path"] == '/models/x\n{"level":"error"}'
    assert "waited" not in unknown


def test_lines_of_text(forecaster: Path, damaged: Path, tmp_path: Path) -> None:
    server = Server(
        tmp_path / "log", forecaster, damaged, access_log="true", api_keys=KEY, drain_seconds=0
    )
    answer = ask(server)
    assert server.stop(signal.SIGINT) == 0
    lines = [*server.said, *server.last_words.splitlines()]
    logged = server.log.read_text()
    for secret in (KEY, SECRET):
        assert secret not in "\n".join([*lines, logged])
    assert re.fullmatch(r"axonnx: error: damaged: .*\n(\S+ warning uvicorn\.error: .*\n)?", logged)
    access = [line for line in lines if not line.startswith("axonnx: ")]
    assert len(access) == 4
    assert re.fullmatch(
        r'\S+Z info axonnx\.access: 127\.0\.0\.1 "POST /predict HTTP/1\.1" 200 seconds=\S+ '
        r"request_id=mine protocol=rest model=small-forecaster version=1 "
        rf"artifact={answer.headers['x-artifact-id']} rows=2 waited=\S+",
        access[0],
    )
    assert '"GET /models/x%0A%7B%22level%22%3A%22error%22%7D HTTP/1.1" 404 ' in access[3]


def test_nothing_of_requests_by_default(forecaster: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", forecaster, api_keys=KEY, drain_seconds=0)
    ask(server)
    assert server.stop() == 0
    assert server.last_words == "axonnx: stopped\n"


def test_wrong_settings_are_told_in_json_too(forecaster: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "axonnx.py", "serve", forecaster, "--port", "0"],
        env={**os.environ, "AXONNX_LOG_FORMAT": "json", "AXONNX_SLOTS": "0", "AXONNX_PROT": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    line = json.loads(done.stderr)
    assert (line["level"], line["logger"]) == ("error", "axonnx.life")
    assert "AXONNX_PROT: no such setting" in line["message"]


@pytest.fixture
def service() -> Iterator[Service]:
    engine = Engine(1, 1)
    yield Service(Repository((), artifact.load), engine, Settings())
    engine.close()
    assert engine.join(5)


def test_a_fault_is_logged_with_its_traceback(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    front = create_app(service)

    @front.app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("the inside")

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/fails", headers={"X-Request-Id": "r1"})

    response = asyncio.run(send())
    assert response.status_code == 500
    assert "the inside" not in response.text
    (failed,) = (made for made in caplog.records if made.levelno >= logging.ERROR)
    line = orjson.loads(JsonFormatter().format(failed))
    assert (line["level"], line["request_id"]) == ("error", "r1")
    assert "RuntimeError: the inside" in line["traceback"]

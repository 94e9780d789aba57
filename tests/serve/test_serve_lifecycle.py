"""From the first line to the exit code: live at once, ready when loaded, drained, stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from odd_artifacts import write_endless
from server_process import ROOT, Server

from artifact.arrays import Array, encode_npy

NPY = {"Content-Type": "application/x-npy"}
ROW = encode_npy(np.ones((1, 20, 1, 1), np.float32))
SLACK = 60.0  # a shared machine may be slow
# Models whose folder's name begins with "slow" are loaded once the file `go` is there.
GATED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from serve import cli

load = cli.load

def wait_and_load(path, **options):
    while path.name.startswith("slow") and not path.with_name("go").exists():
        time.sleep(0.01)
    return load(path, **options)

cli.load = wait_and_load
sys.exit(cli.main(["serve", *sys.argv[1:], "--port", "0"]))
"""


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SLACK
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        time.sleep(0.01)


class Starting:
    """A service that has said where it listens, and nothing more so far."""

    def __init__(self, log: Path, *paths: Path) -> None:
        self.log = log
        program = GATED.format(root=str(ROOT))
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, *paths],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        self.url = self.lines.readline().split()[-1]
        self.client = httpx.Client(base_url=self.url, timeout=SLACK)

    def stop(self, *numbers: int) -> tuple[int, str, str]:
        """Exit code, and what was still said on both streams."""
        self.client.close()
        for number in numbers:
            self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=SLACK)
        return self.process.returncode, said, self.log.read_text()


@pytest.fixture
def starting(tiny: Path, decoder: Path, tmp_path: Path) -> Iterator[Starting]:
    """One model is loaded, the other one waits for the file `go`."""
    (tmp_path / "slow").symlink_to(tiny, target_is_directory=True)
    service = Starting(tmp_path / "log", decoder, tmp_path / "slow")
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.communicate()


def test_live_at_once_and_ready_when_all_is_loaded(starting: Starting, tmp_path: Path) -> None:
    client = starting.client
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/v2/health/live").status_code == 200
    assert "small-decoder" in starting.lines.readline()
    for path in ("/health/ready", "/v2/health/ready"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["type"] == "not_ready"
    assert client.get("/models/small-decoder").status_code == 200, "what is loaded answers"
    refused = client.post("/models/tiny/predict", content=ROW, headers=NPY)
    assert (refused.status_code, refused.json()["type"]) == (503, "not_ready")
    states = {line["name"]: line["state"] for line in client.post("/v2/repository/index").json()}
    assert states["small-decoder"] == "READY"
    assert states["tiny"] != "READY"
    (tmp_path / "go").touch()
    assert "model tiny version 1" in starting.lines.readline()
    assert starting.lines.readline() == "axonnx: ready\n"
    assert client.get("/health/ready").status_code == 200
    assert client.post("/models/tiny/predict", content=ROW, headers=NPY).status_code == 200
    assert starting.stop(signal.SIGTERM) == (0, "axonnx: stopped\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_what_is_loaded(starting: Starting, number: int) -> None:
    assert "small-decoder" in starting.lines.readline()
    start = time.monotonic()
    code, said, log = starting.stop(number)
    assert (code, said, log) == (0, "axonnx: stopped\n", "")
    assert time.monotonic() - start < SLACK / 2


class Busy:
    """A service with one slot, and predictions that occupy it."""

    def __init__(self, log: Path, path: Path, **settings: object) -> None:
        self.server = Server(log, path, max_rows=1, slots=1, **settings)
        self.pool = ThreadPoolExecutor(8)
        self.futures: list[Future[httpx.Response]] = []

    def predict(self, rows: Array, count: int = 1) -> list[Future[httpx.Response]]:
        """So many predictions, all of them pending."""
        url, body = f"{self.server.url}/predict", encode_npy(rows)
        made = [
            self.pool.submit(httpx.post, url, content=body, headers=NPY, timeout=SLACK)
            for _ in range(count)
        ]
        self.futures += made
        self.server.wait_for_pending(len(self.futures))
        return made

    def end(self) -> tuple[int, str, str]:
        """Exit code, and what was said on both streams since it was ready."""
        said, _ = self.server.process.communicate(timeout=SLACK)
        return self.server.process.returncode, said, self.server.log.read_text()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Callable[..., Busy]]:
    made: list[Busy] = []

    def make(path: Path, **settings: object) -> Busy:
        made.append(Busy(tmp_path / "log", path, **settings))
        return made[0]

    yield make
    for one in made:
        one.server.client.close()
        if one.server.process.poll() is None:
            one.server.process.kill()
            one.server.process.communicate()
        one.pool.shutdown()


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its runs on positive rows do not end by themselves."""
    return write_endless(tmp_path_factory.mktemp("artifacts") / "endless")


ENDLESS, SHORT = (np.full((1, 1), value, np.float32) for value in (1, -1))


def test_while_it_drains_it_is_not_ready_and_answers(busy: Callable[..., Busy], tiny: Path) -> None:
    service = busy(tiny, drain_seconds=3)
    server = service.server
    with httpx.Client(base_url=server.url, timeout=SLACK) as other:
        assert other.get("/health/live").status_code == 200
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: other.get("/health/ready").status_code == 503)
        assert time.monotonic() - start < 2
        # On connections that are open, and on new ones.
        with httpx.Client(base_url=server.url, timeout=SLACK) as new:
            for client in (other, server.client, new):
                answer = client.post("/predict", content=ROW, headers=NPY)
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
                live = client.get("/health/live")
                assert (live.status_code, live.headers["connection"]) == (200, "close")
                refused = client.get("/v2/health/ready")
                assert (refused.status_code, refused.headers["connection"]) == (503, "close")
                assert refused.json()["type"] == "not_ready"
    assert server.process.poll() is None
    assert service.end() == (0, "axonnx: stopped\n", "")
    assert time.monotonic() - start > 2.9
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health/live")


def test_ctrl_c_leaves_the_drain_out_and_lets_predictions_finish(
    busy: Callable[..., Busy], tiny: Path
) -> None:
    service = busy(tiny, drain_seconds=1000, shutdown_timeout=50)
    answers = service.predict(np.ones((20_000, 20, 1, 1), np.float32), 3)
    service.server.process.send_signal(signal.SIGINT)
    assert [answer.result().status_code for answer in answers] == [200] * 3
    assert service.end() == (0, "axonnx: stopped\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once_and_tells_what_it_cut(
    busy: Callable[..., Busy], endless: Path, number: int
) -> None:
    service = busy(endless, drain_seconds=1000, shutdown_timeout=1000, request_timeout=1000)
    answers = service.predict(ENDLESS) + service.predict(SHORT, 2)
    service.server.process.send_signal(number)
    until(lambda: service.server.client.get("/health/ready").status_code == 503)
    start = time.monotonic()
    service.server.process.send_signal(number)
    for answer in answers:
        refused = answer.result()
        assert (refused.status_code, refused.json()["type"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
    text = "axonnx: error: stopped by a second signal; requests cut short: 3\n"
    assert service.end() == (1, "", text)
    assert time.monotonic() - start < SLACK / 2


def test_a_second_signal_with_nothing_to_cut(busy: Callable[..., Busy], tiny: Path) -> None:
    service = busy(tiny, drain_seconds=1000)
    service.server.process.send_signal(signal.SIGTERM)
    until(lambda: service.server.client.get("/health/ready").status_code == 503)
    service.server.process.send_signal(signal.SIGTERM)
    assert service.end() == (0, "axonnx: stopped\n", "")


def test_what_does_not_finish_in_time_is_told(busy: Callable[..., Busy], endless: Path) -> None:
    service = busy(endless, drain_seconds=0, shutdown_timeout=1, request_timeout=1000)
    answers = service.predict(ENDLESS) + service.predict(SHORT)
    service.server.process.send_signal(signal.SIGTERM)
    for answer in answers:
        refused = answer.result()
        assert (refused.status_code, refused.json()["type"]) == (503, "not_ready")
    code, said, log = service.end()
    assert (code, said) == (1, "")
    assert log.splitlines()[-1] == (
        "axonnx: error: stopped after AXONNX_SHUTDOWN_TIMEOUT; requests cut short: 2"
    )
    assert "Traceback" not in log


def test_a_body_that_is_still_coming_is_read_and_answered(
    busy: Callable[..., Busy], tiny: Path
) -> None:
    service = busy(tiny, drain_seconds=0.2, shutdown_timeout=50)
    server = service.server
    begun, go_on = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield ROW[:50]
        begun.set()
        assert go_on.wait(SLACK)
        yield ROW[50:]

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.client.post, "/predict", content=body(), headers=NPY)
        assert begun.wait(SLACK)
        with httpx.Client(base_url=server.url, timeout=SLACK) as other:
            assert other.get("/health/live").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        go_on.set()
        answer = future.result()
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
    assert service.end() == (0, "axonnx: stopped\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_it_in_order(number: int, tiny: Path, tmp_path: Path) -> None:
    """Also while it starts, and a second one while it ends: no traceback, no crash."""
    generator = random.Random(int(number))
    for _ in range(12):
        with (tmp_path / "log").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, ROOT / "axonnx.py", "serve", tiny, "--port", "0"],
                env={**os.environ, "AXONNX_DRAIN_SECONDS": "0"},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        for _ in range(2):
            time.sleep(generator.random() * 0.6)
            process.send_signal(number)
        said, _ = process.communicate(timeout=SLACK)
        assert process.returncode == 0, (process.returncode, (tmp_path / "log").read_text())
        assert (tmp_path / "log").read_text() == ""
        assert said.splitlines()[-1:] == ["axonnx: stopped"]

"""Replicas behind the balancer of compose.scale.yaml: what callers notice when one fails."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from small_artifacts import write_forecaster

import artifact
from artifact.arrays import Array, decode_npy, encode_npy
from serve.client import Client

pytestmark = [pytest.mark.docker, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
NPY = {"Content-Type": "application/x-npy"}
BUILD_SECONDS, RUN_SECONDS = 900, 120
CALLERS, TRIES = 12, 100


class Compose:
    """One project of compose.scale.yaml, on a free port."""

    def __init__(self, path: Path) -> None:
        self.project = f"axonnx-{uuid.uuid4().hex[:8]}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "DOCKER_BUILDKIT": "1",
            "AXONNX_ARTIFACT": str(path),
            "AXONNX_PORT": str(self.port),
            "AXONNX_SLOTS": "1",
        }

    def __call__(self, *words: str, timeout: float = RUN_SECONDS) -> str:
        return self.run(
            "compose", "-f", "compose.scale.yaml", "-p", self.project, *words, timeout=timeout
        )

    def run(self, *words: str, timeout: float = RUN_SECONDS) -> str:
        done = subprocess.run(
            ["docker", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout

    def scale(self, count: int) -> None:
        """As a user would: so many replicas, whatever there are now."""
        self("up", "--detach", "--no-build", "--wait", "--scale", f"serve={count}")

    def replica(self, number: int) -> str:
        """The container of a replica."""
        return f"{self.project}-serve-{number}"

    def figures(self, name: str) -> list[float]:
        """The balancer's own figures of the replicas."""
        code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8404/metrics').read().decode())"
        text = self("exec", "-T", "balancer", "python", "-c", code)
        pattern = rf"^{name.replace('{', '{proxy=.replicas.,server=.[a-z0-9]+.,')} (\S+)$"
        return [float(value) for value in re.findall(pattern, text, re.MULTILINE)]

    def in_service(self) -> int:
        return int(sum(self.figures('haproxy_server_status{state="UP"}')))

    def wait_in_service(self, count: int) -> None:
        limit = time.monotonic() + 30
        while (there := self.in_service()) != count:
            assert time.monotonic() < limit, f"{there} replicas in service, not {count}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_forecaster(tmp_path_factory.mktemp("scale") / "forecaster")


@pytest.fixture(scope="module")
def compose(forecaster: Path) -> Iterator[Compose]:
    compose = Compose(forecaster)
    compose("build", timeout=BUILD_SECONDS)
    try:
        compose.scale(3)
        compose.wait_in_service(3)
        yield compose
    finally:
        compose("down", "--timeout", "10", "--volumes")


@dataclass(frozen=True)
class Question:
    """An input of (batch, time, channel, feature) and the bytes of `Model.predict`'s answer."""

    rows: Array
    expected: bytes


class Callers:
    """Callers who ask until they are answered, and look at every byte of the answer.

    The even ones are plain HTTP and write down what failed; the odd ones are the project's client,
    which tries again by itself.
    """

    def __init__(self, url: str, questions: list[Question]) -> None:
        self.url = url
        self.questions = questions
        self.answered = [0] * CALLERS
        self.retries: list[str] = []
        self.wrong: list[str] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=(i,)) for i in range(CALLERS)]

    def call(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as plain, Client(self.url) as own:
            while not self.stop.is_set() and not self.wrong:
                which = (number + self.answered[number]) % len(self.questions)
                question = self.questions[which]
                try:
                    if number % 2:
                        got = own.predict(neural=question.rows)["forecast"].tobytes()
                    else:
                        got = self.ask(plain, question.rows)
                    if got != question.expected:
                        self.wrong.append("other bytes")
                except Exception as error:
                    self.wrong.append(repr(error))
                self.answered[number] += 1

    def ask(self, client: httpx.Client, rows: Array) -> bytes:
        """The answer, however often it has to be asked for."""
        body = encode_npy(rows)
        for _ in range(TRIES):
            try:
                answer = client.post("/predict", content=body, headers=NPY)
            except httpx.TransportError as error:
                self.retries.append(repr(error))
            else:
                if answer.status_code == 200:
                    return decode_npy(answer.content).tobytes()
                self.retries.append(f"{answer.status_code} {answer.text}")
                assert answer.status_code in (502, 503, 504), answer.text
            time.sleep(0.1)
        raise AssertionError("never answered")


@contextmanager
def calling(compose: Compose, questions: list[Question]) -> Iterator[Callers]:
    """Callers for the time of the block; none of them may be left without its answer."""
    callers = Callers(compose.url, questions)
    for thread in callers.threads:
        thread.start()
    try:
        wait_until(lambda: min(callers.answered) >= 20)
        yield callers
        more = [count + 20 for count in callers.answered]
        wait_until(lambda: all(a >= b for a, b in zip(callers.answered, more, strict=True)))
    finally:
        callers.stop.set()
        for thread in callers.threads:
            thread.join(60)
    assert callers.wrong == [], callers.retries[-10:]
    assert not any(thread.is_alive() for thread in callers.threads)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the callers get no further"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def questions(forecaster: Path) -> list[Question]:
    """1 to 6 rows and what `Model.predict` says to them."""
    model = artifact.load(forecaster)
    generator = np.random.default_rng(7)
    made = [generator.normal(0, 3, (n, 20, 4, 9)).astype(np.float32) for n in (1, 2, 3, 6)]
    return [Question(rows, model.predict({"neural": rows})["forecast"].tobytes()) for rows in made]


def test_a_killed_replica_costs_no_answer(compose: Compose, questions: list[Question]) -> None:
    compose.scale(3)
    compose.wait_in_service(3)
    with calling(compose, questions) as callers:
        compose.run("kill", compose.replica(1))
        compose.wait_in_service(2)
        compose.scale(3)
        compose.wait_in_service(3)
    # What was in the dead replica was asked again elsewhere. Only a connection that had already
    # brought half an answer can break, and the caller asks again.
    assert [text for text in callers.retries if "complete message body" not in text] == []
    assert len(callers.retries) <= 2, callers.retries
    answers = compose.figures('haproxy_server_http_responses_total{code="2xx"}')
    assert sum(count > 0 for count in answers) >= 3


def test_nobody_notices_that_a_replica_stops(compose: Compose, questions: list[Question]) -> None:
    compose.scale(3)
    compose.wait_in_service(3)
    with calling(compose, questions) as callers:
        compose.run("stop", compose.replica(2))
        compose.wait_in_service(2)
    assert callers.retries == []
    state = json.loads(compose.run("inspect", compose.replica(2)))[0]["State"]
    assert state["ExitCode"] == 0
    assert "axonnx: stopped" in compose.run("logs", compose.replica(2))


def test_nobody_notices_another_number_of_replicas(
    compose: Compose, questions: list[Question]
) -> None:
    compose.scale(1)
    compose.wait_in_service(1)
    with calling(compose, questions) as callers:
        compose.scale(3)
        compose.wait_in_service(3)
        compose.scale(2)
        compose.wait_in_service(2)
    assert callers.retries == []


def test_a_body_larger_than_the_balancers_buffer(compose: Compose, forecaster: Path) -> None:
    compose.scale(3)
    rows = np.random.default_rng(8).normal(0, 3, (1000, 20, 4, 9)).astype(np.float32)
    answer = httpx.post(f"{compose.url}/predict", content=encode_npy(rows), headers=NPY, timeout=60)
    expected: Array = artifact.load(forecaster).predict({"neural": rows})["forecast"]
    assert decode_npy(answer.content).tobytes() == expected.tobytes()


def test_what_the_balancer_says_itself(compose: Compose) -> None:
    compose.scale(1)
    compose.wait_in_service(1)
    answer = httpx.get(f"{compose.url}/metrics")
    assert (answer.status_code, answer.json()["type"]) == (404, "not_found")
    answer = httpx.get(f"{compose.url}/nowhere", headers={"X-Request-Id": "mine.1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (404, "mine.1")
    assert answer.json()["request_id"] == "mine.1"
    compose.run("stop", compose.replica(1))
    compose.wait_in_service(0)
    answer = httpx.get(f"{compose.url}/health/ready")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert set(answer.json()) == {"error", "type", "field", "request_id"}
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    answer = httpx.get(f"{compose.url}/health/ready", headers={"X-Request-Id": '"}'})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != '"}'


def test_the_containers_are_locked_down(compose: Compose) -> None:
    compose.scale(2)
    for service in ("balancer", "serve"):

        def inside(*words: str, service: str = service) -> str:
            return compose("exec", "-T", service, *words)

        assert inside("id", "-u").strip() == "10001"
        status = inside("cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        with pytest.raises(AssertionError, match="Read-only file system"):
            inside("touch", "/opt/x")
    published = json.loads(compose.run("inspect", compose.replica(1)))[0]["NetworkSettings"][
        "Ports"
    ]
    assert not any(published.values())
    assert compose("port", "balancer", "8000").strip() == f"127.0.0.1:{compose.port}"

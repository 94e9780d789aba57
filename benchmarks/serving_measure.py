"""Starting a server, asking it once, loading it; the raw loop beside it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import serving_model
import serving_processes
from environments import HERE, ROOT
from serving_servers import Endpoint, Server

HOST = "127.0.0.1"
START_SECONDS, FIRST_ANSWER_SECONDS = 180.0, 30.0
POLL_SECONDS = 0.02
WARM_UP_SECONDS = 1.0
ASK_SECONDS = 30.0


class ServerError(Exception):
    """A server does not start or does not answer as it should; the text says what came instead."""


@dataclass(frozen=True)
class Workplace:
    """Files that all servers share: artifact, graph, expected answer (1, 6), bodies by form."""

    folder: Path
    artifact: Path
    graph: Path
    answer: np.ndarray

    def body(self, form: str) -> Path:
        """The file that holds the body of this form."""
        return self.folder / f"body.{form}"


def prepare(folder: Path) -> Workplace:
    """Write model, bodies and the raw loop's input below `folder`."""
    artifact, graph = serving_model.write_model(folder)
    workplace = Workplace(folder, artifact, graph, serving_model.answer(graph))
    for form, body in serving_model.bodies().items():
        workplace.body(form).write_bytes(body)
    return workplace


class Raw:
    """The raw `session.run` loop in a process of its own; idle between samples."""

    def __init__(self, python: Path, workplace: Workplace) -> None:
        self._process = subprocess.Popen(
            [python, HERE / "serving_raw.py", workplace.graph, workplace.body("npy")],
            env=_environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.samples: list[dict[str, float]] = []

    def sample(self, seconds: float) -> dict[str, float]:
        """Processor milliseconds per run and runs per second, on one thread and on two."""
        found = {}
        for threads, name in ((1, "raw"), (2, "raw_2_threads")):
            self._stdin.write(f"{threads} {seconds}\n")
            self._stdin.flush()
            line = self._stdout.readline()
            if not line:
                raise ServerError(f"the raw loop ended with {self._process.wait()}")
            got = json.loads(line)
            found[f"{name}_ms"] = 1e3 * got["cpu_seconds"] / got["runs"]
            found[f"{name}_per_second"] = got["runs"] / got["seconds"]
        self.samples.append(found)
        return found

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._stdin.close()
        self._stdout.close()
        self._process.wait(10)


class Running:
    """A server that has answered its first request."""

    def __init__(
        self, server: Server, process: subprocess.Popen[bytes], port: int, log: Path
    ) -> None:
        self.server, self.process, self.port, self.log = server, process, port, log
        self.facts: dict[str, float] = {}

    def ask(self, endpoint: Endpoint, workplace: Workplace) -> bytes:
        """The body of one answer; raises ServerError unless it is 200 and the expected numbers."""
        body = workplace.body(endpoint.body).read_bytes()
        headers = {"Content-Type": endpoint.content_type, **endpoint.headers}
        status, fields, answer = request(
            self.port, "POST", _fill(endpoint.path, self.port, workplace), body, headers
        )
        if status != 200:
            raise ServerError(f"{self.server.label} {endpoint.path}: {status} {answer[:300]!r}")
        found = endpoint.read(fields, answer)
        if found.tobytes() != workplace.answer.tobytes():
            raise ServerError(f"{self.server.label} {endpoint.path}: wrong answer {answer[:300]!r}")
        return answer

    def load(
        self, endpoint: Endpoint, workplace: Workplace, concurrency: int, seconds: float
    ) -> dict[str, Any]:
        """One point: closed-loop load by the generator's process, and what it found."""
        expected = workplace.folder / "expected"
        expected.write_bytes(self.ask(endpoint, workplace))
        order = {
            "host": HOST,
            "port": self.port,
            "path": _fill(endpoint.path, self.port, workplace),
            "headers": {"Content-Type": endpoint.content_type, **endpoint.headers},
            "body": str(workplace.body(endpoint.body)),
            "expected": str(expected),
            "connections": concurrency,
            "warm_up": WARM_UP_SECONDS,
            "seconds": seconds,
            "process": self.process.pid,
        }
        path = workplace.folder / "order.json"
        path.write_text(json.dumps(order))
        done = subprocess.run(
            [sys.executable, HERE / "serving_load.py", path], capture_output=True, text=True
        )
        if done.returncode:
            raise ServerError(f"{self.server.label}: no load: {done.stderr.strip()[-300:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        if not found["requests"]:
            raise ServerError(f"{self.server.label} {endpoint.path}: no right answer: {found}")
        return {
            "cpu_ms_per_request": 1e3 * found["server_cpu"] / found["requests"],
            "requests_per_second": found["requests"] / found["seconds"],
            "p50_ms": found["p50_ms"],
            "p99_ms": found["p99_ms"],
            "requests": found["requests"],
            "refused": found["refused"],
            "wrong": found["wrong"],
            "broken": found["broken"],
            "generator_us_per_request": 1e6 * found["generator_cpu"] / found["requests"],
            "load_average": os.getloadavg()[0],
        }


@contextmanager
def running(server: Server, python: Path, workplace: Workplace) -> Iterator[Running]:
    """Start a server, wait for its first answer, note times and memory; stop it at the end.

    Raises ServerError with the end of its log where it does not start.
    """
    port = _free_port()
    log = workplace.folder / f"{server.label.replace(' ', '-')}.log"
    command = [str(python), *(_fill(word, port, workplace) for word in server.command)]
    extra = {name: _fill(text, port, workplace) for name, text in server.environment.items()}
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=workplace.folder,
            env=_environment(extra),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        found = Running(server, process, port, log)
        _wait_ready(found, began + START_SECONDS)
        found.facts["ready_s"] = time.monotonic() - began
        _first_answer(found, workplace, time.monotonic() + FIRST_ANSWER_SECONDS)
        found.facts["start_s"] = time.monotonic() - began
        time.sleep(1.0)  # idle again
        resident, proportional = serving_processes.memory_mb(process.pid)
        found.facts |= {"resident_mb": resident, "proportional_mb": proportional}
        yield found
    finally:
        serving_processes.stop(process)


def _wait_ready(found: Running, limit: float) -> None:
    while True:
        with suppress(OSError, http.client.HTTPException):
            if request(found.port, "GET", found.server.ready, b"", {})[0] == 200:
                return
        _refuse_dead(found, limit, "is not ready")


def _first_answer(found: Running, workplace: Workplace, limit: float) -> None:
    """The first endpoint that answers; the others are asked when their turn comes."""
    why: Exception
    while True:
        for endpoint in found.server.endpoints:
            try:
                found.ask(endpoint, workplace)
                return
            except (OSError, http.client.HTTPException, ServerError) as error:
                why = error
        _refuse_dead(found, limit, f"does not answer ({why})")


def _refuse_dead(found: Running, limit: float, what: str) -> None:
    time.sleep(POLL_SECONDS)
    if time.monotonic() > limit or found.process.poll() is not None:
        said = found.log.read_text(errors="replace")[-800:]
        raise ServerError(f"{found.server.label} {what}; its log ends: {said}")


def request(
    port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of one request on a new connection."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ASK_SECONDS)
    try:
        connection.request(method, path, body or None, dict(headers))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, fields, answer.read()
    finally:
        connection.close()


def _fill(text: str, port: int, workplace: Workplace) -> str:
    return text.format(
        port=port,
        model=serving_model.NAME,
        artifact=workplace.artifact,
        graph=workplace.graph,
        folder=workplace.folder,
    )


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of every process: this checkout's packages, compiled modules kept."""
    left_out = ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYTHONHOME")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith("AXONNX_")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port

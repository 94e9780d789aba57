"""The serving benchmark's own instruments: what the load generator counts, and the rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

serving_load = import_module("serving_load")
serving_processes = import_module("serving_processes")
serving_report = import_module("serving_report")
serving_servers = import_module("serving_servers")

OURS = serving_servers.OURS
GOOD = b"the answer"
# The keys that every row of a result has (DESIGN, "Figures").
ROW = ["case", "metric", "unit", "value", "spread", "peer", "peer_value", "goal", "met", "command"]


@contextmanager
def answering(answers: list[tuple[int, bytes, bool]]) -> Iterator[tuple[str, int]]:
    """An HTTP server that gives (status, body, close) in turn, for ever from the last."""
    given = iter(answers)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                status, body, close = next(given, answers[-1])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = close

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def loaded(answers: list[tuple[int, bytes, bool]], connections: int = 2) -> Any:
    with answering(answers) as address:
        request = serving_load.request_bytes("127.0.0.1", "/", {}, b"x" * 300_000)
        load = serving_load.Load(address, request, GOOD, connections)
        try:
            return load.run(0.3, os.getpid())
        finally:
            load.close()


def test_every_answer_is_counted_once_and_compared() -> None:
    result = loaded([(503, b"", False), (200, b"another", False), (200, GOOD, False)])
    assert (result.refused, result.wrong, result.broken) == ({"503": 1}, 1, 0)
    assert result.requests > 5
    assert 0.3 <= result.seconds < 2
    assert 0 < result.p50_ms <= result.p99_ms < 1e3 * result.seconds
    assert result.server_cpu > 0


def test_a_closed_connection_is_counted_and_replaced() -> None:
    result = loaded([(200, GOOD, True), (200, GOOD, False)], connections=1)
    assert (result.broken, result.refused, result.wrong) == (1, {}, 0)
    assert result.requests > 5


def test_the_share_of_a_percentile() -> None:
    hundred = [float(value) for value in range(1, 101)]
    assert [serving_load.percentile(hundred, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert serving_load.percentile([7.0], 0.5) == 7


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"Content-Length: 3\r\nX: y\r\n\r\nabc", b"abc"),
        (b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    ],
    ids=["length", "chunks"],
)
def test_where_an_answer_ends(answer: bytes, body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + answer
    assert serving_load.answer_length(answer) == len(answer)
    assert serving_load.body_of(answer) == body
    for cut in (10, answer.index(b"\r\n\r\n") + 2):
        assert serving_load.answer_length(answer[:cut]) == -1


def test_an_answer_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown length"):
        serving_load.answer_length(b"HTTP/1.0 200 OK\r\n\r\n")


def test_a_process_is_measured_and_stopped_with_its_children() -> None:
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        child = int(said.readline())
    try:
        assert set(serving_processes.family(process.pid)) == {process.pid, child}
        assert 0.3 <= serving_processes.cpu_seconds(process.pid) < 3
        resident, proportional = serving_processes.memory_mb(process.pid)
        assert 5 < proportional <= resident < 100
    finally:
        serving_processes.stop(process)
    assert not Path(f"/proc/{child}/cwd").exists()


RAWS = ("raw", "raw_2_threads")
RAW = {f"{name}_{unit}": 1.0 for name in RAWS for unit in ("ms", "per_second")}


def sample(
    server: str, protocol: str, concurrency: int, number: int, cost: float
) -> dict[str, Any]:
    return {
        **RAW,
        "server": server,
        "protocol": protocol,
        "concurrency": concurrency,
        "round": number,
        "cpu_ms_per_request": cost,
        "requests_per_second": 900.0,
        "p50_ms": 8.0,
        "p99_ms": 20.0,
    }


def test_rows_and_their_goals() -> None:
    costs = {"v2_binary": (1.1, 1.12, 1.3), "npy": (1.0, 1.1, 1.2), "json": (1.7, 1.8, 1.9)}
    points = [
        sample(OURS, protocol, concurrency, number, cost)
        for protocol, rounds in costs.items()
        for concurrency in (1, 8, 32)
        for number, cost in enumerate(rounds)
    ]
    points += [sample("slow batched", "json", 8, number, 5.0) for number in range(3)]
    points += [sample("fast", "raw", 8, number, 2.0) for number in range(3)]
    memory = {"resident_mb": 120.0, "proportional_mb": 110.0, "start_s": 2.0, "ready_s": 3.5}
    starts = [{"server": OURS, "round": 0, **memory}, {"server": "fast", "round": 0, **memory}]
    rows = serving_report.report_rows(points, starts, [RAW])
    assert all(list(row) == ROW for row in rows)
    found = {(row["case"], row["metric"]): row for row in rows}
    assert len(found) == len(rows)
    shown = {key: (row["goal"], row["met"]) for key, row in found.items() if row["goal"]}
    ratio = "cpu_ratio_to_raw_run"
    assert shown == {
        ("v2_binary/c8", ratio): ("<= 1.15", True),
        ("v2_binary/c32", ratio): ("<= 1.15", True),
        ("npy/c8", ratio): ("<= 1.15", True),
        ("npy/c32", ratio): ("<= 1.15", True),
        ("json/c8", ratio): ("<= 1.8", True),
        ("best_peer/c8", "cpu_ratio_to_best_peer"): ("<= 0.5", False),
        ("slow/c8", "cpu_ratio_to_peer"): ("<= 0.5", True),
        ("fast/c8", "cpu_ratio_to_peer"): ("<= 0.5", False),
        ("idle", "resident_mb"): ("<= 150", True),
        ("idle", "ready_s"): ("<= 3", False),
        **{(f"{name}/c8", "p99_to_p50"): ("<= 3", True) for name in costs},
    }
    assert found["v2_binary/c8", ratio]["value"] == 1.12
    assert found["v2_binary/c8", ratio]["spread"] == pytest.approx(0.2 / 1.12)
    assert found["best_peer/c8", "cpu_ratio_to_best_peer"]["peer"] == "fast, raw, ms (here npy)"
    assert found["best_peer/c8", "cpu_ratio_to_best_peer"]["value"] == pytest.approx(0.55)
    assert ("slow batched/json/c8", "p99_ms") in found
    json.dumps(rows, allow_nan=False)


def test_a_missing_server_leaves_no_row() -> None:
    points = [sample("fast", "raw", 8, 0, 2.0)]
    cases = {row["case"] for row in serving_report.report_rows(points, [], [RAW])}
    assert cases == {"fast/raw/c8", "raw/1_thread", "raw/2_threads"}


def test_every_peer_has_pinned_versions_and_its_own_program() -> None:
    found = serving_servers.servers(144)
    assert {server.name for server in found} == {OURS, "litserve", "bentoml", "mlserver", "ray"}
    for server in found:
        assert all("=" in word or "<" in word for word in server.requirements)
        assert any(word.startswith("onnxruntime==") for word in server.requirements)
        for word in server.command:
            assert not word.endswith(".py") or Path(word).is_file()

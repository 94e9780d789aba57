"""The gRPC side as part of the process: keys, counts, TLS, bounds, start and stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from grpc_caller import Caller, Code, address, calling, forecast, outcome, refused, tensors
from server_process import ROOT, Server, running

from serve.grpc_calls import SERVICE, SMALL_READS

pytestmark = pytest.mark.slow
SECRET = "a-key-of-sixteen-characters"


def test_keys_counts_and_log(forecaster: Path, tmp_path: Path) -> None:
    options = {"grpc_port": 0, "api_keys": SECRET, "access_log": True}
    server = Server(tmp_path / "log", forecaster, **options)
    with calling(server) as call:
        assert call("ServerLive").live
        assert call("ServerReady").ready
        error = refused(Code.UNAUTHENTICATED, lambda: forecast(call))
        assert "a key is needed" in error.details()
        wrong = [("x-api-key", "x" * 16)]
        error = refused(Code.UNAUTHENTICATED, lambda: forecast(call, metadata=wrong))
        assert "none of those known" in error.details()
        for right in (("x-api-key", SECRET), ("authorization", f"Bearer {SECRET}")):
            forecast(call, metadata=[right])
        right = [("x-api-key", SECRET)]
        refused(
            Code.PERMISSION_DENIED,
            lambda: call("RepositoryModelUnload", metadata=right, model_name="small-forecaster"),
        )
        refused(Code.INVALID_ARGUMENT, lambda: forecast(call, metadata=right, inputs=[]))
    name = 'model="small-forecaster",protocol="grpc"'
    limit = time.monotonic() + 20
    while True:  # an answer is counted once it is sent: its caller may have it before
        text = server.client.get("/metrics", headers=dict(right)).text
        if f'axonnx_requests_total{{{name},status="400",version="1"}} 1.0' in text:
            break
        assert time.monotonic() < limit, text
        time.sleep(0.02)
    assert f'axonnx_requests_total{{{name},status="200",version="1"}} 2.0' in text
    assert 'axonnx_requests_total{model="",protocol="grpc",status="401",version=""} 2.0' in text
    assert 'axonnx_errors_total{model="small-forecaster",type="malformed_body"} 1.0' in text
    assert server.stop() == 0
    lines = [line for line in server.last_words.splitlines() if "ModelInfer" in line]
    assert len(lines) == 5
    assert f'127.0.0.1 "POST /{SERVICE}/ModelInfer HTTP/2" 200' in lines[2]
    assert "rows=1" in lines[2]
    assert server.log.read_text() == ""


def test_over_tls(forecaster: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    mine.cert_chain_pems[0].write_to_path(certificate)
    mine.private_key_pem.write_to_path(key)
    files = {"tls_certificate": certificate, "tls_key": key}
    server = Server(tmp_path / "log", forecaster, grpc_port=0, **files)
    trust = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with grpc.secure_channel(address(server), trust) as channel:
        forecast(Caller(channel))
    with calling(server) as call:
        refused(Code.UNAVAILABLE, lambda: call("ServerLive"))
    assert server.stop() == 0
    assert server.log.read_text() == ""
    done = start(forecaster, AXONNX_GRPC_PORT="0", **upper(files), AXONNX_TLS_KEY_PASSWORD="p")
    assert done.returncode == 2
    assert "gRPC takes a private key without a pass phrase only; decrypt" in done.stderr


def upper(files: Mapping[str, Path]) -> dict[str, str]:
    return {f"AXONNX_{name.upper()}": str(path) for name, path in files.items()}


@pytest.fixture
def busy(tiny: Path, tmp_path: Path) -> Iterator[Server]:
    """One run at a time, one row per run: many rows take long. One call at most is pending."""
    options = {"slots": 1, "max_rows": 1, "max_pending": 1, "shutdown_timeout": 30}
    yield from serving(tiny, tmp_path, options)


@pytest.fixture
def hasty(tiny: Path, tmp_path: Path) -> Iterator[Server]:
    """The same, and what runs has no time to finish at a stop."""
    options = {"slots": 1, "max_rows": 1, "shutdown_timeout": 0}
    yield from serving(tiny, tmp_path, options)


def serving(path: Path, folder: Path, options: dict[str, int]) -> Iterator[Server]:
    """A server that the test stops."""
    server = Server(folder / "log", path, grpc_port=0, **options)
    yield server
    server.client.close()
    server.process.kill()
    server.process.communicate()


def rows(count: int) -> dict[str, Any]:
    """A request of so many rows; half a million take seconds on any machine."""
    values = np.ones((count, 20, 1, 1), np.float32)
    return {"model_name": "tiny", **tensors({"neural": values})}


class Aside(threading.Thread):
    """A call in a thread; `outcome` is its answer or error."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._work()
        except grpc.RpcError as error:
            self.outcome = error


def test_overload_deadline_and_a_caller_who_leaves(busy: Server) -> None:
    with calling(busy) as call, calling(busy) as other:
        running = call.begin("ModelInfer", **rows(100_000))
        busy.wait_for_pending(1)
        error = refused(Code.UNAVAILABLE, lambda: other("ModelInfer", **rows(1)))
        trailing = dict(error.trailing_metadata())
        assert trailing["x-error-type"] == "overloaded"
        assert trailing["grpc-retry-pushback-ms"] == "1000"
        assert other("ServerReady").ready
        running.cancel()
        busy.wait_for_pending(0)
        refused(Code.DEADLINE_EXCEEDED, lambda: call("ModelInfer", timeout=1, **rows(500_000)))
        busy.wait_for_pending(0)
        assert len(other("ModelInfer", **rows(1)).raw_output_contents[0]) == 80
    assert busy.stop() == 0
    assert busy.log.read_text() == ""


def test_sigterm_lets_calls_finish_and_takes_no_new_ones(busy: Server) -> None:
    with calling(busy) as call, calling(busy) as other:
        assert other("ServerReady").ready
        running = call.begin("ModelInfer", **rows(50_000))
        busy.wait_for_pending(1)
        busy.process.send_signal(signal.SIGTERM)
        assert outcome(lambda: until_not_ready(other)) in (Code.OK, Code.UNAVAILABLE)
        assert len(running.result().raw_output_contents[0]) == 50_000 * 80
        assert busy.process.wait(60) == 0
        refused(Code.UNAVAILABLE, lambda: other("ServerLive"))
    assert busy.log.read_text() == ""


def test_while_it_drains_it_is_not_ready_and_answers(tiny: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", tiny, grpc_port=0, drain_seconds=2)
    with calling(server) as call:
        server.process.send_signal(signal.SIGTERM)
        until_not_ready(call)
        assert call("ServerLive").live
        assert len(call("ModelInfer", **rows(1)).raw_output_contents[0]) == 80
    assert server.process.wait(60) == 0
    server.stop(0)


def until_not_ready(call: Caller) -> None:
    limit = time.monotonic() + 20
    while call("ServerReady").ready:
        assert time.monotonic() < limit


@pytest.mark.parametrize("signals", [1, 2])
def test_calls_that_take_too_long_for_a_stop_are_told(hasty: Server, signals: int) -> None:
    with calling(hasty) as call:
        running = call.begin("ModelInfer", **rows(500_000))
        hasty.wait_for_pending(1)
        for _ in range(signals):
            hasty.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert running.code() == Code.UNAVAILABLE
        assert running.details() == "the service stopped before the answer was there"
        assert hasty.process.wait(60) == 1
    assert "requests cut short: 1" in hasty.log.read_text()


def test_a_message_that_does_not_come_is_not_waited_for(forecaster: Path, tmp_path: Path) -> None:
    options = {"request_timeout": 0.5, "header_timeout": 0.5, "max_pending": 2}
    with running(tmp_path, forecaster, grpc_port=0, **options) as server, calling(server) as call:
        stop = threading.Event()

        def nothing() -> Iterator[bytes]:
            stop.wait(20)
            yield b""

        for method in ("ModelInfer", "ModelMetadata"):
            error = refused(
                Code.DEADLINE_EXCEEDED, lambda method=method: call.slowly(method, nothing())
            )
            assert error.details() == "the message did not arrive in time"
        stop.set()
        forecast(call)


def test_messages_that_do_not_come_take_nobodys_place(forecaster: Path, tmp_path: Path) -> None:
    bound = 1 + SMALL_READS
    with (
        running(tmp_path, forecaster, grpc_port=0, max_pending=1) as server,
        calling(server) as slow,
        calling(server) as call,
    ):
        stop = threading.Event()

        def nothing() -> Iterator[bytes]:
            stop.wait(20)
            yield b""

        callers = [Aside(lambda: slow.slowly("ModelInfer", nothing())) for _ in range(bound)]
        time.sleep(0.5)
        forecast(call)  # one of the slow ones at most is given up for it
        forecast(call)
        stop.set()
        for caller in callers:
            caller.join()
        given_up = [x for x in callers if x.outcome.code() == Code.UNAVAILABLE]
        assert len(given_up) <= 1
        for caller in given_up:
            assert dict(caller.outcome.trailing_metadata())["x-error-type"] == "overloaded"


def test_connections_are_bounded(forecaster: Path, tmp_path: Path) -> None:
    with running(tmp_path, forecaster, grpc_port=0, max_connections=3) as server:
        channels = [
            grpc.insecure_channel(address(server), [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(6)
        ]
        codes = [
            outcome(lambda channel=channel: Caller(channel)("ServerLive", timeout=1))
            for channel in channels
        ]
        assert set(codes) <= {Code.OK, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
        assert 1 <= codes.count(Code.OK) <= 3
        for channel in channels:
            channel.close()


def start(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that ends by itself."""
    return subprocess.run(
        [sys.executable, ROOT / "axonnx.py", "serve", *map(str, words), "--port", "0"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_port_that_is_taken_ends_with_2(forecaster: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(forecaster, AXONNX_GRPC_PORT=str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"axonnx: error: AXONNX_GRPC_PORT: cannot listen on 127.0.0.1:{port}; the port is taken, "
        "or the address is none of this machine\n"
    )


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == sys.argv[1] or name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from serve import cli
assert "grpc" not in sys.modules
sys.exit(cli.main(["serve", sys.argv[2], "--port", "0"]))
"""


@pytest.mark.parametrize("library", ["grpc", "google.protobuf"])
def test_a_missing_extra_is_named(library: str, forecaster: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, library, forecaster],
        cwd=ROOT,
        env={**os.environ, "AXONNX_GRPC_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"axonnx: error: AXONNX_GRPC_PORT: {library} is not installed; "
        "get it with `uv sync --extra serve --extra cpu --extra grpc`\n"
    )

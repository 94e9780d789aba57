"""The clients where the network or the service fails: what is tried again, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import trustme
from server_process import ROOT, running

import artifact
from artifact.arrays import Array
from serve import client as module
from serve.client import AsyncClient, Client, ServiceError

NAME = "small-forecaster"


def windows(rows: int) -> Array:
    return np.random.default_rng(0).normal(0, 3, (rows, 20, 4, 9)).astype(np.float32)


def in_async(url: str, ask: Callable[[AsyncClient], Awaitable[Any]], **arguments: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **arguments) as client:
            return await ask(client)

    return asyncio.run(run())


def test_keys_and_certificates(forecaster: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "chain.pem", append=True)
    key = "a-key-of-many-letters"
    with serving(
        forecaster,
        tls_certificate=tmp_path / "chain.pem",
        tls_key=tmp_path / "key.pem",
        api_keys=key,
    ) as url:
        start = time.monotonic()
        with Client(url, api_key=key) as client, pytest.raises(module.Untrusted):
            client.predict(NAME, neural=windows(1))
        assert time.monotonic() - start < 5  # and not tried again
        with Client(url, api_key=key, verify=tmp_path / "ca.pem") as client:
            assert client.predict(NAME, neural=windows(1)).model == NAME
            assert key not in repr(vars(client))
        with Client(url, verify=False) as client:
            assert client.ready()
            with pytest.raises(module.Unauthorized, match="a key is needed") as caught:
                client.predict(NAME, neural=windows(1))
            assert caught.value.status == 401
        with pytest.raises(module.Unauthorized, match="none of those"):
            in_async(url, lambda client: client.models(), api_key="wrong", verify=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


@contextlib.contextmanager
def serving(
    path: Path, port: int = 0, number: int = signal.SIGTERM, **environment: object
) -> Iterator[str]:
    """A server on a given port, its address; at the end it gets the signal."""
    variables = {f"AXONNX_{key.upper()}": str(value) for key, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, ROOT / "axonnx.py", "serve", path, "--port", str(port)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "listening on" in line:
                url = line.split()[-1]
            if line == "axonnx: ready\n":
                break
        yield url
    finally:
        process.send_signal(number)
        process.communicate(timeout=30)


# Attempts


def test_overloaded_services_are_asked_again(forecaster: Path, tmp_path: Path) -> None:
    with running(tmp_path, forecaster, max_pending_bytes=10_000) as server:
        host, port = server.url.removeprefix("http://").split(":")

        @contextlib.contextmanager
        def full() -> Iterator[socket.socket]:
            """A prediction whose body stops coming has nearly all the bytes that there are."""
            with socket.create_connection((host, int(port))) as half:
                half.sendall(
                    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
                    b"Content-Length: 10000\r\n\r\n" + b"x" * 9000
                )
                server.wait_for_bytes(9000)
                yield half
            server.wait_for_bytes(0)

        with full(), Client(server.url, retries=0) as client:
            with pytest.raises(module.Overloaded) as caught:
                client.predict(NAME, neural=windows(1))
            assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
            assert client.ready()
        with full(), Client(server.url, retries=1) as client:
            start = time.monotonic()
            with pytest.raises(module.Overloaded, match="2 attempts") as caught:
                client.predict(NAME, neural=windows(1))
            assert 1.0 < time.monotonic() - start < 8
        with full(), Client(server.url, timeout=0.9) as client:  # no second attempt fits into it
            start = time.monotonic()
            with pytest.raises(module.Overloaded):
                client.predict(NAME, neural=windows(1))
            assert time.monotonic() - start < 0.9
        with full() as half, Client(server.url) as client:
            threading.Timer(0.4, half.close).start()
            assert client.predict(NAME, neural=windows(1)).model == NAME
        with full() as half:
            threading.Timer(0.4, half.close).start()
            ask = in_async(server.url, lambda client: client.predict(NAME, neural=windows(1)))
            assert ask.model == NAME
        with Client(server.url, retries=1000) as client, ThreadPoolExecutor(6) as pool:
            answers = pool.map(lambda _: client.predict(NAME, neural=windows(1)), range(30))
            assert all(answer.model == NAME for answer in answers)


def test_a_server_that_comes_back(
    forecaster: Path, forecaster_model: artifact.Model, tmp_path: Path
) -> None:
    port, neural = free_port(), windows(3)
    expected = forecaster_model.predict({"neural": neural})["forecast"].tobytes()
    stop = threading.Event()
    answers: list[bool] = []

    def keep_asking() -> None:
        while not stop.is_set():
            answer = client.predict(NAME, neural=neural)["forecast"]
            answers.append(answer.tobytes() == expected)

    with Client(f"http://127.0.0.1:{port}", retries=1000) as client, ThreadPoolExecutor(4) as pool:
        assert not client.live()
        callers = [pool.submit(keep_asking) for _ in range(4)]
        with serving(forecaster, port, signal.SIGKILL):
            while len(answers) < 20:
                time.sleep(0.02)
        with serving(forecaster, port):
            stop.set()
            for caller in callers:
                caller.result()
        assert len(answers) >= 24
    assert all(answers)


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    with Client(url, retries=2) as client:
        assert not client.live()
        assert not client.ready(NAME)
        with pytest.raises(module.Unreachable, match=f"no connection to {url}.*3 attempts"):
            client.predict(NAME, neural=windows(1))
    with pytest.raises(module.Unreachable, match="2 attempts"):
        in_async(url, lambda client: client.predict(NAME, neural=windows(1)), retries=1)
    assert time.monotonic() - start < 5


def test_the_deadline_is_the_services_too(tiny: Path, tmp_path: Path) -> None:
    neural = np.zeros((100_000, 20, 1, 1), np.float32)
    with running(tmp_path, tiny, slots=1, max_rows=1) as server:
        with Client(server.url) as client, pytest.raises(module.DeadlineExceeded):
            client.predict("tiny", neural=neural, timeout=0.5)
        server.wait_for_pending(0)
        with pytest.raises(module.DeadlineExceeded):
            in_async(server.url, lambda client: client.predict("tiny", neural=neural, timeout=0.5))
        server.wait_for_pending(0)
    assert isinstance(module.DeadlineExceeded("late"), ServiceError)


# Others that answer in the place of the service


class Peer(BaseHTTPRequestHandler):
    """Answers every request with the next of `script`: status, headers, body pieces."""

    protocol_version = "HTTP/1.1"
    script: list[tuple[int, dict[str, str], list[bytes]]]
    connections = requests = 0
    asked: list[tuple[str, int]]  # request id and timeout in microseconds

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_POST(self) -> None:
        type(self).requests += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        head = orjson.loads(body[: int(self.headers["inference-header-content-length"])])
        self.asked.append((self.headers["x-request-id"], head["parameters"]["timeout"]))
        status, headers, pieces = self.script.pop(0)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.close_connection = "Content-Length" in headers  # a length that does not come
        headers = {"Content-Length": str(sum(map(len, pieces))), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            for place, piece in enumerate(pieces):
                time.sleep(0.2 if place else 0)
                self.wfile.write(piece)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def peer(*script: tuple[int, dict[str, str], list[bytes]]) -> Iterator[tuple[str, type[Peer]]]:
    handler = type("Scripted", (Peer,), {"script": list(script), "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()


HEAD = b'{"model_name":"m","outputs":[]}'
GOOD: tuple[int, dict[str, str], list[bytes]] = (200, {}, [HEAD])


@pytest.mark.parametrize(
    ("answer", "attempts", "kind", "text"),
    [
        ((502, {}, [b"<html>Bad Gateway\n</html>"]), 2, "Unreachable", "Bad Gateway, not in the"),
        ((503, {}, [b""]), 2, "Unavailable", r"Service Unavailable \(503"),
        ((503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, []), 2, "Unavailable", "503"),
        ((503, {"Retry-After": "3600"}, []), 1, "Unavailable", "503"),
        ((0, {}, []), 2, "Unreachable", "broke before the answer"),
        ((200, {"Content-Length": "99"}, [HEAD, b"x"]), 2, "Unreachable", "broke before"),
        ((500, {}, [b'{"error":"oh"}']), 1, "ServerFault", r"oh \(500"),
        ((504, {}, [b"[]"]), 1, "DeadlineExceeded", "Gateway Timeout"),
        ((429, {"Retry-After": "1"}, [b"slow down"]), 1, "RequestRefused", "slow down"),
        ((501, {}, [b""]), 1, "RequestRefused", "Not Implemented"),
        ((301, {"Location": "http://other"}, [b""]), 1, "BadAnswer", "http://other"),
        ((200, {}, [b"<html>"]), 1, "BadAnswer", "not JSON"),
        ((799, {}, [b"\xff\xfe"]), 1, "ServerFault", "unknown status"),
    ],
)
def test_balancers_and_strangers(answer: Any, attempts: int, kind: str, text: str) -> None:
    with peer(answer, answer) as (url, seen), Client(url, retries=1, timeout=20) as client:
        with pytest.raises(getattr(module, kind), match=text) as caught:
            client.predict("m", x=windows(1), request_id="mine")
        assert seen.requests == caught.value.attempts == attempts
        assert caught.value.request_id == "mine"
    with peer(answer, GOOD) as (url, seen):
        if attempts == 2:
            answered = in_async(url, lambda client: client.predict("m", x=windows(1)))
            assert (answered.version, answered.artifact, answered.outputs) == (None, None, {})
        else:
            with pytest.raises(getattr(module, kind), match=text):
                in_async(url, lambda client: client.predict("m", x=windows(1)))


def test_attempts_share_an_id_and_a_deadline() -> None:
    with peer((503, {}, [b""]), (502, {}, [b""]), GOOD) as (url, seen), Client(url) as client:
        client.predict("m", x=windows(1), timeout=20)
    ids, timeouts = zip(*seen.asked, strict=True)
    assert len(set(ids)) == 1
    assert 20_000_000 >= timeouts[0] > timeouts[1] + 50_000 > timeouts[2] + 150_000


def test_connections_are_kept() -> None:
    with peer(*[GOOD] * 5) as (url, seen), Client(url) as client:
        for _ in range(5):
            client.predict("m", x=windows(1))
        assert (seen.connections, seen.requests) == (1, 5)


def test_an_answer_that_trickles() -> None:
    slow = (200, {}, [HEAD[:1], *[b" "] * 20, HEAD[1:]])
    for ask in (
        lambda url: Client(url).predict("m", x=windows(1), timeout=0.5),
        lambda url: in_async(url, lambda c: c.predict("m", x=windows(1), timeout=0.5)),
    ):
        with peer(slow) as (url, _):
            start = time.monotonic()
            with pytest.raises(module.DeadlineExceeded, match=r"no answer within 0\.5 s"):
                ask(url)
            assert time.monotonic() - start < 2

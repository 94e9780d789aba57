"""What one connection may do: say nothing, offer a protocol, send garbage after requests, leave."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme
from server_process import Server, running

from artifact.arrays import encode_npy

BODY = encode_npy(np.random.default_rng(0).normal(size=(1, 20, 4, 9)).astype(np.float32))
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(forecaster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """No caller makes it write anything, which `running` looks at in the end."""
    folder = tmp_path_factory.mktemp("connections")
    with running(folder, forecaster, header_timeout=1, keep_alive=2) as server:
        yield server


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=20)


def post(*lines: str, body: bytes = BODY) -> bytes:
    head = ["POST /predict HTTP/1.1", "Host: x", "Content-Type: application/x-npy", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The next answer on a connection; nothing of what follows it is read."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert found is not None
    body = b""
    while len(body) < int(found[1]):
        body += connection.recv(int(found[1]) - len(body))
    return int(head.split()[1]), body


def errors(server: Server, kind: str) -> float:
    text = server.client.get("/metrics").text
    found = re.search(rf'^axonnx_errors_total{{model="",type="{kind}"}} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def seconds_until_cut(connection: socket.socket, send: bytes) -> float:
    """Send a little again and again until the service has had enough."""
    start = time.monotonic()
    connection.settimeout(0.2)
    while time.monotonic() - start < 10:
        try:
            if connection.recv(1) == b"":
                break
        except TimeoutError:
            pass
        except ConnectionError:
            break
        try:
            connection.sendall(send)
        except ConnectionError:
            break
    return time.monotonic() - start


@pytest.mark.parametrize("first", [b"", LIVE], ids=["at once", "after an answer"])
def test_empty_lines_keep_no_connection_open(server: Server, first: bytes) -> None:
    before = errors(server, "slow_head")
    with connect(server) as connection:
        if first:
            connection.sendall(first)
            assert answer(connection)[0] == 200
        assert 0.9 < seconds_until_cut(connection, b"\r\n") < 4
    assert errors(server, "slow_head") == before + 1


def test_a_tls_handshake_is_bounded(forecaster: Path, tmp_path: Path) -> None:
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = trustme.CA().issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(files[0])
    made.private_key_pem.write_to_path(files[1])
    settings = {"tls_certificate": files[0], "tls_key": files[1], "header_timeout": 1}
    with running(tmp_path, forecaster, **settings) as server, connect(server) as connection:
        assert 0.9 < seconds_until_cut(connection, b"") < 4


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ((f"Content-Length: {len(BODY)}",), BODY),
        (("Transfer-Encoding: chunked",), CHUNKED),
        ((f"Content-Length: {len(BODY)}", "Expect: 100-continue"), BODY),
    ],
    ids=["length", "chunked", "expect"],
)
@pytest.mark.parametrize("piece", [1 << 20, 100], ids=["whole", "in pieces"])
def test_an_offer_of_another_protocol_is_declined(
    server: Server, lines: tuple[str, ...], body: bytes, piece: int
) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    asked = server.client.post(
        "/predict", content=BODY, headers={"Content-Type": "application/x-npy"}
    )
    sent = post(*offer, *lines, body=body) * 2 + LIVE
    with connect(server) as connection:
        for place in range(0, len(sent), piece):
            connection.sendall(sent[place : place + piece])
        answers = []
        while len(answers) < 3:
            connection.settimeout(20)
            if connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 100":
                connection.recv(len(b"HTTP/1.1 100 Continue\r\n\r\n"))
            else:
                answers.append(answer(connection))
    assert answers[:2] == [(200, asked.content)] * 2
    assert answers[2][0] == 200


GOOD = post(f"Content-Length: {len(BODY)}")
BROKEN = post("Transfer-Encoding: chunked", body=b"never\r\n")
LONG = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (1 << 17) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("garbage", "status"), [(b"gibberish\r\n\r\n", 400), (BROKEN, 400), (LONG, 431)]
)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_garbage_is_answered_after_the_requests_before_it(
    server: Server, garbage: bytes, status: int, count: int
) -> None:
    with connect(server) as connection:
        connection.sendall(GOOD * count + garbage)
        answers = [answer(connection) for _ in range(count + 1)]
        assert connection.recv(1) == b""
    assert [one[0] for one in answers] == [200] * count + [status]
    assert len({body for _, body in answers[:count]}) <= 1


def test_connect_is_refused_and_what_follows_it_is_not_read(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"CONNECT /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 405
        response.read()
        assert connection.recv(1) == b""


def test_whoever_leaves_waits_for_no_run(tiny: Path, tmp_path: Path) -> None:
    """One prediction runs in the only slot; of those behind it none is left once they are gone."""
    long, short = (encode_npy(np.zeros((rows, 20, 1, 1), np.float32)) for rows in (150_000, 1))
    headers = {"Content-Type": "application/x-npy"}
    with (
        running(tmp_path, tiny, max_rows=1, slots=1) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(
            httpx.post, f"{server.url}/predict", content=long, headers=headers, timeout=60
        )
        server.wait_for_pending(1)
        time.sleep(0.5)  # it is read, then it runs
        callers = [connect(server) for _ in range(8)]
        for caller in callers:
            caller.sendall(post(f"Content-Length: {len(short)}", body=short))
        server.wait_for_pending(9)
        for caller in callers:
            caller.close()
        start = time.monotonic()
        server.wait_for_pending(1)
        assert time.monotonic() - start < 1
        assert not first.done()
        assert first.result().status_code == 200
        metrics = server.client.get("/metrics").text
        found = re.search(r'axonnx_requests_total{[^}]*status="499"[^}]*} (\S+)', metrics)
        assert found is not None
        assert float(found[1]) == 8

"""Bounds of connections, heads, messages and bodies: what keeps the service waiting is cut."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import Server, running

from artifact.arrays import encode_npy

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
ROW = encode_npy(np.ones((1, 20, 1, 1), np.float32))
SLACK = 30.0  # a shared machine may be slow
Answer = tuple[int, dict[str, str], bytes]


def post(length: int, *lines: bytes) -> bytes:
    """The head of a prediction with a body of so many bytes."""
    head = [b"POST /predict HTTP/1.1", b"Host: x", b"Content-Type: application/x-npy"]
    return b"\r\n".join([*head, b"Content-Length: %d" % length, *lines, b"", b""])


CHUNKED = post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


class Connection:
    """A connection to the service, byte by byte."""

    def __init__(self, server: Server, receive_buffer: int | None = None) -> None:
        url = httpx.URL(server.url)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SLACK)
        assert url.port is not None
        self.socket.connect((url.host, url.port))
        self.received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def trickle(self, data: bytes, pause: float) -> float:
        """Send byte by byte until the service cuts the connection; the seconds that took."""
        start = time.monotonic()
        try:
            for byte in data:
                self.send(bytes([byte]))
                time.sleep(pause)
        except (ConnectionResetError, BrokenPipeError):
            return time.monotonic() - start
        raise AssertionError("it was never cut")

    def answer(self) -> Answer:
        """The next answer: status, headers by lower-case name, body."""
        while b"\r\n\r\n" not in self.received:
            self._more()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers["content-length"])
        while len(self.received) < length:
            self._more()
        body, self.received = self.received[:length], self.received[length:]
        return int(status.split()[1]), headers, body

    def error(self) -> tuple[int, str]:
        """Status and type of the next answer, which has the one body of errors."""
        status, headers, body = self.answer()
        document = orjson.loads(body)
        assert set(document) == {"error", "type", "field", "request_id"}
        assert headers["x-request-id"] == document["request_id"]
        return status, document["type"]

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def until_closed(self) -> float:
        """The seconds until the service closes the connection; `received` is what came."""
        start = time.monotonic()
        try:
            while True:
                self._more()
        except (ConnectionResetError, EOFError):
            return time.monotonic() - start

    def _more(self) -> None:
        part = self.socket.recv(1 << 16)
        if not part:
            raise EOFError
        self.received += part


def metric(server: Server, name: str) -> float:
    """The value of a metric, whose name and labels are a regular expression; 0 where none is."""
    found = re.search(rf"^{name} (\S+)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Heads within a second, idle connections for two, messages and unread answers for seven."""
    folder = tmp_path_factory.mktemp("bounds")
    settings = {"header_timeout": 1, "keep_alive": 2, "request_timeout": 2, "slots": 1}
    with running(folder, tiny, max_body_bytes=20_000_000, **settings) as server:
        yield server


@pytest.mark.parametrize(
    "sent", [b"", b"G", b"\r\n\r\n", b"GET /health/live HTTP/1.1\r\nHost: x\r\n"]
)
@pytest.mark.parametrize("used", [False, True])
def test_a_head_that_does_not_come_is_cut(server: Server, sent: bytes, used: bool) -> None:
    with Connection(server) as connection:
        if used:
            assert connection.ask(LIVE)[0] == 200
        connection.send(sent)
        assert 0.9 < connection.until_closed() < SLACK
        assert connection.received == b""


def test_a_trickled_head_is_cut(server: Server) -> None:
    with Connection(server) as connection:
        assert 0.9 < connection.trickle(LIVE[:-2] + b"X: " + b"y" * 500, 0.1) < SLACK


def test_idle_connections_are_kept_for_a_while(server: Server) -> None:
    with Connection(server) as connection:
        for _ in range(3):
            status, headers, _ = connection.ask(LIVE)
            assert status == 200
            assert "connection" not in headers
            time.sleep(1.2)  # longer than a head may take
        assert connection.until_closed() < SLACK
        assert connection.received == b""


@pytest.mark.parametrize(
    "request_", [LIVE.replace(b"HTTP/1.1", b"HTTP/1.0"), LIVE[:-2] + b"Connection: close\r\n\r\n"]
)
def test_old_and_unwilling_callers_are_not_kept(server: Server, request_: bytes) -> None:
    with Connection(server) as connection:
        status, headers, _ = connection.ask(request_)
        assert (status, headers["connection"]) == (200, "close")
        assert connection.until_closed() < 1.5


def test_the_rest_of_a_body_that_is_answered_already(server: Server) -> None:
    """It is passed over, in the time for a message; then the connection serves or ends."""
    rest = b"x" * 1_000_000
    with Connection(server) as sent, Connection(server) as trickled, Connection(server) as silent:
        for connection in (sent, trickled, silent):
            connection.send(post(30_000_000))
            assert connection.error() == (413, "body_too_large")
        for _ in range(30):
            sent.send(rest)
            silent.send(rest)
        assert sent.ask(LIVE)[0] == 200
        assert silent.until_closed() < SLACK
        assert silent.received == b""
        assert trickled.trickle(b"x" * 200, 0.2) < SLACK


def test_a_body_that_is_announced_and_awaited(server: Server) -> None:
    with Connection(server) as connection:
        connection.send(post(len(ROW), b"Expect: 100-continue"))
        assert connection.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.ask(ROW)[0] == 200
        connection.send(post(60_000_000, b"Expect: 100-continue"))
        assert connection.error() == (413, "body_too_large")


def test_a_trickled_body_gets_the_time_for_a_request(server: Server) -> None:
    with Connection(server) as connection:
        connection.send(post(len(ROW)))
        start = time.monotonic()
        for byte in ROW[:12]:
            connection.send(bytes([byte]))
            time.sleep(0.2)
        assert connection.error() == (408, "slow_body")
        assert 1.9 < time.monotonic() - start < SLACK


@pytest.mark.parametrize("size", [66_000, 300_000])
def test_a_head_that_is_too_large(server: Server, size: int) -> None:
    def head(size: int) -> bytes:
        return LIVE[:-2] + b"X: " + b"y" * size + b"\r\n\r\n"

    with Connection(server) as connection:
        assert connection.ask(head(60_000))[0] == 200
        connection.send(head(size))
        assert connection.error() == (431, "head_too_large")
        assert connection.until_closed() < SLACK
    with Connection(server) as connection:  # one that never ends
        connection.send(head(600_000)[:-4])
        assert connection.error() == (431, "head_too_large")
    many = b"".join(b"X-%d: y\r\n" % number for number in range(9000))
    with Connection(server) as connection:
        connection.send(LIVE[:-2] + many + b"\r\n")
        assert connection.error() == (431, "head_too_large")


def test_a_large_body_is_no_large_head(server: Server) -> None:
    body = encode_npy(np.ones((3000, 20, 1, 1), np.float32))
    question = post(len(body)) + body
    with Connection(server) as connection:
        connection.send(question * 3)  # heads that come with the end of the body before them
        assert [connection.answer()[0] for _ in range(3)] == [200] * 3
        connection.send(LIVE[:9])
        time.sleep(0.1)
        assert connection.ask(LIVE[9:])[0] == 200


def test_requests_sent_ahead_are_answered_in_their_order(server: Server) -> None:
    with Connection(server) as connection:
        connection.send(post(len(ROW), b"X-Request-Id: first") + ROW + LIVE + post(1) + b"x")
        status, headers, _ = connection.answer()
        assert (status, headers["x-request-id"]) == (200, "first")
        assert connection.answer()[2] == b'{"live":true}'
        assert connection.error() == (400, "invalid_input")


def test_chunked_bodies_are_bounded_however_they_come(tiny: Path, tmp_path: Path) -> None:
    whole = b"%x\r\n%b\r\n0\r\n\r\n"
    with running(tmp_path, tiny, max_body_bytes=1000) as server, Connection(server) as connection:
        assert connection.ask(CHUNKED + whole % (len(ROW), ROW))[0] == 200
        connection.send(CHUNKED + whole % (1001, b"x" * 1001))
        assert connection.error() == (413, "body_too_large")
        half = b"%x\r\n%b\r\n" % (600, b"x" * 600)
        connection.send(CHUNKED + half)
        time.sleep(0.1)
        connection.send(half)
        assert connection.error() == (413, "body_too_large")


def many_rows(rows: int) -> bytes:
    return encode_npy(np.ones((rows, 20, 1, 1), np.float32))


def test_an_answer_that_nobody_reads_is_cut(server: Server) -> None:
    """The system holds a part of the 10 MB; the rest does not wait in the process for ever."""
    body = many_rows(125_000)
    with Connection(server, 4096) as connection:
        connection.send(post(len(body)) + body)
        assert connection.socket.recv(15) == b"HTTP/1.1 200 OK"
        start = time.monotonic()
        while metric(server, r'axonnx_errors_total\{model="",type="unread_answer"\}') < 1:
            assert time.monotonic() < start + SLACK, "the connection is still there"
            time.sleep(0.2)
        assert time.monotonic() - start > 5
        connection.until_closed()
        assert len(connection.received) < 10_000_000


@pytest.mark.slow
def test_an_answer_that_is_read_slowly_is_read_whole(server: Server) -> None:
    """In longer than an answer may wait where nothing is read."""
    body = many_rows(125_000)
    with Connection(server, 1 << 16) as connection:
        connection.send(post(len(body)) + body)
        start, size = time.monotonic(), 0
        while size < 10_000_000:
            part = connection.socket.recv(1 << 16)
            assert part, size
            size += len(part)
            time.sleep(0.07)
        assert time.monotonic() - start > 9


def test_connections_are_bounded(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, tiny, max_connections=5) as server:
        server.client.close()
        held: list[Connection] = []
        limit = time.monotonic() + SLACK
        while len(held) < 5:  # the one just closed may still count
            assert time.monotonic() < limit
            connection = Connection(server)
            try:
                accepted = connection.ask(LIVE)[0] == 200
            except (OSError, EOFError):
                accepted = False
            if accepted:
                held.append(connection)
            else:
                connection.socket.close()
        for _ in range(3):
            with Connection(server) as refused:
                status, headers, body = refused.answer()
                assert (status, headers["retry-after"]) == (503, "1")
                assert headers["connection"] == "close"
                assert orjson.loads(body)["type"] == "overloaded"
                assert refused.until_closed() < SLACK
        for connection in held:
            assert connection.ask(LIVE)[0] == 200
            connection.socket.close()
        server.client = httpx.Client(base_url=server.url)
        while server.client.get("/health/live").status_code != 200:
            assert time.monotonic() < limit


def test_whoever_says_nothing_does_not_pile_up(server: Server) -> None:
    starts = (b"", b"GET /", LIVE, LIVE + b"\r\n", post(100), CHUNKED, b"\x16\x03\x01\x02")

    def hold(index: int) -> float:
        with Connection(server) as connection:
            connection.send(starts[index % len(starts)])
            return connection.until_closed()

    with ThreadPoolExecutor(70) as pool:
        assert max(pool.map(hold, range(70))) < SLACK
    limit = time.monotonic() + SLACK
    while metric(server, "axonnx_connections") > 2:  # those of this process
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert metric(server, "axonnx_pending") == 0


def test_the_system_looks_for_callers_whose_machine_is_gone(server: Server) -> None:
    with Connection(server) as connection:
        assert connection.ask(LIVE)[0] == 200
        port = f":{connection.socket.getsockname()[1]:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        (timer,) = {line[5].split(":")[0] for line in lines if line[2].endswith(port)}
    assert timer == "02", "the service's end has no keep-alive timer"


PARTS = [LIVE, post(len(ROW)) + ROW, post(9), CHUNKED, b"\r\n", b"0\r\n\r\n", b"GET ", b"\0"]


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    parts=st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=60)), max_size=6),
    pause=st.sampled_from([0, 0.002]),
)
def test_whatever_is_sent_is_answered_without_a_fault(
    server: Server, parts: list[bytes], pause: float
) -> None:
    with Connection(server) as connection:
        try:
            for part in parts:
                connection.send(part)
                time.sleep(pause)
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        connection.until_closed()
    assert connection.received == b"" or connection.received.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 5" not in connection.received


def test_bytes_of_bodies_are_bounded(tiny: Path, tmp_path: Path) -> None:
    with (
        running(tmp_path, tiny, max_pending_bytes=1_000_000) as server,
        Connection(server) as first,
        Connection(server) as second,
    ):
        first.send(post(900_000) + b"x" * 890_000)
        limit = time.monotonic() + SLACK
        while metric(server, "axonnx_pending_bytes") < 890_000:
            assert time.monotonic() < limit
        status, headers, body = second.ask(post(200_000) + b"x" * 200_000)
        assert status == 503
        assert headers["retry-after"] == "1"
        assert orjson.loads(body)["type"] == "overloaded"
        assert second.ask(post(len(ROW)) + ROW)[0] == 200, "a small one has room"
        first.send(b"x" * 10_000)
        assert first.error() == (400, "invalid_input")
        large = many_rows(10_000)
        assert second.ask(post(len(large)) + large)[0] == 200


def test_connections_are_used_again_under_load(server: Server) -> None:
    begin = threading.Barrier(8)

    def work(_: int) -> list[int]:
        with Connection(server) as connection:
            begin.wait(SLACK)
            return [connection.ask(post(len(ROW)) + ROW)[0] for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[200] * 20] * 8

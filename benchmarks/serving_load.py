"""A load generator: one process, sockets kept alive, fixed requests, every answer compared.

    python serving_load.py ORDER.json

Closed loop: each connection sends its next request when the answer to the last has arrived. It
costs some 30 microseconds of processor time a request, so that it leaves the cores to the server.
The order names url, path, request body and headers, the expected body of the answer, connections,
seconds of warm-up and of measurement, and the server's process. Prints the result as JSON.
"""

from __future__ import annotations

import json
import math
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving_processes import cpu_seconds

RECEIVE = 1 << 18
STUCK_SECONDS = 30.0


@dataclass
class Result:
    """What one stretch of load brought; times in seconds, latencies in milliseconds.

    `requests`: answered 200 with the expected body; `refused`: other statuses; `wrong`: 200 with
    another body; `broken`: connections that the server closed.
    """

    requests: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    broken: int = 0
    seconds: float = 0.0
    server_cpu: float = 0.0
    generator_cpu: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0


class Connection:
    """One connection that is kept alive, and the answer that is arriving on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socket = self._open()
        self.unsent = memoryview(b"")
        self.received = b""
        self.end = -1  # length of the whole answer, once its head is there
        self.sent_at = 0.0

    def send(self, request: bytes) -> bool:
        """Begin a request; whether all of it went out at once."""
        self.received, self.end = b"", -1
        self.sent_at = time.perf_counter()
        self.unsent = memoryview(request)
        return self.flush()

    def flush(self) -> bool:
        """Send what is left; whether nothing is."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        return not self.unsent

    def read(self) -> bytes | None:
        """The answer once it is whole, else None; ConnectionError where the server closed."""
        data = self.socket.recv(RECEIVE)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.received = self.received + data if self.received else data
        if self.end < 0:
            self.end = answer_length(self.received)
        return self.received if 0 <= self.end <= len(self.received) else None

    def reopen(self) -> None:
        """A new connection in place of a broken one."""
        self.socket.close()
        self.socket = self._open()

    def _open(self) -> socket.socket:
        opened = socket.create_connection(self.address, timeout=10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        return opened


def answer_length(received: bytes) -> int:
    """Length of head and body of an HTTP/1.1 answer; -1 while that cannot be known.

    Raises ValueError for an answer without Content-Length that is not chunked.
    """
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return -1
    fields = received[:head].lower()
    place = fields.find(b"\r\ncontent-length:")
    if place >= 0:
        return head + 4 + int(fields[place + 17 :].partition(b"\r\n")[0])
    if b"\r\ntransfer-encoding: chunked" not in fields:
        raise ValueError(f"an answer of unknown length: {received[:head]!r}")
    last = received.find(b"0\r\n\r\n", head)
    return last + 5 if last >= 0 and received[last - 2 : last] == b"\r\n" else -1


def body_of(answer: bytes) -> bytes:
    """The body of a whole answer, its chunks joined."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"\r\ncontent-length:" in head.lower():
        return body
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


def request_bytes(host: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A POST request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Load:
    """Closed-loop load on one address: `connections` requests in flight at any time."""

    def __init__(
        self, address: tuple[str, int], request: bytes, expected: bytes, connections: int
    ) -> None:
        self.request, self.expected = request, expected
        self.selector = selectors.DefaultSelector()
        self.connections = [Connection(address) for _ in range(connections)]
        for connection in self.connections:
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._start(connection)

    def run(self, seconds: float, process: int) -> Result:
        """Load for so long; requests in flight before and after it go on without a break."""
        result, latencies = Result(), list[float]()
        cpu, own = cpu_seconds(process), time.process_time()
        began = last = time.perf_counter()
        while last - began < seconds:
            events = self.selector.select(STUCK_SECONDS)
            if not events:
                raise TimeoutError(f"no answer within {STUCK_SECONDS:g} s")
            for key, mask in events:
                connection: Connection = key.data
                if mask & selectors.EVENT_WRITE and connection.flush():
                    self.selector.modify(connection.socket, selectors.EVENT_READ, connection)
                if not mask & selectors.EVENT_READ:
                    continue
                try:
                    answer = connection.read()
                except ConnectionError:
                    result.broken += 1
                    self._replace(connection)
                    continue
                if answer is None:
                    continue
                taken = time.perf_counter() - connection.sent_at
                if self._count(answer, result):
                    latencies.append(taken)
                self._start(connection)
            last = time.perf_counter()
        result.seconds = last - began
        result.generator_cpu = time.process_time() - own
        result.server_cpu = cpu_seconds(process) - cpu
        latencies.sort()
        result.p50_ms, result.p99_ms = (1e3 * percentile(latencies, q) for q in (0.5, 0.99))
        return result

    def close(self) -> None:
        """Close every connection."""
        for connection in self.connections:
            connection.socket.close()
        self.selector.close()

    def _count(self, answer: bytes, result: Result) -> bool:
        """Whether the answer is 200 and the expected one; counts it either way."""
        if not answer.startswith(b"HTTP/1.1 200 "):
            status = answer[9:12].decode("latin-1")
            result.refused[status] = result.refused.get(status, 0) + 1
        elif body_of(answer) != self.expected:
            result.wrong += 1
        else:
            result.requests += 1
            return True
        return False

    def _start(self, connection: Connection) -> None:
        try:
            done = connection.send(self.request)
        except ConnectionError:  # closed after the last answer; reading it says so
            return
        if not done:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self.selector.modify(connection.socket, both, connection)

    def _replace(self, connection: Connection) -> None:
        self.selector.unregister(connection.socket)
        connection.reopen()
        self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._start(connection)


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of the sorted values do not exceed; 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def main(order: dict[str, Any]) -> Result:
    """Warm up, measure, close."""
    body = Path(order["body"]).read_bytes()
    address = (order["host"], order["port"])
    request = request_bytes(f"{address[0]}:{address[1]}", order["path"], order["headers"], body)
    expected = Path(order["expected"]).read_bytes()
    load = Load(address, request, expected, order["connections"])
    load.run(order["warm_up"], order["process"])
    result = load.run(order["seconds"], order["process"])
    load.close()
    return result


if __name__ == "__main__":
    print(json.dumps(asdict(main(json.loads(Path(sys.argv[1]).read_text())))))

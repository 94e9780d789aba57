"""HTTP/1.1 as uvicorn reads it, with bounds on what a connection may hold without asking anything.

uvicorn bounds the idle time between requests. Here the head of a request, its whole message, an
answer that nobody reads and the number of connections are bounded too, and what is no HTTP request
gets the service's error body.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.errors import MalformedRequest, Overloaded, error_response
from serve.statistics import Statistics

TEXT = "this is no HTTP request that can be read; check its request line, headers and body framing"
MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Bounds:
    """Open connections; seconds for a head, and for a whole message or an unread answer."""

    connections: int
    head: float
    message: float


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *, bounds: Bounds, statistics: Statistics, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._bounds = bounds
        self._statistics = statistics
        self._head_since: float | None = None
        self._head_bytes = 0
        self._message_since: float | None = None
        self._unread_since: float | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._head_since = monotonic()
        if len(self.connections) > self._bounds.connections:
            text = f"{self._bounds.connections} connections are open; come again a little later"
            self._refuse(Overloaded.status, Overloaded.kind, text, Overloaded.headers)

    def data_received(self, data: bytes) -> None:
        """Read on; a head must end before it has `MAX_HEAD_BYTES`."""
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                text = f"the head of the request has more than {MAX_HEAD_BYTES} bytes"
                self._refuse(431, "head_too_large", text)

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        super().on_message_begin()
        self._head_since = self._message_since = monotonic()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The head is there; uvicorn starts to answer."""
        self._head_since = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The whole message is there; if its head came with it, the application sees that."""
        self._message_since = None
        self.scope["whole"] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The caller does not read its answer."""
        super().pause_writing()
        self._unread_since = monotonic()

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        self._unread_since = None

    def expire(self, now: float) -> None:
        """Cut the connection if it has kept us waiting for longer than the bounds."""
        for since, bound in (
            (self._head_since, self._bounds.head),
            (self._message_since, self._bounds.message),
            (self._unread_since, self._bounds.message),
        ):
            if since is not None and now - since > bound:
                self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that never reached a route, and close the connection."""
        self._refuse(MalformedRequest.status, MalformedRequest.kind, TEXT)

    def _refuse(
        self, status: int, kind: str, text: str, headers: dict[str, str] | None = None
    ) -> None:
        self._statistics.count_error(kind)
        request_id = uuid.uuid4().hex
        answer = error_response(status, kind, text, request_id, headers=headers)
        answer.headers["X-Request-Id"] = request_id
        answer.headers["Connection"] = "close"
        lines = [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        head = STATUS_LINE[answer.status_code] + b"".join(lines)
        self.transport.write(head + b"\r\n" + bytes(answer.body))
        self.transport.close()

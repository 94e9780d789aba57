"""HTTP/1.1 as uvicorn reads it, with bounds on what a connection may hold without asking anything.

uvicorn bounds the idle time between requests. Here the head of a request, its whole message, an
answer that nobody reads and the number of connections are bounded too; what is no HTTP request gets
the service's error body, after the answers to those before it; an offer of another protocol is
declined by going on with this one; and a prediction whose caller has left does not wait for a run.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from time import monotonic
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serve.errors import MalformedRequest, Overloaded, SlowBody, error_response
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
        self._chunk_bytes = 0
        self._head_is_too_large = False
        self._message_since: float | None = None
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._offers_upgrade = False
        self._answering: RequestResponseCycle | None = None  # or the last one, once it is answered
        self._last_words: bytes | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._head_since = monotonic()
        if len(self.connections) > self._bounds.connections:
            text = f"{self._bounds.connections} connections are open; come again a little later"
            self._refuse(Overloaded.status, Overloaded.kind, text, Overloaded.headers)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that does not end gets little more than `MAX_HEAD_BYTES`."""
        if self._last_words is not None:
            return
        self._chunk_bytes = len(data)
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        if self._head_since is not None:
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._head_is_too_large = True
                self.send_400_response("")
        elif self._message_since is None and self._is_between_requests():
            # The rest of a message answered before its end, or empty lines: uvicorn has stopped its
            # clock for idle connections, and no request begins.
            self._head_since = monotonic()

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        super().on_message_begin()
        self._head_since = self._message_since = monotonic()
        self._head_bytes = 0  # those that come after what brought the first one

    def on_headers_complete(self) -> None:
        """The head is there; uvicorn starts to answer."""
        self._head_since = None
        if self._head_bytes or self._chunk_bytes > MAX_HEAD_BYTES:
            self._refuse_large_head()
        offers = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        self._offers_upgrade = offers
        if not offers:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The whole message is there; if its head came with it, the application sees that."""
        if self._offers_upgrade:  # the parser takes what follows the head for another protocol
            return
        self._message_since = None
        self.scope["whole"] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written; the next one, or the end."""
        super().on_response_complete()
        if self._last_words is not None:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more: a prediction that waits for its run need not be made."""
        super().connection_lost(exc)
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            scope: Any = cycle.scope
            scope["left"] = True
            if (task := scope.get("predicts")) is not None:
                task.cancel()

    def awaits_head(self) -> bool:
        """Whether the head of a request is under way, or the first one has not begun yet."""
        return self._head_since is not None

    def expire(self, now: float) -> None:
        """Cut the connection if it has kept us waiting for longer than the bounds."""
        self._watch_unread(now)
        for since, bound, kind in (
            (self._head_since, self._bounds.head, "slow_head"),
            (self._message_since, self._bounds.message, SlowBody.kind),
            (self._unread_since, self._bounds.message, "unread_answer"),
        ):
            if since is not None and now - since > bound:
                self._statistics.count_error(kind)
                self.transport.abort()
                return

    def _watch_unread(self, now: float) -> None:
        """Since when the caller has read nothing of what is written."""
        unread = self.transport.get_write_buffer_size()
        if unread == 0:
            self._unread_since = None
        elif self._unread_since is None or unread != self._unread_bytes:
            self._unread_since = now
        self._unread_bytes = unread

    def _refuse_large_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._head_is_too_large = True
            raise ValueError("too large")  # ends the reading: send_400_response is next

    def _is_between_requests(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Answer a request that never reached a route, and close the connection."""
        if self._head_is_too_large:
            text = f"the head of the request has more than {MAX_HEAD_BYTES} bytes"
            self._refuse(431, "head_too_large", text)
        else:
            self._refuse(MalformedRequest.status, MalformedRequest.kind, TEXT)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._offers_upgrade:
                self._feed(self._head_without_upgrade() + data[upgrade.args[0] :])
            else:  # CONNECT: what follows is for somebody else
                self.cycle.keep_alive = False

    def _head_without_upgrade(self) -> bytes:
        """The head just read without its offer, for a new parser: the old one skips the body."""
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join([*lines, b"", b""])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _refuse(
        self, status: int, kind: str, text: str, headers: dict[str, str] | None = None
    ) -> None:
        """Answer with an error after the answers that are due, and close the connection."""
        self._statistics.count_error(kind)
        self._head_since = self._message_since = None
        request_id = uuid.uuid4().hex
        answer = error_response(status, kind, text, request_id, headers=headers)
        answer.headers["X-Request-Id"] = request_id
        answer.headers["Connection"] = "close"
        lines = [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        head = STATUS_LINE[answer.status_code] + b"".join(lines)
        self._last_words = head + b"\r\n" + bytes(answer.body)
        if self.cycle is not None and self.cycle.more_body and self.cycle.scope is self.scope:
            self._give_up(self.cycle)
        self._end()

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """The body of this request cannot be read: the last words are the answer to it."""
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        elif not cycle.response_started:
            cycle.response_complete = cycle.disconnected = True
            cycle.message_event.set()
        else:  # it was answered before its body was read
            self._last_words = b""

    def _end(self) -> None:
        """Say the last words unless an answer is under way, and close the connection."""
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.write(self._last_words or b"")
            self.transport.close()

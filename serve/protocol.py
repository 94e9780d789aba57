"""HTTP/1.1 as uvicorn reads it, with the service's error body for what is no HTTP request."""

from __future__ import annotations

import uuid

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.errors import MalformedRequest, error_response

TEXT = "this is no HTTP request that can be read; check its request line, headers and body framing"


class Protocol(HttpToolsProtocol):
    """One connection."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that never reached a route, and close the connection."""
        request_id = uuid.uuid4().hex
        answer = error_response(MalformedRequest.status, MalformedRequest.kind, TEXT, request_id)
        answer.headers["X-Request-Id"] = request_id
        answer.headers["Connection"] = "close"
        lines = [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        head = STATUS_LINE[answer.status_code] + b"".join(lines)
        self.transport.write(head + b"\r\n" + bytes(answer.body))
        self.transport.close()

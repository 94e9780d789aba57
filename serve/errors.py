"""Every error answer has one body: `{"error", "type", "field", "request_id"}`.

RequestError             400 invalid_request
├── MalformedRequest     400 malformed_request       what came is no HTTP
├── MalformedBody        400 malformed_body
├── InvalidInput         400 invalid_input           `field` names the input
├── NotFound             404 not_found
├── NotAcceptable        406 not_acceptable
├── SlowBody             408 slow_body
├── BodyTooLarge         413 body_too_large
├── UnsupportedMediaType 415 unsupported_media_type
├── Overloaded           503 overloaded              with Retry-After
└── DeadlineExceeded     504 deadline_exceeded

Anything else is the service's fault: 500 internal_error, a neutral text, the details in the log.
"""

from __future__ import annotations

from typing import ClassVar

import orjson
from starlette.responses import Response


class RequestError(Exception):
    """A request that gets an error answer; the text is for the caller and names no path."""

    status: ClassVar[int] = 400
    kind: ClassVar[str] = "invalid_request"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class MalformedRequest(RequestError):
    """What came over the connection cannot be read as HTTP."""

    kind = "malformed_request"


class MalformedBody(RequestError):
    """The body cannot be read as what its Content-Type says."""

    kind = "malformed_body"


class InvalidInput(RequestError):
    """The body was read, but an input is not what the model takes."""

    kind = "invalid_input"


class NotFound(RequestError):
    """There is no such model or path."""

    status = 404
    kind = "not_found"


class NotAcceptable(RequestError):
    """The answer cannot be given in any form that Accept allows."""

    status = 406
    kind = "not_acceptable"


class SlowBody(RequestError):
    """The body did not arrive within the time for one request."""

    status = 408
    kind = "slow_body"


class BodyTooLarge(RequestError):
    """The body is larger than the limit."""

    status = 413
    kind = "body_too_large"


class UnsupportedMediaType(RequestError):
    """The Content-Type or Content-Encoding is none that this model reads."""

    status = 415
    kind = "unsupported_media_type"


class Overloaded(RequestError):
    """Too many predictions are pending; the same request may succeed a little later."""

    status = 503
    kind = "overloaded"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class DeadlineExceeded(RequestError):
    """The answer was not there in time."""

    status = 504
    kind = "deadline_exceeded"


def error_response(
    status: int,
    kind: str,
    text: str,
    request_id: str,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The error answer of every route."""
    body = {"error": text, "type": kind, "field": field, "request_id": request_id}
    return Response(
        orjson.dumps(body), status_code=status, headers=headers, media_type="application/json"
    )

"""Every error answer has one body: `{"error", "type", "field", "request_id"}`.

RequestError             400 invalid_request
├── MalformedRequest     400 malformed_request       what came is no HTTP
├── MalformedBody        400 malformed_body
├── InvalidInput         400 invalid_input           `field` names the input
├── ArtifactRefused      400 artifact_refused        an artifact that is to be loaded
├── Unauthorized         401 unauthorized            with WWW-Authenticate
├── Forbidden            403 forbidden
├── NotFound             404 not_found
├── NotAcceptable        406 not_acceptable
├── SlowBody             408 slow_body
├── BodyTooLarge         413 body_too_large
├── UnsupportedMediaType 415 unsupported_media_type
├── NotSupported         501 not_supported
├── NotReady             503 not_ready               with Retry-After
├── Overloaded           503 overloaded              with Retry-After
└── DeadlineExceeded     504 deadline_exceeded

Anything else is the service's fault: 500 internal_error, a neutral text, the details in the log.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import ClassVar

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from artifact.errors import DeadlineError, InputError

logger = logging.getLogger("axonnx.serve")


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


class ArtifactRefused(RequestError):
    """The artifact that shall be loaded does not hold; what was served before still is."""

    kind = "artifact_refused"


class Unauthorized(RequestError):
    """No key was sent, or none that is known."""

    status = 401
    kind = "unauthorized"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    """The settings do not allow this."""

    status = 403
    kind = "forbidden"


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


class NotSupported(RequestError):
    """The protocol has this feature, this service does not."""

    status = 501
    kind = "not_supported"


class NotReady(RequestError):
    """The model or the service does not answer yet, or no more."""

    status = 503
    kind = "not_ready"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class Overloaded(RequestError):
    """Too much is pending; the same request may succeed a little later."""

    status = 503
    kind = "overloaded"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class DeadlineExceeded(RequestError):
    """The answer was not there in time."""

    status = 504
    kind = "deadline_exceeded"


def respond(error: Exception, request: Request) -> Response:
    """The error answer to what went wrong; faults of the service are logged and not told."""
    match error:
        case RequestError():
            status, kind, text, field = error.status, error.kind, str(error), error.field
            headers = error.headers
        case InputError():
            status, kind, text, field = 400, InvalidInput.kind, str(error), error.field
            headers = {}
        case DeadlineError():
            late = DeadlineExceeded
            status, kind, text, field, headers = late.status, late.kind, str(error), None, {}
        case HTTPException():
            status, field, headers = error.status_code, None, dict(error.headers or {})
            phrase = HTTPStatus(status).phrase.lower()
            kind = phrase.replace(" ", "_").replace("-", "_")
            text = f"{request.method[:20]} {request.url.path[:200]}: {phrase}"
        case RequestValidationError():
            fault = error.errors()[0]
            field = ".".join(str(part) for part in fault["loc"])
            status, kind, text = 400, RequestError.kind, f"{field}: {fault['msg']}"
            headers = {}
        case _:
            fields = {"request_id": request.scope["request_id"]}
            logger.error("request %s failed", fields["request_id"], exc_info=error, extra=fields)
            status, kind, field, headers = 500, "internal_error", None, {}
            text = "the service failed on this request; its log tells more under this request_id"
    request.scope["error_type"] = kind
    return error_response(status, kind, text, request.scope["request_id"], field, headers)


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

"""Everything that a call to the service can end in, as one tree.

ServiceError
├── RequestRefused    4xx, 501: the same call will be refused again
│   ├── InvalidInput  an input is not what the model takes; `field` names it
│   ├── Unauthorized  401: no API key was sent, or none that is known
│   ├── Forbidden     403: the settings of the service do not allow this
│   ├── NotFound      404: no such model, version or path
│   └── TooLarge      413: more bytes or rows than the service reads
├── Unavailable       503: the same call may succeed a little later
│   ├── Overloaded    too many predictions are pending
│   └── NotReady      the model, or the service, does not answer yet, or no more
├── Unreachable       no answer: no connection, one that broke, or 502 from a balancer
├── Untrusted         the certificate of the service is not to be trusted
├── DeadlineExceeded  504, or the time of the call was over before the answer was there
├── ServerFault       other 5xx: the service failed; its log tells more under `request_id`
└── BadAnswer         what came is no answer of the V2 protocol

Unavailable and Unreachable are tried again by the client before they are raised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

_WRONG_DATATYPE = re.compile(r"datatype must be (BOOL|U?INT[0-9]+|FP[0-9]+)")


class ServiceError(Exception):
    """A call that gave no answer.

    `status` is the HTTP status, None where no answer came; `type` and `field` are those of the
    service's error body, None where it has none; `retry_after` is the wait in seconds that the
    service asks for; `attempts` counts how often the call was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.field = field
        self.request_id = request_id
        self.retry_after = retry_after
        self.attempts = 1

    def __str__(self) -> str:
        facts = [f"{self.status or ''} {self.type or ''}".strip()]
        facts += [f"field {self.field}"] if self.field else []
        facts += [f"request {self.request_id}"] if self.request_id else []
        facts += [f"{self.attempts} attempts"] if self.attempts > 1 else []
        known = ", ".join(fact for fact in facts if fact)
        return f"{self.message} ({known})" if known else self.message


class RequestRefused(ServiceError):
    """The service refuses this request and would refuse it again."""


class InvalidInput(RequestRefused):
    """An input is not what the model takes; `field` names it."""


class Unauthorized(RequestRefused):
    """No API key was sent, or none that the service knows."""


class Forbidden(RequestRefused):
    """The settings of the service do not allow this."""


class NotFound(RequestRefused):
    """There is no such model, version or path."""


class TooLarge(RequestRefused):
    """The request is larger than what the service reads."""


class Unavailable(ServiceError):
    """The service does not answer now; the same call may succeed a little later."""


class Overloaded(Unavailable):
    """Too many predictions are pending."""


class NotReady(Unavailable):
    """The model, or the service, does not answer yet, or no more."""


class Unreachable(ServiceError):
    """No answer came: no connection, or one that broke before the answer was complete."""


class Untrusted(ServiceError):
    """The certificate of the service does not stand up to the check."""


class DeadlineExceeded(ServiceError):
    """The answer was not there in time."""


class ServerFault(ServiceError):
    """The service failed on this request."""


class BadAnswer(ServiceError):
    """What came is no answer of the V2 protocol."""


_BY_TYPE: dict[object, type[ServiceError]] = {
    "invalid_input": InvalidInput,
    "overloaded": Overloaded,
    "not_ready": NotReady,
}
_BY_STATUS: dict[int, type[ServiceError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    413: TooLarge,
    501: RequestRefused,
    502: Unreachable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def read_error(
    status: int, headers: Mapping[bytes, bytes], content: bytes, request_id: str
) -> ServiceError:
    """The error that an answer with a status other than 200 stands for.

    `headers` have names in lower case; `request_id` is what was sent. Balancers and proxies may
    answer in the place of the service, with any body.
    """
    if status < 400:
        where = headers.get(b"location", b"nowhere").decode("latin-1")
        text = f"the answer is a redirection to {where[:200]}; give the service's own address"
        return BadAnswer(text, status=status, request_id=request_id)
    body = _read_body(content)
    kind = body.get("type")
    error = _BY_TYPE.get(kind) or _BY_STATUS.get(status)
    if error is None:
        error = RequestRefused if status < 500 else ServerFault
    said = body.get("error")
    text = said if isinstance(said, str) else _plain(status, content)
    if wanted := _WRONG_DATATYPE.search(text):
        text += f"; .astype(np.{wanted[1].replace('FP', 'float').lower()}) makes it so"
    return error(
        text,
        status=status,
        type=_text(kind),
        field=_text(body.get("field")),
        request_id=_text(body.get("request_id")) or request_id,
        retry_after=_seconds(headers.get(b"retry-after", b"")),
    )


def _read_body(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _plain(status: int, content: bytes) -> str:
    """A text for an answer without the service's error body."""
    try:
        name = HTTPStatus(status).phrase
    except ValueError:
        name = "unknown status"
    said = " ".join(content[:300].decode("utf-8", "replace").split())
    return f"{name}, not in the words of this service: {said}" if said else name


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(text: bytes) -> float:
    """The seconds in Retry-After; 0 for none, and for its other form, a date."""
    return float(text) if text.isdigit() and len(text) < 9 else 0.0

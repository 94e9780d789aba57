"""What both clients share: where a call goes, what it carries, and when it is tried again."""

from __future__ import annotations

import math
import os
import random
import re
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from serve.client_errors import (
    BadAnswer,
    DeadlineExceeded,
    NotFound,
    NotReady,
    ServiceError,
    Unavailable,
    Unreachable,
    Untrusted,
    read_error,
)
from serve.client_tensors import HEADER_LENGTH, encode_inputs, read_object

if TYPE_CHECKING:
    from artifact.arrays import Array

Verify = bool | str | os.PathLike[str] | ssl.SSLContext
CONNECT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
# httpx looks through all its connections for every request: many more cost more than they bring.
CONNECTIONS = 32
# Idle connections are closed before the service does it, after 20 s: no request meets that moment.
LIMITS = httpx.Limits(
    max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=15.0
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_API_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `headers` have names in lower case."""

    status: int
    headers: dict[bytes, bytes]
    content: bytes


class Attempts:
    """The attempts of one call: one request id, and one time in seconds for all of them."""

    def __init__(self, request_id: str, timeout: float, retries: int) -> None:
        self.request_id = request_id
        self._timeout = timeout
        self._deadline = monotonic() + timeout
        self._retries = retries
        self._failed = 0

    def left(self) -> float:
        """Seconds that are left; raises DeadlineExceeded where none are."""
        left = self._deadline - monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> DeadlineExceeded:
        """The error of a call whose time is over."""
        error = DeadlineExceeded(
            f"no answer within {self._timeout:g} s", request_id=self.request_id
        )
        error.attempts = self._failed + 1
        return error

    def pause(self, error: ServiceError) -> float:
        """Seconds to wait before the next attempt; raises `error` where there shall be none.

        At least as long as the service asks, and longer each time, up to `LONGEST_PAUSE`; by chance
        a little different for each caller, lest they all come back at once.
        """
        error.attempts = self._failed = self._failed + 1
        if not isinstance(error, Unavailable | Unreachable) or self._failed > self._retries:
            raise error
        longest = min(FIRST_PAUSE * 2 ** (self._failed - 1), LONGEST_PAUSE)
        pause: float = error.retry_after + longest * random.uniform(0.5, 1.0)
        if monotonic() + pause >= self._deadline:
            raise error
        return pause


@dataclass(frozen=True)
class Target:
    """The service that a client talks to, and what holds for every call."""

    url: str
    headers: dict[str, str] = field(repr=False)
    timeout: float
    retries: int

    def attempts(
        self, timeout: float | None = None, request_id: str | None = None, *, retry: bool = True
    ) -> Attempts:
        """The attempts of a call that begins now."""
        if request_id is None:
            request_id = uuid.uuid4().hex
        elif not _REQUEST_ID.fullmatch(request_id):
            raise ValueError(f"request_id {request_id!r}: must be 1 to 128 of A-Z a-z 0-9 . _ -")
        seconds = self.timeout if timeout is None else _seconds(timeout)
        return Attempts(request_id, seconds, self.retries if retry else 0)

    def request(
        self, method: str, path: str, attempts: Attempts, inputs: Mapping[str, Array] | None = None
    ) -> httpx.Request:
        """The request of the next attempt; raises DeadlineExceeded, InvalidInput."""
        left = attempts.left()
        headers = {**self.headers, "X-Request-Id": attempts.request_id}
        body = b""
        if inputs is not None:
            length, body = encode_inputs(inputs, left)
            headers[HEADER_LENGTH] = str(length)
            headers["Content-Type"] = "application/octet-stream"
        waits = {"connect": min(left, CONNECT_SECONDS), "read": left, "write": left, "pool": left}
        url = _url(self.url + path)
        return httpx.Request(
            method, url, headers=headers, content=body, extensions={"timeout": waits}
        )

    def broken(self, fault: httpx.TransportError, attempts: Attempts) -> ServiceError:
        """The error that a fault of the network stands for."""
        request_id = attempts.request_id
        if isinstance(fault, httpx.ReadTimeout | httpx.WriteTimeout | httpx.PoolTimeout):
            return attempts.late()
        cause: BaseException | None = fault
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                text = f"the certificate of {self.url} is not trusted: {cause.verify_message}"
                return Untrusted(text, request_id=request_id)
            cause = cause.__cause__ or cause.__context__
        said = str(fault) or type(fault).__name__
        if isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(f"no connection to {self.url}: {said}", request_id=request_id)
        text = f"the connection to {self.url} broke before the answer was there: {said}"
        return Unreachable(text, request_id=request_id)


def make_target(url: str, api_key: str | None, timeout: float, retries: int) -> Target:
    """The target of a client; raises ValueError for arguments that cannot be right."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url {url!r}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url {url!r}: must be an address such as http://127.0.0.1:8000")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("url: must have no user, query or fragment; a key goes into api_key")
    if type(retries) is not int or retries < 0:
        raise ValueError(f"retries {retries!r}: must be a whole number from 0")
    headers = {"Accept-Encoding": "identity", "User-Agent": "axonnx"}
    if api_key is not None:
        if not _API_KEY.fullmatch(api_key):
            raise ValueError("api_key: must be visible ASCII characters without spaces")
        headers["Authorization"] = f"Bearer {api_key}"
    return Target(str(parsed).rstrip("/"), headers, _seconds(timeout), retries)


def trust(url: str, verify: Verify) -> bool | ssl.SSLContext:
    """What httpx takes: whom to trust; a path is a file of certificates."""
    if url.startswith("http://"):
        return False  # nobody is asked for a certificate, and reading those there are takes time
    if isinstance(verify, bool | ssl.SSLContext):
        return verify
    return ssl.create_default_context(cafile=verify)


@lru_cache(maxsize=256)
def model_path(model: str, version: str | int | None = None, word: str = "") -> str:
    """The path of a model, or of one of its versions."""
    path = f"/v2/models/{quote(model, safe='')}"
    if version is not None:
        path += f"/versions/{quote(str(version), safe='')}"
    return f"{path}/{word}" if word else path


def description_path(model: str) -> str:
    """The path of what a model says of itself, its manifest included."""
    return f"/models/{quote(model, safe='')}"


def control_path(model: str, word: str) -> str:
    """The path that loads or unloads a model."""
    return f"/v2/repository/models/{quote(model, safe='')}/{word}"


def merge(
    model: object, inputs: Mapping[str, Array] | None, arrays: Mapping[str, Array]
) -> Mapping[str, Array]:
    """The inputs of a prediction, by mapping and by keyword; raises TypeError for a mix-up."""
    if not isinstance(model, str | None):
        kind = type(model).__name__
        raise TypeError(f"the model must be a name, is {kind}; inputs go by name: neural=array")
    if inputs is None:
        return arrays
    if twice := inputs.keys() & arrays.keys():
        raise TypeError(f"inputs given twice: {', '.join(sorted(twice))}")
    return {**inputs, **arrays}


def read_answer(
    status: int, headers: list[tuple[bytes, bytes]], content: bytes, attempts: Attempts
) -> Answer:
    """The answer of a service; raises the error that it stands for."""
    table = {name.lower(): value for name, value in headers}
    if status != 200:
        raise read_error(status, table, content, attempts.request_id)
    return Answer(status, table, content)


def read_names(answer: Answer) -> list[str]:
    """The models that a service lists; raises BadAnswer."""
    names = read_object(answer.content).get("models")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadAnswer("the answer has no list of models", status=answer.status)
    return names


def only_name(answer: Answer) -> str:
    """The only model that a service lists; raises NotFound where there are several, NotReady."""
    names = read_names(answer)
    if not names:
        raise NotReady("no model is loaded")
    if len(names) > 1:
        raise NotFound(f"several models are served; name one of {', '.join(names)}")
    return names[0]


@lru_cache(maxsize=256)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


def _seconds(timeout: float) -> float:
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout {timeout!r}: must be a number of seconds above 0")
    return float(timeout)

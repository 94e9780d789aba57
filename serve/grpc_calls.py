"""What a call over gRPC is answered: the models, checks, places and counts of the HTTP side.

What a call brings is read before it has a place; where too many are read, the oldest is given up.
The trailing metadata of its answer say what the headers of an HTTP answer do: `x-request-id`,
`x-artifact-id`, and for an error `x-error-type` and `grpc-retry-pushback-ms`, which clients that
retry keep to. Calls are counted, and written to the access log, under the status that HTTP has for
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import unquote

import grpc  # type: ignore[import-untyped]
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from serve.errors import (
    BodyTooLarge,
    NotFound,
    NotReady,
    NotSupported,
    Overloaded,
    SlowBody,
    Unauthorized,
    respond,
)
from serve.front import request_id
from serve.grpc_messages import MESSAGES, PACKAGE, parse, read_infer, read_parameters, write_infer
from serve.keys import read_keys
from serve.logs import log_answer
from serve.repository import READY, Served
from serve.service import INLINE_BINARY, INLINE_JSON, Service
from serve.v2 import InferRequest
from serve.v2_documents import (
    index_line,
    model_config,
    model_metadata,
    model_statistics,
    server_metadata,
)
from serve.v2_routes import refuse_control, refuse_overrides

SERVICE = f"{PACKAGE}.GRPCInferenceService"
INFER = "ModelInfer"
METHODS = tuple(name.removesuffix("Request") for name in MESSAGES if name.endswith("Request"))
OPEN = frozenset({"ServerLive", "ServerReady"})  # without a key: the probes of an orchestrator
SLOW = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})  # by `serve.changes`
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_MAX_TEXT = 1000  # of an error: metadata have little room
SMALL_READS = 16  # messages that are read at a time, beside as many as may be pending
Messages = AsyncIterator[bytes]
Read = Callable[[float], Awaitable[bytes]]  # the one message of a call, until a deadline
Handler = Callable[[Messages, Any], Awaitable[bytes]]


class Calls:
    """The calls that run now."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._keys = read_keys(service.settings.api_keys.get_secret_value())
        # The library holds what has come of a message; the oldest ones come slowest.
        self._max_reads = service.settings.max_pending + SMALL_READS
        self._reads: dict[asyncio.Timeout, None] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._cutting = False

    def handler(self, method: str) -> Handler:
        """What answers this method."""

        async def handle(messages: Messages, context: Any) -> bytes:
            call = asyncio.current_task()
            assert call is not None
            self._running.add(call)
            try:
                return await self._answer(method, messages, context)
            finally:
                self._running.discard(call)

        return handle

    async def cut_short(self, seconds: float) -> None:
        """End the calls that run with an error, and wait so long for the callers to be told."""
        self._cutting = True
        for call in self._running:
            call.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)

    async def _answer(self, method: str, messages: Messages, context: Any) -> bytes:
        start = monotonic()
        scope = _scope(method, context)
        status = 499  # the caller left
        try:
            content = await self._try(method, scope, messages, context.time_remaining())
            if isinstance(content, bytes):
                status = 200
                context.set_trailing_metadata(_stamps(scope))
                return content
            response = respond(content, Request(scope))
            status = response.status_code
            await _fail(context, response, scope)
            raise AssertionError("a call that was ended goes on")
        finally:
            self._count(scope, status, monotonic() - start)

    async def _try(
        self, method: str, scope: Scope, messages: Messages, seconds: float | None
    ) -> bytes | Exception:
        """The answer to a call whose caller waits so many seconds, or what went wrong."""
        deadline = self._service.deadline()
        if seconds is not None:
            deadline = min(deadline, monotonic() + seconds)
        try:
            self._check_key(method, scope)
            read = partial(self._read, messages)
            if method == INFER:
                return await infer(self._service, scope, read, deadline)
            return await self._tell(method, scope, read, deadline)
        except asyncio.CancelledError:
            if not self._cutting:
                raise
            self._service.engine.cut += 1
            return NotReady("the service stopped before the answer was there")
        except Exception as error:
            return error

    def _check_key(self, method: str, scope: Scope) -> None:
        if self._keys is not None and method not in OPEN:
            fault = self._keys.fault(scope["fields"])
            if fault is not None:
                raise Unauthorized(fault)

    async def _tell(self, method: str, scope: Scope, read: Read, deadline: float) -> bytes:
        """The answer to any method but ModelInfer."""
        name, question = f"{method}Request", None
        if MESSAGES[name].DESCRIPTOR.fields:
            limit = monotonic() + self._service.settings.header_timeout
            question = parse(name, await read(min(limit, deadline)))
        if method in SLOW:
            answer = await self._service.repository.changes.run(
                lambda: tell(self._service, method, question, scope)
            )
        else:
            answer = tell(self._service, method, question, scope)
        return bytes(MESSAGES[f"{method}Response"](**answer).SerializeToString())

    async def _read(self, messages: Messages, deadline: float) -> bytes:
        """The one message of a call; raises SlowBody, BodyTooLarge, Overloaded."""
        if len(self._reads) >= self._max_reads:
            oldest = next(iter(self._reads))
            del self._reads[oldest]
            if not oldest.expired():
                oldest.reschedule(0.0)
        given_up = False
        try:
            async with asyncio.timeout(deadline - monotonic()) as clock:
                self._reads[clock] = None
                try:
                    data = await anext(aiter(messages), None)
                finally:
                    given_up = clock not in self._reads
                    self._reads.pop(clock, None)
        except TimeoutError:
            if given_up:
                raise Overloaded(
                    f"{self._max_reads} messages are being read, and this one was the slowest"
                ) from None
            raise SlowBody("the message did not arrive in time") from None
        if data is None:  # the library does not hand on what is too large
            limit = self._service.settings.max_body_bytes
            raise BodyTooLarge(f"the call brings no message of at most {limit} bytes")
        return data

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        served = scope["served"]
        statistics = self._service.statistics if served is None else served.statistics
        statistics.count_answer(scope["protocol"], status, seconds, scope["error_type"])
        if self._service.settings.access_log:
            log_answer(scope, status, seconds)


async def infer(service: Service, scope: Scope, read: Read, deadline: float) -> bytes:
    """Answer a ModelInferRequest with a ModelInferResponse; raises what `serve.errors` can tell."""
    with service.engine.admit() as place:
        data = await read(deadline)
        place.hold(len(data))
        place.take()
        question = await _read_question(service, scope, data, deadline)
        del data
        served = scope["served"]
        if question.timeout is not None:
            deadline = min(deadline, monotonic() + question.timeout)
        outputs = await service.predict(Request(scope), served, question.inputs, deadline)
        return await service.work(
            lambda: write_infer(question, outputs, served),
            sum(outputs[name].nbytes for name in question.outputs),
            deadline,
        )


def tell(service: Service, method: str, question: Any, scope: Scope) -> dict[str, Any]:
    """The fields of the answer to any other method; raises what `serve.errors` can tell."""
    repository, settings = service.repository, service.settings
    match method:
        case "ServerLive":
            return {"live": True}
        case "ServerReady":
            return {"ready": repository.ready}
        case "ServerMetadata":
            return server_metadata(settings.model_control)
        case "ModelReady":
            return {"ready": _is_ready(service, question, scope)}
        case "ModelMetadata":
            served = _find(service, question, scope)
            return model_metadata(served, repository.versions(served.name))
        case "ModelConfig":
            return {"config": model_config(_find(service, question, scope))}
        case "ModelStatistics":
            return {"model_stats": _statistics(service, question, scope)}
        case "RepositoryIndex":
            _refuse_name(question)
            lines = [x for x in repository.index() if x.state == READY or not question.ready]
            return {"models": [index_line(line) for line in lines]}
        case "RepositoryModelLoad":
            _refuse_name(question)
            refuse_control(settings)
            refuse_overrides(read_parameters(question))
            repository.load(question.model_name)
            return {}
        case "RepositoryModelUnload":
            _refuse_name(question)
            refuse_control(settings)
            repository.unload(question.model_name)
            return {}
    raise NotSupported(f"{method} is not served")


def _find(service: Service, question: Any, scope: Scope) -> Served:
    """The model that a question is about; the answer will name its artifact."""
    served = service.repository.find(question.name, question.version or None)
    scope["artifact"] = served.model.id
    return served


def _is_ready(service: Service, question: Any, scope: Scope) -> bool:
    """Whether a model answers; one that is not known does not."""
    try:
        _find(service, question, scope)
    except (NotFound, NotReady):
        return False
    return True


def _statistics(service: Service, question: Any, scope: Scope) -> list[dict[str, Any]]:
    """Of all models and versions, of those of one name, or of one version."""
    if question.name:
        _find(service, question, scope)
    return [
        model_statistics(served)
        for served in service.repository.served
        if question.name in ("", served.name) and question.version in ("", served.version)
    ]


def _refuse_name(question: Any) -> None:
    if question.repository_name:
        raise NotSupported("repository_name: there is one repository, and it has no name")


async def _read_question(
    service: Service, scope: Scope, data: bytes, deadline: float
) -> InferRequest:
    """What a ModelInferRequest asks, and, in `scope`, of which model."""
    message = await service.work(lambda: parse(f"{INFER}Request", data), len(data), deadline)
    served = service.repository.find(message.model_name, message.model_version or None)
    scope["served"], scope["artifact"] = served, served.model.id
    return await service.work(
        lambda: read_infer(message, served),
        len(data),
        deadline,
        INLINE_BINARY if message.raw_input_contents else INLINE_JSON,
    )


async def _fail(context: Any, response: Response, scope: Scope) -> None:
    """End a call with the status and the text of an error answer, by raising."""
    body = orjson.loads(bytes(response.body))
    metadata = *_stamps(scope), ("x-error-type", body["type"])
    if (retry := response.headers.get("retry-after")) is not None:
        metadata = *metadata, ("grpc-retry-pushback-ms", f"{retry}000")
    code = CODES.get(response.status_code, grpc.StatusCode.INTERNAL)
    await context.abort(code, body["error"][:_MAX_TEXT], metadata)


def _scope(method: str, context: Any) -> Scope:
    """A call, as the HTTP/2 request that it is."""
    fields = {
        key.encode(): value.encode("latin-1", "replace") if isinstance(value, str) else value
        for key, value in context.invocation_metadata() or ()
    }
    host, _, port = unquote(context.peer()).partition(":")[2].rpartition(":")
    return {
        "type": "http",
        "http_version": "2",
        "method": "POST",
        "path": f"/{SERVICE}/{method}",
        "headers": [],
        "client": (host.strip("[]"), port),
        "fields": fields,
        "request_id": request_id(fields),
        "protocol": "grpc",
        "served": None,
        "artifact": None,
        "error_type": None,
    }


def _stamps(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of every answer."""
    stamp = ("x-request-id", scope["request_id"])
    if scope["artifact"] is None:
        return (stamp,)
    return stamp, ("x-artifact-id", scope["artifact"])

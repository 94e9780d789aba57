"""The outermost layer: identifiers, counts, the error body, and the short way to a prediction.

Predictions go straight to their handler, past the router and middleware of the framework, which
would cost as much as reading and writing the message itself; everything else goes through them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import NotReady, Unauthorized, respond
from serve.keys import read_keys
from serve.logs import log_answer
from serve.service import Service

logger = logging.getLogger("axonnx.serve")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Unique among processes, and made without a system call for each.
_PROCESS = secrets.token_hex(12)
_numbers = itertools.count(1)
Handler = Callable[[Request, str | None, str | None], Awaitable[Response]]
Way = tuple[Handler, str | None, str | None]  # with the name and version of the model


class Front:
    """Around the application: `predict` and `infer` answer the two kinds of predictions."""

    def __init__(self, app: ASGIApp, service: Service, predict: Handler, infer: Handler) -> None:
        self.app = app
        self._service = service
        self._predict = predict
        self._infer = infer
        self._keys = read_keys(service.settings.api_keys.get_secret_value())
        self._access_log = service.settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = monotonic()
        scope["fields"] = fields = dict(scope["headers"])
        scope["request_id"] = request_id(fields)
        scope["served"] = scope["error_type"] = None
        scope["protocol"] = "v2" if scope["path"].startswith("/v2") else "rest"
        status = 499  # the caller left
        try:
            short = self._refusal(scope) or self._short_way(scope["method"], scope["path"])
            if short is None:
                status = await self._through(scope, receive, send)
            else:
                handler, name, version = short
                scope["predicts"] = asyncio.current_task()  # the connection's end cancels it
                response = await self._answer(handler, name, version, Request(scope, receive))
                scope["predicts"] = None
                response.raw_headers += self._stamps(scope)
                await response(scope, receive, send)
                status = response.status_code
        except ClientDisconnect:
            logger.info("request %s: the caller left", scope["request_id"])
        finally:
            self._count(scope, status, monotonic() - start)

    def _refusal(self, scope: Scope) -> Way | None:
        """The way of a request without a key that is known."""
        if self._keys is None:
            return None
        fault = self._keys.refusal(scope["method"], scope["path"], scope["fields"])
        return None if fault is None else (_refuse(fault), None, None)

    def _short_way(self, method: str, path: str) -> Way | None:
        if method != "POST":
            return None
        if path == "/predict":
            return self._predict, None, None
        if path.endswith("/infer"):
            match path.split("/"):
                case ["", "v2", "models", name, "infer"]:
                    return self._infer, name, None
                case ["", "v2", "models", name, "versions", version, "infer"]:
                    return self._infer, name, version
        elif path.endswith("/predict"):
            match path.split("/"):
                case ["", "models", name, "predict"]:
                    return self._predict, name, None
        return None

    async def _answer(
        self, handler: Handler, name: str | None, version: str | None, request: Request
    ) -> Response:
        try:
            return await handler(request, name, version)
        except ClientDisconnect:
            raise
        except asyncio.CancelledError as cancelled:
            if request.scope.get("left"):
                raise ClientDisconnect from None
            return respond(self._cut_short(cancelled), request)
        except Exception as error:
            return respond(error, request)

    async def _through(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Let the framework answer; gives the status."""
        status, complete = 0, False

        async def send_stamped(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._stamps(scope)]
            await send(message)
            complete = not message.get("more_body", message["type"] == "http.response.start")

        fault: Exception
        try:
            await self.app(scope, receive, send_stamped)
            return status
        except ClientDisconnect:
            raise
        except asyncio.CancelledError as cancelled:
            fault = self._cut_short(cancelled)
        except Exception as error:
            if complete:  # the framework raises what it has answered once more
                return status
            fault = error
        if status:  # half an answer is out: the server cuts the connection
            raise fault
        await respond(fault, Request(scope, receive))(scope, receive, send_stamped)
        return status

    def _cut_short(self, cancelled: asyncio.CancelledError) -> NotReady:
        """What a request gets whose time is over because the service stops."""
        if not self._service.repository.draining:
            raise cancelled
        self._service.engine.cut += 1
        return NotReady("the service stopped before the answer was there")

    def _stamps(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Headers of every answer."""
        stamps = [(b"x-request-id", scope["request_id"].encode("latin-1"))]
        if scope["served"] is not None:
            stamps.append((b"x-artifact-id", scope["served"].model.id.encode("latin-1")))
        if self._service.repository.draining:  # the next request goes to another replica
            stamps.append((b"connection", b"close"))
        return stamps

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        served = scope["served"]
        statistics = self._service.statistics if served is None else served.statistics
        statistics.count_answer(scope["protocol"], status, seconds, scope["error_type"])
        if self._access_log:
            log_answer(scope, status, seconds)


def _refuse(text: str) -> Handler:
    async def refuse(request: Request, name: str | None, version: str | None) -> Response:
        raise Unauthorized(text)

    return refuse


def request_id(fields: dict[bytes, bytes]) -> str:
    """The caller's X-Request-Id where it is a plain word, else a new one."""
    given = fields.get(b"x-request-id", b"").decode("latin-1")
    if _REQUEST_ID.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_numbers):08x}"

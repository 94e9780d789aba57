"""The routes: predictions, health, and what the models say of themselves."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from time import monotonic
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifact import Model
from artifact.errors import DeadlineError, InputError
from serve.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    MalformedBody,
    NotFound,
    RequestError,
    SlowBody,
    UnsupportedMediaType,
    error_response,
)
from serve.formats import decode, encode
from serve.negotiation import JSON, NPY, NPZ, answer_form, body_form
from serve.settings import Settings
from serve.slots import Slots

logger = logging.getLogger("axonnx.serve")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "additionalProperties": False,
                    "properties": {"inputs": {"type": "object", "additionalProperties": True}},
                }
            },
            NPY: _BINARY,
            NPZ: _BINARY,
        },
    }
}


def create_app(models: Mapping[str, Model], settings: Settings) -> FastAPI:
    """The application around loaded models, by name; a lone model also answers at `/predict`."""
    slots = Slots(settings.slots, settings.max_pending)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        slots.close()

    # The pages of /docs load scripts from the internet; the document itself needs none.
    app = FastAPI(
        title="axonnx",
        version="1",
        description="Answers of ONNX artifacts; every answer names the artifact it comes from.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    lone = next(iter(models.values())) if len(models) == 1 else None
    app.add_middleware(Envelope, artifact=lone.id if lone else None)
    _add_error_handlers(app)

    def find(request: Request, name: str | None) -> Model:
        model = lone if name is None else models.get(name)
        if model is None:
            paths = ", ".join(f"/models/{known}" for known in sorted(models))
            wrong = "several models are served" if name is None else f"no model {name[:100]!r}"
            raise NotFound(f"{wrong}; there are {paths}")
        request.scope["artifact_id"] = model.id
        return model

    async def predict(request: Request, name: str | None = None) -> Response:
        deadline = monotonic() + settings.request_timeout
        model = find(request, name)
        manifest = model.manifest
        form = body_form(request.headers.get("content-type"), manifest.inputs)
        accept = ",".join(request.headers.getlist("accept")) or None
        wanted = answer_form(accept, form, manifest.outputs)

        def work() -> bytes:
            inputs = decode(body, form, manifest.inputs, settings.max_body_bytes)
            outputs = model.predict(inputs, deadline)
            return encode(outputs, wanted, model.id, manifest.name)

        with slots.admit():
            body = await read_body(request, settings.max_body_bytes, deadline)
            return Response(await slots.run(work, deadline), media_type=wanted)

    @app.post("/predict", openapi_extra=_BODY)
    async def predict_lone(request: Request) -> Response:
        """Answer with the only model."""
        return await predict(request)

    @app.post("/models/{name}/predict", openapi_extra=_BODY)
    async def predict_named(request: Request, name: str) -> Response:
        """Answer with the model of this name."""
        return await predict(request, name)

    @app.get("/model")
    async def model_lone(request: Request) -> Response:
        """What the only model says of itself."""
        return _json(describe(find(request, None)))

    @app.get("/models/{name}")
    async def model_named(request: Request, name: str) -> Response:
        """What the model of this name says of itself."""
        return _json(describe(find(request, name)))

    @app.get("/models")
    async def model_names() -> Response:
        """Names and artifact ids of the models."""
        return _json({"models": {name: model.id for name, model in models.items()}})

    @app.get("/health/live")
    async def live() -> Response:
        """The process answers."""
        return _json({"live": True})

    @app.get("/health/ready")
    async def ready() -> Response:
        """Every model is loaded, verified and has passed its golden test."""
        return _json({"ready": True, "pending": slots.pending})

    return app


def describe(model: Model) -> dict[str, Any]:
    """Artifact id, providers really in use, golden report and manifest of a model."""
    return {
        "artifact": model.id,
        "providers": model.providers,
        "onnxruntime": model.onnxruntime_version,
        "golden": asdict(model.golden),
        "manifest": orjson.loads(model.manifest.to_json()),
    }


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """The body, counted while it streams.

    Raises BodyTooLarge beyond `limit` bytes, SlowBody when it is not there by `deadline`.
    """
    if encoding := request.headers.get("content-encoding"):
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:100]!r}; send the body plain")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise BodyTooLarge(f"the body has {announced[:20]} bytes; at most {limit} are read")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(deadline - monotonic()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than the {limit} bytes that are read")
                chunks.append(chunk)
    except TimeoutError:
        raise SlowBody(f"only {size} bytes of the body arrived in time") from None
    if size == 0:
        raise MalformedBody("the body is empty")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Envelope:
    """Around every answer: its request id, its artifact id, and the neutral text of a 500."""

    def __init__(self, app: ASGIApp, artifact: str | None) -> None:
        self.app = app
        self.artifact = artifact

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = _request_id(scope)
        scope["artifact_id"] = self.artifact
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = scope["request_id"]
                if scope["artifact_id"]:
                    headers["X-Artifact-Id"] = scope["artifact_id"]
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        except ClientDisconnect:
            logger.info("request %s: the caller left", scope["request_id"])
        except Exception:
            logger.exception("request %s failed", scope["request_id"])
            if started:
                raise
            text = "the service failed on this request; its log tells more under this request_id"
            response = error_response(500, "internal_error", text, scope["request_id"])
            await response(scope, receive, send_named)


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-Id where it is a plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return _refuse(request, error)

    @app.exception_handler(InputError)
    async def wrong_input(request: Request, error: InputError) -> Response:
        return error_response(
            400, "invalid_input", str(error), request.scope["request_id"], error.field
        )

    @app.exception_handler(DeadlineError)
    async def late(request: Request, error: DeadlineError) -> Response:
        return _refuse(request, DeadlineExceeded(str(error)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase
        text = f"{request.method[:20]} {request.url.path[:200]}: {phrase.lower()}"
        headers = dict(error.headers) if error.headers else None
        kind = phrase.lower().replace(" ", "_").replace("-", "_")
        return error_response(
            error.status_code, kind, text, request.scope["request_id"], headers=headers
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        text = f"{field}: {fault['msg']}"
        return error_response(400, "invalid_request", text, request.scope["request_id"], field)


def _refuse(request: Request, error: RequestError) -> Response:
    return error_response(
        error.status,
        error.kind,
        str(error),
        request.scope["request_id"],
        error.field,
        error.headers or None,
    )

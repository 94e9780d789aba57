"""The application and its own routes: predictions, health, what the models say of themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from artifact.errors import ArtifactError
from serve.errors import NotReady, RequestError, respond
from serve.formats import decode, encode
from serve.front import Front
from serve.metrics import add_metrics
from serve.negotiation import JSON, NPY, NPZ, answer_form, body_form
from serve.page import add_page
from serve.repository import Served
from serve.service import INLINE_BINARY, INLINE_JSON, Service
from serve.v2 import HEADER_LENGTH
from serve.v2_routes import add_v2

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


def create_app(service: Service) -> ASGIApp:
    """The application around a service."""
    # The framework's own /docs loads scripts from the internet; serve.page has one that does not.
    api = FastAPI(
        title="axonnx",
        version="1",
        description="Answers of ONNX artifacts; every answer names the artifact it comes from.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for kind in (RequestError, ArtifactError, HTTPException, RequestValidationError, Exception):
        api.add_exception_handler(kind, _respond)
    _add_routes(api, service)
    add_metrics(api, service)
    infer = add_v2(api, service)
    if service.settings.page:
        add_page(api, service)
    front = Front(api, service, lambda *call: predict(service, *call), infer)
    origins = service.settings.cors_origins
    return _shared_with(front, origins) if origins else front


def _shared_with(front: Front, origins: tuple[str, ...]) -> ASGIApp:
    """The application for pages of these origins too; a browser sends them no key by itself."""
    return CORSMiddleware(
        front,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "X-API-Key", "X-Request-Id", "traceparent", HEADER_LENGTH),
        expose_headers=("X-Request-Id", "X-Artifact-Id", "Retry-After", HEADER_LENGTH),
    )


async def predict(
    service: Service, request: Request, name: str | None, version: str | None
) -> Response:
    """Answer a prediction in one of the forms of `serve.formats`."""
    deadline = service.deadline()
    served = find(service, request, name, version)
    manifest = served.model.manifest
    fields = request.scope["fields"]
    form = body_form(fields.get(b"content-type", b"").decode("latin-1"), manifest.inputs)
    accept = ",".join(request.headers.getlist("accept")) if b"accept" in fields else None
    wanted = answer_form(accept, form, manifest.outputs)
    limit = service.settings.max_body_bytes
    with service.engine.admit() as place:
        body = await service.read_body(request, place, deadline, form == JSON)
        inputs = await service.work(
            lambda: decode(body, form, manifest.inputs, limit),
            len(body),
            deadline,
            INLINE_JSON if form == JSON else INLINE_BINARY,
        )
        if form != NPY:  # whose arrays are views of the body
            place.hold(len(body) + sum(array.nbytes for array in inputs.values()))
        outputs = await service.predict(request, served, inputs, deadline)
        content = await service.work(
            lambda: encode(outputs, wanted, served.model.id, served.name),
            sum(array.nbytes for array in outputs.values()),
            deadline,
            INLINE_JSON if wanted == JSON else INLINE_BINARY,
        )
    return Response(content, media_type=wanted)


def find(service: Service, request: Request, name: str | None, version: str | None) -> Served:
    """The model that a request is about; its answer will name the artifact."""
    served = service.repository.find(name, version)
    request.scope["served"] = served
    return served


def describe(served: Served) -> dict[str, Any]:
    """Artifact id, providers really in use, golden report and manifest of a model."""
    model = served.model
    return {
        "name": served.name,
        "version": served.version,
        "artifact": model.id,
        "providers": model.providers,
        "provider_reason": model.choice.reason,
        "onnxruntime": model.onnxruntime_version,
        "golden": asdict(model.golden),
        "batching": [
            {"row": {name: list(sizes) for name, sizes in shape}, "policy": policy.describe()}
            for shape, policy in model.policies().items()
        ],
        "manifest": orjson.loads(model.manifest.to_json()),
    }


def _add_routes(api: FastAPI, service: Service) -> None:
    repository = service.repository

    @api.post("/predict", openapi_extra=_BODY)
    async def predict_lone(request: Request) -> Response:
        """Answer with the only model."""
        return await predict(service, request, None, None)

    @api.post("/models/{name}/predict", openapi_extra=_BODY)
    async def predict_named(request: Request, name: str) -> Response:
        """Answer with the newest version of the model of this name."""
        return await predict(service, request, name, None)

    @api.get("/model")
    async def model_lone(request: Request) -> Response:
        """What the only model says of itself."""
        return _json(describe(find(service, request, None, None)))

    @api.get("/models/{name}")
    async def model_named(request: Request, name: str) -> Response:
        """What the newest version of the model of this name says of itself."""
        return _json(describe(find(service, request, name, None)))

    @api.get("/models")
    async def model_names() -> Response:
        """Names and artifact ids of the models, newest versions, and what does not load."""
        newest = {served.name: served.model.id for served in repository.served}
        failures = [asdict(failure) for failure in repository.failures]
        return _json({"models": newest, "failures": failures, "started": repository.started})

    @api.get("/health/live")
    async def live() -> Response:
        """The process answers."""
        return _json({"live": True})

    @api.get("/health/ready")
    async def ready() -> Response:
        """Every model is loaded, verified, has passed its golden test and is warm."""
        if not repository.ready:
            raise NotReady("the service is stopping" if repository.draining else "not ready yet")
        return _json({"ready": True, "pending": service.engine.pending})


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)


async def _respond(request: Request, error: Exception) -> Response:
    return respond(error, request)

"""The application and its own routes: predictions, and what the models say of themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from artifact.errors import ArtifactError
from serve.answers import about, answer, find
from serve.cors import Shared
from serve.errors import RequestError, respond
from serve.formats import decode, encode
from serve.front import Front
from serve.health import add_health
from serve.metrics import add_metrics
from serve.negotiation import JSON, NPY, answer_form, body_form
from serve.page import add_page
from serve.recordings import add_recordings
from serve.repository import Served
from serve.schemas import (
    PREDICT_EXTRA,
    Description,
    Models,
    answers,
    complete_document,
    predict_answers,
)
from serve.service import INLINE_BINARY, INLINE_JSON, Service
from serve.v2_routes import add_v2


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
    add_health(api, service)
    _add_routes(api, service)
    add_recordings(api, service)
    add_metrics(api, service)
    infer = add_v2(api, service)
    if service.settings.page:
        add_page(api, service)
    complete_document(api, bool(service.settings.api_keys.get_secret_value()))
    front = Front(api, service, lambda *call: predict(service, *call), infer)
    origins = service.settings.cors_origins
    return Shared(front, origins) if origins else front


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

    def about_it(name: str | None) -> Response:
        served = repository.find(name)
        return about(served, describe(served))

    @api.post("/predict", responses=predict_answers(), openapi_extra=PREDICT_EXTRA)
    async def predict_lone(request: Request) -> Response:
        """Answer with the only model."""
        return await predict(service, request, None, None)

    @api.post("/models/{name}/predict", responses=predict_answers(), openapi_extra=PREDICT_EXTRA)
    async def predict_named(request: Request, name: str) -> Response:
        """Answer with the newest version of the model of this name."""
        return await predict(service, request, name, None)

    @api.get("/model", responses=answers(Description, 404, 503))
    async def model_lone() -> Response:
        """What the only model says of itself."""
        return about_it(None)

    @api.get("/models/{name}", responses=answers(Description, 404, 503))
    async def model_named(name: str) -> Response:
        """What the newest version of the model of this name says of itself."""
        return about_it(name)

    @api.get("/models", responses=answers(Models))
    async def model_names() -> Response:
        """Names and artifact ids of the models, newest versions, and what does not load."""
        newest = {served.name: served.model.id for served in repository.served}
        failures = [asdict(failure) for failure in repository.failures]
        return answer({"models": newest, "failures": failures, "started": repository.started})


async def _respond(request: Request, error: Exception) -> Response:
    return respond(error, request)

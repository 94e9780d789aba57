"""The routes of the V2 Open Inference Protocol, as KServe's and Triton's clients call them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import orjson
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response

from serve import v2_schemas as schemas
from serve.answers import about, answer, find
from serve.cors import refuse_strange_page
from serve.errors import (
    BodyTooLarge,
    Forbidden,
    MalformedBody,
    NotSupported,
    SlowBody,
)
from serve.front import Handler
from serve.repository import READY
from serve.schemas import answers
from serve.service import INLINE_BINARY, INLINE_JSON, Service
from serve.settings import PREFIX, Settings
from serve.v2 import HEADER_LENGTH, InferRequest, decode_request, encode_response
from serve.v2_documents import (
    index_line,
    model_config,
    model_metadata,
    model_statistics,
    server_metadata,
)
from serve.v2_tensors import read_parameters

INFER_ERRORS = (400, 404, 406, 408, 413, 415, 501, 503, 504)
# A JSON part of at most 99,999 bytes is read at once, whatever follows it.
_SHORT_LENGTH = 5
_MAX_CONTROL_BYTES = 1 << 20


def add_v2(api: FastAPI, service: Service) -> Handler:
    """Add the routes; gives the handler of `infer`, for the short way past the framework."""

    async def infer_here(request: Request, name: str | None, version: str | None) -> Response:
        return await infer(service, request, name, version)

    _add_server(api, service)
    _add_models(api, service)
    _add_infer(api, infer_here)
    _add_repository(api, service)
    return infer_here


async def infer(
    service: Service, request: Request, name: str | None, version: str | None
) -> Response:
    """Answer an inference request; raises what `serve.errors` can tell."""
    deadline = service.deadline()
    served = find(service, request, name, version)
    manifest = served.model.manifest
    settings = service.settings
    length = request.headers.get(HEADER_LENGTH)
    with service.engine.admit() as place:
        body = await service.read_body(request, place, deadline, length is None)
        question: InferRequest = await service.work(
            lambda: decode_request(
                body, length, manifest.inputs, manifest.outputs, settings.max_json_bytes
            ),
            len(body),
            deadline,
            INLINE_BINARY if length and len(length) <= _SHORT_LENGTH else INLINE_JSON,
        )
        if length is None:  # arrays beside the body; others are views of it
            place.hold(len(body) + sum(array.nbytes for array in question.inputs.values()))
        if question.timeout is not None:
            deadline = min(deadline, monotonic() + question.timeout)
        outputs = await service.predict(request, served, question.inputs, deadline)
        headers, content = await service.work(
            lambda: encode_response(question, outputs, served.name, served.version),
            sum(outputs[name].nbytes for name in question.outputs),
            deadline,
            INLINE_BINARY if all(question.outputs.values()) else INLINE_JSON,
        )
    return Response(content, headers=headers)


def _add_server(api: FastAPI, service: Service) -> None:
    @api.get("/v2/", include_in_schema=False)
    @api.get("/v2", responses=answers(schemas.ServerMetadata))
    async def v2_server() -> Response:
        """Name and version of the server, and the extensions that work."""
        return answer(server_metadata(service.settings.model_control))


def _add_models(api: FastAPI, service: Service) -> None:
    repository = service.repository

    def metadata(name: str, version: str | None) -> Response:
        served = repository.find(name, version)
        return about(served, model_metadata(served, repository.versions(name)))

    def ready(name: str, version: str | None) -> Response:
        return about(repository.find(name, version), {"name": name, "ready": True})

    def config(name: str, version: str | None) -> Response:
        served = repository.find(name, version)
        return about(served, model_config(served))

    def statistics(name: str, version: str | None) -> Response:
        repository.find(name, version)
        found = [
            served
            for served in repository.served
            if served.name == name and version in (None, served.version)
        ]
        return answer({"model_stats": [model_statistics(served) for served in found]})

    @api.get("/v2/models", responses=answers(schemas.ModelNames))
    async def v2_models() -> Response:
        """Names of the models that answer."""
        return answer({"models": sorted({served.name for served in repository.served})})

    # Before the routes with a name: this one is no model.
    @api.get("/v2/models/stats", responses=answers(schemas.ModelStatistics))
    async def v2_all_statistics() -> Response:
        """Counts of all models since they were loaded."""
        return answer({"model_stats": [model_statistics(served) for served in repository.served]})

    for path, model, tell, text in (
        ("", schemas.ModelMetadata, metadata, "Versions, inputs and outputs"),
        ("/ready", schemas.ModelReady, ready, "Whether it answers"),
        ("/config", schemas.ModelConfig, config, "Its configuration in Triton's terms"),
        ("/stats", schemas.ModelStatistics, statistics, "Counts since it was loaded"),
    ):
        _add_about(api, path, model, tell, text)


def _add_about(
    api: FastAPI,
    path: str,
    model: type[BaseModel],
    tell: Callable[[str, str | None], Response],
    text: str,
) -> None:
    """One of the routes about a model: of this name, and of this name and version."""
    responses = answers(model, 404, 503)

    @api.get(
        f"/v2/models/{{name}}{path}", responses=responses, description=f"{text}; newest version."
    )
    async def v2_model(name: str) -> Response:
        return tell(name, None)

    @api.get(
        f"/v2/models/{{name}}/versions/{{version}}{path}",
        responses=responses,
        description=f"{text}; this version.",
    )
    async def v2_model_version(name: str, version: str) -> Response:
        return tell(name, version)


def _add_infer(api: FastAPI, infer_here: Handler) -> None:
    responses = schemas.infer_answers(*INFER_ERRORS)

    @api.post("/v2/models/{name}/infer", responses=responses, openapi_extra=schemas.INFER_EXTRA)
    async def v2_infer(request: Request, name: str) -> Response:
        """Answer with the newest version of the model."""
        return await infer_here(request, name, None)

    @api.post(
        "/v2/models/{name}/versions/{version}/infer",
        responses=responses,
        openapi_extra=schemas.INFER_EXTRA,
    )
    async def v2_infer_version(request: Request, name: str, version: str) -> Response:
        """Answer with this version of the model."""
        return await infer_here(request, name, version)


def _add_repository(api: FastAPI, service: Service) -> None:
    repository, settings = service.repository, service.settings

    @api.post(
        "/v2/repository/index",
        responses=answers(list[schemas.IndexLine], 400, 408, 413),
        openapi_extra=schemas.INDEX_EXTRA,
    )
    async def v2_index(request: Request) -> Response:
        """Every version that answers, is still to be loaded, or does not load, and why."""
        wanted = (await _read_object(request, settings.request_timeout)).get("ready", False)
        if type(wanted) is not bool:
            raise MalformedBody("ready: must be a boolean", "ready")
        lines = [line for line in repository.index() if line.state == READY or not wanted]
        return answer([index_line(line) for line in lines])

    @api.post(
        "/v2/repository/models/{name}/load",
        responses=answers(schemas.Loaded, 400, 403, 404, 408, 413, 501, 503),
        openapi_extra=schemas.CONTROL_EXTRA,
    )
    async def v2_load(request: Request, name: str) -> Response:
        """Load a model that lies in the paths of the service, or load it again."""
        refuse_control(settings)
        refuse_strange_page(request, settings.cors_origins)
        document = await _read_object(request, settings.request_timeout)
        refuse_overrides(read_parameters(document, ""))
        await repository.changes.run(lambda: repository.load(name))
        return answer({"name": name, "load": True})

    @api.post(
        "/v2/repository/models/{name}/unload",
        responses=answers(schemas.Unloaded, 400, 403, 404, 408, 413, 503),
        openapi_extra=schemas.CONTROL_EXTRA,
    )
    async def v2_unload(request: Request, name: str) -> Response:
        """Serve a model no more; requests that have found it are answered."""
        refuse_control(settings)
        refuse_strange_page(request, settings.cors_origins)
        document = await _read_object(request, settings.request_timeout)
        read_parameters(document, "")  # whatever they are: no model depends on another
        await repository.changes.run(lambda: repository.unload(name))
        return answer({"name": name, "unload": True})


def refuse_control(settings: Settings) -> None:
    """Raise Forbidden where callers may not load and unload models."""
    if not settings.model_control:
        raise Forbidden(
            "models are not loaded and unloaded on call; the service allows it with "
            f"{PREFIX}MODEL_CONTROL=true"
        )


def refuse_overrides(parameters: Iterable[str]) -> None:
    """Raise NotSupported for a parameter of a load that brings files or a configuration."""
    for key in parameters:
        if key == "config" or key.startswith("file:"):
            raise NotSupported(
                f"parameters.{key[:100]}: models are loaded from the paths of the service only"
            )


async def _read_object(request: Request, seconds: float) -> dict[str, Any]:
    """The JSON object of a body that may be empty; raises BodyTooLarge, SlowBody, MalformedBody."""
    body = b""
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_CONTROL_BYTES:
                    raise BodyTooLarge(f"the body has more than {_MAX_CONTROL_BYTES} bytes")
    except TimeoutError:
        raise SlowBody(f"only {len(body)} bytes of the body arrived in time") from None
    try:
        document = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if type(document) is not dict:
        raise MalformedBody("the body must be a JSON object, or empty")
    return document

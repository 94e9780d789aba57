"""What the routes take and give, for the OpenAPI document; nothing is checked with it.

Here is what all routes share and what our own give; `serve.v2_schemas` has the V2 protocol's.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from serve.keys import is_open
from serve.negotiation import JSON, NPY, NPZ

ERRORS = {
    400: "The request is malformed, or an input is not what the model takes",
    401: "No key was sent, or none that is known",
    403: "The settings do not allow this",
    404: "There is no such model or version",
    406: "The answer cannot be given in the form that is wanted",
    408: "The body did not arrive in time",
    413: "The body is larger than the limit",
    415: "The Content-Type or Content-Encoding is none that is read",
    501: "The protocol has this feature, this service does not",
    503: "Not ready, or too much is pending; Retry-After says when to come again",
    504: "The answer was not there in time",
}
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_BEARER = "key"


class Body(BaseModel):
    """A JSON object of these members and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorBody(Body):
    """The body of every error."""

    error: str = Field(description="what was wrong, where, and what would be right")
    type: str = Field(description="the kind of error, one word for programs")
    field: str | None = Field(description="the input or field that is wrong")
    request_id: str = Field(description="as in X-Request-Id and in the service's log")


class Live(Body):
    """The process answers."""

    live: Literal[True]


class ServiceReady(Body):
    """Loading is over and at least one model answers."""

    ready: Literal[True]
    pending: int = Field(description="predictions being read, waiting or running")


class Failure(Body):
    """What does not load, and why."""

    name: str
    version: str
    state: Literal["UNAVAILABLE"]
    reason: str
    source: str = Field(description="its file or folder")


class Models(Body):
    """The models that answer, and what does not load."""

    models: dict[str, str] = Field(description="the artifact's id by name, newest versions")
    failures: list[Failure]
    started: bool = Field(description="whether loading is over")


class Description(Body):
    """What a model says of itself."""

    name: str
    version: str
    artifact: str = Field(description="as in X-Artifact-Id")
    providers: list[str] = Field(description="execution providers that are really in use")
    provider_reason: str | None
    onnxruntime: str
    golden: dict[str, Any] = Field(description="how the golden rows were replayed")
    batching: list[dict[str, Any]] = Field(description="what may run together, by shape of row")
    manifest: dict[str, Any]


class Prediction(Body):
    """The outputs, nested lists by name."""

    artifact: str
    model: str
    outputs: dict[str, Any]


PREDICT_EXTRA: dict[str, Any] = {
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
            NPY: BINARY,
            NPZ: BINARY,
        },
    }
}


class Table(Body):
    """Predictions of a recording: one row per time stamp."""

    model: str
    artifact: str
    columns: dict[str, list[Any]]


RECORDING_EXTRA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": BINARY},
        "description": "the file, in a format that lies in one file",
    }
}


def answers(model: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the body of a 200, and the errors it may give."""
    responses: dict[int | str, dict[str, Any]] = {
        200: {"model": model, "description": "The answer"}
    }
    for code in sorted((401, *statuses)):
        responses[code] = {"model": ErrorBody, "description": ERRORS[code]}
    return responses


def predict_answers() -> dict[int | str, dict[str, Any]]:
    """The same for a prediction, whose answer may be binary."""
    responses = answers(Prediction, 400, 404, 406, 408, 413, 415, 503, 504)
    responses[200]["content"] = {NPY: BINARY, NPZ: BINARY}
    return responses


def recording_answers() -> dict[int | str, dict[str, Any]]:
    """The same for a recording, whose answer is a table."""
    responses = answers(Table, 400, 404, 408, 413, 415, 501, 503, 504)
    responses[200]["content"] = {"text/csv": {"schema": {"type": "string"}}}
    return responses


def complete_document(api: FastAPI, with_keys: bool) -> None:
    """Let the OpenAPI document say which routes need a key, and no error that is never given."""
    make = api.openapi

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            made = make()
            for path, operations in made["paths"].items():
                for method, operation in operations.items():
                    _complete(operation, with_keys and not is_open(method.upper(), path))
            for name in ("HTTPValidationError", "ValidationError"):
                made["components"]["schemas"].pop(name, None)
            if with_keys:
                made["components"]["securitySchemes"] = {
                    _BEARER: {"type": "http", "scheme": "bearer"}
                }
        return api.openapi_schema or {}

    api.openapi = document  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], closed: bool) -> None:
    operation["responses"].pop("422", None)  # the framework's own, which `serve.errors` replaces
    if closed:
        operation["security"] = [{_BEARER: []}]
    else:
        operation["responses"].pop("401", None)

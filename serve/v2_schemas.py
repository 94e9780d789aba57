"""What the V2 routes take and give, for the OpenAPI document; nothing is checked with it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from serve.negotiation import JSON
from serve.v2 import HEADER_LENGTH

OCTETS = "application/octet-stream"
Datatype = Literal["BOOL", "UINT8", "INT32", "INT64", "FP32", "FP64"]
ERRORS = {
    400: "The request is malformed, or an input is not what the model takes",
    401: "No key was sent, or none that is known",
    403: "The settings do not allow this",
    404: "There is no such model or version",
    406: "An output is not finite, which JSON cannot say",
    408: "The body did not arrive in time",
    413: "The body is larger than the limit",
    415: "The Content-Encoding is none that is read",
    501: "The protocol has this feature, this service does not",
    503: "Not ready, or too many predictions are pending; Retry-After says when to come again",
    504: "The answer was not there in time",
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorBody(_Body):
    """The body of every error."""

    error: str = Field(description="what was wrong, where, and what would be right")
    type: str = Field(description="the kind of error, one word for programs")
    field: str | None = Field(description="the input or field that is wrong")
    request_id: str = Field(description="as in X-Request-Id and in the service's log")


class Live(_Body):
    """The process answers."""

    live: Literal[True]


class Ready(_Body):
    """Every model is loaded, verified and warm."""

    ready: Literal[True]


class ModelReady(_Body):
    """This model answers."""

    name: str
    ready: Literal[True]


class ServerMetadata(_Body):
    """The server and the extensions of the protocol that work."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(_Body):
    """The models that answer."""

    models: list[str]


class TensorMetadata(_Body):
    """An input or output; -1 where an axis may vary."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(_Body):
    """Versions, inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Reshape(_Body):
    """How the graph sees a tensor that has one value per row."""

    shape: list[int]


class TensorConfig(_Body):
    """An input or output without its batch axis."""

    name: str
    data_type: str
    dims: list[int]
    reshape: Reshape | None = None


class ModelConfig(_Body):
    """Triton's model configuration, as far as it has a meaning here."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]


class Duration(_Body):
    """How often, and nanoseconds in all."""

    count: int
    ns: int


class InferStatistics(_Body):
    """Answers, waits and runs; what is not measured stays 0."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(_Body):
    """Runs of this many rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class VersionStatistics(_Body):
    """Counts of one version of a model since it was loaded."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970")
    inference_count: int = Field(description="rows")
    execution_count: int = Field(description="runs")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class ModelStatistics(_Body):
    """Counts of models since they were loaded."""

    model_stats: list[VersionStatistics]


class IndexLine(_Body):
    """One version of a model, or what does not load."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Loaded(_Body):
    """The model was loaded, or loaded again."""

    name: str
    load: Literal[True]


class Unloaded(_Body):
    """The model is served no more."""

    name: str
    unload: Literal[True]


class Parameters(BaseModel):
    """Texts, numbers and booleans by name."""

    model_config = ConfigDict(extra="allow")


class OutputTensor(_Body):
    """One output: flat data, or as many bytes behind the JSON part as its parameters say."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None
    data: list[float | int | bool] | None = None


class InferResponse(_Body):
    """The outputs that were asked for."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


_PARAMETERS: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": ["string", "null"], "description": "returned unchanged"},
        "model_name": {"description": "not heeded: the path decides"},
        "model_version": {"description": "not heeded: the path decides"},
        "parameters": _PARAMETERS
        | {"description": "`timeout` in microseconds; `binary_data_output`; your own"},
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "datatype": {"enum": list(get_args(Datatype))},
                    "parameters": _PARAMETERS | {"description": "`binary_data_size` in bytes"},
                    "data": {"type": "array", "description": "flat, or nested as `shape` says"},
                },
            },
        },
        "outputs": {
            "type": ["array", "null"],
            "description": "all where none are listed",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "parameters": _PARAMETERS | {"description": "`binary_data`"},
                },
            },
        },
    },
}
_OCTETS: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_LENGTH = {
    "description": "bytes of the JSON part; the bytes of the tensors follow it",
    "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
}
INFER_EXTRA: dict[str, Any] = {
    "parameters": [{"name": HEADER_LENGTH, "in": "header", "required": False} | _LENGTH],
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": _REQUEST}, OCTETS: _OCTETS},
    },
}
INDEX_EXTRA: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "ready": {"type": "boolean", "description": "only models that are ready"}
                    },
                }
            }
        },
    }
}
CONTROL_EXTRA: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            JSON: {"schema": {"type": "object", "properties": {"parameters": _PARAMETERS}}}
        },
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


def infer_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for an inference, whose answer may be binary."""
    responses = answers(InferResponse, *statuses)
    responses[200] |= {"content": {OCTETS: _OCTETS}, "headers": {HEADER_LENGTH: _LENGTH}}
    return responses

"""What the V2 routes take and give, for the OpenAPI document; nothing is checked with it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from serve.negotiation import JSON
from serve.schemas import BINARY, Body, answers
from serve.v2 import HEADER_LENGTH

OCTETS = "application/octet-stream"
Datatype = Literal["BOOL", "UINT8", "INT32", "INT64", "FP32", "FP64"]


class Ready(Body):
    """Loading is over and at least one model answers."""

    ready: Literal[True]


class ModelReady(Body):
    """This model answers."""

    name: str
    ready: Literal[True]


class ServerMetadata(Body):
    """The server and the extensions of the protocol that work."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(Body):
    """The models that answer."""

    models: list[str]


class TensorMetadata(Body):
    """An input or output; -1 where an axis may vary."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(Body):
    """Versions, inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Reshape(Body):
    """How the graph sees a tensor that has one value per row."""

    shape: list[int]


class TensorConfig(Body):
    """An input or output without its batch axis."""

    name: str
    data_type: str
    dims: list[int]
    reshape: Reshape | None = None


class ModelConfig(Body):
    """Triton's model configuration, as far as it has a meaning here."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]


class Duration(Body):
    """How often, and nanoseconds in all."""

    count: int
    ns: int


class InferStatistics(Body):
    """Answers, waits and runs; what is not measured stays 0."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(Body):
    """Runs of this many rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class VersionStatistics(Body):
    """Counts of one version of a model since it was loaded."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970")
    inference_count: int = Field(description="rows")
    execution_count: int = Field(description="runs")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class ModelStatistics(Body):
    """Counts of models since they were loaded."""

    model_stats: list[VersionStatistics]


class IndexLine(Body):
    """One version of a model, or what is not loaded yet or does not load."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class Loaded(Body):
    """The model was loaded, or loaded again."""

    name: str
    load: Literal[True]


class Unloaded(Body):
    """The model is served no more."""

    name: str
    unload: Literal[True]


class Parameters(BaseModel):
    """Texts, numbers and booleans by name."""

    model_config = ConfigDict(extra="allow")


class OutputTensor(Body):
    """One output: flat data, or as many bytes behind the JSON part as its parameters say."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None
    data: list[float | int | bool] | None = None


class InferResponse(Body):
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
_LENGTH = {
    "description": "bytes of the JSON part; the bytes of the tensors follow it",
    "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
}
INFER_EXTRA: dict[str, Any] = {
    "parameters": [{"name": HEADER_LENGTH, "in": "header", "required": False} | _LENGTH],
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": _REQUEST}, OCTETS: BINARY},
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


def infer_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for an inference, whose answer may be binary."""
    responses = answers(InferResponse, *statuses)
    responses[200] |= {"content": {OCTETS: BINARY}, "headers": {HEADER_LENGTH: _LENGTH}}
    return responses

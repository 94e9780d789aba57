"""The V2 protocol's messages, made here from a table, and what they mean to `serve.v2`.

A table in place of generated code: no compiler is needed, and none of its files has to fit the
version of the library. The messages live in a pool of their own, beside those that a client library
in the same process may have made of the same names.
Sources: the Open Inference Protocol's gRPC text; Triton's extensions for model configuration,
statistics and the model repository, as far as they are served.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from artifact.arrays import Array
from serve.errors import InvalidInput, MalformedBody
from serve.repository import Served
from serve.v2 import InferRequest, read_document
from serve.v2_tensors import DATATYPES, refuse_unserved

PACKAGE = "inference"
_TENSOR = "name string 1, datatype string 2, shape [int64] 3"
_FILLED = f"{_TENSOR}, parameters {{InferParameter}} 4, contents InferTensorContents 5"
_CONFIGURED = "name string 1, data_type DataType 2"
_REPOSITORY = "repository_name string 1, model_name string 2"
_MODEL = "name string 1, version string 2"
# Field, type and number; [type] is repeated, {type} a map from text.
_FIELDS = {
    "InferParameter": "bool_param bool 1, int64_param int64 2, string_param string 3, "
    "double_param double 4, uint64_param uint64 5",
    "InferTensorContents": "bool_contents [bool] 1, int_contents [int32] 2, "
    "int64_contents [int64] 3, uint_contents [uint32] 4, uint64_contents [uint64] 5, "
    "fp32_contents [float] 6, fp64_contents [double] 7, bytes_contents [bytes] 8",
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool 1",
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": "ready bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string 1, version string 2, extensions [string] 3",
    "ModelMetadataRequest": _MODEL,
    "ModelMetadataResponse": "name string 1, versions [string] 2, platform string 3, "
    "inputs [ModelMetadataResponse.TensorMetadata] 4, "
    "outputs [ModelMetadataResponse.TensorMetadata] 5",
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": "model_name string 1, model_version string 2, id string 3, "
    "parameters {InferParameter} 4, inputs [ModelInferRequest.InferInputTensor] 5, "
    "outputs [ModelInferRequest.InferRequestedOutputTensor] 6, raw_input_contents [bytes] 7",
    "ModelInferRequest.InferInputTensor": _FILLED,
    "ModelInferRequest.InferRequestedOutputTensor": "name string 1, parameters {InferParameter} 2",
    "ModelInferResponse": "model_name string 1, model_version string 2, id string 3, "
    "parameters {InferParameter} 4, outputs [ModelInferResponse.InferOutputTensor] 5, "
    "raw_output_contents [bytes] 6",
    "ModelInferResponse.InferOutputTensor": _FILLED,
    "ModelConfigRequest": _MODEL,
    "ModelConfigResponse": "config ModelConfig 1",
    "ModelConfig": "name string 1, platform string 2, version_policy ModelVersionPolicy 3, "
    "max_batch_size int32 4, input [ModelInput] 5, output [ModelOutput] 6, backend string 17",
    "ModelVersionPolicy": "all ModelVersionPolicy.All 2",
    "ModelVersionPolicy.All": "",
    "ModelInput": f"{_CONFIGURED}, dims [int64] 4, reshape ModelTensorReshape 5",
    "ModelOutput": f"{_CONFIGURED}, dims [int64] 3, reshape ModelTensorReshape 5",
    "ModelTensorReshape": "shape [int64] 1",
    "ModelStatisticsRequest": _MODEL,
    "ModelStatisticsResponse": "model_stats [ModelStatistics] 1",
    "ModelStatistics": f"{_MODEL}, last_inference uint64 3, inference_count uint64 4, "
    "execution_count uint64 5, inference_stats InferStatistics 6, "
    "batch_stats [InferBatchStatistics] 7",
    "InferStatistics": "success StatisticDuration 1, fail StatisticDuration 2, "
    "queue StatisticDuration 3, compute_input StatisticDuration 4, "
    "compute_infer StatisticDuration 5, compute_output StatisticDuration 6, "
    "cache_hit StatisticDuration 7, cache_miss StatisticDuration 8",
    "InferBatchStatistics": "batch_size uint64 1, compute_input StatisticDuration 2, "
    "compute_infer StatisticDuration 3, compute_output StatisticDuration 4",
    "StatisticDuration": "count uint64 1, ns uint64 2",
    "ModelRepositoryParameter": "bool_param bool 1, int64_param int64 2, string_param string 3, "
    "bytes_param bytes 4",
    "RepositoryIndexRequest": "repository_name string 1, ready bool 2",
    "RepositoryIndexResponse": "models [RepositoryIndexResponse.ModelIndex] 1",
    "RepositoryIndexResponse.ModelIndex": f"{_MODEL}, state string 3, reason string 4",
    "RepositoryModelLoadRequest": f"{_REPOSITORY}, parameters {{ModelRepositoryParameter}} 3",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": f"{_REPOSITORY}, parameters {{ModelRepositoryParameter}} 3",
    "RepositoryModelUnloadResponse": "",
}
# Messages of which at most one field is set.
_CHOICES = {
    "InferParameter": "parameter_choice",
    "ModelRepositoryParameter": "parameter_choice",
    "ModelVersionPolicy": "policy_choice",
}
_ENUMS = {
    "DataType": {
        "TYPE_INVALID": 0,
        "TYPE_BOOL": 1,
        "TYPE_UINT8": 2,
        "TYPE_INT32": 8,
        "TYPE_INT64": 9,
        "TYPE_FP32": 11,
        "TYPE_FP64": 12,
    }
}
# Which field of InferTensorContents holds a datatype, and the dtype of its numbers.
_CONTENTS: dict[str, tuple[str, type[np.generic]]] = {
    "BOOL": ("bool_contents", np.bool_),
    "UINT8": ("uint_contents", np.uint32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
}
_MAX_AXES = 32
_DTYPES = dict(DATATYPES.values())
_NAMES = {dtype: name for name, dtype in DATATYPES.values()}


def parse(name: str, data: bytes) -> Any:
    """The message of this name; raises MalformedBody."""
    try:
        return MESSAGES[name].FromString(data)
    except DecodeError as error:
        raise MalformedBody(f"the message is no {name}: {error}"[:300]) from None


def read_infer(message: Any, served: Served) -> InferRequest:
    """What a ModelInferRequest asks of this model: the same checks as over HTTP.

    Every tensor is handed on as bytes, those of typed contents too. Raises MalformedBody,
    InvalidInput or NotSupported.
    """
    manifest = served.model.manifest
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise MalformedBody(
            f"raw_input_contents: has {len(raws)} entries for {len(message.inputs)} inputs; must "
            "have one for each, or none at all",
            "raw_input_contents",
        )
    inputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    # One more than the model has is refused for its name: no need to look at all of them.
    for index, tensor in enumerate(message.inputs[: len(manifest.inputs) + 1]):
        parameters = read_parameters(tensor)
        refuse_unserved(parameters, tensor.name[:100])
        part = _raw(tensor, raws[index], index) if raws else _typed(tensor)
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {**parameters, "binary_data_size": len(part)},
            }
        )
        parts.append(part)
    document = {
        "id": message.id or None,
        "parameters": read_parameters(message),
        "inputs": inputs,
        "outputs": [
            {"name": output.name, "parameters": read_parameters(output)}
            for output in message.outputs[: len(manifest.outputs) + 1]
        ],
    }
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return read_document(document, body, 0, manifest.inputs, manifest.outputs)


def read_parameters(owner: Any) -> dict[str, Any]:
    """The owner's parameters by name; None where one has no value."""
    if not owner.parameters:
        return {}
    chosen = {key: value.WhichOneof("parameter_choice") for key, value in owner.parameters.items()}
    return {key: field and getattr(owner.parameters[key], field) for key, field in chosen.items()}


def write_infer(question: InferRequest, answers: Mapping[str, Array], served: Served) -> bytes:
    """A ModelInferResponse with the wanted outputs as raw contents."""
    message = MESSAGES["ModelInferResponse"](
        model_name=served.name, model_version=served.version, id=question.id or ""
    )
    for name in question.outputs:
        array = answers[name]
        message.outputs.add(name=name, datatype=_NAMES[array.dtype], shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


def _raw(tensor: Any, data: bytes, index: int) -> bytes:
    """The entry of raw_input_contents for this tensor; raises InvalidInput."""
    if tensor.HasField("contents"):
        raise InvalidInput(
            f"{tensor.name[:100]}: has both contents and raw_input_contents; one of them is wanted",
            tensor.name[:100],
        )
    _check_count(tensor, len(data), f"raw_input_contents[{index}]", "bytes", len(data))
    return data


def _typed(tensor: Any) -> bytes:
    """The bytes of a tensor whose values are in its contents; raises InvalidInput."""
    name, datatype = tensor.name[:100], tensor.datatype
    if datatype not in _CONTENTS:
        return b""  # for the checks behind this one, which name the datatype that is wanted
    field, dtype = _CONTENTS[datatype]
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise InvalidInput(
                f"{name}: values of {datatype} belong in contents.{field}; contents.{other.name} "
                "is given",
                name,
            )
    values = getattr(tensor.contents, field)
    array = np.fromiter(values, dtype, len(values))
    if datatype == "UINT8" and array.max(initial=0) > 255:
        raise InvalidInput(f"{name}: {array.max()} does not fit in UINT8", name)
    data = array.astype(_DTYPES[datatype], copy=False).tobytes()
    _check_count(tensor, len(data), f"contents.{field}", "values", len(values))
    return data


def _check_count(tensor: Any, size: int, place: str, unit: str, count: int) -> None:
    """Refuse data of `size` bytes, told as `count` units, that do not fill the tensor's shape."""
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None or len(tensor.shape) > _MAX_AXES or min(tensor.shape, default=0) < 0:
        return  # told by the checks behind this one
    needed = math.prod(tensor.shape) * dtype.itemsize
    if size != needed:
        wanted = needed if unit == "bytes" else needed // dtype.itemsize
        raise InvalidInput(
            f"{tensor.name[:100]}: {place} has {count} {unit}; {tensor.datatype} of shape "
            f"{list(tensor.shape)} takes {wanted}",
            tensor.name[:100],
        )


def _make_classes() -> dict[str, Any]:
    """A class for every message of the table."""
    file = descriptor_pb2.FileDescriptorProto(
        name="axonnx/inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for word, number in values.items():
            enum.value.add(name=word, number=number)
    made: dict[str, Any] = {}
    for name, fields in _FIELDS.items():
        *owner, own = name.split(".")
        message = made[owner[0]].nested_type.add() if owner else file.message_type.add()
        message.name, made[name] = own, message
        if name in _CHOICES:
            message.oneof_decl.add(name=_CHOICES[name])
        for line in fields.split(", ") if fields else ():
            _add_field(message, name, *line.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _FIELDS
    }


def _add_field(message: Any, owner: str, name: str, kind: str, number: str) -> None:
    """Add a field as the table writes it to the descriptor of `owner`."""
    types = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=int(number), label=types.LABEL_OPTIONAL)
    if owner in _CHOICES:
        field.oneof_index = 0
    if kind[0] in "[{":
        field.label = types.LABEL_REPEATED
    if kind[0] == "{":  # a map is a repeated message of keys and values
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, "", "key", "string", "1")
        _add_field(entry, "", "value", kind[1:-1], "2")
        kind = f"{owner}.ParametersEntry"
    kind = kind.strip("[]")
    if kind in _ENUMS or kind[0].isupper():
        field.type = types.TYPE_ENUM if kind in _ENUMS else types.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = types.Type.Value(f"TYPE_{kind.upper()}")


MESSAGES = _make_classes()

"""Inference bodies of the V2 Open Inference Protocol, with its binary tensor data extension.

A body is a JSON object, and behind it, with nothing between, the bytes of the tensors that the
object announces. Sizes must fit exactly; nothing is guessed and no value is coerced.
Sources: the Open Inference Protocol's REST text and Triton's binary tensor data extension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from artifact.arrays import Array
from artifact.manifest import TensorSpec
from serve.errors import InvalidInput, MalformedBody, NotAcceptable, NotSupported
from serve.formats import word
from serve.json_bodies import MAX_JSON_BYTES, json_too_large, parse_json
from serve.v2_tensors import (
    DATATYPES,
    read_parameters,
    read_tensor,
    refuse_unserved,
    told,
    view,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
_NAMES = {dtype: name for name, dtype in DATATYPES.values()}
_REQUEST_KEYS = frozenset({"id", "parameters", "inputs", "outputs", "model_name", "model_version"})
_INPUT_KEYS = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT_KEYS = frozenset({"name", "parameters"})


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What an inference body asks.

    `inputs` maps names to arrays, views of the body where they came as binary; their rank, dtype
    and size are checked, the sizes of their axes are left to `Model.check_inputs`.
    `outputs` maps the names of the wanted outputs to whether they are wanted as binary.
    `id` goes back to the caller; `timeout` is in seconds. Both are None where they are not given.
    """

    inputs: dict[str, Array]
    outputs: dict[str, bool]
    id: str | None = None
    timeout: float | None = None


def decode_request(
    body: bytes,
    header_length: str | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_json_bytes: int = MAX_JSON_BYTES,
) -> InferRequest:
    """Read an inference body; `header_length` is its header Inference-Header-Content-Length.

    Raises MalformedBody, InvalidInput, NotSupported, or BodyTooLarge for its JSON part.
    """
    size = len(body) if header_length is None else _header_size(header_length, len(body))
    if size == 0 and header_length is not None:
        return _raw_request(body, inputs, outputs)
    if size > max_json_bytes:
        raise json_too_large(size, max_json_bytes)
    return read_document(_parse(body, size), body, size, inputs, outputs)


def read_document(
    document: dict[str, Any],
    body: bytes,
    offset: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> InferRequest:
    """Read the JSON part of an inference body; its binary data begin at `offset` of `body`.

    Raises MalformedBody, InvalidInput or NotSupported.
    """
    identity = document.get("id")
    if identity is not None and type(identity) is not str:
        raise MalformedBody(f"id: must be text, {told(identity)}", "id")
    timeout, binary = _read_settings(read_parameters(document, ""))
    arrays = _read_inputs(document, body, offset, inputs)
    return InferRequest(arrays, _read_outputs(document, outputs, binary), identity, timeout)


def encode_response(
    request: InferRequest, answers: Mapping[str, Array], model: str, version: str
) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer: the wanted outputs of `answers`, in the wanted form.

    Raises NotAcceptable for JSON with an output that is not finite: JSON has no such numbers.
    """
    blobs: list[Array] = []
    outputs: list[dict[str, Any]] = []
    for name, binary in request.outputs.items():
        array = np.ascontiguousarray(answers[name])
        output: dict[str, Any] = {
            "name": name,
            "datatype": _NAMES[array.dtype],
            "shape": array.shape,
        }
        if binary:
            output["parameters"] = {"binary_data_size": array.nbytes}
            blobs.append(array)
        else:
            _refuse_nonfinite(name, array)
            output["data"] = array.reshape(-1)
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(blob.nbytes for blob in blobs):
        return {"Content-Type": "application/json"}, head
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return headers, b"".join([head, *(blob.data for blob in blobs)])


def _refuse_nonfinite(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NotAcceptable(
            f"{name}: holds NaN or infinity, which JSON cannot say; ask for it with "
            '"parameters": {"binary_data": true}',
            name,
        )


def _header_size(text: str, size: int) -> int:
    """Length in bytes of the JSON part; raises MalformedBody for what is no such length."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise MalformedBody(f"{HEADER_LENGTH}: must be a decimal number, is {text[:40]!r}")
    if int(text) > size:
        raise MalformedBody(f"{HEADER_LENGTH} is {text}, but the body has only {size} bytes")
    return int(text)


def _raw_request(
    body: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> InferRequest:
    """A body that is the only input's data for one row; every output is wanted as binary."""
    spec = inputs[0]
    fixed = [size for size in spec.shape[1:] if size is not None]
    variable = len(spec.shape) - 1 - len(fixed)
    if len(inputs) > 1 or variable > 1:
        found = ", ".join(f"{spec.name} {spec.layout}" for spec in inputs)
        raise InvalidInput(
            f"{HEADER_LENGTH} is 0, a raw body; it suits models with one input and at most one "
            f"variable axis beside batch, and this one takes {found}"
        )
    unit = math.prod(fixed) * DATATYPES[spec.dtype][1].itemsize
    length, rest = divmod(len(body), unit)
    if rest or not length or (length != 1 and not variable):
        wanted = f"a multiple of {unit}" if variable else str(unit)
        raise InvalidInput(
            f"{spec.name}: the raw body has {len(body)} bytes; one row {spec.layout} of "
            f"{spec.dtype} has {wanted}",
            spec.name,
        )
    shape = [1, *(length if size is None else size for size in spec.shape[1:])]
    array = view(body, 0, shape, spec)
    return InferRequest({spec.name: array}, {output.name: True for output in outputs})


def _parse(body: bytes, size: int) -> dict[str, Any]:
    """The JSON object in the first `size` bytes; orjson bounds its nesting."""
    try:
        document = parse_json(body, size)
    except orjson.JSONDecodeError as error:
        hint = ""
        if size == len(body):
            hint = f"; with binary data behind it, {HEADER_LENGTH} must say where it ends"
        if body.find(b"NaN", 0, size) >= 0 or body.find(b"Infinity", 0, size) >= 0:
            hint = "; NaN and infinity are no JSON numbers, send that tensor as binary data"
        raise MalformedBody(f"the request is not JSON: {error}{hint}") from None
    if type(document) is not dict:
        raise MalformedBody(f"the request must be a JSON object, is {word(document)}")
    _refuse_unknown(document, _REQUEST_KEYS, "the request")
    return document


def _read_settings(parameters: dict[str, Any]) -> tuple[float | None, bool]:
    """The timeout in seconds, and whether outputs are wanted as binary where none are listed.

    Other names are the caller's own and mean nothing here, unless the protocol reserves them;
    requests have no priorities, so any priority will do.
    """
    if not parameters:
        return None, False
    binary = parameters.get("binary_data_output", False)
    if type(binary) is not bool:
        raise MalformedBody(f"parameters.binary_data_output: must be a boolean, {told(binary)}")
    for key in ("timeout", "priority"):
        value = parameters.get(key, 0)
        if type(value) is not int or value < 0:
            raise MalformedBody(f"parameters.{key}: must be a whole number from 0, {told(value)}")
    for key, value in parameters.items():
        if key.startswith("sequence_") and value:
            raise NotSupported(f"parameters.{key[:100]}: sequences of requests are not served")
        if key == "headers" or key.startswith("triton_"):
            raise MalformedBody(f"parameters.{key[:100]}: the protocol reserves this name")
    microseconds = parameters.get("timeout", 0)
    return microseconds / 1e6 if microseconds else None, binary


def _read_inputs(
    document: dict[str, Any], body: bytes, offset: int, inputs: Sequence[TensorSpec]
) -> dict[str, Array]:
    """The arrays by name; their binary data fill the body from `offset` to its end."""
    items = document.get("inputs")
    if type(items) is not list:
        raise MalformedBody(f"inputs: must be a list, {told(items)}", "inputs")
    specs = {spec.name: spec for spec in inputs}
    arrays: dict[str, Array] = {}
    for index, item in enumerate(items):
        place = f"inputs[{index}]."
        spec = _find(item, specs, arrays, place, _INPUT_KEYS)
        arrays[spec.name], offset = read_tensor(item, spec, body, offset, place)
    if offset != len(body):
        raise MalformedBody(
            f"the body holds {len(body) - offset} bytes beyond the tensors that it announces"
        )
    return arrays


def _read_outputs(
    document: dict[str, Any], outputs: Sequence[TensorSpec], binary: bool
) -> dict[str, bool]:
    """Names of the wanted outputs, all where none are listed, and whether they go as binary.

    As in Triton, `binary_data_output` (`binary` here) does not speak for listed outputs.
    """
    items = document.get("outputs")
    if items is None or items == []:
        return {spec.name: binary for spec in outputs}
    if type(items) is not list:
        raise MalformedBody(f"outputs: must be a list, {told(items)}", "outputs")
    specs = {spec.name: spec for spec in outputs}
    wanted: dict[str, bool] = {}
    for index, item in enumerate(items):
        place = f"outputs[{index}]."
        spec = _find(item, specs, wanted, place, _OUTPUT_KEYS)
        parameters = read_parameters(item, place)
        form = parameters.get("binary_data", False)
        if type(form) is not bool:
            raise MalformedBody(
                f"{place}parameters.binary_data: must be a boolean, {told(form)}", spec.name
            )
        refuse_unserved(parameters, spec.name)
        wanted[spec.name] = form
    return wanted


def _find(
    item: Any,
    specs: Mapping[str, TensorSpec],
    seen: Mapping[str, object],
    place: str,
    keys: frozenset[str],
) -> TensorSpec:
    """The spec that an item of `inputs` or `outputs` names, where it was not named before."""
    if type(item) is not dict:
        raise MalformedBody(f"{place[:-1]}: must be an object, {told(item)}")
    name = item.get("name")
    if type(name) is not str:
        raise MalformedBody(f"{place}name: must be text, {told(name)}")
    spec = specs.get(name)
    if spec is None:
        raise InvalidInput(
            f"{place}name: {name[:100]!r} is unknown; there are {', '.join(specs)}", name[:100]
        )
    if name in seen:
        raise InvalidInput(f"{place}name: {name!r} is given twice", name)
    _refuse_unknown(item, keys, place[:-1])
    return spec


def _refuse_unknown(table: dict[str, Any], keys: frozenset[str], place: str) -> None:
    if keys.issuperset(table):
        return
    unknown = next(key for key in table if key not in keys)
    raise MalformedBody(f"{place}: unknown {unknown[:100]!r}; known: {', '.join(sorted(keys))}")

"""Tensors of the V2 protocol as a client sends and reads them; only numpy and orjson.

A body is a JSON object, and after it, with nothing between, the bytes of its tensors: row-major,
little-endian. What comes back is read strictly: names, datatypes and sizes must fit to the byte.
Sources: the Open Inference Protocol's REST text and Triton's binary tensor data extension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from serve.client_errors import BadAnswer, InvalidInput

if TYPE_CHECKING:  # the package itself would bring onnxruntime with it
    from artifact.arrays import Array

HEADER_LENGTH = "Inference-Header-Content-Length"
# The protocol's names, and how the elements lie on the wire.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype.name: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """An answer: `prediction["forecast"]` is the output of that name.

    `outputs` maps names to arrays, which are the caller's own (writable); iteration gives the
    names. `artifact` is the id of the artifact that answered, None from a service that does not
    say; `version` is the model's, None likewise.
    """

    outputs: dict[str, Array]
    model: str
    version: str | None
    artifact: str | None
    request_id: str

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; there are {', '.join(self.outputs)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)


def encode_inputs(inputs: Mapping[str, Array], timeout: float) -> tuple[int, bytes]:
    """A request's body, and how many of its bytes are JSON; all outputs are wanted as binary.

    `timeout` is in seconds. Values are never converted; only the order of bytes and axes in memory
    is. Raises InvalidInput for what is no array of a datatype of the protocol.
    """
    if not inputs:
        raise InvalidInput("no inputs: give at least one array, by its name")
    items: list[dict[str, Any]] = []
    blobs: list[Array] = []
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            text = f"{name}: must be a numpy array, is {type(array).__name__}"
            raise InvalidInput(text, field=name)
        datatype = _NAMES.get(array.dtype.name)
        if datatype is None:
            text = f"{name}: dtype {array.dtype} has no datatype in the V2 protocol; it knows "
            raise InvalidInput(text + ", ".join(_NAMES), field=name)
        blob = np.asarray(array, DATATYPES[datatype], order="C")
        items.append(
            {
                "name": name,
                "shape": array.shape,
                "datatype": datatype,
                "parameters": {"binary_data_size": blob.nbytes},
            }
        )
        blobs.append(blob)
    parameters = {"binary_data_output": True, "timeout": max(1, round(timeout * 1e6))}
    head = orjson.dumps({"inputs": items, "parameters": parameters})
    return len(head), b"".join([head, *(blob.data for blob in blobs if blob.size)])


def decode_prediction(
    headers: Mapping[bytes, bytes], content: bytes, request_id: str
) -> Prediction:
    """The prediction in an answer with status 200; `headers` have names in lower case.

    Raises BadAnswer for anything that is not one, to the byte.
    """
    try:
        return _decode(headers, content, request_id)
    except BadAnswer as error:
        error.status, error.request_id = 200, request_id
        raise


def _decode(headers: Mapping[bytes, bytes], content: bytes, request_id: str) -> Prediction:
    length = headers.get(b"inference-header-content-length")
    offset = len(content) if length is None else _json_size(length, len(content))
    document = read_object(content[:offset])
    model, version = document.get("model_name"), document.get("model_version")
    if not isinstance(model, str) or not isinstance(version, str | None):
        raise BadAnswer("the answer has no proper model_name and model_version")
    items = document.get("outputs")
    if not isinstance(items, list):
        raise BadAnswer("the answer has no list of outputs")
    outputs: dict[str, Array] = {}
    for item in items:
        name, dtype, shape, size = _read_item(item)
        if name in outputs:
            raise BadAnswer(f"output {name!r} comes twice", field=name)
        if offset + size > len(content):
            raise BadAnswer(
                f"{name}: {size} bytes are announced, {len(content) - offset} are left", field=name
            )
        outputs[name] = _copy(content, offset, name, dtype, shape)
        offset += size
    if offset != len(content):
        raise BadAnswer(f"{len(content) - offset} bytes come after the last output")
    artifact = headers.get(b"x-artifact-id")
    return Prediction(
        outputs, model, version, artifact.decode("latin-1") if artifact else None, request_id
    )


def read_object(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`; raises BadAnswer for anything else."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"the answer is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadAnswer("the answer is not a JSON object")
    return document


def _json_size(text: bytes, size: int) -> int:
    if not (text.isdigit() and len(text) <= 19 and int(text) <= size):
        shown = text[:40].decode("latin-1")
        raise BadAnswer(f"{HEADER_LENGTH} {shown!r} is no length within the {size} bytes")
    return int(text)


def _read_item(item: object) -> tuple[str, np.dtype[Any], list[int], int]:
    """Name, dtype, shape and size in bytes that an item of `outputs` announces."""
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(name, str):
        raise BadAnswer("an output has no name")
    datatype, shape = item.get("datatype"), item.get("shape")
    dtype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise BadAnswer(f"{name}: unknown datatype {datatype!r}", field=name)
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise BadAnswer(f"{name}: shape {shape!r} is no list of sizes", field=name)
    parameters = item.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if type(size) is not int:
        raise BadAnswer(f"{name}: did not come as binary data, which was asked for", field=name)
    if size != math.prod(shape) * dtype.itemsize:
        raise BadAnswer(
            f"{name}: {size} bytes are not what shape {shape} of {datatype} takes", field=name
        )
    return name, dtype, shape, size


def _copy(content: bytes, offset: int, name: str, dtype: np.dtype[Any], shape: list[int]) -> Array:
    """The output at `offset` as an array of its own, in this machine's byte order."""
    try:
        view: Array = np.ndarray(shape, dtype, content, offset)
    except (ValueError, OverflowError):  # more axes, or sizes beside a zero, than numpy has
        raise BadAnswer(f"{name}: no array has the shape {shape}", field=name) from None
    if dtype.kind == "b" and view.view(np.uint8).max(initial=0) > 1:
        raise BadAnswer(f"{name}: BOOL data must be bytes 0 or 1", field=name)
    return np.array(view, dtype.newbyteorder("="))

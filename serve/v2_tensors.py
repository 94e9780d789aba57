"""One tensor of a V2 inference request, from JSON values or from the bytes behind the JSON part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from artifact.arrays import Array
from artifact.manifest import Axis, TensorSpec
from serve.errors import InvalidInput, MalformedBody, NotSupported
from serve.formats import decode_lists, word

# The protocol's name and the little-endian dtype of every dtype that a manifest may hold.
DATATYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "float32": ("FP32", np.dtype("<f4")),
    "float64": ("FP64", np.dtype("<f8")),
    "int32": ("INT32", np.dtype("<i4")),
    "int64": ("INT64", np.dtype("<i8")),
    "uint8": ("UINT8", np.dtype("u1")),
    "bool": ("BOOL", np.dtype("?")),
}
_SCALARS = (str, int, float, bool)


def read_tensor(
    item: dict[str, Any], spec: TensorSpec, body: bytes, offset: int, place: str
) -> tuple[Array, int]:
    """The array of one item of `inputs`, and where the next binary one begins in the body.

    The array has the shape that the item says, with the rank and dtype of `spec`; binary data are
    not copied. Raises InvalidInput, MalformedBody or NotSupported.
    """
    shape = _shape(item.get("shape"), spec)
    wanted, dtype = DATATYPES[spec.dtype]
    if item.get("datatype") != wanted:
        raise InvalidInput(
            f"{spec.name}: datatype must be {wanted}, {told(item.get('datatype'))}", spec.name
        )
    parameters = read_parameters(item, place)
    size = parameters.get("binary_data_size")
    if size is None:
        refuse_unserved(parameters, spec.name)
        return _from_json(item, spec, shape), offset
    needed = math.prod(shape) * dtype.itemsize
    if type(size) is not int or size != needed:
        raise InvalidInput(
            f"{spec.name}: binary_data_size must be {needed}, as shape and datatype say, "
            f"{told(size)}",
            spec.name,
        )
    if "data" in item:
        raise InvalidInput(
            f"{spec.name}: has both data and binary_data_size; one of them is wanted", spec.name
        )
    if offset + size > len(body):
        raise InvalidInput(
            f"{spec.name}: binary_data_size is {size}, but only {len(body) - offset} bytes are "
            "left in the body",
            spec.name,
        )
    return view(body, offset, shape, spec), offset + size


def view(body: bytes, offset: int, shape: list[int], spec: TensorSpec) -> Array:
    """The tensor in the body at `offset`, not copied; raises InvalidInput.

    The caller has made sure that its bytes are there.
    """
    dtype = DATATYPES[spec.dtype][1]
    try:
        array: Array = np.ndarray(shape, dtype, body, offset)
    except (ValueError, OverflowError):  # an empty tensor, its other axes beyond numpy
        raise _impossible(spec, shape) from None
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise InvalidInput(f"{spec.name}: BOOL data must be bytes 0 or 1", spec.name)
    return array


def read_parameters(owner: dict[str, Any], place: str) -> dict[str, Any]:
    """The owner's parameters, texts, numbers and booleans by name; raises MalformedBody."""
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise MalformedBody(f"{place}parameters: must be an object, {told(parameters)}")
    for key, value in parameters.items():
        if not isinstance(value, _SCALARS):
            raise MalformedBody(
                f"{place}parameters.{key[:100]}: must be text, a number or a boolean, {told(value)}"
            )
    return parameters


def refuse_unserved(parameters: Iterable[str], name: str) -> None:
    """Raise NotSupported for a tensor's parameter that asks for what is not served."""
    for key in parameters:
        if key == "classification" or key.startswith("shared_memory_"):
            raise NotSupported(f"{name}: parameters.{key[:100]} is not served", name)


def told(value: Any) -> str:
    """`is …`: a JSON value as an error tells it, short."""
    return f"is {value[:40]!r}" if type(value) is str else f"is {word(value)}"


def _shape(shape: Any, spec: TensorSpec) -> list[int]:
    if type(shape) is not list:
        raise InvalidInput(
            f"{spec.name}: shape must be a list of whole numbers, {told(shape)}", spec.name
        )
    for size in shape:
        if type(size) is not int or size < 0:
            raise InvalidInput(
                f"{spec.name}: shape holds {word(size)}; sizes are whole numbers from 0", spec.name
            )
    if len(shape) != len(spec.axes):
        raise InvalidInput(
            f"{spec.name}: shape has {len(shape)} axes; must have {len(spec.axes)}: {spec.layout}",
            spec.name,
        )
    return shape


def _from_json(item: dict[str, Any], spec: TensorSpec, shape: list[int]) -> Array:
    """The tensor in the item's `data`: flat, or nested as its shape says."""
    values = item.get("data")
    if type(values) is not list:
        said = f"data {told(values)}" if "data" in item else "there is neither"
        raise InvalidInput(
            f"{spec.name}: must have a list `data`, or `parameters.binary_data_size`; {said}",
            spec.name,
        )
    if values and type(values[0]) is list:
        array = decode_lists(values, spec, numbers=False)
        if list(array.shape) != shape:
            raise InvalidInput(
                f"{spec.name}: shape says {shape}, data has {list(array.shape)}", spec.name
            )
        return array
    count = math.prod(shape)
    if len(values) != count:
        raise InvalidInput(
            f"{spec.name}: shape {shape} wants {count} values, data has {len(values)}", spec.name
        )
    flat = decode_lists(values, replace(spec, axes=(Axis("value"),)), numbers=False)
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError):  # an empty tensor, its other axes beyond numpy
        raise _impossible(spec, shape) from None


def _impossible(spec: TensorSpec, shape: list[int]) -> InvalidInput:
    return InvalidInput(f"{spec.name}: no tensor has the shape {shape}", spec.name)

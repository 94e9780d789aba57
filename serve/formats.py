"""Bodies in and out: JSON, `.npy` and `.npz` to named arrays and back, strictly.

Nothing is guessed and nothing is coerced: a value of another type than the input's, a ragged list,
a big-endian array or an archive with other names is refused, naming the input and the place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from artifact.arrays import Array, decode_npy, decode_npz, encode_npy, encode_npz
from artifact.manifest import TensorSpec
from serve.errors import InvalidInput, MalformedBody, NotAcceptable
from serve.json_bodies import parse_json
from serve.negotiation import JSON, NPY, NPZ

# What the array made of parsed JSON may be, by the kind of dtype that the input wants.
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
_TYPES: dict[str, frozenset[type]] = {
    "f": frozenset({float, int}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "b": frozenset({bool}),
}
_WORDS = {type(None): "null", bool: "a boolean", str: "text", dict: "an object", list: "a list"}


def decode(
    body: bytes, form: str, inputs: Sequence[TensorSpec], max_bytes: int
) -> dict[str, Array]:
    """The arrays of a body in this form, by input name; shapes are left to `Model.check_inputs`.

    `max_bytes` bounds what an `.npz` inflates to. Raises MalformedBody, InvalidInput,
    BodyTooLarge for JSON of too many lists, or the artifact's InputError.
    """
    if form == JSON:
        return _decode_json(body, {spec.name: spec for spec in inputs})
    if form == NPY:
        return {inputs[0].name: decode_npy(body, inputs[0].name)}
    return decode_npz(body, max_members=len(inputs), max_bytes=max_bytes)


def encode(outputs: Mapping[str, Array], form: str, artifact: str, model: str) -> bytes:
    """The answer in this form; `artifact` and `model` name their source in JSON.

    Raises NotAcceptable for JSON with an output that is not finite: JSON has no such numbers.
    """
    if form == NPY:
        (array,) = outputs.values()
        return encode_npy(array)
    if form == NPZ:
        return encode_npz(outputs)
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotAcceptable(
                f"{name}: holds NaN or infinity, which JSON cannot say; ask with Accept: {NPY} "
                f"or {NPZ}",
                name,
            )
    plain = {name: np.ascontiguousarray(array) for name, array in outputs.items()}
    answer = {"outputs": plain, "artifact": artifact, "model": model}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _decode_json(body: bytes, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    try:
        document = parse_json(body, len(body))
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict) or list(document) != ["inputs"]:
        raise MalformedBody('the body must be {"inputs": {name: nested lists}} and nothing else')
    inputs = document["inputs"]
    if not isinstance(inputs, dict):
        raise MalformedBody(f"inputs: must be an object, is {word(inputs)}", "inputs")
    for name in inputs:
        if name not in specs:
            short = name if len(name) <= 100 else f"{name[:100]}…"
            raise InvalidInput(f"inputs.{short}: unknown; inputs: {', '.join(specs)}", short)
    # numpy takes booleans among numbers for 0 and 1, and blows up on texts of unequal length. A
    # body of numbers alone needs no such look: its only quotation marks, and its only letters of
    # true, false and null, are those of its keys.
    keys = "".join(("inputs", *inputs))
    quotes = 2 * (1 + len(inputs))
    keys_only = _count(body, b'"', quotes) == quotes
    numbers = keys_only and all(
        _count(body, letter.encode(), keys.count(letter)) == keys.count(letter) for letter in "uf"
    )
    tensors = {name: decode_lists(values, specs[name], numbers) for name, values in inputs.items()}
    if not keys_only:
        raise MalformedBody("a key is given twice")
    return tensors


def decode_lists(values: Any, spec: TensorSpec, numbers: bool) -> Array:
    """Nested lists as an array of the input's dtype; raises InvalidInput naming the place.

    `numbers` says that the lists are known to hold numbers alone.
    """
    dtype = np.dtype(spec.dtype)
    if numbers and dtype.kind == "f" and (packed := _pack(values, len(spec.axes))) is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            tensor: Array = packed.astype(dtype, copy=False)
            if np.isfinite(tensor.sum()):  # as infinity would not leave it
                return tensor
    if not (numbers or _holds_only(_TYPES[dtype.kind], values, len(spec.axes))):
        _refuse_fault(values, spec, dtype)
    try:
        array = np.asarray(values)
    except ValueError:  # ragged, or deeper than numpy goes
        array = np.empty((), object)
    if array.size and (array.ndim != len(spec.axes) or array.dtype.kind not in _KINDS[dtype.kind]):
        _refuse_fault(values, spec, dtype)
        array = np.asarray(values, dtype)
    with np.errstate(over="ignore"):
        tensor = array.astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(tensor).all():
        place = "".join(f"[{step}]" for step in np.argwhere(~np.isfinite(tensor))[0])
        raise InvalidInput(f"inputs.{spec.name}{place}: too large for a {spec.dtype}", spec.name)
    if dtype.kind in "iu" and tensor.dtype != array.dtype and (tensor != array).any():
        _refuse_fault(values, spec, dtype)
    return tensor


def _pack(values: Any, rank: int) -> Array | None:
    """Lists of numbers, nested `rank` deep, as float64; None where they are ragged or not so deep.

    Several times as fast as numpy, which looks at every list and number for what it may be.
    """
    shape: list[int] = []
    level = [values]
    for _ in range(rank):
        if set(map(type, level)) != {list}:
            return None
        sizes = set(map(len, level))
        if len(sizes) != 1:
            return None
        shape += sizes
        level = list(chain.from_iterable(level))
    try:
        data = struct.pack(f"{len(level)}d", *level)
    except (struct.error, OverflowError):  # deeper lists, or beyond every float64
        return None
    return np.frombuffer(data, np.float64).reshape(shape)


def _count(body: bytes, byte: bytes, most: int) -> int:
    """How often a byte occurs, counted as far as one more than `most`."""
    found, place = 0, body.find(byte)
    while place >= 0 and found <= most:
        found += 1
        place = body.find(byte, place + 1)
    return found


def _holds_only(types: frozenset[type], values: Any, rank: int) -> bool:
    """Whether lists nested `rank` deep hold values of these types alone."""
    flat = values
    try:
        for _ in range(rank - 1):
            flat = chain.from_iterable(flat)
        return types.issuperset(map(type, flat))
    except TypeError:  # a scalar where a list belongs
        return False


def _refuse_fault(values: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> None:
    """Walk nested lists to the first thing that is wrong; return where nothing is."""
    shape: list[int] = []
    first = values
    while len(shape) < len(spec.axes) and isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    _walk(values, spec, dtype, shape, 0, f"inputs.{spec.name}")


def _walk(
    values: Any, spec: TensorSpec, dtype: np.dtype[Any], shape: list[int], depth: int, place: str
) -> None:
    if type(values) is not list:
        raise InvalidInput(
            f"{place}: {word(values)} where a list over axis {spec.axes[depth].name} is expected: "
            f"{spec.layout}",
            spec.name,
        )
    if len(values) != shape[depth]:
        raise InvalidInput(
            f"{place}: a list of {len(values)}, where the lists before it hold {shape[depth]} "
            f"(axis {spec.axes[depth].name})",
            spec.name,
        )
    if depth + 1 < len(spec.axes):
        for index, value in enumerate(values):
            _walk(value, spec, dtype, shape, depth + 1, f"{place}[{index}]")
        return
    for index in _suspects(values, dtype):
        raise InvalidInput(
            f"{place}[{index}]: {word(values[index])} where a {spec.dtype} is expected", spec.name
        )


def _suspects(values: list[Any], dtype: np.dtype[Any]) -> Iterator[int]:
    """Places of the values in the list that this dtype cannot hold."""
    allowed = _TYPES[dtype.kind]
    if not allowed.issuperset(map(type, values)):
        yield from (index for index, value in enumerate(values) if type(value) not in allowed)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        outside = (not limits.min <= value <= limits.max for value in values)
        yield from (index for index, wrong in enumerate(outside) if wrong)


def word(value: Any) -> str:
    """A JSON value in words, short."""
    return _WORDS.get(type(value), f"the number {value!r}"[:60])

"""Which tensors inside an ONNX file Mouse vs AI scores, and the file with them as its outputs.

Track 2 scores the tensors between the frame and the place where sight joins the body or the policy:
those of nodes before the first one that takes a tensor of `observation_encoder` together with one
of `body_encoder`, `mlp_extractor` or `policy`; where they are fewer than three, the first half of
all. Names and order are those of the public kit SchneiderMarius/mouse-vs-ai-benchmark.

Needs numpy alone, and Python 3.10: the file also travels inside the ingestion program.
Field numbers are those of onnx.proto3 (IR version 10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FRAME = (1, 86, 155)  # color, height, width
FEWEST = 3
MOST = 200
RANKS = (2, 3, 4)
FLOATS = ("tensor(float)", "tensor(float16)")
SIGHT = "observation_encoder"
ELSE = ("body_encoder", "body_endoder", "mlp_extractor", "policy")  # the kit's spelling, too
IGNORED = (
    *("version_number", "memory_size", "continuous_action", "_continuous_distribution"),
    *("Mul_output_0", "Add_output_0"),
)
_DTYPES = {"float": "f4", "float16": "f2", "double": "f8", "int32": "i4", "int64": "i8"}
_DTYPES |= {"bool": "?", "uint8": "u1", "int8": "i1"}


@dataclass(frozen=True)
class Tensors:
    """Names in a graph: its `outputs`, what its nodes make `inside`, in order.

    `before` are those of nodes before the `join`, all of them where no node `joins`.
    """

    outputs: tuple[str, ...]
    inside: tuple[str, ...]
    before: frozenset[str]
    joins: bool


def tensors(model: bytes) -> Tensors:
    """The tensors of a serialised ModelProto; raises ValueError where it is cut short."""
    outputs: list[str] = []
    inside: list[str] = []
    before: list[str] = []
    joins = False
    for graph in _messages(memoryview(model), 7):
        outputs += [_texts(value, 1)[0] for value in _messages(graph, 12)]
        for node in _messages(graph, 1):
            joins = joins or _is_join(_texts(node, 1))
            made = [name for name in _texts(node, 2) if name]
            inside += made
            before += [] if joins else made
    return Tensors(tuple(outputs), tuple(inside), frozenset(before), joins)


def _is_join(names: Sequence[str]) -> bool:
    return any(SIGHT in name for name in names) and any(
        part in name for name in names for part in ELSE
    )


def exposed(model: bytes, names: Sequence[str]) -> bytes:
    """The model with the tensors `names`, none of them an output yet, as further outputs.

    A message that follows another of its kind is merged into it, so that the new outputs stand in a
    second graph behind the first. Their types are left to the runtime.
    """
    outputs = b"".join(_field(12, _field(1, name.encode())) for name in names)
    return model + _field(7, outputs) if names else model


def everything(model: bytes, found: Tensors) -> bytes:
    """The model with all that its nodes make as outputs."""
    return exposed(model, [name for name in found.inside if name not in found.outputs])


def chosen(session: Any, found: Tensors) -> tuple[list[str], dict[str, int]]:
    """Layers that are scored, in order, and the bytes of a frame of each.

    `session` is an ONNX Runtime session of `everything`. A layer is a float tensor of 2 to 4 axes,
    the first of them the batch, whose name the kit does not leave out. The session runs twice, on
    two and on three black frames, to tell the batch from an axis that happens to have its size.
    """
    named = [
        entry.name
        for entry in session.get_outputs()
        if entry.type in FLOATS and not any(part in entry.name for part in IGNORED)
    ]
    sizes: dict[str, int] = {}
    for count in (2, 3) if named else ():
        arrays = session.run(named, feed(session, np.zeros((count, *FRAME), np.float32)))
        sizes = {
            name: array.nbytes // count
            for name, array in zip(named, arrays, strict=True)
            if array.ndim in RANKS and len(array) == count and (count == 2 or name in sizes)
        }
    # As the kit lists them: the graph's own outputs first.
    order = dict.fromkeys([*found.outputs, *found.inside])
    valid = [name for name in order if name in sizes]
    layers = [name for name in valid if name in found.before]
    if len(layers) < FEWEST:
        layers = valid[: max(1, len(valid) // 2)]
    return layers, {name: sizes[name] for name in layers}


def feed(session: Any, frames: Array) -> dict[str, Array]:
    """Frames (batch, 1, 86, 155) for the first input, as float32; zeros for all others."""
    first, *others = session.get_inputs()
    arrays = {first.name: np.ascontiguousarray(frames, dtype=np.float32)}
    for entry in others:
        sizes = [size if isinstance(size, int) else 1 for size in entry.shape]
        if entry.shape and not isinstance(entry.shape[0], int):
            sizes[0] = len(frames)
        kind = entry.type[len("tensor(") : -1]
        if kind not in _DTYPES:
            raise ValueError(f"input {entry.name} is {kind}; numbers and booleans are fed")
        arrays[entry.name] = np.zeros(sizes, _DTYPES[kind])
    return arrays


def input_problems(session: Any) -> list[str]:
    """What is wrong with the first input of a session, in words; empty when it takes frames."""
    first = session.get_inputs()[0]
    wanted = f"float32 (batch, {', '.join(map(str, FRAME))})"
    shape = list(first.shape)
    if first.type != FLOATS[0]:
        return [f"the first input, {first.name}, is {first.type}; it must be {wanted}"]
    fits = len(shape) == 4 and all(
        size == want or not isinstance(size, int)
        for size, want in zip(shape[1:], FRAME, strict=True)
    )
    if not fits:
        return [f"the first input, {first.name}, has shape {shape}; it must be {wanted}"]
    if isinstance(shape[0], int):
        return [
            f"the first input, {first.name}, takes batches of {shape[0]} alone: export it with a "
            "dynamic batch axis"
        ]
    return []


def stored_name(place: int, name: str) -> str:
    """The key of a layer in a file of arrays: its place, then its name without odd characters."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "." for c in name)
    return f"{place:03d}.{plain.strip('.')}"


def _field(number: int, data: bytes) -> bytes:
    return _written(number << 3 | 2) + _written(len(data)) + data


def _written(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _texts(message: memoryview, wanted: int) -> list[str]:
    return [bytes(value).decode("utf-8", "replace") for value in _messages(message, wanted)]


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """Every field of that number whose wire type is bytes."""
    position = 0
    while position < len(data):
        tag, position = _read(data, position)
        wire = tag & 7
        if wire == 0:
            _, position = _read(data, position)
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"is no ONNX file: wire type {wire}")
        size = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            size, position = _read(data, position)
        if size > len(data) - position:
            raise ValueError("is cut short, or no ONNX file")
        if wire == 2 and tag >> 3 == wanted:
            yield data[position : position + size]
        position += size


def _read(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("is cut short, or no ONNX file")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("is no ONNX file: a number of more than ten bytes")

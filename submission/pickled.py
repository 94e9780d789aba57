"""Pickled dictionaries of arrays, written and read without pickle.

Some challenges take one `.npy` file whose single object is a dict: of dicts of arrays (Algonauts
2025: subject -> episode -> float32 (sample, parcel)), or of counts (its target sample numbers).
`encode` writes the pickle opcodes for such a value itself, so that equal values give equal bytes;
`decode` follows the few opcodes that numpy 1.x and 2.x write (protocols 2 to 5) and builds arrays
from bytes: it imports nothing and calls nothing that a file names.

Needs numpy alone, and Python 3.10: the file also travels inside scoring programs.
Source: the opcodes are those of Python's `pickletools`, the array's state that of
`numpy.ndarray.__reduce__`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MAX_BYTES = 1 << 31
MAX_DEPTH = 8
MAX_ENTRIES = 1_000_000
MAX_OPCODES = 4_000_000
MAX_RANK = 8
_MAGIC = b"\x93NUMPY\x01\x00"
_MAX_HEADER = 4096
_HEADER = re.compile(
    rb"\{'descr': '\|?O', 'fortran_order': (True|False), 'shape': \((1(, 1)*,?)?\),? *\} *\n"
)
_ELEMENTS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
_OBJECTS = frozenset({"O", "O4", "O8"})


class PickledError(ValueError):
    """Bytes that are no pickled dictionary of arrays, or a value that cannot be stored as one."""


def encode(mapping: Mapping[str, Any]) -> bytes:
    """`mapping` as `.npy` bytes that `numpy.load(..., allow_pickle=True).item()` reads.

    Keys are text; values are arrays of numbers or booleans, ints, floats, text or mappings of such.
    Keys are sorted, arrays stored in C order, little-endian: equal mappings give equal bytes.
    Raises PickledError for anything else.
    """
    if not isinstance(mapping, Mapping):
        raise PickledError(f"a {type(mapping).__name__} is no mapping of names to arrays")
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    head += b" " * (-(len(_MAGIC) + 2 + len(head) + 1) % 64) + b"\n"
    parts = [_MAGIC, struct.pack("<H", len(head)), head, b"\x80\x03", _NEW_ARRAY]
    parts += [b"(K\x01)", _dtype("O8", "|", 63), b"\x89]"]
    _emit(mapping, parts, "", 0)
    parts.append(b"atb.")
    return b"".join(parts)


_NEW_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def _dtype(text: str, order: str, flags: int) -> bytes:
    call = b"cnumpy\ndtype\n" + _text(text) + b"\x89\x88\x87R"
    state = b"(K\x03" + _text(order) + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K" + bytes([flags])
    return call + state + b"tb"


def _text(text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise PickledError("a name or text holds half a surrogate pair; Unicode text is") from None
    return b"X" + struct.pack("<I", len(data)) + data


def _emit(value: Any, parts: list[bytes], where: str, depth: int) -> None:
    """Append the opcodes that leave `value` on the stack."""
    if depth > MAX_DEPTH:
        raise PickledError(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        if wrong := {type(key).__name__ for key in value if type(key) is not str}:
            raise PickledError(f"{where or 'mapping'}: a key is a {min(wrong)}, not text")
        parts.append(b"}(")
        for key in sorted(value):
            parts.append(_text(key))
            _emit(value[key], parts, f"{where}/{key}" if where else key, depth + 1)
        parts.append(b"u")
    elif isinstance(value, np.ndarray):
        parts.extend(_array(value, where))
    elif isinstance(value, (bool, np.bool_)):
        parts.append(b"\x88" if value else b"\x89")
    elif isinstance(value, (int, np.integer)):
        parts.append(_integer(int(value), where))
    elif isinstance(value, (float, np.floating)):
        parts.append(b"G" + struct.pack(">d", float(value)))
    elif isinstance(value, str):
        parts.append(_text(value))
    else:
        raise PickledError(f"{where}: a {type(value).__name__} is neither array, number nor text")


def _integer(value: int, where: str) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    if not -(1 << 63) <= value < 1 << 63:
        raise PickledError(f"{where}: {value.bit_length()} bits; whole numbers have up to 63")
    return b"\x8a\x08" + struct.pack("<q", value)


def _array(array: np.ndarray[Any, Any], where: str) -> list[bytes]:
    kind = array.dtype.str[1:]
    if kind not in _ELEMENTS:
        raise PickledError(f"{where}: an array of {array.dtype}; numbers and booleans are stored")
    if array.nbytes >= 1 << 32 or array.ndim > MAX_RANK:
        raise PickledError(
            f"{where}: shape {array.shape}; at most {MAX_RANK} axes and 4 GiB are stored"
        )
    order = "|" if array.dtype.itemsize == 1 else "<"
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    sizes = b"(" + b"".join(_integer(size, where) for size in array.shape) + b"t"
    return [
        *(_NEW_ARRAY, b"(K\x01", sizes, _dtype(kind, order, 0), b"\x89"),
        *(b"B", struct.pack("<I", len(data)), data, b"tb"),
    ]


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The dict in `.npy` bytes that `numpy.save` wrote: nested dicts of arrays, numbers and text.

    Arrays are copies in native byte order, numpy's scalars become Python's. `max_bytes` bounds the
    file, what is allocated for it, and the arrays' sizes together. Raises PickledError saying what
    was found for anything that is no such dict, without having run anything.
    """
    if len(data) > max_bytes:
        raise PickledError(f"{len(data)} bytes; up to {max_bytes} are read")
    found = _Machine(data, _payload(data), max_bytes).run()
    content = found.content if isinstance(found, _Pending) else None
    if content is None or len(content) != 1 or not isinstance(content[0], dict):
        raise PickledError(f"holds a {_kind(found)}; must be one dict, as numpy.save writes it")
    return _Plain(max_bytes).mapping(content[0], 0)


def _payload(data: bytes) -> int:
    """Where the pickle begins; raises PickledError for anything but a header of one object."""
    if data[:6] != _MAGIC[:6]:
        raise PickledError("is no .npy file: numpy.save writes one")
    if data[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise PickledError("is an .npy file of an unknown version; 1, 2 and 3 are known")
    form = "<H" if data[6] == 1 else "<I"
    start = 8 + struct.calcsize(form)
    if len(data) < start:
        raise PickledError("ends inside the .npy header")
    size: int = struct.unpack(form, data[8:start])[0]
    header = data[start : start + min(size, _MAX_HEADER)]
    if len(header) < size:
        raise PickledError("ends inside the .npy header, or has an endless one")
    if not _HEADER.fullmatch(header):
        raise PickledError("is an .npy file of something else than one pickled object")
    return start + size


class _Name:
    """A name that a pickle asks for; it stays a name."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Type:
    """An element type, its byte order set by a later BUILD."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"


class _Pending:
    """An array of `_reconstruct`, filled by a later BUILD: with numbers, or with objects."""

    def __init__(self) -> None:
        self.array: np.ndarray[Any, Any] | None = None
        self.content: list[Any] | None = None


class _Mark:
    """The opcode MARK on the stack."""


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_NAMES = {
    **{f"{module}._reconstruct": "_reconstruct" for module in _MULTIARRAY},
    **{f"{module}.scalar": "scalar" for module in _MULTIARRAY},
    **{f"{module}._frombuffer": "_frombuffer" for module in _NUMERIC},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",
    "builtins.bytes": "bytes",
}


class _Machine:
    """The stack machine of pickle, for the opcodes of dicts and arrays alone."""

    def __init__(self, data: bytes, position: int, max_bytes: int) -> None:
        # A text of protocol 2 exists as text, as bytes and as an array.
        self.data, self.position, self.left = data, position, 4 * max_bytes
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What STOP leaves; raises PickledError."""
        if self.take(1) != b"\x80" or self.take(1)[0] not in (2, 3, 4, 5):
            raise PickledError("is no pickle of protocol 2, 3, 4 or 5")
        for _ in range(MAX_OPCODES):
            code = self.take(1)[0]
            if code == ord("."):
                break
            self.step(code)
        else:
            raise PickledError(f"more than {MAX_OPCODES} opcodes")
        if self.position != len(self.data):
            raise PickledError(f"{len(self.data) - self.position} bytes follow the pickle's end")
        return self.pop()

    def step(self, code: int) -> None:
        """Follow one opcode."""
        if code not in _STEPS:
            raise PickledError(f"opcode {bytes([code])!r} at byte {self.position - 1}: refused")
        _STEPS[code](self)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.position:
            raise PickledError("ends inside the pickle: the file is cut off or damaged")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def spend(self, size: int) -> None:
        """Count bytes about to be allocated; raises PickledError beyond the bound."""
        self.left -= size
        if self.left < 0:
            raise PickledError("unpacks to more bytes than are allowed")

    def blob(self, size: int) -> bytes:
        self.spend(min(size, len(self.data)))
        return self.take(size)

    def text(self, size: int) -> str:
        try:
            return self.blob(size).decode("utf-8")
        except UnicodeDecodeError:
            raise PickledError("a text is not UTF-8: the file is damaged") from None

    def top(self) -> Any:
        if not self.stack:
            raise PickledError("the pickle takes more than it has put down")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        if isinstance(value, _Mark):
            raise PickledError("a MARK of the pickle is used as a value")
        self.stack.pop()
        return value

    def pops(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> Any:
        if index not in self.memo:
            raise PickledError(f"asks for object {index} of its memo, which is not there")
        return self.memo[index]

    def marked(self) -> list[Any]:
        """Everything back to the last MARK."""
        values = []
        while not isinstance(self.top(), _Mark):
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise PickledError(f"appends to a {_kind(target)}")
        target.extend(values)

    def fill(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise PickledError(f"sets items of a {_kind(target)}")
        if len(values) % 2:
            raise PickledError("a key of a dict has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str:
                raise PickledError(f"a key of a dict is a {_kind(key)}; must be text")
            target[key] = value

    def name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in _NAMES:
            raise PickledError(f"asks for {text[:120]}: refused; such a file holds arrays alone")
        self.stack.append(_Name(_NAMES[text]))

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 200)
        if end < 0:
            raise PickledError("ends inside a name, or has an endless one")
        text = self.take(end - self.position).decode("utf-8", "replace")
        self.position += 1
        return text

    def long(self) -> None:
        size = self.take(1)[0]
        if size > 8:
            raise PickledError(f"a whole number of {size} bytes; up to 8 are read")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def global_name(self) -> None:
        module = self.line()
        self.name(module, self.line())

    def stack_name(self) -> None:
        module, name = self.pops(2)
        if type(module) is not str or type(name) is not str:
            raise PickledError("asks for something whose name is no text")
        self.name(module, name)

    def reduce(self) -> None:
        """A call in pickle's words: the few that make arrays are carried out here."""
        function, arguments = self.pops(2)
        call = _CALLS.get(function.text) if isinstance(function, _Name) else None
        if call is None or not isinstance(arguments, tuple):
            raise PickledError(f"calls a {_kind(function)}: refused")
        self.push(call(self, arguments))

    def reconstruct(self, arguments: tuple[Any, ...]) -> _Pending:
        kind = arguments[0] if arguments else None
        if not isinstance(kind, _Name) or kind.text != "ndarray":
            raise PickledError("reconstructs something else than an array: refused")
        return _Pending()

    def element_type(self, arguments: tuple[Any, ...]) -> _Type:
        code = arguments[0] if arguments else None
        if type(code) is not str or code not in _ELEMENTS | _OBJECTS:
            shown = code[:20] if type(code) is str else _kind(code)
            raise PickledError(f"an array of {shown}; numbers and booleans are read")
        return _Type(code)

    def scalar(self, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 2 or type(arguments[1]) is not bytes:
            raise PickledError("a number without its bytes")
        return self.numbers(arguments[1], arguments[0], (), "C").item()

    def from_buffer(self, arguments: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        if len(arguments) != 4 or type(arguments[0]) is not bytes:
            raise PickledError("an array without its bytes")
        return self.numbers(*arguments)

    def encoded(self, arguments: tuple[Any, ...]) -> bytes:
        """Bytes, as protocol 2 writes them."""
        if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] != "latin1":
            raise PickledError("encodes something else than the bytes of an array: refused")
        self.spend(len(arguments[0]))
        try:
            return arguments[0].encode("latin1")
        except UnicodeEncodeError:
            raise PickledError("the bytes of an array are no bytes: damaged") from None

    def no_bytes(self, arguments: tuple[Any, ...]) -> bytes:
        if arguments:
            raise PickledError("makes bytes of something: refused")
        return b""

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, _Type):
            self.build_type(target, state)
        elif isinstance(target, _Pending) and target.array is None and target.content is None:
            self.build_array(target, state)
        else:
            raise PickledError(f"sets the state of a {_kind(target)}: refused")

    def build_type(self, target: _Type, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) >= 8 else None
        if type(order) is not str or order not in {"<", ">", "|", "="}:
            raise PickledError("an element type with an unknown state")
        if any(part is not None for part in state[2:5]):
            raise PickledError("an element type with fields; numbers and booleans are read")
        target.order = {"|": "<", "=": "<"}.get(order, order)

    def build_array(self, target: _Pending, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Type):
            raise PickledError("an array with an unknown state")
        _, shape, element, fortran, content = state
        if element.code in _OBJECTS:
            if not isinstance(content, list):
                raise PickledError("an array of objects without its objects")
            target.content = content
        else:
            target.array = self.numbers(content, element, shape, "F" if fortran is True else "C")

    def numbers(self, data: Any, element: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
        """The array that `data` holds, copied; sizes are compared before anything is allocated."""
        if type(data) is not bytes or not isinstance(element, _Type) or element.code in _OBJECTS:
            raise PickledError("an array without its bytes or element type")
        if not isinstance(shape, tuple) or any(type(s) is not int or s < 0 for s in shape):
            raise PickledError("an array whose shape is no tuple of sizes")
        if len(shape) > MAX_RANK or max(shape, default=0) >= 1 << 48:
            raise PickledError(f"an array of more than {MAX_RANK} axes, or with an endless one")
        dtype = np.dtype(element.order + element.code)
        wanted = math.prod(shape) * dtype.itemsize
        if wanted != len(data):
            raise PickledError(
                f"an array of shape {shape} and type {dtype.name} needs {wanted} bytes, has "
                f"{len(data)}"
            )
        self.spend(wanted)
        flat = np.frombuffer(data, dtype)
        if dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
            raise PickledError("booleans other than the bytes 0 and 1: damaged")
        array = flat.astype(dtype.newbyteorder("="))
        return array.reshape(shape, order="F" if type(order) is str and order == "F" else "C")


_STEPS: dict[int, Callable[[_Machine], Any]] = {
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("J"): lambda machine: machine.push(machine.number("<i")),
    ord("K"): lambda machine: machine.push(machine.number("<B")),
    ord("M"): lambda machine: machine.push(machine.number("<H")),
    0x8A: _Machine.long,
    ord("G"): lambda machine: machine.push(machine.number(">d")),
    ord("X"): lambda machine: machine.push(machine.text(machine.number("<I"))),
    0x8C: lambda machine: machine.push(machine.text(machine.number("<B"))),
    0x8D: lambda machine: machine.push(machine.text(machine.number("<Q"))),
    ord("B"): lambda machine: machine.push(machine.blob(machine.number("<I"))),
    ord("C"): lambda machine: machine.push(machine.blob(machine.number("<B"))),
    0x8E: lambda machine: machine.push(machine.blob(machine.number("<Q"))),
    0x96: lambda machine: machine.push(machine.blob(machine.number("<Q"))),
    ord("("): lambda machine: machine.push(_Mark()),
    ord(")"): lambda machine: machine.push(()),
    0x85: lambda machine: machine.push(tuple(machine.pops(1))),
    0x86: lambda machine: machine.push(tuple(machine.pops(2))),
    0x87: lambda machine: machine.push(tuple(machine.pops(3))),
    ord("t"): lambda machine: machine.push(tuple(machine.marked())),
    ord("]"): lambda machine: machine.push([]),
    ord("a"): lambda machine: machine.extend(machine.pops(1)),
    ord("e"): lambda machine: machine.extend(machine.marked()),
    ord("}"): lambda machine: machine.push({}),
    ord("s"): lambda machine: machine.fill(machine.pops(2)),
    ord("u"): lambda machine: machine.fill(machine.marked()),
    ord("q"): lambda machine: machine.remember(machine.number("<B")),
    ord("r"): lambda machine: machine.remember(machine.number("<I")),
    0x94: lambda machine: machine.remember(len(machine.memo)),
    ord("h"): lambda machine: machine.push(machine.recall(machine.number("<B"))),
    ord("j"): lambda machine: machine.push(machine.recall(machine.number("<I"))),
    0x95: lambda machine: machine.take(8),  # a frame's length
    0x93: _Machine.stack_name,
    ord("c"): _Machine.global_name,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
_CALLS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "_reconstruct": _Machine.reconstruct,
    "dtype": _Machine.element_type,
    "scalar": _Machine.scalar,
    "_frombuffer": _Machine.from_buffer,
    "encode": _Machine.encoded,
    "bytes": _Machine.no_bytes,
}


class _Plain:
    """Copies what was read into plain dicts, bounded also where a file shares its parts."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes, self.entries = max_bytes, MAX_ENTRIES

    def mapping(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise PickledError(f"nested deeper than {MAX_DEPTH}")
        return {key: self.copy(inner, depth) for key, inner in value.items()}

    def copy(self, value: Any, depth: int) -> Any:
        self.entries -= 1
        if self.entries < 0:
            raise PickledError(f"more than {MAX_ENTRIES} entries")
        if isinstance(value, dict):
            return self.mapping(value, depth + 1)
        if isinstance(value, _Pending) and value.array is not None:
            value = value.array
        if isinstance(value, np.ndarray):
            self.bytes -= value.nbytes
            if self.bytes < 0:
                raise PickledError("unpacks to more bytes than are allowed")
            return value
        if type(value) in (int, float, bool, str):
            return value
        raise PickledError(f"holds a {_kind(value)}; dicts, arrays, numbers and text are read")


def _kind(value: Any) -> str:
    """What `value` is, in a reader's words."""
    names = {_Pending: "numpy array of objects", _Name: "name", _Type: "type", type(None): "None"}
    return names.get(type(value), type(value).__name__)

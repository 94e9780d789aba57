"""A small bounded reader of the ONNX wire format (protocol buffers), standard library only.

It answers what must be known before a graph is handed to a runtime: operator domains, operators,
external data, subgraphs, functions, sizes of initializers, names of inputs and outputs. Field
numbers are those of onnx.proto3 (IR version 10).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from artifact.errors import ExternalDataError, GraphError, OperatorDomainError

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
RANDOM_OPERATORS = frozenset(
    {
        "Bernoulli",
        "Dropout in training",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
MAX_DEPTH = 16
MAX_NODES = 200_000
_EXTERNAL = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class GraphSummary:
    """What a graph holds; `opsets` maps operator domains to versions."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    operators: dict[str, int] = field(default_factory=dict)
    node_count: int = 0
    subgraph_count: int = 0
    function_count: int = 0
    initializer_count: int = 0
    initializer_bytes: int = 0
    external_data: list[str] = field(default_factory=list)
    metadata_count: int = 0
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def summarize(model: bytes) -> GraphSummary:
    """Walk a serialised ModelProto; raises GraphError where it is cut short, malformed or deep."""
    summary = GraphSummary()
    seen_graph = False
    for number, wire, value in _fields(memoryview(model)):
        if number == 1:
            summary.ir_version = _number(wire, value, "ir_version")
        elif number == 7:
            _walk_graph(_message(wire, value, "graph"), summary, depth=0)
            seen_graph = True
        elif number == 8:
            domain, version = _opset(_message(wire, value, "opset_import"))
            summary.opsets[domain] = version
        elif number == 14:
            summary.metadata_count += 1
        elif number == 20:
            raise GraphError("model: holds training_info; an inference graph is wanted")
        elif number == 25:
            summary.function_count += 1
            _walk_function(_message(wire, value, "function"), summary)
    if not seen_graph:
        raise GraphError("model: holds no graph (cut short, or not ONNX)")
    return summary


def check(model: bytes) -> GraphSummary:
    """Summarise a graph and refuse what no artifact may hold.

    Raises OperatorDomainError for a foreign operator domain, ExternalDataError for weights outside
    the file, GraphError for random operators and for a malformed graph.
    """
    summary = summarize(model)
    if foreign := sorted(summary.domains - ALLOWED_DOMAINS):
        known = ", ".join(repr(domain) for domain in sorted(ALLOWED_DOMAINS))
        raise OperatorDomainError(f"operator domains {', '.join(foreign)}; allowed: {known}")
    if summary.external_data:
        names = ", ".join(summary.external_data[:3])
        raise ExternalDataError(f"external data of {names}; weights must be inline")
    if random := sorted(RANDOM_OPERATORS & set(summary.operators)):
        raise GraphError(f"random operators {', '.join(random)}; noise must be an input")
    return summary


def _walk_graph(graph: memoryview, summary: GraphSummary, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise GraphError(f"graph: subgraphs nest deeper than {MAX_DEPTH}")
    for number, wire, value in _fields(graph):
        if number == 1:
            _walk_node(_message(wire, value, "node"), summary, depth)
        elif number == 5:
            _walk_tensor(_message(wire, value, "initializer"), summary)
        elif number == 15:
            _walk_sparse(_message(wire, value, "sparse_initializer"), summary)
        elif number in (11, 12) and depth == 0:
            name = _first_text(_message(wire, value, "value_info"), 1)
            (summary.inputs if number == 11 else summary.outputs).append(name)


def _walk_node(node: memoryview, summary: GraphSummary, depth: int) -> None:
    summary.node_count += 1
    if summary.node_count > MAX_NODES:
        raise GraphError(f"graph: more than {MAX_NODES} nodes")
    operator, domain, inputs = "", "", 0
    for number, wire, value in _fields(node):
        if number == 1:
            inputs += 1
        elif number == 4:
            operator = _text(wire, value, "op_type")
        elif number == 7:
            domain = _text(wire, value, "domain")
        elif number == 5:
            _walk_attribute(_message(wire, value, "attribute"), summary, depth)
    if operator == "Dropout" and inputs > 2:  # the third input is training_mode
        operator = "Dropout in training"
    summary.domains.add(domain)
    summary.operators[operator] = summary.operators.get(operator, 0) + 1


def _walk_attribute(attribute: memoryview, summary: GraphSummary, depth: int) -> None:
    for number, wire, value in _fields(attribute):
        if number in (5, 10):
            _walk_tensor(_message(wire, value, "attribute tensor"), summary)
        elif number in (22, 23):
            _walk_sparse(_message(wire, value, "attribute sparse tensor"), summary)
        elif number in (6, 11):
            summary.subgraph_count += 1
            _walk_graph(_message(wire, value, "subgraph"), summary, depth + 1)


def _walk_function(function: memoryview, summary: GraphSummary) -> None:
    for number, wire, value in _fields(function):
        if number == 7:
            _walk_node(_message(wire, value, "function node"), summary, depth=1)
        elif number == 11:
            _walk_attribute(_message(wire, value, "function attribute"), summary, depth=1)


def _walk_tensor(tensor: memoryview, summary: GraphSummary) -> None:
    name, external = "", False
    for number, wire, value in _fields(tensor):
        if number == 8:
            name = _text(wire, value, "tensor name")
        elif number == 13 or (number == 14 and _number(wire, value, "location") == _EXTERNAL):
            external = True
        elif wire == _BYTES:
            summary.initializer_bytes += len(_message(wire, value, "tensor data"))
    summary.initializer_count += 1
    if external:
        summary.external_data.append(name or "(unnamed)")


def _walk_sparse(sparse: memoryview, summary: GraphSummary) -> None:
    for number, wire, value in _fields(sparse):
        if number in (1, 2):
            _walk_tensor(_message(wire, value, "sparse tensor"), summary)


def _opset(message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, wire, value in _fields(message):
        if number == 1:
            domain = _text(wire, value, "opset domain")
        elif number == 2:
            version = _number(wire, value, "opset version")
    return domain, version


def _first_text(message: memoryview, wanted: int) -> str:
    for number, wire, value in _fields(message):
        if number == wanted:
            return _text(wire, value, "name")
    return ""


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Field number, wire type and value of each field of one message."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise GraphError("graph: malformed (field number 0)")
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise GraphError(f"graph: malformed (wire type {wire})")
        if size > end - position:
            raise GraphError("graph: cut short (a field is longer than the file)")
        yield number, wire, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise GraphError("graph: cut short (inside a number)")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise GraphError("graph: malformed (a number of more than ten bytes)")


def _message(wire: int, value: int | memoryview, what: str) -> memoryview:
    if wire != _BYTES or isinstance(value, int):
        raise GraphError(f"graph: malformed ({what} has wire type {wire})")
    return value


def _text(wire: int, value: int | memoryview, what: str) -> str:
    try:
        return bytes(_message(wire, value, what)).decode("utf-8")
    except UnicodeDecodeError:
        raise GraphError(f"graph: malformed ({what} is no UTF-8)") from None


def _number(wire: int, value: int | memoryview, what: str) -> int:
    if wire != _VARINT or not isinstance(value, int):
        raise GraphError(f"graph: malformed ({what} has wire type {wire})")
    return value

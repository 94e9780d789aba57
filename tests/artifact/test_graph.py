from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import decoder_graph, forecaster_graph

from artifact import graph
from artifact.errors import ExternalDataError, GraphError, OperatorDomainError


def with_branches() -> onnx.ModelProto:
    """A graph with an If, whose branches hold an initializer and a constant."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    constant = numpy_helper.from_array(np.zeros(2, np.float32), "c")
    then = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "then", [], [value], [weight]
    )
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=constant)], "else", [], [value]
    )
    node = helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    return helper.make_model(
        helper.make_graph([node], "g", [flag], [value]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


GRAPHS = {"forecaster": forecaster_graph(), "decoder": decoder_graph(), "if": with_branches()}


def nodes(body: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in body.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_summary_agrees_with_onnx(name: str) -> None:
    model = GRAPHS[name]
    summary = graph.check(model.SerializeToString())
    found = list(nodes(model.graph))
    assert summary.ir_version == model.ir_version
    assert summary.opsets == {entry.domain: entry.version for entry in model.opset_import}
    assert summary.node_count == len(found)
    assert set(summary.operators) == {node.op_type for node in found}
    assert summary.domains == {node.domain for node in found}
    assert summary.inputs == [value.name for value in model.graph.input]
    assert summary.outputs == [value.name for value in model.graph.output]
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert summary.initializer_bytes >= stored
    assert summary.subgraph_count == (2 if name == "if" else 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_cut_anywhere_raises_only_graph_errors(name: str) -> None:
    data = GRAPHS[name].SerializeToString()
    for size in range(0, len(data), max(1, len(data) // 400)):
        try:
            graph.summarize(data[:size])
        except GraphError:
            continue
        assert onnx.load_from_string(data[:size]).graph.node, size


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_graph_raises_only_graph_errors(data: st.DataObject) -> None:
    raw = bytearray(GRAPHS[data.draw(st.sampled_from(sorted(GRAPHS)))].SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(GraphError):
        graph.summarize(bytes(raw))


@given(st.binary(max_size=200))
def test_random_bytes_are_no_graph(data: bytes) -> None:
    try:
        summary = graph.summarize(data)
    except GraphError:
        return
    assert summary.node_count <= len(data)


def test_a_foreign_domain_is_refused_anywhere() -> None:
    model = forecaster_graph()
    model.graph.node[0].domain = "evil.ops"
    with pytest.raises(OperatorDomainError, match=r"evil\.ops"):
        graph.check(model.SerializeToString())
    model = with_branches()
    model.graph.node[0].attribute[0].g.node[0].domain = "evil.ops"
    with pytest.raises(OperatorDomainError, match=r"evil\.ops"):
        graph.check(model.SerializeToString())


def test_a_foreign_domain_inside_a_function_is_refused() -> None:
    model = forecaster_graph()
    body = [helper.make_node("Custom", ["x"], ["y"], domain="evil.ops")]
    model.functions.append(
        helper.make_function("", "F", ["x"], ["y"], body, [helper.make_opsetid("", 20)])
    )
    with pytest.raises(OperatorDomainError, match=r"evil\.ops"):
        graph.check(model.SerializeToString())


def test_external_data_is_refused_anywhere() -> None:
    model = decoder_graph()
    tensor = next(t for t in model.graph.initializer if t.name == "weight_neural")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    with pytest.raises(ExternalDataError, match="weight_neural"):
        graph.check(model.SerializeToString())
    model = with_branches()
    branch = model.graph.node[0].attribute
    for attribute in branch:
        for tensor in attribute.g.initializer:
            tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(ExternalDataError):
        graph.check(model.SerializeToString())


def test_random_operators_are_refused() -> None:
    model = forecaster_graph()
    model.graph.node.append(helper.make_node("RandomNormal", [], ["r"], shape=[1]))
    with pytest.raises(GraphError, match="RandomNormal"):
        graph.check(model.SerializeToString())


def test_dropout_that_drops_is_refused() -> None:
    model = forecaster_graph()
    node = helper.make_node("Dropout", ["scaled", "ratio", "training"], ["dropped"])
    model.graph.node.append(node)
    with pytest.raises(GraphError, match="Dropout in training"):
        graph.check(model.SerializeToString())
    del node.input[2]
    model.graph.node[-1].CopyFrom(node)
    graph.check(model.SerializeToString())


def test_deep_nesting_is_refused() -> None:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    body = helper.make_graph([], "g", [], [value])
    for _ in range(graph.MAX_DEPTH + 2):
        node = helper.make_node("If", ["f"], ["y"], then_branch=body, else_branch=body.__class__())
        body = helper.make_graph([node], "g", [], [value])
    with pytest.raises(GraphError, match="nest"):
        graph.summarize(helper.make_model(body).SerializeToString())

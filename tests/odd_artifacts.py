"""Artifacts whose graphs misbehave: they depend on the batch, do not end, or fail on some rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import write_artifact

import artifact
from artifact.bundle import members
from artifact.manifest import Axis, TensorSpec

X, Y = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "dim"]) for name in ("x", "y")
)


def write_mean(folder: Path, tokens: int = 80, width: int = 64) -> Path:
    """A mean over a middle axis: known to give batch 1 other bytes than larger batches."""
    weight = np.random.default_rng(0).normal(0, 1, (width, width)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["h"]),
        helper.make_node("ReduceMean", ["h", "middle"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", tokens, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [_constant("weight", weight), _constant("middle", np.array([1]))],
    )
    rows = np.random.default_rng(1).normal(size=(5, tokens, width)).astype(np.float32)
    return _write(folder, graph, rows, (Axis("time", tokens), Axis("dim", width)), width)


def write_counting(folder: Path, limit: int, width: int = 3) -> Path:
    """y = 2 x, a little more where more than `limit` rows run together."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Greater", ["rows", "limit"], ["many"]),
        helper.make_node("Where", ["many", "more", "two"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    constants = [
        _constant("limit", np.array([limit])),
        _constant("two", np.array([2], np.float32)),
        _constant("more", np.array([2.001], np.float32)),
    ]
    rows = np.random.default_rng(2).normal(size=(5, width)).astype(np.float32)
    graph = helper.make_graph(nodes, "counting", [X], [Y], constants)
    return _write(folder, graph, rows, (Axis("dim", width),), width)


def write_endless(folder: Path) -> Path:
    """A loop that does not end while any row is positive."""
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    flag, again = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("flag", "again")
    )
    carry, after = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "dim"])
        for name in ("carry", "after")
    )
    body = helper.make_graph(
        [
            helper.make_node("Add", ["carry", "tiny"], ["after"]),
            helper.make_node("ReduceMax", ["after"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "zero"], ["again"]),
        ],
        "body",
        [step, flag, carry],
        [again, after],
        [_constant("tiny", np.float32(1e-9)), _constant("zero", np.float32(0))],
    )
    node = helper.make_node("Loop", ["", "go", "x"], ["y"], body=body)
    graph = helper.make_graph([node], "endless", [X], [Y], [_constant("go", np.array(True))])
    return _write(folder, graph, np.array([[-100], [-101]], np.float32), (Axis("dim", 1),), 1)


def write_single(folder: Path, width: int = 3) -> Path:
    """y = 2 x, for one row at a time: a batch size of 1 is part of the graph."""
    nodes = [
        helper.make_node("Reshape", ["x", "one"], ["row"]),
        helper.make_node("Add", ["row", "row"], ["double"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["double", "shape"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "single", [X], [Y], [_constant("one", np.array([1, width]))])
    rows = np.random.default_rng(3).normal(size=(5, width)).astype(np.float32)
    return _write(folder, graph, rows, (Axis("dim", width),), width)


def write_heavy(folder: Path, megabytes: int, seed: int = 0) -> Path:
    """y = x W, with a W that takes so much memory."""
    width = int((megabytes * 2**20 / 4) ** 0.5)
    weight = np.random.default_rng(seed).standard_normal((width, width), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "heavy",
        [X],
        [Y],
        [_constant("weight", weight)],
    )
    rows = np.random.default_rng(5).standard_normal((2, width), np.float32)
    return _write(folder, graph, rows, (Axis("dim", width),), width)


def write_version(folder: Path, source: Path, version: str) -> Path:
    """The artifact at `source` once more, under another version."""
    bundle = artifact.read(source)
    manifest = dataclasses.replace(bundle.manifest, version=version, files=())
    return artifact.write(folder, manifest, bundle.files, overwrite=True)


def write_zip(path: Path, source: Path) -> Path:
    """The artifact at `source` as a zip."""
    return artifact.bundle.write_zip(dict(members(artifact.read(source))), path)


def _constant(name: str, value: np.ndarray | np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _write(
    folder: Path, graph: onnx.GraphProto, rows: np.ndarray, axes: tuple[Axis, ...], width: int
) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inputs = (TensorSpec("x", "float32", (Axis("batch"), *axes), "", ""),)
    outputs = (TensorSpec("y", "float32", (Axis("batch"), Axis("dim", width)), "", ""),)
    return write_artifact(folder, model, inputs, outputs, {"x": rows}, name=folder.name)

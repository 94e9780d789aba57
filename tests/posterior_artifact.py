"""A small artifact whose outputs are samples, a matrix, a series and single numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import write_artifact

from artifact.manifest import Axis, TensorSpec

SAMPLES, PARAMETERS = 200, 3


def write_posterior(folder: Path) -> Path:
    """noise (batch, sample, parameter) -> theta, coupling, activity, score."""
    batch, parameter = Axis("batch"), Axis("parameter", PARAMETERS)
    sample = Axis("sample", SAMPLES)
    noise = TensorSpec("noise", "float32", (batch, sample, parameter), "", "standard normal")
    axes = {
        "theta": (batch, sample, parameter),
        "coupling": (batch, Axis("source", SAMPLES), Axis("target", PARAMETERS)),
        "activity": (batch, Axis("time", SAMPLES)),
        "score": (batch,),
    }
    units = {"theta": "mV", "activity": "Hz"}
    outputs = tuple(
        TensorSpec(name, "float32", axes[name], units.get(name, ""), f"{name} of each row")
        for name in axes
    )
    golden = np.random.default_rng(4).normal(size=(3, SAMPLES, PARAMETERS)).astype(np.float32)
    return write_artifact(
        folder, _graph(), (noise,), outputs, {"noise": golden}, name="posterior", task="infer"
    )


def _graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Exp", ["noise"], ["theta"]),
        helper.make_node("Tanh", ["noise"], ["coupling"]),
        helper.make_node("ReduceMax", ["noise", "last"], ["activity"], keepdims=0),
        helper.make_node("ReduceMax", ["noise", "both"], ["score"], keepdims=0),
    ]
    row = ["batch", SAMPLES, PARAMETERS]
    shapes = {"theta": row, "coupling": row, "activity": row[:2], "score": row[:1]}
    constants = {"last": [2], "both": [1, 2]}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("noise", TensorProto.FLOAT, row)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ],
        [
            numpy_helper.from_array(np.array(value, np.int64), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model

"""Small artifacts for challenges: one that predicts parcels from features, one that sees frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import write_artifact

from artifact.manifest import Axis, TensorSpec

STEPS, DIM = 3, 4
FRAME = (1, 86, 155)
SUBJECTS = ("sub-01", "sub-02", "sub-03", "sub-05")


def write_encoder(
    folder: Path, *, parcels: int = 6, seed: int = 1, whose: bool = False, dtype: str = "float32"
) -> Path:
    """stimulus (batch, 3, 4) -> response (batch, parcel); with `whose`, an index of the subject."""
    generator = np.random.default_rng(seed)
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    constants = {
        "flat": np.array([0, STEPS * DIM], np.int64),
        "weight": generator.normal(size=(STEPS * DIM, parcels)).astype(dtype),
        "offset": generator.normal(size=(len(SUBJECTS), parcels)).astype(dtype),
    }
    nodes = [
        helper.make_node("Reshape", ["stimulus", "flat"], ["row"]),
        helper.make_node("Tanh", ["row"], ["squashed"]),
        helper.make_node("MatMul", ["squashed", "weight"], ["linear" if whose else "response"]),
    ]
    inputs = [helper.make_tensor_value_info("stimulus", kind, ["batch", STEPS, DIM])]
    axes = (Axis("batch"), Axis("time", STEPS), Axis("dim", DIM))
    specs = [TensorSpec("stimulus", dtype, axes, "", "features of the last samples")]
    golden: dict[str, Any] = {"stimulus": generator.normal(size=(4, STEPS, DIM)).astype(dtype)}
    if whose:
        nodes.append(helper.make_node("Gather", ["offset", "subject"], ["own"], axis=0))
        nodes.append(helper.make_node("Add", ["linear", "own"], ["response"]))
        inputs.append(helper.make_tensor_value_info("subject", TensorProto.INT64, ["batch"]))
        specs.append(TensorSpec("subject", "int64", (Axis("batch"),), "", "0 to 3"))
        golden["subject"] = np.arange(4)
    graph = _graph(
        nodes,
        inputs,
        [helper.make_tensor_value_info("response", kind, ["batch", parcels])],
        constants,
    )
    outputs = (
        TensorSpec("response", dtype, (Axis("batch"), Axis("parcel", parcels)), "z", "BOLD"),
    )
    return write_artifact(folder, graph, tuple(specs), outputs, golden, name="encoder")


def write_seer(folder: Path, *, kit_names: bool = True, **changes: Any) -> Path:
    """frames (batch, 1, 86, 155) -> action (batch, 2), from `seer_graph`."""
    graph = seer_graph(kit_names=kit_names, **changes)
    shape = tuple(axis.dim_value for axis in graph.graph.input[0].type.tensor_type.shape.dim)
    names = ("color", "height", "width")
    axes = tuple(Axis(name, size) for name, size in zip(names, shape[1:], strict=True))
    frames = np.random.default_rng(4).random((4, *shape[1:])).astype(np.float32)
    return write_artifact(
        folder,
        graph,
        (TensorSpec("obs_0", "float32", (Axis("batch"), *axes), "", "grey frame in 0-1"),),
        (TensorSpec("action", "float32", (Axis("batch"), Axis("dim", 2)), "", "speed, turn"),),
        {"obs_0": frames},
        name="seer",
        task="decode",
    )


def seer_graph(
    *,
    kit_names: bool = True,
    frame: tuple[int, int, int] = FRAME,
    batch: int | str = "batch",
    convolutions: int = 2,
) -> onnx.ModelProto:
    """Convolutions, and a policy that takes their last answer; names as the kit's, or plain."""
    generator = np.random.default_rng(5)
    sight, policy = ("/observation_encoder/", "policy.weight") if kit_names else ("", "kernel")
    constants, nodes, last = {"half": np.array(0.5, np.float32)}, [], "obs_0"
    color, height, width = frame
    for place in range(convolutions):
        size, stride = (8, 8) if place == 0 else (3, 1)
        height, width = (height - size) // stride + 1, (width - size) // stride + 1
        weight = f"{sight}weight{place}"
        kernel = generator.normal(0, 0.2, (3 + place, color, size, size))
        constants[weight] = kernel.astype(np.float32)
        made = [f"{sight}conv{place}/{name}" for name in ("Conv_output_0", "Mul_output_0", "Relu")]
        nodes += [
            helper.make_node("Conv", [last, weight], made[:1], strides=[stride, stride]),
            helper.make_node("Mul", [made[0], "half"], made[1:2]),
            helper.make_node("Relu", [made[1]], made[2:]),
        ]
        last, color = made[2], 3 + place
    head = generator.normal(0, 0.1, (2, color, height, width)).astype(np.float32)
    constants[policy] = head
    # A convolution over everything: rows do not touch each other, unlike those of a product.
    nodes += [
        helper.make_node("Conv", [last, policy], ["both"]),
        helper.make_node("Flatten", ["both"], ["action"]),
    ]
    return _graph(
        nodes,
        [helper.make_tensor_value_info("obs_0", TensorProto.FLOAT, [batch, *frame])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [batch, 2])],
        constants,
    )


def _graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model

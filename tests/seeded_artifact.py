"""A small artifact that simulates: a stimulus filtered by a Scan, with noise from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import write_artifact

from artifact.manifest import Axis, SeededNoise, TensorSpec

NODES, STEPS, DT, GAIN = 3, 40, 2.0, 0.5
NOISE = SeededNoise("noise", "seed", "member", "stimulus", 1, NODES)


def write_seeded(folder: Path, *, seeds: tuple[int, ...] = (5, 5, 6), **changes: Any) -> Path:
    """stimulus (batch, time, 3), seed, member, gain (batch, 1) -> x, a leaky sum with noise."""
    rows = len(seeds)
    stimulus = np.zeros((rows, STEPS, NODES), np.float32)
    stimulus[:, 10:20] = 0.25
    golden = {
        "stimulus": stimulus,
        "seed": np.array(seeds),
        "member": np.arange(rows),
        "gain": np.full((rows, 1), GAIN, np.float32),
    }
    simulation = {
        "dt_ms": DT,
        "scheme": "euler",
        "step_ms": {"x": DT},
        "labels": ["left", "middle", "right"],
        "stimulus": {"stimulus": "I"},
        "held": {},
        "amplitude": 0.25,
    }
    return write_artifact(
        folder,
        _graph(),
        specs(),
        (TensorSpec("x", "float32", _axes(), "mV", "leaky sum"),),
        golden,
        name="seeded",
        task="simulate",
        noise=NOISE,
        provenance={"simulation": simulation},
        **changes,
    )


def specs() -> tuple[TensorSpec, ...]:
    """The inputs; all but the stimulus may be left out."""
    batch = Axis("batch")
    return (
        TensorSpec("stimulus", "float32", _axes(), "mV", "stimulus"),
        TensorSpec("seed", "int64", (batch,), "", "seed of the noise", default=0),
        TensorSpec("member", "int64", (batch,), "", "number of the batch member", default=0),
        TensorSpec("gain", "float32", (batch, Axis("value", 1)), "1", "of the noise", default=GAIN),
    )


def expected(
    stimulus: np.ndarray[Any, Any], noise: np.ndarray[Any, Any], gain: float = GAIN
) -> np.ndarray[Any, Any]:
    """What the graph answers, in float32; noise: (batch, time, 1, node)."""
    x = np.zeros_like(stimulus[:, 0])
    steps = []
    for step in range(stimulus.shape[1]):
        x = x * np.float32(0.9) + (stimulus[:, step] + noise[:, step, 0] * np.float32(gain))
        steps.append(x)
    return np.stack(steps, axis=1)


def _axes() -> tuple[Axis, ...]:
    return Axis("batch"), Axis("time"), Axis("node", NODES)


def _graph() -> onnx.ModelProto:
    def info(name: str, *axes: Any) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *axes])

    step = [
        helper.make_node("Gather", ["noise_now", "first"], ["number"], axis=1),
        helper.make_node("Mul", ["number", "gain"], ["scaled"]),
        helper.make_node("Add", ["stimulus_now", "scaled"], ["current"]),
        helper.make_node("Mul", ["before", "leak"], ["left"]),
        helper.make_node("Add", ["left", "current"], ["after"]),
        helper.make_node("Identity", ["after"], ["kept"]),
    ]
    body = helper.make_graph(
        step,
        "step",
        [info("before", NODES), info("stimulus_now", NODES), info("noise_now", 1, NODES)],
        [info("after", NODES), info("kept", NODES)],
    )
    nodes = [
        helper.make_node("Mul", ["stimulus", "none"], ["zeros"]),
        helper.make_node("Gather", ["zeros", "first"], ["start"], axis=1),
        helper.make_node(
            "Scan",
            ["start", "stimulus", "noise"],
            ["end", "x"],
            body=body,
            num_scan_inputs=2,
            scan_input_axes=[1, 1],
            scan_output_axes=[1],
        ),
    ]
    constants = {"first": np.array(0), "leak": np.float32(0.9), "none": np.float32(0)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [info("stimulus", "time", NODES), info("noise", "time", 1, NODES), info("gain", 1)],
        [info("x", "time", NODES)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model

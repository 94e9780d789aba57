"""Small artifacts that take recordings: made by hand, with a plan in their manifest; and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import write_artifact

from artifact.manifest import Axis, TensorSpec
from recording.plan import Plan

RATE, STEPS, OBSERVED = 50.0, 20, 12
CHANNELS = ("c0", "c1", "c2", "c3")
KEPT = [0, 1, 3]
CLASSES = ("open", "closed")
VARIABLES, UNITS = ("x", "grip, left"), ("m", "N")
FILTER = {"step": "filter", "low": 1.0, "order": 2}
DROP = {"step": "drop", "names": ["c2"]}


def write_planned(folder: Path, task: str, **changes: Any) -> Path:
    """neural (batch, 20, 4, 1) to forecast (batch, 20, 3), probability (batch, 2) or behavior.

    c2 is dropped inside the graph. `changes` are of the plan.
    """
    plan = plan_of(task, **changes)
    names = {"forecast": "forecast", "classify": "probability", "decode": "behavior"}
    axes: dict[str, tuple[Axis, ...]] = {
        "forecast": (Axis("batch"), Axis("time", STEPS), Axis("channel", len(KEPT))),
        "classify": (Axis("batch"), Axis("class", 2)),
        "decode": (Axis("batch"), Axis("variable", 2)),
    }
    shape = (Axis("batch"), Axis("time", STEPS), Axis("channel", 4), Axis("feature", 1))
    rows = np.random.default_rng(4).normal(0, 5, (4, STEPS, 4, 1)).astype(np.float32)
    return write_artifact(
        folder,
        _graph(task, names[task]),
        (TensorSpec("neural", "float32", shape, "µV", "window"),),
        (TensorSpec(names[task], "float32", axes[task], "", "answer"),),
        {"neural": rows},
        name=f"planned-{task}",
        task=task,
        provenance={"data": {"rate_hz": RATE, "plan": plan.to_json()}},
    )


def plan_of(task: str, **changes: Any) -> Plan:
    """The plan of such an artifact."""
    outputs: dict[str, tuple[str, ...]] = {
        "forecast": tuple(CHANNELS[index] for index in KEPT),
        "classify": CLASSES,
        "decode": VARIABLES,
    }
    units = {"forecast": ("µV",) * 3, "classify": ("", ""), "decode": UNITS}
    table = {
        "task": task,
        "steps": [DROP],
        "graph_steps": 1,
        "rate": RATE,
        "channels": [{"name": name, "type": "eeg", "unit": "µV"} for name in CHANNELS],
        "window": STEPS,
        "observed": OBSERVED if task == "forecast" else STEPS,
        "stride": 5,
        "outputs": outputs[task],
        "output_units": units[task],
        "test": [["walk", 12.0, 20.0]],
        "reader": {"rate": RATE, "unit": "µV", "type": "eeg", "channel_names": CHANNELS},
        "format": "npy",
    }
    return Plan.read({**table, **changes})


def walk(samples: int = 1000, seed: int = 7) -> np.ndarray:
    """Random walks: (time, channel) float32."""
    values = np.random.default_rng(seed).normal(size=(samples, 4)).cumsum(axis=0)
    return np.asarray(values, np.float32)


def write_npy(path: Path, values: np.ndarray | None = None) -> Path:
    """A recording as .npy."""
    np.save(path, walk() if values is None else values)
    return path


def write_npz(path: Path, values: np.ndarray | None = None) -> Path:
    """The same as .npz, whose rate, unit and names lie in it."""
    values = walk() if values is None else values
    np.savez_compressed(path, data=values, fs=RATE, unit="µV", labels=np.array(CHANNELS))
    return path


def write_csv(path: Path, values: np.ndarray | None = None) -> Path:
    """The same as .csv."""
    values = walk() if values is None else values
    lines = [",".join(CHANNELS), *(",".join(map(str, row)) for row in values)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_edf(path: Path, values: np.ndarray | None = None) -> Path:
    """The same as .edf, in 16 bits, with markers `open` and `closed`."""
    import edfio

    values = walk() if values is None else values
    signals = [
        edfio.EdfSignal(
            values[:, index].astype(np.float64),
            RATE,
            label=name,
            physical_dimension="uV",
            physical_range=(-200.0, 200.0),
        )
        for index, name in enumerate(CHANNELS)
    ]
    marks = [edfio.EdfAnnotation(1.0 + 2 * i, 0.5, CLASSES[i % 2]) for i in range(8)]
    edfio.Edf(signals, annotations=marks).write(path)
    return path


def _graph(task: str, output: str) -> onnx.ModelProto:
    """Of the kept channels: the last observed value times a decay, or a linear layer."""
    generator = np.random.default_rng(5)
    decay = np.ones((1, STEPS, 1), np.float32)
    decay[0, OBSERVED:, 0] = 0.9 ** np.arange(1, STEPS - OBSERVED + 1)
    constants = {
        "kept": np.array(KEPT, np.int64),
        "feature": np.array(0, np.int64),
        "decay": decay,
        "flat": np.array([0, STEPS * len(KEPT)], np.int64),
        "weight": generator.normal(0, 0.02, (STEPS * len(KEPT), 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["neural", "kept"], ["some"], axis=2),
        helper.make_node("Gather", ["some", "feature"], ["values"], axis=3),
    ]
    shape: list[str | int] = ["batch", 2]
    if task == "forecast":
        nodes.append(helper.make_node("Mul", ["values", "decay"], [output]))
        shape, used = ["batch", STEPS, len(KEPT)], ("kept", "feature", "decay")
    else:
        last = output if task == "decode" else "logits"
        nodes.append(helper.make_node("Reshape", ["values", "flat"], ["row"]))
        nodes.append(helper.make_node("MatMul", ["row", "weight"], [last]))
        if task == "classify":
            nodes.append(helper.make_node("Softmax", ["logits"], [output], axis=-1))
        used = ("kept", "feature", "flat", "weight")
    graph = helper.make_graph(
        nodes,
        "planned",
        [helper.make_tensor_value_info("neural", TensorProto.FLOAT, ["batch", STEPS, 4, 1])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(constants[name], name) for name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

"""Small artifacts made by hand with onnx.helper: no torch, no training, fractions of a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import artifact
from artifact import batching, providers
from artifact.arrays import encode_npz
from artifact.manifest import Axis, Manifest, SeededNoise, TensorSpec, config_digest
from artifact.noise import with_noise

STEPS, OBSERVED = 20, 10


def write_forecaster(
    folder: Path,
    *,
    channels: int = 4,
    features: int = 9,
    dynamic_channel: bool = False,
    unit: str = "raw",
    name: str = "small-forecaster",
    **changes: Any,
) -> Path:
    """neural (batch, 20, C, F) -> forecast (batch, 20, C): decay from the last observed value."""
    axis = Axis("channel", None if dynamic_channel else channels)
    specs = (
        TensorSpec(
            "neural",
            "float32",
            (Axis("batch"), Axis("time", STEPS), axis, Axis("feature", features)),
            "raw",
            "window whose steps from 10 on repeat step 9",
        ),
    )
    outputs = (
        TensorSpec(
            "forecast",
            "float32",
            (Axis("batch"), Axis("time", STEPS), axis),
            unit,
            "feature 0 of every step",
        ),
    )
    rows = np.random.default_rng(1).normal(100, 50, (4, STEPS, channels, features))
    inputs = {"neural": rows.astype(np.float32)}
    return write_artifact(
        folder, forecaster_graph(features), specs, outputs, inputs, name=name, **changes
    )


def write_decoder(folder: Path, *, name: str = "small-decoder", **changes: Any) -> Path:
    """neural, behavior and its mask -> probability (batch, 3)."""
    specs = (
        TensorSpec(
            "neural",
            "float32",
            (Axis("batch"), Axis("time", STEPS), Axis("channel", 6), Axis("feature", 1)),
            "raw",
            "window",
        ),
        TensorSpec(
            "behavior",
            "float32",
            (Axis("batch"), Axis("time", STEPS), Axis("dim", 2)),
            "raw",
            "behaviour; where the mask is false its value does not matter",
            "allow",
        ),
        TensorSpec(
            "behavior_mask",
            "bool",
            (Axis("batch"), Axis("time", STEPS)),
            "",
            "true where behaviour is present",
        ),
    )
    outputs = (
        TensorSpec(
            "probability",
            "float32",
            (Axis("batch"), Axis("class", 3)),
            "",
            "probability of each class",
        ),
    )
    generator = np.random.default_rng(2)
    inputs = {
        "neural": generator.normal(size=(4, STEPS, 6, 1)).astype(np.float32),
        "behavior": generator.normal(size=(4, STEPS, 2)).astype(np.float32),
        "behavior_mask": generator.random((4, STEPS)) < 0.7,
    }
    changes.setdefault("provenance", {"data": {"outputs": ["hand", "foot", "rest"]}})
    return write_artifact(
        folder, decoder_graph(), specs, outputs, inputs, name=name, task="decode", **changes
    )


def write_artifact(
    folder: Path,
    model: onnx.ModelProto,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    golden: Mapping[str, np.ndarray],
    *,
    name: str,
    task: str = "forecast",
    golden_outputs: Mapping[str, np.ndarray] | None = None,
    bound: float | None = None,
    determinism: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    noise: SeededNoise | None = None,
    overwrite: bool = False,
) -> Path:
    """An artifact around any graph; golden answers come from the graph unless given."""
    data = model.SerializeToString(deterministic=True)
    drawn = golden if noise is None else with_noise(noise, golden)
    answers = golden_outputs or _run(data, [spec.name for spec in outputs], drawn)
    config = {"name": name, "model": {"name": "small"}}
    manifest = Manifest(
        name=name,
        version="1",
        task=task,
        model="small",
        inputs=inputs,
        outputs=outputs,
        noise=noise,
        provenance={"config_sha256": config_digest(config), "seed": 0, **(provenance or {})},
        config=config,
        metrics={},
        determinism={
            "golden_bound": {
                spec.name: 5e-5 * float(answers[spec.name].std()) if bound is None else bound
                for spec in outputs
            },
            "onnxruntime": onnxruntime.__version__,
            "processor": providers.processor(),
            **(determinism or {}),
        },
    )
    arrays = {f"input.{key}": value for key, value in golden.items()}
    arrays |= {f"output.{key}": value for key, value in answers.items()}
    files = {
        "model.onnx": data,
        "config.yaml": b"model:\n  name: small\n",
        "golden.npz": encode_npz(arrays),
        "README.md": f"# {name}\n".encode(),
    }
    return artifact.write(folder, manifest, files, overwrite=overwrite)


def forecaster_graph(features: int = 9) -> onnx.ModelProto:
    """Observed steps as they are, then the last one times a decay per step."""
    decay = np.ones((1, STEPS, 1), np.float32)
    decay[0, OBSERVED:, 0] = 0.95 ** np.arange(1, STEPS - OBSERVED + 1)
    constants = {
        "feature0": np.array(0, np.int64),
        "decay": decay,
    }
    nodes = [
        helper.make_node("Gather", ["neural", "feature0"], ["potential"], axis=3),
        helper.make_node("Mul", ["potential", "decay"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["squashed"]),
        helper.make_node("Add", ["scaled", "squashed"], ["forecast"]),
    ]
    return _model(
        nodes,
        constants,
        [("neural", TensorProto.FLOAT, ["batch", STEPS, "channel", features])],
        [("forecast", TensorProto.FLOAT, ["batch", STEPS, "channel"])],
    )


def decoder_graph() -> onnx.ModelProto:
    """Masked behaviour and neural values through one linear layer and a softmax."""
    generator = np.random.default_rng(3)
    constants = {
        "flat_neural": np.array([0, STEPS * 6], np.int64),
        "flat_behavior": np.array([0, STEPS * 2], np.int64),
        "last": np.array([2], np.int64),
        "zero": np.array(0, np.float32),
        "weight_neural": generator.normal(0, 0.1, (STEPS * 6, 3)).astype(np.float32),
        "weight_behavior": generator.normal(0, 0.1, (STEPS * 2, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["neural", "flat_neural"], ["n"]),
        helper.make_node("Unsqueeze", ["behavior_mask", "last"], ["present"]),
        helper.make_node("Where", ["present", "behavior", "zero"], ["known"]),
        helper.make_node("Reshape", ["known", "flat_behavior"], ["b"]),
        helper.make_node("MatMul", ["n", "weight_neural"], ["from_neural"]),
        helper.make_node("MatMul", ["b", "weight_behavior"], ["from_behavior"]),
        helper.make_node("Add", ["from_neural", "from_behavior"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probability"], axis=-1),
    ]
    return _model(
        nodes,
        constants,
        [
            ("neural", TensorProto.FLOAT, ["batch", STEPS, 6, 1]),
            ("behavior", TensorProto.FLOAT, ["batch", STEPS, 2]),
            ("behavior_mask", TensorProto.BOOL, ["batch", STEPS]),
        ],
        [("probability", TensorProto.FLOAT, ["batch", 3])],
    )


def _model(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    inputs: list[tuple[str, int, list[int | str]]],
    outputs: list[tuple[str, int, list[int | str]]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _run(data: bytes, names: list[str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = providers.create_session(data)
    rows = len(next(iter(inputs.values())))
    parts = [session.run(names, batching.take(inputs, [row])) for row in range(rows)]
    return {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(names)}

"""Artifacts of the EEG Foundation Challenge in every layout, and what they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import write_artifact

import artifact
from artifact.manifest import Axis, TensorSpec
from submission import challenges
from submission.challenges import Definition

CHANNELS, SAMPLES, ROWS = 6, 8, 37
LAYOUTS = {
    "channel_time": ("channel", "time"),
    "time_channel": ("time", "channel"),
    "time_channel_feature": ("time", "channel", "feature"),
    "feature_channel_time": ("feature", "channel", "time"),
}
SUBJECTS = ("challenge_1", "challenge_2")


def write_regressor(
    folder: Path,
    axes: tuple[str, ...] = ("channel", "time"),
    *,
    channels: int = CHANNELS,
    samples: int = SAMPLES,
    flat: bool = False,
    dtype: str = "float32",
    outputs: int = 1,
) -> Path:
    """eeg (batch, *axes) -> score (batch, outputs), or (batch,) where `flat`."""
    sizes = {"channel": channels, "time": samples, "feature": 1}
    shape = [sizes[name] for name in axes]
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    generator = np.random.default_rng(len(axes))
    weight = generator.normal(size=(channels * samples, outputs)).astype(dtype)
    constants = {"flat": np.array([0, -1], np.int64), "weight": weight, "one": np.array([1])}
    nodes = [
        helper.make_node("Reshape", ["eeg", "flat"], ["row"]),
        helper.make_node("Tanh", ["row"], ["squashed"]),
        helper.make_node("MatMul", ["squashed", "weight"], ["column" if flat else "score"]),
    ]
    if flat:
        nodes.append(helper.make_node("Squeeze", ["column", "one"], ["score"]))
    out = [] if flat else [outputs]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("eeg", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("score", kind, ["batch", *out])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    named = (Axis("batch"), *(Axis(name, sizes[name]) for name in axes))
    score = (Axis("batch"), *(Axis("dim", size) for size in out))
    return write_artifact(
        folder,
        model,
        (TensorSpec("eeg", dtype, named, "V", "two seconds of EEG"),),
        (TensorSpec("score", dtype, score, "s", "what is asked for"),),
        {"eeg": generator.normal(size=(4, *shape)).astype(dtype)},
        name="regressor",
        task="decode",
    )


def define(**settings: object) -> Definition:
    """The challenge with settings, for an artifact each."""
    challenge = challenges.get("eeg2025")
    return challenge.definition(challenge.settings.model_validate(settings), SUBJECTS)


def windows(rows: int = ROWS, channels: int = CHANNELS, samples: int = SAMPLES) -> np.ndarray:
    """EEG, float32 (batch, channel, time)."""
    generator = np.random.default_rng(7)
    return generator.normal(0, 2, (rows, channels, samples)).astype(np.float32)


def answer(folder: Path, axes: tuple[str, ...], X: np.ndarray) -> np.ndarray:
    """What the artifact itself says to X, (batch, 1)."""
    neural = X.swapaxes(1, 2) if axes[:2] == ("time", "channel") else X
    if "feature" in axes:
        neural = neural[:, None] if axes[0] == "feature" else neural[..., None]
    predicted = artifact.load(folder).predict({"eeg": np.ascontiguousarray(neural)})
    return predicted["score"].reshape(-1, 1)

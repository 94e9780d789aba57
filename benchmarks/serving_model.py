"""The one model, input and bodies of the serving benchmark.

A patch transformer of about 0.81 million parameters, x (batch, 10, 64, 9) float32 -> y (batch, 6),
weights drawn with seed 0: exported once, written as an artifact for this service and as the very
same `model.onnx` bytes for the peers. Its readout is AdaptiveAvgPool1d over the transposed tokens,
which keeps a row's bytes whatever the batch.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import artifact
from artifact import batching, providers
from artifact.arrays import encode_npz
from artifact.manifest import Axis, Manifest, TensorSpec, config_digest

NAME = "benchmark"
STEPS, CHANNELS, FEATURES, CLASSES = 10, 64, 9, 6
WIDTH, HEADS, BLOCKS, HIDDEN = 128, 4, 4, 512
GROUP = 8  # channels of one token
TOKENS, TOKEN = STEPS * CHANNELS // GROUP, GROUP * FEATURES
OPSET = 17


class Block(nn.Module):
    """One pre-norm transformer block: (batch, token, width) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_hidden = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.hidden = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, token, width) -> (batch, token, width)."""
        heads = self.query_key_value(self.before_attention(x))
        heads = heads.reshape(-1, TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = heads[0], heads[1], heads[2]
        weight = (query @ key.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        mixed = (weight @ value).transpose(1, 2).reshape(-1, TOKENS, WIDTH)
        x = x + self.project(mixed)
        answer: Tensor = x + self.hidden(self.before_hidden(x))
        return answer


class Classifier(nn.Module):
    """x (batch, 10, 64, 9) -> y (batch, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(TOKEN, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(1, TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time, channel, feature) -> (batch, class)."""
        tokens = self.embed(x.reshape(-1, TOKENS, TOKEN)) + self.position
        tokens = self.norm(self.blocks(tokens))
        answer: Tensor = self.head(self.pool(tokens.transpose(1, 2)).squeeze(-1))
        return answer


def write_model(folder: Path) -> tuple[Path, Path]:
    """Write the artifact and its graph below `folder`; both paths, in that order."""
    torch.manual_seed(0)
    graph = _export(Classifier().eval(), folder / "exported.onnx")
    path = _write_artifact(folder / "artifact", graph)
    return path, path / "model.onnx"


def example() -> np.ndarray:
    """The one input that every request carries: (1, 10, 64, 9) float32."""
    shape = (1, STEPS, CHANNELS, FEATURES)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def bodies() -> dict[str, bytes]:
    """The example as the body of a request, by the body's form."""
    x = example()
    raw = x.tobytes()
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32"}
    header = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
        "parameters": {"binary_data_output": True},
    }
    npy = io.BytesIO()
    np.save(npy, x, allow_pickle=False)
    return {
        "json": _json({"inputs": {"x": x.tolist()}}),
        "plain_json": _json({"x": x.tolist()}),
        "v2_json": _json({"id": "1", "inputs": [{**tensor, "data": x.ravel().tolist()}]}),
        "v2_binary": _json(header) + raw,
        "v2_binary_header": _json(header),
        "npy": npy.getvalue(),
        "raw": raw,
    }


def answer(model: Path) -> np.ndarray:
    """What the graph says to the example, alone in its batch: (1, 6) float32."""
    session = providers.create_session(model.read_bytes())
    found: np.ndarray = session.run(["y"], {"x": example()})[0]
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _export(module: nn.Module, target: Path) -> bytes:
    sample = torch.from_numpy(np.repeat(example(), 2, 0))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the TorchScript exporter says that it is the older one
        torch.onnx.export(
            module,
            (sample,),
            target,
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )
    return target.read_bytes()


def _write_artifact(folder: Path, graph: bytes) -> Path:
    batch = Axis("batch")
    axes = (batch, Axis("time", STEPS), Axis("channel", CHANNELS), Axis("feature", FEATURES))
    inputs = (TensorSpec("x", "float32", axes, "raw", "standard normal numbers"),)
    outputs = (TensorSpec("y", "float32", (batch, Axis("class", CLASSES)), "", "logits"),)
    rows = np.random.default_rng(1).standard_normal((4, STEPS, CHANNELS, FEATURES), np.float32)
    session = providers.create_session(graph)

    def run(feed: batching.Arrays) -> dict[str, np.ndarray]:
        return {"y": session.run(["y"], dict(feed))[0]}

    alone = [run({"x": rows[i : i + 1]})["y"] for i in range(len(rows))]
    golden = np.concatenate(alone)
    policy = batching.probe(run, {"x": rows})
    config = {"name": NAME, "model": {"name": "patch-transformer"}}
    manifest = Manifest(
        name=NAME,
        version="1",
        task="decode",
        model="patch-transformer",
        inputs=inputs,
        outputs=outputs,
        provenance={"config_sha256": config_digest(config), "seed": 0},
        config=config,
        metrics={},
        determinism={
            "certificate": [
                {"row": {"x": list(rows.shape[1:])}, "batch_sizes": list(policy.sizes)}
            ],
            "golden_bound": {"y": 5e-5 * float(golden.std())},
            "onnxruntime": onnxruntime.__version__,
            "processor": providers.processor(),
        },
    )
    files = {
        "model.onnx": graph,
        "config.yaml": b"model:\n  name: patch-transformer\n",
        "golden.npz": encode_npz({"input.x": rows, "output.y": golden}),
        "README.md": f"# {NAME}\n\nThe model of the serving benchmark; not trained.\n".encode(),
    }
    return artifact.write(folder, manifest, files, overwrite=True)

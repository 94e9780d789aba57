"""From the weights that the challenge's organisers published to an artifact that behaves alike.

Source: a3d3-institute/HDRChallenge_y2 (MIT), `simple_torch_submission`: a state dict of a GRU with
a linear readout (`model_<monkey>.pth`) and the train statistics, columns channel * 9 + feature
(`train_data_average_std_<monkey>.npz`). No data come with them, so golden rows are synthetic.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifact.arrays import decode_npz
from artifact.errors import InputError
from trainer import checkpoint
from trainer.data.windows import ModelContext, Statistics, forecast_specs
from trainer.export import About, synthetic_rows, write_artifact
from trainer.models import build_model

STEPS, OBSERVED, FEATURES = 20, 10, 9
WEIGHTS_NAME = re.compile(r"model_(\w+)\.pth")
STATISTICS_NAME = re.compile(r"train_data_average_std_(\w+)\.npz")
OUTPUT_UNITS = ("normalized", "raw")
GOLDEN_ROWS, ROWS = 4, 32


class LegacyError(ValueError):
    """The files are not what the organisers published; the text says which, where and why."""


def import_legacy(
    weights: Path,
    statistics: Path,
    output: Path,
    output_units: str = "normalized",
    name: str | None = None,
) -> Path:
    """Write the artifact of the organisers' weights and statistics to `output`; returns it.

    `output_units`: "normalized" answers as published, z = (x - mean) / (4 std), although the score
    is in raw units; "raw" brings answers back to the units of the input. `name` defaults to
    legacy-<monkey>, from the names of the files.
    Raises LegacyError for files of another kind, FileExistsError where `output` exists.
    """
    if output_units not in OUTPUT_UNITS:
        raise LegacyError(f"output units {output_units!r}; must be {' or '.join(OUTPUT_UNITS)}")
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another --output")
    name = name or f"legacy-{monkey_name(weights, statistics)}"
    state = read_weights(weights)
    channels, hidden_size = state["output_layer.weight"].shape
    context = legacy_context(read_statistics(statistics, channels))
    model = {"name": "gru", "hidden_size": hidden_size, "output_units": output_units}
    module = build_model(model, context)
    checkpoint.load_weights(module, state)
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (weights, statistics)
    }
    about = About(
        name=name,
        version="1",
        config={"name": name, "seed": 0, "model": model, "imported": digests},
        metrics={},
        data={
            "name": "hdr_legacy",
            "description": "Weights and train statistics are those that the organisers of the HDR "
            "neural forecasting challenge published; the training data are not at hand.",
            "synthetic": False,
            "rate_hz": None,
        },
        data_fingerprint=digests[statistics.name],
        seed=0,
        golden="synthetic",
    )
    rows = synthetic_rows(context, ROWS, seed=0)
    return write_artifact(module.eval(), context, about, rows, GOLDEN_ROWS, output)


def monkey_name(weights: Path, statistics: Path) -> str:
    """The monkey that both file names name; raises LegacyError where they name none, or two."""
    found = [
        match.group(1)
        for pattern, path in ((WEIGHTS_NAME, weights), (STATISTICS_NAME, statistics))
        if (match := pattern.fullmatch(path.name))
    ]
    if not found:
        raise LegacyError(
            f"{weights.name}, {statistics.name}: neither name tells the monkey (model_affi.pth, "
            "train_data_average_std_affi.npz); give --name"
        )
    if len(set(found)) > 1:
        raise LegacyError(
            f"{weights.name} is of {found[0]}, {statistics.name} of {found[1]}; give two files of "
            "one monkey, or --name"
        )
    return found[0]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The six float32 tensors of a published state dict; raises LegacyError naming the fault."""
    if not path.is_file():
        raise LegacyError(f"{path}: no such file")
    try:
        # The tensors were saved on another device, and no pickled object but tensors is let in.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise LegacyError(f"{path}: not a state dict of tensors alone ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise LegacyError(
            f"{path}: holds {type(state).__name__}; a state dict of tensors is wanted"
        )
    _check_state(path, state)
    return dict(state)


def _check_state(path: Path, state: dict[str, Any]) -> None:
    bias = state.get("output_layer.bias")
    recurrent = state.get("encoder.weight_hh_l0")
    channels = bias.shape[0] if bias is not None and bias.ndim == 1 else "C"
    hidden = recurrent.shape[-1] if recurrent is not None and recurrent.ndim == 2 else 256
    wanted = {
        "encoder.weight_ih_l0": (3 * hidden, channels),
        "encoder.weight_hh_l0": (3 * hidden, hidden),
        "encoder.bias_ih_l0": (3 * hidden,),
        "encoder.bias_hh_l0": (3 * hidden,),
        "output_layer.weight": (channels, hidden),
        "output_layer.bias": (channels,),
    }
    faults = [f"lacks {key}" for key in wanted if key not in state]
    faults += [f"holds unknown {key}" for key in sorted(set(state) - set(wanted))]
    for key, shape in wanted.items():
        if key in state:
            tensor = state[key]
            if tuple(tensor.shape) != shape:
                faults.append(f"{key} is {tuple(tensor.shape)}, must be {shape}")
            elif tensor.dtype != torch.float32:
                faults.append(f"{key} is {tensor.dtype}, must be torch.float32")
            elif not bool(torch.isfinite(tensor).all()):
                faults.append(f"{key} holds NaN or infinity")
    if faults:
        raise LegacyError(f"{path}: {'; '.join(faults)}")


def read_statistics(path: Path, channels: int) -> Statistics:
    """Mean and standard deviation, (channel, feature), from a published statistics file.

    Raises LegacyError where the file is of another kind or of another number of channels.
    """
    if not path.is_file():
        raise LegacyError(f"{path}: no such file")
    try:
        arrays = decode_npz(path.read_bytes())
    except InputError as error:
        raise LegacyError(f"{path}: {error}") from None
    columns = channels * FEATURES
    found = {}
    for key in ("average", "std"):
        if key not in arrays:
            raise LegacyError(f"{path}: lacks {key}; holds {', '.join(sorted(arrays))}")
        values = arrays[key].astype(np.float64)
        if values.size != columns:
            raise LegacyError(
                f"{path}: {key} has shape {values.shape}; {channels} channels of {FEATURES} "
                f"features, as in the weights, make (1, {columns})"
            )
        if not np.isfinite(values).all():
            raise LegacyError(f"{path}: {key} holds NaN or infinity")
        found[key] = values.reshape(channels, FEATURES)
    if (found["std"] < 0).any():
        raise LegacyError(f"{path}: std holds a negative number")
    return Statistics(found["average"], found["std"])


def legacy_context(statistics: Statistics) -> ModelContext:
    """The challenge's contract: (batch, 20, channel, 9) in, (batch, 20, channel) out, raw units."""
    channels = statistics.mean.shape[0]
    inputs, outputs = forecast_specs(steps=STEPS, channels=channels, features=FEATURES, unit="raw")
    return ModelContext(
        task="forecast",
        steps=STEPS,
        observed=OBSERVED,
        channels=channels,
        features=FEATURES,
        inputs=inputs,
        outputs=outputs,
        statistics=statistics,
    )

"""From a trained module or a run to an artifact."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifact import batching, bundle
from artifact.manifest import TensorSpec
from trainer import folder
from trainer.artifact_writing import (
    PARITY_ROWS,
    About,
    Arrays,
    Translated,
    golden_bound,
    libraries,
    spread,
    write_translated,
)
from trainer.config import RunConfig
from trainer.data.windows import Dataset, ModelContext, Windows
from trainer.graph import ExportError, exported_specs, to_onnx
from trainer.graph_preparation import WithPreparation
from trainer.models.ensemble import Ensemble
from trainer.trained import kept, load_run

__all__ = [
    "About",
    "ExportError",
    "export_artifact",
    "export_run",
    "golden_bound",
    "libraries",
    "spread",
    "to_onnx",
    "write_artifact",
]


def export_artifact(
    module: torch.nn.Module,
    dataset: Dataset,
    config: RunConfig,
    metrics: Mapping[str, Any],
    destination: Path,
) -> Path:
    """Write the artifact of a trained module; an artifact at `destination` is replaced.

    Golden rows are windows of the validation part, or with `export.golden: synthetic` drawn from
    the statistics of the train part, so that no recording travels. `metrics`: on held-out data.
    Raises ExportError.
    """
    context = dataset.context()
    members = []
    if isinstance(module, Ensemble):
        members, module = module.description(), module.without_idle()
    if dataset.operations:
        module = WithPreparation(dataset.operations, module)
        context = outside(context, dataset.train)
    settings = config.export
    count = max(max(PARITY_ROWS), settings.golden_rows)
    if settings.golden == "real":
        rows = real_rows(dataset.validation.outside(), count)
    else:
        rows = synthetic_rows(context, count, config.seed)
    about = About(
        name=config.name,
        version=settings.version,
        config=config.public(),
        metrics=metrics,
        data={
            "name": dataset.name,
            "description": dataset.description,
            "synthetic": dataset.synthetic,
            "rate_hz": float(dataset.rate),
            "outputs": list(dataset.output_names),
            "plan": None if dataset.plan is None else dataset.plan.to_json(),
        },
        data_fingerprint=dataset.fingerprint,
        seed=config.seed,
        golden=settings.golden,
        members=members,
    )
    if destination.exists() and not (destination / bundle.MANIFEST).is_file():
        raise ExportError(f"{destination} exists and is no artifact; it is left alone")
    return write_artifact(
        module, context, about, rows, settings.golden_rows, destination, overwrite=True
    )


def export_run(run: Path, checkpoint: str = "kept", output: Path | None = None) -> Path:
    """Rebuild a run's model through the registry and write its artifact; returns its folder.

    `checkpoint` is "kept", whose bytes are those that training itself exported, or another one, see
    `load_run`; `output` is a new folder and defaults to `run`/artifact, of another checkpoint than
    the kept one to `run`/artifact-last, ….
    Raises RunFolderError, ConfigError, CheckpointError, ExportError, FileExistsError.
    """
    if output is not None and output.exists():
        raise FileExistsError(f"{output} exists; choose another --output")
    loaded = load_run(run, checkpoint)
    is_kept = checkpoint in ("kept", kept(loaded.config, loaded.dataset))
    own = folder.ARTIFACT if is_kept else f"{folder.ARTIFACT}-{checkpoint}"
    destination = output or run / own
    return export_artifact(
        loaded.module, loaded.dataset, loaded.config, loaded.metrics, destination
    )


def write_artifact(
    module: torch.nn.Module,
    context: ModelContext,
    about: About,
    rows: Arrays,
    golden_rows: int,
    destination: Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the artifact of `module` to the folder `destination` and return it.

    `rows`: example inputs by name, batch first; all of them serve the comparison with torch,
    `golden_rows` of them, evenly spread, travel inside the artifact.
    Raises ExportError where the graph cannot be made or answers differently from torch,
    FileExistsError where `destination` exists and `overwrite` is not given.
    """
    inputs, outputs = exported_specs(module, context)
    translated = Translated(
        graph=to_onnx(module, context),
        task=context.task,
        inputs=inputs,
        outputs=outputs,
        reference=copy.deepcopy(module).to("cpu").eval(),
        shapes=_row_shapes(inputs, context.channels, rows),
    )
    return write_translated(translated, about, rows, golden_rows, destination, overwrite=overwrite)


def outside(context: ModelContext, train: Windows) -> ModelContext:
    """The context as an artifact takes its inputs, before the preparation inside its graph."""
    windows = train.outside()
    channels, features = windows.inputs[0].shape[2:]
    assert channels is not None
    assert features is not None
    return replace(
        context,
        inputs=windows.inputs,
        channels=channels,
        features=features,
        statistics=windows.statistics(),
    )


def real_rows(windows: Windows, rows: int) -> Arrays:
    """At most `rows` windows of a part, evenly spread, inputs masked: {name: (batch, *axes)}."""
    return windows.batch(np.array(spread(len(windows), rows))).inputs


def synthetic_rows(context: ModelContext, rows: int, seed: int) -> Arrays:
    """Rows drawn from the statistics of the train part alone: {name: (batch, *axes)}.

    Floats with (channel, feature) axes have that channel's mean and standard deviation, other
    floats are standard normal; masks are true. A forecast's steps from `observed` on repeat the
    last observed one.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    drawn: Arrays = {}
    for spec in context.inputs:
        shape = (rows, *(size for size in spec.shape[1:] if size is not None))
        values = generator.standard_normal(shape)
        if spec.shape[2:] == context.statistics.mean.shape:
            values = context.statistics.mean + context.statistics.std * values
        if not spec.dtype.startswith("float"):
            values = np.ones(shape)
        if context.task == "forecast":
            values[:, context.observed :] = values[:, context.observed - 1 : context.observed]
        drawn[spec.name] = values.astype(spec.dtype)
    return drawn


def _row_shapes(
    inputs: tuple[TensorSpec, ...], channels: int, rows: Arrays
) -> list[batching.RowShape]:
    """The row shapes to try: that of the data, and one more channel count where that is open."""
    own = batching.row_shape(rows)
    if all(size is not None for spec in inputs for size in spec.shape[1:]):
        return [own]
    other = channels + 3 if channels < 8 else channels // 2 + 1
    sizes = {
        spec.name: tuple(other if size is None else size for size in spec.shape[1:])
        for spec in inputs
    }
    return [own, tuple((name, sizes[name]) for name in sorted(sizes))]

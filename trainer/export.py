"""From a trained module to an artifact: translate, compare, certify, describe, write.

The artifact's bytes are a function of weights, configuration, data, library versions and
instruction set: no path, date, host, user or revision enters any of its files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import artifact
import recording
from artifact import batching, bundle, providers
from artifact.arrays import encode_npz
from artifact.manifest import Manifest, TensorSpec, config_digest
from trainer import folder, yaml_source
from trainer.card import model_card
from trainer.config import RunConfig
from trainer.data.windows import Dataset, ModelContext, Windows
from trainer.graph import IR_VERSION, OPSET, ExportError, exported_specs, to_onnx
from trainer.graph_preparation import WithPreparation
from trainer.models.ensemble import Ensemble
from trainer.trained import kept, load_run

__all__ = ["About", "ExportError", "export_artifact", "export_run", "to_onnx", "write_artifact"]

PARITY_ROWS = (1, 2, 7, 32)
# Largest gap between torch and ONNX Runtime, in standard deviations of the output. Measured gaps
# are some 1e-6; a wrong translation is off by 1e-2 and more.
PARITY_BOUND = 1e-4
GOLDEN_FLOOR, GOLDEN_CEILING = 1e-6, 1e-4
# Besides ONNX Runtime, whose distribution has another name where it is the GPU's.
LIBRARIES = ("torch", "onnx", "onnxscript", "numpy", "scipy", "safetensors")

Arrays = dict[str, np.ndarray]
# Of the sources as this process began: what is edited while it trains did not run.
SOURCES = {
    name: bundle.source_digest(Path(path).parent)
    for name, path in (
        ("artifact", artifact.__file__),
        ("recording", recording.__file__),
        ("trainer", __file__),
    )
}


@dataclass(frozen=True)
class About:
    """What the manifest says beside the graph.

    `config`: the resolved run without machine paths, plain JSON; `data`: name, description,
    synthetic, rate; `data_fingerprint`: sha256 in hex; `golden`: "real" or "synthetic"; `members`:
    of an ensemble, see `Ensemble.description`.
    """

    name: str
    version: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    data_fingerprint: str
    seed: int
    golden: str
    members: list[dict[str, Any]] = field(default_factory=list)


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
    graph = to_onnx(module, context)
    session = providers.create_session(graph)

    def run(feed: Mapping[str, np.ndarray]) -> Arrays:
        names = [spec.name for spec in outputs]
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    chosen = batching.take(rows, spread(len(rows[inputs[0].name]), golden_rows))
    shapes = _row_shapes(inputs, context.channels, rows)
    gaps, spreads = _parity(module, run, inputs, shapes, rows)
    answers = _row_by_row(run, chosen)
    golden_spreads = {name: float(answers[name].std(dtype=np.float64)) for name in gaps}
    manifest = Manifest(
        name=about.name,
        version=about.version,
        task=context.task,
        model=str(about.config["model"]["name"]),
        inputs=inputs,
        outputs=outputs,
        provenance=_provenance(about),
        config=dict(about.config),
        metrics=dict(about.metrics),
        determinism={
            "opset": OPSET,
            "ir_version": IR_VERSION,
            "graph_optimization_level": providers.GRAPH_OPTIMIZATION,
            "intra_op_threads": providers.INTRA_OP_THREADS,
            "certificate": [_certify(run, inputs, shape, chosen) for shape in shapes],
            "parity": gaps,
            "parity_rows": list(PARITY_ROWS),
            "golden": {"kind": about.golden, "rows": len(next(iter(chosen.values())))},
            "golden_bound": {
                name: golden_bound(gaps[name], spreads[name], golden_spreads[name]) for name in gaps
            },
            "onnxruntime": onnxruntime.__version__,
            "processor": providers.processor(),
        },
    )
    golden = {f"input.{name}": values for name, values in chosen.items()}
    golden |= {f"output.{name}": values for name, values in answers.items()}
    files = {
        bundle.MODEL: graph,
        bundle.CONFIG: yaml_source.dump(dict(about.config)).encode(),
        bundle.GOLDEN: encode_npz(golden),
        bundle.CARD: model_card(manifest),
    }
    return bundle.write(destination, manifest, files, overwrite=overwrite)


def libraries() -> dict[str, str]:
    """Versions, by name, of the libraries that an artifact's bytes depend on."""
    found = {name: version(name) for name in LIBRARIES}
    return {**found, "onnxruntime": onnxruntime.__version__}


def golden_bound(gap: float, spread: float, golden: float) -> float:
    """How far golden rows may come out elsewhere: max(4 gap, 1e-6 sd), at most 1e-4 sd.

    spread, golden: sd of all answers that were compared, and of the golden rows alone; the ceiling
    goes by the smaller one, since whoever verifies an artifact has the golden rows alone.
    """
    return min(max(4.0 * gap, GOLDEN_FLOOR * spread), GOLDEN_CEILING * min(spread, golden))


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


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices, at most `count`, evenly over 0 … count - 1, ends included."""
    places = np.linspace(0, count - 1, min(wanted, count))
    return [int(place) for place in places.round()]


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


def _parity(
    module: torch.nn.Module,
    run: batching.Run,
    inputs: tuple[TensorSpec, ...],
    shapes: list[batching.RowShape],
    rows: Arrays,
) -> tuple[dict[str, float], dict[str, float]]:
    """Per output, largest gap between torch and ONNX Runtime over row shapes and batch sizes.

    Also the standard deviation of each output over `rows`.
    """
    reference = copy.deepcopy(module).to("cpu").eval()
    gaps: dict[str, float] = {}
    own: dict[str, float] = {}
    for shape in shapes:
        same = shape == batching.row_shape(rows)
        examples = rows if same else batching.probe_rows(inputs, shape, rows)
        count = len(examples[inputs[0].name])
        spreads: dict[str, float] = {}
        # The most rows first: a single row of a single variable has no spread of its own.
        for size in reversed(PARITY_ROWS):
            feed = batching.take(examples, [row % count for row in range(size)])
            got = run(feed)
            with _one_thread(), torch.no_grad():
                answer = reference(*(torch.from_numpy(feed[spec.name]) for spec in inputs))
            wanted = answer if isinstance(answer, tuple) else (answer,)
            for (name, values), tensor in zip(got.items(), wanted, strict=True):
                spread = spreads.setdefault(name, float(tensor.double().std(correction=0)))
                gap = _gap(name, values, tensor.numpy(), dict(shape), spread)
                gaps[name] = max(gaps.get(name, 0.0), gap)
        own = own or spreads  # the first shape is that of the data
    return gaps, own


def _gap(
    name: str, values: np.ndarray, wanted: np.ndarray, shape: Mapping[str, Any], spread: float
) -> float:
    where = f"output {name!r}, {len(values)} rows of {shape}"
    if values.shape != wanted.shape or values.dtype != wanted.dtype:
        raise ExportError(
            f"{where}: torch gives {wanted.dtype} {wanted.shape}, ONNX Runtime {values.dtype} "
            f"{values.shape}"
        )
    if not (np.isfinite(wanted).all() and np.isfinite(values).all()):
        raise ExportError(f"{where}: not finite")
    gap = float(np.max(np.abs(values.astype(np.float64) - wanted)))
    rounding = 4.0 * float(np.finfo(np.float32).eps) * float(np.max(np.abs(wanted)))
    bound = max(PARITY_BOUND * spread, rounding)
    if gap > bound:
        raise ExportError(f"{where}: torch and ONNX Runtime differ by {gap:.3g}, above {bound:.3g}")
    return gap


def _certify(
    run: batching.Run, inputs: tuple[TensorSpec, ...], shape: batching.RowShape, golden: Arrays
) -> dict[str, Any]:
    policy = batching.probe(run, batching.probe_rows(inputs, shape, golden))
    row = {name: list(sizes) for name, sizes in shape}
    return {"row": row, "batch_sizes": list(policy.sizes)}


def _row_by_row(run: batching.Run, rows: Arrays) -> Arrays:
    count = len(next(iter(rows.values())))
    parts = [run(batching.take(rows, [row])) for row in range(count)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _provenance(about: About) -> dict[str, Any]:
    members = {"members": about.members} if about.members else {}
    return {
        **members,
        "config_sha256": config_digest(about.config),
        "data": dict(about.data),
        "data_fingerprint": about.data_fingerprint,
        "sources": dict(SOURCES),
        "libraries": libraries(),
        "seed": about.seed,
        "processor": providers.processor(),
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch with one thread: its sums depend on the number of threads, and so would the gap."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

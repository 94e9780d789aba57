"""What becomes an artifact: a graph is compared with torch, certified, described and written.

The artifact's bytes are a function of weights, configuration, data, library versions and
instruction set: no path, date, host, user or revision enters any of its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from artifact.manifest import Manifest, SeededNoise, TensorSpec, config_digest
from artifact.noise import with_noise
from trainer import yaml_source
from trainer.card import model_card
from trainer.graph import IR_VERSION, OPSET, ExportError

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
    synthetic, rate; `data_fingerprint`: sha256 in hex; `golden`: "real", "synthetic" or
    "simulated"; `members`: of an ensemble, see `Ensemble.description`; `simulation`: of a network
    of neural masses, see `network_export.described`.
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
    simulation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Translated:
    """A graph, and what it has to answer.

    `inputs` and `outputs` as the artifact states them; `reference` gives torch's answer, one tensor
    or several, to the tensors of `inputs` in their order; `noise`: see `artifact.noise`. `shapes`:
    row shapes to certify and to compare, the first that of the golden rows; `parity_rows`: numbers
    of rows to compare; `rounding`: by output, how far apart single precision alone may put answers,
    where that is more than the size of the answers tells; `golden_floor`: how far golden rows may
    come out elsewhere at the least, in standard deviations.
    """

    graph: bytes
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Callable[..., Any]
    shapes: list[batching.RowShape]
    noise: SeededNoise | None = None
    parity_rows: tuple[int, ...] = PARITY_ROWS
    rounding: Mapping[str, float] = field(default_factory=dict)
    golden_floor: float = GOLDEN_FLOOR


def write_translated(
    translated: Translated,
    about: About,
    rows: Arrays,
    golden_rows: int,
    destination: Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Compare and certify a graph and write its artifact; see `write_artifact`."""
    inputs, outputs, shapes = translated.inputs, translated.outputs, translated.shapes
    session = providers.create_session(translated.graph)

    def run(feed: Mapping[str, np.ndarray]) -> Arrays:
        names = [spec.name for spec in outputs]
        if translated.noise is not None:
            feed = with_noise(translated.noise, feed)
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    chosen = batching.take(rows, spread(len(rows[inputs[0].name]), golden_rows))
    gaps, spreads = _parity(translated, run, rows)
    answers = _row_by_row(run, chosen)
    golden_spreads = {name: float(answers[name].std(dtype=np.float64)) for name in gaps}
    manifest = Manifest(
        name=about.name,
        version=about.version,
        task=translated.task,
        noise=translated.noise,
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
            "parity_rows": list(translated.parity_rows),
            "golden": {"kind": about.golden, "rows": len(next(iter(chosen.values())))},
            "golden_bound": {
                name: golden_bound(
                    gaps[name], spreads[name], golden_spreads[name], translated.golden_floor
                )
                for name in gaps
            },
            "onnxruntime": onnxruntime.__version__,
            "processor": providers.processor(),
        },
    )
    golden = {f"input.{name}": values for name, values in chosen.items()}
    golden |= {f"output.{name}": values for name, values in answers.items()}
    files = {
        bundle.MODEL: translated.graph,
        bundle.CONFIG: yaml_source.dump(dict(about.config)).encode(),
        bundle.GOLDEN: encode_npz(golden),
        bundle.CARD: model_card(manifest),
    }
    return bundle.write(destination, manifest, files, overwrite=overwrite)


def libraries() -> dict[str, str]:
    """Versions, by name, of the libraries that an artifact's bytes depend on."""
    found = {name: version(name) for name in LIBRARIES}
    return {**found, "onnxruntime": onnxruntime.__version__}


def golden_bound(gap: float, spread: float, golden: float, floor: float = GOLDEN_FLOOR) -> float:
    """How far golden rows may come out elsewhere: max(4 gap, floor sd), at most 1e-4 sd.

    spread, golden: sd of all answers that were compared, and of the golden rows alone; the ceiling
    goes by the smaller one, since whoever verifies an artifact has the golden rows alone.
    """
    return min(max(4.0 * gap, floor * spread), GOLDEN_CEILING * min(spread, golden))


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices, at most `count`, evenly over 0 … count - 1, ends included."""
    places = np.linspace(0, count - 1, min(wanted, count))
    return [int(place) for place in places.round()]


def _parity(
    translated: Translated, run: batching.Run, rows: Arrays
) -> tuple[dict[str, float], dict[str, float]]:
    """Per output, largest gap between torch and ONNX Runtime over row shapes and batch sizes.

    Also the standard deviation of each output over `rows`.
    """
    inputs = translated.inputs
    gaps: dict[str, float] = {}
    own: dict[str, float] = {}
    for shape in translated.shapes:
        same = shape == batching.row_shape(rows)
        examples = rows if same else batching.probe_rows(inputs, shape, rows)
        count = len(examples[inputs[0].name])
        spreads: dict[str, float] = {}
        # The most rows first: a single row of a single variable has no spread of its own.
        for size in reversed(translated.parity_rows):
            feed = batching.take(examples, [row % count for row in range(size)])
            got = run(feed)
            with _one_thread(), torch.no_grad():
                answer = translated.reference(*(torch.from_numpy(feed[k.name]) for k in inputs))
            wanted = answer if isinstance(answer, tuple) else (answer,)
            for (name, values), tensor in zip(got.items(), wanted, strict=True):
                spread = spreads.setdefault(name, float(tensor.double().std(correction=0)))
                rounding = translated.rounding.get(name, 0.0)
                gap = _gap(name, values, tensor.numpy(), dict(shape), spread, rounding)
                gaps[name] = max(gaps.get(name, 0.0), gap)
        own = own or spreads  # the first shape is that of the data
    return gaps, own


def _gap(
    name: str,
    values: np.ndarray,
    wanted: np.ndarray,
    shape: Mapping[str, Any],
    spread: float,
    rounding: float,
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
    last = 4.0 * float(np.finfo(np.float32).eps) * float(np.max(np.abs(wanted)))
    bound = max(PARITY_BOUND * spread, last, rounding)
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
    simulation = {"simulation": dict(about.simulation)} if about.simulation else {}
    return {
        **members,
        **simulation,
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

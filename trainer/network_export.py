"""From a network of neural masses to an artifact that simulates it for any number of steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor

from artifact import batching, bundle
from artifact.errors import GraphError
from artifact.graph import check
from artifact.manifest import SeededNoise, TensorSpec
from artifact.noise import standard_normals
from trainer import VERSION
from trainer.artifact_writing import GOLDEN_CEILING, About, Translated, write_translated
from trainer.dynamics.balloon import Bold
from trainer.dynamics.network import Network
from trainer.dynamics.node import NODES
from trainer.dynamics.observation import whole_ratio
from trainer.dynamics.onnx_program import OperatorError
from trainer.dynamics.scan import (
    FINAL_STATE,
    NOISE,
    STATE,
    Exported,
    Observed,
    ScanError,
    scan_graph,
)
from trainer.dynamics.scan_reference import begin, packed, simulated
from trainer.dynamics.simulator import SimulationError, SimulationState
from trainer.dynamics.tracing import TraceError
from trainer.graph import IR_VERSION, OPSET, ExportError
from trainer.network_tensors import (
    BOLD,
    GOLDEN_ROWS,
    MEMBER,
    SEED,
    golden_rows,
    golden_steps,
    input_specs,
    output_specs,
    shorter,
)

# Torch runs every step by itself, so few rows are compared.
PARITY_ROWS = (1, 3)
# Far apart, so that the one which is borne is not at the brink.
AMPLITUDES = (0.1, 1e-3, 1e-5, 1e-7)


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkExport:
    """How a network is exported.

    dt, scheme: see `Simulator`. driven: inputs of the node that take a stimulus, by default its
    first one. inputs: constants that enter inputs, beside a stimulus too. parameters: names of
    parameters that callers may set for each row, such as "coupling.k"; one with one value for all
    nodes is filled with the network's own where it is left out. monitors: states or outputs to
    answer with, by default all states; sample_every: steps from one value to the next.
    bold: answer with the BOLD of `observed` as well, which is a state or output of the node, by
    default the first monitor; it enters the balloon as it is sampled.
    noise: "seed" takes a seed and a batch member's number and answers with the run of `Simulator`
    with that seed and member; "input" takes the standard normal numbers. seed: of the start.
    start: where every run begins; by default where a run of `Simulator` with that seed is after
    `transient` ms. carries_on: the state at the start is an input and that at the end an output.
    amplitude: of the stimulus in the golden rows, a pulse; by default the first of `AMPLITUDES`
    under which no trajectory explodes. golden_steps: their length, by default enough for every
    output to have a few values. version: of the artifact.
    """

    dt: float
    scheme: str = "heun"
    driven: tuple[str, ...] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    monitors: tuple[str, ...] | None = None
    sample_every: int = 1
    bold: Bold | None = None
    observed: str | None = None
    noise: Literal["seed", "input"] = "seed"
    seed: int = 0
    start: SimulationState | None = None
    transient: float = 0.0
    carries_on: bool = False
    amplitude: float | None = None
    golden_steps: int | None = None
    version: str = "1"


def export_network(
    network: Network,
    settings: NetworkExport,
    destination: Path | str,
    *,
    name: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the artifact of a network to the folder `destination` and return it.

    name: of the artifact. config: the resolved run, plain JSON without machine paths;
    `config["model"]["name"]` is the model's name, by default the registered name of the node.
    metrics: of a fit, on held-out data. data: name, description and whether it is synthetic; by
    default those of the connectome.
    Raises ExportError where the network has no graph or the graph answers differently from torch,
    FileExistsError where `destination` exists and `overwrite` is not given.
    """
    destination = Path(destination)
    if destination.exists() and not overwrite:
        raise FileExistsError(f"{destination} exists; choose another folder")
    if destination.exists() and not (destination / bundle.MANIFEST).is_file():
        raise ExportError(f"{destination} exists and is no artifact; it is left alone")
    exported = _exported(network, settings)
    try:
        graph, start = scan_graph(exported)
    except (ScanError, OperatorError, TraceError) as error:
        raise ExportError(f"the network cannot be exported: {error}") from error
    seeded = bool(exported.numbers) and settings.noise == "seed"
    inputs, outputs = (
        input_specs(exported, seeded, start.shape[1]),
        output_specs(exported, start.shape[1]),
    )
    steps = settings.golden_steps or golden_steps(exported)
    reference = _reference(exported, settings.bold, inputs, [spec.name for spec in outputs])

    def rows_of(amplitude: float) -> dict[str, np.ndarray]:
        return golden_rows(exported, inputs, start, steps, seed=settings.seed, amplitude=amplitude)

    amplitude = settings.amplitude
    if amplitude is None:
        amplitude = _borne(reference, inputs, rows_of)
    rows = rows_of(amplitude)
    translated = Translated(
        graph=_serialized(graph),
        task="simulate",
        inputs=inputs,
        outputs=outputs,
        reference=reference,
        shapes=[batching.row_shape(rows), shorter(inputs, rows, exported, steps)],
        noise=_seeded(exported) if seeded else None,
        parity_rows=PARITY_ROWS,
        rounding=_rounding(exported, settings.bold),
        golden_floor=GOLDEN_CEILING,  # rounding grows from step to step
    )
    named = {"name": _node_name(network), **dict(config.get("model", {}))}
    about = About(
        name=name,
        version=settings.version,
        config={**config, "model": named},
        metrics=metrics or {},
        data={**_data(network, exported), **(data or {})},
        data_fingerprint=_fingerprint(exported),
        seed=settings.seed,
        golden="simulated",
        simulation=described(exported, amplitude),
    )
    return write_translated(translated, about, rows, GOLDEN_ROWS, destination, overwrite=overwrite)


def _borne(
    reference: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[TensorSpec, ...],
    rows_of: Callable[[float], dict[str, np.ndarray]],
) -> float:
    """The first of `AMPLITUDES` under which the golden rows stay finite."""
    for amplitude in AMPLITUDES:
        rows = rows_of(amplitude)
        try:
            reference(*(torch.from_numpy(rows[spec.name]) for spec in inputs))
        except SimulationError as error:
            explosion = error
        else:
            return amplitude
    raise ExportError(
        f"under a stimulus of {AMPLITUDES[-1]:g} in the artifact's golden rows {explosion}; "
        "a smaller amplitude or another dt or start is needed"
    )


def described(exported: Exported, amplitude: float) -> dict[str, Any]:
    """What readers need to know of time, nodes and inputs; plain JSON.

    `dt_ms` between steps; `step_ms` of every output: from one value to the next; `labels` of the
    nodes; `stimulus`: input of the graph → input of the node; `amplitude` of the golden stimulus.
    """
    steps = dict.fromkeys(exported.monitors, exported.every)
    if exported.observed is not None:
        steps[BOLD] = exported.observed.steps
    return {
        "dt_ms": exported.dt,
        "scheme": exported.scheme,
        "step_ms": {name: count * exported.dt for name, count in steps.items()},
        "labels": list(exported.network.labels),
        "stimulus": {exported.stimulus(name): name for name in exported.driven},
        "held": {name: np.asarray(value).tolist() for name, value in exported.held.items()},
        "amplitude": amplitude,
    }


def _exported(network: Network, settings: NetworkExport) -> Exported:
    values = {
        name: value.detach().float() if isinstance(value, Tensor) else value
        for name, value in network.values().items()
    }
    monitors = network.node.states if settings.monitors is None else settings.monitors
    every = settings.sample_every
    if not monitors:
        raise ExportError("monitors: at least one state or output is wanted")
    if every < 1:
        raise ExportError(f"sample_every is {every}; must be 1 up")
    observed = None
    if settings.bold is not None:
        source = settings.observed or monitors[0]
        observed = _observed(settings.bold, source, every, settings.dt)
    return Exported(
        network=network,
        values=values,
        dt=float(settings.dt),
        scheme=settings.scheme,
        start=settings.start
        or begin(
            network,
            settings.dt,
            settings.scheme,
            inputs=settings.inputs,
            seed=settings.seed,
            transient=settings.transient,
        ),
        driven=network.node.inputs[:1] if settings.driven is None else settings.driven,
        held=settings.inputs,
        parameters=settings.parameters,
        monitors=tuple(monitors),
        every=every,
        observed=observed,
        carries_on=settings.carries_on,
    )


def _observed(bold: Bold, source: str, sampled: int, dt: float) -> Observed:
    interval = sampled * dt
    step = bold._step(interval)
    mean, every = whole_ratio(step, interval), whole_ratio(bold.period, step)
    if mean is None or every is None:
        raise ExportError(
            f"bold: its step of {step:g} ms is shorter than the {interval:g} ms from one value to "
            "the next; a smaller sample_every would do"
        )
    return Observed(bold.balloon, source, sampled, mean, step, bold.scheme, BOLD, every)


def _rounding(exported: Exported, bold: Bold | None) -> dict[str, float]:
    """How far single precision may move answers: they are sums of terms that cancel each other.

    States and outputs have terms near 1; a volume is a difference of numbers near 1, scaled.
    """
    last = float(np.finfo(np.float32).eps)
    found = dict.fromkeys(exported.monitors, 32 * last)
    if bold is not None:
        values = bold.balloon.values()
        names = ("V0", "k1", "k2", "k3")
        scale, *weights = (float(torch.as_tensor(values[name]).max()) for name in names)
        found[BOLD] = 8 * last * scale * sum(weights)
    return found


def _seeded(exported: Exported) -> SeededNoise:
    time, nodes = exported.stimulus(exported.driven[0]), exported.network.nodes
    return SeededNoise(NOISE, SEED, MEMBER, time, exported.numbers, nodes)


def _serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="axonnx",
        producer_version=VERSION,
    )
    try:
        onnx.checker.check_model(model, full_check=True)
        content = bytes(model.SerializeToString(deterministic=True))
        check(content)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        GraphError,
    ) as error:
        raise ExportError(f"the exported graph cannot be used: {error}") from error
    return content


def _reference(
    exported: Exported, bold: Bold | None, inputs: tuple[TensorSpec, ...], outputs: list[str]
) -> Callable[..., tuple[Tensor, ...]]:
    """What torch answers: one tensor for every output, to one for every input."""

    @torch.no_grad()
    def answer(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip((spec.name for spec in inputs), tensors, strict=True))
        run = simulated(
            exported,
            {name: given[exported.stimulus(name)] for name in exported.driven},
            _normals(exported, given, tensors[0].shape[1]),
            {name: given[name] for name in exported.parameters},
            given.get(STATE),
        )
        found = dict(run.values)
        if exported.observed is not None and bold is not None:
            activity = run[exported.observed.source]
            found[BOLD] = bold.observe(activity, exported.every * exported.dt)[0]
        if exported.carries_on:
            found[FINAL_STATE] = packed(run.state)
        return tuple(found[name].contiguous() for name in outputs)

    return answer


def _normals(exported: Exported, given: Mapping[str, Tensor], steps: int) -> Tensor | None:
    if not exported.numbers or NOISE in given:
        return given.get(NOISE)
    pairs = zip(given[SEED].tolist(), given[MEMBER].tolist(), strict=True)
    nodes = exported.network.nodes
    rows = [
        standard_normals(seed, range(member, member + 1), 0, steps, exported.numbers, nodes)
        for seed, member in pairs
    ]
    return torch.from_numpy(np.concatenate(rows))


def _node_name(network: Network) -> str:
    kind = type(network.node)
    return next((name for name in NODES.names() if NODES.get(name) is kind), kind.__name__)


def _data(network: Network, exported: Exported) -> dict[str, Any]:
    connectome = network.connectome
    noun = "node" if network.nodes == 1 else "nodes"
    regions = f"{network.nodes} {type(network.node).__name__} {noun}"
    described = regions if connectome is None else f"{regions} on {connectome.name}"
    return {
        "name": "none" if connectome is None else connectome.name,
        "description": f"{described}.",
        "synthetic": False,
        "rate_hz": 1000.0 / (exported.dt * exported.every),
        "plan": None,
    }


def _fingerprint(exported: Exported) -> str:
    """sha256 in hex of all parameters, weights among them."""
    digest = hashlib.sha256()
    for name, value in sorted(exported.values.items()):
        digest.update(name.encode() + b"\0" + np.asarray(value, np.float32).tobytes())
    return digest.hexdigest()

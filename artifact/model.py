"""Loading an artifact and running it: the only place where a session runs.

`load` verifies the artifact, builds the deterministic session, replays the golden rows and probes
which batch sizes leave a row's bytes alone. `Model.predict` checks the caller's arrays and runs
them by what the probe found, so that an answer never depends on who else called.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from artifact import batching, bundle, golden, graph, noise, providers
from artifact.arrays import Array
from artifact.batching import Policy, RowShape
from artifact.deadline import Clock
from artifact.errors import (
    DeadlineError,
    GoldenError,
    GraphError,
    InputError,
    RunError,
)
from artifact.inputs import check_array, refuse_names, refuse_nonfinite, with_defaults
from artifact.manifest import Manifest

MAX_PROBED_SHAPES = 64
LOAD_SECONDS = 300.0
_ORT_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True)
class GoldenReport:
    """How far the golden rows came out from the stored answers, per output, and the bounds."""

    gap: Mapping[str, float] = field(default_factory=dict)
    bound: Mapping[str, float] = field(default_factory=dict)
    identical: bool = True


def load(
    path: str | os.PathLike[str],
    *,
    provider: str = "cpu",
    max_rows: int = batching.BATCH_SIZES[-1],
    device_id: int = 0,
    gpu_memory: int | None = None,
) -> Model:
    """Load the artifact at `path` (folder or zip) and make it answer, or raise an ArtifactError.

    `provider` is `cpu`, `cuda` or `auto`; `max_rows` bounds the rows of one run, and so the memory;
    `device_id` and `gpu_memory` (bytes, None for all) are for CUDA.
    """
    return Model(
        bundle.read(path),
        provider=provider,
        max_rows=max_rows,
        device_id=device_id,
        gpu_memory=gpu_memory,
    )


class Model:
    """A verified artifact that answers; made by `load`. Safe to use from several threads."""

    def __init__(
        self,
        source: bundle.Bundle,
        *,
        provider: str = "cpu",
        max_rows: int = batching.BATCH_SIZES[-1],
        device_id: int = 0,
        gpu_memory: int | None = None,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}; must be at least 1")
        self.manifest: Manifest = source.manifest
        self.id: str = source.id
        self.card: str = source.files[bundle.CARD].decode("utf-8", "replace")
        model = source.files[bundle.MODEL]
        graph.check(model)
        self._session, self.choice = providers.open_session(
            model, provider, device_id=device_id, gpu_memory=gpu_memory
        )
        self._output_names = [spec.name for spec in self.manifest.outputs]
        self.providers: list[str] = list(self._session.get_providers())
        self.max_rows = max_rows
        self._on_gpu = self.providers[0] != providers.CPU
        self._unprobed = Policy(padded=batching.PADDED_ROWS if self._on_gpu else None)
        self._run_lock = threading.Lock()
        self._policies: dict[RowShape, Policy] = {}
        self._policies_lock = threading.Lock()
        _check_signature(self.manifest, self._session)
        golden_inputs, golden_outputs = golden.read(self.manifest, source.files[bundle.GOLDEN])
        self.golden_inputs: dict[str, Array] = golden_inputs
        with Clock(time.monotonic() + LOAD_SECONDS) as clock:
            self.golden: GoldenReport = self._replay(golden_inputs, golden_outputs, clock)
            self._certify(batching.row_shape(golden_inputs), clock)

    @property
    def onnxruntime_version(self) -> str:
        """The version of ONNX Runtime that answers."""
        return str(onnxruntime.__version__)

    def predict(
        self, inputs: Mapping[str, Array], deadline: float | None = None
    ) -> dict[str, Array]:
        """Answer every row of `inputs`; row i of an output belongs to row i of the inputs.

        `inputs` maps each input's name to an array with the manifest's dtype and axes, batch first;
        one that has a default may be left out. `deadline` is a `time.monotonic()` value. At most
        `max_rows` rows run at a time: beside the inputs and answers, memory does not grow with
        their number (100,000 windows from disk stay below the answer plus 150 MB).
        Raises InputError, DeadlineError or RunError.
        """
        inputs = self.complete(inputs)
        rows = self.check_inputs(inputs)
        if rows > 1 and deadline is None:  # who has no deadline has the time for a probe
            self.certify(batching.row_shape(inputs))
        return self.run(inputs, deadline)

    def run(self, inputs: Mapping[str, Array], deadline: float | None = None) -> dict[str, Array]:
        """Answer inputs that `check_inputs` has let through: `predict` without checks and probe.

        Rows of a shape that is not certified run one by one: slower, with the same bytes. Raises
        DeadlineError, RunError, or InputError where the graph itself refuses a value.
        """
        rows = len(next(iter(inputs.values())))
        shape = batching.row_shape(inputs)
        answers: dict[str, Array] = {}
        start = 0
        with Clock(deadline) as clock:
            policy = self._policies.get(shape, self._unprobed) if rows > 1 else self._unprobed
            if rows in policy.sizes:
                return self._run_padded(dict(inputs), rows, policy, clock)
            for size in policy.chunks(rows):
                chunk = {name: inputs[name][start : start + size] for name in inputs}
                for name, values in self._run_padded(chunk, size, policy, clock).items():
                    if name not in answers:
                        answers[name] = np.empty((rows, *values.shape[1:]), values.dtype)
                    answers[name][start : start + size] = values
                start += size
        return answers

    def complete(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs with those that were left out and have a default; nothing is checked."""
        return with_defaults(self.manifest.inputs, inputs)

    def check_inputs(self, inputs: Mapping[str, Array]) -> int:
        """The number of rows of `inputs`; raises InputError naming the input and what is wrong."""
        rows = self.check_layout(inputs)
        self.check_values(inputs)
        return rows

    def check_layout(self, inputs: Mapping[str, Array]) -> int:
        """The number of rows: names, dtypes and axes are checked, values are not looked at."""
        specs = self.manifest.inputs
        if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
            refuse_names([spec.name for spec in specs], inputs)
        sizes: dict[str, tuple[int, str]] = {}
        for spec in specs:
            check_array(spec, inputs[spec.name], sizes)
        if self.manifest.noise is not None:
            noise.check_steps(self.manifest.noise, inputs)
        return sizes["batch"][0]

    def check_values(self, inputs: Mapping[str, Array]) -> None:
        """Refuse NaN and infinity where the manifest does, in inputs of the right layout."""
        for spec in self.manifest.inputs:
            if spec.nonfinite == "refuse" and spec.dtype.startswith("float"):
                refuse_nonfinite(spec, inputs[spec.name])
        if self.manifest.noise is not None:
            noise.check_seeds(self.manifest.noise, inputs)

    def certify(self, shape: RowShape) -> None:
        """Probe how rows of this shape may share a run on this machine; done once for each shape.

        Takes some 65 rows' time. A shape whose probe fails or takes too long, and those beyond
        `MAX_PROBED_SHAPES`, run row by row from then on.
        """
        with Clock(time.monotonic() + LOAD_SECONDS) as clock:
            self._certify(shape, clock)

    def joinable(self, shape: RowShape) -> tuple[int, ...] | None:
        """Numbers of rows of this shape that may share a run; None where `certify` can tell."""
        policy = self._policies.get(shape)
        if policy is None:
            return None if len(self._policies) < MAX_PROBED_SHAPES else self._unprobed.sizes
        return policy.sizes

    @property
    def exclusive(self) -> bool:
        """Whether runs of this model follow one another anyway, as on a GPU."""
        return self._on_gpu

    def policies(self) -> dict[RowShape, Policy]:
        """The policies found so far, by row shape."""
        with self._policies_lock:
            return dict(self._policies)

    def _certify(self, shape: RowShape, clock: Clock) -> None:
        with self._policies_lock:
            if shape in self._policies or len(self._policies) >= MAX_PROBED_SHAPES:
                return
            self._policies[shape] = self._unprobed  # until the probe is over
        try:
            found = self._probe(shape, clock)
        except (InputError, RunError):  # a graph that takes one row at a time, or other rows
            return
        except DeadlineError:
            if clock.deadline is None or time.monotonic() < clock.deadline:
                raise
            return
        with self._policies_lock:
            self._policies[shape] = found

    def _probe(self, shape: RowShape, clock: Clock) -> Policy:
        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            return self._run(inputs, clock)

        rows = batching.probe_rows(self.manifest.inputs, shape, self.golden_inputs)
        padded = self._unprobed.padded
        if padded:
            found = batching.probe_padded(run, rows, padded)
            return Policy(tuple(size for size in found.sizes if size <= self.max_rows), padded)
        sizes = _certified(self.manifest, shape)
        return batching.probe(run, rows, tuple(size for size in sizes if size <= self.max_rows))

    def _replay(
        self, inputs: Mapping[str, Array], expected: Mapping[str, Array], clock: Clock
    ) -> GoldenReport:
        rows = len(next(iter(inputs.values())))
        got = [self._run(batching.take(inputs, [row]), clock) for row in range(rows)]
        bounds = self.manifest.determinism["golden_bound"]
        gaps: dict[str, float] = {}
        identical = True
        for spec in self.manifest.outputs:
            answer = np.concatenate([part[spec.name] for part in got])
            golden.check_answer(spec, answer, expected[spec.name])
            identical &= answer.tobytes() == expected[spec.name].tobytes()
            gaps[spec.name] = golden.gap(answer, expected[spec.name])
            golden.refuse_loose_bound(spec.name, bounds[spec.name], expected[spec.name])
            if not gaps[spec.name] <= bounds[spec.name]:
                raise GoldenError(
                    f"golden rows: {spec.name} differs by {gaps[spec.name]:.3g} from the stored "
                    f"answer; the bound is {bounds[spec.name]:.3g} (made with onnxruntime "
                    f"{self.manifest.determinism.get('onnxruntime')}, here "
                    f"{self.onnxruntime_version})"
                )
        return GoldenReport(gaps, dict(bounds), identical)

    def _run_padded(
        self,
        chunk: dict[str, Array],
        size: int,
        policy: Policy,
        clock: Clock,
    ) -> dict[str, Array]:
        if policy.padded is None or policy.padded == size:
            return self._run(chunk, clock)
        order = [*range(size), *[size - 1] * (policy.padded - size)]
        outputs = self._run(batching.take(chunk, order), clock)
        return {name: values[:size] for name, values in outputs.items()}

    def _run(self, inputs: Mapping[str, Array], clock: Clock) -> dict[str, Array]:
        clock.refuse_late()
        names = self._output_names
        if self.manifest.noise is not None:
            inputs = noise.with_noise(self.manifest.noise, inputs)
        feed = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        try:
            if self._on_gpu:
                with self._run_lock:
                    values = self._session.run(names, feed, clock.options)
            else:
                values = self._session.run(names, feed, clock.options)
        except InvalidArgument as error:  # such as an index beyond a table
            raise InputError(f"the graph refuses these values: {_reason(error)}") from None
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            clock.refuse_late()
            raise RunError(f"the graph failed to run: {str(error).splitlines()[0]}") from None
        return dict(zip(names, values, strict=True))


def _reason(error: Exception) -> str:
    """What ONNX Runtime says is wrong, without the names of nodes and source files."""
    said = str(error).splitlines()[0].rpartition("Status Message: ")[2]
    return said[-200:] if "/" not in said else "an index or a size is out of range"


def _certified(manifest: Manifest, shape: RowShape) -> tuple[int, ...]:
    """The sizes that export certified for this row shape; all, where export did not try it."""
    wanted = {name: list(dims) for name, dims in shape}
    for entry in manifest.determinism.get("certificate", []):
        if entry["row"] == wanted:
            return tuple(size for size in batching.BATCH_SIZES if size in entry["batch_sizes"])
    return batching.BATCH_SIZES


def _check_signature(manifest: Manifest, session: onnxruntime.InferenceSession) -> None:
    """Names, dtypes and fixed sizes of the graph must be those of the manifest."""
    for kind, specs, values in (
        ("inputs", noise.graph_inputs(manifest.inputs, manifest.noise), session.get_inputs()),
        ("outputs", manifest.outputs, session.get_outputs()),
    ):
        declared = [spec.name for spec in specs]
        found = [value.name for value in values]
        if sorted(declared) != sorted(found):
            raise GraphError(f"{kind}: the manifest says {declared}, the graph has {found}")
        by_name = {value.name: value for value in values}
        for spec in specs:
            value = by_name[spec.name]
            if _ORT_TYPES.get(value.type) != spec.dtype:
                raise GraphError(f"{spec.name}: manifest {spec.dtype}, graph {value.type}")
            if len(value.shape) != len(spec.shape):
                raise GraphError(f"{spec.name}: manifest {spec.layout}, graph {value.shape}")
            for axis, size in zip(spec.axes, value.shape, strict=True):
                if isinstance(size, int) and size != axis.size:
                    raise GraphError(f"{spec.name}: manifest {spec.layout}, graph {value.shape}")

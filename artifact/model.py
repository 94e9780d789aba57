"""Loading an artifact and running it: the only place where a session runs.

`load` verifies the artifact, builds the deterministic session, replays the golden rows and probes
which batch sizes leave a row's bytes alone. `Model.predict` checks the caller's arrays and runs
them by what the probe found, so that an answer never depends on who else called.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime

from artifact import batching, bundle, graph, providers
from artifact.arrays import Array, decode_npz
from artifact.batching import Policy, RowShape
from artifact.errors import (
    DeadlineError,
    GoldenError,
    GraphError,
    InputError,
    ManifestError,
    RunError,
)
from artifact.manifest import Manifest, TensorSpec

MAX_ROW_ELEMENTS = 1 << 26
MAX_PROBED_SHAPES = 64
LOAD_SECONDS = 300.0
GOLDEN_CEILING = 1e-4
_CHECK_ELEMENTS = 1 << 20
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
    path: str | os.PathLike[str], *, provider: str = "cpu", max_rows: int = batching.BATCH_SIZES[-1]
) -> Model:
    """Load the artifact at `path` (folder or zip) and make it answer, or raise an ArtifactError.

    `provider` is `cpu`, `cuda` or `auto`; `max_rows` bounds the rows of one run, and so the memory.
    """
    return Model(bundle.read(path), provider=provider, max_rows=max_rows)


class _Clock:
    """Terminates the runs made under it at the deadline, a `time.monotonic()` value."""

    def __init__(self, deadline: float | None) -> None:
        self.options = onnxruntime.RunOptions()
        self._deadline = deadline
        self._timer: threading.Timer | None = None

    def __enter__(self) -> _Clock:
        if self._deadline is not None:
            self.refuse_late()
            left = self._deadline - time.monotonic()
            self._timer = threading.Timer(left, setattr, (self.options, "terminate", True))
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def refuse_late(self) -> None:
        """Raise DeadlineError once the deadline has passed."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineError("the deadline passed before the answer was there")


class Model:
    """A verified artifact that answers; made by `load`. Safe to use from several threads."""

    def __init__(self, source: bundle.Bundle, *, provider: str = "cpu", max_rows: int = 16) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}; must be at least 1")
        self.manifest: Manifest = source.manifest
        self.id: str = source.id
        model = source.files[bundle.MODEL]
        graph.check(model)
        self._session = providers.create_session(model, provider)
        self.providers: list[str] = list(self._session.get_providers())
        self.max_rows = max_rows
        self._on_gpu = self.providers[0] != providers.CPU
        self._unprobed = Policy(padded=batching.PADDED_ROWS if self._on_gpu else None)
        self._run_lock = threading.Lock()
        self._policies: dict[RowShape, Policy] = {}
        self._policies_lock = threading.Lock()
        _check_signature(self.manifest, self._session)
        golden_inputs, golden_outputs = _read_golden(self.manifest, source.files[bundle.GOLDEN])
        self.golden_inputs: dict[str, Array] = golden_inputs
        with _Clock(time.monotonic() + LOAD_SECONDS) as clock:
            self.golden: GoldenReport = self._replay(golden_inputs, golden_outputs, clock)
            self._policy(batching.row_shape(golden_inputs), clock)

    @property
    def onnxruntime_version(self) -> str:
        """The version of ONNX Runtime that answers."""
        return str(onnxruntime.__version__)

    def predict(
        self, inputs: Mapping[str, Array], deadline: float | None = None
    ) -> dict[str, Array]:
        """Answer every row of `inputs`; row i of an output belongs to row i of the inputs.

        `inputs` maps each input's name to an array with the manifest's dtype and axes, batch first;
        `deadline` is a `time.monotonic()` value. At most `max_rows` rows run at a time: beside the
        inputs and answers, memory does not grow with their number (100,000 windows from disk stay
        below the answer plus 150 MB).
        Raises InputError, DeadlineError or RunError.
        """
        rows = self.check_inputs(inputs)
        shape = batching.row_shape(inputs)
        answers: dict[str, Array] = {}
        start = 0
        with _Clock(deadline) as clock:
            policy = self._policy(shape, clock) if rows > 1 else self._unprobed
            for size in policy.chunks(rows):
                chunk = {name: inputs[name][start : start + size] for name in inputs}
                for name, values in self._run_padded(chunk, size, policy, clock).items():
                    if name not in answers:
                        answers[name] = np.empty((rows, *values.shape[1:]), values.dtype)
                    answers[name][start : start + size] = values
                start += size
        return answers

    def check_inputs(self, inputs: Mapping[str, Array]) -> int:
        """The number of rows of `inputs`; raises InputError naming the input and what is wrong."""
        specs = {spec.name: spec for spec in self.manifest.inputs}
        if missing := [name for name in specs if name not in inputs]:
            raise InputError(f"{missing[0]}: missing; inputs: {', '.join(specs)}", missing[0])
        if unknown := [name for name in inputs if name not in specs]:
            raise InputError(f"{unknown[0]}: unknown; inputs: {', '.join(specs)}", unknown[0])
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self.manifest.inputs:
            _check_array(spec, inputs[spec.name], sizes)
        for spec in self.manifest.inputs:
            if spec.nonfinite == "refuse" and spec.dtype.startswith("float"):
                _refuse_nonfinite(spec, inputs[spec.name])
        return sizes["batch"][0]

    def _policy(self, shape: RowShape, clock: _Clock) -> Policy:
        """How rows of this shape are run on this machine; probed once, then remembered.

        While a shape is being probed, after a probe that failed, and beyond `MAX_PROBED_SHAPES`
        shapes, rows run one by one: slower, with the same bytes.
        """
        with self._policies_lock:
            known = self._policies.get(shape)
            if known is not None or len(self._policies) >= MAX_PROBED_SHAPES:
                return known or self._unprobed
            self._policies[shape] = self._unprobed
        found = self._probe(shape, clock)
        with self._policies_lock:
            self._policies[shape] = found
        return found

    def policies(self) -> dict[RowShape, Policy]:
        """The policies found so far, by row shape."""
        with self._policies_lock:
            return dict(self._policies)

    def _probe(self, shape: RowShape, clock: _Clock) -> Policy:
        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            return self._run(inputs, clock)

        rows = batching.probe_rows(self.manifest.inputs, shape, self.golden_inputs)
        if self._unprobed.padded:
            policy = batching.probe_padded(run, rows, self._unprobed.padded)
        else:
            policy = batching.probe(run, rows, _certified(self.manifest, shape))
        sizes = tuple(size for size in policy.sizes if size <= self.max_rows)
        return Policy(sizes, policy.padded)

    def _replay(
        self, inputs: Mapping[str, Array], expected: Mapping[str, Array], clock: _Clock
    ) -> GoldenReport:
        rows = len(next(iter(inputs.values())))
        got = [self._run(batching.take(inputs, [row]), clock) for row in range(rows)]
        bounds = self.manifest.determinism["golden_bound"]
        gaps: dict[str, float] = {}
        identical = True
        for spec in self.manifest.outputs:
            answer = np.concatenate([part[spec.name] for part in got])
            _check_answer(spec, answer, expected[spec.name])
            identical &= answer.tobytes() == expected[spec.name].tobytes()
            gaps[spec.name] = _gap(answer, expected[spec.name])
            _refuse_loose_bound(spec.name, bounds[spec.name], expected[spec.name])
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
        clock: _Clock,
    ) -> dict[str, Array]:
        if policy.padded is None or policy.padded == size:
            return self._run(chunk, clock)
        order = [*range(size), *[size - 1] * (policy.padded - size)]
        outputs = self._run(batching.take(chunk, order), clock)
        return {name: values[:size] for name, values in outputs.items()}

    def _run(self, inputs: Mapping[str, Array], clock: _Clock) -> dict[str, Array]:
        clock.refuse_late()
        feed = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        names = [spec.name for spec in self.manifest.outputs]
        try:
            if self._on_gpu:
                with self._run_lock:
                    values = self._session.run(names, feed, clock.options)
            else:
                values = self._session.run(names, feed, clock.options)
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            clock.refuse_late()
            raise RunError(f"the graph failed to run: {str(error).splitlines()[0]}") from None
        return dict(zip(names, values, strict=True))


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
        ("inputs", manifest.inputs, session.get_inputs()),
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


def _read_golden(manifest: Manifest, data: bytes) -> tuple[dict[str, Array], dict[str, Array]]:
    try:
        arrays = decode_npz(data)
    except InputError as error:
        raise GoldenError(f"{bundle.GOLDEN}: {error}") from None
    wanted = [f"input.{spec.name}" for spec in manifest.inputs]
    wanted += [f"output.{spec.name}" for spec in manifest.outputs]
    if sorted(arrays) != sorted(wanted):
        raise GoldenError(f"{bundle.GOLDEN}: holds {sorted(arrays)}; must hold {sorted(wanted)}")
    sizes: dict[str, tuple[int, str]] = {}
    try:
        for spec in manifest.inputs:
            _check_array(spec, arrays[f"input.{spec.name}"], sizes)
    except InputError as error:
        raise GoldenError(f"{bundle.GOLDEN}: {error}") from None
    inputs = {spec.name: arrays[f"input.{spec.name}"] for spec in manifest.inputs}
    return inputs, {spec.name: arrays[f"output.{spec.name}"] for spec in manifest.outputs}


def _check_answer(spec: TensorSpec, answer: Array, stored: Array) -> None:
    sizes = zip(spec.shape, answer.shape, strict=False)
    fits = answer.ndim == len(spec.shape) and all(want in (None, got) for want, got in sizes)
    if str(answer.dtype) != spec.dtype or not fits:
        raise ManifestError(f"{spec.name}: declared {spec.layout}, comes out as {answer.shape}")
    if stored.shape != answer.shape or stored.dtype != answer.dtype:
        raise GoldenError(f"golden rows: {spec.name} is stored as {stored.shape} {stored.dtype}")


def _refuse_loose_bound(name: str, bound: float, stored: Array) -> None:
    """A bound that any answer would meet is no test."""
    ceiling = GOLDEN_CEILING * float(stored.std(dtype=np.float64))
    if bound > ceiling * (1 + 1e-9):
        raise GoldenError(
            f"golden rows: the bound {bound:.3g} on {name} is above {ceiling:.3g}, "
            f"{GOLDEN_CEILING:g} of its standard deviation"
        )


def _gap(answer: Array, stored: Array) -> float:
    """Largest absolute difference; infinite where only one of the two is a number."""
    if answer.tobytes() == stored.tobytes():
        return 0.0
    first, second = answer.astype(np.float64), stored.astype(np.float64)
    both = np.isnan(first) & np.isnan(second) | (first == second)
    with np.errstate(invalid="ignore"):
        difference = np.where(both, 0.0, np.abs(first - second))
    return float(np.nan_to_num(difference, nan=np.inf).max())


def _check_array(spec: TensorSpec, array: Array, sizes: dict[str, tuple[int, str]]) -> None:
    """Check one input's type, rank and sizes; `sizes` collects axis sizes shared by name."""
    name = spec.name
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: must be a numpy array, is {type(array).__name__}", name)
    if array.dtype.newbyteorder("=") != np.dtype(spec.dtype):
        raise InputError(f"{name}: dtype {array.dtype}; must be {spec.dtype}", name)
    if not array.dtype.isnative:
        raise InputError(f"{name}: byte order {array.dtype.str!r}; must be native", name)
    if array.ndim != len(spec.axes):
        raise InputError(
            f"{name}: {array.ndim} axes {array.shape}; must be {len(spec.axes)}: {spec.layout}",
            name,
        )
    for axis, size in zip(spec.axes, array.shape, strict=True):
        if axis.size is not None and size != axis.size:
            raise InputError(
                f"{name}: axis {axis.name} has {size}; must have {axis.size}: {spec.layout}", name
            )
        if size == 0:
            raise InputError(f"{name}: axis {axis.name} is empty; at least 1 is wanted", name)
        known, owner = sizes.setdefault(axis.name, (size, name))
        if known != size:
            raise InputError(
                f"{name}: axis {axis.name} has {size}, but {known} in {owner}; must agree", name
            )
    if math.prod(array.shape[1:]) > MAX_ROW_ELEMENTS:
        raise InputError(f"{name}: a row holds more than {MAX_ROW_ELEMENTS} values", name)


def _refuse_nonfinite(spec: TensorSpec, array: Array) -> None:
    """Refuse NaN and infinity, a bounded stretch of rows at a time."""
    step = max(1, _CHECK_ELEMENTS // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        finite = np.isfinite(array[start : start + step])
        if not finite.all():
            place = np.unravel_index(int(np.argmin(finite)), finite.shape)
            where = ", ".join(
                f"{axis.name} {int(index) + (start if axis.name == 'batch' else 0)}"
                for axis, index in zip(spec.axes, place, strict=True)
            )
            raise InputError(f"{spec.name}: not a finite number at {where}", spec.name)

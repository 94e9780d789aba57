"""What an artifact says of itself: tensors, provenance, metrics, determinism and files.

Frozen dataclasses, JSON in and out. Reading refuses unknown and missing keys, and every error
names the field.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from artifact.errors import ConfigMismatchError, ManifestError

SCHEMA = 1
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")
NONFINITE = ("refuse", "allow")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST = 1 << 26


def canonical_json(value: Any) -> bytes:
    """`value` as the one JSON text it can have: sorted keys, two spaces, ASCII, no NaN."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


@dataclass(frozen=True)
class Axis:
    """One named axis of a tensor; `size` is None where it may vary."""

    name: str
    size: int | None = None


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype, named axes, unit and meaning of an input or output; `batch` comes first.

    `default`: the number that fills an input which is left out; None where it has to be given.
    """

    name: str
    dtype: str
    axes: tuple[Axis, ...]
    unit: str
    meaning: str
    nonfinite: str = "refuse"
    default: float | None = None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes of all axes, batch first; None where an axis may vary."""
        return tuple(axis.size for axis in self.axes)

    @property
    def layout(self) -> str:
        """The axes as people write them: `(batch, time=20, channel=61)`."""
        parts = [a.name if a.size is None else f"{a.name}={a.size}" for a in self.axes]
        return f"({', '.join(parts)})"

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        default = {} if self.default is None else {"default": self.default}
        return {
            "name": self.name,
            "dtype": self.dtype,
            "axes": [{"name": axis.name, "size": axis.size} for axis in self.axes],
            "unit": self.unit,
            "meaning": self.meaning,
            "nonfinite": self.nonfinite,
            **default,
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "tensor") -> TensorSpec:
        """Read one spec; raises ManifestError naming the field below `where`."""
        keys = ("name", "dtype", "axes", "unit", "meaning", "nonfinite")
        table = _table(value, where, keys, ("default",))
        axes = tuple(
            _axis(item, f"{where}.axes[{i}]")
            for i, item in enumerate(_list(table["axes"], f"{where}.axes"))
        )
        if not axes or axes[0] != Axis("batch", None):
            raise ManifestError(f"{where}.axes[0]: must be batch with size null")
        if len({axis.name for axis in axes}) != len(axes):
            raise ManifestError(f"{where}.axes: two axes share a name")
        return cls(
            name=_text(table["name"], f"{where}.name", _NAME),
            dtype=_choice(table["dtype"], f"{where}.dtype", DTYPES),
            axes=axes,
            unit=_text(table["unit"], f"{where}.unit"),
            meaning=_text(table["meaning"], f"{where}.meaning"),
            nonfinite=_choice(table["nonfinite"], f"{where}.nonfinite", NONFINITE),
            default=_default(table.get("default"), axes, f"{where}.default"),
        )


@dataclass(frozen=True)
class SeededNoise:
    """Standard normal numbers that the graph takes and that are drawn from a seed, see `noise`.

    `tensor`: name of the graph's input (batch, time, number, node), which callers do not send;
    `seed`, `member`: the inputs (batch) int64 that they send in its place; `time`: the input whose
    axis `time` tells how many steps are wanted; `numbers`, `nodes`: sizes.
    """

    tensor: str
    seed: str
    member: str
    time: str
    numbers: int
    nodes: int

    @classmethod
    def from_json(cls, value: Any, inputs: tuple[TensorSpec, ...]) -> SeededNoise:
        """Read it; raises ManifestError where the inputs do not have what it names."""
        table = _table(value, "noise", tuple(cls.__dataclass_fields__))
        specs = {spec.name: spec for spec in inputs}
        for key in ("seed", "member"):
            spec = specs.get(_text(table[key], f"noise.{key}", _NAME))
            if spec is None or spec.dtype != "int64" or len(spec.axes) != 1:
                raise ManifestError(f"noise.{key}: must be the name of an int64 input (batch)")
        time = specs.get(_text(table["time"], "noise.time", _NAME))
        if time is None or [axis.name for axis in time.axes[:2]] != ["batch", "time"]:
            raise ManifestError("noise.time: must be the name of an input (batch, time, …)")
        tensor = _text(table["tensor"], "noise.tensor", _NAME)
        if tensor in specs or table["seed"] == table["member"]:
            raise ManifestError("noise: two tensors share a name")
        for key in ("numbers", "nodes"):
            if type(table[key]) is not int or not 1 <= table[key] <= _MOST:
                raise ManifestError(f"noise.{key}: must be a whole number from 1 to {_MOST}")
        return cls(**table)


@dataclass(frozen=True)
class FileEntry:
    """One file of the artifact: name, size in bytes, sha256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The whole manifest; `files` lists every file of the artifact but the manifest itself."""

    name: str
    version: str
    task: str
    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provenance: Mapping[str, Any]
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    determinism: Mapping[str, Any]
    files: tuple[FileEntry, ...] = ()
    schema: int = field(default=SCHEMA)
    noise: SeededNoise | None = None

    def to_json(self) -> bytes:
        """The manifest's bytes; their sha256 is the artifact's identity."""
        return canonical_json(
            {
                "schema": self.schema,
                "name": self.name,
                "version": self.version,
                "task": self.task,
                "model": self.model,
                "inputs": [spec.to_json() for spec in self.inputs],
                "outputs": [spec.to_json() for spec in self.outputs],
                "provenance": dict(self.provenance),
                "config": dict(self.config),
                "metrics": dict(self.metrics),
                "determinism": dict(self.determinism),
                "files": [vars(entry) for entry in self.files],
                **({} if self.noise is None else {"noise": vars(self.noise)}),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises ManifestError naming the field, ConfigMismatchError where the configuration inside
        names another model or does not have the hash that the provenance states.
        """
        keys = tuple(key for key in cls.__dataclass_fields__ if key != "noise")
        table = _table(_parse(data), "manifest", keys, ("noise",))
        if table["schema"] != SCHEMA:
            raise ManifestError(f"schema: is {table['schema']!r}; this reader knows {SCHEMA}")
        inputs = _specs(table["inputs"], "inputs")
        noise = table.get("noise")
        manifest = cls(
            schema=SCHEMA,
            name=_text(table["name"], "name", _NAME),
            version=_text(table["version"], "version", _NAME),
            task=_text(table["task"], "task", _NAME),
            model=_text(table["model"], "model", _NAME),
            inputs=inputs,
            outputs=_specs(table["outputs"], "outputs"),
            provenance=_mapping(table["provenance"], "provenance"),
            config=_mapping(table["config"], "config"),
            metrics=_mapping(table["metrics"], "metrics"),
            determinism=_mapping(table["determinism"], "determinism"),
            files=_files(table["files"]),
            noise=None if noise is None else SeededNoise.from_json(noise, inputs),
        )
        _check_bounds(manifest)
        _check_certificate(manifest)
        _check_config(manifest)
        return manifest


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 in hex of a configuration's canonical JSON."""
    return hashlib.sha256(canonical_json(dict(config))).hexdigest()


def _check_config(manifest: Manifest) -> None:
    section = manifest.config.get("model")
    name = section.get("name") if isinstance(section, dict) else None
    if name != manifest.model:
        raise ConfigMismatchError(
            f"model: the manifest says {manifest.model!r}, its config.model.name says {name!r}"
        )
    stated = manifest.provenance.get("config_sha256")
    if stated != config_digest(manifest.config):
        raise ConfigMismatchError("config: its sha256 is not provenance.config_sha256")


def _check_bounds(manifest: Manifest) -> None:
    bounds = _mapping(manifest.determinism.get("golden_bound"), "determinism.golden_bound")
    for spec in manifest.outputs:
        bound = bounds.get(spec.name)
        where = f"determinism.golden_bound.{spec.name}"
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            raise ManifestError(f"{where}: is {bound!r}; must be a number")
        if not 0 <= bound <= sys.float_info.max:
            raise ManifestError(f"{where}: must be finite and not negative")


def _check_certificate(manifest: Manifest) -> None:
    where = "determinism.certificate"
    for i, item in enumerate(_list(manifest.determinism.get("certificate", []), where)):
        entry = _table(item, f"{where}[{i}]", ("row", "batch_sizes"))
        rows = _mapping(entry["row"], f"{where}[{i}].row").values()
        for sizes in (*rows, entry["batch_sizes"]):
            if not all(type(size) is int for size in _list(sizes, f"{where}[{i}]")):
                raise ManifestError(f"{where}[{i}]: sizes must be whole numbers")


def _parse(data: bytes) -> Any:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ManifestError("manifest: a key occurs twice")
        return table

    def refuse_constant(text: str) -> Any:
        raise ManifestError(f"manifest: {text} is no JSON number")

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=refuse_duplicates,
            parse_constant=refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"manifest: not JSON ({error})") from None


def _table(
    value: Any, where: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    table = _mapping(value, where)
    if missing := [key for key in keys if key not in table]:
        raise ManifestError(f"{where}: lacks {', '.join(missing)}")
    if unknown := sorted(set(table) - set(keys) - set(optional)):
        known = ", ".join((*keys, *optional))
        raise ManifestError(f"{where}: unknown {', '.join(unknown)}; known: {known}")
    return table


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: must be an object, is {type(value).__name__}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ManifestError(f"{where}: must be a list, is {type(value).__name__}")
    return value


def _text(value: Any, where: str, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str):
        raise ManifestError(f"{where}: must be text, is {type(value).__name__}")
    if pattern is not None and not pattern.fullmatch(value):
        raise ManifestError(f"{where}: {value[:80]!r} does not match {pattern.pattern}")
    if not value.isprintable():
        raise ManifestError(f"{where}: {value[:80]!r} holds control characters")
    return value


def _choice(value: Any, where: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ManifestError(f"{where}: is {value!r}; must be one of {', '.join(choices)}")
    return str(value)


def _axis(value: Any, where: str) -> Axis:
    table = _table(value, where, ("name", "size"))
    size = table["size"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ManifestError(f"{where}.size: is {size!r}; must be a whole number from 1, or null")
    return Axis(_text(table["name"], f"{where}.name", _NAME), size)


def _default(value: Any, axes: tuple[Axis, ...], where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ManifestError(f"{where}: is {value!r}; must be a number")
    if not abs(value) <= sys.float_info.max:
        raise ManifestError(f"{where}: must be finite")
    if any(axis.size is None for axis in axes[1:]):
        raise ManifestError(f"{where}: an axis may vary; all but batch must have a size")
    return value


def _specs(value: Any, where: str) -> tuple[TensorSpec, ...]:
    specs = tuple(
        TensorSpec.from_json(item, f"{where}[{i}]") for i, item in enumerate(_list(value, where))
    )
    if not specs:
        raise ManifestError(f"{where}: is empty")
    if len({spec.name for spec in specs}) != len(specs):
        raise ManifestError(f"{where}: two tensors share a name")
    return specs


def _files(value: Any) -> tuple[FileEntry, ...]:
    entries = []
    for i, item in enumerate(_list(value, "files")):
        where = f"files[{i}]"
        table = _table(item, where, ("name", "size", "sha256"))
        size = table["size"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ManifestError(f"{where}.size: is {size!r}; must be a whole number from 0")
        entries.append(
            FileEntry(
                name=_text(table["name"], f"{where}.name", _FILE),
                size=size,
                sha256=_text(table["sha256"], f"{where}.sha256", _SHA256),
            )
        )
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise ManifestError("files: two entries share a name")
    return tuple(entries)

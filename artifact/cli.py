"""`axonnx inspect`, `verify` and `predict`: artifacts without torch and without a server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from artifact import bundle, graph, providers
from artifact.arrays import Array, decode_npy, decode_npz, encode_npy, encode_npz
from artifact.errors import ArtifactError, InputError, MissingFileError
from artifact.manifest import Manifest, TensorSpec
from artifact.model import load


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 an artifact that does not hold, 2 wrong arguments or inputs."""
    word, *rest = argv
    commands: dict[str, Callable[[list[str]], int]] = {
        "inspect": _inspect,
        "verify": _verify,
        "predict": _predict,
    }
    try:
        return commands[word](rest)
    except (InputError, MissingFileError) as error:
        return _complain(error, 2)
    except ArtifactError as error:
        return _complain(error, 1)
    except OSError as error:
        return _complain(f"{error.filename or ''}: {error.strerror or error}", 2)


def _complain(error: object, code: int) -> int:
    print(f"axonnx: error: {error}", file=sys.stderr)
    return code


def _inspect(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("axonnx inspect", description="Show what an artifact holds.")
    parser.add_argument("artifact", nargs="+", type=Path, help="artifact folder or zip")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    options = parser.parse_args(argv)
    for path in options.artifact:
        source = bundle.read(path)
        if options.json:
            sys.stdout.write(source.manifest.to_json().decode("ascii"))
            continue
        print(describe(source))
    return 0


def describe(source: bundle.Bundle) -> str:
    """An artifact's manifest, graph and files for a person to read."""
    manifest = source.manifest
    summary = graph.check(source.files[bundle.MODEL])
    provenance, determinism = manifest.provenance, manifest.determinism
    lines = [
        f"{manifest.name} {manifest.version}: {manifest.task} with {manifest.model}",
        f"  id          {source.id}",
    ]
    lines += [f"  input       {_tensor(spec)}" for spec in manifest.inputs]
    lines += [f"  output      {_tensor(spec)}" for spec in manifest.outputs]
    lines += [f"  metric      {name} {_short(value)}" for name, value in _leaves(manifest.metrics)]
    lines += [
        f"  graph       {summary.node_count} nodes, {summary.initializer_bytes} bytes of weights, "
        f"opset {summary.opsets.get('', 0)}, IR {summary.ir_version}",
        f"  made with   {_pairs(provenance.get('libraries'))}",
        f"  made on     {determinism.get('processor', 'unknown')}",
        f"  seed        {provenance.get('seed')}",
        f"  config      sha256 {provenance.get('config_sha256')}",
        f"  data        sha256 {provenance.get('data_fingerprint')}",
        f"  bound       {_pairs(determinism.get('golden_bound'))} (golden rows)",
    ]
    lines += [f"  file        {entry.name} {entry.size} bytes" for entry in manifest.files]
    return "\n".join(lines)


def _verify(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "axonnx verify", description="Check hashes, graph, golden rows and batch invariance."
    )
    parser.add_argument("artifact", nargs="+", type=Path, help="artifact folder or zip")
    _add_provider(parser)
    options = parser.parse_args(argv)
    worst = 0
    for path in options.artifact:
        if not path.exists():
            worst = max(worst, _complain(f"{path}: no such artifact", 2))
            continue
        try:
            model = load(path, provider=options.provider)
        except ArtifactError as error:
            worst = max(worst, _complain(error, 1))
            continue
        print(f"{path}: holds, {model.manifest.name} {model.manifest.version}, id {model.id}")
        print(f"  provider    {model.providers[0]}, onnxruntime {model.onnxruntime_version}")
        for name, gap in model.golden.gap.items():
            same = "the same bytes" if model.golden.identical else f"largest gap {gap:.3g}"
            print(f"  golden rows {name}: {same}, bound {model.golden.bound[name]:.3g}")
        for shape, policy in model.policies().items():
            sizes = ", ".join(f"{name} {dims}" for name, dims in shape)
            print(f"  batches     {policy.describe()} for rows of {sizes}")
    return worst


def _predict(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "axonnx predict",
        description="Run an artifact on arrays and write its answers.",
        epilog="example: axonnx predict demo windows.npy --output forecast.npy",
    )
    parser.add_argument("artifact", type=Path, help="artifact folder or zip")
    parser.add_argument(
        "inputs", type=Path, help=".npy for the only input, or .npz with one array per input"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help=".npy for the only output, or .npz"
    )
    _add_provider(parser)
    options = parser.parse_args(argv)
    if options.output.suffix not in (".npy", ".npz"):
        raise InputError(f"--output {options.output}: must end in .npy or .npz")
    model = load(options.artifact, provider=options.provider)
    outputs = model.predict(read_arrays(options.inputs, model.manifest))
    bundle.write_file(options.output, _encode(outputs, options.output))
    for spec in model.manifest.outputs:
        print(f"{options.output}: {spec.name} {outputs[spec.name].shape}, artifact {model.id}")
    return 0


def read_arrays(path: Path, manifest: Manifest) -> dict[str, Array]:
    """The inputs in a `.npy` (only input) or `.npz` file; a challenge's `arr_0` is the only input.

    Raises InputError for anything else.
    """
    data = path.read_bytes()
    only = manifest.inputs[0].name if len(manifest.inputs) == 1 else None
    if path.suffix == ".npz":
        arrays = decode_npz(data)
        if only is not None and list(arrays) == ["arr_0"]:
            return {only: arrays["arr_0"]}
        return arrays
    if only is None:
        names = ", ".join(spec.name for spec in manifest.inputs)
        raise InputError(f"{path}: the artifact has several inputs; send a .npz with {names}")
    return {only: decode_npy(data, only)}


def _encode(outputs: Mapping[str, Array], path: Path) -> bytes:
    if path.suffix == ".npz":
        return encode_npz(outputs)
    if len(outputs) != 1:
        raise InputError(f"{path}: the artifact has several outputs; write a .npz")
    return encode_npy(next(iter(outputs.values())))


def _add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        choices=providers.CHOICES,
        default="cpu",
        help="execution provider; auto takes CUDA where it starts (default: cpu)",
    )


def _tensor(spec: TensorSpec) -> str:
    unit = f" [{spec.unit}]" if spec.unit else ""
    return f"{spec.name} {spec.dtype} {spec.layout}{unit}: {spec.meaning}"


def _leaves(table: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        found += _leaves(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return found


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"({len(value)} values)"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def _pairs(table: object) -> str:
    if not isinstance(table, dict):
        return "unknown"
    return ", ".join(f"{name} {_short(value).strip(chr(34))}" for name, value in table.items())

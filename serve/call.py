"""`axonnx call`: send arrays or a recording to a service, show and keep what it answers.

Works with the extra `client` alone: no ONNX Runtime, no server framework. A recording is read and
prepared here, as the model's manifest says, which needs the extra `recordings`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.client import RETRIES, TIMEOUT, BadAnswer, Client, InvalidInput, Prediction, ServiceError

if TYPE_CHECKING:  # the package itself would bring onnxruntime with it
    from artifact.arrays import Array

KEY_VARIABLE = "AXONNX_API_KEY"
UNNAMED = "arr_0"  # as numpy.savez calls an array without a name
_COLUMNS = ("output", "shape", "dtype", "min", "max", "mean")


class UsageError(Exception):
    """An argument or a file is wrong; the text says what would be right."""


def main(argv: list[str]) -> int:
    """Run the command; 0 answered, 1 refused or unreachable, 2 wrong arguments or files."""
    options = _parser().parse_args(argv[1:])
    if options.recording or options.file.suffix not in (".npy", ".npz"):
        return _recording(options)
    try:
        if options.output is not None and options.output.suffix not in (".npy", ".npz"):
            raise UsageError(f"--output {options.output}: must end in .npy or .npz")
        arrays = read_arrays(options.file)
        with _client(options) as client:
            start = time.perf_counter()
            prediction = _ask(client, options.model, options.version, arrays)
            seconds = time.perf_counter() - start
        if options.output is not None:
            write_arrays(options.output, prediction.outputs)
    except UsageError as error:
        return _fail(str(error), 2)
    except ServiceError as error:
        unsent = isinstance(error, InvalidInput) and error.status is None
        return _fail(str(error), 2 if unsent else 1)
    report = summary(prediction, seconds)
    print(_json(report) if options.json else table(report))
    return 0


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays in a `.npy` or `.npz` file; the one in a `.npy` is `UNNAMED`.

    Raises UsageError for anything else.
    """
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            return {UNNAMED: found} if isinstance(found, np.ndarray) else dict(found)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except Exception:  # numpy, zipfile and zlib each raise their own on damaged files
        raise UsageError(f"{path}: is no .npy or .npz file of numbers, or is cut short") from None


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a `.npz` (or a `.npy`, of one array) whole or not at all; raises UsageError."""
    if path.suffix == ".npy" and len(arrays) != 1:
        raise UsageError(f"{path}: there are several outputs, {', '.join(arrays)}; write a .npz")
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as stream:
                if path.suffix == ".npy":
                    np.save(stream, next(iter(arrays.values())), allow_pickle=False)
                else:
                    _write_zip(stream, arrays)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def summary(prediction: Prediction, seconds: float) -> dict[str, Any]:
    """Who answered, how long it took, and what each output looks like."""
    return {
        "model": prediction.model,
        "version": prediction.version,
        "artifact": prediction.artifact,
        "request_id": prediction.request_id,
        "seconds": seconds,
        "outputs": [
            {
                "output": name,
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                **_statistics(array),
            }
            for name, array in prediction.outputs.items()
        ],
    }


def table(report: Mapping[str, Any]) -> str:
    """A summary for a person to read."""
    rows = [_COLUMNS, *(_row(output) for output in report["outputs"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        f"model     {report['model']}, version {report['version'] or 'not said'}",
        f"artifact  {report['artifact'] or 'not said'}",
        f"request   {report['request_id']}, {1000 * report['seconds']:.1f} ms",
        "",
    ]
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "axonnx call",
        description="Send arrays, or a recording, to a service and show what it answers.",
        epilog=f"A key that the service asks for is read from the variable {KEY_VARIABLE}. "
        "example: axonnx call http://127.0.0.1:8000 windows.npy --output forecast.npy",
    )
    parser.add_argument("url", metavar="URL", help="address of the service")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a recording; or windows: .npy for the only input, .npz with one array per input",
    )
    parser.add_argument("--model", help="name of the model (default: the only one)")
    parser.add_argument("--version", help="its version (default: the newest)")
    parser.add_argument(
        "--output",
        type=Path,
        help=".npy for the only output, or .npz; of a recording .csv, .npz, "
        ".parquet (default: <file>.predictions.csv)",
    )
    parser.add_argument(
        "--recording", action="store_true", help="FILE is a recording, though an .npy or .npz"
    )
    parser.add_argument("--part", choices=("test",), help="of a recording: what was held out")
    parser.add_argument(
        "--from", dest="start", type=float, metavar="SECONDS", help="from this time"
    )
    parser.add_argument("--to", dest="stop", type=float, metavar="SECONDS", help="up to this time")
    parser.add_argument("--format", help="of a recording (default: found by its content)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a setting of the format"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        help=f"seconds for the answer, with up to {RETRIES} more attempts (default: {TIMEOUT:g})",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def _client(options: argparse.Namespace) -> Client:
    key = os.environ.get(KEY_VARIABLE) or None
    try:
        return Client(options.url, api_key=key, timeout=options.timeout)
    except ValueError as error:
        raise UsageError(str(error).replace("api_key", KEY_VARIABLE)) from None


def _recording(options: argparse.Namespace) -> int:
    """Read, prepare and cut a recording here, and have its windows answered there."""
    from serve.call_recording import call

    if options.version is not None:
        return _fail("--version: a recording is answered by the newest version of a model", 2)
    try:
        with _client(options) as client:
            return call(client, options)
    except UsageError as error:
        return _fail(str(error), 2)
    except ServiceError as error:
        return _fail(str(error), 1)


def _ask(
    client: Client, model: str | None, version: str | None, arrays: Mapping[str, Array]
) -> Prediction:
    """The answer; an array without a name is the model's only input."""
    if list(arrays) == [UNNAMED]:
        document = client.metadata(model, version=version)
        try:
            model = str(document["name"])
            names = [str(item["name"]) for item in document["inputs"]]
        except (KeyError, TypeError):
            raise BadAnswer("the service describes its model in no way known here") from None
        if len(names) != 1:
            raise UsageError(f"{model} has several inputs; send a .npz with {', '.join(names)}")
        arrays = {names[0]: arrays[UNNAMED]}
    return client.predict(model, arrays, version=version)


def _write_zip(stream: Any, arrays: Mapping[str, Array]) -> None:
    """As numpy.savez, which cannot have an array of the name `file`."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # its time is 1980: the same bytes every time
            with archive.open(member, "w", force_zip64=True) as place:
                np.lib.format.write_array(place, array, allow_pickle=False)


def _statistics(array: Array) -> dict[str, Any]:
    if not array.size:
        return {"min": None, "max": None, "mean": None}
    with np.errstate(all="ignore"):  # infinities have no mean
        mean = array.astype(np.float64).mean().item()
    return {"min": array.min().item(), "max": array.max().item(), "mean": mean}


def _row(output: Mapping[str, Any]) -> tuple[str, ...]:
    values = (output[name] for name in ("min", "max", "mean"))
    shape = ", ".join(map(str, output["shape"]))
    numbers = ("" if value is None else f"{value:.6g}" for value in values)
    return output["output"], f"({shape})", output["dtype"], *numbers


def _json(report: Mapping[str, Any]) -> str:
    """The summary as JSON, which has neither NaN nor infinity: null."""
    outputs = [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in output.items()
        }
        for output in report["outputs"]
    ]
    return json.dumps({**report, "outputs": outputs})


def _fail(text: str, code: int) -> int:
    print(f"axonnx: error: {text}", file=sys.stderr)
    return code

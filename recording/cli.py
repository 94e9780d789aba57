"""`axonnx inspect` and `axonnx predict`: recordings here, artifacts and arrays handed on.

What is for `artifact.cli` needs numpy and onnxruntime alone; so does this module until it knows.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from artifact.errors import ArtifactError, InputError, MissingFileError
from recording.errors import RecordingError
from recording.windows_file import holds_windows


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 an artifact that does not hold, 2 wrong arguments or files."""
    word, *rest = argv
    try:
        return _inspect(rest) if word == "inspect" else _predict(rest)
    except (RecordingError, InputError, MissingFileError) as error:
        return _complain(error, 2)
    except ArtifactError as error:
        return _complain(error, 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _complain(f"{place}{error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def is_artifact(path: Path) -> bool:
    """Whether a path is an artifact: a folder or zip with a manifest."""
    if path.is_dir():
        return (path / "manifest.json").is_file()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[-1] == "manifest.json" for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError):
        return False  # whoever reads it says what is wrong with it


def _inspect(words: list[str]) -> int:
    paths = [Path(text) for text in words if not text.startswith("-")]
    if paths and all(map(is_artifact, paths)):
        return _artifact(["inspect", *words])
    from recording.inspection import run

    return run(words)


def _predict(words: list[str]) -> int:
    options = _parser().parse_args(words)
    from artifact import bundle

    manifest = bundle.read(options.artifact).manifest
    data = manifest.provenance.get("data")
    plan = data.get("plan") if isinstance(data, Mapping) else None
    if isinstance(plan, Mapping) and not holds_windows(options.file, manifest):
        from recording.predictions import run

        return run(options, plan)
    _refuse_for_windows(options)
    output = options.output or Path(f"{options.file.stem}.predictions.npz")
    rest = ["--output", str(output), "--provider", options.provider]
    return _artifact(["predict", str(options.artifact), str(options.file), *rest])


def _refuse_for_windows(options: argparse.Namespace) -> None:
    """Raise RecordingError for what only a recording has: times, sessions, formats, a picture."""
    given = {
        "--part": options.part,
        "--from": options.start,
        "--to": options.stop,
        "--stride": options.stride,
        "--session": options.session,
        "--format": options.format,
        "--option": options.option,
        "--picture": options.picture,
    }
    for name, value in given.items():
        if value not in (None, []):
            raise RecordingError(
                f"{name}: is for recordings; this is read as windows", file=options.file.name
            )


def _artifact(argv: list[str]) -> int:
    from artifact.cli import main as artifact_main

    return artifact_main(argv)


def _complain(error: object, code: int) -> int:
    print(f"axonnx: error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="axonnx predict",
        description="Run an artifact on a recording (or on arrays of windows) and write its "
        "predictions with time stamps.",
        epilog="example: axonnx predict runs/mine/artifact subject1.edf --output predictions.csv",
        allow_abbrev=False,
    )
    parser.add_argument("artifact", metavar="ARTIFACT", type=Path, help="artifact folder or zip")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a recording (file or folder); or windows: .npy for the only input, .npz with one "
        "array per input",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=".csv, .npz or .parquet (default: <file>.predictions.csv); for windows .npy or .npz",
    )
    parser.add_argument("--part", choices=("test",), help="only what the model was not trained on")
    parser.add_argument(
        "--from", dest="start", type=float, metavar="SECONDS", help="from this time"
    )
    parser.add_argument("--to", dest="stop", type=float, metavar="SECONDS", help="up to this time")
    parser.add_argument("--stride", type=_positive, metavar="SAMPLES", help="between windows")
    parser.add_argument("--session", help="what the session is called (default: as the file says)")
    parser.add_argument("--format", help="the file's format (default: found by its content)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a setting of the format"
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="default: beside the output")
    parser.add_argument("--no-picture", action="store_true", help="draw none")
    parser.add_argument(
        "--provider",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="execution provider; auto takes CUDA where it starts (default: cpu)",
    )
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1")
    return value

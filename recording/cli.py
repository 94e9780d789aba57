"""`axonnx inspect` and `axonnx predict`: recordings here, artifacts and arrays handed on."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from recording.errors import RecordingError


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 a result that does not hold, 2 wrong arguments or files."""
    word, *rest = argv
    if _is_artifacts(word, rest):
        from artifact.cli import main as artifact_main

        return artifact_main(argv)
    try:
        if word == "inspect":
            from recording.inspection import run
        else:
            from recording.predictions import run
        return run(rest)
    except RecordingError as error:
        print(f"axonnx: error: {error}", file=sys.stderr)
        return 2


def _is_artifacts(word: str, words: list[str]) -> bool:
    """Whether the words are for `artifact.cli`: to inspect an artifact, to predict from arrays.

    An .npy or .npz whose artifact has no plan of its own is windows, not a recording; which of
    both it is, `recording.predictions` finds out.
    """
    paths = [Path(text) for text in words if not text.startswith("-")]
    return word == "inspect" and bool(paths) and all(map(is_artifact, paths))


def is_artifact(path: Path) -> bool:
    """Whether a path is an artifact: a folder or zip with a manifest."""
    if path.is_dir():
        return (path / "manifest.json").is_file()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "manifest.json" for name in archive.namelist())

"""Which format a file is in, found by its content first and its name second, and opening it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recording.contract import Recording
from recording.errors import RecordingError
from recording.readers import FORMATS, Format

HEAD_BYTES = 4096


def open_recording(
    path: Path, options: Mapping[str, Any] | None = None, *, format: str | None = None
) -> Recording:
    """Open a file or folder lazily; `options` are those of its format, `format` names it outright.

    Raises RecordingError: no such file, no known format, an option that the format does not have,
    a missing extra, or whatever is wrong with the content, with file, stream and time.
    """
    path = Path(path)
    if path.name in ("", ".."):
        path = path.resolve()  # "." has no name to call a recording by
    try:
        found = named_format(format) if format else find_format(path)
    except OSError as error:
        raise RecordingError(f"cannot be read: {error.strerror or error}", file=path.name) from None
    try:
        settings = found.options.model_validate(dict(options or {}))
    except ValidationError as error:
        raise RecordingError(_refused(error, found), file=path.name) from None
    try:
        return found.open(path, settings)
    except RecordingError as error:
        raise error.within(file=path.name) from None
    except ModuleNotFoundError as error:
        raise RecordingError(
            f"{found.name} files need the Python package {error.name!r}: run "
            f"`uv sync --extra {found.extra}` (or `pip install 'axonnx[{found.extra}]'`)",
            file=path.name,
        ) from None
    except OSError as error:
        raise RecordingError(f"cannot be read: {error.strerror or error}", file=path.name) from None


def find_format(path: Path) -> Format:
    """The format of a file or folder; raises RecordingError where none knows it."""
    if not path.exists():
        raise RecordingError("no such file or folder", file=path)
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if not head:
            raise RecordingError("is empty", file=path.name)
    for candidate in FORMATS.values():
        if candidate.matches(path, head):
            return candidate
    known = "; ".join(f"{f.name} ({', '.join(f.suffixes)})" for f in FORMATS.values())
    named = [f.name for f in FORMATS.values() if path.suffix.lower() in f.suffixes]
    if named:
        raise RecordingError(
            f"no known format: it is called {path.suffix} but does not begin as {named[0]} does; "
            f"it is damaged or something else; known: {known}",
            file=path.name,
        )
    raise RecordingError(f"no known format; known: {known}", file=path.name)


def _refused(error: ValidationError, found: Format) -> str:
    """What is wrong with an option, and which there are."""
    details = error.errors()[0]
    key = ".".join(map(str, details["loc"]))
    names = list(found.options.model_fields)
    problem = details["msg"]
    if details["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, names, n=1)
        problem = f"there is none{f' (did you mean {close[0]!r}?)' if close else ''}"
    return f"option {key!r} of format {found.name}: {problem}; options: {', '.join(names)}"


def named_format(name: str) -> Format:
    """The format of this name; raises RecordingError where there is none."""
    if name not in FORMATS:
        raise RecordingError(f"no format {name!r}; valid: {', '.join(FORMATS)}")
    return FORMATS[name]

"""`axonnx init FILE`: a commented YAML that trains as it is."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifact.bundle import write_file
from recording.contract import Recording
from recording.health import examine
from recording.opening import open_recording
from recording.options import parse_options
from recording.stream_health import listed
from trainer.config import load_config
from trainer.data import DataError, load_dataset
from trainer.data.windows import Dataset
from trainer.first_choices import choose
from trainer.first_remedies import Choices

TASKS = ("forecast", "classify", "decode")


def run(argv: list[str]) -> int:
    """The command; raises RecordingError, DataError, SplitError, ConfigError."""
    parser = argparse.ArgumentParser(
        prog="axonnx init",
        description="Look at a recording and write a commented YAML that trains as it is.",
        epilog="example: axonnx init session1.edf --task forecast --output configs/mine.yaml",
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="one per session")
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--output", type=Path, metavar="YAML", help="default: <file>_<task>.yaml")
    parser.add_argument(
        "--target",
        metavar="NAME,…",
        help="channels to decode, or the channel of states to classify; also ones that the file "
        "holds among its signals",
    )
    parser.add_argument(
        "--events",
        metavar="NAME,…",
        help="markers to tell apart (classify; default: the two most frequent)",
    )
    parser.add_argument("--format", help="the files' format (default: found by their content)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a setting of the format"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options = parser.parse_args(argv)
    name = f"{_name(options.files[0])}_{options.task}"
    output = options.output or Path(f"{name}.yaml")
    if output.exists() and not options.overwrite:
        raise DataError(f"{output} exists; --overwrite replaces it, --output names another")
    told = parse_options(options.option)
    recordings = [open_recording(file, told, format=options.format) for file in options.files]
    findings = examine(recordings[0]).findings
    choices = choose(
        options.task,
        recordings,
        findings,
        target=_list(options.target),
        events=_list(options.events),
    )
    text = document(name, options.files, recordings, choices, told, options.format)
    dataset = check(text, output)
    write_file(output, text.encode())
    print(f"{output}: {summary(dataset)}")
    print(f"next:\n  {shlex.join(['axonnx', 'train', str(output)])}")
    return 0


def check(text: str, output: Path) -> Dataset:
    """Build the data set that a config text names, as training will; raises what that raises."""
    beside = output.with_name(f"{output.name}.tmp-{os.getpid()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_text(text)
        return load_dataset(load_config(beside, [("name", "check")]).data)
    finally:
        beside.unlink(missing_ok=True)


def summary(dataset: Dataset) -> str:
    """Windows per part, in one line."""
    parts = ", ".join(f"{len(windows)} {part}" for part, windows in dataset.parts.items())
    return f"{parts} windows of {dataset.train.inputs[0].layout} at {dataset.rate:g} Hz"


def document(
    name: str,
    files: Sequence[Path],
    recordings: Sequence[Recording],
    choices: Choices,
    told: dict[str, Any],
    format: str | None,
) -> str:
    """The YAML text."""
    first = recordings[0]
    lines = [
        *_comment(f"{choices.task} from {_listed(files)} ({first.format}).", 0),
        "# Written by `axonnx init` from what the file holds; every line may be changed.",
        f"name: {name}",
        "data:",
        "  name: recording",
        f"  path: {_paths(files)}",
    ]
    if format:
        lines.append(f"  format: {_flow(format)}")
    if told:
        lines.append(f"  reader: {_flow(told)}  # what the file does not say itself")
    lines.append(f"  task: {choices.task}")
    lines += _preparation(choices)
    for key in ("classes", "target", "cut", "window", "observed"):
        value = getattr(choices, key)
        if value is not None:
            lines += _entry(key, value, choices)
        elif key == "window" and "window" in choices.notes:
            lines.append(f"  # window: {choices.notes['window']}")
    for key in ("stride", "split"):
        if getattr(choices, key):
            lines += _entry(key, getattr(choices, key), choices)
    lines += [
        "model:",
        *_comment(choices.notes.get("model", ""), 2),
        f"  name: {choices.model}  # axonnx models lists the others",
        "training:",
        "  epochs: 20  # of networks; closed-form models are fitted at once",
    ]
    return "\n".join(lines) + "\n"


def _preparation(choices: Choices) -> list[str]:
    if not choices.lines:
        return ["  preparation: []  # the recording is taken as it is"]
    lines = ["  preparation:"]
    for line in choices.lines:
        lines += _comment(line.reason, 4)
        lines.append(f"    - {_flow(dict(line.step))}")
    return lines


def _entry(key: str, value: Any, choices: Choices) -> list[str]:
    plain = list(value) if isinstance(value, tuple) else value
    return [*_comment(choices.notes.get(key, ""), 2), f"  {key}: {_flow(plain)}"]


def _comment(text: str, indent: int, width: int = 96) -> list[str]:
    """A comment above what it speaks of, broken into lines."""
    lines: list[str] = []
    for word in printable(text).split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{' ' * indent}# {word}")
    return lines


def _flow(value: Any) -> str:
    """A value as one line of YAML; words that YAML reads as words stay bare."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value):
        reserved = value.lower() in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
        return json.dumps(value) if reserved else value
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def printable(text: str) -> str:
    """A text for a comment: YAML takes no control characters anywhere."""
    return "".join(c if c.isprintable() or c.isspace() else "?" for c in text)


def _listed(files: Sequence[Path]) -> str:
    return listed([file.name or str(file) for file in files])


def _paths(files: Sequence[Path]) -> str:
    texts = [_path(file) for file in files]
    return _flow(texts[0] if len(texts) == 1 else texts)


def _path(file: Path) -> str:
    """As given, or below ${AXONNX_DATA} where it lies there."""
    folder = os.environ.get("AXONNX_DATA")
    if folder:
        root = Path(folder).resolve()
        if file.resolve().is_relative_to(root):
            return "${AXONNX_DATA}/" + file.resolve().relative_to(root).as_posix()
    return str(file)


def _name(file: Path) -> str:
    stem = file.resolve().stem if file.is_file() else file.resolve().name
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")
    return cleaned[:60] or "recording"


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())

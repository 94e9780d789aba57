"""`axonnx inspect FILE`: what a recording holds, what is wrong with it, and what to do next."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from recording.contract import Events, Finding, Recording, Series
from recording.errors import RecordingError
from recording.health import Health, examine
from recording.health_json import to_json
from recording.opening import open_recording
from recording.options import parse_options
from recording.progress import progress
from recording.signals import settle

DONE, UNREADABLE = 0, 2
Add = Callable[[str, int | None], Callable[[int], None]]


def run(argv: list[str]) -> int:
    """Inspect every file of a command line; 0 also with findings, 2 where one cannot be read."""
    chosen = _parser().parse_args(argv)
    if chosen.output is not None and len(chosen.files) > 1:
        raise RecordingError("--output names one picture; leave it out for several files")
    options = parse_options(chosen.option)
    code, documents = DONE, []
    for path in chosen.files:
        try:
            documents.append(_inspect(path, options, chosen))
        except RecordingError as error:
            print(f"axonnx: error: {error.within(file=path.name)}", file=sys.stderr)
            code = UNREADABLE
    if chosen.json:
        found = documents[0] if len(chosen.files) == 1 and documents else documents
        if documents or len(chosen.files) > 1:
            print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
    return code


def tasks(recording: Recording, findings: Sequence[Finding] = ()) -> tuple[str, ...]:
    """The tasks that a recording allows: forecast, classify, decode.

    Classes may be trials, markers, or states in a channel that the health check found.
    """
    states = any(finding.kind == "code" for finding in findings)
    neural = isinstance(recording.modalities.get("neural"), Series)
    spikes = recording.modalities.get("spikes")
    signal = neural or (isinstance(spikes, Events) and len(spikes) > 0)
    if not signal:
        return ()
    found = ["forecast"]
    if states or _classes(recording.trials) > 1 or _classes(recording.markers) > 1:
        found.append("classify")
    behavior = recording.modalities.get("behavior")
    if behavior is not None and not isinstance(behavior, Events):
        found.append("decode")
    return tuple(found)


def _classes(events: Events | None) -> int:
    """How many kinds of events occur more than once."""
    return 0 if events is None else sum(count > 1 for count in events.counts.values())


def next_commands(
    recording: Recording, findings: Sequence[Finding], path: Path, words: Sequence[str] = ()
) -> list[str]:
    """`axonnx init` for every task that the recording allows; `words`: options it was read with."""
    start = ["axonnx", "init", str(path), *words]
    return [shlex.join([*start, "--task", task]) for task in tasks(recording, findings)]


def _inspect(path: Path, options: dict[str, object], chosen: argparse.Namespace) -> object:
    recording = _settled(open_recording(path, options, format=chosen.format))
    with progress() as bars:
        health = _examine(recording, bars.add, full=chosen.full)
    commands = next_commands(recording, health.findings, path, _words(chosen))
    picture: Path | None = None
    if not chosen.no_picture:
        picture = _picture(recording, health, chosen.output or Path(f"{path.stem}.inspect.png"))
    if chosen.json:
        return to_json(health, commands)
    from recording.inspection_text import show

    show(health, commands, picture)
    return None


def _examine(recording: Recording, add: Add, *, full: bool) -> Health:
    """Examine with a bar whose length is known at the first block."""
    advance, done = None, 0

    def told(now: int, total: int) -> None:
        nonlocal advance, done
        if advance is None:
            advance = add(f"reading {recording.source}", total)
        advance(now - done)
        done = now

    return examine(recording, progress=told, full=full)


def _settled(recording: Recording) -> Recording:
    """The recording with every series readable by slice, for the check and for the picture."""
    modalities = {
        name: replace(one, values=settle(one.values)) if isinstance(one, Series) else one
        for name, one in recording.modalities.items()
    }
    return replace(recording, modalities=modalities)


def _picture(recording: Recording, health: Health, destination: Path) -> Path:
    try:
        from recording.pictures import draw
    except ModuleNotFoundError as error:
        raise RecordingError(
            f"a picture needs the Python package {error.name!r}: install axonnx[recordings], or "
            "ask for none with --no-picture"
        ) from None
    if not destination.parent.is_dir():
        raise RecordingError(f"--output: no folder {destination.parent}")
    try:
        return draw(recording, health, destination)
    except OSError as error:
        raise RecordingError(
            f"the picture {destination} cannot be written: {error.strerror or error}"
        ) from None


def _words(chosen: argparse.Namespace) -> list[str]:
    words = ["--format", chosen.format] if chosen.format else []
    for option in chosen.option:
        words += ["--option", option]
    return words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "axonnx inspect",
        description="Show what a recording (or an artifact) holds, what is wrong with it and what "
        "to do about it, and draw it.",
        epilog="example: axonnx inspect recording.vhdr",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recording or folder")
    parser.add_argument("--format", help="its format, where it is not found by itself")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the file does not say, such as rate=250; may be repeated",
    )
    parser.add_argument(
        "--output", type=Path, help="the picture (default: FILE's stem.inspect.png)"
    )
    parser.add_argument("--no-picture", action="store_true", help="draw nothing")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--full", action="store_true", help="read all of a long file, not 200 MB spread over it"
    )
    return parser

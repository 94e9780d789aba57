"""The health of a recording for a person to read: tables that fit 80 columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from recording.contract import Finding
from recording.health import ChannelHealth, Health, StreamHealth
from recording.readers import FORMATS

CHANNELS = 40
KINDS = 20
COLOR = {"warning": "yellow", "note": "cyan"}


def show(
    health: Health, commands: Sequence[str], picture: Path | None, console: Console | None = None
) -> None:
    """Print everything that was found, what to do about it and what may come next."""
    console = console or Console(highlight=False, soft_wrap=False)
    who = [f"session {health.session}"]
    who += [f"subject {health.subject}"] if health.subject else []
    who += [f"site {health.site}"] if health.site else []
    known = FORMATS.get(health.format)
    title = (known.title if known is not None else "") or health.format
    console.print(f"[bold]{escape(health.source)}[/]: {escape(title)}", highlight=False)
    console.print(f"  {escape(', '.join(who))}")
    for name, fact in health.facts.items():
        console.print(Padding(f"{escape(name)}: {escape(str(fact))}", (0, 0, 0, 2)))
    console.print(_streams(health.streams))
    for stream in health.streams:
        if stream.channels:
            _channels(console, stream)
        if stream.counts:
            _counts(console, stream)
    _findings(console, health.findings)
    if picture is not None:
        console.print(f"picture: {escape(str(picture))}", soft_wrap=True)
    if commands:
        console.print("next:")
        for command in commands:
            console.print(f"  {escape(command)}", soft_wrap=True)


def _streams(streams: Sequence[StreamHealth]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (
        ("stream", "left"),
        ("kind", "left"),
        ("rate", "right"),
        ("shape", "right"),
        ("span (s)", "right"),
        ("recorded", "right"),
        ("unit", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for stream in streams:
        kind = stream.kind if stream.pieces == 1 else f"{stream.kind}, {stream.pieces} pieces"
        if stream.examined < 0.999:
            kind += f" ({100 * stream.examined:.2g} % read)"
        table.add_row(
            escape(stream.name),
            kind,
            "" if stream.rate is None else f"{stream.rate:.5g} Hz",
            " × ".join(map(str, stream.shape)),
            f"{stream.start:.6g} – {stream.stop:.6g}",
            _duration(stream.duration),
            escape(stream.unit) or ("not stated" if stream.channels else ""),
        )
    return table


def _channels(console: Console, stream: StreamHealth) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    types = {channel.type for channel in stream.channels}
    units = {channel.unit for channel in stream.channels}
    shown = _shown(stream.channels)
    marked = any(channel.marks for channel in shown)
    # What all channels share is said once: 80 columns are few.
    common = f", {units.pop() or 'no unit stated'}" if len(units) == 1 else ""
    title = f"{stream.name}: {_types(stream.channels)}{common}"
    table.add_column("channel", overflow="fold", min_width=min(24, max(map(_width, shown))))
    for name in (["type"] if len(types) > 1 else []) + (["unit"] if not common else []):
        table.add_column(name, no_wrap=True)
    for name in ("least", "greatest", "mean", "std"):
        table.add_column(name, justify="right", no_wrap=True)
    if marked:
        table.add_column("findings", overflow="fold")
    for channel in shown:
        cells = [escape(channel.name)]
        cells += [channel.type] if len(types) > 1 else []
        cells += [escape(channel.unit) or "–"] if not common else []
        cells += map(_short, (channel.minimum, channel.maximum, channel.mean, channel.std))
        cells += [", ".join(channel.marks)] if marked else []
        table.add_row(*cells, style="yellow" if channel.marks else "")
    _titled(console, title, table)
    if len(shown) < len(stream.channels):
        console.print(f"{len(stream.channels) - len(shown)} more channels: --json has all")


def _width(channel: ChannelHealth) -> int:
    return max(7, len(channel.name))


def _shown(channels: Sequence[ChannelHealth]) -> list[ChannelHealth]:
    """All of a few channels; of many the first and those with findings."""
    if len(channels) <= CHANNELS:
        return list(channels)
    marked = [channel for channel in channels if channel.marks][: CHANNELS // 2]
    rest = [channel for channel in channels if channel not in marked]
    few = {id(channel) for channel in (*marked, *rest[: CHANNELS - len(marked)])}
    return [channel for channel in channels if id(channel) in few]


def _counts(console: Console, stream: StreamHealth) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    title = f"{stream.name}: {stream.shape[0]}"
    if stream.intervals is not None:
        apart = stream.intervals
        title += (
            f", apart {apart.shortest:.3g} to {apart.longest:.3g} s, median {apart.median:.3g} s"
        )
    table.add_column("kind", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    total = sum(stream.counts.values())
    for name, count in list(stream.counts.items())[:KINDS]:
        table.add_row(escape(name), str(count), f"{100 * count / max(total, 1):.1f} %")
    _titled(console, title, table)
    if len(stream.counts) > KINDS:
        console.print(f"{len(stream.counts) - KINDS} more kinds: --json has all")


def _titled(console: Console, title: str, table: Table) -> None:
    console.print(f"[bold]{escape(title)}[/]")
    console.print(table)


def _findings(console: Console, findings: Sequence[Finding]) -> None:
    if not findings:
        console.print("findings: none")
        return
    warnings = sum(finding.level == "warning" for finding in findings)
    notes = len(findings) - warnings
    console.print(
        f"findings: {warnings} warning{'' if warnings == 1 else 's'}, "
        f"{notes} note{'' if notes == 1 else 's'}"
    )
    for finding in findings:
        color = COLOR[finding.level]
        where = f" ({escape(finding.stream)})" if finding.stream else ""
        head = f"[{color}]{finding.level}[/] [bold]{finding.kind}[/]{where}: "
        console.print(Padding(head + escape(finding.text), (0, 0, 0, 2)))
        if finding.times:
            times = ", ".join(f"{time:.6g}" for time in finding.times[:6])
            more = " …" if len(finding.times) > 6 else ""
            console.print(Padding(f"at {times}{more} s", (0, 0, 0, 6)))
        console.print(Padding(f"→ {escape(finding.remedy)}", (0, 0, 0, 4)))
        for step in finding.steps:
            console.print(Padding(escape(f"- {flow(step)}"), (0, 0, 0, 6)))


def flow(value: Any) -> str:
    """Plain values as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        plain = value.isidentifier() and value.lower() not in ("null", "true", "false", "yes", "no")
        return value if plain else json.dumps(value, ensure_ascii=False)
    return "null" if value is None else json.dumps(value)


def _types(channels: Sequence[ChannelHealth]) -> str:
    counts: dict[str, int] = {}
    for channel in channels:
        counts[channel.type] = counts.get(channel.type, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.4g} s"
    if seconds < 7200:
        return f"{seconds / 60:.4g} min"
    return f"{seconds / 3600:.4g} h"

"""The health of a recording as plain JSON values: everything, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recording.contract import Finding
from recording.health import Health, StreamHealth


def to_json(health: Health, commands: Sequence[str] = ()) -> dict[str, Any]:
    """Facts, streams, findings and what may come next; numbers that are none are null."""
    return {
        "source": health.source,
        "format": health.format,
        "session": health.session,
        "subject": health.subject,
        "site": health.site,
        "facts": dict(sorted(health.facts.items())),
        "streams": [_stream(stream) for stream in health.streams],
        "findings": [_finding(finding) for finding in health.findings],
        "next": list(commands),
    }


def _stream(stream: StreamHealth) -> dict[str, Any]:
    found = {
        "name": stream.name,
        "kind": stream.kind,
        "shape": list(stream.shape),
        "rate": stream.rate,
        "start": stream.start,
        "stop": stream.stop,
        "duration": stream.duration,
        "pieces": stream.pieces,
        "examined": stream.examined,
        "channels": [asdict(channel) for channel in stream.channels],
        "counts": dict(stream.counts),
        "intervals": asdict(stream.intervals) if stream.intervals else None,
    }
    if stream.spectrum is not None:
        found["spectrum"] = {
            "frequencies": stream.spectrum.frequencies.tolist(),
            "power": {kind: power.tolist() for kind, power in stream.spectrum.power.items()},
        }
    plain = _plain(found)
    assert isinstance(plain, dict)
    return plain


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "level": finding.level,
        "stream": finding.stream,
        "channels": list(finding.channels),
        "times": [_plain(time) for time in finding.times],
        "text": finding.text,
        "remedy": finding.remedy,
        "steps": [_plain(step) for step in finding.steps],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value

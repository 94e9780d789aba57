"""The health of a recording: its figures and what is wrong with it, found from the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recording.behavior_findings import event_findings, lost_positions
from recording.channel_findings import channel_figures, channel_findings
from recording.contract import Events, Finding, Recording, Samples, Series
from recording.lagged_copies import lagged_findings
from recording.series_sample import parts, plane, take_pilot
from recording.series_scan import run_through
from recording.signals import settle
from recording.stream_health import ChannelHealth, Intervals, Spectrum, StreamHealth
from recording.time_findings import clock_findings, samples_findings, series_findings

__all__ = ["ChannelHealth", "Finding", "Health", "Intervals", "Spectrum", "StreamHealth", "examine"]

BEHAVIOR_SAMPLES = 2**22


@dataclass(frozen=True, eq=False)
class Health:
    """What a recording holds: its streams (modalities, then markers and trials) and findings."""

    source: str
    format: str
    session: str
    subject: str = ""
    site: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[StreamHealth, ...] = ()
    findings: tuple[Finding, ...] = ()

    def stream(self, name: str) -> StreamHealth | None:
        """The stream of this name, None where there is none."""
        return next((stream for stream in self.streams if stream.name == name), None)


def examine(
    recording: Recording,
    *,
    progress: Callable[[int, int], None] | None = None,
    full: bool = False,
) -> Health:
    """Read a recording in blocks and say what is in it and what is wrong.

    Of a long series, evenly spread stretches of some 200 MB together are read, unless `full`.
    `progress` gets the number of samples done and of all to be read. Raises RecordingError where
    the content cannot be read.
    """
    plans: dict[str, tuple[Series, list[tuple[int, int]]]] = {}
    for name, modality in recording.modalities.items():
        if isinstance(modality, Series):
            series = modality.with_values(settle(modality.values))
            plans[name] = series, parts(series, full=full)
    total = sum(stop - start for _, wanted in plans.values() for start, stop in wanted)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    streams: list[StreamHealth] = []
    findings: list[Finding] = []
    for name, modality in recording.modalities.items():
        if isinstance(modality, Series):
            stream, found = _series(name, *plans[name], advance)
        elif isinstance(modality, Samples):
            stream, found = _samples(name, modality)
        else:
            stream, found = _events(name, modality), list(event_findings(name, modality))
        streams.append(_marked(stream, [*recording.findings, *found]))
        findings += found
    for name, events in (("markers", recording.markers), ("trials", recording.trials)):
        if events is not None:
            streams.append(_events(name, events))
            findings += event_findings(name, events)
    findings += clock_findings(recording.modalities, recording.markers)
    return Health(
        source=recording.source,
        format=recording.format,
        session=recording.session,
        subject=recording.subject,
        site=recording.site,
        facts=dict(recording.facts),
        streams=tuple(streams),
        findings=tuple(_once(recording.findings, findings)),
    )


def _series(
    name: str, series: Series, wanted: list[tuple[int, int]], advance: Callable[[int], None]
) -> tuple[StreamHealth, list[Finding]]:
    pilot = take_pilot(series)
    scan = run_through(series, pilot, wanted, advance)
    channels = channel_figures(series, pilot, scan)
    findings = list(channel_findings(name, series, pilot, scan, channels))
    if name == "neural":
        findings += lagged_findings(name, series, channels)
    findings += series_findings(name, series, scan)
    if name == "behavior":
        start, stop = 0, min(len(series.values), BEHAVIOR_SAMPLES)
        findings += lost_positions(
            name, series.times(start, stop), plane(series, start, stop), series.channels
        )
    first, last = series.span
    stream = StreamHealth(
        name=name,
        kind="series",
        shape=tuple(series.values.shape),
        rate=series.rate,
        start=first,
        stop=last,
        duration=series.duration,
        pieces=len(series.pieces),
        examined=scan.count / len(series.values),
        channels=channels,
        spectrum=pilot.spectrum,
        correlation=pilot.correlation,
    )
    return stream, findings


def _samples(name: str, samples: Samples) -> tuple[StreamHealth, list[Finding]]:
    steps = np.diff(samples.times)
    rate = 1 / float(np.median(steps)) if len(steps) else None
    first, last = samples.span
    stream = StreamHealth(
        name=name,
        kind="samples",
        shape=tuple(samples.values.shape),
        rate=rate,
        start=first,
        stop=last,
        duration=last - first,
        channels=tuple(_sample_channel(samples, index) for index in range(len(samples.channels))),
    )
    findings = [
        *lost_positions(name, samples.times, samples.values, samples.channels),
        *samples_findings(name, samples),
    ]
    return stream, findings


def _sample_channel(samples: Samples, index: int) -> ChannelHealth:
    channel = samples.channels[index]
    values = np.asarray(samples.values[:, index], np.float64)
    finite = values[np.isfinite(values)]
    known = ChannelHealth(channel.name, channel.type, channel.unit, position=channel.position)
    if not finite.size:
        return replace(known, missing=1.0)
    return replace(
        known,
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        mean=float(finite.mean()),
        std=float(finite.std()),
        spread=1.4826 * float(np.median(np.abs(finite - np.median(finite)))),
        missing=1 - finite.size / values.size,
        flat=bool(finite.min() == finite.max()),
    )


def _events(name: str, events: Events) -> StreamHealth:
    times = events.times
    span = events.span or ((float(times[0]), float(events.stops.max())) if len(times) else (0, 0))
    apart = np.diff(times)
    return StreamHealth(
        name=name,
        kind="events",
        shape=(len(events),),
        rate=None,
        start=float(span[0]),
        stop=float(span[1]),
        duration=float(span[1] - span[0]),
        counts=events.counts,
        intervals=(
            Intervals(float(apart.min()), float(np.median(apart)), float(apart.max()))
            if len(apart)
            else None
        ),
    )


def _marked(stream: StreamHealth, findings: list[Finding]) -> StreamHealth:
    """The stream with every channel marked by the kinds of the warnings that name it."""
    marks: dict[str, list[str]] = {}
    # What is true of most channels says nothing about one of them.
    most = max(2, len(stream.channels) // 2)
    for finding in findings:
        named = len(finding.channels)
        if finding.stream in (stream.name, "") and finding.level == "warning" and named <= most:
            for channel in finding.channels:
                marks.setdefault(channel, []).append(finding.kind)
    channels = tuple(
        replace(channel, marks=tuple(dict.fromkeys(marks.get(channel.name, ()))))
        for channel in stream.channels
    )
    return replace(stream, channels=channels)


def _once(said: Sequence[Finding], found: list[Finding]) -> Iterator[Finding]:
    """Each finding once: what the reader says of a stream is not said again by the check."""
    known = {(finding.kind, finding.stream) for finding in said}
    yield from said
    for finding in found:
        if finding.kind in ("scale", "unit", "joined") and (
            {(finding.kind, finding.stream), (finding.kind, "")} & known
        ):
            continue
        yield finding

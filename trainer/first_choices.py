"""What a first config says of a recording: preparation, windows, split and model, with reasons.

Plain rules over what the file holds; `trainer.first_config` writes them down as YAML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recording.contract import NEURAL_TYPES, Events, Finding, Recording, Samples, Series
from recording.errors import RecordingError

FORECAST_RATE = 250.0  # Hz; above it, ten steps are less than 40 ms
CLASSIFY_RATE = 128.0
DECODE_RATE = 10.0
BIN = 0.25  # seconds per bin of spikes
WINDOWS = 4000  # train windows that are plenty for a first run
EPOCH = 0.8  # seconds after a marker
SHARES = (
    (0.6, 0.15, 0.25),
    (0.6, 0.2, 0.2),
    (0.5, 0.2, 0.3),
    (0.5, 0.25, 0.25),
    (0.4, 0.3, 0.3),
    (0.4, 0.2, 0.4),
    (0.6, 0.1, 0.3),
)
STATES = 12  # at most so many values make a behaviour channel a state


@dataclass(frozen=True)
class Line:
    """One step of a preparation and why it is there."""

    step: Mapping[str, Any]
    reason: str


@dataclass
class Choices:
    """What goes into the config; `notes` are reasons by key."""

    task: str
    lines: list[Line] = field(default_factory=list)
    window: int | None = 20
    observed: int | None = None
    cut: str | None = None
    classes: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    stride: dict[str, int] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    model: str = "linear"
    notes: dict[str, str] = field(default_factory=dict)


# Findings whose remedy comes before everything else, in this order.
EARLY = ("joined", "unit", "scale", "missing", "noisy", "flat", "artefact")


def choose(
    task: str,
    recordings: Sequence[Recording],
    findings: Sequence[Finding],
    *,
    target: tuple[str, ...] | None = None,
    events: tuple[str, ...] | None = None,
) -> Choices:
    """Choices for a task; raises RecordingError where the recording does not allow it."""
    first = recordings[0]
    chosen = Choices(task)
    remedies(chosen, findings)
    {"forecast": _forecast, "classify": _classify, "decode": _decode}[task](
        chosen, first, target, events
    )
    if len(recordings) > 1:
        _sessions(chosen, recordings)
    return chosen


def remedies(chosen: Choices, findings: Sequence[Finding]) -> None:
    """The findings' own steps, in an order that makes sense, each once."""
    order = {kind: place for place, kind in enumerate(EARLY)}
    ordered = sorted(findings, key=lambda finding: order.get(finding.kind, len(order)))
    for finding in ordered:
        for step in finding.steps:
            if step.get("step") == "mask":
                continue  # behind the step that makes the behaviour
            if all(dict(line.step) != dict(step) for line in chosen.lines):
                chosen.lines.append(Line(step, finding.text))


def _forecast(chosen: Choices, recording: Recording, target: object, events: object) -> None:
    rate, pieces, length = _neural(chosen, recording, FORECAST_RATE)
    chosen.observed, chosen.window = 10, 20
    span = 1000 * 10 / rate
    chosen.notes["window"] = (
        f"samples of {1000 / rate:g} ms: {span:g} ms observed, {span:g} ms forecast"
    )
    train = max(1, round(0.7 * (length - pieces * 20) / WINDOWS))
    chosen.stride = {"train": max(2, train), "validation": max(2, train), "test": 10}
    chosen.notes["stride"] = "train windows overlap; test windows forecast every sample once"
    chosen.split = _split_by_time(chosen, recording, pieces)
    chosen.notes["model"] = "ridge over lags: the floor that a network has to beat"


def _classify(
    chosen: Choices,
    recording: Recording,
    target: tuple[str, ...] | None,
    events: tuple[str, ...] | None,
) -> None:
    series = recording.modalities.get("neural")
    fast = isinstance(series, Series) and series.rate > 2 * CLASSIFY_RATE
    rate, _, length = _neural(chosen, recording, CLASSIFY_RATE if fast else FORECAST_RATE * 100)
    chosen.model = "linear_readout"
    chosen.notes["model"] = "shrinkage LDA on time bins and power: strong on few trials"
    if recording.trials is not None and len(recording.trials):
        _trials(chosen, recording.trials, rate)
    elif events or (recording.markers is not None and len(recording.markers) and not target):
        _epochs(chosen, recording.markers, rate, events, recording.source)
    else:
        _states(chosen, recording, rate, length, target)


def _trials(chosen: Choices, trials: Events, rate: float) -> None:
    assert trials.durations is not None
    counts = {name: count for name, count in trials.counts.items() if count}
    if len(counts) < 2:
        raise RecordingError(
            f"its trials have one class, {next(iter(counts), 'none')}; classify needs two: name "
            "markers with --events, or a behaviour channel with --target"
        )
    chosen.cut, chosen.window = "trial", None
    chosen.classes = tuple(counts)
    seconds = float(trials.durations.min())
    chosen.notes["window"] = f"the shortest trial, {seconds:g} s = {round(seconds * rate)} samples"
    chosen.notes["classes"] = ", ".join(f"{name}: {count}" for name, count in counts.items())
    chosen.split = {"by": "trial", "train": 0.7, "validation": 0.15, "test": 0.15}
    chosen.notes["split"] = "whole trials in the order of recording, never shuffled samples"


def _epochs(
    chosen: Choices,
    markers: Events | None,
    rate: float,
    events: tuple[str, ...] | None,
    source: str,
) -> None:
    if markers is None or not len(markers):
        raise RecordingError("has no markers; --events needs some", file=source)
    counts = {name: count for name, count in markers.counts.items() if count}
    if events is None:
        common = sorted(counts, key=lambda name: (-counts[name], name))
        events = tuple(sorted(name for name in common[:2]))
    missing = [name for name in events if name not in counts]
    if missing or len(events) < 2:
        have = ", ".join(f"{name} ({count})" for name, count in counts.items())
        what = f"no marker {missing[0]!r}" if missing else "one kind of marker is no choice"
        raise RecordingError(f"{what}; there are: {have}; name two with --events", file=source)
    kinds = np.isin(markers.kinds, [markers.names.index(name) for name in events])
    gaps = np.diff(np.unique(markers.times[kinds]))
    stop = float(min(EPOCH, np.round(gaps.min(), 3))) if len(gaps) and gaps.min() > 0.1 else EPOCH
    chosen.lines.append(
        Line(
            {"step": "epochs", "events": list(events), "start": 0.0, "stop": stop},
            f"a trial is {stop:g} s from its marker; the marker is its class",
        )
    )
    chosen.cut, chosen.window, chosen.classes = "trial", round(stop * rate), events
    chosen.notes["window"] = f"{stop:g} s"
    chosen.notes["classes"] = ", ".join(f"{name}: {counts[name]}" for name in events)
    chosen.split = {"by": "trial", "train": 0.7, "validation": 0.15, "test": 0.15}
    chosen.notes["split"] = "whole trials in the order of recording, never shuffled samples"


def _states(
    chosen: Choices,
    recording: Recording,
    rate: float,
    length: int,
    target: tuple[str, ...] | None,
) -> None:
    behavior = recording.modalities.get("behavior")
    found = _state_channel(behavior, target)
    if found is None:
        have = ", ".join(recording.modalities)
        raise RecordingError(
            "holds nothing to classify: no trials, no markers, no behaviour channel with few "
            f"values; there is {have}. Name a channel with --target, markers with --events",
            file=recording.source,
        )
    channel, values = found
    names = {f"{value:g}": f"{channel} {value:g}" for value in values}
    seconds = 1.0
    chosen.lines.append(
        Line(
            {"step": "states", "channel": channel, "classes": names, "minimum": seconds},
            f"a stretch in which {channel} stays the same is a trial",
        )
    )
    chosen.cut, chosen.window = "sliding", round(seconds * rate)
    chosen.classes = tuple(names.values())
    step = max(1, round(seconds * rate / 4))
    chosen.stride = {"train": step, "validation": step, "test": round(seconds * rate)}
    chosen.notes["window"] = f"{seconds:g} s inside one stretch"
    chosen.notes["stride"] = "train windows overlap by three quarters, test windows not at all"
    chosen.notes["classes"] = "the channel's values"
    chosen.split = {"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2}
    chosen.notes["split"] = "blocks of time: neighbours of a test window are not trained on"


def _decode(
    chosen: Choices,
    recording: Recording,
    target: tuple[str, ...] | None,
    events: object,
) -> None:
    behavior = recording.modalities.get("behavior")
    if not isinstance(behavior, (Series, Samples)):
        have = ", ".join(recording.modalities)
        raise RecordingError(
            f"holds no behaviour to decode; there is {have}. Say which channels are behaviour: "
            "--option behavior=NAME,… where the format takes it",
            file=recording.source,
        )
    unknown = [name for name in target or () if name not in behavior.names]
    if unknown:
        raise RecordingError(
            f"no behaviour channel {unknown[0]!r}; there are: {', '.join(behavior.names)}",
            file=recording.source,
        )
    chosen.target = target or behavior.names
    chosen.notes["target"] = "every behaviour channel" if target is None else "as asked for"
    times, values = _behavior_values(behavior, chosen.target)
    active = active_stretch(times, values)
    if active is not None:
        chosen.lines.append(
            Line(
                {"step": "crop", "start": active[0], "stop": active[1]},
                "behaviour hardly changes outside: 99 % of its movement lies in this stretch",
            )
        )
        inside = (times >= active[0]) & (times <= active[1])
        times, values = times[inside], values[inside]
    rate = _decode_features(chosen, recording)
    gap = 2.0 / rate
    chosen.lines.append(
        Line(
            {"step": "align", "method": "linear", "gap": round(gap, 6)},
            f"behaviour at the times of neural samples, missing where none is within {gap:g} s",
        )
    )
    chosen.window = 5
    chosen.notes["window"] = f"{5 / rate:g} s up to the moment that is decoded"
    chosen.stride = {"train": 1, "validation": 1, "test": 1}
    chosen.notes["stride"] = "every sample; windows of two parts never overlap"
    train, validation, test = lively_shares(times, values)
    chosen.split = {"by": "time", "train": train, "validation": validation, "test": test}
    chosen.notes["split"] = (
        "blocks of time, a gap of one window between them; behaviour changes in train and test"
    )
    chosen.model = "linear_readout"
    chosen.notes["model"] = "ridge over the window, its penalty chosen on the validation part"


def _behavior_values(
    behavior: Series | Samples, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Times and values (time, variable) of some channels, every k-th of very long ones."""
    columns = [behavior.names.index(name) for name in names]
    if isinstance(behavior, Samples):
        return behavior.times, np.asarray(behavior.values[:, columns], np.float64)
    step = max(1, len(behavior.values) // 200_000)
    rows = range(0, len(behavior.values), step)
    read = [np.asarray(behavior.values[row : row + 1], np.float64).reshape(1, -1) for row in rows]
    return behavior.times()[::step], np.concatenate(read)[:, columns]


def active_stretch(times: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """Seconds in which 99 % of the movement lies, None where that is nearly everything.

    values (time, variable); movement is the way that the variables go, in standard deviations.
    """
    spread = np.nanstd(values, axis=0)
    spread[~(spread > 0)] = 1.0
    steps = np.abs(np.diff(values, axis=0)) / spread
    way = np.cumsum(np.nan_to_num(steps.sum(axis=1)))
    if not len(way) or way[-1] <= 0:
        return None
    first, last = np.searchsorted(way, [0.005 * way[-1], 0.995 * way[-1]])
    start, stop = float(np.floor(times[first])), float(np.ceil(times[last + 1]))
    if stop - start > 0.8 * (times[-1] - times[0]):
        return None
    return max(start, float(times[0])), min(stop, float(times[-1]))


def lively_shares(times: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Shares of train, validation and test such that behaviour changes in train and test.

    The first of some candidates in which both have two fifths of the whole spread or more, or else
    that with the most.
    """
    spread = np.nanstd(values, axis=0)
    spread[~(spread > 0)] = 1.0
    place = (times - times[0]) / max(times[-1] - times[0], 1e-9)

    def least(shares: tuple[float, float, float]) -> float:
        # What happens in the last tenth of a part may fall into the gap behind it.
        ends = np.cumsum(shares)
        firsts = ends - shares
        parts = [
            (place >= first) & (place < last - 0.1 * share)
            for first, last, share in zip(firsts, ends, shares, strict=True)
        ][::2]
        kept = [values[part] for part in parts]
        if any(len(part) < 2 for part in kept):
            return 0.0
        return min(float((np.nanstd(part, axis=0) / spread).mean()) for part in kept)

    found = [(least(shares), shares) for shares in SHARES]
    for least_spread, shares in found:
        if least_spread >= 0.4:
            return shares
    return max(found)[1]


def _decode_features(chosen: Choices, recording: Recording) -> float:
    """Steps from neural signals to slow features; the rate that they end at."""
    if "neural" not in recording.modalities and "spikes" in recording.modalities:
        chosen.lines.append(
            Line({"step": "bin", "width": BIN}, f"spike counts of every unit per {BIN:g} s")
        )
        return 1 / BIN
    series = recording.neural
    _only_neural(chosen, series)
    if series.rate < 100:
        return series.rate
    edges = [edge for edge in (4, 8, 12, 20, 35, 60, 90, 200) if edge < 0.45 * series.rate]
    chosen.lines.append(
        Line(
            {"step": "bands", "edges": edges, "smoothing": 0.5, "potential": False},
            "log power of causal bands over the trailing 0.5 s: what movement changes",
        )
    )
    chosen.lines.append(
        Line(
            {"step": "resample", "rate": DECODE_RATE, "phase": "causal"},
            f"power changes slowly: {DECODE_RATE:g} values a second are enough",
        )
    )
    return DECODE_RATE


def _neural(chosen: Choices, recording: Recording, ceiling: float) -> tuple[float, int, int]:
    """Steps until there is a series of a sensible rate; its rate, pieces and samples."""
    if "neural" not in recording.modalities and "spikes" in recording.modalities:
        chosen.lines.append(
            Line({"step": "bin", "width": BIN / 5}, f"spike counts per {BIN / 5:g} s")
        )
        spikes = recording.modalities["spikes"]
        assert isinstance(spikes, Events)
        first, last = spikes.span or (float(spikes.times[0]), float(spikes.times[-1]))
        return 5 / BIN, 1, int((last - first) * 5 / BIN)
    series = recording.neural
    _only_neural(chosen, series)
    pieces = _pieces(chosen, series)
    if series.rate <= ceiling * 1.05:
        return series.rate, pieces, len(series.values)
    factor = int(np.ceil(series.rate / ceiling - 1e-9))
    rate = series.rate / factor
    chosen.lines.append(
        Line(
            {"step": "resample", "rate": rate, "phase": "causal"},
            f"from {series.rate:g} Hz, with anti-aliasing that looks at the past alone",
        )
    )
    return rate, pieces, len(series.values) // factor


def _only_neural(chosen: Choices, series: Series) -> None:
    types = sorted({channel.type for channel in series.channels})
    neural = [kind for kind in types if kind in NEURAL_TYPES]
    if neural and len(neural) < len(types):
        others = ", ".join(kind for kind in types if kind not in neural)
        chosen.lines.append(Line({"step": "select", "types": neural}, f"leaves out {others}"))


def _pieces(chosen: Choices, series: Series) -> int:
    for line in chosen.lines:
        if line.step.get("step") == "segment" and "length" in line.step:
            return 1 + (len(series.values) - int(line.step["first"])) // int(line.step["length"])
    return len(series.pieces)


def _split_by_time(chosen: Choices, recording: Recording, pieces: int) -> dict[str, Any]:
    if pieces >= 10:
        chosen.notes["split"] = f"{pieces} segments in order; no window crosses a border"
        return {"by": "segment", "train": 0.7, "validation": 0.15, "test": 0.15}
    chosen.notes["split"] = "blocks of time with a gap of one window between them"
    return {"by": "time", "train": 0.7, "validation": 0.15, "test": 0.15}


def _state_channel(
    behavior: object, target: tuple[str, ...] | None
) -> tuple[str, list[float]] | None:
    if not isinstance(behavior, (Series, Samples)):
        return None
    values = np.asarray(behavior.values[0 : len(behavior.values)], np.float64)
    for index, name in enumerate(behavior.names):
        if target and name not in target:
            continue
        own = values[:, index]
        found = np.unique(own[np.isfinite(own)])
        if 2 <= len(found) <= STATES:
            return name, [float(value) for value in found]
    return None


def _sessions(chosen: Choices, recordings: Sequence[Recording]) -> None:
    names = [recording.session for recording in recordings]
    if chosen.split["by"] in ("trial", "segment"):
        chosen.split = {
            "by": chosen.split["by"],
            "train": 0.8,
            "validation": 0.2,
            "test_sessions": [names[-1]],
        }
        chosen.notes["split"] = (
            f"{names[-1]} is the test part, whole; the others are divided in order"
        )
    elif len(names) >= 3:
        chosen.split = {
            "by": "session",
            "train": names[:-2],
            "validation": [names[-2]],
            "test": [names[-1]],
        }
        chosen.notes["split"] = "whole sessions: the last one tells how it does on a new day"

"""What a first config says of a recording: preparation, windows, split and model, with reasons.

Plain rules over what the file holds; `trainer.first_config` writes them down as YAML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recording.contract import NEURAL_TYPES, Events, Finding, Recording, Samples, Series
from recording.errors import RecordingError
from recording.preparation import parse_steps, prepare
from recording.stream_health import listed, patterns
from trainer.first_behavior import (
    STATES,
    active_stretch,
    changing,
    lively_shares,
    state_shares,
    states_of,
    walking,
    with_behavior,
)
from trainer.first_remedies import Choices, in_order, remedies

FORECAST_RATE = 250.0  # Hz; above it, ten steps are less than 40 ms
CLASSIFY_RATE = 128.0
DECODE_RATE = 10.0
BIN = 0.25  # seconds per bin of spikes
WINDOWS = 4000  # train windows that are plenty for a first run
EPOCH = 0.8  # seconds after a marker
SHORTEST = 0.1  # seconds between markers below which epochs may overlap


def choose(
    task: str,
    recordings: Sequence[Recording],
    findings: Sequence[Finding],
    *,
    target: tuple[str, ...] | None = None,
    events: tuple[str, ...] | None = None,
) -> Choices:
    """Choices for a task; raises RecordingError where the recording does not allow it."""
    chosen = Choices(task, remedies(findings, task))
    if task == "forecast" and (target or events):
        raise RecordingError("--target and --events are for classify and decode, not for forecast")
    if task == "decode" and events:
        raise RecordingError("--events is for classify; name behaviour channels with --target")
    first = with_behavior(chosen, recordings[0], target)
    {"forecast": _forecast, "classify": _classify, "decode": _decode}[task](
        chosen, first, target, events
    )
    chosen.lines = in_order(chosen.lines)
    if len(recordings) > 1:
        _sessions(chosen, recordings)
    return chosen


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
    asked = events is not None
    if events is None:
        common = sorted(counts, key=lambda name: (-counts[name], name))
        events = tuple(sorted(common[:2]))
    events = tuple(dict.fromkeys(events))
    have = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:20])
    if missing := [name for name in events if name not in counts]:
        raise RecordingError(
            f"no marker {missing[0]!r}; there are: {have}; name two or more with --events A,B",
            file=source,
        )
    if len(events) < 2:
        raise RecordingError(
            f"markers of one kind, {events[0]}, are no classes; there are: {have}. Name two or "
            "more with --events A,B, or a channel of states with --target",
            file=source,
        )
    kinds = np.isin(markers.kinds, [markers.names.index(name) for name in events])
    gaps = np.diff(np.sort(markers.times[kinds]))
    apart = len(gaps) > 0 and float(gaps.min()) >= SHORTEST
    # Rounded down: an epoch that ends past the next marker would overlap it.
    stop = min(EPOCH, float(np.floor(1000 * gaps.min()) / 1000)) if apart else EPOCH
    step = {"step": "epochs", "events": patterns(events), "start": 0.0, "stop": stop}
    why = f"a trial is {stop:g} s from its marker, whose name is its class"
    if stop < EPOCH:
        why += f"; the next marker may come {stop:g} s later"
    if not asked and len(counts) > 2:
        why += f"; the two most frequent of: {have}; --events names others"
    chosen.add(step, why)
    chosen.cut, chosen.window, chosen.classes = "trial", round(stop * rate), events
    chosen.notes["window"] = f"{stop:g} s"
    chosen.notes["classes"] = ", ".join(f"{name}: {counts[name]}" for name in events)
    chosen.split = {"by": "trial", "train": 0.7, "validation": 0.15, "test": 0.15}
    chosen.notes["split"] = "whole trials in the order of recording, never shuffled samples"
    if not apart:
        chosen.split = {"by": "fold", "unit": "trial", "folds": 5, "fold": 4}
        chosen.notes["split"] = "trials that overlap stay in one part; fold 4 of 5 is the test part"


def _states(
    chosen: Choices,
    recording: Recording,
    rate: float,
    length: int,
    target: tuple[str, ...] | None,
) -> None:
    counted = states_of(recording.modalities.get("behavior"), target)
    states = {name: values for name, values in counted.items() if values and len(values) > 1}
    if not states:
        raise RecordingError(_no_classes(recording, counted, target), file=recording.source)
    channel, counts = next(iter(states.items()))
    names = {f"{value:g}": f"{channel} {value:g}" for value in sorted(counts)}
    seconds = 1.0
    chosen.add(
        {"step": "states", "channel": channel, "classes": names, "minimum": seconds},
        f"a stretch in which {channel} stays the same is a trial",
    )
    chosen.cut, chosen.window = "sliding", round(seconds * rate)
    chosen.classes = tuple(names.values())
    step = max(1, round(seconds * rate / 4))
    chosen.stride = {"train": step, "validation": step, "test": round(seconds * rate)}
    chosen.notes["window"] = f"{seconds:g} s inside one stretch"
    chosen.notes["stride"] = "train windows overlap by three quarters, test windows not at all"
    total = sum(counts.values())
    shares = (f"{100 * counts[value] / total:.0f} % {value:g}" for value in sorted(counts))
    chosen.notes["classes"] = f"the values of {channel}: {', '.join(shares)}"
    if len(states) > 1:
        others = listed([name for name in states if name != channel])
        chosen.notes["classes"] += f"; --target names another channel of states: {others}"
    trials = prepare(recording, parse_steps([chosen.lines[-1].step])).trials
    assert trials is not None
    train, validation, test = state_shares(trials)
    chosen.split = {"by": "trial", "train": train, "validation": validation, "test": test}
    chosen.notes["split"] = (
        f"shares of {len(trials)} whole stretches in order, such that each part has every class"
    )


def _no_classes(
    recording: Recording,
    counted: dict[str, dict[float, int] | None],
    target: tuple[str, ...] | None,
) -> str:
    """Why there is nothing to classify, and what to say."""
    if target:
        values = counted.get(target[0])
        what = f"more than {STATES} values" if values is None else "one value"
        return (
            f"{target[0]} has {what}; a channel of states has 2 to {STATES}: name another with "
            "--target, or decode it: --task decode"
        )
    neural = recording.modalities.get("neural")
    names = listed(neural.names, 20) if isinstance(neural, Series) else "none"
    return (
        "nothing to classify: no trials, no markers of two kinds, no behaviour channel with 2 to "
        f"{STATES} values. If a channel holds the state, name it with --target NAME; channels: "
        f"{names}"
    )


def _decode(
    chosen: Choices,
    recording: Recording,
    target: tuple[str, ...] | None,
    events: object,
) -> None:
    behavior = recording.modalities.get("behavior")
    if not isinstance(behavior, (Series, Samples)):
        neural = recording.modalities.get("neural")
        names = listed(neural.names, 20) if isinstance(neural, Series) else "none"
        raise RecordingError(
            "no behaviour to decode. If a channel holds it, name it with --target NAME,…; "
            f"channels: {names}",
            file=recording.source,
        )
    chosen.target = target or behavior.names
    chosen.notes["target"] = "every behaviour channel" if target is None else "as asked for"
    times, values = changing(behavior, chosen.target)
    active = active_stretch(times, values)
    if active is not None:
        chosen.add(
            {"step": "crop", "start": active[0], "stop": active[1]},
            "behaviour hardly changes outside: 99 % of its movement lies in this stretch",
        )
        inside = (times >= active[0]) & (times <= active[1])
        times, values = times[inside], values[inside]
    rate = _decode_features(chosen, recording)
    gap = 2.0 / rate
    chosen.add(
        {"step": "align", "method": "linear", "gap": round(gap, 6)},
        f"behaviour at the times of neural samples, missing where none is within {gap:g} s",
    )
    if (above := walking(behavior, chosen.target, times, values)) is not None:
        chosen.add(
            {"step": "moving", "channels": patterns(chosen.target), "above": above},
            "cells tell where an animal is while it walks: slower moments are left out",
        )
    chosen.window = 5 if "neural" in recording.modalities else 9
    chosen.notes["window"] = f"{chosen.window / rate:g} s up to the moment that is decoded"
    chosen.stride = {"train": 1, "validation": 1, "test": 1}
    chosen.notes["stride"] = "every sample; windows of two parts never overlap"
    train, validation, test = lively_shares(times, values)
    chosen.split = {"by": "time", "train": train, "validation": validation, "test": test}
    chosen.notes["split"] = (
        "blocks of time, a gap of one window between them; behaviour changes in train and test"
    )
    chosen.model = "linear_readout"
    chosen.notes["model"] = "ridge over the window, its penalty chosen on the validation part"


def _decode_features(chosen: Choices, recording: Recording) -> float:
    """Steps from neural signals to slow features; the rate that they end at."""
    if "neural" not in recording.modalities and "spikes" in recording.modalities:
        chosen.add({"step": "bin", "width": BIN}, f"spike counts of every unit per {BIN:g} s")
        return 1 / BIN
    series = recording.neural
    _only_neural(chosen, series)
    if series.rate < 100:
        return series.rate
    edges = [edge for edge in (4, 8, 12, 20, 35, 60, 90, 200) if edge < 0.45 * series.rate]
    chosen.add(
        {"step": "bands", "edges": edges, "smoothing": 0.5, "potential": False},
        "log power of causal bands over the trailing 0.5 s: what movement changes",
    )
    chosen.add(
        {"step": "resample", "rate": DECODE_RATE, "phase": "causal"},
        f"power changes slowly: {DECODE_RATE:g} values a second are enough",
    )
    return DECODE_RATE


def _neural(chosen: Choices, recording: Recording, ceiling: float) -> tuple[float, int, int]:
    """Steps until there is a series of a sensible rate; its rate, pieces and samples."""
    if "neural" not in recording.modalities and "spikes" in recording.modalities:
        chosen.add({"step": "bin", "width": BIN / 5}, f"spike counts per {BIN / 5:g} s")
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
    chosen.add(
        {"step": "resample", "rate": rate, "phase": "causal"},
        f"from {series.rate:g} Hz, with anti-aliasing that looks at the past alone",
    )
    return rate, pieces, len(series.values) // factor


def _only_neural(chosen: Choices, series: Series) -> None:
    types = sorted({channel.type for channel in series.channels})
    neural = [kind for kind in types if kind in NEURAL_TYPES]
    if neural and len(neural) < len(types):
        others = ", ".join(kind for kind in types if kind not in neural)
        chosen.add({"step": "select", "types": neural}, f"leaves out {others}")


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

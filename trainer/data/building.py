"""From opened recordings and settings to a data set: prepared, split, cut, fingerprinted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from artifact.manifest import TensorSpec
from recording.contract import Recording
from recording.errors import RecordingError
from recording.plan import Plan, planned, times_of
from recording.preparation import Step
from recording.progress import progress
from trainer.data import examples
from trainer.data.blocks import Parts
from trainer.data.cutting import (
    Stride,
    check_alike,
    common_unit,
    positions_of,
    session_names,
)
from trainer.data.errors import DataError, SplitError
from trainer.data.examples import Cuts, Rule, Task
from trainer.data.fingerprint import array_digest, fingerprint
from trainer.data.leaks import check_clock, check_recorded
from trainer.data.prepared import Contents, Prepared, Progress, contents, prepare_all
from trainer.data.reach import check_forecast, check_reach, seconds_apart
from trainer.data.splits import Split
from trainer.data.windows import (
    PARTS,
    Dataset,
    Windows,
    classify_specs,
    decode_specs,
    forecast_specs,
)

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
_CUT = ("sessions", "starts", "trials")


def build_recordings(
    name: str,
    recordings: Sequence[Recording],
    *,
    description: str,
    task: Task,
    preparation: Sequence[Step] = (),
    window: int | None = None,
    observed: int | None = None,
    classes: tuple[str, ...] | None = None,
    target: tuple[str, ...] | None = None,
    cut: Literal["sliding", "trial"] | None = None,
    stride: Stride = Stride(),  # noqa: B008
    split: Split | None = None,
    reader: Mapping[str, Any] | None = None,
    format: str | None = None,
    synthetic: bool = False,
) -> Dataset:
    """A data set of recordings: prepared, split, cut into windows, with the plan that says how.

    Its fingerprint is the sha256 of the prepared neural series as an artifact takes them, of
    windows and targets, and of the settings: no path and no file name. Raises RecordingError naming
    the file, DataError for settings, SplitError for a split that does not work out.
    """
    sessions = session_names(recordings)
    cut = cut or ("trial" if task == "classify" else "sliding")
    split = split or examples.default_split(task)
    if task == "forecast":
        check_forecast(preparation, recordings[0])
    apart = max(seconds_apart(preparation, one) for one in recordings)
    rule = Rule(task, window, observed, classes, target, cut, stride, split, apart)
    with progress() as bars:
        prepared = prepare_all(
            recordings,
            preparation,
            lambda known: examples.train_ranges(known, rule),
            bars.add("preparing, samples", None),
        )
        for other in prepared.recordings[1:]:
            check_alike(prepared.recordings[0], other)
        rule = rule.completed(prepared.recordings)
        parts = examples.parts_of(prepared.recordings, rule)
        check_clock(prepared.recordings, parts)
        check_reach(parts, preparation, recordings, prepared.recordings[0].neural.rate)
        check_recorded(recordings, prepared.recordings, parts)
        cuts = {
            part: examples.cut_blocks(parts[part], sessions, rule, getattr(stride, part))
            for part in PARTS
        }
        targets = {part: _targets(prepared.recordings, cuts[part], rule) for part in PARTS}
        cuts, targets = _measured(cuts, targets)
        if task == "classify":
            assert rule.classes is not None
            examples.check_classes(targets["train"], rule.classes)
        every = [one.neural.values for one in prepared.outside]
        reading = bars.add("reading, samples", sum(map(len, every)))
        prepared, digests = _check_windows(prepared, list(cuts.values()), rule, reading)
    outputs = _output_names(prepared, rule)
    plan = _plan(prepared, rule, outputs, reader or {}, format, parts)
    shaping = {
        "plan": plan.model_dump(mode="json", exclude={"test", "reader", "format"}),
        "split": rule.split.model_dump(mode="json"),
        "stride": stride.model_dump(mode="json"),
        "neural": digests,
        "windows": [array_digest(getattr(cuts[part], key)) for part in PARTS for key in _CUT],
        "targets": [array_digest(targets[part]) for part in PARTS if task != "forecast"],
    }
    first = prepared.recordings[0].neural
    return Dataset(
        name=name,
        **_windows(prepared, cuts, targets, rule),
        fingerprint=fingerprint(name, shaping, ()),
        rate=first.rate,
        unit=common_unit(first.channels),
        channel_names=first.names,
        session_names=tuple(sessions),
        synthetic=synthetic,
        description=f"{description}: {len(recordings)} session(s), {len(first.channels)} "
        f"channels at {first.rate:g} Hz",
        plan=plan,
        operations=prepared.operations,
        output_names=tuple(outputs) if task != "forecast" else (),
        positions=positions_of(first.channels),
    )


def _targets(recordings: Sequence[Recording], cuts: Cuts, rule: Rule) -> np.ndarray:
    if rule.task == "classify":
        return examples.class_targets(recordings, cuts, rule)
    if rule.task == "decode":
        return examples.behavior_targets(recordings, cuts, rule)
    return np.empty((len(cuts), 0))


def _measured(
    cuts: dict[str, Cuts], targets: dict[str, np.ndarray]
) -> tuple[dict[str, Cuts], dict[str, np.ndarray]]:
    """Windows without those whose every target is missing; raises SplitError for an empty part."""
    for part in PARTS:
        values = targets[part]
        if values.ndim == 2 and values.shape[1]:
            rows = np.flatnonzero(np.isfinite(values).any(axis=1))
            cuts[part], targets[part] = cuts[part].keep(rows), values[rows]
        if len(cuts[part]) == 0:
            raise SplitError(
                f"split.{part}: no window is left in which a target was measured; give it another "
                "stretch, or look at the steps that mask or align behaviour"
            )
    return cuts, targets


def _check_windows(
    prepared: Prepared, cuts: Sequence[Cuts], rule: Rule, told: Progress
) -> tuple[Prepared, list[str]]:
    """Read everything once: digests of the series, and no window with a missing sample.

    Where the steps of the graph are what makes windows whole, or sessions alike, they are not left
    to it: an artifact refuses an input that is not finite. Raises RecordingError.
    """
    if prepared.graph_steps and not _alike(prepared.outside):
        prepared = prepared.in_front()
    found = [contents(one.neural.values, told) for one in prepared.outside]
    missing = _missing(prepared.outside, found, cuts, rule)
    if missing and prepared.graph_steps:
        prepared = prepared.in_front()
        found = [contents(one.neural.values, told) for one in prepared.outside]
        missing = _missing(prepared.outside, found, cuts, rule)
    if missing:
        raise missing
    return prepared, [one.digest for one in found]


def _alike(recordings: Sequence[Recording]) -> bool:
    try:
        for other in recordings[1:]:
            check_alike(recordings[0], other)
    except DataError:
        return False
    return True


def _missing(
    recordings: Sequence[Recording], found: Sequence[Contents], cuts: Sequence[Cuts], rule: Rule
) -> RecordingError | None:
    assert rule.window is not None
    for session, (one, content) in enumerate(zip(recordings, found, strict=True)):
        for part in cuts:
            starts = part.starts[part.sessions == session]
            sample = content.first_hit(starts, rule.window)
            if sample is None:
                continue
            neural = one.neural
            values = np.asarray(neural.values[sample : sample + 1]).reshape(
                1, len(neural.names), -1
            )
            channel = int(np.argmax(~np.isfinite(values[0]).all(axis=1)))
            return RecordingError(
                "a sample is missing (NaN) or infinite inside a window; leave such stretches out "
                "with the preparation step {step: split_missing}",
                file=one.source,
                stream=f"neural channel {neural.names[channel]}",
                at=float(neural.times(sample, sample + 1)[0]),
            )
    return None


def _output_names(prepared: Prepared, rule: Rule) -> dict[str, str]:
    """What is predicted, by name, with its unit."""
    first = prepared.recordings[0]
    if rule.task == "classify":
        return dict.fromkeys(rule.classes or (), "1")
    channels = first.neural.channels
    if rule.task == "decode":
        channels = tuple(examples.targets_channels(first, rule.target))
    return {channel.name: channel.unit for channel in channels}


def _plan(
    prepared: Prepared,
    rule: Rule,
    outputs: Mapping[str, str],
    reader: Mapping[str, Any],
    format: str | None,
    parts: Parts,
) -> Plan:
    outside = prepared.outside[0].neural
    assert rule.window is not None
    assert rule.observed is not None
    return Plan(
        task=rule.task,
        steps=prepared.steps,
        graph_steps=prepared.graph_steps,
        rate=outside.rate,
        channels=planned(outside.channels),
        features=outside.features,
        window=rule.window,
        observed=rule.observed,
        stride=rule.stride.test,
        cut=rule.cut,
        outputs=tuple(outputs),
        output_units=tuple(outputs.values()),
        test=examples.stretches_of_test(prepared.recordings, parts),
        format=format,
        reader=dict(reader),
    )


def _specs(recording: Recording, rule: Rule, prepared: Prepared) -> Specs:
    neural = recording.neural
    assert rule.window is not None
    shape = {
        "steps": rule.window,
        "channels": len(neural.channels),
        "features": len(neural.features),
    }
    unit = common_unit(neural.channels)
    if rule.task == "forecast":
        return forecast_specs(**shape, unit=unit)
    if rule.task == "classify":
        return classify_specs(**shape, classes=len(rule.classes or ()), unit=unit)
    targets = examples.targets_channels(prepared.recordings[0], rule.target)
    return decode_specs(
        **shape, variables=len(targets), unit=unit, target_unit=common_unit(targets)
    )


def _times(prepared: Prepared, cuts: Cuts) -> np.ndarray:
    """Second of each window's first sample, on its session's clock: (window,) float64."""
    times = np.empty(len(cuts), np.float64)
    for session, recording in enumerate(prepared.recordings):
        rows = cuts.sessions == session
        times[rows] = times_of(recording.neural, cuts.starts[rows])
    return times


def _windows(
    prepared: Prepared, cuts: Mapping[str, Cuts], targets: Mapping[str, np.ndarray], rule: Rule
) -> dict[str, Windows]:
    inputs, outputs = _specs(prepared.recordings[0], rule, prepared)
    raw, raw_inputs = None, ()
    if prepared.graph_steps:
        raw = {"neural": tuple(one.neural.values for one in prepared.outside)}
        raw_inputs, _ = _specs(prepared.outside[0], rule, prepared)
    series = {"neural": tuple(one.neural.values for one in prepared.recordings)}
    return {
        part: Windows(
            task=rule.task,
            observed=rule.observed or 1,
            inputs=inputs,
            outputs=outputs,
            series=series,
            sessions=cuts[part].sessions,
            starts=cuts[part].starts,
            targets=None if rule.task == "forecast" else targets[part],
            raw=raw,
            raw_inputs=raw_inputs,
            trials=cuts[part].trials,
            times=_times(prepared, cuts[part]),
        )
        for part in PARTS
    }

"""`axonnx predict ARTIFACT FILE`: a recording in, predictions with time stamps out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recording.contract import Recording, Series
from recording.errors import RecordingError
from recording.opening import open_recording
from recording.options import parse_options
from recording.plan import Cut, Plan, cut, window_values
from recording.prediction_files import writer
from recording.prediction_table import Block, table
from recording.preparation import prepare
from recording.signals import settle

if TYPE_CHECKING:
    from artifact.model import Model

CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recording as an artifact takes it, its windows, and what they would be compared with.

    `truth` is the recording after the steps inside the graph as well.
    """

    recording: Recording
    truth: Recording
    windows: Cut


def ready(
    recording: Recording,
    plan: Plan,
    *,
    stride: int | None = None,
    part: str | None = None,
    start: float | None = None,
    stop: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Prepare a recording and cut its windows.

    stride: samples between windows (default: so that forecasts follow one another, else the
    plan's); part "test": only stretches that the model was not trained on; start, stop: seconds.
    Raises RecordingError.
    """
    prepared = plan.prepare(recording)
    neural = prepared.neural
    neural = neural.with_values(settle(neural.values, progress=progress))
    prepared = prepared.with_modality("neural", neural)
    windows = cut(prepared, plan, stride=stride or default_stride(plan))
    windows = within(windows, plan, recording.session, part, start, stop, file=recording.source)
    tail = plan.steps[len(plan.steps) - plan.graph_steps :]
    return Prepared(prepared, prepare(prepared, tail), windows)


def default_stride(plan: Plan) -> int:
    """Samples between windows: forecasts follow one another, other tasks as in the test part."""
    return plan.window - plan.observed if plan.task == "forecast" else plan.stride


def within(
    windows: Cut,
    plan: Plan,
    session: str,
    part: str | None,
    start: float | None,
    stop: float | None,
    *,
    file: str,
) -> Cut:
    """The windows that lie in a part or between two times; raises RecordingError where none do."""
    ends = windows.times + plan.window / plan.rate
    slack = 0.5 / plan.rate
    keep = np.ones(len(windows), bool)
    if start is not None:
        keep &= windows.times >= start - slack
    if stop is not None:
        keep &= ends <= stop + slack
    if part == "test":
        stretches = [(a, b) for name, a, b in plan.test if name == session]
        if not stretches:
            names = ", ".join(sorted({name for name, _, _ in plan.test})) or "none"
            raise RecordingError(
                f"session {session!r} has no test part; sessions with one: {names}", file=file
            )
        inside = np.zeros(len(windows), bool)
        for first, last in stretches:
            inside |= (windows.times >= first - slack) & (ends <= last + slack)
        keep &= inside
    if not keep.any():
        raise RecordingError("no window lies in what was asked for", file=file)
    return replace(
        windows, starts=windows.starts[keep], times=windows.times[keep], trials=windows.trials[keep]
    )


def predict(model: Model, plan: Plan, prepared: Prepared) -> Iterator[Block]:
    """Answers of a model to the windows, a chunk at a time, in order of time."""
    neural: Series = prepared.recording.neural
    windows = prepared.windows
    size = plan.window * len(neural.channels) * len(neural.features) * 4
    rows = max(1, CHUNK_BYTES // size)
    name = model.manifest.inputs[0].name
    output = model.manifest.outputs[0].name
    for at in range(0, len(windows), rows):
        chosen = slice(at, at + rows)
        values = window_values(neural, windows.starts[chosen], plan)
        _check_finite(values, neural, windows.starts[chosen], prepared.recording.source)
        answer = np.asarray(model.predict({name: values})[output])
        yield Block(
            starts=windows.starts[chosen],
            times=windows.times[chosen],
            trials=windows.trials[chosen],
            answer=answer,
        )


def run(options: argparse.Namespace, plan_table: Mapping[str, Any]) -> int:
    """The command, for an artifact whose manifest holds a plan."""
    plan = Plan.read(plan_table)
    told = plan.reader | parse_options(options.option)
    recording = open_recording(options.file, told, format=options.format)
    if options.session:
        recording = replace(recording, session=options.session)
    output = options.output or Path(f"{options.file.stem}.predictions.csv")
    return _predict_file(options, plan, recording, output)


def _predict_file(
    options: argparse.Namespace, plan: Plan, recording: Recording, output: Path
) -> int:
    import artifact
    from recording.prediction_picture import draw
    from recording.prediction_score import Score
    from recording.progress import progress

    write = writer(output)  # an unknown suffix is told before anything is computed
    model = artifact.load(options.artifact, provider=options.provider)
    with progress() as bars:
        step = bars.add("preparing", None)
        prepared = ready(
            recording,
            plan,
            stride=options.stride,
            part=options.part,
            start=options.start,
            stop=options.stop,
            progress=step,
        )
        step = bars.add("predicting", len(prepared.windows))
        score = Score(plan, prepared)
        kept: list[Block] = []

        def blocks() -> Iterator[dict[str, Any]]:
            for block in predict(model, plan, prepared):
                score.add(block)
                if not kept:
                    kept.append(block)
                step(len(block.starts))
                yield table(plan, block)

        rows = write(output, blocks())
    print(f"{output}: {rows} rows, {len(prepared.windows)} windows, artifact {model.id}")
    for line in score.lines():
        print(f"  {line}")
    if not options.no_picture:
        picture = options.picture or output.with_suffix(".png")
        draw(plan, prepared, kept[0], picture)
        print(f"{picture}: some of them")
    return 0


def _check_finite(values: np.ndarray, neural: Series, starts: np.ndarray, source: str) -> None:
    if np.isfinite(values).all():
        return
    row, step, channel, _ = np.argwhere(~np.isfinite(values))[0]
    time = float(neural.times(int(starts[row] + step), int(starts[row] + step) + 1)[0])
    raise RecordingError(
        f"channel {neural.names[channel]} is {values[row, step, channel, 0]}; must be finite: "
        "mend it, or train with the step split_missing",
        file=source,
        stream="neural",
        at=time,
    )

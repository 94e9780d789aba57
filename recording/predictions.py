"""`axonnx predict ARTIFACT FILE`: a recording in, predictions with time stamps out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recording.contract import Recording, Series
from recording.errors import RecordingError
from recording.opening import find_format, named_format, open_recording
from recording.options import parse_options
from recording.plan import Cut, Plan, cut, window_values
from recording.prediction_files import writer
from recording.prediction_table import Block, Columns, table
from recording.preparation import prepare
from recording.signals import settle

CHUNK_BYTES = 16 * 2**20
# Windows (batch, time, channel, feature) to answers (batch, …).
Ask = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recording as an artifact takes it, its windows, and what they would be compared with.

    `truth` is the recording after the steps inside the graph as well.
    """

    recording: Recording
    truth: Recording
    windows: Cut


@dataclass(frozen=True)
class Chosen:
    """Which windows to answer.

    part: "test" for stretches that the model was not trained on; start, stop: seconds; stride:
    samples between windows (left out: forecasts follow one another, other tasks as in the test
    part).
    """

    part: str | None = None
    start: float | None = None
    stop: float | None = None
    stride: int | None = None


def ready(
    recording: Recording,
    plan: Plan,
    chosen: Chosen,
    *,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Prepare a recording and cut its windows; raises RecordingError.

    `progress` gets the number of samples of each block that is prepared.
    """
    prepared = plan.prepare(recording)
    neural = prepared.neural
    neural = neural.with_values(settle(neural.values, progress=progress))
    prepared = prepared.with_modality("neural", neural)
    windows = cut(
        prepared,
        plan,
        stride=chosen.stride or default_stride(plan),
        stretches=stretches(plan, chosen, recording),
    )
    tail = plan.steps[len(plan.steps) - plan.graph_steps :]
    return Prepared(prepared, prepare(prepared, tail), windows)


def default_stride(plan: Plan) -> int:
    """Samples between windows: forecasts follow one another, other tasks as in the test part."""
    return plan.window - plan.observed if plan.task == "forecast" else plan.stride


def stretches(plan: Plan, chosen: Chosen, recording: Recording) -> list[tuple[float, float]]:
    """Seconds in which windows are wanted; raises RecordingError where there is no test part."""
    first = -np.inf if chosen.start is None else chosen.start
    last = np.inf if chosen.stop is None else chosen.stop
    if not first < last:
        raise RecordingError(f"from {first:g} s to {last:g} s: must be a stretch of time")
    if chosen.part is None:
        return [(first, last)]
    kept = [(a, b) for name, a, b in plan.test if name == recording.session]
    if not kept:
        names = ", ".join(sorted({name for name, _, _ in plan.test})) or "none"
        raise RecordingError(
            f"session {recording.session!r} has no test part; sessions with one: {names}",
            file=recording.source,
        )
    return [(max(a, first), min(b, last)) for a, b in kept if max(a, first) < min(b, last)]


def predict(ask: Ask, plan: Plan, prepared: Prepared) -> Iterator[Block]:
    """Answers to the windows, a chunk at a time, in order; raises what `ask` does."""
    neural: Series = prepared.recording.neural
    windows = prepared.windows
    size = plan.window * len(neural.channels) * len(neural.features) * 4
    rows = max(1, CHUNK_BYTES // size)
    for at in range(0, len(windows), rows):
        chosen = slice(at, at + rows)
        values = window_values(neural, windows.starts[chosen], plan)
        _check_finite(values, neural, windows.starts[chosen], prepared.recording.source)
        yield Block(
            starts=windows.starts[chosen],
            times=windows.times[chosen],
            trials=windows.trials[chosen],
            answer=ask(values),
        )


def run(options: argparse.Namespace, plan_table: Mapping[str, Any]) -> int:
    """`axonnx predict`, for an artifact whose manifest holds a plan."""
    import artifact

    plan = Plan.read(plan_table)
    recording = open_for(plan, options.file, options.option, options.format, options.session)
    output = options.output or default_output(options.file)
    picture = None if options.no_picture else options.picture or output.with_suffix(".png")
    check_outputs(options.file, output, picture)
    model = artifact.load(options.artifact, provider=options.provider)
    taken, given = model.manifest.inputs[0].name, model.manifest.outputs[0].name

    def ask(values: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict({taken: values})[given])

    chosen = Chosen(options.part, options.start, options.stop, options.stride)
    for line in predict_file(recording, plan, ask, chosen, output, picture):
        print(line)
    print(f"artifact {model.id}")
    return 0


def open_for(
    plan: Plan, file: Path, told: Sequence[str], format: str | None, session: str | None
) -> Recording:
    """Open a recording with what the reader was told in training, and what is told now."""
    found = named_format(format) if format else find_format(file)
    # What was said of files of one format holds for another, as far as that has such options.
    options = {key: plan.reader[key] for key in plan.reader if key in found.options.model_fields}
    recording = open_recording(file, options | parse_options(told), format=format)
    return replace(recording, session=session) if session else recording


def default_output(file: Path) -> Path:
    """Where predictions go that nobody named a place for."""
    return Path(f"{file.resolve().stem}.predictions.csv")


def check_outputs(file: Path, output: Path, picture: Path | None) -> None:
    """Raise RecordingError for a table of an unknown suffix, and for what would replace the file.

    So it is told before anything is loaded.
    """
    writer(output)
    for path in (output, picture):
        if path is not None and path.resolve() == file.resolve():
            raise RecordingError("is the recording itself; name another file", file=path)


def predict_file(
    recording: Recording,
    plan: Plan,
    ask: Ask,
    chosen: Chosen,
    output: Path,
    picture: Path | None,
) -> list[str]:
    """Prepare, predict, write a table and a picture; lines that say what came of it.

    Raises RecordingError, and what `ask` raises; then nothing is written.
    """
    from recording.prediction_picture import draw
    from recording.prediction_score import Score
    from recording.progress import progress

    write = writer(output)
    with progress() as bars:
        prepared = ready(recording, plan, chosen, progress=bars.add("preparing (samples)", None))
        step = bars.add("predicting (windows)", len(prepared.windows))
        score = Score(plan, prepared)
        first: list[Block] = []

        def blocks() -> Iterator[Columns]:
            for block in predict(ask, plan, prepared):
                score.add(block)
                first.append(block) if not first else None
                step(len(block.starts))
                yield table(plan, block)

        rows = write(output, blocks())
    lines = [f"{output}: {rows} rows from {len(prepared.windows)} windows", *score.lines()]
    if picture is not None:
        lines.append(f"{draw(plan, prepared, first[0], picture)}: a picture of some")
    return lines


def _check_finite(values: np.ndarray, neural: Series, starts: np.ndarray, source: str) -> None:
    if np.isfinite(values).all():
        return
    row, step, channel, feature = np.argwhere(~np.isfinite(values))[0]
    time = float(neural.times(int(starts[row] + step), int(starts[row] + step) + 1)[0])
    value = values[row, step, channel, feature]
    raise RecordingError(
        f"channel {neural.names[channel]} is {value}; must be finite: "
        "mend it, or train with the step split_missing",
        file=source,
        stream="neural",
        at=time,
    )

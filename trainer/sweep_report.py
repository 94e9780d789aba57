"""What a sweep has found: sweep.json, its table, its picture, and what is seen while it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from recording.style import COLORS, INK, MUTED, STYLE
from trainer import sweep_study
from trainer.plots import label, write
from trainer.sweep_config import Plan

STATES = {
    TrialState.COMPLETE: "scored",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
COLUMNS = 3  # panels beside each other


def found(plan: Plan, study: optuna.Study, metric: str) -> dict[str, Any]:
    """What sweep.json holds: nothing in it depends on the clock."""
    trials = sweep_study.attempts(study).items()
    rows = [_row(plan, i, trial) for i, trial in trials if not sweep_study.is_given_up(trial)]
    winner = sweep_study.best(study)
    own = plan.settings
    return {
        "name": own.name,
        "objective": own.objective,
        "metric": metric,
        "folds": own.folds if own.objective == "inner_folds" else None,
        "sampler": own.sampler,
        "seed": own.seed,
        "space": {key: _bare(one.model_dump(mode="json")) for key, one in own.space.items()},
        "best": None if winner is None else _row(plan, *winner),
        "importance": sweep_study.importance(study),
        "scored_on_test": study.user_attrs.get(sweep_study.SCORED, []),
        "trials": rows,
    }


def table(report: Mapping[str, Any]) -> Table:
    """One line per trial, the best one marked; then how much each parameter mattered."""
    keys = list(report["space"])
    drawn = Table(
        "trial",
        *(key.removeprefix("model.") for key in keys),
        _measure(report),
        "",
        title=f"{report['name']}: {len(report['trials'])} trials",
    )
    best = (report["best"] or {}).get("trial")
    for row in report["trials"]:
        cells = (_text(row["values"].get(key)) for key in keys)
        value = "–" if row["score"] is None else f"{row['score']:.5g}"
        state = "best" if row["trial"] == best else row["state"]
        if row["same_as"] is not None:
            state = f"as trial {row['same_as']}"
        elif row["reason"]:
            state = f"failed: {row['reason'].splitlines()[0][:60]}"
        drawn.add_row(str(row["trial"]), *cells, value, state)
    if report["importance"]:
        drawn.add_section()
        shares = (f"{report['importance'].get(key, 0.0):.0%}" for key in keys)
        drawn.add_row("importance", *shares, "", "")
    return drawn


def draw(report: Mapping[str, Any], destination: Path) -> Path:
    """Draw the scores in order with the best so far, and a panel of scores per parameter.

    One trial or more of the report must be scored.
    """
    keys = sorted(report["space"], key=lambda key: -report["importance"].get(key, 0.0))
    panels = 1 + len(keys)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 0.9 + 2.7 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for unused in axes[panels:]:
            unused.set_axis_off()
        _history_panel(axes[0], report)
        for panel, key in zip(axes[1:], keys, strict=False):
            _slice_panel(panel, report, key)
        low, high = _limits(report)
        clipped = any(row["score"] is not None and row["score"] > high for row in report["trials"])
        for panel in axes[:panels]:
            panel.set_ylim(low, high)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        figure.suptitle(report["name"] + " (arrows: above the scale)" * clipped)
        return write(figure, destination)


class SweepProgress:
    """Trials done, the best so far and the time left: a bar in a terminal, else lines."""

    def __init__(self, console: Console, plan: Plan, done: int, total: int) -> None:
        self.console, self.plan = console, plan
        self.first = self.done = done
        self.total = total
        self.started = time.monotonic()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}  {task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("sweep", total=total, completed=done, best="", left="")

    def __enter__(self) -> SweepProgress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        """What is done now."""
        self.bar.update(self.task, description=text)

    def update(self, study: optuna.Study) -> None:
        """Some trials have ended since the last call."""
        held, before = sweep_study.attempts(study).items(), self.done
        trials = {i: t for i, t in held if i < self.total and sweep_study.is_done(t)}
        self.done = len(trials)
        winner = sweep_study.best(study)
        best = "" if winner is None else f"best {winner[1].value:.5g} (trial {winner[0]})"
        left = self._left()
        self.bar.update(self.task, completed=self.done, best=best, left=left)
        if self.console.is_terminal or self.done == before:
            return
        index, last = max(trials.items(), key=lambda one: _end(one[1]))
        score = f" {last.value:.5g}" if last.state == TrialState.COMPLETE else ""
        self.console.print(
            f"{self.done} of {self.total} trials; trial {index} {STATES[last.state]}{score}; "
            f"{best}{left}",
            soft_wrap=True,
        )

    def _left(self) -> str:
        if self.done <= self.first:
            return ""
        seconds = time.monotonic() - self.started
        left = seconds / (self.done - self.first) * max(0, self.total - self.done)
        return f"  {seconds:.0f} s, about {left:.0f} s left"


def _row(plan: Plan, index: int, trial: FrozenTrial) -> dict[str, Any]:
    scored = trial.state == TrialState.COMPLETE
    return {
        "trial": index,
        "state": STATES[trial.state],
        "score": trial.value if scored else None,
        "reported": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
        "same_as": trial.user_attrs.get(sweep_study.SAME),
        "reason": trial.user_attrs.get(sweep_study.ERROR),
        "values": sweep_study.chosen(plan, trial),
    }


def _bare(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _measure(report: Mapping[str, Any]) -> str:
    if report["objective"] == "validation":
        return f"{report['metric']}, validation"
    return f"{report['metric']}, mean of {report['folds']} inner folds"


def _short(report: Mapping[str, Any]) -> str:
    return f"{report['metric']}, {report['objective'].replace('_', ' ')}"


def _history_panel(axes: Axes, report: Mapping[str, Any]) -> None:
    scored = [row for row in report["trials"] if row["score"] is not None]
    places, scores = [row["trial"] for row in scored], [row["score"] for row in scored]
    pruned = [row for row in report["trials"] if row["state"] == "pruned" and row["reported"]]
    _dots(axes, report, places, scores, "o", COLORS[0], "scored")
    if pruned:
        last = [row["reported"][-1] for row in pruned]
        _dots(axes, report, [row["trial"] for row in pruned], last, "x", MUTED, "pruned there")
    best = np.minimum.accumulate(scores)
    axes.step(places, best, where="post", color=INK, linewidth=1.0, label="best so far")
    _mark(axes, report, report["best"]["trial"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    label(axes, "scores in order", "trial", _short(report))


def _slice_panel(axes: Axes, report: Mapping[str, Any], key: str) -> None:
    """Scores by the value of one parameter; choices stand beside each other."""
    parameter = report["space"][key]
    scored = [row for row in report["trials"] if row["score"] is not None]
    places: list[Any] = [row["values"][key] for row in scored]
    if "choices" in parameter:
        texts = [json.dumps(choice) for choice in parameter["choices"]]
        places = [texts.index(json.dumps(value)) for value in places]
        axes.set_xticks(range(len(texts)), [_text(choice) for choice in parameter["choices"]])
        axes.set_xlim(-0.6, len(texts) - 0.4)
    else:
        low, high = parameter["low"], parameter["high"]
        if parameter["log"]:
            axes.set_xscale("log")
            axes.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
        else:
            axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            whole = isinstance(low, int) and isinstance(high, int)
            axes.xaxis.set_major_locator(MaxNLocator(integer=whole, min_n_ticks=1))
    _dots(axes, report, places, [row["score"] for row in scored], "o", COLORS[0], "scored")
    _mark(axes, report, places[[row["trial"] for row in scored].index(report["best"]["trial"])])
    share = report["importance"].get(key)
    title = "importance: too few scores" if share is None else f"importance {share:.0%}"
    label(axes, title, key, _short(report))


def _dots(
    axes: Axes,
    report: Mapping[str, Any],
    places: Sequence[Any],
    scores: Sequence[float],
    marker: str,
    color: str,
    name: str,
) -> None:
    """Dots, and arrows at the upper edge for those that lie above it."""
    _, high = _limits(report)
    inside = [(place, score) for place, score in zip(places, scores, strict=True) if score <= high]
    above = [place for place, score in zip(places, scores, strict=True) if score > high]
    axes.plot(
        [place for place, _ in inside],
        [score for _, score in inside],
        marker,
        color=color,
        label=name,
    )
    if above:  # without dots, what is not clipped would leave the layout no room
        axes.plot(above, [high] * len(above), "^", color=color, markersize=7, clip_on=False)


def _mark(axes: Axes, report: Mapping[str, Any], place: Any) -> None:
    score = report["best"]["score"]
    axes.plot([place], [score], "o", color=COLORS[1], markersize=8, label="best")


def _limits(report: Mapping[str, Any]) -> tuple[float, float]:
    """What every panel shows: all scores but those far above the others, which hide the rest."""
    scores = np.array([row["score"] for row in report["trials"] if row["score"] is not None])
    low, middle, high = scores.min(), np.median(scores), scores.max()
    high = min(high, middle + 3 * (middle - low)) if middle > low else high
    room = 0.08 * (high - low) or 0.05 * abs(low) or 1.0
    return float(low - room), float(high + room)


def _end(trial: FrozenTrial) -> float:
    return 0.0 if trial.datetime_complete is None else trial.datetime_complete.timestamp()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)

"""`axonnx submission score` and `axonnx submission report`."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from submission import archive
from submission.challenges import Challenge
from submission.checking import trial
from submission.errors import ArchiveError, ConfigError
from submission.options import (
    add_challenge,
    add_running,
    chosen_challenge,
    existing,
    new_console,
    running,
)
from submission.scoring import budgets
from submission.scoring import records as score_records
from submission.scoring.intervals import BOTH, LEVEL, RESAMPLES, Statistics
from submission.scoring.records import Record
from submission.scoring.row import Score, Scored, compare
from submission.scoring.score import score, stated_by
from submission.worker.transfer import workplace

if TYPE_CHECKING:
    Words = argparse._SubParsersAction[argparse.ArgumentParser]


def add_words(words: Words) -> None:
    """Add the commands `score` and `report`."""
    word = words.add_parser("score", help="the leaderboard's row on data with known answers")
    word.add_argument("zip", type=Path)
    what = word.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="holds input_data/ and reference_data/ in the challenge's layout, or both in one",
    )
    what.add_argument(
        "--bundle", type=Path, metavar="DIR|ZIP", help="competition with its own programs and data"
    )
    word.add_argument("--task", type=int, default=0, metavar="N", help="of the bundle; default: 0")
    word.add_argument(
        "--baseline",
        type=Path,
        metavar="ZIP|JSON",
        help="compare with that zip, or a record; default: the last other zip on the same data",
    )
    word.add_argument(
        "--records",
        type=Path,
        default=score_records.DEFAULT,
        metavar="JSONL",
        help=f"where runs are kept; default: {score_records.DEFAULT}",
    )
    word.add_argument(
        "--output", type=Path, metavar="DIR", help="save scores, the page with details and logs"
    )
    word.add_argument("--json", action="store_true", help="print JSON")
    add_running(word)
    word.add_argument(
        "--python", metavar="PATH", help="interpreter (path or version) for the engine process"
    )
    word.set_defaults(run=_score)
    _add_report(words)


def _add_report(words: Words) -> None:
    word = words.add_parser("report", help="size, cold start, time and memory of a zip on one core")
    word.add_argument("zip", type=Path)
    add_challenge(word)
    word.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="interpreter (path or version); repeatable; default: those the zip has a runtime for",
    )
    word.set_defaults(run=_report)


def _score(options: argparse.Namespace) -> int:
    console = new_console(stderr=True)
    if options.data is not None:
        existing(options.data, folder=True)
    if options.baseline is not None and existing(options.baseline).suffix != ".zip":
        score_records.read_record(options.baseline)  # said before the run, not behind it
    with console.status("reading") as status:
        result = _run(options, existing(options.zip), options.output, status.update)
        if result.status == "Finished":
            status.update("comparing with the submission before")
            result = _compared(options, result, status.update)
            score_records.append(options.records, result.record(), result.statistics)
    if options.json:
        print(json.dumps(_json(result), indent=1, allow_nan=False))
    else:
        _print(new_console(), result, options)
    return 0 if result.status == "Finished" else 1


def _run(options: argparse.Namespace, path: Path, output: Path | None, notify: Any) -> Score:
    return score(
        path,
        data=options.data,
        bundle=options.bundle,
        task=options.task,
        python=options.python,
        output=output,
        notify=notify,
        **running(options),
    )


def _compared(options: argparse.Namespace, result: Score, notify: Any) -> Score:
    """`result` beside the run that was asked for, or the last of another zip on these data."""
    found = _baseline(options, result, notify)
    return result if found is None else compare(result, *found, notify)


def _baseline(
    options: argparse.Namespace, result: Score, notify: Any
) -> tuple[Record, Statistics | None] | None:
    file, folder = options.records, options.records.parent
    name = result.challenge
    if options.baseline is None:
        record = score_records.last(file, challenge=name, data=result.data, other=result.sha256)
        return None if record is None else (record, score_records.read_statistics(record, folder))
    if options.baseline.suffix != ".zip":
        record = score_records.read_record(options.baseline)
        if record.challenge != name:
            raise ConfigError(f"{options.baseline}: is of {record.challenge}, not of {name}")
        return record, score_records.read_statistics(record, options.baseline.parent)
    sha256 = hashlib.sha256(options.baseline.read_bytes()).hexdigest()
    record = score_records.last(file, challenge=name, data=result.data, sha256=sha256)
    if record is not None:
        return record, score_records.read_statistics(record, folder)
    notify(f"scoring {options.baseline}, which was not yet")
    before = _run(options, options.baseline, None, notify)
    if before.status != "Finished":
        raise ConfigError(f"{options.baseline}: cannot be compared with: {before.causes[0]}")
    score_records.append(file, before.record(), before.statistics)
    return before.record(), before.statistics


def _print(console: Console, result: Score, options: argparse.Namespace) -> None:
    console.print(f"{result.status}: {result.challenge}, {result.place}", markup=False)
    if result.columns:
        console.print(_table(result))
    if result.columns and result.previous is not None:
        console.print(_comparison(result, result.previous))
    elif result.status == "Finished":
        console.print("no earlier run on this data")
    for text in result.causes:
        console.print(f"✗ {text}", style="bold red", markup=False, soft_wrap=True)
    for text in result.notes:
        console.print(f"! {text}", style="yellow", markup=False, soft_wrap=True)
    if any(entry.interval for entry in result.columns):
        text = f"{LEVEL:.0%} percentile bootstrap, {RESAMPLES} resamples of rows within a set"
        if any(entry.interval and entry.interval.drawn == BOTH for entry in result.columns):
            text += f"; “{BOTH}”: the sets of a subject are drawn again as well"
        console.print(
            text,
            style="dim",
            soft_wrap=True,
        )
    if options.output is not None:
        console.print(f"saved in {options.output}", markup=False, soft_wrap=True)


def _table(result: Score) -> Table:
    table = Table("column")
    for name in ("score", f"{LEVEL:.0%} interval"):
        table.add_column(name, justify="right")
    table.add_column("drawn")
    for entry in result.columns:
        table.add_row(entry.column.title, *_cells(entry))
    return table


def _comparison(result: Score, previous: Record) -> Table:
    which = "the same zip" if previous.sha256 == result.sha256 else previous.zip
    table = Table("column", title=f"beside {which} of {previous.time}", title_justify="left")
    for name in ("before", "difference", f"{LEVEL:.0%} interval", "better in (share of resamples)"):
        table.add_column(name, justify="right")
    for entry in result.columns:
        table.add_row(entry.column.title, *_differences(entry))
    return table


def _cells(entry: Scored) -> list[str]:
    digits = entry.column.precision
    if entry.score is None:
        return ["n/a", "", ""]
    interval = entry.interval
    if interval is None:
        return [_number(entry.score, digits), "", ""]
    return [
        _number(entry.score, digits),
        _ends(interval.low, interval.high, digits),
        interval.drawn,
    ]


def _differences(entry: Scored) -> list[str]:
    digits, compared = entry.column.precision, entry.compared
    if compared is None or entry.score is None:
        return ["n/a", "", "", ""]
    if not compared.alike:
        return [_number(compared.previous, digits), "", "", ""]
    gap = entry.score - compared.previous
    cells = [_number(compared.previous, digits), _signed(gap, digits)]
    found = compared.difference
    if found is None:
        return [*cells, "", ""]
    better = "equal" if found.equal == 1.0 else f"{found.better:.1%}"
    return [*cells, _ends(found.low, found.high, digits, sign=True), better]


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return "0" if value == 0.0 else f"{value:+,.{digits}f}"


def _ends(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not defined"
    write = _signed if sign else _number
    return f"{write(low, digits)} … {write(high, digits)}"


def _json(result: Score) -> dict[str, Any]:
    record = result.record()
    value = record.model_dump(exclude={"statistics", "columns"})
    value |= {"status": result.status, "causes": result.causes, "notes": result.notes}
    value["columns"] = [_column(entry) for entry in result.columns]
    previous = result.previous
    value["previous"] = None if previous is None else previous.model_dump(exclude={"statistics"})
    return value


def _column(entry: Scored) -> dict[str, Any]:
    column, compared = entry.column, entry.compared
    value: dict[str, Any] = {
        "key": column.key,
        "title": column.title,
        "sorting": column.sorting,
        "precision": column.precision,
        "score": entry.score,
    }
    if entry.interval is not None:
        value["interval"] = _pair(entry.interval.low, entry.interval.high)
        value["drawn"] = entry.interval.drawn
    if compared is not None and entry.score is not None:
        value["previous"] = compared.previous
        if compared.alike:
            value["difference"] = entry.score - compared.previous
        if compared.difference is not None:
            found = compared.difference
            value["difference_interval"] = _pair(found.low, found.high)
            value |= {"better": found.better, "equal": found.equal}
    return value


def _pair(low: float, high: float) -> list[float] | None:
    return [low, high] if math.isfinite(low) and math.isfinite(high) else None


def _report(options: argparse.Namespace) -> int:
    path = existing(options.zip)
    challenge = chosen_challenge(options)
    with new_console(stderr=True).status("measuring") as status:
        budget = report(path, challenge, pythons=options.python, notify=status.update)
    print_budget(new_console(), budget)
    return 0 if all(budget.verdicts().values()) else 1


def report(
    path: Path,
    challenge: tuple[Challenge, BaseModel] | None = None,
    *,
    pythons: Sequence[str] = (),
    timed: bool = True,
    notify: Callable[[str], None] = lambda text: None,
) -> budgets.Budget:
    """Measure the zip at `path` and write its report beside it; `timed` False: sizes alone.

    Raises ArchiveError, ConfigError, RunError.
    """
    if found := archive.problems(path, ()):
        raise ArchiveError(f"{path}: {'; '.join(found)}")
    with workplace("axonnx-report-") as work:
        stated, definition = stated_by(path, trial.unpack(path, work), challenge)
    budget = budgets.measure(path, definition, stated, pythons=pythons, timed=timed, notify=notify)
    budgets.write(budget, path)
    return budget


def print_budget(console: Console, budget: budgets.Budget) -> None:
    """Sizes, times and what must hold of them."""
    console.print(budgets.size_table(budget.parts))
    if budget.timings:
        console.print(budgets.table(budget))
    for text, met in budget.verdicts().items():
        mark, style = ("✓", "green") if met else ("✗", "bold red")
        console.print(f"{mark} {text}", style=style, markup=False, soft_wrap=True)
    for text in budget.notes:
        console.print(f"– {text}", style="dim", markup=False, soft_wrap=True)
    stem = Path(budget.zip).stem
    console.print(f"{stem}.report.md and .json lie beside the zip", markup=False, soft_wrap=True)

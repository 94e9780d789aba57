"""The leaderboard's row of one run, with intervals, beside that of an earlier submission."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from submission.challenges import Column, Definition
from submission.scoring import records as score_records
from submission.scoring.intervals import (
    Array,
    Difference,
    Interval,
    Statistics,
    bootstrap,
    comparable,
    differences,
)
from submission.scoring.records import Record, Recorded


@dataclass(frozen=True)
class Compared:
    """An earlier submission's score; the difference's interval where both saw the same rows.

    Where it was scored on other data (not `alike`) the two scores have no difference.
    """

    previous: float
    difference: Difference | None
    alike: bool = True


@dataclass(frozen=True)
class Scored:
    """A column of the leaderboard; `score` is None where the platform would show n/a."""

    column: Column
    score: float | None
    interval: Interval | None
    compared: Compared | None = None


@dataclass(frozen=True)
class Score:
    """One run; `causes` say why the platform would call it Failed, `notes` what else to know."""

    zip: str
    sha256: str
    challenge: str
    artifacts: Mapping[str, str]
    data: str
    place: str
    status: str
    columns: tuple[Scored, ...]
    causes: tuple[str, ...]
    notes: tuple[str, ...]
    definition: Definition
    statistics: Statistics | None
    resampled: Mapping[str, Array] | None = None
    previous: Record | None = None

    def record(self) -> Record:
        """What is kept of it."""
        return Record(
            time=score_records.now(),
            zip=self.zip,
            sha256=self.sha256,
            challenge=self.challenge,
            artifacts=dict(self.artifacts),
            data=self.data,
            place=self.place,
            columns={entry.column.key: _recorded(entry) for entry in self.columns},
            statistics=""
            if self.statistics is None
            else score_records.statistics_name(self.sha256, self.data),
        )


def groups(definition: Definition) -> list[tuple[str, ...]]:
    """Names of the sets by subject: sessions that stand for one another."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in definition.sets:
        found[entry.subject] = (*found.get(entry.subject, ()), entry.name)
    return list(found.values())


def compare(
    result: Score,
    previous: Record,
    statistics: Statistics | None,
    notify: Callable[[str], None] = lambda text: None,
) -> Score:
    """`result` beside an earlier record, whose `statistics` make the comparison a paired one."""
    paired = _paired(result, previous, statistics, notify)
    columns, alike = [], previous.data == result.data
    for entry in result.columns:
        before = previous.columns.get(entry.column.key)
        if before is None or before.score is None:
            columns.append(entry)
            continue
        compared = Compared(before.score, paired.get(entry.column.key), alike)
        columns.append(replace(entry, compared=compared))
    notes = list(result.notes)
    if not alike:
        notes.append(
            f"{previous.zip} was scored on other data or by another rule: the values alone stand "
            "beside"
        )
    return replace(result, columns=tuple(columns), notes=tuple(notes), previous=previous)


def _paired(
    result: Score,
    previous: Record,
    statistics: Statistics | None,
    notify: Callable[[str], None],
) -> dict[str, Difference]:
    own, drawn, definition = result.statistics, result.resampled, result.definition
    if own is None or drawn is None or statistics is None or previous.data != result.data:
        return {}
    other = {name: statistics[name] for name in own if name in statistics}
    if not comparable(own, other):
        return {}
    sets, resamples = groups(definition), len(next(iter(drawn.values())))
    before = bootstrap(definition.rule, definition.options, other, sets, resamples, notify)
    rising = {entry.column.key: entry.column.sorting == "desc" for entry in result.columns}
    return differences(drawn, before, rising)


def _recorded(entry: Scored) -> Recorded:
    interval = entry.interval
    if interval is None:
        return Recorded(score=entry.score)
    low, high = (value if math.isfinite(value) else None for value in (interval.low, interval.high))
    return Recorded(score=entry.score, low=low, high=high, drawn=interval.drawn)

"""Which steps of a first config repair what was found, and where they stand among the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from recording.contract import Finding

# What goes before what. Steps that only cut or choose stand first and those that work sample by
# sample after them, so that as many as can be are the last ones, which the ONNX graph performs;
# filters run on what is left. Steps not named here follow in the order in which they were chosen.
ORDER = (
    ("behavior",),
    ("mask",),
    ("segment",),
    ("drop",),
    ("split_missing",),
    ("crop",),
    ("declare", "scale"),
    ("select",),
    ("clip",),
    ("filter", "notch"),
)
RANKS = {name: rank for rank, names in enumerate(ORDER) for name in names}
# On behaviour alone; a config that has none need not name them.
ON_BEHAVIOR = ("mask", "align")
MOVES = ("behavior", *ON_BEHAVIOR)


@dataclass(frozen=True)
class Line:
    """One step of a preparation and why it is there."""

    step: Mapping[str, Any]
    reason: str

    @property
    def name(self) -> str:
        """The step's name."""
        return str(self.step["step"])


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

    def add(self, step: Mapping[str, Any], reason: str) -> None:
        """One more step."""
        self.lines.append(Line(step, reason))


def remedies(findings: Iterable[Finding], task: str) -> list[Line]:
    """The findings' own steps, each once, as far as the task wants them."""
    lines: list[Line] = []
    for finding in findings:
        for step in finding.steps:
            name = step.get("step")
            if name == "align" or (task == "forecast" and name == "mask"):
                continue  # `decode` aligns by itself
            if name == "notch" and task == "forecast":
                continue  # mains are the easiest part of a forecast; a filter rings at each border
            if all(dict(line.step) != dict(step) for line in lines):
                lines.append(Line(step, finding.text))
    return lines


def in_order(lines: Sequence[Line]) -> list[Line]:
    """The lines as they have to run; a channel that has left `neural` is not named again."""
    ordered = sorted(lines, key=lambda line: RANKS.get(line.name, len(ORDER)))
    gone: list[str] = []
    kept: list[Line] = []
    for line in ordered:
        key = {"behavior": "channels", "drop": "names", "declare": "names"}.get(line.name)
        named = list(line.step.get(key, ())) if key else []
        left = [name for name in named if name not in gone]
        if named and not left:
            continue
        if line.name in ("behavior", "drop"):
            gone += left
        kept.append(Line({**line.step, key: left}, line.reason) if key and named else line)
    return kept


def moved(lines: Sequence[Line], name: str) -> bool:
    """Whether a step takes this channel out of `neural` as behaviour."""
    return any(
        fnmatchcase(name, pattern)
        for line in lines
        if line.name == "behavior"
        for pattern in line.step["channels"]
    )

"""Channels of EEG-like files: their names, units and types, and the values that go with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recording.contract import Channel, Finding, Series
from recording.readers.unit_names import is_known, microvolts
from recording.signals import Pointwise, Signal

# A type that a name gives away; the first that fits counts.
_NAMES = (
    ("stimulus", r"status|sti ?\d*|trig(ger)?s?\d*|marker|event( marker)?|stim\d*"),
    ("eog", r"[vh]?eog.*|e[ol]g[lr]?|.*\beog\b.*"),
    ("ecg", r"e[ck]g.*|.*\be[ck]g\b.*"),
    ("emg", r"emg.*|.*\bemg\b.*"),
    ("ecog", r"ecog.*"),
    ("seeg", r"seeg.*"),
    ("lfp", r"(lfp|dbs).*"),
    ("other", r"(resp|temp|spo2|sao2|pulse|pleth|gsr|eda|airflow|snore|light|battery).*"),
)


def channel(name: str, unit: str) -> tuple[Channel, float]:
    """A channel in the contract's unit and the factor to it: potentials become µV."""
    factor = microvolts(unit)
    return (Channel(name, unit=unit), 1.0) if factor is None else (Channel(name, unit="µV"), factor)


def linear(values: Signal, gains: np.ndarray, offsets: np.ndarray | float = 0.0) -> Signal:
    """values · gains + offsets as float32, one gain and offset per channel."""

    def run(block: np.ndarray) -> np.ndarray:
        # A damaged number may be beyond float32: infinite then, and refused when it is read.
        with np.errstate(over="ignore", invalid="ignore"):
            result: np.ndarray = (block.astype(np.float64) * gains + offsets).astype(np.float32)
        return result

    return Pointwise(values, run, values.shape[1:])


def distinct(channels: Sequence[Channel], findings: list[Finding]) -> tuple[Channel, ...]:
    """The channels, each with a name of its own; a finding says which were renamed."""
    seen: set[str] = set()
    renamed, result = [], []
    for index, old in enumerate(channels):
        name, number = old.name or f"channel {index + 1}", 1
        while name in seen:
            number += 1
            name = f"{old.name} ({number})"
        seen.add(name)
        if name != old.name:
            renamed.append(name)
        result.append(replace(old, name=name))
    if renamed:
        findings.append(
            Finding(
                "duplicate",
                f"the file gives channels no name or one name twice; called here {listed(renamed)}",
                "correct the names in the file if another file of this kind must match it",
                channels=tuple(renamed),
            )
        )
    return tuple(result)


def type_of_name(name: str) -> str | None:
    """The channel type that a name gives away, None where it says nothing."""
    words = name.strip().lower()
    for kind, pattern in _NAMES:
        if re.fullmatch(pattern, words):
            return kind
    return None


def take(series: Series, columns: Sequence[int]) -> Series:
    """The series with these columns alone, in this order."""
    if list(columns) == list(range(len(series.channels))):
        return series
    index = list(columns)
    values = Pointwise(series.values, lambda v: v[:, index], (len(index),))
    return series.with_values(values, channels=tuple(series.channels[i] for i in index))


def unknown_units(series: Sequence[Series]) -> list[Finding]:
    """Channels whose unit is none that is known: they stay as they are."""
    strange: dict[str, list[str]] = {}
    for one in series:
        for c in one.channels:
            if c.type != "stimulus" and not is_known(c.unit):
                strange.setdefault(c.unit, []).append(c.name)
    return [
        Finding(
            "unit",
            f"unit {unit[:20]!r} of {listed(names)} is not known; the numbers are as in the file",
            "correct the file, or say what they are: {step: declare, unit: µV, factor: …}",
            channels=tuple(names),
        )
        for unit, names in strange.items()
    ]


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first eight of many."""
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"

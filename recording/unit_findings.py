"""Units that are missing, and scales that no electrode gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recording.contract import Finding
from recording.readers.potential_scale import ELECTRIC, PLAUSIBLE
from recording.readers.unit_names import microvolts
from recording.stream_health import MEASURED, ChannelHealth, listed


def unit_findings(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    """Findings about the units of the neural channels."""
    yield from _scale(name, channels)
    yield from _no_unit(name, channels)


def _scale(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    """Electric channels of one type and unit whose spread no electrode gives; one per factor."""
    wrong: dict[float, list[tuple[str, list[ChannelHealth], float]]] = {}
    for kind, unit in dict.fromkeys((c.type, c.unit) for c in channels):
        group = [c for c in channels if (c.type, c.unit) == (kind, unit) and c.spread]
        volt = microvolts(unit)
        if kind not in ELECTRIC or volt is None or not group:
            continue
        spread = float(np.median([c.spread or 0.0 for c in group])) * volt
        if not PLAUSIBLE[0] <= spread <= PLAUSIBLE[1]:
            # Wrong prefixes are wrong by thousands.
            factor = 10.0 ** (3 * round(np.log10(30.0 / spread) / 3)) * volt
            wrong.setdefault(float(f"{factor:g}"), []).append((kind, group, spread))
    for factor, groups in wrong.items():
        each = "; ".join(f"{kind} by {spread:.3g} µV" for kind, _, spread in groups)
        after = " and ".join(
            f"{float(np.median([c.spread or 0.0 for c in group])) * factor:.3g} µV"
            for _, group, _ in groups
        )
        names = [c.name for _, group, _ in groups for c in group]
        yield Finding(
            "scale",
            f"as the file states its unit, the channels spread by too much or too little: {each}; "
            f"usual are {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} µV. The stated unit is probably wrong",
            f"declare it: times {factor:g} the spread is {after}",
            name,
            channels=tuple(names),
            steps=(
                {
                    "step": "declare",
                    "unit": "µV",
                    "factor": factor,
                    "types": list(dict.fromkeys(kind for kind, _, _ in groups)),
                },
            ),
        )


def _no_unit(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    bare = [c for c in channels if not c.unit and not c.code and c.type in (*MEASURED, "eog")]
    bare = [c for c in bare if c.type != "spikes"]
    if not bare:
        return
    electric = [c for c in bare if c.type in ELECTRIC]
    spread = float(np.median([c.spread or 0.0 for c in electric or bare]))
    known = bool(electric) and len(electric) == len(bare)
    likely = known and PLAUSIBLE[0] <= spread <= PLAUSIBLE[1]
    guess = "as µV that would be usual" if likely else "not known to be µV"
    yield Finding(
        "unit",
        f"no unit is stated for {len(bare)} channels ({listed([c.name for c in bare], 3)}); "
        f"they spread by {spread:.3g}" + (f", {guess}" if electric else ""),
        "declare the unit where you know it: {step: declare, unit: µV}",
        name,
        channels=tuple(c.name for c in bare),
        level="note",
        steps=({"step": "declare", "unit": "µV"},) if likely else (),
    )

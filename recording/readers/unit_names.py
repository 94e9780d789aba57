"""Names of units in files: what one of them is in µV, what one of them is in metres."""

from __future__ import annotations

_PREFIXES = {
    "": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9,
    "milli": 1e-3, "micro": 1e-6, "nano": 1e-9,
}  # fmt: skip
_VOLTS = {
    prefix + word: factor * 1e6
    for prefix, factor in _PREFIXES.items()
    for word in (("volt", "volts") if len(prefix) > 1 else ("v", "volt", "volts"))
}
_METRES = {
    prefix + word: factor
    for prefix, factor in (_PREFIXES | {"c": 1e-2, "centi": 1e-2}).items()
    for word in ("meter", "meters", "metre", "metres", *(() if len(prefix) > 1 else ("m",)))
} | {"micron": 1e-6, "microns": 1e-6}
# What is recorded beside potentials, in lower case; "" where no unit is stated.
_OTHERS = frozenset((
    "", "n/a", "na", "-", "1", "au", "a.u.", "arbitrary", "boolean", "bit", "bits", "count", "code",
    "%", "db", "od", "px", "pixel", "pixels", "°c", "c", "degc", "celsius", "k", "bpm", "1/min",
    "hz", "s", "ms", "min", "l", "ml", "l/min", "lpm", "ml/s", "mmhg", "cmh2o", "pa", "kpa", "hpa",
    "bar", "g", "mg", "kg", "m/s", "m/s^2", "m/s²", "n", "deg", "°", "rad", "rad/s", "deg/s", "°/s",
    "dps", "ohm", "kohm", "mohm", "ω", "kω", "s/m", "µs", "us", "t", "mt", "µt", "ut", "nt", "pt",
    "ft", "t/m", "ft/cm", "a", "ma", "µa", "ua", "lux", "lx", "w", "j", "mol",
))  # fmt: skip


def is_known(unit: str) -> bool:
    """Whether a unit is one that channels of a recording have; "" is."""
    found = unit.strip().lower().replace("μ", "µ")
    return found in _OTHERS or microvolts(unit) is not None or metres(unit) is not None


def microvolts(unit: str) -> float | None:
    """How many µV one `unit` is; None where it is no unit of electric potential."""
    factor = _VOLTS.get(unit.strip().lower())
    return None if factor is None else round(factor, 12)


def metres(unit: str) -> float | None:
    """How many metres one `unit` is; None where it is no unit of length."""
    return _METRES.get(unit.strip().lower())

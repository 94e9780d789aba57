"""What a zip costs: size by part, cold start, seconds per row, memory, the whole test set.

Measured on one core, in the process engine, with the challenge's own ingestion program on made-up
rows. The report lies beside the zip, never in it: the zip's bytes follow from its inputs alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.table import Table

import artifact
from artifact import Bundle
from artifact.bundle import write_file
from submission.challenges import Definition
from submission.checking import trial
from submission.contents import Contents
from submission.programs import ingestion_program
from submission.scoring.timings import Notify, Timing, time_place
from submission.worker.transfer import workplace

VENDOR_BYTES = 12_000_000  # zipped, for one Python
COLD_SECONDS = 2.0
SHARE = 0.5  # of the time limit: the platform's machines may be slower


@dataclass(frozen=True)
class Part:
    """A part of the zip: `vendor/cp310`, `artifacts/affi`, `artifact`, `model.py`; bytes."""

    name: str
    zipped: int
    unpacked: int


@dataclass(frozen=True)
class Budget:
    """The report of a zip; `notes` say what was not measured."""

    zip: str
    sha256: str
    challenge: str
    zipped: int
    unpacked: int
    parts: tuple[Part, ...]
    limit: float
    processor: str
    timings: tuple[Timing, ...] = ()
    notes: tuple[str, ...] = ()

    def verdicts(self) -> dict[str, bool]:
        """What must hold, in words, and whether it does."""
        found = {}
        for part in self.parts:
            if part.name.startswith("vendor/"):
                text = f"{part.name}: at most {VENDOR_BYTES / 1e6:g} MB zipped"
                found[text] = part.zipped <= VENDOR_BYTES
        for timing in self.timings:
            where = f"Python {timing.python}"
            apart = ", the image's own packages apart" if timing.packages else ""
            found[f"{where}: cold start within {COLD_SECONDS:g} s{apart}"] = (
                timing.cold_start - timing.packages <= COLD_SECONDS
            )
            if timing.projected is not None:
                text = f"{where}: the whole test set within {SHARE:.0%} of {self.limit:g} s"
                found[text] = timing.projected <= SHARE * self.limit
        return found


def sizes(path: Path) -> tuple[Part, ...]:
    """Bytes of a zip's parts, sorted by name."""
    parts: dict[str, list[int]] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            pieces = info.filename.split("/")
            depth = 2 if pieces[0] in ("vendor", "artifacts") else 1
            sums = parts.setdefault("/".join(pieces[:depth]), [0, 0])
            sums[0] += info.compress_size
            sums[1] += info.file_size
    return tuple(Part(name, *sums) for name, sums in sorted(parts.items()))


def measure(
    path: Path,
    definition: Definition,
    contents: Contents | None,
    *,
    pythons: Sequence[str] = (),
    timed: bool = True,
    notify: Notify = lambda text: None,
) -> Budget:
    """The budget of the zip at `path`; `timed` False leaves its program alone.

    `pythons` are interpreters (paths or versions); left out, every one that the zip has a runtime
    for. Raises ConfigError where a wanted one is missing, RunError where the program fails.
    """
    parts = sizes(path)
    budget = Budget(
        zip=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        challenge=definition.name,
        zipped=path.stat().st_size,
        unpacked=sum(part.unpacked for part in parts),
        parts=parts,
        limit=definition.limits.seconds,
        processor=_processor(),
    )
    if not timed:
        return budget
    if ingestion_program(definition, ()) is None:
        return replace(budget, notes=("the platform runs nothing of it: no times",))
    places, missing = trial.places(definition, contents, "process", pythons=pythons)
    notes = [f"Python {version}: not measured, no such interpreter here" for version in missing]
    with workplace("axonnx-report-") as work:
        program = trial.unpack(path, work / "unpacked")
        bundles = _bundles(program, contents)
        timings = tuple(
            time_place(definition, bundles, program, place, work / f"place{number}", notify)
            for number, place in enumerate(places)
        )
    if any(entry.rows is None for entry in definition.sets):
        notes.append("how many rows the test set has is not known: no projection")
    return replace(budget, timings=timings, notes=tuple(notes))


def write(budget: Budget, path: Path) -> tuple[Path, Path]:
    """Write `<stem>.report.json` and `<stem>.report.md` beside the zip at `path`."""
    value = {**asdict(budget), "verdicts": budget.verdicts()}
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    return (
        write_file(path.with_name(f"{path.stem}.report.json"), text.encode()),
        write_file(path.with_name(f"{path.stem}.report.md"), _markdown(budget).encode()),
    )


def _bundles(program: Path, contents: Contents | None) -> dict[str, Bundle]:
    entries = contents.artifacts if contents else {}
    return {
        name: artifact.read(program / "artifacts" / entry.folder)
        for name, entry in entries.items()
        if (program / "artifacts" / entry.folder).is_dir()
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


Row = tuple[str, tuple[str, ...]]


def size_table(parts: Sequence[Part]) -> Table:
    """The parts of a zip, in MB."""
    table = Table("part")
    for name in ("MB zipped", "MB unpacked"):
        table.add_column(name, justify="right")
    for name, values in _size_rows(parts):
        table.add_row(name, *values)
    return table


def table(budget: Budget) -> Table:
    """Times and memory, a column for each Python."""
    found = Table("on one core")
    for timing in budget.timings:
        found.add_column(f"Python {timing.python}", justify="right")
    for name, values in _timing_rows(budget):
        found.add_row(name, *values)
    return found


def _size_rows(parts: Sequence[Part]) -> Iterator[Row]:
    for part in parts:
        yield part.name, (f"{part.zipped / 1e6:.3f}", f"{part.unpacked / 1e6:.3f}")


def _timing_rows(budget: Budget) -> Iterator[Row]:
    timings = budget.timings
    if not timings:
        return
    yield "onnxruntime", tuple(timing.onnxruntime or "" for timing in timings)
    yield "cold start, s", tuple(f"{timing.cold_start:.2f}" for timing in timings)
    if any(timing.packages for timing in timings):
        packages = (f"{timing.packages:.2f}" for timing in timings)
        yield "  interpreter and the image's packages, s", tuple(packages)
    yield "  import, s", tuple(f"{timing.imported:.2f}" for timing in timings)
    for name in timings[0].loaded:
        yield f"  load {name}, s", tuple(f"{timing.loaded[name]:.2f}" for timing in timings)
    for number, rate in enumerate(timings[0].rates):
        rates = [timing.rates[number] for timing in timings]
        what = f"{rate.set}, {rate.rows} rows at once" if rate.set else f"{rate.subject}, row alone"
        yield f"{what}, ms per row", tuple(f"{1e3 * r.seconds / r.rows:.2f}" for r in rates)
    yield "peak memory, MB", tuple(f"{timing.peak_bytes / 1e6:.0f}" for timing in timings)
    projected = [timing.projected for timing in timings]
    yield "whole test set, s", tuple("-" if p is None else f"{p:.1f}" for p in projected)
    shares = ("-" if p is None else f"{p / budget.limit:.1%}" for p in projected)
    yield f"  of {budget.limit:g} s", tuple(shares)


def _markdown(budget: Budget) -> str:
    lines = [
        f"# {budget.zip}",
        "",
        f"{budget.challenge}, {budget.zipped / 1e6:.1f} MB zipped, "
        f"{budget.unpacked / 1e6:.1f} MB unpacked, sha256 `{budget.sha256}`",
        "",
        *_lines(("part", ("MB zipped", "MB unpacked")), _size_rows(budget.parts)),
    ]
    if budget.timings:
        names = tuple(f"Python {timing.python}" for timing in budget.timings)
        lines += ["", f"On one core of {budget.processor}:", ""]
        lines += _lines(("what", names), _timing_rows(budget))
    lines += [""] + [f"- {'met' if m else 'NOT MET'}: {t}" for t, m in budget.verdicts().items()]
    lines += [f"- {note}" for note in budget.notes]
    return "\n".join(lines) + "\n"


def _lines(head: Row, rows: Iterator[Row]) -> Iterator[str]:
    yield "| " + " | ".join((head[0], *head[1])) + " |"
    yield "|---" + "|---:" * len(head[1]) + "|"
    for name, values in rows:
        yield "| " + " | ".join((name.strip(), *values)) + " |"

"""`axonnx submission bundle`: write a competition bundle, or check one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from submission.bundle.build import Built, build
from submission.bundle.competition_check import findings
from submission.errors import ConfigError
from submission.options import existing, new_console

if TYPE_CHECKING:
    Words = argparse._SubParsersAction[argparse.ArgumentParser]

MARKS = {"failed": ("✗", "bold red"), "warning": ("!", "bold yellow")}


def add_words(words: Words) -> None:
    """Add the word `bundle` to the parser of `axonnx submission`."""
    word = words.add_parser("bundle", help="write a competition for CodaBench, or check one")
    word.add_argument(
        "config", type=Path, nargs="?", help="such as configs/submissions/bundle.yaml"
    )
    word.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="input_data/ and reference_data/, or full recordings; public_data/ and starting_kit/ "
        "for everyone",
    )
    word.add_argument(
        "--solution", type=Path, metavar="ZIP", help="submission to show (default: one made up)"
    )
    word.add_argument(
        "--output",
        type=Path,
        default=Path("bundle.zip"),
        metavar="ZIP|DIR",
        help="where to write it (default: bundle.zip)",
    )
    word.add_argument("--check", type=Path, metavar="BUNDLE", help="check this zip or folder")
    word.set_defaults(run=_bundle)


def _bundle(options: argparse.Namespace) -> int:
    if options.check is not None:
        if options.config or options.data or options.solution:
            raise ConfigError("--check: takes a bundle alone, no CONFIG, --data or --solution")
        return _check(options.check)
    if options.config is None or options.data is None:
        raise ConfigError("CONFIG and --data DIR are wanted, or --check BUNDLE")
    console = new_console(stderr=True)
    with console.status("building") as status:
        built = build(
            existing(options.config),
            existing(options.data, folder=True),
            options.output,
            solution=options.solution,
            notify=status.update,
        )
    _print(built)
    return 0


def _print(built: Built) -> None:
    console = new_console()
    table = Table(title=str(built.path), title_justify="left")
    table.add_column("part")
    table.add_column("MB", justify="right")
    for part, size in built.parts.items():
        table.add_row(part, f"{size / 1e6:.2f}")
    console.print(table)
    if built.scores:
        table = Table("column", title="first submission", title_justify="left")
        table.add_column("score", justify="right")
        for key, value in built.scores.items():
            table.add_row(key, f"{value:.6g}")
        console.print(table)
    for note in built.notes:
        console.print(f"! {note}", style="yellow", markup=False, soft_wrap=True)
    secret, shown = built.compared
    console.print(
        f"✓ no answer is shown: {secret} arrays of answers compared with {shown} of inputs, "
        "starting kit and public data",
        soft_wrap=True,
    )
    if built.sha256:
        megabytes = built.path.stat().st_size / 1e6
        console.print(f"{megabytes:.1f} MB, sha256 {built.sha256}", soft_wrap=True)
    console.print(f"next: axonnx submission check ZIP --bundle {built.path}", soft_wrap=True)


def _check(bundle: Path) -> int:
    console = new_console()
    found = findings(bundle)
    for finding in found:
        mark, style = MARKS[finding.status]
        console.print(f"{mark} {finding.text}", style=style, markup=False, soft_wrap=True)
    failed = sum(finding.status == "failed" for finding in found)
    console.print(f"FAILED: {failed} to mend" if failed else "passed", soft_wrap=True)
    return 1 if failed else 0

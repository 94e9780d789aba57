"""`axonnx submission`: build, check, predict, score, bundle, upload, status, fetch."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from artifact.errors import ArtifactError
from submission import challenges
from submission.build import Built, build
from submission.bundle import cli as bundle_cli
from submission.checking.check import check
from submission.checking.findings import Finding, Report
from submission.checking.predict import predict
from submission.codabench import cli as upload_cli
from submission.codabench.records import DEFAULT as RECORDS
from submission.codabench.records import Records
from submission.config import SubmissionConfig, load_config
from submission.errors import ConfigError, SubmissionError, printable
from submission.options import add_running, existing, new_console, running
from submission.scoring import cli as score_cli
from submission.scoring.budgets import Budget
from submission.scoring.check_bundle import check_bundle

MARKS = {
    "ok": ("✓", "green"),
    "warning": ("!", "bold yellow"),
    "skipped": ("–", "dim"),
    "failed": ("✗", "bold red"),
}


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 a check that failed, 2 wrong arguments."""
    options = _parser().parse_args(argv[1:])
    try:
        code: int = options.run(options)
        return code
    except SubmissionError as error:
        print(f"axonnx: error: {printable(str(error))}", file=sys.stderr)
        return error.exit_status
    except ArtifactError as error:
        print(f"axonnx: error: {printable(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"axonnx: error: {reason}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("axonnx submission", description="CodaBench submissions.")
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")

    word = words.add_parser("build", help="write the zip that a YAML file describes")
    word.add_argument(
        "config", type=Path, help="such as configs/submissions/neural_forecasting.yaml"
    )
    word.add_argument(
        "--model", action="append", default=[], metavar="NAME=DIR", help="artifact of a subject"
    )
    word.add_argument("--artifact", type=Path, metavar="DIR", help="one artifact for every subject")
    word.add_argument("--output", type=Path, metavar="ZIP", help="where to write it")
    word.add_argument(
        "--data", type=Path, metavar="DIR", help="inputs that a result submission is predicted from"
    )
    word.add_argument(
        "--python",
        action="append",
        metavar="VERSION",
        help="carry a runtime for this Python; repeatable",
    )
    word.add_argument(
        "--onnxruntime", metavar="VERSION", help="carry this version for every Python"
    )
    word.add_argument(
        "--no-report", action="store_true", help="sizes alone: start, speed and memory unmeasured"
    )
    word.set_defaults(run=_build)

    word = words.add_parser("check", help="prove a zip under CodaBench's rules")
    word.add_argument("zip", type=Path)
    word.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the challenge's test files"
    )
    add_running(word)
    word.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="interpreter (path or version) for the engine process; repeatable",
    )
    word.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="folder or zip of a competition: its programs and data instead of our own",
    )
    word.add_argument("--task", type=int, default=0, metavar="N", help="task of the bundle")
    word.add_argument("--records", type=Path, default=RECORDS, help=f"default: {RECORDS}")
    word.set_defaults(run=_check)

    word = words.add_parser("predict", help="write prediction files in the challenge's layout")
    word.add_argument("zip", type=Path)
    word.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the challenge's test files",
    )
    word.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the predictions"
    )
    add_running(word)
    word.add_argument(
        "--python", metavar="PATH", help="interpreter (path or version) for the engine process"
    )
    word.set_defaults(run=_predict)
    score_cli.add_words(words)
    bundle_cli.add_words(words)
    upload_cli.add_words(words)
    return parser


def _build(options: argparse.Namespace) -> int:
    overrides: dict[str, Any] = {}
    for pair in options.model:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--model {pair}: must be NAME=DIR, such as affi=runs/affi/artifact")
        overrides.setdefault("models", {})[name] = Path(folder)
    for key in ("artifact", "output", "python", "onnxruntime", "data"):
        if getattr(options, key) is not None:
            overrides[key] = getattr(options, key)
    config = load_config(existing(options.config), overrides)
    with new_console(stderr=True).status("building") as status:
        built = build(config, status.update)
        budget = _budget(built, config, options.no_report, status.update)
    console = new_console()
    console.print(f"{built.path}, sha256 {built.sha256}", soft_wrap=True)
    score_cli.print_budget(console, budget)
    for name in built.normalized:
        console.print(
            f"! {name} answers in normalized units. CodaBench scores raw units: the score will be "
            "the signal's own power, mean(mean²+std²); train or import it with output_units: raw",
            style="bold yellow",
            soft_wrap=True,
        )
    console.print(f"next: axonnx submission check {built.path}", soft_wrap=True)
    return 0


def _budget(
    built: Built, config: SubmissionConfig, untimed: bool, notify: Callable[[str], None]
) -> Budget:
    """The report of a fresh zip; timed where that needs nothing beyond numpy."""
    challenge = challenges.get(config.challenge)
    packages = challenge.definition(config.settings, tuple(built.artifacts)).image.packages
    timed = not untimed and all(package.startswith("numpy==") for package in packages)
    arguments = (built.path, (challenge, config.settings))
    return score_cli.report(*arguments, timed=timed, notify=notify)


def _check(options: argparse.Namespace) -> int:
    console = new_console()

    def show(finding: Finding) -> None:
        mark, style = MARKS[finding.status]
        console.print(f"{mark} {finding.text}", style=style, markup=False, soft_wrap=True)

    if options.data is not None:
        existing(options.data, folder=True)
    if options.bundle is not None and options.data is not None:
        raise ConfigError("--bundle: the data of the competition are used; leave out --data")
    zip_file = existing(options.zip)
    with new_console(stderr=True).status("reading") as status:
        if options.bundle is None:
            report = check(
                zip_file,
                data=options.data,
                pythons=options.python,
                notify=show,
                progress=status.update,
                **running(options),
            )
        else:
            if len(options.python) > 1:
                raise ConfigError("--python: one is enough with --bundle")
            report = check_bundle(
                zip_file,
                options.bundle,
                options.task,
                notify=show,
                progress=status.update,
                python=next(iter(options.python), None),
                **running(options),
            )
    if report.rows:
        console.print(_rows(report))
    failed = sum(finding.status == "failed" for finding in report.findings)
    console.print(
        "passed" if report.passed else f"FAILED: {failed} of {len(report.findings)} checks"
    )
    sha256 = hashlib.sha256(zip_file.read_bytes()).hexdigest()
    try:
        Records(options.records).add_check(sha256, report.passed)
    except OSError as error:
        text = f"{options.records}: {error.strerror}; `upload` will not know that it was checked"
        print(f"axonnx: not recorded: {text}", file=sys.stderr)
    return 0 if report.passed else 1


def _rows(report: Report) -> Table:
    table = Table()
    for name in ("place", "set"):
        table.add_column(name)
    for name in ("rows", "seconds", "right and equal"):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(
            row.place, row.set, str(row.rows), f"{row.seconds:.3f}", "yes" if row.equal else "NO"
        )
    return table


def _predict(options: argparse.Namespace) -> int:
    console = new_console()
    written = predict(
        existing(options.zip),
        data=existing(options.data, folder=True),
        output=options.output,
        python=options.python,
        **running(options),
        notify=lambda text: console.print(text, soft_wrap=True),
    )
    table = Table("set", "rows")
    table.add_column("file", overflow="fold")
    for entry in written:
        table.add_row(entry.set, str(entry.rows), str(entry.path))
    console.print(table)
    return 0

"""The trainer's commands: arguments in, exit code out; what they do lives in other modules.

torch is imported by the commands that need it, once their arguments have been read.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from trainer.progress import plain_console

if TYPE_CHECKING:
    from trainer.registry import Registry

RUNS = Path("runs")
# Keys of a config outside any section, which an override names without a dot.
TOP_KEYS = ("name", "seed")
INTERRUPTED = 130


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 a result that does not hold, 2 wrong arguments or files."""
    # Threads that spin while they wait slow a busy machine down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    word, *rest = argv
    try:
        return COMMANDS[word](rest)
    except KeyboardInterrupt:
        print("axonnx: interrupted", file=sys.stderr)
        return INTERRUPTED
    except PackageNotFoundError as error:
        # It is a ModuleNotFoundError by birth, but no extra brings what it misses.
        raise RuntimeError(str(error)) from error
    except ModuleNotFoundError:
        raise  # axonnx.py names the extra that brings it
    except Exception as error:
        from trainer.exit_codes import exit_code, explain

        code = exit_code(error)
        if code is None:
            raise
        print(f"axonnx: error: {explain(error)}", file=sys.stderr)
        return code


def _train(argv: list[str]) -> int:
    parser = _parser(
        "train",
        "Train a model from a YAML file and export its artifact. Any key of the file can be "
        "overridden: --training.epochs 5, --model.name patchformer, --seed 3.",
        "axonnx train configs/goose_gru.yaml --training.epochs 5 --output runs/short",
    )
    parser.usage = (
        "axonnx train CONFIG [--section.key value …] [--output DIR] [--resume | --overwrite]"
    )
    parser.add_argument("config", metavar="CONFIG", type=_file, help="YAML file of the run")
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/<config name>")
    taken = parser.add_mutually_exclusive_group()
    taken.add_argument("--resume", action="store_true", help="continue the run that is there")
    taken.add_argument("--overwrite", action="store_true", help="start anew in its folder")
    overrides, rest = split_overrides(argv)
    options = parser.parse_args(rest)
    from trainer.config import load_config

    config = load_config(options.config, overrides)
    output = options.output or RUNS / config.name
    from trainer.pipeline import train_and_export

    console = plain_console()
    try:
        run = train_and_export(
            config, output, resume=options.resume, overwrite=options.overwrite, console=console
        )
    except KeyboardInterrupt:
        words = ["axonnx", "train", str(options.config)]
        for key, value in overrides:
            words += [f"--{key}={value}"] if value.startswith("--") else [f"--{key}", value]
        words += ["--output", str(options.output)] if options.output else []
        command = shlex.join([*words, "--resume"])
        print(f"axonnx: interrupted; to go on: {command}", file=sys.stderr)
        return INTERRUPTED
    table = Table("", "validation", "test", title=f"{config.name}, epoch {run.metrics['epoch']}")
    for name in (key.removeprefix("test_") for key in run.metrics if key.startswith("test_")):
        scores = (run.metrics.get(f"{part}_{name}") for part in ("validation", "test"))
        table.add_row(name, *("–" if score is None else f"{score:.5g}" for score in scores))
    console.print(table)
    artifact = output / "artifact"
    commands = [["axonnx", "serve", artifact], ["axonnx", "evaluate", artifact]]
    if isinstance(file := config.data.get("path"), str) and run.dataset.plan is not None:
        from trainer.data.paths import resolve

        commands.append(["axonnx", "predict", artifact, resolve(file), "--part", "test"])
    elif run.dataset.plan is None:
        commands.append(
            [
                *("axonnx", "submission", "build", "configs/submissions/single.yaml"),
                *("--model", f"main={artifact}"),
            ]
        )
    _next(console, *commands)
    return 0


def _prepare(argv: list[str]) -> int:
    parser = _parser(
        "prepare",
        "Turn a raw recording into windows of a challenge.",
        "axonnx prepare configs/data/uecog_goose.yaml",
    )
    parser.add_argument("config", metavar="CONFIG", type=_file, help="YAML file of the preparation")
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: named in the file")
    options = parser.parse_args(argv)
    from trainer.data.prepare import prepare

    print(prepare(options.config, options.output))
    return 0


def _runs(argv: list[str]) -> int:
    parser = _parser(
        "runs", "List, show and compare runs.", "axonnx runs compare goose_gru goose_patchformer"
    )
    words = parser.add_subparsers(dest="word", metavar="list|show|compare", required=True)
    for word, text in (
        ("list", "one line per run"),
        ("show", "one run: config, epochs, metrics"),
        ("compare", "metrics and differing settings of several runs, and a plot"),
    ):
        sub = words.add_parser(word, help=text, description=text, allow_abbrev=False)
        sub.add_argument("--root", type=Path, default=RUNS, help="folder of runs (default: runs)")
        if word == "show":
            sub.add_argument("runs", metavar="RUN", nargs=1, help="a run folder or its name")
        if word == "compare":
            sub.add_argument("runs", metavar="RUN", nargs="+", help="run folders or their names")
            sub.add_argument("--output", type=Path, help="PNG (default: ROOT/compare.png)")
    options = parser.parse_args(argv)
    from trainer import runs

    console = plain_console()
    if options.word == "list":
        found = runs.folders(options.root)
        if not found:
            console.print(
                f"no runs below {options.root}; `axonnx train CONFIG` makes one", soft_wrap=True
            )
        else:
            console.print(runs.list_table([runs.read(path) for path in found]))
        return 0
    records = [runs.read(runs.find(name, options.root)) for name in options.runs]
    if options.word == "show":
        console.print(str(records[0].folder), soft_wrap=True)
        console.print(runs.config_text(records[0]))
        console.print(runs.show_table(records[0]))
        console.print(runs.compare_table(records))
        if submitted := runs.submissions_table(records[0], options.root):
            console.print(submitted)
        return 0
    console.print(runs.compare_table(records))
    path = runs.compare_plot(records, options.output or options.root / "compare.png")
    console.print(f"held-out curves: {path}", soft_wrap=True)
    return 0


def _evaluate(argv: list[str]) -> int:
    parser = _parser(
        "evaluate",
        "Score artifacts on the test part beside the baselines of its task (and the legacy model); "
        "writes report.json, report.md and report.png.",
        "axonnx evaluate runs/goose_patchformer/artifact --legacy runs/goose_gru/artifact",
    )
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="+", type=_there)
    parser.add_argument(
        "--config", type=_file, help="YAML file that names the data (default: the first artifact's)"
    )
    parser.add_argument("--legacy", metavar="ARTIFACT", type=_there, help="the legacy model's")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="default: evaluation/ beside the first artifact"
    )
    options = parser.parse_args(argv)
    from trainer import folder, report
    from trainer.config import load_config
    from trainer.evaluation import evaluate

    console = plain_console()
    config = load_config(options.config, []) if options.config else None
    output = options.output or options.artifacts[0].resolve().parent / folder.EVALUATION
    found = evaluate(
        options.artifacts, output, config=config, legacy=options.legacy, console=console
    )
    console.print(report.table(found))
    for name in ("report.json", "report.md", "report.png"):
        console.print(f"  {output / name}", soft_wrap=True)
    return 0


def _import_legacy(argv: list[str]) -> int:
    parser = _parser(
        "import-legacy",
        "Turn the organisers' published weights and train statistics into an artifact that "
        "behaves as published.",
        "axonnx import-legacy --weights model_affi.pth "
        "--statistics train_data_average_std_affi.npz --output runs/legacy_affi/artifact",
    )
    parser.add_argument("--weights", metavar="PTH", type=_file, required=True)
    parser.add_argument("--statistics", metavar="NPZ", type=_file, required=True)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True)
    parser.add_argument(
        "--output-units",
        choices=("normalized", "raw"),
        default="normalized",
        help="normalized: as published; raw: in the units of the recording (default: normalized)",
    )
    parser.add_argument("--name", help="the artifact's name (default: legacy-<monkey>)")
    options = parser.parse_args(argv)
    from trainer.legacy import import_legacy

    path = import_legacy(
        options.weights, options.statistics, options.output, options.output_units, options.name
    )
    console = plain_console()
    console.print(f"{path} answers in {options.output_units} units", soft_wrap=True)
    _next(console, ["axonnx", "verify", path], ["axonnx", "serve", path])
    return 0


def _quickstart(argv: list[str]) -> int:
    parser = _parser(
        "quickstart",
        "A minute's tour on synthetic data: train, export, serve, submit, compare bit for bit.",
        "axonnx quickstart",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=RUNS / "quickstart",
        help="a folder for it all",
    )
    options = parser.parse_args(argv)
    from trainer import quickstart

    return quickstart.run(options.output)


def _export(argv: list[str]) -> int:
    parser = _parser(
        "export",
        "Rebuild a run's artifact from its config and checkpoint, through the registry.",
        "axonnx export runs/goose_gru --checkpoint best",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name below runs/")
    parser.add_argument(
        "--checkpoint",
        default="kept",
        metavar="NAME",
        help="best, last, snapshot-1, … (default: the one that training exported)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="a new folder (default: artifact/ in RUN, artifact-last/ for the last epoch, …)",
    )
    options = parser.parse_args(argv)
    from trainer import runs
    from trainer.export import export_run

    print(export_run(runs.find(options.run, RUNS), options.checkpoint, options.output))
    return 0


def _init(argv: list[str]) -> int:
    from trainer.first_config import run

    return run(argv)


def _crossvalidate(argv: list[str]) -> int:
    overrides, rest = split_overrides(argv)
    from trainer.crossvalidation import run

    return run(rest, overrides)


def _sweep(argv: list[str]) -> int:
    overrides, rest = split_overrides(argv)
    from trainer.sweep import run

    return run(rest, overrides)


def _simulate(argv: list[str]) -> int:
    overrides, rest = split_overrides(argv)
    from trainer.simulation import run

    return run(rest, overrides)


def _fit(argv: list[str]) -> int:
    overrides, rest = split_overrides(argv)
    from trainer.fitting_command import run

    return run(rest, overrides)


def _benchmark(argv: list[str]) -> int:
    from trainer.benchmark import run

    return run(argv)


def _models(argv: list[str]) -> int:
    parser = _parser("models", "List the models, or the settings of one.", "axonnx models gru")
    parser.add_argument("name", metavar="NAME", nargs="?", help="a model")
    options = parser.parse_args(argv)
    from trainer.models import MODELS

    return _catalog(MODELS, options.name)


def _datasets(argv: list[str]) -> int:
    parser = _parser(
        "datasets", "List the data sets, or the settings of one.", "axonnx datasets array"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a data set")
    options = parser.parse_args(argv)
    import trainer.data  # noqa: F401 (its modules register)
    from trainer.registry import DATASETS

    return _catalog(DATASETS, options.name)


def _steps(argv: list[str]) -> int:
    parser = _parser(
        "steps",
        "List the steps of a preparation, or the settings of one.",
        "axonnx steps filter",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a step")
    options = parser.parse_args(argv)
    from trainer import catalog

    console = plain_console()
    if options.name is None:
        console.print(catalog.steps_table())
        return 0
    console.print(catalog.step_table(options.name))
    console.print(catalog.step_purpose(options.name), soft_wrap=True)
    return 0


def _catalog(registry: Registry, name: str | None) -> int:
    from trainer import catalog

    console = plain_console()
    if name is None:
        console.print(catalog.names_table(registry))
        return 0
    console.print(catalog.settings_table(registry, name))
    console.print(catalog.purpose(registry, name), soft_wrap=True)
    return 0


def split_overrides(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Take `--section.key value`, `--seed` and `--name` out of `argv`.

    Returns the overrides as (key, value) and the other words. Exits 2 where a value is missing.
    """
    overrides, rest = [], []
    words = iter(argv)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not ("." in key or key in TOP_KEYS):
            rest.append(word)
            continue
        if not equals:
            following = next(words, "--")
            if following.startswith("--"):
                print(f"axonnx: error: {word} needs a value: {word} VALUE", file=sys.stderr)
                raise SystemExit(2)
            value = following
        overrides.append((key, value))
    return overrides, rest


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "init": _init,
    "train": _train,
    "prepare": _prepare,
    "runs": _runs,
    "evaluate": _evaluate,
    "benchmark": _benchmark,
    "crossvalidate": _crossvalidate,
    "sweep": _sweep,
    "simulate": _simulate,
    "fit": _fit,
    "export": _export,
    "models": _models,
    "datasets": _datasets,
    "steps": _steps,
    "import-legacy": _import_legacy,
    "quickstart": _quickstart,
}


def _file(text: str) -> Path:
    """An argument that names a file which is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return path


def _there(text: str) -> Path:
    """An argument that names a file or folder which is there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path


def _next(console: Console, *commands: Sequence[object]) -> None:
    console.print("next:")
    for words in commands:
        console.print(f"  {shlex.join(map(str, words))}", soft_wrap=True)


def _parser(word: str, description: str, example: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"axonnx {word}",
        description=description,
        epilog=f"example: {example}",
        allow_abbrev=False,
    )

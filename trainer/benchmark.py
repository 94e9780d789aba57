"""`axonnx benchmark CONFIG …`: models × data sets × seeds, in one table, with pictures and docs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from trainer import benchmark_docs, benchmark_pictures, benchmark_report
from trainer import benchmark_running as running
from trainer import benchmark_scores as scores
from trainer.benchmark_config import Benchmark, Job, jobs, load_benchmark
from trainer.benchmark_goals import ablation, goals
from trainer.benchmark_summary import Results, summarize
from trainer.config import ConfigError
from trainer.progress import plain_console

OUTPUT = Path("runs/benchmarks")
RESULTS, DOCS = Path("benchmarks/results"), Path("docs")


def run(argv: list[str]) -> int:
    """The command. Raises ConfigError, DataError and what training raises."""
    parser = argparse.ArgumentParser(
        prog="axonnx benchmark",
        description="Run models on data sets with several seeds and compare them on the same test "
        "windows. What is done is kept: the same command goes on where it was stopped, and makes "
        "the tables anew without a training. A benchmark that is run whole is published in "
        "benchmarks/results; --docs writes docs/results.md and docs/models.md from there.",
        epilog="example: axonnx benchmark configs/benchmarks/forecasting.yaml --only 'goose/*'",
        allow_abbrev=False,
    )
    parser.add_argument("configs", metavar="CONFIG", type=Path, nargs="*", help="YAML files")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="default: runs/benchmarks/<name>"
    )
    parser.add_argument(
        "--only", metavar="PATTERN", help="runs whose data/model fits, such as 'goose/*'"
    )
    parser.add_argument("--seeds", metavar="N", type=int, help="only the first N seeds")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=RESULTS, help=f"default: {RESULTS}"
    )
    parser.add_argument(
        "--docs",
        metavar="DIR",
        type=Path,
        nargs="?",
        const=DOCS,
        help=f"write results.md and models.md in DIR (default: {DOCS}) from what is published",
    )
    options = parser.parse_args(argv)
    if not options.configs and options.docs is None:
        parser.error("give a CONFIG, or --docs to write the pages from what is published")
    if options.output is not None and len(options.configs) > 1:
        parser.error("--output takes one CONFIG")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: must be 1 or more")
    console = plain_console()
    benchmarks = [(path, load_benchmark(path)) for path in options.configs]
    chosen_of = [_chosen(path, each, options.only, options.seeds) for path, each in benchmarks]
    for (path, benchmark), chosen in zip(benchmarks, chosen_of, strict=True):
        output = options.output or OUTPUT / benchmark.name
        running.run(chosen, output, console)
        whole = options.only is None and options.seeds is None
        _write(benchmark, path, chosen, output, options.results if whole else None, console)
    if options.docs is not None:
        for page in benchmark_docs.write(options.results, options.docs):
            console.print(f"  {page}", soft_wrap=True)
    return 0


def _chosen(path: Path, benchmark: Benchmark, only: str | None, seeds: int | None) -> list[Job]:
    chosen = jobs(benchmark, only, seeds)
    if not chosen:
        labels = sorted({f"{job.data}/{job.model}" for job in jobs(benchmark)})
        raise ConfigError(f"{path}: --only {only}: fits none of {', '.join(labels)}")
    return chosen


def read_results(chosen: Sequence[Job], folder: Path) -> Results:
    """What is kept of these runs in the folder of scores."""
    runs: dict[tuple[str, str], list[scores.Kept]] = {}
    data: dict[str, scores.Kept] = {}
    for job in chosen:
        kept, of_data = scores.read(folder / job.place), scores.read(folder / job.data / "data")
        assert kept is not None
        assert of_data is not None
        runs.setdefault((job.data, job.model), []).append(kept)
        data[job.data] = of_data
    return Results(data, runs)


def evaluate(benchmark: Benchmark, results: Results) -> dict[str, Any]:
    """The whole summary, goals and ablation included."""
    found = summarize(benchmark, results)
    found["goals"] = goals(benchmark, results, found["data"])
    found["ablation"] = ablation(benchmark, results, found["data"])
    return found


def _write(
    benchmark: Benchmark,
    path: Path,
    chosen: Sequence[Job],
    output: Path,
    published: Path | None,
    console: Console,
) -> None:
    """Tables and pictures, in `output` and, of a whole benchmark, where results are published."""
    results = read_results(chosen, output / running.SCORES)
    console.print("comparing …")
    found = evaluate(benchmark, results)
    names = {label: benchmark.data_name(label) for label in results.data}
    looks = scores.count_looks(output / running.SCORES, names, benchmark.earlier_looks)
    if published is not None:
        looks = scores.at_least(looks, _published_looks(published / f"{benchmark.name}.json"))
    report = benchmark_report.published(found, f"axonnx benchmark {path.as_posix()}", looks)
    report["distinct_sources"] = _distinct_sources(results, console)
    console.print("drawing …")
    pictures = benchmark_pictures.draw(found, results, output / "pictures")
    report["pictures"] = [picture.name for picture in pictures]
    write_file(output / "report.json", canonical_json(report))
    page = "\n\n".join([f"# {found['title']}", *benchmark_report.markdown(found)]) + "\n"
    write_file(output / "report.md", page.encode())
    for table in benchmark_report.tables(found):
        console.print(table)
    if published is not None:
        write_file(published / f"{benchmark.name}.json", canonical_json(report))
        for picture in pictures:
            write_file(published / benchmark.name / picture.name, picture.read_bytes())
        console.print(f"  {published / benchmark.name}.json", soft_wrap=True)
    for name in ("report.json", "report.md", "pictures"):
        console.print(f"  {output / name}", soft_wrap=True)


def _published_looks(path: Path) -> dict[str, Any]:
    """What a results file that is there says of looks at test parts."""
    if not path.is_file():
        return {}
    return dict(json.loads(path.read_text()).get("looks_at_test_parts", {}))


def _distinct_sources(results: Results, console: Console) -> int:
    """How many states of the sources the runs were exported with; says so where they are mixed."""
    kept = [run.facts["sources"] for runs in results.runs.values() for run in runs]
    states = len({json.dumps(sources, sort_keys=True) for sources in kept})
    if states > 1:
        console.print(
            f"the tables mix runs of {states} states of the sources, which changed in between; "
            "give an empty --output for one state",
            highlight=False,
            soft_wrap=True,
        )
    return states

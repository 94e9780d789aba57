"""Reading run folders: list, show and compare them, without loading a model or data."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from trainer import folder, plots
from trainer.folder import RunFolderError

PARTS = ("validation", "test")


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says: `config` resolved, `history` by epoch, `manifest` or None.

    `metric` is the held-out metric's name, "" before the first epoch was scored.
    """

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]
    manifest: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def metric(self) -> str:
        """The held-out metric by which the best epoch is chosen."""
        row = self.history[0] if self.history else {}
        return next((name for name in folder.HELD_OUT.values() if name in row), "")

    @property
    def saw_validation(self) -> bool:
        """Whether the model, or a member of it, was fitted on the validation part too."""
        model = self.config["model"]
        members = [member["model"] for member in model.get("trained") or ()]
        return any(one.get("fit_on") == "both" for one in (model, *members))

    @property
    def best(self) -> dict[str, Any]:
        """The history's best row; empty before the first epoch was scored."""
        return min(self.history, key=lambda row: row[self.metric], default={})


def read(path: Path) -> RunRecord:
    """Read one run folder; raises RunFolderError where it is none or a file in it is damaged."""
    folder.check(path)
    try:
        config = yaml.safe_load((path / folder.CONFIG).read_text(encoding="utf-8"))
        lines = _text(path / folder.METRICS).splitlines()
        history = [json.loads(line) for line in lines]
        text = _text(path / folder.ARTIFACT / "manifest.json")
        manifest = json.loads(text) if text else None
        record = RunRecord(path, dict(config), history, manifest)
        str((record.best, record.saw_validation))
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(f"{path}: cannot be read as a run ({error!r})") from error
    return record


def find(name: str, root: Path) -> Path:
    """The run folder that a path, or a name below `root`, means; raises RunFolderError."""
    for candidate in (Path(name), root / name):
        if folder.is_run(candidate):
            return candidate
    if (Path(name) / folder.MANIFEST).is_file():
        folder.check(Path(name))
    names = [path.name for path in folders(root)]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise RunFolderError(f"no run {name!r}{hint} Runs below {root}: {', '.join(names) or 'none'}")


def folders(root: Path) -> list[Path]:
    """The run folders directly below `root`, by name."""
    places = (path.parent for path in root.glob(f"*/{folder.CONFIG}"))
    return sorted(path for path in places if folder.is_run(path))


def config_text(run: RunRecord) -> str:
    """The resolved config as the YAML that people read."""
    return (run.folder / folder.CONFIG).read_text(encoding="utf-8").rstrip()


def list_table(records: list[RunRecord]) -> Table:
    """One line per run."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "model", "data", "best epoch", "metric", *PARTS):
        table.add_column(column, overflow="fold", no_wrap=column in PARTS)
    for run in records:
        last = run.history[-1]["epoch"] if run.history else 0
        table.add_row(
            run.name,
            str(run.config["model"]["name"]),
            str(run.config["data"]["name"]),
            f"{run.best.get('epoch', '–')} of {last}",
            run.metric or "–",
            _score(run, "validation"),
            "not yet" if run.manifest is None else _score(run, "test"),
        )
    return table


def show_table(run: RunRecord, last: int = 10) -> Table:
    """The last epochs of a run, the best one marked."""
    columns = list(run.history[0]) if run.history else ["epoch"]
    if run.saw_validation:  # what follows is held out of no fit
        columns = [column for column in columns if column in ("epoch", "step", "loss")]
    table = Table(*columns, "")
    for row in run.history[-last:]:
        best = "best" if row["epoch"] == run.best["epoch"] else ""
        table.add_row(*(_cell(row.get(column)) for column in columns), best)
    return table


def submissions_table(run: RunRecord, root: Path) -> Table | None:
    """What was submitted of a run's artifact, by `axonnx submission upload`; None for nothing.

    Reads `root`/submissions/records.jsonl, a JSON line for each step of an upload.
    """
    manifest = run.folder / folder.ARTIFACT / "manifest.json"
    if not manifest.is_file():
        return None
    identity = hashlib.sha256(manifest.read_bytes()).hexdigest()
    uploads: dict[str, dict[str, Any]] = {}
    for line in _text(root / "submissions" / "records.jsonl").splitlines():
        try:
            entry = json.loads(line)
            uploads.setdefault(str(entry["upload"]), {}).update(entry)
        except (ValueError, TypeError, KeyError):
            continue  # a line cut short by a power failure
    table = Table("submission", "file", "competition", "status", "scores")
    for entry in uploads.values():
        artifacts, scores = entry.get("artifacts"), entry.get("scores")
        if isinstance(artifacts, dict) and identity in artifacts.values():
            row = dict(scores) if isinstance(scores, dict) else {}
            cells = [entry.get(key) for key in ("submission", "file", "competition_title")]
            cells += [entry.get("status"), ", ".join(f"{k} {v}" for k, v in row.items())]
            table.add_row(*(escape(str(cell or "–")) for cell in cells))
    return table if table.row_count else None


def compare_table(records: list[RunRecord]) -> Table:
    """Metrics of several runs, then every config key in which they differ; one column per run."""
    table = Table("", *(run.name for run in records))
    table.add_row("best epoch", *(str(run.best.get("epoch", "–")) for run in records))
    for part in PARTS:
        scores = [_scores(run, part) for run in records]
        for key in dict.fromkeys(key for score in scores for key in score):
            table.add_row(f"{part} {key}", *(_cell(score.get(key)) for score in scores))
    table.add_section()
    flat = [_flatten(run.config) for run in records]
    # What the members of an ensemble were is long; their names are a key of their own.
    for key in sorted({key for config in flat for key in config} - {"name", "model.trained"}):
        values = [_cell(config[key]) if key in config else "" for config in flat]
        if len(set(values)) > 1:
            table.add_row(key, *values)
    return table


def compare_plot(records: list[RunRecord], destination: Path) -> Path:
    """Draw the held-out curves of several runs; raises RunFolderError where metrics differ.

    Runs whose model was fitted on the validation part have none and are left out.
    """
    records = [run for run in records if not run.saw_validation]
    metrics = {run.metric for run in records}
    if len(metrics) != 1 or "" in metrics:
        named = ", ".join(f"{run.name}: {run.metric or 'none yet'}" for run in records)
        raise RunFolderError(
            f"these runs have no held-out metric in common ({named or 'fitted on both parts'})"
        )
    metric = metrics.pop()
    curves = {
        run.name: ([row["epoch"] for row in run.history], [row[metric] for row in run.history])
        for run in records
    }
    return plots.held_out_curves(destination, curves, metric=metric)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _scores(run: RunRecord, part: str) -> dict[str, Any]:
    if run.manifest is not None:
        metrics = run.manifest.get("metrics", {})
        prefix = f"{part}_"
        return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
    if part != "validation" or run.saw_validation:
        return {}
    return {k: v for k, v in run.best.items() if k not in ("epoch", "step", "loss")}


def _score(run: RunRecord, part: str) -> str:
    return _cell(_scores(run, part).get(run.metric))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""`axonnx prepare`: from a data set of recordings to challenge files and their data card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress, TaskID

from artifact.manifest import canonical_json
from trainer.data import load_dataset
from trainer.data.challenge import FEATURES, KEY, STEPS
from trainer.data.errors import DataError
from trainer.data.files import file_digest, write_npz
from trainer.data.paths import path_keys, public_path, resolve
from trainer.data.windows import Dataset, Windows
from trainer.registry import DATASETS, RegistryError
from trainer.yaml_source import Keys, Source, SourceError, dotted, keys_of, nearest, parse

CARD = "data_card.json"
KEYS = ("data", "output")


def prepare(config_path: Path, output: Path | None = None) -> Path:
    """Write train.npz, validation.npz, test.npz and a data card; returns their folder.

    The YAML file holds `data`, as in a run, and `output`, the folder. Each file holds `arr_0`
    (window, 20, channel, 9) float32, unmasked, in raw units. The folder appears whole or not at
    all and replaces an earlier one. Raises DataError naming file, line and key.
    """
    config, source = _read(config_path)
    folder = resolve(config["output"]) if output is None else Path(output)
    _check_output(folder)
    try:
        dataset = load_dataset(config["data"])
        settings = DATASETS.settings(config["data"]["name"])
        values = settings.model_validate(_without_name(config["data"])).model_dump(mode="json")
    except ValidationError as error:
        raise DataError("\n".join(_explain(config_path, source, error))) from None
    except RegistryError as error:
        raise DataError(f"{_place(config_path, source, ('data', 'name'))}: {error}") from None
    _check_challenge(dataset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f"{folder.name}.tmp-new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        parts = _write_parts(dataset, beside)
        paths = sorted(path_keys(settings))
        card = {
            "name": dataset.name,
            "description": dataset.description,
            "synthetic": dataset.synthetic,
            "fingerprint": dataset.fingerprint,
            "rate_hz": dataset.rate,
            "unit": dataset.unit,
            "channel_names": list(dataset.channel_names),
            "axes": ["window", "time", "channel", "feature"],
            "observed_steps": dataset.train.observed,
            "settings": {k: public_path(v) if k in paths else v for k, v in values.items()},
            "sources": _sources([values[key] for key in paths]),
            "parts": parts,
        }
        with (beside / CARD).open("wb") as file:
            file.write(canonical_json(card))
            file.flush()
            os.fsync(file.fileno())
        _replace(folder, beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def _read(path: Path) -> tuple[dict[str, Any], Source]:
    try:
        source = parse(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SourceError as error:
        raise DataError(f"{path}:{error.line}: {error.key}: {error.text}") from None
    values = source.value
    if not isinstance(values, dict):
        raise DataError(f"{path}:1: must be a mapping with the keys {', '.join(KEYS)}")
    for key in values:
        if key not in KEYS:
            place = _place(path, source, (key,))
            raise DataError(f"{place}: unknown key; valid: {', '.join(KEYS)}")
    if not isinstance(values.get("data"), dict):
        raise DataError(f"{_place(path, source, ('data',))}: must be a mapping with a `name`")
    if not isinstance(values.get("output"), str):
        raise DataError(f"{_place(path, source, ('output',))}: must be the folder to write")
    return values, source


def _place(path: Path, source: Source, keys: Keys) -> str:
    return f"{path}:{nearest(source.lines, keys, 1)}: {dotted(keys)}"


def _explain(path: Path, source: Source, error: ValidationError) -> Iterator[str]:
    for details in error.errors():
        missing = details["type"] == "missing"
        keys = keys_of(("data", *details["loc"]), source.value, missing=missing)
        yield f"{_place(path, source, keys)}: {details['msg']}"


def _without_name(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "name"}


def _check_challenge(dataset: Dataset) -> None:
    shape = dataset.train.inputs[0].shape
    if dataset.task != "forecast" or (shape[1], shape[3]) != (STEPS, FEATURES):
        raise DataError(
            f"data: {dataset.name} gives {dataset.train.inputs[0].layout}; challenge windows are "
            f"(batch, time={STEPS}, channel, feature={FEATURES})"
        )


def _check_output(folder: Path) -> None:
    """Refuse to replace anything but an earlier preparation."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    strange = sorted(names - {CARD, "train.npz", "validation.npz", "test.npz"})
    if strange or (names and CARD not in names):
        raise DataError(
            f"{folder}: holds {(strange or sorted(names))[0]}, which is no earlier preparation; "
            "choose another output"
        )


def _write_parts(dataset: Dataset, folder: Path) -> dict[str, Any]:
    console = Console(stderr=True)
    total = sum(map(len, dataset.parts.values()))
    parts = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"writing {dataset.name} windows", total=total)
        for part, windows in dataset.parts.items():
            file = folder / f"{part}.npz"
            shape = (len(windows), windows.steps, *windows.series["neural"][0].shape[1:])
            digest = write_npz(file, KEY, shape, _recorded(windows, progress, task))
            parts[part] = {
                "file": file.name,
                "shape": list(shape),
                "dtype": "float32",
                "bytes": file.stat().st_size,
                "sha256": digest,
            }
    return parts


def _recorded(windows: Windows, progress: Progress, task: TaskID) -> Iterator[np.ndarray]:
    for chunk in windows.chunks():
        yield windows.recorded(chunk)["neural"]
        progress.advance(task, chunk.stop - chunk.start)


def _sources(values: list[Any]) -> dict[str, str]:
    """sha256 of the files that the settings name."""
    paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
    return {Path(path).name: file_digest(resolve(path)) for path in paths if path is not None}


def _replace(folder: Path, beside: Path) -> None:
    old = folder.with_name(f"{folder.name}.tmp-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)

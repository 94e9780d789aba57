"""Small artifacts, one cache of runtimes, and zips that tests bend."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_artifacts import write_decoder, write_forecaster

from artifact.bundle import write_zip
from submission import wheels
from submission.build import build
from submission.config import SubmissionConfig
from submission.worker.sandbox import find_python

CHANNELS = {"affi": 5, "beignet": 3}


@pytest.fixture(scope="session")
def runtime_cache() -> Path:
    """The folder of runtimes; the one for Python 3.11 can be had (fetched when needed)."""
    wheels.runtime(wheels.choose("3.11", None))
    return wheels.cache_folder()


@dataclass(frozen=True)
class Artifacts:
    """Folders of small artifacts."""

    affi: Path
    beignet: Path
    normalized: Path
    decoder: Path


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Two forecasters of the small challenge, one in normalized units, a decoder."""
    root = tmp_path_factory.mktemp("artifacts")
    return Artifacts(
        write_forecaster(root / "affi", channels=5, name="small-affi"),
        write_forecaster(root / "beignet", channels=3, name="small-beignet"),
        write_forecaster(root / "normalized", channels=3, unit="normalized", name="published"),
        write_decoder(root / "decoder"),
    )


def configuration(
    artifacts: Artifacts, output: Path, *, python: tuple[str, ...] = ("3.11",), **changes: object
) -> SubmissionConfig:
    """The small challenge: two subjects of five and three channels."""
    values: dict[str, object] = {
        "challenge": "neural_forecasting",
        "settings": {"channels": CHANNELS},
        "models": {"affi": artifacts.affi, "beignet": artifacts.beignet},
        "python": python,
        "output": output,
    }
    return SubmissionConfig.model_validate({**values, **changes})


@pytest.fixture(scope="session")
def small_zip(
    artifacts: Artifacts, runtime_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A submission to the small challenge, for Python 3.11."""
    output = tmp_path_factory.mktemp("built") / "submission.zip"
    return build(configuration(artifacts, output)).path


@pytest.fixture(scope="session")
def decoder_zip(
    artifacts: Artifacts, runtime_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A submission of the artifact with two modalities, for Python 3.11."""
    output = tmp_path_factory.mktemp("built") / "decoder.zip"
    config = configuration(
        artifacts,
        output,
        challenge="generic",
        settings={},
        models={"decoder": artifacts.decoder},
    )
    return build(config).path


Change = Callable[[bytes], bytes]


def members(path: Path) -> dict[str, bytes]:
    """Every file of a zip by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def bend(source: Path, target: Path, changes: Mapping[str, bytes | Change | None]) -> Path:
    """A copy of a zip with files replaced, changed by a function, added, or (None) left out."""
    files = members(source)
    for name, change in changes.items():
        if change is None:
            del files[name]
        elif callable(change):
            files[name] = change(files[name])
        else:
            files[name] = change
    return write_zip(files, target, level=0)


def with_predict(source: Path, target: Path, body: str) -> Path:
    """A copy of a zip whose `predict(X)` ends differently; `answer` is the right one."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    text = (
        "\n\nclass Model(Model):\n"
        "    def predict(self, X):\n"
        "        answer = super().predict(X)\n"
        f"{lines}\n"
    )
    return bend(source, target, {"model.py": lambda data: data + text.encode()})


def python_or_skip(version: str) -> Path:
    """An interpreter of that version; skips the test where there is none."""
    path = find_python(version)
    if path is None:
        pytest.skip(f"no Python {version} on this machine")
    return path


def write_config(artifacts: Artifacts, folder: Path) -> Path:
    """The small challenge as a YAML file that writes `submission.zip` beside itself."""
    path = folder / "config.yaml"
    path.write_text(
        "challenge:\n"
        "  name: neural_forecasting\n"
        f"  channels: {{affi: {CHANNELS['affi']}, beignet: {CHANNELS['beignet']}}}\n"
        f"models: {{affi: {artifacts.affi}, beignet: {artifacts.beignet}}}\n"
        'python: ["3.11"]\n'
        f"output: {folder / 'submission.zip'}\n"
    )
    return path

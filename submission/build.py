"""Building the zip: entry point, artifacts, the `artifact` package, ONNX Runtime; nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import artifact
from artifact import Bundle
from artifact.bundle import members, write_zip
from submission import archive, challenges
from submission.challenges import Challenge
from submission.config import SubmissionConfig
from submission.contents import FILE, Contents
from submission.errors import ConfigError, ContractError
from submission.wheels import Wheel, choose, runtime

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """What `build` wrote: the zip, its sha256, unpacked bytes by part, artifact id by subject."""

    path: Path
    sha256: str
    parts: Mapping[str, int]
    artifacts: Mapping[str, str]
    normalized: tuple[str, ...]  # subjects whose answers are not in raw units


def build(config: SubmissionConfig, notify: Notify = lambda text: None) -> Built:
    """Write the submission that `config` describes; the same inputs give the same bytes.

    Raises ConfigError, ContractError, WheelError, or the errors of `artifact` for a damaged one.
    """
    challenge = challenges.get(config.challenge)
    wheels = [choose(version, config.onnxruntime) for version in dict.fromkeys(config.python)]
    bundles = _bundles(challenge, config)
    contents = Contents(
        challenge,
        config.settings,
        {name: bundle.id for name, bundle in bundles.items()},
        {wheel.abi: _facts(wheel) for wheel in wheels},
    )
    if len(config.output.name) > archive.MAX_NAME or config.output.suffix != ".zip":
        raise ConfigError(
            f"{config.output.name}: CodaBench takes names that end in .zip, of at most "
            f"{archive.MAX_NAME} characters"
        )
    files: dict[str, bytes] = {
        archive.ENTRY: entry_point(challenge.template),
        FILE: contents.to_json(),
    }
    files |= package_files()
    for name, bundle in bundles.items():
        files |= {f"artifacts/{name}/{file}": data for file, data in members(bundle)}
    for wheel in wheels:
        tree = runtime(wheel, notify)
        files |= {f"vendor/{wheel.abi}/{name}": data for name, data in tree.items()}
    notify(f"writing {config.output}")
    path = write_zip(files, config.output)
    return Built(
        path,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        _parts(files),
        contents.artifacts,
        tuple(name for name, bundle in bundles.items() if normalized(bundle)),
    )


def entry_point(template: str) -> bytes:
    """Text of `model.py`: the common start, then the challenge's class."""
    folder = resources.files("submission").joinpath("templates")
    return b"".join(
        folder.joinpath(name).read_bytes() for name in ("bootstrap.py.template", template)
    )


def package_files() -> dict[str, bytes]:
    """The installed `artifact` package, verbatim, by its name in the zip."""
    root = Path(artifact.__file__).parent
    return {
        f"artifact/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def normalized(bundle: Bundle) -> bool:
    """Whether an artifact answers in normalized units, which no challenge scores."""
    return any(spec.unit == "normalized" for spec in bundle.manifest.outputs)


def _bundles(challenge: Challenge, config: SubmissionConfig) -> dict[str, Bundle]:
    """The verified artifact of every subject, each checked against the challenge's contract."""
    subjects = challenge.subjects(config.settings, config.models)
    if missing := [name for name in subjects if name not in config.models]:
        raise ConfigError(
            f"models: lacks {', '.join(missing)}; {challenge.name} predicts "
            f"{', '.join(subjects)}: name an artifact for each (--model {missing[0]}=DIR)"
        )
    if unknown := [name for name in config.models if name not in subjects]:
        raise ConfigError(
            f"models: {', '.join(unknown)} is no subject of {challenge.name}; "
            f"it has {', '.join(subjects)}"
        )
    bundles = {}
    for name in subjects:
        path = config.models[name]
        if not path.exists():
            raise ConfigError(f"models.{name}: {path}: no such artifact (train one, or name it)")
        bundle = artifact.read(path)
        if found := challenge.problems(config.settings, name, bundle.manifest):
            raise ContractError(
                f"models.{name}: {path} is not what {challenge.name} asks for: {'; '.join(found)}"
            )
        bundles[name] = bundle
    return bundles


def _facts(wheel: Wheel) -> dict[str, str]:
    return {
        "python": wheel.python,
        "onnxruntime": wheel.onnxruntime,
        "tree_sha256": wheel.tree_sha256,
    }


def _parts(files: Mapping[str, bytes]) -> dict[str, int]:
    """Unpacked bytes by first folder (two for `vendor`, `artifacts`), sorted by name."""
    parts: dict[str, int] = {}
    for name, data in sorted(files.items()):
        pieces = name.split("/")
        depth = 2 if pieces[0] in ("vendor", "artifacts") else 1
        part = "/".join(pieces[:depth])
        parts[part] = parts.get(part, 0) + len(data)
    return parts

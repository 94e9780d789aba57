"""Building the zip: entry point, artifacts, the `artifact` package, ONNX Runtime; nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import artifact
from artifact import Bundle
from artifact.bundle import members, write_zip
from submission import archive, challenges, predictions
from submission.challenges import Arrays, Definition, template
from submission.config import SubmissionConfig
from submission.contents import FILE, Contents, Runtime, Stored
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

    Raises ConfigError, ContractError, WheelError, RunError, or the errors of `artifact` for a
    damaged one.
    """
    archive.check_name(config.output)
    challenge = challenges.get(config.challenge)
    models = config.artifacts()
    definition = challenge.definition(config.settings, tuple(models))
    bundles = _bundles(challenge.title, definition, models)
    if definition.kind == "code":
        files = _code(config, definition, bundles, notify)
    elif definition.kind == "graph":
        files = _graph(config, definition, bundles, notify)
    else:
        files = _results(config, definition, models, notify)
    notify(f"writing {config.output}")
    path = write_zip(files, config.output)
    return Built(
        path,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        _parts(files),
        {name: bundle.id for name, bundle in bundles.items()},
        tuple(name for name, bundle in bundles.items() if normalized(bundle)),
    )


def _code(
    config: SubmissionConfig, definition: Definition, bundles: Mapping[str, Bundle], notify: Notify
) -> dict[str, bytes]:
    """Entry point, `artifact`, the artifacts and a runtime for every Python."""
    assert definition.template is not None
    wheels = [choose(version, config.onnxruntime) for version in dict.fromkeys(config.python)]
    stored = _stored(bundles)
    contents = Contents(
        challenges.get(config.challenge),
        config.settings,
        stored,
        {wheel.abi: _facts(wheel) for wheel in wheels},
    )
    files = {
        definition.entry: template("bootstrap.py") + definition.template,
        FILE: contents.to_json(),
    }
    files |= package_files()
    for name, entry in stored.items():
        folder = f"artifacts/{entry.folder}"
        files |= {f"{folder}/{file}": data for file, data in members(bundles[name])}
    for wheel in wheels:
        tree = runtime(wheel, notify)
        files |= {f"vendor/{wheel.abi}/{name}": data for name, data in tree.items()}
    return files


def _graph(
    config: SubmissionConfig, definition: Definition, bundles: Mapping[str, Bundle], notify: Notify
) -> dict[str, bytes]:
    """The ONNX file itself; beside it what it is, with its whole artifact's id."""
    ((name, bundle),) = bundles.items()
    wrong, odd = definition.graph_problems(bundle.files["model.onnx"])
    if wrong:
        raise ContractError(f"models.{name}: {config.artifacts()[name]}: {'; '.join(wrong)}")
    for text in odd:
        notify(f"warning: {text}")
    contents = Contents(
        challenges.get(config.challenge),
        config.settings,
        {name: Stored(id=bundle.id, folder=name)},
        {},
    )
    return {definition.entry: bundle.files["model.onnx"], FILE: contents.to_json()}


def _results(
    config: SubmissionConfig, definition: Definition, models: Mapping[str, Path], notify: Notify
) -> dict[str, bytes]:
    """Prediction files: `Model.predict` of every set in the folder `data`."""
    if config.data is None:
        raise ConfigError(
            "data: is missing; a result submission is predicted here: name the folder that holds "
            f"{', '.join(entry.input for entry in definition.sets[:3])}, … (--data DIR)"
        )
    absent = [e.input for e in definition.sets if not (config.data / e.input).is_file()]
    if absent:
        raise ConfigError(f"data: {config.data} holds no {', '.join(absent[:5])}")
    answers: dict[str, Arrays] = {}
    loaded: dict[str, artifact.Model] = {}
    for place, entry in enumerate(definition.sets):
        notify(f"predicting {entry.name} ({place + 1} of {len(definition.sets)})")
        if entry.subject not in loaded:
            loaded[entry.subject] = artifact.load(models[entry.subject])
        model = loaded[entry.subject]
        arrays = predictions.read_arrays(config.data / entry.input)
        answer = model.predict(definition.to_model(arrays, model.manifest))
        answers[entry.name] = definition.from_model(answer, model.manifest)
        _check_rows(entry.name, answers[entry.name], entry.rows)
    return predictions.encode(definition, answers)


def _check_rows(name: str, answer: Arrays, rows: int | None) -> None:
    for key, array in answer.items():
        if rows is not None and len(array) != rows:
            raise ContractError(
                f"{name}: {key} has {len(array)} rows; the challenge asks for {rows}: the inputs "
                "of that set must have as many"
            )


def _stored(bundles: Mapping[str, Bundle]) -> dict[str, Stored]:
    """Where each artifact goes: one that several subjects share is there once."""
    folders: dict[str, str] = {}
    return {
        name: Stored(id=bundle.id, folder=folders.setdefault(bundle.id, name))
        for name, bundle in bundles.items()
    }


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


def _bundles(title: str, definition: Definition, models: Mapping[str, Path]) -> dict[str, Bundle]:
    """The verified artifact of every subject, each checked against the challenge's contract."""
    bundles = {}
    for name in definition.subjects:
        if name not in models:
            raise ConfigError(f"models: lacks {name}; add --model {name}=DIR")
        path = models[name]
        if not path.exists():
            raise ConfigError(f"models.{name}: {path}: no such artifact (train one, or name it)")
        bundle = artifact.read(path)
        if found := definition.problems(name, bundle.manifest):
            raise ContractError(
                f"models.{name}: {path} is not what {title} asks for: {'; '.join(found)}"
            )
        bundles[name] = bundle
    return bundles


def _facts(wheel: Wheel) -> Runtime:
    return Runtime(
        python=wheel.python, onnxruntime=wheel.onnxruntime, tree_sha256=wheel.tree_sha256
    )


def _parts(files: Mapping[str, bytes]) -> dict[str, int]:
    """Unpacked bytes by first folder (two for `vendor`, `artifacts`), sorted by name."""
    parts: dict[str, int] = {}
    for name, data in sorted(files.items()):
        pieces = name.split("/")
        depth = 2 if pieces[0] in ("vendor", "artifacts") else 1
        part = "/".join(pieces[:depth])
        parts[part] = parts.get(part, 0) + len(data)
    return parts

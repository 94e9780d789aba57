"""Algonauts 2025: responses of 1000 brain parcels to episodes of Friends, and to other films.

A result submission: one pickled `.npy`, a dict of subject -> episode -> float32 (sample, parcel),
a sample each 1.49 s. Predictions are made here, by an artifact for each subject (one may serve all)
that answers a row of features with a row of parcels; how many samples an episode has, the
challenge's own files say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from artifact import Manifest
from submission import pickled
from submission.challenges import (
    ARRAY_KEY,
    Array,
    Arrays,
    Challenge,
    Column,
    Contract,
    Definition,
    Image,
    Limits,
    Name,
    Tensor,
    TestSet,
    compare_tensors,
    single_from_model,
    subjects_of,
)
from submission.errors import ConfigError, ContractError
from submission.rules import correlation

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Samples = dict[Name, dict[Name, Count]]  # subject -> episode -> number of samples


def _kind(value: object) -> str:
    return "mapping" if isinstance(value, dict) else "path"


# The discriminator keeps the complaints about one form apart from those about the other.
Source = Annotated[
    Annotated[Samples, Tag("mapping")] | Annotated[Path, Tag("path")], Discriminator(_kind)
]
SPLITS = {"friends_s7": "friends-s7", "ood": "ood"}  # ours, and as in the challenge's files
FOLDER = "target_sample_number"
ENDING = "_fmri_samples.npy"
MAX_BYTES = 1 << 20
MEAN = "mean"


class Settings(BaseModel):
    """Which films, whose brains, and how many samples each episode has.

    `target_samples` is that number by subject and episode, a YAML or JSON file of it, or the
    challenge's folder with `sub-0X/target_sample_number/*_fmri_samples.npy`. `features` says whose
    a file of features is: an "episode"'s, `<episode>.npz`, the same for every subject, or a
    "subject"'s, `<subject>_<episode>.npz`, as for an artifact that takes the subject as an input.
    `trim` samples are not scored at either end of an episode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    target_samples: Source
    split: Literal["friends_s7", "ood"] = "friends_s7"
    subjects: Annotated[tuple[Name, ...], Field(min_length=1)] = (
        "sub-01",
        "sub-02",
        "sub-03",
        "sub-05",
    )
    parcels: Count = 1000
    features: Literal["episode", "subject"] = "episode"
    trim: Annotated[int, Field(ge=0, le=1000)] = 5

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.subjects)) < len(self.subjects) or MEAN in self.subjects:
            raise ValueError(f"subjects: each has a name of its own, other than {MEAN!r}")
        return self


def _define(settings: Settings, models: tuple[str, ...]) -> Definition:
    if models:
        subjects_of(models, settings.subjects, CHALLENGE.name)
    samples = target_samples(settings)
    sets = tuple(
        _set(settings, subject, episode, rows)
        for subject in settings.subjects
        for episode, rows in samples[subject].items()
    )
    row = Tensor("float32", (settings.parcels,))

    def contract(subject: str, manifest: Manifest | None) -> Contract:
        inputs = manifest.inputs if manifest else ()
        taken = {spec.name: Tensor(spec.dtype, spec.shape[1:]) for spec in inputs}
        return Contract(taken, {ARRAY_KEY: row})

    return Definition(
        kind="result",
        entry=f"fmri_predictions_{settings.split}.npy",
        subjects=settings.subjects,
        sets=sets,
        columns=(
            *(Column(subject, f"{subject}, Pearson r", "desc") for subject in settings.subjects),
            Column(MEAN, "mean over subjects, Pearson r", "desc"),
        ),
        rule=correlation,
        options={
            "sets": [entry.name for entry in sets],
            "subjects": {entry.name: entry.subject for entry in sets},
            "trim": settings.trim,
        },
        contract=contract,
        image=Image(None, None, ("numpy==2.2.6",)),  # not published; nothing of ours runs there
        limits=Limits(),  # not published: the platform's defaults
        call="mapping",
        format="pickled",
        problems=lambda subject, manifest: compare_tensors("output", manifest, row),
        to_model=to_model,
        from_model=single_from_model,
        truth=responses,
        fewest=2 * settings.trim + 2,
    )


def _set(settings: Settings, subject: str, episode: str, rows: int) -> TestSet:
    name = f"{subject}_{episode}"
    fewest = 2 * settings.trim + 2
    if rows < fewest:
        raise ConfigError(
            f"challenge.target_samples: {subject}, {episode}: {rows} samples; the first and last "
            f"{settings.trim} are not scored, so there must be {fewest} or more"
        )
    return TestSet(
        name,
        subject,
        f"{episode if settings.features == 'episode' else name}.npz",
        f"fmri_predictions_{settings.split}.npy",
        f"{name}.npz",
        rows,
        (subject, episode),
    )


def target_samples(settings: Settings) -> Samples:
    """Number of samples by subject and episode, episodes sorted.

    Raises ConfigError naming the file or subject that is missing or is not what it should be.
    """
    source = settings.target_samples
    if isinstance(source, Path):
        given = _folder(source, settings) if source.is_dir() else _written(source)
    else:
        given = source
    if missing := [subject for subject in settings.subjects if not given.get(subject)]:
        known = ", ".join(given) or "nobody"
        raise ConfigError(
            f"challenge.target_samples: has no episodes of {', '.join(missing)}; it has {known}"
        )
    return {subject: dict(sorted(given[subject].items())) for subject in settings.subjects}


def _written(path: Path) -> Samples:
    """The mapping in a YAML or JSON file."""
    try:
        text = path.read_text("utf-8")
        value: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"challenge.target_samples: {path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"challenge.target_samples: {path}: {error}") from None
    return _checked(value, str(path))


def _folder(folder: Path, settings: Settings) -> Samples:
    """The numbers in the challenge's own files, of each subject."""
    root = folder / "fmri" if (folder / "fmri").is_dir() else folder
    return {subject: _subject(root / subject / FOLDER, settings) for subject in settings.subjects}


def _subject(folder: Path, settings: Settings) -> dict[str, int]:
    mark = SPLITS[settings.split]
    found = [
        name
        for name in sorted(os.listdir(folder) if folder.is_dir() else [])
        if name.endswith(ENDING) and mark in name.replace("_", "-")
    ]
    if len(found) != 1:
        held = f"holds {', '.join(found)}" if found else f"holds no *{mark}{ENDING}"
        raise ConfigError(f"challenge.target_samples: {folder}: {held}; one file is wanted")
    path = folder / found[0]
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        # A link to what has not been fetched leads nowhere.
        if path.is_symlink() and "annex" in os.readlink(path):
            raise _unfetched(path) from None
        raise ConfigError(f"challenge.target_samples: {path}: {error.strerror}") from None
    if data.startswith((b"/annex/", b"../")) and b"annex/objects/" in data:
        raise _unfetched(path)
    try:
        value = pickled.decode(data, max_bytes=MAX_BYTES)
    except ValueError as error:
        raise ConfigError(f"challenge.target_samples: {path}: {error}") from None
    counts = {
        episode: int(number) if isinstance(number, np.ndarray) and not number.ndim else number
        for episode, number in value.items()
    }
    return _checked({"subject": counts}, str(path))["subject"]


def _unfetched(path: Path) -> ConfigError:
    return ConfigError(
        f"challenge.target_samples: {path}: is a git-annex pointer, the file itself is elsewhere: "
        f"fetch it with `datalad get {path}` in the challenge's data set"
    )


def _checked(value: Any, where: str) -> Samples:
    try:
        return TypeAdapter(Samples).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        text = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(
            f"challenge.target_samples: {where}: {place}: {text}; subject -> episode -> number of "
            "samples is wanted"
        ) from None


def to_model(arrays: Arrays, manifest: Manifest) -> dict[str, Array]:
    """The features that the artifact takes, by name; raises ContractError where one is missing."""
    if missing := [spec.name for spec in manifest.inputs if spec.name not in arrays]:
        raise ContractError(
            f"a file of features holds {', '.join(arrays)}; the artifact {manifest.name} takes "
            f"{', '.join(missing)}"
        )
    return {spec.name: arrays[spec.name] for spec in manifest.inputs}


def responses(arrays: Arrays) -> dict[str, Array]:
    """Made-up responses: the predictions with as much noise, float32."""
    generator = np.random.default_rng(0)
    made = {}
    for name, array in arrays.items():
        made[name] = generator.standard_normal(array.shape, np.float32)
        made[name] *= np.float32(np.std(array)) or np.float32(1.0)
        made[name] += array
    return made


CHALLENGE = Challenge("algonauts2025", "Algonauts 2025", Settings, _define)

"""From trained runs to an ensemble: read the members, fit their weights, write a run folder.

The run folder is whole in itself: its config says what the members were, its checkpoint holds their
weights, and it exports after they are gone.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from trainer import blending, checkpoint, ensemble_report, folder, scoring, training
from trainer.blending import Answers
from trainer.checkpoint import CheckpointError
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data import load_dataset
from trainer.data.errors import DataError
from trainer.data.inner_folds import fold_dataset
from trainer.data.paths import resolve
from trainer.data.windows import Dataset, resembles
from trainer.determinism import deterministic
from trainer.folder import RunFolderError
from trainer.models import ModelError
from trainer.models.ensemble import Ensemble, Member
from trainer.trained import (
    SNAPSHOT,
    Run,
    build,
    check_same_run,
    chosen_weights,
    differences,
    kept,
    load_run,
    saw_validation,
)

ENSEMBLE = "ensemble"
# Of a fold that was trained to its end.
SCORES = "scores.json"
# Smaller weights are what rounding left of 0; a member without weight is not exported.
SMALLEST = 1e-6
_WHICH = re.compile(r"(.+):(kept|best|last|snapshot-\d+)")
# The end of a fingerprint, see `fold_dataset`.
_FOLD = re.compile(r"-fold-(\d+)-of-(\d+)$")


@dataclass(frozen=True, eq=False)
class Found:
    """A member's run as it lies in its folder; `which` of its weights, as `load_run` names them."""

    member: Member
    config: RunConfig
    which: str
    weights: dict[str, torch.Tensor]


def train(
    config: RunConfig,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """Train any config, an ensemble's too; see `training.train`."""
    run = train_ensemble if config.model["name"] == ENSEMBLE else training.train
    return run(config, output, resume=resume, overwrite=overwrite, console=console, dataset=dataset)


def train_ensemble(
    config: RunConfig,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """Fit the weights of an ensemble in the run folder `output` and return it.

    Writes what training does, and weights.json, weights.png and folds/<member>/fold-<number>, which
    are run folders and go on where they were stopped. Raises ModelError where a member cannot be
    one, and what `training.train` does.
    """
    console = console or Console()
    folder.check_free(output, resume=resume, overwrite=overwrite)
    with deterministic(config.training.threads):
        dataset = dataset or load_dataset(config.data)
        if resume and (output / folder.CHECKPOINT).exists():
            # Its members are no longer needed.
            run = load_run(output, dataset=dataset)
            _check_same_settings(run.config, config)
        else:
            run = _fit(config, output, overwrite, console, dataset)
    report = ensemble_report.read(output / folder.WEIGHTS)
    ensemble_report.draw(report, output / folder.WEIGHTS_PLOT)
    console.print(ensemble_report.table(report))
    return run


def _fit(
    config: RunConfig, output: Path, overwrite: bool, console: Console, dataset: Dataset
) -> Run:
    texts = config.model["members"]
    members = [
        find_member(text, name, dataset, config)
        for text, name in zip(texts, distinct_names(texts), strict=True)
    ]
    config = _resolved(config, [found.member for found in members])
    module = build(config, dataset)
    assert isinstance(module, Ensemble)
    for own, found in zip(module.members, members, strict=True):
        checkpoint.load_weights(own, found.weights)
    module.eval()
    _check_weights(config, module)
    # Data and members are good: from here on there is something to put in an old run's place.
    folder.claim(output, resume=True, overwrite=overwrite)
    write_file(output / folder.CONFIG, config.to_yaml().encode())
    answers = _answers(config, output, console, dataset, module, members)
    weights = np.full((len(members), module.weight.shape[1]), 1.0 / len(members))
    if answers is not None:
        weights = _without_dust(answers.fitted(per_step=weights.shape[1] > 1))
    module.weight.copy_(torch.from_numpy(weights)[..., None])
    trainer = training.Trainer(config, dataset, module, torch.device("cpu"))
    trainer.begin()
    report = _report(config, dataset, module, answers, trainer.history[-1][trainer.metric])
    write_file(output / folder.WEIGHTS, canonical_json(report))
    trainer.save(output)
    return load_run(output, dataset=dataset)


def distinct_names(texts: Sequence[str]) -> list[str]:
    """The end of each path, of as many parts as tell it from the others: seed-0, or a/seed-0."""
    names = []
    for text in texts:
        parts = _parts(text)
        depths = range(1, len(parts))
        others = [_parts(other) for other in texts if other != text]
        alone = (k for k in depths if all(parts[-k:] != other[-k:] for other in others))
        names.append("/".join(parts[-next(alone, len(parts)) :]))
    return names


def _parts(text: str) -> tuple[str, ...]:
    path = Path(text)
    return path.relative_to(path.anchor).parts


def find_member(text: str, name: str, dataset: Dataset, config: RunConfig) -> Found:
    """The run that an entry of `model.members` means; raises ModelError, which says which."""
    match = _WHICH.fullmatch(text)
    path, which = (match[1], match[2]) if match else (text, "kept")
    try:
        place = resolve(path)
        own = load_config(folder.check(place) / folder.CONFIG, [])
        if own.model["name"] == ENSEMBLE:
            raise ModelError("is an ensemble itself; name its members instead")
        saved = checkpoint.load(place / folder.CHECKPOINT)
        if saved.data_fingerprint != dataset.fingerprint:
            raise ModelError(_other_data(own, config, saved.data_fingerprint, dataset.fingerprint))
        check_same_run(saved, own, dataset)
        chosen = kept(own, dataset) if which == "kept" else which
        weights, _ = chosen_weights(place, chosen, saved)
    except (RunFolderError, ConfigError, CheckpointError, DataError, ModelError) as error:
        raise ModelError(f"model.members: {text}: {error}") from error
    file = place / folder.CHECKPOINT
    if chosen.startswith(SNAPSHOT):
        file = folder.snapshot(place, int(chosen.removeprefix(SNAPSHOT)))
    values = own.resolved()
    member = Member(
        name=name,
        checkpoint=hashlib.sha256(file.read_bytes()).hexdigest(),
        seed=own.seed,
        model=values["model"],
        training=values["training"],
    )
    return Found(member, own, which, weights)


def _other_data(own: RunConfig, config: RunConfig, then: str, now: str) -> str:
    """Why a member with fingerprint `then` is none of an ensemble of data with `now`."""
    if fold := _FOLD.search(then):
        return (
            f"was trained without fold {int(fold[1]) + 1} of {fold[2]} of the train part, to be "
            "scored on it; train its config on the whole train part, and name that run"
        )
    if then.endswith("-without-test"):
        return (
            "is a trial of a sweep, which has no test part; train its config, as the sweep "
            "does in the folder best, and name that run"
        )
    split = own.data.get("split") or {}
    if split != config.data.get("split") and split.get("by") == "fold":
        return (
            f"is fold {split['fold'] + 1} of {split['folds']} of a cross-validation, whose parts "
            "are others than this ensemble's; train its config with this ensemble's data.split, "
            "or give the ensemble the fold's"
        )
    lines = "; ".join(differences(own.data, config.data))
    if not lines:
        lines = "its settings are the same, but the data changed since"
    return f"was trained on other data than this ensemble's ({lines}); members share one data set"


def _resolved(config: RunConfig, members: list[Member]) -> RunConfig:
    """The config with `model.trained`; raises ModelError where it says something else already."""
    values = config.resolved()
    trained = [member.model_dump(mode="json") for member in members]
    for before, now, text in zip(
        values["model"]["trained"], trained, values["model"]["members"], strict=False
    ):
        if before != now:
            raise ModelError(
                f"model.members: {text}: is not the run that model.trained describes "
                f"({'; '.join(differences(before, now))}); remove model.trained to take it as it is"
            )
    values["model"]["trained"] = trained
    return RunConfig.model_validate_json(json.dumps(values))


def _check_same_settings(then: RunConfig, now: RunConfig) -> None:
    before, after = then.resolved(), now.resolved()
    for values in (before, after):
        del values["model"]["trained"]
    if lines := differences(before, after):
        raise CheckpointError(
            f"the ensemble was made with another config: {'; '.join(lines)}. "
            "Give the old values to resume, or --overwrite to start anew"
        )


def _check_weights(config: RunConfig, module: Ensemble) -> None:
    """Raise ModelError where weights are to be fitted to what a member was fitted on."""
    if config.model["weights"] != "validation":
        return
    for text, member in zip(config.model["members"], module.members, strict=True):
        if saw_validation(member):
            raise ModelError(
                f"model.members: {text}: was fitted on the validation part (model.fit_on: both), "
                "to which no weights can be fitted then; give model.weights: out_of_fold or equal"
            )


def _answers(
    config: RunConfig,
    output: Path,
    console: Console,
    dataset: Dataset,
    module: Ensemble,
    members: list[Found],
) -> Answers | None:
    """What the weights are fitted to; None where they are equal."""
    scale = scoring.target_scale(dataset.train)
    if config.model["weights"] == "equal":
        return None
    if config.model["weights"] == "validation":
        if not resembles(dataset.train, dataset.validation):
            console.print(
                "the validation part does not look like the train part: weights fitted to it may "
                "not suit; model.weights: out_of_fold takes windows of the train part",
                highlight=False,
                soft_wrap=True,
            )
        return blending.answers(list(module.members), dataset.validation, scale)
    folds = config.model["folds"]
    parts = []
    tell = _teller(console, len(members) * folds)
    for fold in range(folds):
        inner = fold_dataset(dataset, folds, fold)
        modules = []
        for index, found in enumerate(members):
            place = output / folder.FOLDS / _fold_name(members, index) / f"fold-{fold}"
            tell(f"{found.member.name} without fold {fold + 1} of {folds}: {place}")
            modules.append(_fold_module(found, config, inner, place, console))
        parts.append(blending.answers(modules, inner.test, scale))
    return blending.together(parts)


def _fold_name(members: list[Found], index: int) -> str:
    """The folder of a member's folds; members with one config share it."""
    first = next(
        place
        for place, found in enumerate(members)
        if _same_training(found.config, members[index].config)
    )
    name = re.sub(r"[^A-Za-z0-9._-]", "_", members[first].config.name)
    return f"{first}-{name}"


def _same_training(one: RunConfig, other: RunConfig) -> bool:
    return (one.seed, one.model, one.training) == (other.seed, other.model, other.training)


def _fold_module(
    found: Found, config: RunConfig, inner: Dataset, place: Path, console: Console
) -> torch.nn.Module:
    """A member's config trained without a fold, on the CPU and in evaluation mode."""
    own = found.config.model_copy(update={"name": place.name, "data": config.data})
    if not (place / SCORES).is_file():
        run = training.train(own, place, resume=True, console=console, dataset=inner)
        write_file(place / SCORES, canonical_json(run.metrics))
    saved = checkpoint.load(place / folder.CHECKPOINT)
    check_same_run(saved, own, inner)
    module = build(own, inner)
    which = kept(own, inner) if found.which == "kept" else found.which
    weights, _ = chosen_weights(place, which, saved)
    checkpoint.load_weights(module, weights)
    return module.eval()


def _teller(console: Console, total: int) -> Callable[[str], None]:
    """Says what comes next, how far it is, and how long the rest may take."""
    begun: list[float] = []

    def tell(text: str) -> None:
        begun.append(time.monotonic())
        done, spent = len(begun) - 1, begun[-1] - begun[0]
        left = f", some {spent / done * (total - done):.0f} s left" if done and spent > 1 else ""
        console.print(f"{done + 1} of {total}{left}: {text}", highlight=False, soft_wrap=True)

    return tell


def _without_dust(weights: np.ndarray) -> np.ndarray:
    """(member, step) without what rounding left of 0; columns sum to 1."""
    kept_ones = np.where(weights < SMALLEST, 0.0, weights)
    return np.asarray(kept_ones / kept_ones.sum(axis=0))


def _report(
    config: RunConfig, dataset: Dataset, module: Ensemble, answers: Answers | None, blend: float
) -> dict[str, Any]:
    """What weights.json holds: weights, and errors of members and blend."""
    metric = folder.HELD_OUT[dataset.task]
    scale = scoring.target_scale(dataset.train)
    cpu = torch.device("cpu")
    weights = module.weight[..., 0].double().numpy()
    rows: list[dict[str, Any]] = module.description()
    whole: dict[str, Any] = {}
    if not saw_validation(module):
        whole["validation"] = blend
        for row, member in zip(rows, module.members, strict=True):
            row["validation"] = scoring.held_out(member, dataset.validation, scale, cpu)[metric]
    if answers is not None and config.model["weights"] == "out_of_fold":
        for row, alone in zip(rows, np.eye(len(rows)), strict=True):
            row["out_of_fold"] = answers.error(alone[:, None])
        whole["out_of_fold"] = answers.error(weights)
    steps = dataset.train.steps - dataset.train.observed
    return {
        "name": config.name,
        "fitted_on": config.model["weights"],
        "metric": metric,
        "milliseconds": [1000.0 * (step + 1) / dataset.rate for step in range(steps)],
        "members": rows,
        "blend": whole,
    }

"""Ridge against a direct solution, the discriminant against scikit-learn's, and what is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from contexts import answered_windows, classify_context, decode_context, decode_dataset
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from trainer.data import DataError
from trainer.metrics import r2
from trainer.models import build_model
from trainer.models.discriminant import discriminant, shrunk_covariance, temperature


def fitted(context, parts, **settings):
    module = build_model({"name": "linear_readout", **settings}, context)
    module.fit_closed_form(*parts)
    return module


def answers(module, windows):
    inputs = windows.batch(slice(None)).inputs
    with torch.no_grad():
        return module(*(torch.from_numpy(inputs[s.name]) for s in windows.inputs)).numpy()


def test_decoding_is_ridge_on_standardised_columns_of_measured_windows():
    context = decode_context(3, 2, steps=4)
    parts = answered_windows(context, 150), answered_windows(context, 60, seed=3)
    module = fitted(context, parts, penalty=20.0)
    train = parts[0]
    z = (train.batch(slice(None)).inputs["neural"] - context.statistics.mean).astype(np.float64)
    x = (z / context.statistics.std).reshape(150, 4, -1).transpose(0, 2, 1).reshape(150, -1)
    found = answers(module, train)
    target = context.target_statistics
    for variable in range(2):
        y = (train.targets[:, variable] - target.mean[variable]) / target.std[variable]
        known = np.isfinite(y)
        centre, spread = x[known].mean(0), x[known].std(0)
        design = (x - centre) / spread
        gram = design[known].T @ design[known] + 20.0 * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, design[known].T @ (y[known] - y[known].mean()))
        wanted = (design @ weights + y[known].mean()) * target.std[variable] + target.mean[variable]
        np.testing.assert_allclose(
            found[:, variable], wanted, rtol=0, atol=2e-5 * target.std[variable]
        )


def test_it_decodes_a_position_from_noisy_channels():
    dataset = decode_dataset()
    module = fitted(dataset.context(), (dataset.train, dataset.validation))
    determined = r2(answers(module, dataset.test).astype(np.float64), dataset.test.targets)
    assert (determined > 0.8).all()


def test_a_validation_part_that_measured_nothing_leaves_the_choice_to_blocks_of_the_train_part():
    dataset = decode_dataset()
    blind = dataclasses.replace(dataset.validation, targets=np.nan * dataset.validation.targets)
    module = fitted(dataset.context(), (dataset.train, blind))
    determined = r2(answers(module, dataset.test).astype(np.float64), dataset.test.targets)
    assert (determined > 0.8).all()


def test_long_windows_are_read_in_bins_of_equal_length():
    context = decode_context(2, steps=40)
    parts = answered_windows(context, 80), answered_windows(context, 40, seed=3)
    module = fitted(context, parts, bins=8)
    assert module.weight.shape == (2 * 8, 2)
    windows = parts[0].batch(slice(0, 5)).inputs["neural"]
    shuffled = windows.reshape(5, 8, 5, 2, 1)[:, :, ::-1].reshape(windows.shape)
    with torch.no_grad():
        one, other = (
            module(torch.from_numpy(np.ascontiguousarray(w))) for w in (windows, shuffled)
        )
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_shrinkage_is_that_of_ledoit_and_wolf():
    random = np.random.default_rng(0)
    for rows, columns in ((12, 30), (200, 8)):
        x = random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns))
        scaler = StandardScaler().fit(x)
        wanted = ledoit_wolf(scaler.transform(x))[0] * np.outer(scaler.scale_, scaler.scale_)
        found = shrunk_covariance(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("priors", [(0.5, 0.2, 0.3), (1 / 3, 1 / 3, 1 / 3)])
def test_the_discriminant_is_that_of_scikit_learn(priors):
    random = np.random.default_rng(0)
    choice = random.choice(3, 90, p=[0.5, 0.2, 0.3])
    x = random.normal(size=(90, 20)) + random.normal(size=(3, 20))[choice]
    x *= 10.0 ** random.normal(size=20)
    weights = discriminant(torch.from_numpy(x), torch.from_numpy(choice), torch.tensor(priors))
    logits = np.concatenate([x, np.ones((90, 1))], axis=1) @ weights.numpy()
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors)
    # It shrinks on columns as they come; ours are standardised first.
    wanted = peer.fit(StandardScaler().fit_transform(x), choice).predict_log_proba(
        StandardScaler().fit_transform(x)
    )
    found = torch.log_softmax(torch.from_numpy(logits), 1).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


def test_the_temperature_makes_overconfident_probabilities_honest():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    choice = np.array([random.choice(3, p=row) for row in shares])
    heat, _ = temperature(torch.from_numpy(4 * logits), torch.from_numpy(choice), balanced=False)
    assert heat == pytest.approx(4.0, rel=0.15)


def test_priors_move_the_border_between_rare_and_frequent_classes():
    context = classify_context(3, 1, dim=0)
    train, validation = answered_windows(context, 300), answered_windows(context, 100, seed=3)
    keep = np.flatnonzero((train.targets != 2) | (np.arange(300) % 6 == 0))
    train = dataclasses.replace(
        train, sessions=train.sessions[keep], starts=train.starts[keep], targets=train.targets[keep]
    )
    counts = {
        priors: (
            answers(fitted(context, (train, validation), priors=priors), validation).argmax(1) == 2
        ).sum()
        for priors in ("balanced", "train")
    }
    assert counts["balanced"] > counts["train"]


def test_classes_follow_the_level_of_channels():
    context = classify_context(dim=0)
    parts = answered_windows(context, 300), answered_windows(context, 200, seed=3)
    module = fitted(context, parts)
    assert (answers(module, parts[1]).argmax(1) == parts[1].targets).mean() > 0.8
    # The first step hardly tells the level here: subtracting it only adds noise.
    assert float(module.first.max()) == 0.0


def test_a_class_without_train_windows_is_named():
    context = classify_context()
    train = answered_windows(context, 60)
    train = dataclasses.replace(train, targets=np.minimum(train.targets, 1))
    with pytest.raises(DataError, match="class 2 has no window in the train part"):
        fitted(context, (train, answered_windows(context, 30)))


@pytest.mark.slow
def test_it_reaches_the_card_figures_of_the_uea_sets(shared_data):
    """Linear discriminant of the data card: 0.829 and 0.570, fitted on the whole train file."""
    for name, figure in (("SelfRegulationSCP1", 0.829), ("FingerMovements", 0.570)):
        (x, y), (tx, ty) = (read_ts(shared_data, name, part) for part in ("TRAIN", "TEST"))
        classes = sorted(set(y))
        context = classify_context(x.shape[2], 1, steps=x.shape[1], dim=0)
        context = dataclasses.replace(
            context,
            classes=2,
            outputs=(dataclasses.replace(context.outputs[0], axes=_two(context)),),
        )
        context.statistics.mean[:] = x.mean((0, 1))[:, None]
        context.statistics.std[:] = x.std((0, 1))[:, None]
        parts = [
            windows_of(context, values, np.array([classes.index(label) for label in labels]))
            for values, labels in ((x, y), (tx, ty))
        ]
        module = fitted(context, (parts[0], parts[0]), baseline="first")
        hits = answers(module, parts[1]).argmax(1) == parts[1].targets
        assert hits.mean() >= figure - 0.02


def _two(context):
    batch, classes = context.outputs[0].axes
    return batch, dataclasses.replace(classes, size=2)


def read_ts(folder, name, part):
    """Trials (trial, time, channel) and labels of one .ts file."""
    trials, labels = [], []
    text = (folder / "eeg_uea" / f"{name}_{part}.ts").read_text(encoding="latin-1")
    for line in text.splitlines():
        if line and line[0] not in "#@":
            *channels, label = line.split(":")
            trials.append([np.array(channel.split(","), np.float32) for channel in channels])
            labels.append(label.strip())
    return np.array(trials).transpose(0, 2, 1), labels


def windows_of(context, values, targets):
    blank = answered_windows(context, len(values))
    flat = values.reshape(-1, values.shape[2], 1)
    return dataclasses.replace(blank, series={"neural": (flat,)}, targets=targets)

"""Band power, its filters and the classifiers behind it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from contexts import answered_windows, classify_context, rows_of
from scipy.signal import firwin
from sklearn.kernel_ridge import KernelRidge

from trainer.data import DataError
from trainer.models import build_model
from trainer.models.band_filters import BandFilters
from trainer.models.classifier import Classifier, both_parts
from trainer.models.columns import Columns


def rated(context, rate):
    return dataclasses.replace(context, rate=rate)


def answers(module, windows):
    inputs = windows.batch(slice(None)).inputs
    with torch.no_grad():
        return module(*(torch.from_numpy(inputs[s.name]) for s in windows.inputs)).numpy()


def test_filters_are_scipys_on_every_column():
    context = rated(classify_context(2, 1, steps=100, dim=0), 100.0)
    filters = BandFilters(context, ((8.0, 12.0), (20.0, 30.0)))
    columns = torch.randn(3, 2, 100, generator=torch.Generator().manual_seed(0))
    found = filters(columns).numpy()
    taps = 100 - found.shape[-1] + 1
    assert taps % 2 == 1
    for band, edges in enumerate(((8.0, 12.0), (20.0, 30.0))):
        kernel = firwin(taps, edges, pass_zero=False, fs=100.0)
        expected = np.convolve(columns[1, 1].numpy(), kernel, mode="valid")
        np.testing.assert_allclose(found[1, band, 1], expected, atol=1e-5)


@pytest.mark.parametrize("classifier", ["discriminant", "logistic", "kernel"])
@pytest.mark.parametrize("fit_on", ["train", "both"])
def test_every_classifier_finds_the_classes(classifier, fit_on):
    context = classify_context(6, 1, dim=0)
    parts = answered_windows(context, 150), answered_windows(context, 60, seed=3)
    module = build_model(
        {"name": "band_power", "classifier": classifier, "fit_on": fit_on}, context
    )
    module.fit_closed_form(*parts)
    test = answered_windows(context, 100, seed=5)
    probability = answers(module, test)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    assert (probability.argmax(1) == test.targets).mean() > 0.6


def test_power_alone_tells_classes_apart():
    random = np.random.default_rng(0)
    context = rated(classify_context(2, 1, steps=100, dim=0), 100.0)
    windows = answered_windows(context, 120)
    kinds = np.arange(120) % 3
    time = np.arange(100) / 100.0
    phase = random.uniform(0, 6, (120, 1))
    waves = np.sin(2 * np.pi * np.array([8.0, 18.0, 32.0])[kinds, None] * time + phase)
    values = waves[..., None] + random.normal(size=(120, 100, 2))
    windows = dataclasses.replace(
        windows,
        series={"neural": (values.reshape(-1, 2, 1).astype(np.float32),)},
        targets=kinds,
    )
    settings = {"bands": ((5.0, 12.0), (14.0, 22.0), (28.0, 36.0)), "bins": 0}
    module = build_model({"name": "band_power", **settings}, context)
    module.fit_closed_form(windows.take(np.arange(90)), windows.take(np.arange(90, 120)))
    held = windows.take(np.arange(90, 120))
    assert (answers(module, held).argmax(1) == held.targets).mean() > 0.9


def test_the_kernel_classifier_is_kernel_ridge():
    """Against scikit-learn's, whose intercept is fitted in advance where classes are balanced."""
    random = np.random.default_rng(0)
    design = torch.from_numpy(random.normal(size=(60, 3)))
    context = classify_context(3, 1, dim=0)
    kinds = np.arange(60) % 3
    windows = dataclasses.replace(answered_windows(context, 60), targets=kinds)
    classifier = Classifier("kernel", 3, 3, 80)
    classifier.fit(windows, design)
    z = (design.numpy() - design.numpy().mean(0)) / design.numpy().std(0)
    gamma = float(classifier.sharpness)
    found = classifier(design.float()).log().numpy()
    found = found - found.mean(1, keepdims=True)
    matches = []
    for penalty in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        ridge = KernelRidge(alpha=penalty, kernel="rbf", gamma=gamma)
        expected = ridge.fit(z, np.eye(3)[kinds] - 1 / 3).predict(z)
        matches.append(np.corrcoef(found.reshape(-1), expected.reshape(-1))[0, 1])
    assert max(matches) > 0.99


def test_windows_of_both_parts_together():
    context = classify_context(3, 1)
    first, second = answered_windows(context, 12), answered_windows(context, 7, seed=3)
    both = both_parts(first, second)
    np.testing.assert_array_equal(both.targets, np.r_[first.targets, second.targets])
    for name, values in both.recorded(slice(None)).items():
        parts = [one.recorded(slice(None))[name] for one in (first, second)]
        np.testing.assert_array_equal(values, np.concatenate(parts))


def test_the_average_reference_takes_off_what_all_channels_share():
    context = classify_context(5, 2, dim=0)
    neural = rows_of(context, 2)["neural"]
    shared = torch.randn(2, context.steps, 1, 2)
    columns = Columns(context, "average")
    torch.testing.assert_close(columns(neural), columns(neural + shared), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "rate", "text"),
    [
        ({"bands": ((8.0, 12.0),)}, None, "states no rate"),
        ({"bands": ((8.0, 60.0),)}, 100.0, r"0 < low < high < 50"),
        ({"bands": ()}, 100.0, "must be"),
        ({"bins": 30}, None, "at most"),
        ({"reference": "average"}, None, "one channel"),
    ],
)
def test_settings_that_do_not_fit(settings, rate, text):
    context = rated(classify_context(1, 1, dim=0), rate)
    with pytest.raises(ValueError, match=text):
        build_model({"name": "band_power", **settings}, context)


def test_more_windows_than_a_kernel_keeps():
    context = classify_context(3, 1, dim=0)
    parts = answered_windows(context, 30), answered_windows(context, 20, seed=3)
    module = build_model({"name": "band_power", "classifier": "kernel", "points": 20}, context)
    with pytest.raises(DataError, match=r"model\.points"):
        module.fit_closed_form(*parts)


def with_trials(targets, trials, spacing=None):
    """Windows of given classes and trials, `spacing` samples apart."""
    windows = answered_windows(classify_context(3, 1, dim=0), len(targets))
    starts = windows.starts if spacing is None else spacing * np.arange(len(targets))
    return dataclasses.replace(
        windows, targets=np.array(targets), trials=np.array(trials), starts=starts
    )


def fitted(windows):
    design = torch.randn(len(windows), 3, generator=torch.Generator().manual_seed(0)).double()
    classifier = Classifier("logistic", 3, 3, 80)
    classifier.fit(windows, design)
    return classifier(design.float())


def test_folds_go_by_the_trials_of_the_rarest_class():
    # 30 windows of 6 trials: two of every class, and so two folds.
    trials = np.repeat(np.arange(6), 5)
    assert torch.isfinite(fitted(with_trials(trials % 3, trials))).all()


def test_a_class_of_one_trial_is_named():
    trials = np.repeat(np.arange(5), 6)
    with pytest.raises(DataError, match=r"class 2 has 1 trial .*at least 2 trials of every class"):
        fitted(with_trials(trials % 3, trials))
    with pytest.raises(DataError, match=r"class 1 has 1 window .*at least 2 windows"):
        fitted(with_trials([0, 2] * 10 + [1], [-1] * 21))


def test_a_class_that_shares_samples_with_every_fold_is_named():
    # Two windows of class 2, side by side: whichever is held out, the other touches it.
    targets = [0, 1] * 10 + [2, 2] + [0, 1] * 10
    with pytest.raises(DataError, match=r"class 2 has no window .* fold 1 of 2"):
        fitted(with_trials(targets, np.arange(42), spacing=15))

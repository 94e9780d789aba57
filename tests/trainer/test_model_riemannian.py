"""The matrix logarithm against scipy's and the tangent space against pyriemann's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import answered_windows, classify_context
from hypothesis import given
from hypothesis import strategies as st
from pyriemann.geometry.tangentspace import tangent_space
from scipy.linalg import expm, logm

from trainer.data import load_dataset
from trainer.models import build_model
from trainer.models.classifier import designs
from trainer.models.matrix_logarithm import matrix_logarithm


@given(size=st.integers(1, 24), spread=st.floats(0, 4), scale=st.floats(-3, 3))
def test_logarithm_of_a_positive_definite_matrix(size, spread, scale):
    random = np.random.default_rng(size)
    basis = np.linalg.qr(random.normal(size=(size, size)))[0]
    wanted = basis @ np.diag(np.log(10) * (scale + random.uniform(0, spread, size))) @ basis.T
    matrix = torch.from_numpy(expm(wanted).astype(np.float32))
    found = matrix_logarithm(matrix[None])[0].numpy()
    assert np.abs(found - wanted).max() <= 1e-3 * max(1.0, np.abs(wanted).max())


def test_tangent_vectors_of_real_trials_are_pyriemanns(shared_data):
    dataset = load_dataset({"name": "finger_movements"})
    context, windows = dataset.context(), dataset.train.take(np.arange(0, 260, 5))
    settings = {"name": "riemannian", "reference": "average", "shrinkage": 0.1}
    module = build_model({**settings, "classifier": "discriminant"}, context)
    module.fit_closed_form(windows, dataset.validation)
    covariances = designs(windows, lambda *x: module._covariances(*x)[:, 0]).numpy()
    mean = np.linalg.inv(module.whitening[0].double().numpy()) ** 1
    expected = tangent_space(covariances, mean @ mean)
    found = designs(windows, module._describe).numpy()
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    whitening = module.whitening[0].double().numpy()
    first = logm(whitening @ covariances[0] @ whitening)
    rows, columns = np.triu_indices(16)
    wanted = first[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))
    assert np.abs(found[0] - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_a_lag_in_seconds_needs_a_rate():
    context = classify_context(3, 1, steps=60, dim=0)
    with pytest.raises(ValueError, match=r"model\.lag: the data set states no rate; give null"):
        build_model({"name": "riemannian", "delays": 1, "lag": 0.1}, context)
    assert build_model({"name": "riemannian", "delays": 1}, context).lag == 1
    context = replace(context, rate=50.0)
    assert build_model({"name": "riemannian", "delays": 1, "lag": 0.1}, context).lag == 5


def test_correlations_tell_classes_apart():
    random = np.random.default_rng(0)
    context = classify_context(3, 1, steps=60, dim=0)
    windows = answered_windows(context, 90)
    kinds = np.arange(90) % 3
    mixing = np.stack([np.eye(3) + 0.8 * np.roll(np.eye(3), 1, 0) * np.eye(3)[k] for k in range(3)])
    values = np.einsum("nij,ntj->nti", mixing[kinds], random.normal(size=(90, 60, 3)))
    object.__setattr__(windows, "series", {"neural": (values.reshape(-1, 3, 1).astype("f4"),)})
    object.__setattr__(windows, "targets", kinds)
    module = build_model({"name": "riemannian"}, context)
    module.fit_closed_form(windows.take(np.arange(60)), windows.take(np.arange(60, 90)))
    held = windows.take(np.arange(60, 90))
    answer = module(torch.from_numpy(held.batch(slice(None)).inputs["neural"]))
    assert (answer.argmax(1).numpy() == held.targets).mean() > 0.8


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"delays": 15}, "at most half"),
        ({"delays": 9}, "at most 64"),
        ({"bins": 21}, "a window has 20 steps"),
    ],
)
def test_settings_that_do_not_fit(settings, text):
    with pytest.raises(ValueError, match=text):
        build_model({"name": "riemannian", **settings}, classify_context(8, 1, dim=0))

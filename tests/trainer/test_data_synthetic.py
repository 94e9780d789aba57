"""Synthetic data: the same bytes for a seed, learnable, and said to be synthetic."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest

from trainer.data import DATASETS, load_dataset


def digest(dataset):
    return hashlib.sha256(
        b"".join(series[0].tobytes() for series in dataset.train.series.values())
    ).hexdigest()


@pytest.mark.parametrize("name", ["synthetic", "synthetic_decoding"])
def test_the_same_seed_gives_the_same_bytes_in_another_process(name):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from test_data_synthetic import digest; from trainer.data import load_dataset;"
        "data = load_dataset({'name': sys.argv[1]}); print(digest(data), data.fingerprint)"
    )
    folder = __file__.rpartition("/")[0]
    run = subprocess.run(
        [sys.executable, "-c", code, name, folder], capture_output=True, text=True, check=True
    )
    dataset = load_dataset({"name": name})
    assert run.stdout.split() == [digest(dataset), dataset.fingerprint]
    other = load_dataset({"name": name, "seed": 1})
    assert digest(other) != digest(dataset)
    assert other.fingerprint != dataset.fingerprint


def test_every_data_set_says_what_it_is():
    for name in ("array", "challenge", "synthetic", "synthetic_decoding", "uecog_goose"):
        assert name in DATASETS.names()
        assert DATASETS.summary(name)
    for name in ("synthetic", "synthetic_decoding"):
        assert DATASETS.summary(name).startswith("SYNTHETIC")
        dataset = load_dataset({"name": name})
        assert dataset.synthetic
        assert dataset.description.startswith("SYNTHETIC")


def test_challenge_windows_quickly():
    start = time.process_time()
    dataset = load_dataset({"name": "synthetic"})
    assert time.process_time() - start < 2
    assert dataset.train.inputs[0].layout == "(batch, time=20, channel=8, feature=9)"
    batch = dataset.test.batch(slice(0, 3))
    assert batch.inputs["neural"].shape == (3, 20, 8, 9)
    assert batch.targets["forecast"].shape == (3, 20, 8)
    statistics = dataset.context().statistics
    # Offsets and scales differ between channels, so that a model must undo them.
    assert np.ptp(statistics.mean[:, 0]) > 10
    assert statistics.std[:, 0].max() > 2 * statistics.std[:, 0].min()
    assert (statistics.std > 0).all()


def ridge(inputs, targets, penalty):
    inputs = np.c_[inputs, np.ones(len(inputs))]
    return np.linalg.solve(
        inputs.T @ inputs + penalty * np.eye(inputs.shape[1]), inputs.T @ targets
    )


def test_linear_models_beat_persistence_and_the_mean():
    dataset = load_dataset({"name": "synthetic"})
    statistics = dataset.context().statistics
    mean, std = statistics.mean[:, 0], statistics.std[:, 0]

    def split(part):
        batch = part.batch(slice(None))
        past = (batch.inputs["neural"][:, :10, :, 0] - mean) / std
        future = (batch.targets["forecast"][:, 10:] - mean) / std
        return past.reshape(len(past), -1), future.reshape(len(past), -1), past, future

    past, future, _, _ = split(dataset.train)
    weights = ridge(past, future, 100)
    past, future, last, true = split(dataset.test)
    linear = np.mean((np.c_[past, np.ones(len(past))] @ weights - future) ** 2)
    persistence = np.mean((last[:, -1:] - true) ** 2)
    zero = np.mean(true**2)
    assert linear < 0.7 * zero < zero < persistence


def test_causal_features_of_the_synthetic_potential():
    from trainer.data.synthetic import _log_power

    potential = np.random.default_rng(0).normal(size=(200, 2))
    changed = potential.copy()
    changed[120:, 1] += 5
    before, after = _log_power(potential), _log_power(changed)
    assert before[:120].tobytes() == after[:120].tobytes()
    assert (before[120:, 1] != after[120:, 1]).any()


def test_decoding_needs_both_inputs():
    dataset = load_dataset({"name": "synthetic_decoding"})
    context = dataset.context()
    assert (context.task, context.classes, context.behavior_dim) == ("classify", 3, 2)
    assert [spec.name for spec in context.inputs] == ["neural", "behavior", "behavior_mask"]
    assert [spec.layout for spec in context.outputs] == ["(batch, class=3)"]

    def score(*names):
        def features(part):
            batch = part.batch(slice(None))
            flat = [batch.inputs[name].reshape(len(part), -1) for name in names]
            return np.concatenate(flat, axis=1), batch.targets["choice"]

        inputs, choice = features(dataset.train)
        centre, scale = inputs.mean(0), inputs.std(0)
        weights = ridge((inputs - centre) / scale, np.eye(3)[choice], 1)
        inputs, choice = features(dataset.test)
        inputs = np.c_[(inputs - centre) / scale, np.ones(len(inputs))]
        return np.mean((inputs @ weights).argmax(1) == choice)

    both = score("neural", "behavior")
    assert both > 0.9
    assert 0.5 < score("neural") < both - 0.1
    assert 0.5 < score("behavior") < both - 0.1


def test_decoding_inputs_are_not_masked_and_absent_behaviour_is_zero():
    batch = load_dataset({"name": "synthetic_decoding"}).train.batch(slice(0, 50))
    behavior, present = batch.inputs["behavior"], batch.inputs["behavior_mask"]
    assert behavior.dtype == np.float32
    assert present.dtype == bool
    assert batch.targets["choice"].dtype == np.int64
    assert (behavior[~present] == 0).all()
    assert (behavior[present] != 0).all()
    assert 0.7 < present.mean() < 0.9
    assert not (np.diff(batch.inputs["neural"], axis=1) == 0).all(axis=(0, 2, 3)).any()

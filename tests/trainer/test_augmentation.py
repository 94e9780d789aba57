"""Windows are varied as documented, consistently over inputs, base forecast and targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from contexts import decode_dataset

from trainer.augmentation import Minibatch, augmented, generator, mixed
from trainer.config import Augmentation
from trainer.data import load_dataset
from trainer.data.windows import Batch, Dataset


@pytest.fixture(scope="module")
def forecasts() -> Dataset:
    return load_dataset({"name": "synthetic", "channels": 3, "samples": 900})


def minibatch(dataset: Dataset, count: int = 40, base: bool = True) -> Minibatch:
    batch = dataset.train.batch(np.arange(count))
    scored = batch.targets["forecast"][:, dataset.train.observed :] if base else None
    return Minibatch(batch, None if scored is None else scored + np.float32(0.5))


def varied(dataset: Dataset, base: bool = True, **settings: float) -> Minibatch:
    draws = generator(0, 1, 2, 0)
    return augmented(minibatch(dataset, base=base), dataset.train, Augmentation(**settings), draws)


def test_draws_differ_between_minibatches_and_repeat() -> None:
    keys = [(0, 1, 2, 0), (0, 1, 2, 1), (0, 1, 3, 0), (1, 1, 2, 0)]
    values = [generator(*key).random() for key in keys]
    assert len(set(values)) == len(keys)
    assert generator(*keys[0]).random() == values[0]
    # Trailing zeros do not count in a seed: epoch 1's own draws are others.
    assert np.random.default_rng([0, 1]).random() != generator(0, 1, 0, 0).random()


def test_noise_is_on_the_observed_inputs_in_train_units(forecasts: Dataset) -> None:
    before, after = minibatch(forecasts), varied(forecasts, noise=0.1)
    observed = forecasts.train.observed
    change = after.batch.inputs["neural"] - before.batch.inputs["neural"]
    spread = change[:, :observed].std(axis=(0, 1)) / forecasts.train.statistics().std
    assert spread == pytest.approx(np.full_like(spread, 0.1), rel=0.15)
    neural = after.batch.inputs["neural"]
    assert (neural[:, observed:] == neural[:, observed - 1 : observed]).all()
    assert np.array_equal(after.batch.targets["forecast"], before.batch.targets["forecast"])
    assert np.array_equal(after.base, before.base)


@pytest.mark.parametrize("settings", [{"gain": 0.2}, {"shift": 0.5}, {"gain": 0.1, "shift": 0.1}])
def test_a_change_of_units_is_one_on_inputs_base_and_targets(
    forecasts: Dataset, settings: dict[str, float]
) -> None:
    before, after = minibatch(forecasts), varied(forecasts, **settings)
    observed = forecasts.train.observed
    one, other = before.batch.inputs["neural"][..., 0], after.batch.inputs["neural"][..., 0]
    x, y = one[:, :observed].astype(float), other[:, :observed].astype(float)
    gain = (y - y.mean(1, keepdims=True)).std(1) / (x - x.mean(1, keepdims=True)).std(1)
    shift = y.mean(1) - gain * x.mean(1)
    assert gain.std() > 0.05 or "gain" not in settings
    for name, a, b in (
        ("target", before.batch.targets["forecast"], after.batch.targets["forecast"]),
        ("base", before.base, after.base),
    ):
        expected = a * gain[:, None] + shift[:, None]
        assert b == pytest.approx(expected, abs=float(2e-3 * np.abs(a).max())), name


def test_units_of_decoded_variables_stay() -> None:
    dataset = decode_dataset(300)
    batch = dataset.train.batch(np.arange(30))
    after = augmented(
        Minibatch(batch, None),
        dataset.train,
        Augmentation(gain=0.3, shift=0.3),
        generator(0, 1, 1, 0),
    )
    assert after.batch.targets["behavior"] is batch.targets["behavior"]
    assert not np.array_equal(after.batch.inputs["neural"], batch.inputs["neural"])


def test_lost_channels_are_at_their_train_mean(forecasts: Dataset) -> None:
    neural = varied(forecasts, channel_dropout=0.3).batch.inputs["neural"]
    mean = forecasts.train.statistics().mean.astype(np.float32)
    lost = (neural == mean).all(axis=(1, 3))
    untouched = minibatch(forecasts).batch.inputs["neural"]
    assert 0.15 < lost.mean() < 0.45
    assert np.array_equal(neural[:, :, :][~lost.any(1)], untouched[~lost.any(1)])


def test_mixing_is_linear_in_everything(forecasts: Dataset) -> None:
    before, after = minibatch(forecasts), varied(forecasts, mixup=0.4)
    scored = slice(forecasts.train.observed, None)
    gap = after.base - after.batch.targets["forecast"][:, scored]
    assert gap == pytest.approx(np.full_like(gap, 0.5), abs=1e-3)
    means = [m.batch.inputs["neural"].mean(dtype=float) for m in (before, after)]
    assert means[0] == pytest.approx(means[1], rel=1e-4, abs=1e-3)
    assert not np.array_equal(after.batch.inputs["neural"], before.batch.inputs["neural"])


def test_mixed_classes_keep_both_labels_and_masks_what_both_have() -> None:
    dataset = load_dataset({"name": "synthetic_decoding", "trials": 60})
    batch = dataset.train.batch(np.arange(20))
    after = mixed(Minibatch(batch, None), 0.4, "classify", generator(0, 1, 1, 0)).batch
    assert np.array_equal(after.targets["choice"], batch.targets["choice"])
    assert sorted(after.targets["second_choice"]) == sorted(batch.targets["choice"])
    assert 0.5 <= float(after.targets["share"]) <= 1
    masked = Batch({**batch.inputs, "mask": np.arange(20) % 2 == 0}, batch.targets)
    both = mixed(
        replace(Minibatch(batch, None), batch=masked), 0.4, "classify", generator(0, 1, 1, 0)
    )
    assert both.batch.inputs["mask"].dtype == bool
    assert not (both.batch.inputs["mask"] & ~masked.inputs["mask"]).any()

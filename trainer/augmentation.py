"""Train windows varied at random: what a network must not depend on, or shall interpolate.

Everything happens on arrays of one minibatch, with the generator that is passed in; the settings
are documented at `trainer.config.Augmentation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.config import Augmentation
from trainer.data.windows import TARGETS, Batch, Statistics, Windows

_TAG = 1  # keeps these draws apart from those of shorter seeds


@dataclass(frozen=True, eq=False)
class Minibatch:
    """Windows and, where the model corrects a forecast, that forecast out of fold.

    base: (batch, horizon, channel) raw, or None.
    """

    batch: Batch
    base: np.ndarray | None


def generator(seed: int, epoch: int, step: int, part: int) -> np.random.Generator:
    """The random numbers of minibatch `part` of an optimizer step."""
    return np.random.default_rng([seed, epoch, step, part, _TAG])


def augmented(
    minibatch: Minibatch,
    windows: Windows,
    settings: Augmentation,
    draws: np.random.Generator,
) -> Minibatch:
    """`minibatch` of the train part `windows` as `settings` vary it; the arrays are its own.

    The steps after the observed ones repeat the last observed one again.
    """
    statistics = windows.statistics()
    if settings.gain or settings.shift:
        minibatch = _other_units(minibatch, windows, settings, draws)
    neural = minibatch.batch.inputs["neural"]
    observed = neural[:, : windows.observed]
    if settings.noise:
        noise = draws.standard_normal(observed.shape, dtype=np.float32)
        observed += np.float32(settings.noise) * statistics.std.astype(np.float32) * noise
    if settings.channel_dropout:
        lost = draws.random((len(neural), neural.shape[2])) < settings.channel_dropout
        mean = statistics.mean.astype(np.float32)
        observed[...] = np.where(lost[:, None, :, None], mean, observed)
    neural[:, windows.observed :] = observed[:, -1:]
    return mixed(minibatch, settings.mixup, windows.task, draws) if settings.mixup else minibatch


def mixed(minibatch: Minibatch, alpha: float, task: str, draws: np.random.Generator) -> Minibatch:
    """Every window with a share of another one of the minibatch: inputs, base and targets.

    The share is at most a half, so that a window stays the one that its session number names. Of
    classify `choice` stays, with the other window's as `second_choice` and the `share` of the
    first. What is present or not, as a behaviour's mask, is so where both windows have it.
    """
    share = float(draws.beta(alpha, alpha))
    share = max(share, 1 - share)
    other = draws.permutation(len(minibatch.batch.inputs["neural"]))

    def mix(values: np.ndarray) -> np.ndarray:
        if values.dtype == bool:
            return np.asarray(values & values[other])
        return np.asarray(share * values + (1 - share) * values[other], values.dtype)

    inputs = {name: mix(values) for name, values in minibatch.batch.inputs.items()}
    target = minibatch.batch.targets[TARGETS[task]]
    if task == "classify":
        second = {"second_choice": target[other], "share": np.array(share)}
        targets = {"choice": target, **second}
    else:
        targets = {TARGETS[task]: mix(target)}
    base = None if minibatch.base is None else mix(minibatch.base)
    return Minibatch(Batch(inputs, targets), base)


def _other_units(
    minibatch: Minibatch, windows: Windows, settings: Augmentation, draws: np.random.Generator
) -> Minibatch:
    """Every channel of every window in units of its own: (x - mean) * gain + mean + shift * std."""
    statistics = windows.statistics()
    neural = minibatch.batch.inputs["neural"]
    shape = (len(neural), 1, neural.shape[2], 1)
    gain = np.exp(settings.gain * draws.standard_normal(shape))
    shift = settings.shift * draws.standard_normal(shape)

    def changed(values: np.ndarray, statistics: Statistics) -> np.ndarray:
        units = statistics.mean * (1 - gain) + statistics.std * shift
        return np.asarray(values * gain + units, np.float32)

    batch = Batch({**minibatch.batch.inputs, "neural": changed(neural, statistics)}, {})
    if windows.task != "forecast":
        return Minibatch(Batch(batch.inputs, minibatch.batch.targets), minibatch.base)
    first = Statistics(statistics.mean[:, :1], statistics.std[:, :1])
    target = changed(minibatch.batch.targets["forecast"][..., None], first)[..., 0]
    base = minibatch.base
    base = None if base is None else changed(base[..., None], first)[..., 0]
    return Minibatch(Batch(batch.inputs, {"forecast": target}), base)

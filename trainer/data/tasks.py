"""Tasks that a recurrent network is trained on: working memory, and integration by context.

Every trial is a window with one right answer, read from the network's last state.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from trainer.data.errors import DataError
from trainer.data.trials import Trials, divided, one_hot, trial_dataset
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Noise = Annotated[float, Field(ge=0)]
TrialCount = Annotated[int, Field(ge=20, le=1_000_000)]
Steps = Annotated[int, Field(ge=1, le=100_000)]
Symbols = Annotated[int, Field(ge=2, le=1024)]

COHERENCES = (0.1, 0.2, 0.4)  # of context_dependent_integration: mean of the evidence
SHARES = (0.7, 0.15, 0.15)


@DATASETS.register("delayed_match_task")
def delayed_match_task(
    *,
    trials: TrialCount = 320,
    length: Annotated[int, Field(ge=2, le=100_000)] = 10,
    symbols: Symbols = 4,
    seed: Seed = 0,
) -> Dataset:
    """SYNTHETIC: a cue, a silent delay, a probe: are they the same symbol? Half of them are.

    Channels are symbols; the cue is 1 at the first step, the probe at the last of `length`. The
    first four fifths of the trials train, the last fifth tests; as many trials as it has, drawn
    with the seed after `seed`, validate. Without noise there are only `symbols`² different trials,
    so every part holds the same ones: what is tested is whether the rule was learnt.
    """
    drawn = delayed_match(trials, length, symbols, seed)
    tests = trials // 5
    parts = {
        "train": drawn.take(slice(0, trials - tests)),
        "validation": delayed_match(tests, length, symbols, seed + 1),
        "test": drawn.take(slice(trials - tests, None)),
    }
    return trial_dataset(
        "delayed_match_task",
        parts,
        settings={"trials": trials, "length": length, "symbols": symbols, "seed": seed},
        channels=tuple(f"symbol {k}" for k in range(symbols)),
        classes=("other", "same"),
        description=f"SYNTHETIC: delayed match to sample, {symbols} symbols over {length} steps",
    )


def delayed_match(trials: int, length: int, symbols: int, seed: int) -> Trials:
    """Trials of delayed match to sample, exactly trials // 2 of them matches (class 1).

    Drawn by numpy's default generator in this order: cues, the order of matches, and for every
    trial by how much a probe that does not match is off. Raises DataError for fewer than 2 steps
    or symbols.
    """
    if length < 2 or symbols < 2:
        raise DataError(
            f"delayed match: length {length}, symbols {symbols}; both must be 2 or more"
        )
    draws = np.random.default_rng(seed)
    cues = draws.integers(0, symbols, trials)
    matches = draws.permutation((np.arange(trials) < trials // 2).astype(np.int64))
    offsets = draws.integers(1, symbols, trials)
    probes = np.where(matches == 1, cues, (cues + offsets) % symbols)
    inputs = np.zeros((trials, length, symbols))
    inputs[:, 0] = one_hot(cues, symbols)
    inputs[:, -1] = one_hot(probes, symbols)
    return Trials(inputs, matches)


@DATASETS.register("delayed_recall")
def delayed_recall(
    *,
    trials: TrialCount = 2000,
    symbols: Symbols = 4,
    items: Annotated[int, Field(ge=1, le=64)] = 2,
    delay: Steps = 10,
    noise: Noise = 0.1,
    seed: Seed = 0,
) -> Dataset:
    """SYNTHETIC: `items` symbols one after the other, a delay, then: which was the k-th of them?

    Working memory with order. Channels are the symbols, then one per place, which is 1 at the last
    step where that place is asked for. A trial has items + delay + 1 steps; `noise` is the standard
    deviation of white noise on all channels. 70 % train, 15 % validate, 15 % test.
    """
    draws = np.random.default_rng(seed)
    shown = draws.integers(0, symbols, (trials, items))
    asked = draws.integers(0, items, trials)
    inputs = np.zeros((trials, items + delay + 1, symbols + items))
    inputs[:, :items, :symbols] = one_hot(shown, symbols)
    inputs[:, -1, symbols:] = one_hot(asked, items)
    inputs += noise * draws.standard_normal(inputs.shape)
    names = [f"symbol {k}" for k in range(symbols)]
    return trial_dataset(
        "delayed_recall",
        divided(Trials(inputs, shown[np.arange(trials), asked]), SHARES),
        settings={
            "trials": trials,
            "symbols": symbols,
            "items": items,
            "delay": delay,
            "noise": noise,
            "seed": seed,
        },
        channels=(*names, *(f"asked {k + 1}" for k in range(items))),
        classes=tuple(names),
        description=f"SYNTHETIC: recall one of {items} symbols after {delay} steps",
    )


@DATASETS.register("n_back")
def n_back(
    *,
    trials: TrialCount = 2000,
    symbols: Symbols = 4,
    back: Annotated[int, Field(ge=1, le=1000)] = 2,
    length: Annotated[int, Field(ge=2, le=100_000)] = 12,
    noise: Noise = 0.1,
    seed: Seed = 0,
) -> Dataset:
    """SYNTHETIC: a symbol at every step: is the last one that of `back` steps before?

    Working memory that is overwritten all the time. Half of the trials match; in the others the
    symbol looked for is any other one, so that its neighbours in time do not tell. Channels are
    symbols; `noise` is the standard deviation of white noise on them. 70 % train, 15 % validate,
    15 % test. Raises DataError where `back` reaches beyond the first step.
    """
    if back >= length:
        raise DataError(f"n_back: back is {back}; must be below length, {length}")
    draws = np.random.default_rng(seed)
    shown = draws.integers(0, symbols, (trials, length))
    matches = draws.permutation((np.arange(trials) < trials // 2).astype(np.int64))
    offsets = draws.integers(1, symbols, trials)
    shown[:, -1 - back] = np.where(matches == 1, shown[:, -1], (shown[:, -1] + offsets) % symbols)
    inputs = one_hot(shown, symbols)
    inputs = inputs + noise * draws.standard_normal(inputs.shape)
    return trial_dataset(
        "n_back",
        divided(Trials(inputs, matches), SHARES),
        settings={
            "trials": trials,
            "symbols": symbols,
            "back": back,
            "length": length,
            "noise": noise,
            "seed": seed,
        },
        channels=tuple(f"symbol {k}" for k in range(symbols)),
        classes=("other", "same"),
        description=f"SYNTHETIC: {back}-back, {symbols} symbols over {length} steps",
    )


@DATASETS.register("context_dependent_integration")
def context_dependent_integration(
    *,
    trials: TrialCount = 2000,
    length: Annotated[int, Field(ge=2, le=100_000)] = 40,
    noise: Noise = 0.5,
    seed: Seed = 0,
) -> Dataset:
    """SYNTHETIC: two streams of noisy evidence; the context says whose sign is asked for.

    Channels: motion, colour, and one per context, which is 1 all the time. The mean of each stream
    is ±0.1, ±0.2 or ±0.4, drawn for both apart, and `noise` the standard deviation around it at
    every step: the other stream must not matter. 70 % train, 15 % validate, 15 % test. After Mante,
    Sussillo, Shenoy and Newsome 2013, Nature 503:78.
    """
    draws = np.random.default_rng(seed)
    signs = draws.integers(0, 2, (trials, 2))
    means = (2 * signs - 1) * draws.choice(COHERENCES, (trials, 2))
    context = draws.integers(0, 2, trials)
    inputs = np.zeros((trials, length, 4))
    inputs[:, :, :2] = means[:, None] + noise * draws.standard_normal((trials, length, 2))
    inputs[:, :, 2:] = one_hot(context, 2)[:, None]
    return trial_dataset(
        "context_dependent_integration",
        divided(Trials(inputs, signs[np.arange(trials), context]), SHARES),
        settings={"trials": trials, "length": length, "noise": noise, "seed": seed},
        channels=("motion", "colour", "context motion", "context colour"),
        classes=("negative", "positive"),
        description=f"SYNTHETIC: context-dependent integration over {length} steps",
    )

"""Synthetic trials: neural activity and partly missing behaviour, one choice of three."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from trainer.data.fingerprint import fingerprint
from trainer.data.splits import Block, TrialSplit, split_blocks
from trainer.data.windows import PARTS, Dataset, Windows, classify_specs, flatten
from trainer.registry import DATASETS

RATE = 50.0
STEPS, DIM, CLASSES = 20, 2, 3
ONSET = 5


@DATASETS.register("synthetic_decoding")
def synthetic_decoding(
    *,
    seed: Annotated[int, Field(ge=0)] = 0,
    channels: Annotated[int, Field(ge=1, le=1024)] = 6,
    trials: Annotated[int, Field(ge=30, le=100_000)] = 900,
    split: TrialSplit = TrialSplit(),  # noqa: B008
) -> Dataset:
    """SYNTHETIC: neural (batch, 20, channel, 1) and behavior (batch, 20, 2) → one of 3 choices.

    Choice 0 shows in the neural activity alone, 1 against 2 in the behaviour alone: a decoder
    needs both. Behaviour is missing at some steps. The same seed gives the same bytes.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    choice = generator.integers(0, CLASSES, trials)
    neural = _neural(generator, choice, channels)
    behavior, present = _behavior(generator, choice)
    inputs, outputs = classify_specs(
        steps=STEPS, channels=channels, features=1, dim=DIM, classes=CLASSES, unit="µV"
    )
    arrays = {"neural": neural, "behavior": behavior, "behavior_mask": present}
    series = {name: (flatten(values)[0],) for name, values in arrays.items()}
    blocks = [Block("synthetic", STEPS * i, STEPS * (i + 1), trial=i) for i in range(trials)]
    windows = {}
    for part, chosen in split_blocks(blocks, split, window=STEPS).items():
        windows[part] = Windows(
            task="classify",
            observed=STEPS,
            inputs=inputs,
            outputs=outputs,
            series=series,
            sessions=np.zeros(len(chosen), np.int64),
            starts=np.array([block.start for block in chosen], np.int64),
            targets=choice[[block.trial for block in chosen]],
        )
    settings = {"seed": seed, "split": split.model_dump(mode="json")}
    return Dataset(
        name="synthetic_decoding",
        **{part: windows[part] for part in PARTS},
        fingerprint=fingerprint("synthetic_decoding", settings, [*arrays.values(), choice]),
        rate=RATE,
        unit="µV",
        channel_names=tuple(f"s{index:03d}" for index in range(channels)),
        session_names=("synthetic",),
        synthetic=True,
        description=f"SYNTHETIC: {trials} trials of a two-input choice, seed {seed}; no recording",
    )


def _neural(generator: np.random.Generator, choice: np.ndarray, channels: int) -> np.ndarray:
    """Noise, and a response after the onset on choice 0: (trial, 20, channel, 1)."""
    gain = generator.uniform(0.6, 1.2, channels) * generator.choice([-1.0, 1.0], channels)
    bump = np.clip(np.arange(STEPS) - ONSET, 0, None) / (STEPS - ONSET)
    response = (choice == 0)[:, None, None] * bump[:, None] * gain
    noise = 0.8 * generator.standard_normal((len(choice), STEPS, channels))
    offset, scale = generator.uniform(-40, 40, channels), generator.uniform(20, 120, channels)
    neural = offset + scale * (response + noise)
    return np.asarray(neural[..., None], np.float32)


def _behavior(generator: np.random.Generator, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drift to one side on choice 1, to the other on 2: (trial, 20, 2), and present (trial, 20)."""
    side = np.array([0.0, 1.0, -1.0])[choice]
    # Choice 0 drifts like 1 or 2, by chance, so that behaviour alone cannot tell it.
    side = np.where(choice == 0, generator.choice([-1.0, 1.0], len(choice)), side)
    ramp = np.arange(STEPS) / STEPS
    path = side[:, None, None] * ramp[:, None] * np.array([1.0, 0.3])
    path = path + 0.4 * generator.standard_normal((len(choice), STEPS, DIM))
    present = generator.random((len(choice), STEPS)) > 0.2
    return np.where(present[:, :, None], path, 0.0).astype(np.float32), present

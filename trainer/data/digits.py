"""Handwritten digits as sequences: pixel by pixel or row by row."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from trainer.data.trials import Trials, divided, trial_dataset
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

SHARES = (0.65, 0.15, 0.20)
FULL = 16.0  # the darkest pixel


@DATASETS.register("sequential_digits")
def sequential_digits(
    *,
    order: Literal["pixels", "rows"] = "pixels",
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> Dataset:
    """Handwritten digits of 8 × 8 pixels, one pixel (64 steps) or row (8 steps) at a time.

    The 1,797 images that scikit-learn brings, ink from 0 to 1; no two are the same. Shuffled by
    `seed`, 65 % train, 15 % validate, 20 % test. The bundle does not say who wrote what, so that
    one hand may be in all parts. From E. Alpaydin and C. Kaynak's Optical Recognition of
    Handwritten Digits, UCI Machine Learning Repository, CC BY 4.0.
    """
    # Slow to import, and needed here alone.
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(seed).permutation(len(digits))
    rows, columns = (64, 1) if order == "pixels" else (8, 8)
    inputs = (images[shuffled] / FULL).reshape(-1, rows, columns)
    return trial_dataset(
        "sequential_digits",
        divided(Trials(inputs, digits[shuffled]), SHARES),
        settings={"order": order, "seed": seed},
        channels=tuple(f"column {k}" for k in range(columns)) if columns > 1 else ("ink",),
        classes=tuple(str(k) for k in range(10)),
        description="handwritten digits (UCI, CC BY 4.0; from the package scikit-learn, "
        f"BSD-3-Clause), by {order}",
        synthetic=False,
    )

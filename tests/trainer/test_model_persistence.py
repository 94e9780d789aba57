"""The floor that repeats the last observed value."""

from __future__ import annotations

import torch
from contexts import forecast_context, neural

from trainer.models import build_model


def test_repeats_the_last_observed_value():
    context = forecast_context(4, features=3, steps=15, observed=6)
    x = neural(context, 2)
    answer = build_model({"name": "persistence"}, context)(x)
    assert torch.equal(answer[:, :6], x[:, :6, :, 0])
    assert torch.equal(answer[:, 6:], x[:, 5:6, :, 0].expand(2, 9, 4))


def test_has_nothing_to_train():
    module = build_model({"name": "persistence"}, forecast_context(4))
    assert not list(module.parameters())

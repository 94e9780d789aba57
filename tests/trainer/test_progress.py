"""What a person hears of a fit in closed form."""

from __future__ import annotations

import io

import numpy as np
import pytest
from contexts import forecast_context, forecast_windows
from rich.console import Console

from trainer import progress
from trainer.models import build_model
from trainer.models.stages import listening, stages
from trainer.progress import fit_teller


def test_a_fit_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    screen = io.StringIO()
    with listening(fit_teller(Console(file=screen))):
        assert list(stages("choosing", "ab")) == ["a", "b"]
    first, last = screen.getvalue().splitlines()
    assert first.startswith("choosing: 1 of 2, some ")
    assert first.endswith(" s left")
    assert last == "choosing: 2 of 2"


def test_who_listens_to_a_base_hears_of_every_fold() -> None:
    heard: list[tuple[int, int]] = []
    context = forecast_context(3)
    module = build_model({"name": "tcn", "base": "linear"}, context)
    kicks = np.random.default_rng(0).normal(size=(400, context.channels, context.features))
    windows = forecast_windows(context, np.cumsum(kicks, axis=0))
    with listening(lambda text, done, total, seconds: heard.append((done, total))):
        module.fit_closed_form(windows, windows)
    assert heard == [(done, 5) for done in range(1, 6)] * 2


def test_a_fit_that_takes_no_time_says_nothing() -> None:
    screen = io.StringIO()
    with listening(fit_teller(Console(file=screen))):
        assert sum(stages("adding", np.arange(4).tolist())) == 6
    assert not screen.getvalue()

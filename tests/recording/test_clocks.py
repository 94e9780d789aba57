"""Time stamps as regular clocks, and clocks that disagree."""

from __future__ import annotations

import numpy as np
import pytest

from recording import Channel, Events, RecordingError, Samples, Series, clocks
from recording.clocks import check_clocks, clock, span


@pytest.mark.parametrize("rate", [30.0, 29.97, 1000.0, 30000.02, 1 / 0.72])
@pytest.mark.parametrize("block", [7, 2**20])
def test_the_rate_that_was_meant_is_found(
    rate: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 4000 + np.arange(20000 if block > 7 else 100) / rate
    monkeypatch.setattr(clocks, "BLOCK", block)
    found = clock(times)
    assert found.regular
    assert found.rate == pytest.approx(rate, rel=1e-6 if block > 7 else 1e-3)
    assert [(p.start, p.first, p.stop) for p in found.pieces] == [(4000.0, 0, len(times))]


def test_gaps_and_jitter_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "BLOCK", 64)
    times = np.arange(400) / 100
    times[128:] += 7
    times[300] += 0.002
    found = clock(times)
    assert found.rate == 100.0
    assert [(p.first, p.stop) for p in found.pieces] == [(0, 128), (128, 400)]
    assert found.pieces[1].start == times[128]
    assert found.deviation == pytest.approx(0.002)
    assert found.worst == times[300]
    assert {one.kind for one in found.findings("x")} == {"gap", "clock"}


def test_what_is_no_clock_is_an_error_or_not_regular() -> None:
    assert not clock(np.cumsum(np.random.default_rng(0).uniform(0.001, 1, 1000))).regular
    for times, message in (
        (np.array([1.0]), "x: fewer than two time stamps"),
        (np.array([1.0, 2.0, 1.5]), "x: at 1.5 s: time 2 is 0.5 s before"),
        (np.array([1.0, 2.0, 2.0]), "x: at 2 s: times 1 and 2 are the same"),
        (np.array([1.0, np.inf, 3.0]), "x: at 1 s: time 1 is inf; must be finite"),
    ):
        with pytest.raises(RecordingError, match=message):
            clock(times, stream="x")


def test_streams_share_a_moment() -> None:
    neural = Series(np.zeros((100, 1)), 10.0, (Channel("a"),))
    track = Samples(np.array([9.0, 12.0]), np.zeros((2, 1)), (Channel("x", "behavior"),))
    late = Samples(np.array([10.0, 12.0]), np.zeros((2, 1)), (Channel("x", "behavior"),))
    spikes = Events(np.array([3.0]), np.zeros(1, np.int64), ("u",))
    none = Events(np.zeros(0), np.zeros(0, np.int64), ())
    check_clocks({"neural": neural, "behavior": track, "spikes": spikes, "none": none})
    check_clocks({})
    assert span(none) is None
    with pytest.raises(RecordingError, match="behavior: at 10 s: runs from 10 to 12 s, but neural"):
        check_clocks({"behavior": late, "neural": neural})

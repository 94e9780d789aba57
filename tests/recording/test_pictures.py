"""Pictures of recordings: drawn for every combination of what a recording may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recording.channel_maps import positions
from recording.contract import Channel, Events, Modality, Piece, Recording, Samples, Series
from recording.health import ChannelHealth, examine
from recording.pictures import draw


def pieces() -> Recording:
    """Trials of three channels without positions, as pieces, one of them lost."""
    values = np.random.default_rng(0).normal(size=(900, 3))
    values[:, 2] = np.nan
    channels = tuple(Channel(name, "lfp") for name in "abc")
    cut = tuple(Piece(2.0 * k, 90 * k, 90 * k + 90) for k in range(10))
    trials = Events(
        np.arange(10) * 2.0, np.arange(10) % 2, ("left", "right"), durations=np.full(10, 0.9)
    )
    return Recording(
        "p", "test", "s", {"neural": Series(values, 100.0, channels, pieces=cut)}, trials=trials
    )


def spikes() -> Recording:
    generator = np.random.default_rng(1)
    units = Events(
        np.sort(generator.uniform(0, 50, 500)),
        generator.integers(0, 50, 500),
        tuple(f"u{i}" for i in range(50)),
    )
    times = np.linspace(0, 50, 700)
    path = np.stack([np.sin(times), np.cos(times), times], 1)
    channels = tuple(Channel(name, "behavior", "m") for name in ("head_x", "head_y", "speed"))
    modalities: dict[str, Modality] = {"spikes": units, "behavior": Samples(times, path, channels)}
    return Recording("s", "test", "s", modalities)


def single() -> Recording:
    """One constant channel of four samples."""
    return Recording(
        "one", "test", "s", {"neural": Series(np.ones((4, 1)), 1.0, (Channel("a", "bold"),))}
    )


def nothing() -> Recording:
    return Recording("nothing", "test", "s", {})


@pytest.mark.parametrize("make", [pieces, spikes, single, nothing])
def test_a_picture_is_drawn_and_repeats(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    recording = make()
    first = draw(recording, examine(recording), tmp_path / "one.png").read_bytes()
    again = make()
    assert draw(again, examine(again), tmp_path / "two.png").read_bytes() == first
    assert first.startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_head_is_seen_from_above() -> None:
    top, ear, nose = (0.0, 0.0, 0.09), (0.09, 0.0, 0.0), (0.0, 0.09, 0.0)
    channels = tuple(
        ChannelHealth(n, "eeg", "µV", position=p)
        for n, p in zip("ten", (top, ear, nose), strict=True)
    )
    places = positions(channels)
    assert places is not None
    np.testing.assert_allclose(places, [[0, 0], [90, 0], [0, 90]], atol=1e-9)


def test_positions_of_a_few_channels_are_no_map() -> None:
    known = ChannelHealth("a", "lfp", "µV", position=(0.0, 0.0, 0.0))
    unknown = ChannelHealth("b", "lfp", "µV")
    assert positions((known, unknown, unknown)) is None
    assert positions((known, known, known)) is None

"""What a recording is made of, and what cannot be one."""

from __future__ import annotations

import numpy as np
import pytest

from recording.contract import Channel, Events, Piece, Recording, Samples, Series
from recording.errors import RecordingError

CHANNELS = (Channel("C3", "eeg", "µV"), Channel("C4", "eeg", "µV"))


def series(samples=10, **changes):
    settings = {"values": np.zeros((samples, 2)), "rate": 10.0, "channels": CHANNELS, **changes}
    return Series(**settings)


def test_a_series_is_one_piece_from_zero_where_nothing_is_said():
    found = series()
    assert found.pieces == (Piece(0.0, 0, 10),)
    assert (found.names, found.duration, found.span) == (("C3", "C4"), 1.0, (0.0, 1.0))
    np.testing.assert_allclose(found.times(8), [0.8, 0.9])


def test_times_of_pieces_with_a_gap():
    found = series(pieces=(Piece(0.5, 0, 4), Piece(7.0, 4, 10)))
    np.testing.assert_allclose(found.times(), [0.5, 0.6, 0.7, 0.8, *np.arange(7.0, 7.55, 0.1)])
    np.testing.assert_allclose(found.times(3, 5), [0.8, 7.0])
    assert found.span == (0.5, 7.6)
    assert found.duration == 1.0
    assert found.with_values(np.ones((10, 2))).pieces == found.pieces


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rate": 0.0}, r"rate is 0\.0 Hz; must be above 0"),
        ({"rate": float("inf")}, "rate is inf"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"values": np.zeros(10)}, r"shape \(10,\); must be \(time, channel\)"),
        ({"values": np.zeros((0, 2))}, "none of them 0"),
        ({"channels": CHANNELS[:1]}, "1 channel names for 2 channels"),
        ({"channels": (CHANNELS[0], CHANNELS[0])}, "two channels are called 'C3'"),
        ({"features": ("a", "b")}, "features"),
        ({"pieces": (Piece(0, 0, 4),)}, "pieces end at sample 4 of 10"),
        ({"pieces": (Piece(0, 0, 4), Piece(1, 5, 10))}, "sample 4 has none"),
        ({"pieces": (Piece(0, 0, 0), Piece(1, 0, 10))}, "sample 0 has none"),
    ],
)
def test_what_is_no_series(changes, text):
    with pytest.raises(RecordingError, match=text):
        series(**changes)


def test_a_channel_type_is_one_of_a_few():
    with pytest.raises(RecordingError, match=r"Cz: channel type 'EEG' is not one of eeg, meg"):
        Channel("Cz", "EEG")


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ([0.0, 0.2, 0.1], r"at 0\.1 s: time 2 is 0\.1 s before the one in front of it"),
        ([0.0, 0.5, 0.5], r"at 0\.5 s: times 1 and 2 are the same"),
        ([0.0, np.nan, 0.5], "time 1 is nan; must be finite"),
    ],
)
def test_times_of_samples_rise(times, text):
    with pytest.raises(RecordingError, match=text):
        Samples(np.array(times), np.zeros((3, 1)), CHANNELS[:1])


def test_samples_have_one_row_per_time():
    with pytest.raises(RecordingError, match=r"values \(3, 2\) for 3 times and 1 channels"):
        Samples(np.arange(3.0), np.zeros((3, 2)), CHANNELS[:1])


def test_events_may_share_a_time_and_know_their_ends():
    found = Events(
        np.array([1.0, 1.0, 2.0]), np.array([1, 0, 1]), ("a", "b"), np.array([0, 1, 2.0])
    )
    assert found.counts == {"a": 1, "b": 2}
    assert (len(found), found.stops.tolist()) == (3, [1.0, 2.0, 4.0])
    assert Events(np.zeros(2), np.zeros(2, int), ("a",)).stops.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"kinds": np.zeros(2, int)}, "2 kinds for 3 times"),
        ({"kinds": np.array([0, 1, 2])}, r"a kind is outside 0 … 1"),
        ({"kinds": np.array([0, -1, 0])}, r"a kind is outside"),
        ({"times": np.array([1.0, 0.0, 2.0])}, "must not go back"),
        ({"durations": np.array([0.0, -1.0, 0.0])}, "durations"),
        ({"durations": np.zeros(2)}, "durations"),
    ],
)
def test_what_are_no_events(settings, text):
    whole = {"times": np.arange(3.0), "kinds": np.zeros(3, int), "names": ("a", "b"), **settings}
    with pytest.raises(RecordingError, match=text):
        Events(**whole)


def test_a_recording_keeps_the_order_of_its_modalities():
    one = Recording("x", "test", "x", {"neural": series(), "behavior": series()})
    assert list(one.with_modality("neural", series(5)).modalities) == ["neural", "behavior"]
    assert list(one.with_modality("neural", None).modalities) == ["behavior"]
    assert list(one.with_modality("bands", series()).modalities)[-1] == "bands"
    assert len(one.neural.values) == 10


def test_no_neural_series_says_what_there_is():
    spikes = Events(np.zeros(1), np.zeros(1, int), ("unit 0",))
    with pytest.raises(
        RecordingError, match=r"x: no neural series; there is spikes; bin the spikes"
    ):
        _ = Recording("x", "test", "x", {"spikes": spikes}).neural
    with pytest.raises(RecordingError, match="there is nothing"):
        _ = Recording("x", "test", "x", {}).neural


def test_an_error_names_file_stream_and_time_and_keeps_what_it_knows():
    error = RecordingError("is wrong", at=1.5).within(file="a.edf", stream="C3")
    assert str(error) == "a.edf: C3: at 1.5 s: is wrong"
    assert str(error.within(file="b", stream="C4")) == str(error)
    assert isinstance(error, ValueError)

"""Filters, resampling and band power: against scipy, causal, block by block, piece by piece."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparation_cases import in_blocks, neural, noise, of, run, series
from scipy.signal import butter, firwin, iirnotch, resample_poly, sosfilt, sosfilt_zi, sosfiltfilt

from recording.errors import RecordingError
from recording.preparation import filters, parse_steps
from recording.preparation.resampling import CORNER, HALF_LENGTH, KAISER
from recording.preparation.spectra import band_power

EDGES = [4.0, 8.0, 20.0]
STREAMED = [
    {"step": "filter", "low": 1.0, "high": 30.0},
    {"step": "filter", "high": 10.0, "phase": "zero"},
    {"step": "notch", "frequency": 20.0, "harmonics": 2},
    {"step": "resample", "rate": 25.0},
    {"step": "resample", "rate": 40.0},
    {"step": "resample", "rate": 150.0, "phase": "zero"},
    {"step": "resample", "rate": 100 / 3, "phase": "zero"},
    {"step": "bands", "edges": EDGES, "smoothing": 0.07},
]


def tone(frequency: float, rate: float, seconds: float = 4.0) -> np.ndarray:
    times = np.arange(round(rate * seconds)) / rate
    return (100 + 10 * np.sin(2 * np.pi * frequency * times))[:, None].astype(np.float32)


@pytest.mark.parametrize("step", STREAMED, ids=str)
@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    cuts=st.sets(st.integers(30, 370), max_size=3),
)
def test_neither_blocks_nor_other_pieces_change_a_bit(step, sizes, cuts):
    values = noise(400)
    borders = [0, *sorted(c for c in cuts if all(abs(c - d) > 29 or c == d for d in cuts)), 400]
    pieces = [(i * 10.0, a, b) for i, (a, b) in enumerate(pairwise(borders))]
    whole = neural(of(series(values, pieces=pieces)), step)
    blocked = neural(of(series(in_blocks(values, sizes), pieces=pieces)), step)
    alone = [neural(of(series(values[a:b])), step) for _, a, b in pieces]
    assert whole.tobytes() == blocked.tobytes() == np.concatenate(alone).tobytes()


def test_causal_filters_are_those_of_scipy_settled_on_the_first_sample():
    values = noise(500)
    sections = butter(3, (2, 30), btype="bandpass", fs=100, output="sos")
    start = sosfilt_zi(sections)[:, :, None] * values[0].astype(float)
    wanted, _ = sosfilt(sections, values.astype(float), axis=0, zi=start)
    found = neural(of(series(values)), {"step": "filter", "low": 2, "high": 30, "order": 3})
    np.testing.assert_array_equal(found, wanted.astype(np.float32))
    constant = np.full((50, 1), 4200, np.float32)
    high = neural(of(series(constant)), {"step": "filter", "low": 1})
    low = neural(of(series(constant)), {"step": "filter", "high": 1})
    np.testing.assert_allclose(high, 0, atol=1e-6)
    np.testing.assert_allclose(low, 4200, rtol=1e-6)


def test_zero_phase_filters_are_those_of_scipy_and_do_not_delay():
    values = noise(500)
    sections = butter(4, 10, btype="lowpass", fs=100, output="sos")
    wanted = sosfiltfilt(sections, values.astype(float), axis=0).astype(np.float32)
    step = {"step": "filter", "high": 10, "phase": "zero"}
    np.testing.assert_array_equal(neural(of(series(values)), step), wanted)
    slow = tone(2, 100)
    np.testing.assert_allclose(neural(of(series(slow)), step)[50:-50], slow[50:-50], atol=0.05)


def test_a_low_pass_comes_as_late_as_its_docstring_says():
    slow = tone(0.5, 1000, 8)[:, 0]
    late = neural(of(series(slow[:, None], 1000.0)), {"step": "filter", "high": 20})[:, 0]
    delays = np.arange(40)
    errors = [np.abs(late[3000:7000] - slow[3000 - d : 7000 - d]).max() for d in delays]
    assert delays[np.argmin(errors)] / 1000 == pytest.approx(4 / (10 * 20), rel=0.1)


def test_a_notch_takes_the_line_and_its_harmonic_and_leaves_the_rest():
    step = {"step": "notch", "frequency": 50, "width": 4, "harmonics": 2}
    for frequency, left in ((50, 0.02), (100, 0.02), (20, 1), (75, 1)):
        after = neural(of(series(tone(frequency, 500, 6), 500.0)), step)[1500:]
        assert np.ptp(after) / 20 == pytest.approx(left, abs=0.03), frequency
    b, a = iirnotch(50, 12.5, fs=500)
    (one, _) = parse_steps([step])[0].sections(500)
    np.testing.assert_array_equal(one, np.concatenate([b, a]))


@pytest.mark.parametrize("step", STREAMED, ids=str)
def test_causal_steps_see_no_later_sample(step):
    values = noise(400)
    before = neural(of(series(values)), step)
    changed = values.copy()
    changed[200:] *= -1
    after = neural(of(series(changed)), step)
    rate = step.get("rate", 100.0)
    border = int(np.ceil(200 / 100 * rate - 1e-9))
    same = before[:border].tobytes() == after[:border].tobytes()
    assert same == (step.get("phase", "causal") == "causal")
    assert before[border:].tobytes() != after[border:].tobytes()


@pytest.mark.parametrize("step", STREAMED, ids=str)
@pytest.mark.parametrize(
    ("value", "text", "remedy"),
    [(np.nan, r"missing \(NaN\)", "split_missing"), (np.inf, "infinite", "clip")],
)
def test_a_value_that_would_spread_is_named(step, value, text, remedy):
    values = noise(400)
    values[250, 1] = value
    values[260, 0] = np.nan
    pieces = [(0.0, 0, 200), (10.0, 200, 400)]
    with pytest.raises(RecordingError, match=text) as caught:
        neural(of(series(values, pieces=pieces)), step)
    assert (caught.value.file, caught.value.stream, caught.value.at) == ("file.edf", "c1", 10.5)
    assert f"put {remedy} in front of {step['step']}" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"step": "filter", "high": 50}, "high: 50 Hz must be below 50 Hz, half the rate of 100"),
        ({"step": "filter", "low": 80}, "low: 80 Hz must be below 50 Hz"),
        ({"step": "notch", "harmonics": 2, "frequency": 25}, "harmonic 2: 50 Hz must be below 50"),
        ({"step": "bands", "edges": [4, 60]}, r"\[4.0, 60.0\] must lie between 0 and 50 Hz"),
        ({"step": "bands", "edges": [8, 4]}, "must rise"),
        ({"step": "bands", "edges": [4, 8], "smoothing": 200}, "20000 samples, more than 10000"),
        ({"step": "resample", "rate": 100.002}, "no ratio .* the nearest is 100.0 Hz"),
        ({"step": "resample", "rate": 1e-3}, "more than 10000 times away"),
    ],
)
def test_what_does_not_go_with_the_rate_is_refused_at_once(step, text):
    with pytest.raises(RecordingError, match=text):
        run(of(series(noise(100))), step)


def test_zero_phase_needs_pieces_long_enough_and_small_enough(monkeypatch):
    step = {"step": "filter", "high": 10, "phase": "zero"}
    recording = of(series(noise(120), pieces=[(0.0, 0, 100), (7.0, 100, 120)]))
    assert len(neural(recording, step)) == 120
    short = of(series(noise(115), pieces=[(0.0, 0, 100), (7.0, 100, 115)]))
    with pytest.raises(RecordingError, match=r"15 samples is too short .* needs 16") as caught:
        run(short, step)
    assert caught.value.at == 7.0
    monkeypatch.setattr(filters, "ZERO_PHASE_BYTES", 799)
    with pytest.raises(RecordingError, match="100 samples × 2 channels does not fit"):
        run(recording, step)


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("kind", ["low", "high", "both"])
def test_the_shortest_piece_is_that_of_scipy(order, kind):
    corners = {"low": {"low": 5}, "high": {"high": 5}, "both": {"low": 5, "high": 20}}[kind]
    (step,) = parse_steps([{"step": "filter", "order": order, "phase": "zero", **corners}])
    sections = step.sections(100)
    padding = filters._padding(sections)
    sosfiltfilt(sections, np.arange(padding + 1.0))
    with pytest.raises(ValueError, match="padlen"):
        sosfiltfilt(sections, np.arange(float(padding)))


@pytest.mark.parametrize("phase", ["causal", "zero"])
@pytest.mark.parametrize("rate", [125.0, 50.0, 200.0, 333.0, 1000.0, 4.0])
def test_tones_survive_and_what_the_new_rate_cannot_hold_does_not(rate, phase):
    step = {"step": "resample", "rate": rate, "phase": phase}
    lower = min(rate, 500.0) / 2
    seconds = 400 / lower
    for part in (0.05, 0.5, 0.8):
        kept = neural(of(series(tone(part * lower, 500, seconds), 500.0)), step)[:, 0] - 100
        middle = kept[len(kept) // 4 : -len(kept) // 4].astype(float)
        assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(10, rel=0.01), part
    if rate < 500:
        for part in (1.001, 1.1, 1.7):
            if part * lower < 250:
                gone = neural(of(series(tone(part * lower, 500, seconds), 500.0)), step) - 100
                assert np.abs(gone[len(gone) // 4 : -len(gone) // 4]).max() < 0.1, part


@pytest.mark.parametrize(("rate", "up", "down"), [(40.0, 2, 5), (25.0, 1, 4), (150.0, 3, 2)])
def test_zero_phase_resampling_is_that_of_scipy_inside(rate, up, down):
    values = noise(1000) - np.float32(300)
    large = max(up, down)
    taps = firwin(2 * HALF_LENGTH * large + 1, CORNER / large, window=("kaiser", KAISER))
    wanted = resample_poly(values.astype(float), up, down, axis=0, window=taps)
    found = neural(of(series(values)), {"step": "resample", "rate": rate, "phase": "zero"})
    edge = round(HALF_LENGTH * large / down) + 1
    np.testing.assert_allclose(found[edge:-edge], wanted[edge : len(found) - edge], atol=0.02)


@pytest.mark.parametrize("rate", [25.0, 40.0, 12.5, 130.0, 250.0])
def test_resampling_comes_as_late_as_it_says(rate):
    old, step = 100.0, {"step": "resample", "rate": rate}
    delay = parse_steps([step])[0].delay(old)
    slow = tone(0.3, old, 20)
    late = neural(of(series(slow, old)), step)[:, 0]
    times = np.arange(len(late)) / rate
    wanted = 100 + 10 * np.sin(2 * np.pi * 0.3 * (times - delay))
    inside = slice(len(late) // 4, None)
    np.testing.assert_allclose(late[inside], wanted[inside], atol=0.05)
    assert 0 < delay < 21 / min(rate, old)
    assert parse_steps([{**step, "phase": "zero"}])[0].delay(old) == 0


def test_pieces_keep_their_start_and_their_length_is_rounded_down():
    pieces = [(1.0, 0, 101), (50.5, 101, 102), (60.0, 102, 400)]
    for rate, lengths in ((50.0, (51, 1, 149)), (40.0, (41, 1, 119)), (200.0, (201, 1, 595))):
        after = run(of(series(noise(400), pieces=pieces)), {"step": "resample", "rate": rate})
        assert [p.start for p in after.neural.pieces] == [1.0, 50.5, 60.0]
        assert tuple(map(len, after.neural.pieces)) == lengths
        assert after.neural.rate == rate
        assert len(neural(after)) == sum(lengths)
    same = of(series(noise(400)))
    assert run(same, {"step": "resample", "rate": 100}) is same


@pytest.mark.parametrize("phase", ["causal", "zero"])
@pytest.mark.parametrize("rate", [25.0, 40.0, 300.0])
def test_a_constant_stays_one(rate, phase):
    constant = np.full((60, 1), 4200.5, np.float32)
    after = neural(of(series(constant)), {"step": "resample", "rate": rate, "phase": phase})
    np.testing.assert_allclose(after, 4200.5, rtol=1e-6)


def test_rates_that_are_almost_a_ratio_keep_their_clock():
    before = of(series(noise(300), 99.999999))
    after = run(before, {"step": "resample", "rate": 50}).neural
    assert after.rate == 99.999999 / 2


def test_band_features_are_those_of_band_power_with_the_potential_first():
    values = noise(300, 3)
    step = {"step": "bands", "edges": EDGES, "smoothing": 0.07, "order": 3, "floor": 0.5}
    after = run(of(series(values)), step).neural
    power = band_power(values, rate=100, edges=EDGES, smoothing=0.07, order=3, floor=0.5)
    found = neural(of(after))
    assert after.features == ("value", "4-8 Hz", "8-20 Hz")
    np.testing.assert_array_equal(found[:, :, 0], values)
    assert found[:, :, 1:].tobytes() == power.tobytes()
    alone = run(of(series(values)), {**step, "potential": False}).neural
    assert alone.features == ("4-8 Hz", "8-20 Hz")
    assert neural(of(alone)).tobytes() == power.tobytes()


@pytest.mark.parametrize("phase", ["causal", "zero"])
@pytest.mark.parametrize("rate", [25.0, 40.0])
def test_every_feature_is_resampled_like_a_channel(rate, phase):
    down = {"step": "resample", "rate": rate, "phase": phase}
    bands = {"step": "bands", "edges": EDGES, "smoothing": 0.07}
    before = neural(of(series(noise(300))), bands)
    after = run(of(series(noise(300))), bands, down).neural
    assert after.features == ("value", "4-8 Hz", "8-20 Hz")
    found = neural(of(after))
    for feature in range(3):
        alone = neural(of(series(before[:, :, feature].copy())), down)
        np.testing.assert_array_equal(found[:, :, feature], alone)


def test_in_silence_the_state_of_a_filter_ends_at_nothing(monkeypatch):
    values = np.concatenate([noise(500), np.zeros((3000, noise(1).shape[1]), np.float32)])
    wanted = neural(of(series(values)), {"step": "filter", "high": 10})
    monkeypatch.setattr(filters, "FLUSHED", 64)
    found = neural(of(series(values)), {"step": "filter", "high": 10})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-40)
    run_through = filters.CausalFilter(butter(4, 10, fs=100, output="sos"))
    for part in filters.finite_parts(series(values), "filter", "x"):
        run_through(part)
    assert (run_through._state == 0).all()

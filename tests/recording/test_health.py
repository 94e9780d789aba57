"""The health check on made-up recordings: each check finds what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from recording.contract import Channel, Events, Finding, Piece, Recording, Samples, Series
from recording.health import Health, examine

RATE = 200.0


def smooth_noise(samples: int = 6000, channels: int = 8, seed: int = 0) -> np.ndarray:
    """Channels (time, channel) that share a slow part, std about 30."""
    generator = np.random.default_rng(seed)
    from scipy.signal import lfilter

    own = lfilter([1], [1, -0.9], generator.normal(size=(samples, channels)), axis=0)
    shared = lfilter([1], [1, -0.9], generator.normal(size=(samples, 1)), axis=0)
    return np.asarray(10 * (shared + 0.8 * own))


def recorded(
    values: np.ndarray, *, unit: str = "µV", kind: str = "eeg", **more: object
) -> Recording:
    channels = tuple(Channel(f"c{i}", kind, unit) for i in range(values.shape[1]))
    series = Series(values, RATE, channels, **more)  # type: ignore[arg-type]
    return Recording("made.up", "test", "one", {"neural": series})


def found(health: Health, kind: str) -> list[Finding]:
    return [finding for finding in health.findings if finding.kind == kind]


def the(health: Health, kind: str) -> Finding:
    (finding,) = found(health, kind)
    return finding


def test_a_clean_recording_has_no_finding() -> None:
    for seed in range(4):
        assert examine(recorded(smooth_noise(seed=seed))).findings == ()


def test_figures_are_those_of_numpy() -> None:
    values = smooth_noise(3000, 3)
    stream = examine(recorded(values)).stream("neural")
    assert stream is not None
    for index, channel in enumerate(stream.channels):
        column = values[:, index]
        assert channel.minimum == column.min()
        assert channel.maximum == column.max()
        assert channel.mean == pytest.approx(column.mean())
        assert channel.std == pytest.approx(column.std())
    assert stream.rate == RATE
    assert stream.shape == (3000, 3)
    assert stream.duration == 15.0


def test_flat_channels_are_grouped_and_dropped() -> None:
    values = smooth_noise()
    values[:, [2, 5]] = 3.0
    finding = the(examine(recorded(values)), "flat")
    assert finding.channels == ("c2", "c5")
    assert finding.steps == ({"step": "drop", "names": ["c2", "c5"]},)


def test_a_bad_contact_is_noisy() -> None:
    values = smooth_noise()
    values[:, 3] = np.random.default_rng(9).normal(size=len(values)) * 4
    finding = the(examine(recorded(values)), "noisy")
    assert finding.channels == ("c3",)
    assert finding.steps == ({"step": "drop", "names": ["c3"]},)


def test_a_name_with_brackets_is_dropped_as_it_is_written() -> None:
    from fnmatch import fnmatchcase

    from recording.stream_health import patterns

    for name in ("a[0]", "x*", "q?", "plain"):
        assert fnmatchcase(name, patterns([name])[0])
    assert not fnmatchcase("xy", patterns(["x*"])[0])


def test_clipping_is_seen() -> None:
    values = smooth_noise()
    values[:, 1] = np.clip(values[:, 1], -40, 40)
    finding = the(examine(recorded(values)), "clipped")
    assert finding.channels == ("c1",)
    assert "%" in finding.text


def test_missing_runs_have_times_and_a_step() -> None:
    values = smooth_noise()
    values[1000:1100, 2] = np.nan
    values[3000:3010] = np.nan
    finding = the(examine(recorded(values)), "missing")
    assert finding.times == (5.0, 15.0)
    assert finding.steps == ({"step": "split_missing"},)
    assert "110 samples" in finding.text


def test_artefacts_get_a_clip_from_the_data() -> None:
    values = smooth_noise()
    values[[500, 4000]] = 5e5
    finding = the(examine(recorded(values)), "artefact")
    (step,) = finding.steps
    assert step["step"] == "clip"
    assert 60 <= step["by"] <= 300
    assert finding.times == (2.5, 20.0)


@pytest.mark.parametrize(("unit", "factor"), [("V", 1.0), ("mV", 1.0), ("µV", 1e-6)])
def test_an_implausible_scale_gets_a_factor(unit: str, factor: float) -> None:
    scale = {"V": 1.0, "mV": 1.0, "µV": 1e6}[unit]
    finding = the(examine(recorded(smooth_noise() * scale, unit=unit)), "scale")
    assert finding.steps[0]["factor"] == pytest.approx(factor)
    assert finding.steps[0]["unit"] == "µV"


def test_what_a_reader_says_is_not_said_again() -> None:
    said = Finding("scale", "the header is wrong", "declare it", stream="neural")
    recording = recorded(smooth_noise() * 1e6)
    recording = Recording("a", "b", "c", recording.modalities, findings=(said,))
    assert found(examine(recording), "scale") == [said]


def test_plausible_volts_are_fine() -> None:
    assert not found(examine(recorded(smooth_noise() * 1e-6, unit="V")), "scale")


def test_a_missing_unit_is_a_note() -> None:
    finding = the(examine(recorded(smooth_noise(), unit="")), "unit")
    assert finding.level == "note"
    assert finding.steps == ({"step": "declare", "unit": "µV"},)


def test_mains_and_notches_are_told_apart() -> None:
    values = smooth_noise(12000)
    time = np.arange(len(values)) / RATE
    peak = values + 20 * np.sin(2 * np.pi * 50 * time)[:, None]
    finding = the(examine(recorded(peak)), "line")
    assert finding.steps == ({"step": "notch", "frequency": 50.0},)

    from scipy.signal import butter, sosfiltfilt

    notched = sosfiltfilt(butter(3, [57, 63], "bandstop", fs=RATE, output="sos"), values, axis=0)
    finding = the(examine(recorded(notched)), "line")
    assert "notch filter was applied at 60 Hz" in finding.text
    assert finding.steps == ()


def test_the_same_signal_twice_is_a_duplicate_channel() -> None:
    values = smooth_noise()
    values[:, 6] = values[:, 2]
    finding = the(examine(recorded(values)), "duplicate")
    assert finding.channels == ("c6",)


def test_repeated_stretches_are_found_wherever_they_are() -> None:
    values = smooth_noise()
    values[4000:4020] = values[100:120]
    finding = the(examine(recorded(values)), "duplicate")
    assert "20 samples occur twice" in finding.text
    assert finding.times == (20.0,)


def test_seven_equal_samples_are_chance_and_eight_are_not() -> None:
    from recording.repeats import find_repeats

    row = np.arange(100, dtype=np.uint64)
    for length, expected in ((7, []), (8, [(10, 60, 8)])):
        again = row.copy()
        again[60 : 60 + length] = again[10 : 10 + length]
        repeats = find_repeats([(0, again)], 8)
        assert [(r.first, r.second, r.length) for r in repeats] == expected


def test_a_held_stretch_is_flat_and_no_repeat() -> None:
    values = smooth_noise()
    values[2000:2300] = values[2000]
    health = examine(recorded(values))
    assert the(health, "flat").times == (10.0,)
    assert not found(health, "duplicate")


def test_one_sample_and_no_value_are_examined() -> None:
    assert found(examine(recorded(np.ones((1, 2)))), "flat")
    assert found(examine(recorded(np.full((50, 2), np.nan))), "missing")


def test_gaps_between_pieces_are_told() -> None:
    pieces = (Piece(0.0, 0, 3000), Piece(20.0, 3000, 6000))
    finding = the(examine(recorded(smooth_noise(), pieces=pieces)), "gap")
    assert "5 s" in finding.text
    assert finding.times == (15.0,)
    joined = (Piece(0.0, 0, 3000), Piece(15.0, 3000, 6000))
    assert not found(examine(recorded(smooth_noise(), pieces=joined)), "gap")


@pytest.mark.parametrize(("first", "length"), [(77, 150), (200, 200), (13, 611)])
def test_joined_segments_are_found_to_the_sample(first: int, length: int) -> None:
    long = smooth_noise(60_000, seed=first)
    starts = [0, *range(first, 9000, length)]
    ends = [*starts[1:], 9000]
    order = np.random.default_rng(1).permutation(len(starts))
    parts = [
        long[6000 * (k % 9) + a % 5 :][: b - a] for k, a, b in zip(order, starts, ends, strict=True)
    ]
    finding = the(examine(recorded(np.concatenate(parts))), "joined")
    assert finding.steps == ({"step": "segment", "first": first, "length": length},)


def test_what_comes_regularly_in_some_channels_is_no_join() -> None:
    values = smooth_noise()
    for start in range(300, len(values), 400):
        values[start:, :2] += 400.0
        values[start + 200 :, :2] -= 400.0
    assert found(examine(recorded(values)), "joined") == []


def test_segments_that_are_pieces_already_are_not_joined_again() -> None:
    long = smooth_noise(60_000)
    parts = [long[1200 * k : 1200 * k + 150] for k in range(40)]
    pieces = tuple(Piece(150 * k / RATE, 150 * k, 150 * (k + 1)) for k in range(40))
    health = examine(recorded(np.concatenate(parts), pieces=pieces))
    assert health.findings == ()


def test_regular_artefacts_are_no_borders() -> None:
    values = smooth_noise(9000)
    values[100::300] += 200.0
    assert not found(examine(recorded(values)), "joined")


def test_single_jumps_are_discontinuities() -> None:
    values = smooth_noise()
    values[1234:] += np.random.default_rng(2).choice([-1, 1], 8) * 3000.0
    finding = the(examine(recorded(values)), "discontinuity")
    assert finding.steps == ({"step": "segment", "starts": [0, 1234]},)


def behaving(x: np.ndarray, y: np.ndarray) -> Recording:
    times = np.arange(len(x)) / 30
    channels = (Channel("x", "behavior", "px"), Channel("y", "behavior", "px"))
    return Recording(
        "made.up", "test", "one", {"behavior": Samples(times, np.stack([x, y], 1), channels)}
    )


def test_lost_positions_are_masked() -> None:
    phase = np.linspace(0, 20, 1500)
    x, y = 300 + 200 * np.sin(phase), 250 + 100 * np.cos(phase)
    assert examine(behaving(x, y)).findings == ()
    x[300:330], y[300:330] = 0, 0
    x[900:904], y[900:904] = 0, 0
    finding = the(examine(behaving(x, y)), "lost")
    assert finding.steps == ({"step": "mask", "channels": ["x", "y"], "value": 0},)
    assert finding.times == (10.0, 30.0)
    assert "34 samples" in finding.text


def test_a_path_through_the_origin_is_not_lost() -> None:
    way = np.concatenate([np.linspace(100, 0, 500), np.zeros(30), np.linspace(0, 100, 500)])
    assert not found(examine(behaving(way, way / 2)), "lost")


def test_gaps_of_irregular_samples_are_told() -> None:
    times = np.delete(np.arange(1000) / 30, np.s_[400:500])
    channel = (Channel("speed", "behavior", "m/s"),)
    samples = Samples(times, np.sin(times)[:, None], channel)
    finding = the(examine(Recording("a", "b", "c", {"behavior": samples})), "gap")
    assert finding.times == (pytest.approx(399 / 30),)


def events(times: list[float], names: tuple[str, ...], kinds: list[int]) -> Events:
    return Events(np.array(times), np.array(kinds, np.int64), names)


def test_clocks_that_disagree_are_told() -> None:
    neural = recorded(smooth_noise()).modalities["neural"]
    late = Events(np.array([1000.0, 1010.0]), np.zeros(2, np.int64), ("u",), span=(1000, 1030))
    finding = the(examine(Recording("a", "b", "c", {"neural": neural, "spikes": late})), "clock")
    assert "1000" in finding.text
    inside = Events(np.array([1.0, 10.0]), np.zeros(2, np.int64), ("u",), span=(0, 29))
    health = examine(Recording("a", "b", "c", {"neural": neural, "spikes": inside}))
    assert not found(health, "clock")


def test_events_are_counted_and_rare_classes_told() -> None:
    neural = recorded(smooth_noise()).modalities
    trials = events([float(i) for i in range(20)], ("left", "right"), [0] * 19 + [1])
    health = examine(Recording("a", "b", "c", neural, trials=trials))
    assert "'right' 1" in the(health, "balance").text
    stream = health.stream("trials")
    assert stream is not None
    assert stream.counts == {"left": 19, "right": 1}
    assert stream.intervals is not None
    assert stream.intervals.median == 1.0
    even = events([float(i) for i in range(20)], ("left", "right"), [0, 1] * 10)
    assert not found(examine(Recording("a", "b", "c", neural, trials=even)), "balance")


def test_events_twice_at_one_moment_are_told() -> None:
    neural = recorded(smooth_noise()).modalities
    markers = events([1.0, 1.0, 2.0], ("a", "b"), [0, 0, 1])
    finding = the(examine(Recording("a", "b", "c", neural, markers=markers)), "duplicate")
    assert finding.times == (1.0,)
    both = events([1.0, 1.0, 20.0], ("a", "b"), [0, 1, 1])
    assert examine(Recording("a", "b", "c", neural, markers=both)).findings == ()


def test_a_long_recording_is_read_in_part_unless_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from recording import series_sample

    values = smooth_noise(40_000, 4)
    monkeypatch.setattr(series_sample, "PILOT_BYTES", 2**17)
    monkeypatch.setattr(series_sample.parts, "__kwdefaults__", {"full": False, "limit": 2**18})
    told: list[tuple[int, int]] = []
    stream = examine(recorded(values), progress=lambda *now: told.append(now)).stream("neural")
    assert stream is not None
    assert 0.1 < stream.examined < 0.3
    assert told[-1][0] == told[-1][1] < 10_000
    whole = examine(recorded(values), full=True).stream("neural")
    assert whole is not None
    assert whole.examined == 1.0


def test_block_size_changes_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from recording import series_sample

    values = smooth_noise()
    values[1990:2300] = values[1990]
    values[1000:1100, 2] = np.nan
    values[500] = 5e5
    at_once = examine(recorded(values))
    monkeypatch.setattr(series_sample, "BLOCK_BYTES", 4000)
    assert examine(recorded(values)).findings == at_once.findings


def test_a_code_among_the_channels_is_neither_clipped_nor_a_border() -> None:
    values = smooth_noise()
    values[:, 7] = np.repeat(np.arange(30) % 2, 200)
    finding = the(examine(recorded(values)), "code")
    assert examine(recorded(values)).findings == (finding,)
    assert finding.steps == ({"step": "behavior", "channels": ["c7"]},)


def test_a_channel_that_is_another_one_later_is_a_duplicate() -> None:
    values = smooth_noise()
    values[6:, 4] = values[:-6, 1]
    finding = the(examine(recorded(values)), "duplicate")
    assert finding.channels == ("c4",)
    assert "c4 has what c1 has, 6 samples later" in finding.text


def test_channels_of_no_known_type_are_examined_too() -> None:
    values = smooth_noise()
    values[:, 3] = np.random.default_rng(9).normal(size=len(values)) * 4
    assert the(examine(recorded(values, kind="other")), "noisy").channels == ("c3",)

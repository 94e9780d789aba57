"""The health check on the shared recordings: it finds what their cards say, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recording.contract import Channel, Finding, Recording, Samples, Series
from recording.health import examine


def neural(values: np.ndarray, rate: float, kind: str = "eeg", unit: str = "") -> Recording:
    channels = tuple(Channel(str(i), kind, unit) for i in range(values.shape[1]))
    return Recording("a", "b", "c", {"neural": Series(values, rate, channels)})


def kinds(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


@pytest.fixture(scope="module")
def segments(shared_data: Path) -> np.ndarray:
    raw = np.fromfile(shared_data / "eeg_eeglab" / "eeglab_data.fdt", "<f4")
    return raw.reshape((32, -1), order="F").T


def test_the_eighty_joined_segments_are_found_exactly(segments: np.ndarray) -> None:
    found = kinds(examine(neural(segments, 128.0)).findings)
    assert "80 segments" in found["joined"].text
    assert found["joined"].steps == ({"step": "segment", "first": 89, "length": 385},)
    assert "1356 samples occur twice, in 11 pairs" in found["duplicate"].text
    assert "14 to 266 samples" in found["duplicate"].text
    assert set(found) == {"joined", "duplicate", "unit", "line"}


@pytest.mark.parametrize("part", [slice(0, 8000), slice(20_000, 30_504)])
def test_a_part_of_them_is_enough(segments: np.ndarray, part: slice) -> None:
    found = kinds(examine(neural(segments[part], 128.0)).findings)
    first = (89 - part.start) % 385
    assert found["joined"].steps == ({"step": "segment", "first": first, "length": 385},)


def test_one_segment_is_not_joined(segments: np.ndarray) -> None:
    assert "joined" not in kinds(examine(neural(segments[474:859], 128.0)).findings)


def test_the_bad_contact_is_found_and_nothing_else(shared_data: Path) -> None:
    data = np.load(shared_data / "uecog_goose" / "goose_uecog_250hz.npz")["data"]
    found = kinds(examine(neural(data, 250.0, "ecog")).findings)
    assert set(found) == {"noisy", "unit"}
    assert found["noisy"].channels == ("28",)
    assert "std 15.5" in found["noisy"].text
    assert found["noisy"].steps == ({"step": "drop", "names": ["28"]},)


def test_the_artefacts_of_the_headset_are_found_and_nothing_else(shared_data: Path) -> None:
    path = shared_data / "eeg_eyestate" / "eeg-eye-state.csv"
    values = np.loadtxt(path, delimiter=",", skiprows=1)[:, :14]
    found = kinds(examine(neural(values, 128.0)).findings)
    assert set(found) == {"artefact", "unit"}
    assert found["artefact"].steps == ({"step": "clip", "around": "median", "by": 150.0},)
    assert found["artefact"].times == tuple(row / 128 for row in (898, 10386, 11509, 13179))


def test_the_scale_of_the_grip_force_header_is_doubted(shared_data: Path) -> None:
    (path,) = (shared_data / "gripforce").rglob("*.eeg")
    values = np.fromfile(path, "<f4").reshape(-1, 10)[:, :9] * 0.1
    found = kinds(examine(neural(values, 1000.0, "ecog", "µV")).findings)
    assert set(found) == {"scale", "line"}
    assert found["scale"].steps[0]["factor"] == 1e-6
    assert "notch filter was applied at 60 Hz" in found["line"].text


def test_the_positions_of_the_track_are_not_lost(shared_data: Path) -> None:
    data = np.load(shared_data / "hippocampus_linear_track" / "linear_track.npz")
    times = data["pos_t"]
    rising = np.concatenate([[True], np.diff(times) > 0])
    channels = (Channel("x", "behavior", "px"), Channel("y", "behavior", "px"))
    samples = Samples(times[rising], data["pos_xy_px"][rising].astype(float), channels)
    assert examine(Recording("a", "b", "c", {"behavior": samples})).findings == ()


@pytest.mark.parametrize(
    ("name", "channels", "pair"),
    [
        ("FingerMovements_TRAIN", 28, "F1 has what F3 has, 28 samples earlier"),
        ("SelfRegulationSCP1_TRAIN", 6, "2 has what 1 has, 6 samples earlier"),
    ],
)
def test_the_channels_of_the_archive_are_one_row_cut_wrongly(
    shared_data: Path, name: str, channels: int, pair: str
) -> None:
    from recording import open_recording

    recording = open_recording(shared_data / "eeg_uea" / f"{name}.ts")
    found = kinds(examine(recording).findings)
    warnings = {kind for kind, finding in found.items() if finding.level == "warning"}
    assert warnings == {"duplicate"}
    assert f"{channels - 1} of {channels} channels" in found["duplicate"].text
    assert pair in found["duplicate"].text
    assert f"cut every {channels} samples" in found["duplicate"].text

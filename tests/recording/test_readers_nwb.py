"""NWB files that pynwb writes, read back equal; damaged and hostile ones."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import BehavioralEvents, Position, SpatialSeries
from pynwb.ecephys import LFP, ElectricalSeries
from pynwb.event import EventsTable
from pynwb.file import Subject
from pynwb.misc import AnnotationSeries

from recording import RecordingError, Samples, Series, open_recording

RAW = np.random.default_rng(0).integers(-3000, 3000, (500, 4)).astype("i2")


def _session() -> NWBFile:
    file = NWBFile(
        session_description="a session",
        identifier="id-1",
        session_start_time=datetime(2024, 1, 1, tzinfo=UTC),
        session_id="day1",
        institution="here",
    )
    file.subject = Subject(subject_id="m1", species="Mus musculus", age="P9D")
    group = file.create_electrode_group(
        name="probe", description="d", location="CA1", device=file.create_device(name="device")
    )
    file.add_electrode_column("label", "name")
    for index in range(4):
        file.add_electrode(
            x=10.0 * index, y=1.0, z=2.0, group=group, location="CA1", label=f"c{index}"
        )
    return file


def _electric(file: NWBFile, name: str, data: np.ndarray, **clock: object) -> ElectricalSeries:
    region = file.create_electrode_table_region(list(range(data.shape[1])), "some")
    return ElectricalSeries(name=name, data=data, electrodes=region, **clock)


def _write(file: NWBFile, path: Path) -> Path:
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


@pytest.fixture
def whole(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "whole.nwb"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = _session()
    raw = _electric(file, "raw", RAW, rate=100.0, starting_time=1.0, conversion=2e-7, offset=1e-5)
    file.add_acquisition(raw)
    lfp = _electric(file, "lfp", np.zeros((50, 2), "f4"), timestamps=1 + np.arange(50) / 10)
    container = LFP()
    file.create_processing_module("ecephys", "d").add(container)
    container.add_electrical_series(lfp)
    behavior = file.create_processing_module("behavior", "d")
    place = SpatialSeries(
        name="place",
        data=np.arange(80.0).reshape(40, 2),
        reference_frame="corner",
        unit="cm",
        timestamps=1 + np.arange(40) / 10,
    )
    behavior.add(Position(spatial_series=place))
    behavior.add(TimeSeries(name="speed", data=np.arange(40.0), unit="cm/s", timestamps=place))
    licks = np.array([1.5, 1.9, 3.0])
    pupil = TimeSeries(name="pupil", data=np.array([1.0, 2, 4]), unit="px", timestamps=licks)
    behavior.add(pupil)
    events = TimeSeries(name="lick", data=np.ones(3), unit="n/a", timestamps=licks)
    with pytest.warns(UserWarning, match="deprecated"):
        behavior.add(BehavioralEvents(time_series=events))
    table = EventsTable(name="reward", description="d")
    table.add_row(timestamp=2.25)
    file.add_events_table(table)
    with pytest.warns(UserWarning, match="deprecated"):
        notes = AnnotationSeries(name="notes", data=["go", "stop"], timestamps=[2.0, 4.0])
    file.add_acquisition(notes)
    for times in ([2.0, 2.5], [], [1.5, 2.0]):
        file.add_unit(spike_times=np.array(times), obs_intervals=np.array([[1.0, 5.5]]))
    file.add_trial_column("kind", "what")
    file.add_trial(start_time=3.0, stop_time=4.0, kind="right")
    file.add_trial(start_time=1.0, stop_time=2.5, kind="left")
    return _write(file, tmp_path_factory.mktemp("nwb") / "whole.nwb").read_bytes()


def test_what_pynwb_writes_is_read_back_equal(whole: Path) -> None:
    recording = open_recording(whole, {"trial_class": "kind"})
    gc.collect()
    assert (recording.format, recording.session, recording.subject) == ("nwb", whole.stem, "m1")
    assert recording.site == "here"
    neural = recording.neural
    assert neural.names == ("c0", "c1", "c2", "c3")
    assert neural.channels[2].position == pytest.approx((20e-6, 1e-6, 2e-6))
    assert {(one.type, one.unit) for one in neural.channels} == {("lfp", "µV")}
    assert (neural.rate, neural.span) == (100.0, (1.0, 6.0))
    np.testing.assert_allclose(neural.values[0:500], RAW * 0.2 + 10, rtol=1e-6)
    np.testing.assert_array_equal(neural.values[100:103], neural.values[0:500][100:103])
    lfp = recording.modalities["lfp"]
    assert isinstance(lfp, Series)
    assert (lfp.rate, lfp.values.shape) == (10.0, (50, 2))

    behavior = recording.modalities["behavior"]
    assert isinstance(behavior, Series)
    assert dict(zip(behavior.names, (c.unit for c in behavior.channels), strict=True)) == {
        "place_x": "m",
        "place_y": "m",
        "speed": "cm/s",
    }
    by_name = dict(zip(behavior.names, behavior.values[0:40].T, strict=True))
    np.testing.assert_allclose(by_name["place_y"], np.arange(1, 80, 2) / 100, rtol=1e-6)
    np.testing.assert_array_equal(by_name["speed"], np.arange(40))
    pupil = recording.modalities["pupil"]
    assert isinstance(pupil, Samples)
    np.testing.assert_array_equal(pupil.values[:, 0], [1, 2, 4])

    spikes = recording.modalities["spikes"]
    assert (spikes.names, spikes.span) == (("u0", "u2"), (1.0, 5.5))
    assert spikes.counts == {"u0": 2, "u2": 2}
    np.testing.assert_array_equal(spikes.times, [1.5, 2, 2, 2.5])
    assert recording.trials is not None
    assert recording.trials.names == ("left", "right")
    np.testing.assert_array_equal(recording.trials.times, [1, 3])
    np.testing.assert_array_equal(recording.trials.stops, [2.5, 4])
    assert recording.markers is not None
    assert recording.markers.counts == {"go": 1, "lick": 3, "reward": 1, "stop": 1}
    kinds = {(one.kind, one.stream) for one in recording.findings}
    assert {("unit", "electrodes"), ("clock", "trials"), ("flat", "spikes")} <= kinds


def test_the_series_to_model_can_be_named(whole: Path) -> None:
    recording = open_recording(whole, {"neural": "lfp", "behavior": ["speed"]})
    assert recording.neural.rate == 10.0
    assert recording.modalities["behavior"].names == ("speed",)
    assert "raw" in recording.modalities
    assert recording.trials is not None
    assert recording.trials.names == ("trial",)
    with pytest.raises(RecordingError, match="option `neural`: no series 'nothing'; there is acq"):
        open_recording(whole, {"neural": "nothing"})
    with pytest.raises(RecordingError, match="no column 'color'; there is"):
        open_recording(whole, {"trial_class": "color"})
    with pytest.raises(RecordingError, match="no table intervals/epochs; there is trials"):
        open_recording(whole, {"trials": "epochs"})


def test_stamps_with_gaps_give_pieces(tmp_path: Path) -> None:
    times = np.concatenate([np.arange(100) / 100, 5 + np.arange(50) / 100])
    file = _session()
    file.add_acquisition(_electric(file, "raw", RAW[:150], timestamps=times, conversion=1e-6))
    recording = open_recording(_write(file, tmp_path / "gap.nwb"))
    assert [(p.start, p.first, p.stop) for p in recording.neural.pieces] == [
        (0.0, 0, 100),
        (5.0, 100, 150),
    ]
    assert recording.neural.rate == 100.0
    np.testing.assert_allclose(recording.neural.times(), times)
    assert any(one.kind == "gap" and one.times == (5.0,) for one in recording.findings)


def _stamps(change: Callable[[np.ndarray], None]) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        group = file["acquisition/raw"]
        times = np.arange(500) / 100
        change(times)
        del group["starting_time"]
        group["timestamps"] = times

    return damage


def _set(at: int, value: float) -> Callable[[h5py.File], None]:
    return _stamps(lambda times: times.__setitem__(at, value))


def _random(times: np.ndarray) -> None:
    times[:] = np.cumsum(np.random.default_rng(0).uniform(0.001, 0.03, 500))


def _replace(where: str, data: object, **attributes: object) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        kept = dict(file[where].attrs)
        del file[where]
        file[where] = data
        file[where].attrs.update(kept | attributes)

    return damage


def _attribute(where: str, name: str, value: object) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        file[where].attrs[name] = value

    return damage


def _external_link(file: h5py.File) -> None:
    del file["acquisition/raw/data"]
    file["acquisition/raw/data"] = h5py.ExternalLink("/etc/hostname", "/data")


def _external_storage(file: h5py.File) -> None:
    group = file["acquisition/raw"]
    del group["data"]
    group.create_dataset("data", (500, 4), "i2", external=[("/etc/hostname", 0, 4000)])
    group["data"].attrs["unit"] = "volts"


def _virtual(file: h5py.File) -> None:
    group = file["acquisition/raw"]
    del group["data"]
    layout = h5py.VirtualLayout((500, 4), "i2")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "data", shape=(500, 4))
    group.create_virtual_dataset("data", layout).attrs["unit"] = "volts"


def _giant(file: h5py.File) -> None:
    group = file["acquisition/raw"]
    del group["data"]
    group.create_dataset("data", (10**12, 4), "i2", chunks=(1000, 4)).attrs["unit"] = "volts"


def _giant_chunk(file: h5py.File) -> None:
    group = file["acquisition/raw"]
    del group["data"]
    group.create_dataset("data", (10**9, 4), "i2", chunks=(10**8, 4)).attrs["unit"] = "volts"


def _soft_loop(file: h5py.File) -> None:
    del file["acquisition/raw/data"]
    file["acquisition/raw/data"] = h5py.SoftLink("/acquisition/raw/data")


def _group_loop(file: h5py.File) -> None:
    file["acquisition/raw/again"] = file["acquisition"]
    _attribute("acquisition/raw/data", "unit", "bananas")(file)


def _compound(file: h5py.File) -> None:
    _replace("acquisition/raw/data", np.zeros(5, [("a", "f8"), ("b", "i4")]))(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set(50, np.nan), "acquisition/raw: .*time 50 is nan; must be finite"),
        (_set(50, 0.2), r"acquisition/raw: at 0.2 s: time 50 is 0.29 s before"),
        (_set(50, 0.49), r"acquisition/raw: at 0.49 s: times 49 and 50 are the same"),
        (_stamps(_random), "acquisition/raw: at .* s: time stamps are not regular"),
        (_replace("acquisition/raw/data", ["a", "b"]), "raw: has shape|raw: holds text"),
        (_replace("acquisition/raw/data", np.zeros((500, 5))), "raw: names 4 electrodes of a tab"),
        (_replace("acquisition/raw/data", np.zeros((3, 4, 5))), r"raw: has shape \(3, 4, 5\)"),
        (_compound, "raw: holds compound values; must be numbers"),
        (_attribute("acquisition/raw/data", "unit", "bananas"), "raw: unit 'bananas' is none of"),
        (_attribute("acquisition/raw/data", "conversion", np.nan), "attribute 'conversion' is nan"),
        (_attribute("acquisition/raw/data", "conversion", "much"), "'conversion' is 'much'"),
        (_attribute("acquisition/raw/starting_time", "rate", -5.0), "raw: starts at 1.0 s at -5.0"),
        (_external_link, r"'data' lies in another file \('/etc/hostname'\)"),
        (_external_storage, "keeps its numbers in other files"),
        (_virtual, "keeps its numbers in other files"),
        (_giant, "declares the shape .* but not all of it was written"),
        (_giant_chunk, "is stored in chunks of"),
        (_soft_loop, "/acquisition/raw: is behind more than 200 links"),
        (_group_loop, "unit 'bananas'"),
        (_replace("units/spike_times_index", np.array([2, 1, 4])), "spike_times_index: does not"),
        (_replace("units/spike_times", np.array([2.5, 2, 1.5, 2])), "spikes of u0: at 2 s: spike"),
        (_replace("units/spike_times", np.array([2, np.nan, 1.5, 2])), "spikes of u0: spike 1 is"),
        (_replace("units/spike_times", np.array([2, 9.5, 1.5, 2])), "at 9.5 s: a spike lies outs"),
        (_replace("intervals/trials/stop_time", np.array([1.0, 1])), "trials: at 3 s: row 0 stops"),
        (_replace("intervals/trials/stop_time", np.array([1.0])), "trials: columns of 2 and 1"),
        (_replace("intervals/trials/start_time", ["a", "b"]), "trials/start_time: holds text"),
        (
            _replace("processing/behavior/Position/place/timestamps", 900 + np.arange(40.0)),
            "behavior: at 900 s: runs from 900 to 940 s, but neural from 1 to 6 s: the clocks dis",
        ),
    ],
)
def test_what_is_wrong_is_named(
    whole: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(whole, "r+") as file:
        damage(file)
    with pytest.raises(RecordingError, match=message) as caught:
        open_recording(whole)
    assert caught.value.file == "whole.nwb"


def test_rows_without_an_end_are_left_out_and_told(whole: Path) -> None:
    with h5py.File(whole, "r+") as file:
        file["intervals/trials/stop_time"][0] = np.nan
    recording = open_recording(whole)
    assert recording.trials is not None
    assert len(recording.trials) == 1
    assert any(one.kind == "missing" and one.times == (3.0,) for one in recording.findings)


def test_an_infinite_sample_is_an_error_where_it_is_read(tmp_path: Path) -> None:
    file = _session()
    data = np.random.default_rng(0).normal(0, 1e-5, (5000, 4))
    data[1500, 2] = np.inf
    file.add_acquisition(_electric(file, "raw", data, rate=100.0))
    with pytest.raises(RecordingError, match=r"neural: at 15 s: sample 1500 of channel 'c2' is"):
        open_recording(_write(file, tmp_path / "a.nwb")).neural.values[1000:2000]


@pytest.mark.parametrize("keep", [600, 5000, -100])
def test_a_file_that_is_cut_off_is_an_error(whole: Path, keep: int) -> None:
    whole.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(RecordingError, match="cannot be read as HDF5"):
        open_recording(whole)


def test_damaged_bytes_give_recording_errors_alone(whole: Path) -> None:
    content = whole.read_bytes()
    rng = np.random.default_rng(1)
    opened = 0
    for _ in range(25):
        broken = bytearray(content)
        for at in rng.integers(0, len(content), 40):
            broken[at] = rng.integers(256)
        whole.write_bytes(broken)
        try:
            for modality in open_recording(whole).modalities.values():
                if isinstance(modality, Series):
                    modality.values[0 : len(modality.values)]
            opened += 1
        except RecordingError:
            pass
    assert opened < 25

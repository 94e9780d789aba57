"""Which format a file is in, and what is said about files that are in none."""

from __future__ import annotations

import os

import numpy as np
import pytest

from recording import RecordingError, open_recording
from recording.opening import find_format
from recording.readers import FORMATS, Format, register


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "day1.csv"
    path.write_text("C3,C4\n1,2\n3,4\n5,6\n")
    return path


def test_formats_are_found_by_content_first_and_by_name_second(tmp_path, table):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    np.savez(tmp_path / "x.npz", data=np.zeros((5, 2)))
    (tmp_path / "x.bin").write_bytes(bytes(20))
    expected = {"x.npy": "npy", "x.npz": "npz", "x.bin": "binary", "day1.csv": "csv"}
    assert {name: find_format(tmp_path / name).name for name in expected} == expected
    for name, found in (("x.npy", "npy"), ("x.npz", "npz")):
        (tmp_path / name).rename(tmp_path / "no-suffix")
        assert find_format(tmp_path / "no-suffix").name == found


def test_formats_are_asked_in_order_of_rank_and_have_names_and_extras_of_the_project():
    ranks = [found.rank for found in FORMATS.values()]
    assert ranks == sorted(ranks)
    with pytest.raises(ValueError, match="'csv' is registered already"):
        register(Format("csv", (".csv",), lambda *_: True, lambda *_: None))
    for name, found in FORMATS.items():
        assert name == found.name
        assert found.title
        assert found.extra in ("", "fif", "hdf5", "parquet", "recordings")
        assert {"subject", "session", "site"} <= set(found.options.model_fields)
        for key, value in found.options.model_fields.items():
            assert not value.is_required(), f"{name}: option {key} has no default"


def test_subject_session_and_site_are_options_of_all(table):
    found = open_recording(table, {"rate": 10, "subject": "s1", "session": "day 1", "site": "here"})
    assert (found.subject, found.session, found.site) == ("s1", "day 1", "here")
    assert open_recording(table, {"rate": 10}).session == "day1"
    assert open_recording(table, {"rate": 10}).source == "day1.csv"


def test_what_cannot_be_opened_is_named(tmp_path, table):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.xyz").write_text("no recording")
    for path, text in [
        (tmp_path / "none.csv", "none.csv: no such file or folder"),
        (tmp_path / "empty.csv", "empty.csv: is empty"),
        (tmp_path / "notes.xyz", r"notes.xyz: no known format; known: .*csv \(\.csv, \.tsv\)"),
        (tmp_path / "folder", "no known format"),
    ]:
        with pytest.raises(RecordingError, match=text):
            open_recording(path)
    with pytest.raises(RecordingError, match=r"no format 'cvs'; valid: .*csv"):
        open_recording(table, format="cvs")
    with pytest.raises(RecordingError, match=r"day1\.csv: option 'rate' of format csv: .*greater"):
        open_recording(table, {"rate": -1})
    with pytest.raises(RecordingError, match=r"option 'rat' of format csv: .*options: .*rate"):
        open_recording(table, {"rat": 1})


def test_a_missing_library_says_which_extra_brings_it(table, monkeypatch):
    def opened(path, options):
        raise ModuleNotFoundError("No module named 'xdflib'", name="xdflib")

    monkeypatch.setitem(
        FORMATS, "xdf", Format("xdf", (".xdf",), lambda *_: False, opened, extra="eeg")
    )
    with pytest.raises(
        RecordingError, match=r"xdf files need .*'xdflib': run `uv sync --extra eeg"
    ):
        open_recording(table, format="xdf")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(table):
    table.chmod(0)
    with pytest.raises((RecordingError, PermissionError)):
        open_recording(table)

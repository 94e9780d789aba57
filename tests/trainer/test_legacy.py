"""import-legacy: what it refuses, and what the artifact says of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import artifact
from trainer.legacy import (
    LegacyError,
    import_legacy,
    monkey_name,
    read_statistics,
    read_weights,
)

CHANNELS, HIDDEN = 3, 4
SHAPES = {
    "encoder.weight_ih_l0": (3 * HIDDEN, CHANNELS),
    "encoder.weight_hh_l0": (3 * HIDDEN, HIDDEN),
    "encoder.bias_ih_l0": (3 * HIDDEN,),
    "encoder.bias_hh_l0": (3 * HIDDEN,),
    "output_layer.weight": (CHANNELS, HIDDEN),
    "output_layer.bias": (CHANNELS,),
}


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Weights and statistics of a baseline of three channels."""
    weights = tmp_path / "model_mouse.pth"
    statistics = tmp_path / "train_data_average_std_mouse.npz"
    torch.save(state(), weights)
    generator = np.random.default_rng(0)
    np.savez(
        statistics,
        average=generator.standard_normal((1, 9 * CHANNELS)),
        std=generator.uniform(0.5, 2.0, (1, 9 * CHANNELS)),
    )
    return weights, statistics


def test_the_artifact_names_its_sources_and_no_path(files, tmp_path):
    folder = import_legacy(*files, tmp_path / "a", "raw", name="squirrel")
    manifest = artifact.load(folder).manifest
    assert manifest.name == "squirrel"
    assert manifest.config["model"] == {
        "name": "gru",
        "hidden_size": HIDDEN,
        "output_units": "raw",
    }
    assert set(manifest.config["imported"]) == {path.name for path in files}
    assert manifest.determinism["golden"] == {"kind": "synthetic", "rows": 4}
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_twice_gives_the_same_bytes(files, tmp_path):
    first = import_legacy(*files, tmp_path / "a")
    second = import_legacy(*files, tmp_path / "b")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_an_existing_folder_is_left_alone(files, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine exists"):
        import_legacy(*files, tmp_path / "mine")


def test_units_are_one_of_two(files, tmp_path):
    with pytest.raises(LegacyError, match="output units 'volts'; must be normalized or raw"):
        import_legacy(*files, tmp_path / "a", "volts")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"output_layer.bias": None}, "lacks output_layer.bias"),
        ({"encoder.weight_hh_l0": None}, "lacks encoder.weight_hh_l0"),
        ({"decoder.bias": torch.zeros(1)}, "holds unknown decoder.bias"),
        ({"encoder.bias_ih_l0": torch.zeros(5)}, r"encoder.bias_ih_l0 is \(5,\), must be \(12,\)"),
        ({"output_layer.bias": torch.zeros(8)}, r"must be \(8, 4\)"),
        ({"output_layer.bias": torch.zeros(3).double()}, "is torch.float64, must be torch.float32"),
        ({"output_layer.bias": torch.full((3,), torch.nan)}, "output_layer.bias holds NaN"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, text):
    changed = {k: v for k, v in {**state(), **change}.items() if v is not None}
    path = tmp_path / "model_mouse.pth"
    torch.save(changed, path)
    with pytest.raises(LegacyError, match=text):
        read_weights(path)


class Payload:
    """Would create a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_that_is_more_than_tensors_is_refused_unrun(tmp_path):
    path, mark = tmp_path / "model_mouse.pth", tmp_path / "mark"
    torch.save({"encoder.bias_ih_l0": Payload(str(mark))}, path)
    with pytest.raises(LegacyError, match="not a state dict of tensors alone"):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut short"])
def test_a_damaged_weights_file_is_refused(tmp_path, content):
    path = tmp_path / "model_mouse.pth"
    path.write_bytes(content)
    with pytest.raises(LegacyError, match="not a state dict"):
        read_weights(path)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"average": np.zeros((1, 27))}, "lacks std; holds average"),
        ({"average": np.zeros((1, 27)), "std": np.zeros((1, 18))}, r"std has shape \(1, 18\)"),
        ({"average": np.full((1, 27), np.inf), "std": np.ones((1, 27))}, "average holds NaN"),
        ({"average": np.zeros((1, 27)), "std": -np.ones((1, 27))}, "std holds a negative"),
    ],
)
def test_other_statistics_are_refused(tmp_path, arrays, text):
    path = tmp_path / "s.npz"
    np.savez(path, **arrays)
    with pytest.raises(LegacyError, match=text):
        read_statistics(path, CHANNELS)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(LegacyError, match=r"model_x\.pth: no such file"):
        read_weights(tmp_path / "model_x.pth")
    with pytest.raises(LegacyError, match=r"s\.npz: no such file"):
        read_statistics(tmp_path / "s.npz", CHANNELS)


def test_the_monkey_comes_from_the_file_names():
    affi = Path("train_data_average_std_affi.npz")
    assert monkey_name(Path("model_affi.pth"), affi) == "affi"
    assert monkey_name(Path("renamed.pth"), affi) == "affi"
    with pytest.raises(LegacyError, match=r"model_beignet\.pth is of beignet, .* of affi"):
        monkey_name(Path("model_beignet.pth"), affi)
    with pytest.raises(LegacyError, match="give --name"):
        monkey_name(Path("w.pth"), Path("s.npz"))

"""Whether a file holds windows that were cut already, and not a recording."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

from numpy.lib import format as npy

from artifact.manifest import Manifest

# What zipfile and numpy raise over bytes that are not what they say.
_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)


def holds_windows(path: Path, manifest: Manifest) -> bool:
    """Whether an .npy or .npz holds arrays of the artifact's inputs, with a batch axis."""
    axes = {spec.name: len(spec.axes) for spec in manifest.inputs}
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return _axes(file) == axes[manifest.inputs[0].name]
        if path.suffix != ".npz" or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if names == {"arr_0"} and len(axes) == 1:
                names, axes = {"arr_0"}, {"arr_0": next(iter(axes.values()))}
            if names != set(axes):
                return False
            found = {}
            for name in axes:
                with archive.open(f"{name}.npy") as member:
                    found[name] = _axes(member)
            return found == axes
    except _DAMAGE:
        return False  # whoever reads it whole says what is wrong with it


def _axes(file: object) -> int:
    version = npy.read_magic(file)  # type: ignore[arg-type]
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, _ = read(file)  # type: ignore[arg-type]
    return len(shape)

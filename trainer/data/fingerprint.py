"""What a data set is, in one hash: contents and settings, never paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from artifact.manifest import canonical_json
from trainer.data.windows import CHUNK_BYTES


def array_digest(array: np.ndarray) -> str:
    """sha256 of an array's dtype, shape and values in C order, read in chunks."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).data)
    return digest.hexdigest()


def fingerprint(name: str, settings: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> str:
    """sha256 of a data set's name, settings (plain JSON values, no paths) and array contents."""
    content = {
        "name": name,
        "settings": dict(settings),
        "arrays": [array_digest(array) for array in arrays],
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()

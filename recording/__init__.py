"""Recordings: files of every kind in, one `Recording` out, prepared as a model needs it.

Imports neither torch nor the trainer: the trainer, the service and `axonnx predict` read and
prepare a recording through the same code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recording.contract import Channel, Events, Finding, Piece, Recording, Samples, Series
    from recording.errors import RecordingError
    from recording.opening import open_recording

__all__ = [
    "Channel",
    "Events",
    "Finding",
    "Piece",
    "Recording",
    "RecordingError",
    "Samples",
    "Series",
    "open_recording",
]
_HOMES = {"RecordingError": "recording.errors", "open_recording": "recording.opening"}


def __getattr__(name: str) -> Any:
    # On first use: the command line's first words need numpy and onnxruntime alone.
    if name not in __all__:
        raise AttributeError(f"module 'recording' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "recording.contract")), name)

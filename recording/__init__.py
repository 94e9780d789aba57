"""Recordings: files of every kind in, one `Recording` out, prepared as a model needs it.

Imports neither torch nor the trainer: the trainer, the service and `axonnx predict` read and
prepare a recording through the same code.
"""

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

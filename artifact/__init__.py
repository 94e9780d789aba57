"""What a trained model is on disk, and the only code that runs it.

An artifact is a folder (or its zip) with an ONNX graph, its configuration and the evidence that it
is right. This package needs the standard library, numpy and onnxruntime, and runs on Python 3.10
and up: a submission carries a verbatim copy of it.
"""

import os

# Read when ONNX Runtime is first imported; without it, it calls home and leaves files there.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from artifact import errors
from artifact.bundle import Bundle, read, write, write_file, write_zip
from artifact.errors import ArtifactError
from artifact.manifest import Axis, FileEntry, Manifest, TensorSpec
from artifact.model import GoldenReport, Model, load

__all__ = [
    "ArtifactError",
    "Axis",
    "Bundle",
    "FileEntry",
    "GoldenReport",
    "Manifest",
    "Model",
    "TensorSpec",
    "errors",
    "load",
    "read",
    "write",
    "write_file",
    "write_zip",
]

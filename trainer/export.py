"""From a trained module to an artifact: translate, compare, certify, describe, write."""

from __future__ import annotations

from trainer.graph import ExportError, to_onnx

__all__ = ["ExportError", "to_onnx"]

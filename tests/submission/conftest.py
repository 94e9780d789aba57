"""The fixtures of `submission_helpers`, which the acceptance tests use too."""

from __future__ import annotations

from submission_helpers import artifacts, decoder_zip, runtime_cache, small_zip

__all__ = ["artifacts", "decoder_zip", "runtime_cache", "small_zip"]

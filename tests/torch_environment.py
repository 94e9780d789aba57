"""The torch of a challenge's image: a CUDA build of some 5 GB, made once and kept in the cache."""

from __future__ import annotations

import pytest
from submission_helpers import python_or_skip

from submission.challenges import Image
from submission.errors import ConfigError
from submission.worker.sandbox import Interpreter, environment


def environment_or_skip(image: Image) -> Interpreter:
    """The image's Python with its packages; skips the test where they cannot be had."""
    python = python_or_skip(image.python or "3.10")
    try:
        return environment(python, image.packages)
    except ConfigError as error:
        pytest.skip(f"no {', '.join(image.packages)} here: {str(error)[-500:]}")

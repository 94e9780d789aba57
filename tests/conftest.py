"""Fixtures every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
# Tests start hundreds of processes; none of them shall compile torch's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Threads that spin while they wait make several test processes slow one another down many times;
# both must be said before torch is imported, and hold for the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("AXONNX_DATA", str(ROOT.parent / "shared" / "data"))


# Shared machines are slow at times: an example may take as long as it takes.
settings.register_profile("axonnx", deadline=None, print_blob=True)
settings.load_profile("axonnx")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; tests skip where it is absent, naming it."""
    folder = Path(os.environ["AXONNX_DATA"])
    if not folder.is_dir():
        pytest.skip(f"no recordings at AXONNX_DATA={folder}")
    return folder

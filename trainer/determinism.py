"""One config, one sequence of bits: device, threads, algorithms and random generators."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class DeviceError(Exception):
    """The device that the config asks for is not there."""


def choose_device(name: str) -> torch.device:
    """The torch device of `training.device`; raises DeviceError where it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, found in there.items() if found), "cpu")
    if not there.get(name, True):
        raise DeviceError(
            f"training.device is {name!r}, but torch finds no such device here; "
            "'cpu' or 'auto' would run"
        )
    return torch.device(name)


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Run the block with deterministic algorithms and a fixed number of CPU threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict, before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor would only hide a read of memory that nothing wrote to, and takes
    # some 5 % of a training step.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)
        memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(before)


def seed_everything(seed: int, epoch: int) -> None:
    """Set the generators of python, numpy and torch, on every device, from the two numbers."""
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)

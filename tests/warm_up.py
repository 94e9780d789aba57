"""Trains and exports once on import, so that processes forked from this one need not warm up."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from rich.console import Console

from trainer.config import load_config
from trainer.pipeline import train_and_export

CONFIG = """
data: {name: synthetic, channels: 3, samples: 600}
model: {name: gru, hidden_size: 4}
training: {epochs: 1, batch_size: 32, device: cpu, threads: 1}
"""

with tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "warm.yaml"
    config.write_text(CONFIG)
    quiet = Console(file=io.StringIO())
    train_and_export(load_config(config, []), Path(folder) / "run", console=quiet)

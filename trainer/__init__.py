"""Offline, with PyTorch: data, models, training, export, evaluation."""

VERSION = "0.1.0"  # pyproject.toml says the same: images run these files, not a distribution

"""Offline, with PyTorch: data, models, training, export, evaluation."""

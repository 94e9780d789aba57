"""What can be wrong with data."""

from __future__ import annotations


class DataError(ValueError):
    """Data or a data setting is wrong; the text says what, where and what would be right."""


class SplitError(DataError):
    """A split does not work out, or lets a sample, trial, session or subject into two parts."""

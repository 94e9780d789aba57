"""What can go wrong with a submission.

SubmissionError
├── ConfigError     a wrong argument, file or YAML value: exit status 2
├── ContractError   an artifact that is not what the challenge asks for: exit status 2
├── WheelError      the runtime to vendor cannot be had, or is not the one in the table: 1
├── ArchiveError    a zip that is no submission: 1
└── RunError        the submission ran and failed: 1
"""

from __future__ import annotations


class SubmissionError(Exception):
    """Base of this package's errors; `exit_status` is what the command ends with."""

    exit_status = 1


class ConfigError(SubmissionError):
    """A wrong argument, a missing file, a bad value in a configuration."""

    exit_status = 2


class ContractError(SubmissionError):
    """An artifact whose inputs or outputs are not the challenge's."""

    exit_status = 2


class WheelError(SubmissionError):
    """The ONNX Runtime to vendor is missing, or its hash is not the table's."""


class ArchiveError(SubmissionError):
    """A zip that CodaBench would not take, or that `axonnx submission build` did not write."""


class RunError(SubmissionError):
    """The submission's own code failed, or ran out of time."""

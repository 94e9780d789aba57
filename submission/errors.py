"""What can go wrong with a submission.

SubmissionError
├── ConfigError     a wrong argument, file or YAML value: exit status 2
├── ContractError   an artifact that is not what the challenge asks for: exit status 2
├── WheelError      the runtime to vendor cannot be had, or is not the one in the table: 1
├── ArchiveError    a zip that is no submission: 1
├── RunError        the submission ran and failed: 1
├── PlatformError   CodaBench refused a call, did not answer, or answered oddly: 1
└── CredentialsError  no token, no password, or wrong ones: 2
"""

from __future__ import annotations

import re

# What would play with a terminal, hide what follows, or cannot be written as UTF-8.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` of a stranger's for a terminal; new lines and tabs stay."""
    return UNSEEN.sub("?", text)


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


class PlatformError(SubmissionError):
    """CodaBench or its storage refused a call, did not answer, or answered what it should not.

    `status` is the HTTP status, None without an answer; `fields` the keys of an answer 400;
    `unsure` marks a call that may have taken effect although it looks failed.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        fields: frozenset[str] = frozenset(),
        unsure: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fields = fields
        self.unsure = unsure


class CredentialsError(SubmissionError):
    """No token, no name and password, or ones that CodaBench does not take."""

    exit_status = 2

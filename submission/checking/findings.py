"""What a check found, line by line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from submission.errors import printable

Status = Literal["ok", "warning", "skipped", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Status
    text: str


@dataclass(frozen=True)
class Row:
    """One predicted set in one place; `equal` is about every comparison made."""

    place: str
    set: str
    rows: int
    seconds: float
    equal: bool


@dataclass
class Report:
    """Findings and predicted sets, in order; `notify` hears each finding as it is made."""

    notify: Callable[[Finding], None] = lambda finding: None
    findings: list[Finding] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.status != "failed" for finding in self.findings)

    def add(self, status: Status, text: str) -> None:
        """Record one finding."""
        self.findings.append(Finding(status, printable(text)))
        self.notify(self.findings[-1])

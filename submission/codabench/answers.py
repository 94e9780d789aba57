"""What CodaBench answers, as far as it is used: sizes bounded, shapes checked, the rest ignored."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

FINAL = frozenset({"Finished", "Failed", "Cancelled"})
LONGEST_TEXT = 500


def plain(text: object, limit: int = LONGEST_TEXT) -> str:
    """A server's text for one line of a terminal: no control characters, at most `limit` long."""
    line = " ".join(str(text)[: 8 * limit].split())
    shown = "".join(sign if sign.isprintable() else "�" for sign in line)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _text(value: object) -> object:
    return "" if value is None else plain(value) if isinstance(value, str) else value


def _tuple(value: object) -> object:
    return () if value is None else value


Text = Annotated[str, BeforeValidator(_text)]
Id = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[Decimal, Field(allow_inf_nan=False, max_digits=60)]
Link = Annotated[str, Field(max_length=8192)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Token(_Answer):
    """POST /api/api-token-auth/."""

    token: Annotated[str, Field(pattern=r"^[\x21-\x7e]+$", max_length=512, repr=False)]


class Task(_Answer):
    """One task of a phase."""

    id: Id
    key: Text = ""
    name: Text = ""


class Phase(_Answer):
    """One phase; `used_*` and the limits are None where the answer leaves them out."""

    id: Id
    index: int = 0
    name: Text = ""
    status: Text = ""
    start: Text = ""
    end: Text = ""
    tasks: tuple[Task, ...] = ()
    execution_time_limit: int | None = None
    has_max_submissions: bool | None = None
    max_submissions_per_day: Count | None = None
    max_submissions_per_person: Count | None = None
    used_submissions_per_day: Count | None = None
    used_submissions_per_person: Count | None = None

    def __str__(self) -> str:
        return f"{self.name!r} (index {self.index}, id {self.id}, {self.status or 'no status'})"


class Competition(_Answer):
    """GET /api/competitions/{id}/."""

    id: Id
    title: Text = ""
    participant_status: Text = ""
    fact_sheet: dict[str, Any] | None = None
    phases: tuple[Phase, ...]


class Participation(_Answer):
    """POST /api/competitions/{id}/register/."""

    participant_status: Text


class Permission(_Answer):
    """GET /api/can_make_submission/{phase}/."""

    can: bool
    reason: Text = ""


class Dataset(_Answer):
    """POST /api/datasets/; the URL is signed, so it is a secret until it expires."""

    key: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
    sassy_url: Annotated[Link, Field(repr=False)]


class Completed(_Answer):
    """PUT /api/datasets/completed/{key}/."""

    key: Annotated[str, Field(max_length=64)]


class Score(_Answer):
    """One leaderboard column's value, a decimal as text with ten places."""

    column_key: Annotated[str, BeforeValidator(_text), Field(max_length=LONGEST_TEXT)]
    score: Number


class _Owner(_Answer):
    id: Id


class Submission(_Answer):
    """GET /api/submissions/{id}/, an entry of the list, and the answer to its creation."""

    id: Id
    status: Text
    status_details: Text = ""
    filename: Text = ""
    md5: Text = ""
    data: Any = None  # the data set's key, in the answer to a creation only
    created_when: Text = ""
    phase: Id | None = None
    phase_name: Text = ""
    task: _Owner | Id | None = None
    parent: Id | None = None
    children: Annotated[tuple[Id, ...], BeforeValidator(_tuple)] = ()
    scores: Annotated[tuple[Score, ...], BeforeValidator(_tuple)] = ()
    on_leaderboard: bool | None = None
    auto_run: bool | None = None

    @property
    def task_id(self) -> int | None:
        """The number of its task; None for a parent."""
        return self.task.id if isinstance(self.task, _Owner) else self.task


class Created(_Answer):
    """POST /api/submissions/."""

    id: Id
    status: Text = ""


class _Page(_Answer):
    results: tuple[Submission, ...]


class Submissions(RootModel[tuple[Submission, ...] | _Page]):
    """GET /api/submissions/: a plain list, or one page of it."""

    @property
    def entries(self) -> tuple[Submission, ...]:
        """The submissions, newest first."""
        return self.root if isinstance(self.root, tuple) else self.root.results


class Log(_Answer):
    """One log of a submission: its name and signed URL."""

    name: Text = ""
    data_file: Annotated[Link | None, Field(repr=False)] = None


class Details(_Answer):
    """GET /api/submissions/{id}/get_details/: signed URLs, null where the phase hides them."""

    logs: Annotated[tuple[Log, ...], BeforeValidator(_tuple)] = ()
    prediction_result: Annotated[Link | None, Field(repr=False)] = None
    scoring_result: Annotated[Link | None, Field(repr=False)] = None
    detailed_result: Annotated[Link | None, Field(repr=False)] = None

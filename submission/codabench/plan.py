"""What an upload would send, for `--dry-run`: built from the very bodies that it would send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from submission.codabench.answers import Competition, Phase
from submission.codabench.client import dataset_body, submission_body
from submission.codabench.eligibility import check_fact_sheet, choose_tasks
from submission.codabench.parcel import Parcel
from submission.codabench.records import Upload
from submission.codabench.upload import Options, goes_on

HIDDEN = "***"


@dataclass(frozen=True)
class Planned:
    """One request; `{braces}` stand for what the platform will answer."""

    method: str
    url: str
    body: Mapping[str, Any] | None = None
    note: str = ""

    def __str__(self) -> str:
        line = f"{self.method} {self.url}" + (f"   ({self.note})" if self.note else "")
        body = "" if self.body is None else json.dumps(self.body, ensure_ascii=False)
        return line + (f"\n     {body} ({len(body.encode())} bytes)" if body else "")


@dataclass(frozen=True)
class Known:
    """What is known before anything is sent; None for what a call would tell."""

    competition: Competition | None = None
    phase: Phase | None = None
    past: Upload | None = None
    username: str | None = None  # to log in with, instead of a token
    secret_key: bool = False


def plan(site: str, options: Options, parcel: Parcel, known: Known) -> list[Planned]:
    """The requests in their order. Raises ConfigError as the upload would."""
    past = known.past
    if past is not None and goes_on(past, options):
        number = str(past.submission)
        return [*_first(site, options, known), *_last(site, number, options.leaderboard)]
    if past is not None and past.submission is not None:
        past = None
    phase = "{phase}" if known.phase is None else str(known.phase.id)
    calls = _first(site, options, known)
    calls.append(Planned("GET", f"{site}/api/can_make_submission/{phase}/"))
    calls += _transfer(site, options, parcel, past)
    calls.append(Planned("GET", f"{site}/api/submissions/?phase={phase}"))
    calls.append(Planned("POST", f"{site}/api/submissions/", _submission(options, known, past)))
    return calls + _last(site, "{submission}", options.leaderboard)


def _first(site: str, options: Options, known: Known) -> list[Planned]:
    """Logging in, reading the competition, registering."""
    calls = []
    if known.username is not None:
        body = {"username": known.username, "password": HIDDEN}
        calls.append(Planned("POST", f"{site}/api/api-token-auth/", body))
    place = f"{site}/api/competitions/{options.competition}/"
    key = {"secret_key": HIDDEN} if known.secret_key else {}
    calls.append(Planned("GET", place + (f"?secret_key={HIDDEN}" if key else "")))
    status = None if known.competition is None else known.competition.participant_status
    if options.register and status in (None, "", "unknown"):
        note = "only if not registered" if status is None else ""
        calls.append(Planned("POST", f"{place}register/", key, note))
    return calls


def _transfer(site: str, options: Options, parcel: Parcel, past: Upload | None) -> list[Planned]:
    """Announcing, sending and completing, as far as it is not done."""
    if past is not None and past.completed:
        return []
    key = "{key}"
    calls = []
    if past is None or past.key is None or not past.uploaded:
        body = dataset_body(parcel.name, parcel.size, options.competition)
        calls.append(Planned("POST", f"{site}/api/datasets/", body))
        note = f"{parcel.size} bytes of {parcel.path}, Content-Type: application/zip, no token"
        calls.append(Planned("PUT", "{sassy_url}", None, note))
    else:
        key = past.key
    return [*calls, Planned("PUT", f"{site}/api/datasets/completed/{key}/")]


def _submission(options: Options, known: Known, past: Upload | None) -> dict[str, Any]:
    tasks: list[Any] = list(options.tasks)
    if known.phase is not None:
        tasks = list(choose_tasks(known.phase, options.tasks))
    if known.competition is not None:
        check_fact_sheet(known.competition, options.fact_sheet)
    key = past.key if past is not None and past.uploaded and past.key else "{key}"
    body = submission_body(key, 0, (), options.fact_sheet, options.organization)
    return body | {"phase": "{phase}" if known.phase is None else known.phase.id, "tasks": tasks}


def _last(site: str, submission: str, leaderboard: bool) -> list[Planned]:
    """Following it, and the leaderboard."""
    place = f"{site}/api/submissions/{submission}/"
    calls = [Planned("GET", place, None, "until it ended and its scores are there")]
    if leaderboard:
        calls.append(Planned("POST", f"{place}submission_leaderboard_connection/"))
    return calls

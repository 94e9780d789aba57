"""Whether CodaBench would take a submission now, asked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from submission.codabench.answers import Competition, Phase, plain
from submission.codabench.client import CodabenchClient
from submission.errors import ConfigError, PlatformError


def choose_phase(competition: Competition, wanted: str | None) -> Phase:
    """The phase with the name, index or id `wanted`; without it, the only one that is current.

    Raises ConfigError listing the phases.
    """
    phases = competition.phases
    if wanted is None:
        found = [phase for phase in phases if phase.status == "Current"]
        problem = "no phase is current" if not found else "several phases are current"
    else:
        found = [phase for phase in phases if phase.name == wanted] or [
            phase for phase in phases if wanted in (str(phase.id), str(phase.index))
        ]
        problem = f"no phase {wanted!r}" if not found else f"phase {wanted!r} may mean several"
    if len(found) == 1:
        return found[0]
    listing = "; ".join(map(str, phases)) or "none"
    raise ConfigError(
        f"competition {competition.id}: {problem}; its phases are {listing}: "
        "name one with --phase NAME, INDEX or ID"
    )


def choose_tasks(phase: Phase, wanted: Sequence[str]) -> list[int]:
    """Numbers of the tasks with these ids, keys or names; empty for all. Raises ConfigError."""
    chosen = []
    for text in wanted:
        found = [task.id for task in phase.tasks if text in (str(task.id), task.key, task.name)]
        if len(found) != 1:
            listing = ", ".join(f"{task.id} ({task.name})" for task in phase.tasks) or "none"
            problem = "is no task" if not found else "means several tasks"
            raise ConfigError(f"--task {text}: {problem} of phase {phase}; it has {listing}")
        chosen += found
    return list(dict.fromkeys(chosen))


def check_fact_sheet(competition: Competition, answers: Mapping[str, Any] | None) -> None:
    """Raise ConfigError unless `answers` has the very keys that the competition asks for."""
    asked = set(competition.fact_sheet or {})
    if answers is not None and set(answers) != asked:
        listing = ", ".join(sorted(plain(key, 60) for key in asked)) or "no keys at all"
        raise ConfigError(f"--fact-sheet: competition {competition.id} asks for {listing}")


def require_participant(
    client: CodabenchClient,
    competition: Competition,
    register: bool,
    notify: Callable[[str], None],
) -> None:
    """Raise PlatformError unless the account is approved; with `register`, apply first."""
    status = competition.participant_status
    if status in ("", "unknown") and register:
        status = client.register(competition.id).participant_status
        notify(f"registered for competition {competition.id}: {status}")
    if status == "approved":
        return
    place = f"competition {competition.id} ({competition.title})"
    if status == "pending":
        advice = "an organiser must approve it; then run the command again"
    elif status in ("", "unknown"):
        advice = "read its terms on the site, then register there or with --register"
    else:
        advice = "ask the organisers"
    raise PlatformError(
        f"{place}: this account is {status or 'no'} participant, not approved; {advice}"
    )


def require_open(client: CodabenchClient, phase: Phase, notify: Callable[[str], None]) -> None:
    """Raise ConfigError for a phase that is not current, PlatformError for a used-up quota."""
    if phase.status != "Current":
        raise ConfigError(
            f"phase {phase} runs from {phase.start or '?'} to {phase.end or 'an open end'}; "
            "CodaBench does not check the dates of a submission, so it would be wasted: name the "
            "current phase with --phase"
        )
    notify(quota(phase))
    permission = client.can_submit(phase.id)
    if not permission.can:
        reason = permission.reason or "no reason was given"
        raise PlatformError(f"phase {phase} takes no submission now: {reason}")


def quota(phase: Phase) -> str:
    """Used and allowed submissions, today and in all."""
    if phase.has_max_submissions is False:
        return f"quota of phase {phase.name!r}: no limit"
    today = _share(phase.used_submissions_per_day, phase.max_submissions_per_day)
    total = _share(phase.used_submissions_per_person, phase.max_submissions_per_person)
    return f"quota of phase {phase.name!r}: {today} used today, {total} in all"


def _share(used: int | None, limit: int | None) -> str:
    return f"{'?' if used is None else used} of {'?' if limit is None else limit}"

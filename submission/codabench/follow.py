"""Following a submission until nothing more will change.

"Finished" is announced before the scores are there and can still become "Failed", and a parent of
several tasks is "Finished" even when all of them failed: hence the children are read, the scores
waited for, and the status is read once more after they came.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from submission.codabench.answers import FINAL, Submission
from submission.codabench.client import CodabenchClient

INTERVAL = 15.0  # seconds between two looks
SETTLE = 12  # looks that a finished submission gets until its scores must be there


@dataclass(frozen=True)
class State:
    """A submission and, for a phase of several tasks, the one of each task."""

    submission: Submission
    children: tuple[Submission, ...] = ()

    @property
    def leaves(self) -> tuple[Submission, ...]:
        """Those that ran: the children, or the submission itself."""
        return self.children or (self.submission,)

    @property
    def ended(self) -> bool:
        """No part of it runs any more; scores may still be on their way."""
        return all(each.status in FINAL for each in (self.submission, *self.children))

    @property
    def unscored(self) -> bool:
        """Something finished whose scores are not there."""
        return any(leaf.status == "Finished" and not leaf.scores for leaf in self.leaves)

    @property
    def status(self) -> str:
        """The platform's word, put right where it hides a failed task."""
        if self.submission.status != "Finished":
            return self.submission.status
        fates = {leaf.status for leaf in self.leaves}
        return next((fate for fate in ("Failed", "Cancelled") if fate in fates), "Finished")

    @property
    def details(self) -> str:
        """Why it is as it is: the platform's text, or which tasks failed."""
        bad = [leaf for leaf in self.children if leaf.status in ("Failed", "Cancelled")]
        if not bad:
            return self.submission.status_details
        count = f"{len(bad)} of {len(self.children)} tasks did not finish"
        texts = dict.fromkeys(leaf.status_details for leaf in bad if leaf.status_details)
        return ": ".join(filter(None, [count, "; ".join(texts)]))

    @property
    def passed(self) -> bool:
        """Finished in every task, with scores."""
        return self.ended and self.status == "Finished" and not self.unscored

    @property
    def scores(self) -> dict[str, str]:
        """Leaderboard column to score, as text; `task 7: key` where there are several tasks."""
        found = {}
        for leaf in self.leaves:
            prefix = f"task {leaf.task_id or leaf.id}: " if self.children else ""
            for score in leaf.scores:
                found[prefix + score.column_key] = format(score.score, "f")
        return found


def read(client: CodabenchClient, submission: int) -> State:
    """The submission as it is now, with its children."""
    found = client.submission(submission)
    return State(found, tuple(client.submission(child) for child in found.children))


def follow(
    client: CodabenchClient,
    submission: int,
    *,
    notify: Callable[[State], None],
    interval: float = INTERVAL,
    settle: int = SETTLE,
    sleep: Callable[[float], None] = time.sleep,
) -> State:
    """Look every `interval` seconds until it ended and its scores are in; the last state seen.

    `notify` gets every state. After `settle` looks a finished one without scores is given back as
    it is. Raises PlatformError.
    """
    while True:
        state = read(client, submission)
        notify(state)
        if state.ended and (settle <= 0 or not state.unscored):
            state = read(client, submission)
            notify(state)
            if state.ended:
                return state
        settle -= state.ended
        sleep(interval)

"""Uploading a zip and submitting it, once, however often the command is interrupted.

Every step is recorded before the next begins: announced (a data set's key), uploaded, completed,
about to submit, submitted. A repetition goes on behind the last step on record. Whether the one
call that must not be repeated took effect is asked of the platform: the list of submissions knows
the file by a name that carries the hash of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.codabench.answers import Competition, Phase, Submission
from submission.codabench.client import CodabenchClient, submission_body
from submission.codabench.eligibility import (
    check_fact_sheet,
    choose_phase,
    choose_tasks,
    require_open,
    require_participant,
)
from submission.codabench.follow import State
from submission.codabench.parcel import Parcel, read_parcel
from submission.codabench.records import Records, Upload
from submission.codabench.transport import Advance
from submission.errors import ConfigError, PlatformError

LOOKS = 3  # at the list, after a creation that was not answered


@dataclass(frozen=True)
class Options:
    """What to submit where; `phase` and `tasks` by name, number or key."""

    zip: Path
    competition: int
    phase: str | None = None
    tasks: tuple[str, ...] = ()
    register: bool = False
    again: bool = False
    leaderboard: bool = False
    fact_sheet: Mapping[str, Any] | None = None
    organization: int | None = None
    anyway: bool = False


@dataclass(frozen=True)
class Person:
    """Who watches: told things, shown progress in bytes, asked whether to go on."""

    notify: Callable[[str], None]
    advance: Advance
    confirm: Callable[[str], bool]


def upload(client: CodabenchClient, records: Records, options: Options, person: Person) -> int:
    """Bring the zip to the platform and submit it; the submission's number.

    Goes on where an earlier call with the same bytes, competition and phase stopped. A zip whose
    check failed is refused unless `anyway` is said. Raises ConfigError, ArchiveError or
    PlatformError; all that was done until then is on record.
    """
    parcel = read_parcel(options.zip)
    competition = client.competition(options.competition)
    phase = choose_phase(competition, options.phase)
    with records.exclusively():
        past = records.last(client.url, parcel.sha256, competition.id, phase.id)
        if past is not None and past.submission is not None:
            if goes_on(past, options):
                person.notify(f"going on with submission {past.submission} of these bytes")
                return past.submission
            _want_again(options, person, past.submission, past.status)
            past = None
        if records.checked(parcel.sha256) is False and not options.anyway:
            raise ConfigError(
                f"{parcel.path}: its check FAILED: mend it and check again, or add --anyway"
            )
        warn_unchecked(records, parcel, person.notify)
        return _Way(client, records, options, person, parcel, competition, phase).go(past)


def goes_on(past: Upload, options: Options) -> bool:
    """Whether what was submitted already has something left to be done: waiting, or showing it."""
    if past.submission is None or options.again:
        return False
    unshown = options.leaderboard and past.status == "Finished" and not past.leaderboard
    return not past.final or unshown


def warn_unchecked(records: Records, parcel: Parcel, notify: Callable[[str], None]) -> None:
    """Say so where no passed check of these bytes is on record."""
    verdict = records.checked(parcel.sha256)
    if not verdict:
        word = "was not checked" if verdict is None else "FAILED its check"
        notify(f"! {parcel.path} {word}: axonnx submission check {parcel.path}")


def find(
    client: CodabenchClient, phase: int, name: str, md5: str, after: int, key: str | None = None
) -> Submission | None:
    """The newest submission of these bytes to a phase, among those numbered above `after`."""
    for entry in client.submissions(phase):
        if entry.parent is not None or entry.id <= after:
            continue
        same_data = key is not None and entry.data == key
        if same_data or entry.filename == name or (entry.md5 and entry.md5 == md5):
            return entry
    return None


def record_state(records: Records, site: str, state: State) -> None:
    """Write the submission's status down where it changed; `final` once nothing can follow."""
    known = records.of(site, state.submission.id)
    final = state.ended and (state.status != "Finished" or not state.unscored)
    found: dict[str, Any] = {
        "status": state.status,
        "status_details": state.details,
        "scores": state.scores,
        "final": final,
        "children": {str(child.id): {"status": child.status} for child in state.children},
    }
    if known is not None and found == {key: getattr(known, key) for key in found}:
        return
    name = records.name_of(site, state.submission.id)
    records.append(name, "status", site=site, submission=state.submission.id, **found)


def _want_again(options: Options, person: Person, submission: int, status: str) -> None:
    """Raise ConfigError unless identical bytes are to be submitted a second time."""
    text = f"these bytes were submitted already, as {submission} ({status or 'status unknown'})"
    if not options.again and not person.confirm(f"{text}. Submit them again?"):
        raise ConfigError(
            f"{text}; see `axonnx submission status {submission}`, or submit them once more with "
            "--again"
        )


@dataclass(frozen=True)
class _Way:
    """One upload's way to a submission."""

    client: CodabenchClient
    records: Records
    options: Options
    person: Person
    parcel: Parcel
    competition: Competition
    phase: Phase

    def go(self, past: Upload | None) -> int:
        """Take the steps that `past` lacks."""
        tasks = choose_tasks(self.phase, self.options.tasks)
        check_fact_sheet(self.competition, self.options.fact_sheet)
        if past is not None and past.after is not None:
            found = self._find(past.after, past.name, past.key)
            if found is not None:
                return self._submitted(past.upload, found.id)
        notify = self.person.notify
        require_participant(self.client, self.competition, self.options.register, notify)
        if past is None and not self.options.again:
            listed = self._find(-1, self.parcel.name, None)
            if listed is not None:
                _want_again(self.options, self.person, listed.id, listed.status)
        require_open(self.client, self.phase, notify)
        if past is None:
            past = self._start(tasks)
        else:
            notify(f"going on with the upload of {past.started}")
        key = self._stored(past)
        body = submission_body(
            key, self.phase.id, tasks, self.options.fact_sheet, self.options.organization
        )
        return self._submit(past, key, body)

    def _start(self, tasks: list[int]) -> Upload:
        self.records.start(
            site=self.client.url,
            file=str(self.parcel.path),
            name=self.parcel.name,
            bytes=self.parcel.size,
            sha256=self.parcel.sha256,
            challenge=self.parcel.challenge,
            artifacts=self.parcel.artifacts,
            competition=self.competition.id,
            competition_title=self.competition.title,
            phase=self.phase.id,
            phase_name=self.phase.name,
            tasks=tasks,
        )
        place = (self.client.url, self.parcel.sha256, self.competition.id, self.phase.id)
        started = self.records.last(*place)
        if started is None:
            raise ConfigError(f"{self.records.path}: what is written there does not come back")
        return started

    def _stored(self, past: Upload) -> str:
        """The key of the data set that holds the zip; sent only where it has not arrived yet."""
        key = past.key
        if key is not None and past.completed:
            return key
        if key is None or not past.uploaded:
            dataset = self.client.create_dataset(past.name, self.parcel.size, self.competition.id)
            key = dataset.key
            self.records.append(past.upload, "announced", key=key, uploaded=False, completed=False)
            parcel = self.parcel
            with parcel.path.open("rb") as file:
                advance = self.person.advance
                self.client.upload(dataset, file, parcel.size, parcel.sha256, advance)
            self.records.append(past.upload, "uploaded", uploaded=True)
        try:
            self.client.complete(key)
        except PlatformError as error:
            if error.status == 404:
                self._forget(past)
            raise
        self.records.append(past.upload, "completed", completed=True)
        return key

    def _submit(self, past: Upload, key: str, body: Mapping[str, Any]) -> int:
        after = past.after
        if after is None:
            entries = self.client.submissions(self.phase.id)
            after = max((entry.id for entry in entries), default=0)
            self.records.append(past.upload, "submitting", after=after)
        try:
            return self._submitted(past.upload, self.client.create_submission(body).id)
        except PlatformError as error:
            if error.status == 400 and "data" in error.fields:
                self._forget(past)
            if not error.unsure:
                raise
            problem = error
        for attempt in range(LOOKS):
            found = self._find(after, past.name, key)
            if found is not None:
                return self._submitted(past.upload, found.id)
            self.client.patience.pause(attempt, None)
        raise PlatformError(
            f"{problem}. The list shows no submission of this file: run the same command again; it "
            "looks once more, and sends the file no second time",
            problem.status,
        )

    def _submitted(self, upload: str, submission: int) -> int:
        self.records.append(upload, "submitted", submission=submission)
        self.person.notify(f"submission {submission} at {self.client.url}")
        return submission

    def _find(self, after: int, name: str, key: str | None) -> Submission | None:
        return find(self.client, self.phase.id, name, self.parcel.md5, after, key)

    def _forget(self, past: Upload) -> None:
        """The platform does not know the data set: the next run uploads anew."""
        self.records.append(past.upload, "lost", key=None, uploaded=False, completed=False)

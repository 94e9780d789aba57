"""Fetching what CodaBench keeps of a submission: scores, logs, results; whole or not at all."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submission.codabench.answers import Details, Submission
from submission.codabench.client import CodabenchClient
from submission.codabench.follow import State, read
from submission.codabench.records import Records
from submission.codabench.transport import Advance
from submission.codabench.upload import record_state
from submission.errors import ConfigError, PlatformError

RESULTS = (
    ("prediction_result", "prediction_result.zip"),
    ("scoring_result", "scoring_result.zip"),
    ("detailed_result", "detailed_results.html"),
)
MAX_LOGS = 64


@dataclass
class Fetched:
    """State of a submission, the files written (below `folder`), and what was not to be had."""

    folder: Path
    state: State
    files: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def fetch(
    client: CodabenchClient,
    records: Records,
    submission: int,
    folder: Path,
    begin: Callable[[str], Advance],
) -> Fetched:
    """Write the scores, logs and results of a submission into the new `folder`.

    Children, one per task, get a folder each. `begin` is called with each file's name and gives
    the function that is told of its bytes. Raises ConfigError where the folder holds something,
    PlatformError where the platform cannot be reached; nothing is left of it then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists already; name a new folder with --output")
    state = read(client, submission)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as work:
        whole = Path(work) / "whole"
        whole.mkdir()
        found = Fetched(folder, state)
        for leaf in state.leaves:
            inside = f"task_{leaf.task_id or leaf.id}" if state.children else ""
            _one(client, leaf, whole / inside, inside, found, begin)
        _write_scores(state, whole / "scores.json")
        found.files.insert(0, "scores.json")
        whole.rename(folder)
    record_state(records, client.url, state)
    name = records.name_of(client.url, submission)
    records.append(
        name, "fetched", site=client.url, submission=submission, fetched=str(folder.absolute())
    )
    return found


def _one(
    client: CodabenchClient,
    leaf: Submission,
    folder: Path,
    inside: str,
    found: Fetched,
    begin: Callable[[str], Advance],
) -> None:
    """The files of one submission that ran."""
    folder.mkdir(exist_ok=True)
    shown = f"{inside}/" if inside else ""
    try:
        details = client.details(leaf.id)
    except PlatformError as error:
        if error.status != 403:
            raise
        found.missing.append(f"{shown}logs and results: {error}")
        return
    for label, link in _links(details):
        if link is None:
            found.missing.append(f"{shown}{label}: hidden by the phase, or never written")
            continue
        target = folder / label
        target.parent.mkdir(exist_ok=True)
        try:
            client.storage.get(link, shown + label, target, begin(shown + label))
        except PlatformError as error:
            target.unlink(missing_ok=True)
            if error.status not in (403, 404, 410):
                raise
            found.missing.append(f"{shown}{label}: {error}")
        else:
            found.files.append(shown + label)
    if not details.logs:
        found.missing.append(f"{shown}logs: hidden by the phase, or none was written")


def _links(details: Details) -> Iterator[tuple[str, str | None]]:
    """File names, safe and each once, with their signed URLs."""
    taken: set[str] = set()
    for log in details.logs[:MAX_LOGS]:
        stem = safe_name(log.name)
        number = 2
        name = stem
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        yield f"logs/{name}.txt", log.data_file
    for key, name in RESULTS:
        yield name, getattr(details, key)


def safe_name(name: str) -> str:
    """A server's name as a plain file name: no folders, no leading dot, at most 80 signs."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:80] or "log"


def _write_scores(state: State, path: Path) -> None:
    def entry(each: Submission) -> dict[str, Any]:
        return {
            "submission": each.id,
            "task": each.task_id,
            "status": each.status,
            "status_details": each.status_details,
            "scores": {score.column_key: float(score.score) for score in each.scores},
        }

    content = entry(state.submission) | {"status": state.status, "status_details": state.details}
    if state.children:
        del content["scores"]  # the children's, poured together: keys repeat
        content["tasks"] = [entry(child) for child in state.children]
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")

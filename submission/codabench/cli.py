"""`axonnx submission upload | status | fetch`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from submission.codabench import credentials
from submission.codabench.client import site
from submission.codabench.display import Transfers, describe, watch
from submission.codabench.eligibility import choose_phase, require_open
from submission.codabench.fetch import fetch
from submission.codabench.follow import INTERVAL, State, read
from submission.codabench.parcel import read_parcel
from submission.codabench.plan import Known, plan
from submission.codabench.records import DEFAULT, Records, Upload
from submission.codabench.upload import (
    Options,
    Person,
    goes_on,
    record_state,
    upload,
    warn_unchecked,
)
from submission.errors import ConfigError
from submission.options import seconds

INTERRUPTED = 130


def add_words(words: Any) -> None:
    """Add the three words to the sub-parsers of `axonnx submission`."""
    word = words.add_parser("upload", help="send a zip to CodaBench and follow it to its score")
    word.add_argument("zip", type=Path)
    word.add_argument(
        "--competition", type=_competition, required=True, metavar="ID", help="number or page"
    )
    word.add_argument("--phase", metavar="NAME|INDEX|ID", help="the current one where left out")
    word.add_argument(
        "--task", action="append", default=[], metavar="ID|KEY|NAME", help="only this; repeatable"
    )
    word.add_argument("--register", action="store_true", help="apply for the competition first")
    word.add_argument("--fact-sheet", type=Path, metavar="JSON", help="file of answers")
    word.add_argument("--organization", type=int, metavar="ID", help="submit for it")
    word.add_argument("--leaderboard", action="store_true", help="show the result there")
    word.add_argument("--again", action="store_true", help="submit identical bytes once more")
    word.add_argument("--anyway", action="store_true", help="submit what failed its check")
    word.add_argument("--dry-run", action="store_true", help="print what would be sent")
    word.add_argument("--no-wait", action="store_true", help="do not follow the submission")
    _common(word)
    word.set_defaults(run=lambda options: _run(_upload, options))

    word = words.add_parser("status", help="how a submission stands")
    word.add_argument("submission", nargs="?", type=int, help="the last one recorded if left out")
    word.add_argument("--watch", action="store_true", help="follow it until it ends")
    word.add_argument("--all", action="store_true", help="list what is recorded, without asking")
    _common(word)
    word.set_defaults(run=lambda options: _run(_status, options))

    word = words.add_parser("fetch", help="download scores, logs and results of a submission")
    word.add_argument("submission", type=int)
    word.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    _common(word, interval=False)
    word.set_defaults(run=lambda options: _run(_fetch, options))


def _common(word: argparse.ArgumentParser, interval: bool = True) -> None:
    word.add_argument(
        "--records", type=Path, default=DEFAULT, metavar="PATH", help=f"default {DEFAULT}"
    )
    if interval:
        word.add_argument(
            "--interval", type=seconds, default=INTERVAL, metavar="S", help="between two looks"
        )


def _competition(text: str) -> int:
    """The number in `text`, a number or a page of the site that is called."""
    if "secret_key=" in text:
        raise argparse.ArgumentTypeError(
            "set CODABENCH_SECRET_KEY, and name the competition by its number alone"
        )
    found = re.fullmatch(r"(?:https?://([^/]+)/competitions/)?(\d{1,18})/?(?:[?#].*)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no number of a competition, such as 1234")
    here = urlsplit(credentials.site_of(os.environ)).netloc
    if found[1] and found[1].lower().removeprefix("www.") != here.lower().removeprefix("www."):
        raise argparse.ArgumentTypeError(
            f"{text} is a page of another site than {here}, which is called: set CODABENCH_URL"
        )
    return int(found[2])


def _run(work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    # httpx logs whole URLs, and signed ones are as good as a password.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return work(options)
    except KeyboardInterrupt:
        print(
            "axonnx: stopped; run the same command again to go on. What was submitted goes on at "
            "CodaBench: axonnx submission status --watch",
            file=sys.stderr,
        )
        return INTERRUPTED


def _console(stderr: bool = False) -> Console:
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _upload(options: argparse.Namespace) -> int:
    console, records = _console(), Records(options.records)
    wish = Options(
        options.zip,
        options.competition,
        options.phase,
        tuple(options.task),
        options.register,
        options.again,
        options.leaderboard,
        _answers(options.fact_sheet),
        options.organization,
        options.anyway,
    )
    if options.dry_run:
        return _dry_run(console, records, wish)
    read_parcel(options.zip)  # a wrong file is told before a password is asked for
    with credentials.connect(os.environ) as client:
        with Transfers(console) as transfers:
            person = Person(partial(say, console), transfers.begin(options.zip.name), _ask)
            submission = upload(client, records, wish, person)
        if options.no_wait:
            say(console, f"next: axonnx submission status {submission} --watch")
            return 0
        state = watch(client, records, submission, options.interval, console)
        if options.leaderboard and state.passed:
            client.put_on_leaderboard(submission)
            name = records.name_of(client.url, submission)
            records.append(name, "leaderboard", leaderboard=True)
            say(console, "on the leaderboard")
    return _verdict(console, state)


def _answers(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--fact-sheet {path}: is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"--fact-sheet {path}: must be an object of keys and answers")
    return value


def _dry_run(console: Console, records: Records, wish: Options) -> int:
    """Print the requests; only a token that is there already is used, and only to read."""
    tell, parcel = partial(say, console), read_parcel(wish.zip)
    warn_unchecked(records, parcel, tell)
    known = Known(
        username=os.environ.get("CODABENCH_USERNAME") or "{username}",
        secret_key=bool(os.environ.get("CODABENCH_SECRET_KEY")),
    )
    with credentials.anonymous(os.environ) as client:
        if credentials.token_of(os.environ) is not None:
            competition = client.competition(wish.competition)
            phase = choose_phase(competition, wish.phase)
            past = records.last(client.url, parcel.sha256, competition.id, phase.id)
            known = Known(competition, phase, past, None, known.secret_key)
            if past is None or not goes_on(past, wish):
                require_open(client, phase, tell)
            if past is not None and past.final and not (wish.again or goes_on(past, wish)):
                tell(f"! submitted already, as {past.submission}: this needs --again")
            tell(f"participant: {competition.participant_status or 'not registered'}")
        tell(f"{parcel.path}: {parcel.size} bytes, sha256 {parcel.sha256}")
        for call in plan(client.url, wish, parcel, known):
            tell(f"  {call}")
    tell("dry run: nothing was sent that changes anything")
    return 0


def _ask(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _verdict(console: Console, state: State, fetched: bool = False) -> int:
    """Print how it ended; 0 for finished with scores (or still going on), else 1."""
    number = state.submission.id
    if state.scores:
        table = Table("column", title=f"submission {number}", title_justify="left")
        table.add_column("score", justify="right")
        for key, score in state.scores.items():
            table.add_row(key, score)
        console.print(table)
    text = f"submission {number}: {state.status}"
    if state.details:
        text += f": {state.details}"
    if state.ended and state.status == "Finished" and state.unscored:
        text += ", but without scores: CodaBench refused what the scoring program wrote"
    say(console, text)
    if state.ended and not fetched:
        say(console, f"next: axonnx submission fetch {number} --output submission-{number}")
    return 0 if state.passed or not state.ended else 1


def say(console: Console, text: str) -> None:
    """Print one text as it is, unbroken."""
    console.print(text, soft_wrap=True)


def _status(options: argparse.Namespace) -> int:
    console, records = _console(), Records(options.records)
    if options.all:
        console.print(_listing(records.uploads()))
        return 0
    here = site(credentials.site_of(os.environ))
    submission = options.submission
    if submission is None:
        submitted = [entry for entry in records.uploads() if entry.submission is not None]
        if not submitted:
            raise ConfigError(f"{options.records}: no submission is recorded; name its number")
        if submitted[-1].site != here:
            raise ConfigError(
                f"the last submission went to {submitted[-1].site}, not to {here}: set "
                "CODABENCH_URL, or name a submission"
            )
        submission = submitted[-1].submission
    with credentials.connect(os.environ) as client:
        if options.watch:
            return _verdict(console, watch(client, records, submission, options.interval, console))
        state = read(client, submission)
        record_state(records, client.url, state)
    if describe(state) != state.status:  # else the verdict says as much
        say(console, describe(state))
    return _verdict(console, state)


def _listing(uploads: list[Upload]) -> Table:
    """What is recorded, in columns that fit a narrow terminal."""
    table = Table()
    for name in ("submission", "file", "competition", "status", "scores"):
        table.add_column(name, overflow="fold")
    for entry in uploads:
        status = entry.status or ("submitted" if entry.submission else "interrupted")
        competition = " ".join(
            filter(None, [str(entry.competition or ""), entry.competition_title])
        )
        table.add_row(
            str(entry.submission or "–"),
            Path(entry.file).name,
            "\n".join(filter(None, [competition, entry.phase_name])),
            f"{status}\n{entry.time[:10]}",
            "\n".join(f"{key} {value}" for key, value in entry.scores.items()),
        )
    return table


def _fetch(options: argparse.Namespace) -> int:
    console, records = _console(), Records(options.records)
    with credentials.connect(os.environ) as client, Transfers(console) as transfers:
        found = fetch(client, records, options.submission, options.output, transfers.begin)
    for name in found.files:
        say(console, str(found.folder / name))
    for text in found.missing:
        say(console, f"– {text}")
    return _verdict(console, found.state, fetched=True)

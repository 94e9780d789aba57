"""upload, status, fetch, against a platform that behaves as CodaBench does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import codabench_command
import pytest
from codabench_command import CALLS, STEPS, break_at, command
from codabench_server import (
    FAILED,
    FINISHED,
    LATE_FAILURE,
    PASSWORD,
    SCORES,
    SECRET_KEY,
    TOKEN,
    USERNAME,
    WAY,
    Look,
    Platform,
    running,
)
from rich.console import Console

from submission import contents
from submission.codabench import credentials, display, eligibility, parcel
from submission.codabench.answers import Submission
from submission.codabench.client import CodabenchClient
from submission.codabench.fetch import safe_name
from submission.codabench.follow import State
from submission.codabench.parcel import read_parcel
from submission.codabench.records import Records
from submission.codabench.transport import Patience
from submission.errors import ConfigError

SCRIPT = Path(codabench_command.__file__)


class Killed(BaseException):
    """The process ends here."""


def killed() -> NoReturn:
    raise Killed


@pytest.fixture(scope="module")
def server() -> Iterator[Platform]:
    with running() as platform:
        yield platform


@pytest.fixture
def platform(server: Platform) -> Iterator[Platform]:
    server.reset()
    yield server
    assert server.violations == []


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: Platform) -> Path:
    """A folder with a zip, the environment of a person with a token, short pauses."""
    for name in [name for name in os.environ if name.startswith("CODABENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CODABENCH_URL", platform.url)
    monkeypatch.setenv("CODABENCH_TOKEN", TOKEN)
    monkeypatch.setattr("submission.codabench.client.Patience", partial(Patience, first=0.001))
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as zipped:
        zipped.writestr("model.py", "class Model: ...")
        description = {"challenge": "neural_forecasting", "artifacts": {"affi": "ab" * 32}}
        zipped.writestr("submission.json", json.dumps(description))
    return tmp_path


def send(*words: object) -> int:
    """`axonnx submission upload model.zip` to the server's competition."""
    return command("upload", "model.zip", "--competition", 7, "--interval", 0.01, *words)


def lines(path: Path = Path("runs/submissions/records.jsonl")) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_one_zip_from_upload_to_score(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.scripts = [FINISHED]
    assert send() == 0
    printed = capsys.readouterr().out
    assert platform.changes() == [
        ("POST", "/api/datasets/"),
        ("PUT", "/bucket/" + platform.stored[0] + "/" + read_parcel(Path("model.zip")).name),
        ("PUT", f"/api/datasets/completed/{platform.stored[0]}/"),
        ("POST", "/api/submissions/"),
    ]
    assert platform.datasets[platform.stored[0]]["content"] == Path("model.zip").read_bytes()
    for text in ("0 of 5 used today, 12 of 100 in all", "95288.4712345678", "501: Finished"):
        assert text in printed
    assert "was not checked: axonnx submission check model.zip" in printed
    assert [line["step"] for line in lines()][:6] == [
        "started",
        "announced",
        "uploaded",
        "completed",
        "submitting",
        "submitted",
    ]
    [entry] = Records().uploads()
    assert (entry.submission, entry.status, entry.final) == (501, "Finished", True)
    assert entry.scores == SCORES
    assert entry.artifacts == {"affi": "ab" * 32}
    assert entry.sha256 == read_parcel(Path("model.zip")).sha256
    seen = [change.status for change in entry.statuses]
    assert seen == [look.status for look in FINISHED][:-1]


def test_a_zip_that_failed_its_check_stays_here(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    Records().append("", "checked", checked=read_parcel(Path("model.zip")).sha256, passed=False)
    assert send("--dry-run") == 0
    assert send("--no-wait") == 2
    assert "its check FAILED: mend it and check again" in capsys.readouterr().err
    assert platform.changes() == []
    assert send("--no-wait", "--anyway") == 0
    assert "FAILED its check" in capsys.readouterr().out


def test_a_checked_zip_is_not_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    sha256 = read_parcel(Path("model.zip")).sha256
    Records().add_check(sha256, passed=False)
    Records().add_check(sha256, passed=True)
    assert send("--no-wait") == 0
    assert "checked" not in capsys.readouterr().out


# ---- interrupted and repeated ---------------------------------------------------------------


@pytest.mark.parametrize("step", [f"{name}:after" for name in CALLS])
def test_an_upload_that_was_stopped_anywhere_goes_on(
    step: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_at(step, killed, patch.setattr)
        with pytest.raises(Killed):
            send()
    before = len(platform.stored)
    known = Records().uploads()
    arrived = bool(known) and known[-1].uploaded
    assert send() == 0
    assert len(platform.completed()) == 1
    assert len(platform.roots()) == 1
    assert len(platform.stored) == (1 if arrived or not before else 2)
    assert Records().uploads()[-1].scores == SCORES


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_an_upload_that_was_killed_anywhere_goes_on(step: str, platform: Platform) -> None:
    words = [sys.executable, str(SCRIPT), "upload", "model.zip", "--competition", "7"]
    words += ["--interval", "0.01"]
    environment = os.environ | {
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{SCRIPT.parent}",
        "AXONNX_TEST_KILL": step,
    }
    first = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert first.returncode == -9, first.stderr
    environment.pop("AXONNX_TEST_KILL")
    again = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(platform.completed()) == 1
    assert len(platform.roots()) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/datasets/$"),
        ("PUT", "/bucket/"),
        ("PUT", "/completed/"),
        ("POST", "/api/submissions/$"),
        ("GET", "/api/submissions/"),
    ],
)
@pytest.mark.parametrize(
    "kind", [pytest.param("drop", marks=pytest.mark.slow), pytest.param("drop_after")]
)
def test_an_answer_that_is_lost_makes_no_second_submission(
    method: str, path: str, kind: str, platform: Platform
) -> None:
    platform.fail(method, path, kind)
    assert send() == 0 or send() == 0
    assert len(platform.completed()) == 1
    assert len(platform.roots()) == 1


def test_a_creation_without_an_answer_is_never_sent_twice_in_one_run(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.fail("POST", "/api/submissions/$", "status", 9, 503)
    assert send() == 1
    assert platform.changes().count(("POST", "/api/submissions/")) == 1
    assert "run the same command again" in capsys.readouterr().err


def test_a_lost_data_set_is_uploaded_anew(platform: Platform) -> None:
    platform.fail("POST", "/api/submissions/$", "status", 1, 403)
    assert send() == 1
    platform.datasets.pop(platform.stored[0])
    assert send() == 1  # the platform says that it does not know the data set
    assert send() == 0
    assert len(platform.roots()) == 1


def test_identical_bytes_are_submitted_again_only_on_purpose(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send() == 0
    assert send() == 2
    assert "submitted already, as 501 (Finished)" in capsys.readouterr().err
    assert send("--again") == 0
    assert [sent.id for sent in platform.roots()] == [501, 502]
    Path("runs/submissions/records.jsonl").unlink()
    assert send() == 2  # the platform's own list tells
    assert "as 502 (Finished)" in capsys.readouterr().err


def test_a_submission_on_its_way_is_followed_not_repeated(platform: Platform) -> None:
    assert send("--no-wait") == 0
    platform.used = platform.per_day
    platform.statuses[71] = "Previous"
    assert send("--phase", 71) == 0
    assert len(platform.roots()) == 1


def test_a_submission_that_was_deleted_meanwhile(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send("--no-wait") == 0
    del platform.submissions[501]
    assert send() == 1
    assert "`upload --again` submits its file once more" in capsys.readouterr().err
    assert send("--again") == 0


def test_numbers_of_two_sites_are_kept_apart(tmp_path: Path) -> None:
    records = Records(tmp_path / "two.jsonl")
    for site, status in (("https://one.example", "Failed"), ("https://two.example", "Finished")):
        name = records.name_of(site, 5)
        records.append(name, "status", site=site, submission=5, status=status)
    assert [entry.status for entry in records.uploads()] == ["Failed", "Finished"]


def test_two_uploads_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with Records().exclusively():
        assert send() == 2
    assert "another upload is under way" in capsys.readouterr().err


def test_a_zip_that_changes_on_the_way_is_not_submitted(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = CodabenchClient.create_dataset

    def rewritten(self: CodabenchClient, *args: object) -> object:
        path = Path("model.zip")
        path.write_bytes(path.read_bytes()[::-1])
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(CodabenchClient, "create_dataset", rewritten)
    assert send() == 2
    assert "changed while it was being sent" in capsys.readouterr().err
    assert platform.stored == []


# ---- what is refused, and before anything is sent -------------------------------------------


def refused(platform: Platform, *words: object) -> None:
    assert send(*words) in (1, 2)
    assert platform.changes() == []


def test_the_phase(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    refused(platform, "--phase", "phase A")
    assert "'phase A' (index 0, id 70, Previous) runs from" in capsys.readouterr().err
    refused(platform, "--phase", "final")
    assert "its phases are 'phase A' (index 0, id 70, Previous);" in capsys.readouterr().err
    platform.statuses[72] = "Current"
    refused(platform)
    assert "several phases are current" in capsys.readouterr().err
    assert send("--phase", 1, "--no-wait") == 0
    assert send("--phase", 72, "--no-wait") == 0
    assert {sent.phase for sent in platform.roots()} == {71, 72}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://elsewhere.example/competitions/7/", "another site"),
        ("{site}/competitions/7/?secret_key=distinctive-key", "set CODABENCH_SECRET_KEY"),
    ],
)
def test_pages_that_are_not_taken_for_a_number(
    text: str, said: str, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command("upload", "model.zip", "--competition", text.format(site=platform.url))
    printed = capsys.readouterr().err
    assert said in printed
    assert "distinctive-key" not in printed
    assert platform.calls == []


def test_a_page_with_its_tab(platform: Platform) -> None:
    page = f"{platform.url}/competitions/7/#/participate-tab"
    assert command("upload", "model.zip", "--competition", page, "--interval", 0.01) == 0


def test_an_interval_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        send("--interval", "soon")
    assert "soon is no positive number of seconds" in capsys.readouterr().err


def test_the_tasks(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    platform.tasks = {11: "affi", 12: "beignet"}
    refused(platform, "--task", "gorilla")
    assert "it has 11 (affi), 12 (beignet)" in capsys.readouterr().err
    assert send("--task", "beignet", "--no-wait") == 0
    [sent] = platform.roots()
    assert sent.task == 12


def test_the_quota(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    platform.used = 5
    refused(platform)
    captured = capsys.readouterr()
    assert "5 of 5 used today" in captured.out
    assert "Reached maximum allowed submissions for today" in captured.err


def test_the_limit_that_is_reached_meanwhile(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("submission.codabench.upload.require_open", lambda *args: None)
    platform.used = 5
    assert send() == 1
    assert "500: (an HTML page); CodaBench answers so when" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["", "pending", "denied"])
def test_the_participant(
    status: str, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.participant = status
    refused(platform)
    assert "not approved" in capsys.readouterr().err


def test_registration(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.published, platform.participant = False, ""
    refused(platform, "--register")
    assert "set CODABENCH_SECRET_KEY" in capsys.readouterr().err
    monkeypatch.setenv("CODABENCH_SECRET_KEY", SECRET_KEY)
    assert send("--register") == 0
    assert SECRET_KEY not in capsys.readouterr().out + Path(Records().path).read_text("utf-8")
    platform.participant, platform.auto_approve = "", False
    assert send("--register", "--again") == 1
    assert "an organiser must approve it" in capsys.readouterr().err


def test_the_fact_sheet(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    platform.fact_sheet = {"team": {}, "method": {}}
    Path("sheet.json").write_text('{"team": "x"}')
    refused(platform, "--fact-sheet", "sheet.json")
    assert "asks for method, team" in capsys.readouterr().err
    Path("sheet.json").write_text('{"team": "x", "method": "gru"}')
    assert send("--fact-sheet", "sheet.json", "--no-wait") == 0
    assert platform.roots()[0].fact_sheet == {"team": "x", "method": "gru"}
    Path("sheet.json").write_text("[1]")
    assert send("--fact-sheet", "sheet.json") == 2


def test_the_file(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.tar").write_bytes(Path("model.zip").read_bytes())
    long = Path("n" * 61 + ".zip")
    long.write_bytes(Path("model.zip").read_bytes())
    Path("text.zip").write_text("no zip")
    for name in ("model.tar", long, "text.zip", "missing.zip"):
        assert command("upload", name, "--competition", 7) in (1, 2)
    assert platform.calls == []
    assert "names that end in .zip" in capsys.readouterr().err


def test_storage_that_is_full(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    platform.quota = 10
    assert send() == 1
    assert "data_file: Insufficient storage space" in capsys.readouterr().err


def test_a_zip_that_describes_itself_oddly(tmp_path: Path) -> None:
    for content in (b"[]", b"\xff", b'{"challenge": 1, "artifacts": []}', b"[" * 5000):
        with zipfile.ZipFile("odd.zip", "w") as zipped:
            zipped.writestr("submission.json", content)
        assert read_parcel(Path("odd.zip")).artifacts == {}
    assert parcel.CONTENTS == contents.FILE


# ---- how it ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (FAILED, "501: Failed: Child task failed or non-zero return code"),
        (LATE_FAILURE, "501: Failed: Could not find scores file"),
        ((*WAY, Look("Cancelled")), "501: Cancelled"),
        ((Look("Finished"),), "Finished, but without scores"),
    ],
)
def test_ends_without_a_score(
    script: tuple[Look, ...],
    text: str,
    platform: Platform,
    capsys: pytest.CaptureFixture[str],
) -> None:
    platform.scripts = [script]
    assert send() == 1
    assert text in capsys.readouterr().out


def test_failed_tasks_of_a_parent_that_finished(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.tasks = {11: "affi", 12: "beignet"}
    platform.scripts = [FINISHED, FAILED]
    assert send() == 1
    printed = capsys.readouterr().out
    assert "501: Failed: 1 of 2 tasks did not finish: Child task failed" in printed
    assert "task 11: total_MSR" in printed
    [entry] = Records().uploads()
    assert entry.status == "Failed"
    assert entry.children == {"502": {"status": "Finished"}, "503": {"status": "Failed"}}


def test_several_tasks_that_finish(platform: Platform) -> None:
    platform.tasks = {11: "affi", 12: "beignet"}
    assert send() == 0
    assert len(platform.roots()) == 1


def test_the_leaderboard(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert send("--leaderboard") == 0
    assert platform.roots()[0].on_leaderboard
    assert send("--leaderboard") == 2
    assert send("--again") == 0
    assert send("--leaderboard") == 0  # the one that was not shown yet
    assert [sent.on_leaderboard for sent in platform.roots()] == [True, True]
    platform.rule = "Force_Best"
    assert send("--leaderboard", "--again") == 1
    assert "chooses the leaderboard's submissions by itself" in capsys.readouterr().err


def test_a_platform_that_goes_away_meanwhile(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.fail("GET", "/api/submissions/501/", "html", 9, 502)
    assert send() == 1
    assert "axonnx submission status 501 --watch" in capsys.readouterr().err


def test_a_person_may_stop_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(CodabenchClient, "complete", stop)
    assert send() == 130
    assert "run the same command again to go on" in capsys.readouterr().err


# ---- dry run ----------------------------------------------------------------------------------


def test_a_dry_run_prints_what_an_upload_sends(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--leaderboard", "--register")
    platform.participant = ""
    assert send("--dry-run", *words) == 0
    assert platform.changes() == []
    printed = capsys.readouterr().out
    assert not Path("runs").exists()
    platform.calls.clear()
    assert send(*words) == 0
    planned = [line.split()[:2] for line in printed.splitlines() if line.startswith("  P")]
    planned += [line.split()[:2] for line in printed.splitlines() if line.startswith("  GET")]
    changes = [line for line in planned if line[0] != "GET"]
    key = platform.stored[0]
    filled = [
        (method, url.replace("{key}", key).replace("{submission}", "501").split(platform.url)[-1])
        for method, url in changes
    ]
    sent = [
        (method, "{sassy_url}" if path.startswith("/bucket") else path)
        for method, path in platform.changes()
    ]
    assert filled == sent
    body = next(c.body for c in platform.calls if c.path == "/api/datasets/")
    assert json.dumps(body) in printed


def test_a_dry_run_without_a_token_asks_nobody(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CODABENCH_TOKEN")
    monkeypatch.setenv("CODABENCH_USERNAME", USERNAME)
    monkeypatch.setenv("CODABENCH_PASSWORD", PASSWORD)
    assert send("--dry-run") == 0
    assert platform.calls == []
    printed = capsys.readouterr().out
    assert '{"username": "ada", "password": "***"}' in printed
    assert PASSWORD not in printed


def test_a_dry_run_of_an_interrupted_upload_shows_the_rest(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        break_at("append uploaded:after", killed, patch.setattr)
        with pytest.raises(Killed):
            send()
    capsys.readouterr()
    assert send("--dry-run") == 0
    printed = capsys.readouterr().out
    assert "sassy_url" not in printed
    assert f"/api/datasets/completed/{platform.stored[0]}/" in printed
    assert send() == 0
    assert send("--dry-run") == 0
    assert "! submitted already, as 501: this needs --again" in capsys.readouterr().out


# ---- status and fetch -------------------------------------------------------------------------


def test_status(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    platform.scripts = [FINISHED]
    assert command("status") == 2
    assert send("--no-wait") == 0
    assert command("status") == 0
    assert "501: Submitting" in capsys.readouterr().out
    assert command("status", "--watch", "--interval", 0.01) == 0
    assert "Running" in capsys.readouterr().out
    assert command("status", 501) == 0
    assert command("status", 999) == 1
    assert "it is another account's" in capsys.readouterr().err
    platform.calls.clear()
    assert command("status", "--all") == 0
    assert platform.calls == []
    assert "501" in capsys.readouterr().out


def test_status_never_takes_the_token_to_a_recorded_site(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    Records().append("x", "submitted", site="https://elsewhere.example", submission=3)
    assert command("status") == 2
    assert "set CODABENCH_URL" in capsys.readouterr().err


def test_fetch(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert send() == 0
    platform.log_names = ["scoring_stdout", "../../etc/passwd", "scoring stdout", "scoring/stdout"]
    platform.hide_prediction = True
    assert command("fetch", 501, "--output", "got") == 0
    files = sorted(p.relative_to("got").as_posix() for p in Path("got").rglob("*") if p.is_file())
    assert files == [
        "logs/etc_passwd.txt",
        "logs/scoring_stdout-2.txt",
        "logs/scoring_stdout-3.txt",
        "logs/scoring_stdout.txt",
        "scores.json",
        "scoring_result.zip",
    ]
    assert Path("got/logs/scoring_stdout.txt").read_text() == "501 scoring_stdout\n"
    scores = json.loads(Path("got/scores.json").read_text("utf-8"))
    assert scores["scores"] == {key: float(score) for key, score in SCORES.items()}
    assert "– prediction_result.zip: hidden by the phase" in capsys.readouterr().out
    assert Records().uploads()[-1].fetched == str(Path("got").absolute())
    assert command("fetch", 501, "--output", "got") == 2


def test_fetch_of_several_tasks(platform: Platform) -> None:
    platform.tasks = {11: "affi", 12: "beignet"}
    assert send() == 0
    assert command("fetch", 501, "--output", "got") == 0
    assert Path("got/task_12/logs/scoring_stdout.txt").read_text() == "503 scoring_stdout\n"
    scores = json.loads(Path("got/scores.json").read_text("utf-8"))
    assert [task["task"] for task in scores["tasks"]] == [11, 12]


def test_fetch_of_a_hidden_phase(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert send() == 0
    platform.hide_output = True
    assert command("fetch", 501, "--output", "got") == 0
    assert [p.name for p in Path("got").iterdir()] == ["scores.json"]
    assert "the phase hides its output" in capsys.readouterr().out


def test_a_fetch_that_fails_leaves_nothing(platform: Platform) -> None:
    assert send() == 0
    platform.fail("GET", "/bucket/", "status", 99, 503)
    before = sorted(p.name for p in Path().iterdir())
    assert command("fetch", 501, "--output", "got") == 1
    assert sorted(p.name for p in Path().iterdir()) == before


@pytest.mark.parametrize("link", ["http://example.org/x", "file:///etc/passwd", "https://u:p@h/x"])
def test_fetch_asks_no_other_kind_of_host(
    link: str, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send() == 0
    platform.detail_urls["scoring_result"] = link
    assert command("fetch", 501, "--output", "got") == 1
    assert "the URL of scoring_result.zip" in capsys.readouterr().err


def test_names_that_a_server_gives() -> None:
    assert safe_name("../..") == "log"
    assert safe_name(".hidden\x1b[2J") == "hidden_2J"
    assert len(safe_name("x" * 500)) == 80


# ---- credentials ------------------------------------------------------------------------------


def test_credentials_by_name_and_password(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CODABENCH_TOKEN")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert send() == 2
    assert "no credentials: set CODABENCH_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("CODABENCH_USERNAME", USERNAME)
    monkeypatch.setenv("CODABENCH_PASSWORD", "wrong-password")
    assert send() == 2
    captured = capsys.readouterr().err
    assert "does not take this user name and password" in captured
    assert "wrong-password" not in captured
    monkeypatch.setenv("CODABENCH_PASSWORD", PASSWORD)
    assert send() == 0


def test_credentials_that_a_person_types(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(f"{USERNAME}\n"))
    monkeypatch.setattr("getpass.getpass", lambda prompt: PASSWORD)
    environment = {"CODABENCH_URL": platform.url}
    with credentials.connect(environment) as client:
        assert client.can_submit(71).can


@pytest.mark.slow
def test_secrets_are_written_nowhere(platform: Platform, place: Path) -> None:
    """Every output, record and trace of failing and passing commands, with a known token."""
    script = """
import logging, sys
logging.basicConfig(level=logging.INFO)
import codabench_command as c
from submission.codabench import client as codabench
from submission.codabench.transport import Patience
from functools import partial
codabench.Patience = partial(Patience, first=0.001)
upload = ["upload", "model.zip", "--competition", "7", "--interval", "0.01"]
for words in ([*upload, "--dry-run"], upload, ["status"], ["status", "--all"],
              ["fetch", "501", "--output", "got"], ["status", "999"]):
    c.command(*words)
def broken(*args):
    raise RuntimeError("a fault of this program")
codabench._read = broken
c.command("status", "501")
"""
    platform.log_names = ["prediction_stdout"]
    platform.published = False
    platform.fail("GET", "/api/submissions/999/", "body", 1, (400, json.dumps(TOKEN).encode()))
    environment = os.environ | {
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{SCRIPT.parent}",
        "CODABENCH_SECRET_KEY": SECRET_KEY,
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert b"a fault of this program" in done.stderr
    assert b"answered 400: ***" in done.stderr
    assert Path("got/scores.json").is_file(), done.stderr
    written = done.stdout + done.stderr
    for path in place.rglob("*"):
        if path.is_file():
            written += path.read_bytes()
    for secret in (TOKEN, SECRET_KEY, PASSWORD, "X-Amz-Signature"):
        assert secret.encode() not in written


# ---- what a terminal shows --------------------------------------------------------------------


def test_progress_on_a_terminal(platform: Platform) -> None:
    platform.scripts = [FINISHED]
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    with credentials.connect(os.environ) as client, display.Transfers(screen) as transfers:
        zipped = read_parcel(Path("model.zip"))
        dataset = client.create_dataset(zipped.name, zipped.size, 7)
        with zipped.path.open("rb") as file:
            advance = transfers.begin("model.zip")
            client.upload(dataset, file, zipped.size, zipped.sha256, advance)
        body = {"data": dataset.key, "phase": 71, "tasks": []}
        number = client.create_submission(body).id
        state = display.watch(client, Records(), number, 0.01, screen)
    assert state.passed
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "model.zip" in shown
    assert "Preparing → Running → Scoring" in shown


def test_a_quota_without_a_limit() -> None:
    phase = eligibility.choose_phase(
        _competition([{"id": 1, "name": "p", "status": "Current", "has_max_submissions": False}]),
        None,
    )
    assert eligibility.quota(phase) == "quota of phase 'p': no limit"


def test_a_phase_number_that_is_an_index_and_an_id() -> None:
    competition = _competition([{"id": 1, "index": 0}, {"id": 9, "index": 1}])
    with pytest.raises(ConfigError, match="may mean several"):
        eligibility.choose_phase(competition, "1")


def _competition(phases: list[dict[str, object]]) -> eligibility.Competition:
    return eligibility.Competition.model_validate({"id": 7, "phases": phases})


def test_a_parent_that_ended_before_its_children_is_not_over() -> None:
    parent = Submission(id=1, status="Finished", children=(2,))
    child = Submission(id=2, status="Scoring", parent=1)
    assert not State(parent, (child,)).ended


def test_damaged_records_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    name = records.start(site="s", sha256="a", competition=1, phase=2)
    with records.path.open("ab") as file:
        file.write(b'\xff[1\n{"upload": 3}\n"text"\n{"upload": "odd", "bytes": "x"}\n{"upl')
    records.append(name, "announced", key="k")
    [entry] = records.uploads()
    assert (entry.key, entry.site) == ("k", "s")

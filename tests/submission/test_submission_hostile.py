"""Submissions that leave odd things behind: nothing hangs, nothing outside is read or kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from broken_submissions import SETTINGS
from broken_zips import entry, pack

from artifact.arrays import encode_npz
from submission import challenges, cli, predictions
from submission.checking import trial
from submission.checking.check import Report, check
from submission.errors import RunError, printable
from submission.worker import process
from submission.worker.engines import Mount
from submission.worker.job import JobFolder
from submission.worker.transfer import MAX_DEPTH, copy_left, remove, workplace

HOSTILE = """
import json, measure

def bent(self):
    out = "/app/output"
    answers = sorted(name for name in os.listdir(out) if name.endswith(".predictions.npz"))
    {}
    json.dump({{"calls": [{{"name": [], "seconds": 1.0}}, 3], "modules": 3, "versions": [[]]}},
              open(out + "/ingestion.json", "w"))

measure.Measurement.write = bent
"""


def nested(folder: Path, depth: int) -> Path:
    """A folder with folders in it, deeper than any path can name."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 20, dir_fd=here)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    return folder


def test_folders_without_end_are_refused_and_removed(tmp_path: Path):
    left = nested(tmp_path / "output", 3000)
    with pytest.raises(RunError, match=f"output folder holds over {MAX_DEPTH} nested folders"):
        copy_left(left, tmp_path / "got")
    with workplace("axonnx-test-") as work:
        left.rename(work / "output")
        (work / "link").symlink_to(tmp_path)
        (work / "shut" / "in").mkdir(parents=True)
        (work / "shut" / "in").chmod(0)
        (work / "shut").chmod(0)
    assert not work.exists()
    assert (tmp_path / "got").is_dir()
    remove(tmp_path / "absent")


def test_output_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch):
    (tmp_path / "output").mkdir()
    with open(tmp_path / "output" / "sparse", "wb") as file:
        file.truncate(1 << 20)
    usage = (1 << 30, 0, (1 << 20) + 2)
    named = type("Usage", (), dict(zip(("total", "used", "free"), usage, strict=True)))
    monkeypatch.setattr("shutil.disk_usage", lambda path: named)
    with pytest.raises(RunError, match="holds over 1000000 files or 524289 bytes"):
        copy_left(tmp_path / "output", tmp_path / "got")


@dataclass(frozen=True)
class Shutting:
    """An engine whose programs take the rights of their output away."""

    status: int = 0
    peak_bytes: None = None
    out_of_memory: bool = False
    name: str = "shutting"

    def describe(self) -> str:
        return self.name

    def start(self, words: object, mounts: Sequence[Mount], *streams: Path) -> Shutting:
        (output,) = (mount.host for mount in mounts if mount.container == "/app/output")
        output.chmod(0)
        return self

    def wait(self, seconds: float) -> int:
        return self.status

    def kill(self) -> None:
        pass


def test_a_shut_output_is_opened_for_the_worker(tmp_path: Path):
    program = tmp_path / "given"
    program.mkdir()
    (program / "metadata").write_text("command: shut")
    parts = {"program": program, "input_data": None}
    job = JobFolder("prediction", tmp_path / "job", parts, Shutting(), False, 1.0)
    job.unpack()
    job.run()
    assert stat.S_IMODE(job.output.stat().st_mode) == 0o700
    job.close()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_only_plain_files_are_predictions(tmp_path: Path, kind: str):
    real = tmp_path / "real.npz"
    real.write_bytes(encode_npz({"arr_0": np.zeros(1)}))
    output = tmp_path / "output"
    output.mkdir()
    for name in ("x.npz", "ingestion.json"):
        make = {"pipe": os.mkfifo, "folder": os.mkdir}.get(kind, lambda at: os.symlink(real, at))
        make(output / name)
    with pytest.raises(RunError, match=r"x\.npz: is no plain file"):
        predictions.read_arrays(output / "x.npz", left=True)
    assert trial._facts(output) == {}


def test_a_strangers_text_cannot_play_with_the_terminal():
    report = Report()
    report.add("failed", "gives \x1b[2J\u202eabc\x9b\udcff\r,\tarr_0\nand more")
    assert report.findings[0].text == "gives ?[2J?abc???,\tarr_0\nand more"
    assert printable("µECoG, 日本, é") == "µECoG, 日本, é"


def checked(files: dict[str, bytes], path: Path) -> Report:
    """The report on a zip of `files`."""
    settings = dict(SETTINGS["forecast"])
    challenge = challenges.get(str(settings.pop("name")))
    chosen = challenge, challenge.settings.model_validate(settings)
    return check(pack(files, path), challenge=chosen, pythons=["3.11"])


@pytest.mark.slow
def test_a_crash_behind_predictions_that_the_zip_carries_is_no_success(tmp_path: Path):
    rows = {"affi": (12, 20, 5), "affi_private": (14, 20, 5), "beignet": (11, 20, 3)}
    stale = {
        f"test_{name}.predictions.npz": encode_npz({"arr_0": np.zeros(shape, np.float32)})
        for name, shape in rows.items()
    }
    report = checked({**entry(predict="raise KeyError('gone')"), **stale}, tmp_path / "stale.zip")
    text = report.findings[-1].text
    assert not report.passed
    assert "your model crashed in predict(): KeyError: 'gone'" in text
    assert "CodaBench would show: Finished. The ingestion program ended with status 1" in text


@pytest.mark.slow
def test_a_second_run_that_fails_is_said_and_so_is_a_missing_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs, real = [], trial.run

    def once(*arguments: object) -> trial.Trial:
        runs.append(real(*arguments))  # type: ignore[arg-type]
        return runs[0] if len(runs) == 1 else replace(runs[-1], problem="x.npz: was not written")

    monkeypatch.setattr(trial, "run", once)
    monkeypatch.setattr(process, "_namespaces", lambda interpreter: (None, "as a test"))
    report = checked(entry(), tmp_path / "good.zip")
    (warned,) = [finding.text for finding in report.findings if finding.status == "warning"]
    assert "NOT ISOLATED (as a test)" in warned
    assert "a second run failed, the first did not: x.npz: was not" in report.findings[-1].text


@pytest.mark.slow
def test_a_crash_after_everything_was_predicted_is_a_warning(tmp_path: Path):
    top = "import atexit\natexit.register(os._exit, 3)"
    report = checked(entry(top=top), tmp_path / "late.zip")
    (text,) = [finding.text for finding in report.findings if finding.status == "warning"]
    assert report.passed
    assert "after everything was predicted, it ended with status 3; CodaBench ignores" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("pass", ""),
        ("os.remove(f'{out}/{answers[0]}'); os.mkfifo(f'{out}/{answers[0]}')", "is missing"),
        (
            "os.remove(f'{out}/{answers[0]}'); os.symlink('/etc/hostname', f'{out}/{answers[0]}')",
            "is missing",
        ),
        ("[(os.mkdir('d'), os.chdir('d')) for _ in [os.chdir(out)] * 2000]", "nested folders"),
        ("np.savez(f'{out}/{answers[0]}', **{'\\x1b[2J': np.zeros(3)})", "holds ?[2J"),
        ("os.truncate(f'{out}/{answers[0]}', 1 << 40)", "more than is kept here"),
    ],
)
def test_whatever_it_leaves_ends_in_a_report(tmp_path: Path, lines: str, text: str):
    report = checked(entry(top=HOSTILE.format(lines)), tmp_path / "hostile.zip")
    failed = [finding.text for finding in report.findings if finding.status == "failed"]
    assert report.passed == (not text)
    assert text in "".join(failed)
    assert "\x1b" not in "".join(failed)


def test_a_place_that_cannot_be_written_leaves_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    zip_file = pack({}, tmp_path / "empty.zip")
    words = ["submission", "check", str(zip_file), "--records", str(tmp_path / "file" / "records")]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "FAILED: 1 of 1 checks"
    assert "axonnx: not recorded: " in said.err

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from submission_helpers import bend, members

from artifact.bundle import write_zip
from submission import challenges, cli
from submission.scoring import budgets
from submission.scoring import cli as score_cli
from submission.scoring.budgets import Budget, Part
from submission.scoring.timings import Rate, Timing


def command(*words: object) -> int:
    return cli.main(["submission", *map(str, words)])


def timing(python: str = "3.10", **changes: object) -> Timing:
    values = Timing(
        python, "1.23.2", 0.8, 0.7, 0.0, 0.3, {"affi": 0.1},
        (Rate("", "affi", 1, 0.002), Rate("affi", "affi", 100, 0.1)), 123_000_000, 12.0,
    )  # fmt: skip
    return replace(values, **changes)  # type: ignore[arg-type]


def budget(*timings: Timing, parts: tuple[Part, ...] = ()) -> Budget:
    return Budget(
        "submission.zip", "f" * 64, "neural_forecasting", 10, 20,
        parts or (Part("model.py", 10, 20), Part("vendor/cp310", 8_400_000, 24_000_000)),
        600.0, "a processor", timings, ("a note",),
    )  # fmt: skip


def test_sizes_by_part(tmp_path: Path):
    files = {
        "model.py": b"x" * 1000,
        "artifacts/affi/model.onnx": b"y" * 500,
        "artifacts/affi/manifest.json": b"z" * 7,
        "artifacts/beignet/model.onnx": b"",
        "vendor/cp310/onnxruntime/capi/a.so": b"w" * 4000,
        "artifact/__init__.py": b"v",
    }
    found = budgets.sizes(write_zip(files, tmp_path / "a.zip"))
    assert {part.name: part.unpacked for part in found} == {
        "artifact": 1,
        "artifacts/affi": 507,
        "artifacts/beignet": 0,
        "model.py": 1000,
        "vendor/cp310": 4000,
    }
    assert all(part.zipped < 1000 for part in found)
    assert [part.name for part in found] == sorted(part.name for part in found)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, ""),
        ({"cold_start": 2.01}, "Python 3.10: cold start within 2 s"),
        ({"projected": 301.0}, "Python 3.10: the whole test set within 50% of 600 s"),
    ],
)
def test_verdicts_on_times(changes: dict[str, float], missed: str):
    found = budget(timing(**changes)).verdicts()
    assert len(found) == 3
    assert [text for text, met in found.items() if not met] == ([missed] if missed else [])


def test_what_the_image_imports_is_not_the_zips_cost():
    found = budget(timing(cold_start=4.0, packages=3.0)).verdicts()
    assert found["Python 3.10: cold start within 2 s, the image's own packages apart"]
    assert not all(budget(timing(cold_start=4.0, packages=1.0)).verdicts().values())


def test_verdict_on_the_vendored_runtime():
    found = budget(parts=(Part("vendor/cp311", 12_000_001, 1),)).verdicts()
    assert found == {"vendor/cp311: at most 12 MB zipped": False}


def test_unknown_rows_have_no_projection_and_no_verdict():
    found = budget(timing(projected=None))
    assert len(found.verdicts()) == 2
    assert "| whole test set, s | - |" in budgets._markdown(found)


def test_report_lies_beside_the_zip_and_is_a_function_of_what_was_measured(tmp_path: Path):
    path = tmp_path / "submission.zip"
    found = budget(timing(), timing("3.11"))
    written = budgets.write(found, path)
    assert [file.name for file in written] == ["submission.report.json", "submission.report.md"]
    first = [file.read_bytes() for file in written]
    assert [file.read_bytes() for file in budgets.write(found, path)] == first
    value = json.loads(first[0])
    assert list(value) == sorted(value)
    assert value["sha256"] == "f" * 64
    assert value["timings"][1]["python"] == "3.11"
    assert all(value["verdicts"].values())
    text = first[1].decode()
    assert "| cold start, s | 0.80 | 0.80 |" in text
    assert "| affi, 100 rows at once, ms per row | 1.00 | 1.00 |" in text
    assert "| of 600 s | 2.0% | 2.0% |" in text
    assert "- met: Python 3.11: cold start within 2 s" in text
    assert "- a note" in text
    assert not path.exists()


def test_table_says_what_is_missed(capsys: pytest.CaptureFixture[str]):
    score_cli.print_budget(Console(width=100), budget(timing(cold_start=3.0)))
    printed = capsys.readouterr().out
    assert "✗ Python 3.10: cold start within 2 s" in printed
    assert "✓ vendor/cp310: at most 12 MB zipped" in printed
    assert "3.00" in printed
    assert "8.400" in printed


def test_what_the_platform_does_not_run_has_sizes_alone(tmp_path: Path):
    challenge = challenges.get("generic")
    settings = challenge.settings.model_validate(
        {"kind": "result", "data": {"a": {"subject": "main"}}}
    )
    path = write_zip({"a.predictions.npz": b"12345"}, tmp_path / "submission.zip")
    found = budgets.measure(path, challenge.definition(settings, ()), None)
    assert found.timings == ()
    assert found.notes == ("the platform runs nothing of it: no times",)
    assert found.unpacked == 5
    assert found.verdicts() == {}


def test_no_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert command("report", tmp_path / "a.zip") == 1
    assert "is no zip that can be read" in capsys.readouterr().err


@pytest.mark.slow
def test_report_of_what_build_writes(
    small_zip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """On one core, as the submission itself can tell."""
    guard = b"\nassert len(os.sched_getaffinity(0)) == 1\n"
    path = bend(small_zip, tmp_path / "submission.zip", {"model.py": lambda data: data + guard})
    before = path.read_bytes()
    command("report", path)
    printed = capsys.readouterr().out
    assert "submission.report.md and .json lie beside the zip" in printed
    assert path.read_bytes() == before
    value = json.loads((tmp_path / "submission.report.json").read_bytes())
    assert value["sha256"] == hashlib.sha256(before).hexdigest()
    (found,) = value["timings"]
    assert found["python"] == "3.11"
    assert found["onnxruntime"] == "1.31.1"
    assert found["cold_start"] > found["imported"] > 0.0
    assert found["peak_bytes"] > 10_000_000
    assert list(found["loaded"]) == ["affi", "beignet"]
    rates = {(rate["set"], rate["subject"]): rate["rows"] for rate in found["rates"]}
    assert rates == {("", "affi"): 1, ("", "beignet"): 1} | {
        (name, name.partition("_")[0]): rows
        for name, rows in {
            "affi": 122, "affi_private": 162, "beignet": 87,
            "beignet_private_1": 82, "beignet_private_2": 76,
        }.items()
    }  # fmt: skip
    assert found["projected"] > found["cold_start"] * 0.5
    sizes = {part["name"]: part["unpacked"] for part in value["parts"]}
    assert sizes["model.py"] == len(members(path)["model.py"])


@pytest.mark.slow
def test_program_that_fails_is_quoted(
    small_zip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = bend(
        small_zip, tmp_path / "bent.zip", {"model.py": lambda data: data + b"raise ValueError(7)\n"}
    )
    assert command("report", path) == 1
    printed = capsys.readouterr().err
    assert "ended with status 1:" in printed
    assert "ValueError: 7" in printed
    assert [file.name for file in tmp_path.iterdir()] == ["bent.zip"]

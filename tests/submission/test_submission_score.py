from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submission_helpers import CHANNELS, bend, members, with_predict

from artifact.arrays import decode_npz, encode_npz
from artifact.bundle import write_zip
from submission import challenges, cli
from submission.challenges import Column, Definition, generic
from submission.errors import ConfigError
from submission.options import new_console
from submission.programs import write_task
from submission.rules import forecast_error, generic_metric, normalized_error
from submission.scoring import cli as score_cli
from submission.scoring import data as score_data
from submission.scoring import intervals
from submission.scoring import records as score_records
from submission.scoring.intervals import Statistics, bootstrap, differences
from submission.scoring.records import Record, Recorded
from submission.scoring.row import Score, Scored, compare, groups
from submission.scoring.score import _with_rule


def found_intervals(
    rule: Any, options: Mapping[str, Any], statistics: Statistics, sets: Any, resamples: int = 2000
) -> dict[str, intervals.Interval]:
    scores = bootstrap(rule, options, statistics, sets, resamples)
    return intervals.intervals(rule, options, statistics, sets, scores)


OPTIONS: Mapping[str, Any] = {"observed": 10, "sets": ["a", "b", "c"]}
GROUPS = [("a", "b"), ("c",)]
OVERALL = "total_MSR"


def made(seed: int = 0, rows: tuple[int, ...] = (40, 25, 30)) -> Statistics:
    """Squared errors and counts, as forecast_error leaves them; the sets differ in level."""
    generator = np.random.default_rng(seed)
    return {
        name: np.stack([level * generator.gamma(3.0, size=n), np.full(n, 2.0)], axis=1)
        for name, level, n in zip("abc", (1.0, 4.0, 2.0), rows, strict=True)
    }


def brute(statistics: Statistics, resamples: int) -> dict[str, np.ndarray]:
    """The same by loops over rows: sets of a group are drawn for the overall column alone."""
    generator = np.random.default_rng(99)
    found: dict[str, list[float]] = {}

    def error(name: str) -> float:
        rows = statistics[name]
        drawn = [rows[generator.integers(len(rows))] for _ in rows]
        return float(sum(row[0] for row in drawn) / sum(row[1] for row in drawn))

    for _ in range(resamples):
        for name in statistics:
            found.setdefault(f"MSE_{name}", []).append(error(name))
        chosen = [str(generator.choice(group)) for group in GROUPS for _ in group]
        found.setdefault(OVERALL, []).append(float(np.mean([error(name) for name in chosen])))
    return {key: np.array(values) for key, values in found.items()}


def test_bootstrap_against_loops_over_rows():
    statistics = made()
    fast = bootstrap(forecast_error, OPTIONS, statistics, GROUPS, 4000)
    slow = brute(statistics, 600)
    assert list(fast) == ["MSE_a", "MSE_b", "MSE_c", OVERALL]
    for key, values in fast.items():
        spread = slow[key].std()
        assert abs(values.mean() - slow[key].mean()) < 0.15 * spread
        assert 0.87 < values.std() / spread < 1.15
        ends = np.percentile(values, [2.5, 97.5]) - np.percentile(slow[key], [2.5, 97.5])
        assert np.abs(ends).max() < 0.4 * spread


def test_interval_of_a_mean_is_what_the_formula_says():
    statistics = {"a": made(3, (400, 2, 2))["a"]}
    found = found_intervals(forecast_error, {"observed": 1}, statistics, [("a",)])
    values = statistics["a"][:, 0] / 2.0
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found["MSE_a"].low == pytest.approx(values.mean() - half, abs=0.12 * half)
    assert found["MSE_a"].high == pytest.approx(values.mean() + half, abs=0.12 * half)


def test_sets_are_drawn_again_for_columns_over_several_sets_of_one_subject_alone():
    found = found_intervals(forecast_error, OPTIONS, made(), GROUPS, 50)
    assert {key: value.drawn for key, value in found.items()} == {
        "MSE_a": "rows",
        "MSE_b": "rows",
        "MSE_c": "rows",
        OVERALL: "sets and rows",
    }
    apart = [("a",), ("b",), ("c",)]
    found = found_intervals(forecast_error, OPTIONS, made(), apart, 50)
    assert {value.drawn for value in found.values()} == {"rows"}
    statistics = {name: np.ones((5, 4)) * [1, 2, 0.1, 3] for name in ("one", "two")}
    weights = {"weights": {"one": 0.3, "two": 0.7}}
    found = found_intervals(normalized_error, weights, statistics, [("one",), ("two",)], 10)
    assert found["overall"].drawn == "rows"


def test_sessions_that_differ_widen_the_interval_of_the_overall_column():
    statistics = made(rows=(400, 400, 400))
    apart = found_intervals(forecast_error, OPTIONS, statistics, [("a",), ("b",), ("c",)], 300)
    together = found_intervals(forecast_error, OPTIONS, statistics, GROUPS, 300)
    assert together[OVERALL].low < apart[OVERALL].low
    assert together[OVERALL].high > apart[OVERALL].high


def test_draws_follow_from_the_seed_however_they_are_divided(monkeypatch: pytest.MonkeyPatch):
    statistics = made()
    first = found_intervals(forecast_error, OPTIONS, statistics, GROUPS, 40)
    assert found_intervals(forecast_error, OPTIONS, statistics, GROUPS, 40) == first
    monkeypatch.setattr(intervals, "CELLS", 1)
    one_by_one = bootstrap(forecast_error, OPTIONS, statistics, GROUPS, 40)
    assert all(np.isfinite(values).all() for values in one_by_one.values())


def test_score_that_is_sometimes_not_defined():
    """r2 of a set whose reference hardly changes: resamples without a change say nothing."""
    truth = np.zeros((4, 1))
    truth[0] = 1.0
    options = {"metric": "r2", "sets": ["a"]}
    statistics = {
        "a": generic_metric.statistics(
            {"x": truth + 0.1}, {"x": truth}, {"metric": "r2", "output": "x"}
        )
    }
    found = found_intervals(generic_metric, options, statistics, [("a",)], 200)
    assert math.isfinite(found["r2_a"].low)
    constant = {"a": generic_metric.statistics({"x": truth}, {"x": truth * 0}, options)}
    found = found_intervals(generic_metric, options, constant, [("a",)], 20)
    assert math.isnan(found["r2_a"].low)


def test_paired_differences_are_narrow_where_the_submissions_err_alike():
    one = made()
    other = {name: rows * [1.05, 1.0] for name, rows in one.items()}
    first, second = (bootstrap(forecast_error, OPTIONS, s, GROUPS, 400) for s in (one, other))
    found = differences(first, second, dict.fromkeys(first, False))
    alone = found_intervals(forecast_error, OPTIONS, one, GROUPS, 400)
    for key, gap in found.items():
        assert gap.high < 0.0
        assert gap.better == 1.0
        assert gap.equal == 0.0
        assert gap.high - gap.low < 0.2 * (alone[key].high - alone[key].low)
    turned = differences(first, second, dict.fromkeys(first, True))
    assert turned[OVERALL].better == 0.0


def test_what_is_drawn_does_not_depend_on_the_statistics():
    """An error of one in one row alone: resamples tell how often it was drawn."""
    one, other = made(1), made(2)
    for statistics in (one, other):
        for rows in statistics.values():
            rows[:] = [0.0, 1.0]
            rows[3, 0] = 1.0
    one["c"][3, 0] = other["c"][3, 0] = 5.0
    first, second = (bootstrap(forecast_error, OPTIONS, s, GROUPS, 60) for s in (one, other))
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])
    assert set(np.round(first["MSE_a"] * 40)) > {0.0, 1.0, 2.0}


def test_a_submission_beside_itself_differs_by_nothing():
    first, second = (bootstrap(forecast_error, OPTIONS, made(), GROUPS, 30) for _ in range(2))
    for gap in differences(first, second, {}).values():
        assert (gap.low, gap.high, gap.better, gap.equal) == (0.0, 0.0, 0.0, 1.0)


# --- the row and its records -------------------------------------------------------------------


def definition(names: Mapping[str, str]) -> Definition:
    """Small forecasts, raw (2 steps, 1 seen); names of sets to subjects."""
    settings = {
        "channels": dict.fromkeys(names.values(), 3),
        "steps": 2,
        "observed": 1,
        "features": 1,
        "data": {n: {"file": f"{n}_masked.npz", "subject": s} for n, s in names.items()},
    }
    challenge = challenges.get("neural_forecasting")
    return challenge.definition(challenge.settings.model_validate(settings), ())


def row(statistics: Statistics | None, data: str = "d" * 64, sha256: str = "f" * 64) -> Score:
    chosen = definition({"a": "m", "b": "m", "c": "n"})
    totals = {name: rows.sum(axis=0) for name, rows in (statistics or made()).items()}
    scores = forecast_error.columns(totals, chosen.options)
    drawn, found = None, {}
    if statistics is not None:
        common = (forecast_error, chosen.options, statistics, groups(chosen))
        drawn = bootstrap(*common, 50)
        found = intervals.intervals(*common, drawn)
    columns = tuple(Scored(c, scores[c.key], found.get(c.key)) for c in chosen.columns)
    return Score(
        zip="submission.zip", sha256=sha256, challenge=chosen.name, artifacts={"m": "0" * 64},
        data=data, place="Python 3.11", status="Finished", columns=columns, causes=(), notes=(),
        definition=chosen, statistics=statistics, resampled=drawn,
    )  # fmt: skip


def test_groups_are_the_sessions_of_a_subject():
    assert groups(definition({"a": "m", "b": "n", "c": "m"})) == [("a", "c"), ("b",)]


def test_comparison_is_paired_on_the_same_data_alone():
    before = row(made(1))
    same = compare(row(made()), before.record(), before.statistics)
    entry = same.columns[-1]
    assert entry.compared is not None
    assert entry.compared.difference is not None
    assert entry.compared.previous == before.columns[-1].score
    for other, statistics in (
        (row(made(1), data="e" * 64), made(1)),
        (before, None),
        (before, made(1, (39, 25, 30))),
    ):
        found = compare(row(made()), other.record(), statistics)
        compared = found.columns[-1].compared
        assert compared is not None
        assert compared.difference is None
        assert ("was scored on other data" in " ".join(found.notes)) == (other is not before)
        assert compared.alike == (other is before)
        assert ("difference" in score_cli._column(found.columns[-1])) == (other is before)


def test_column_that_the_earlier_record_lacks_has_no_comparison():
    before = row(made()).record()
    before = before.model_copy(update={"columns": {"MSE_a": before.columns["MSE_a"]}})
    found = compare(row(made()), before, made())
    assert [entry.compared is not None for entry in found.columns] == [True, False, False, False]


def test_records_are_kept_line_by_line_with_their_statistics(tmp_path: Path):
    path = tmp_path / "runs" / "scores.jsonl"
    first, second = row(made(1)), row(made(), sha256="a" * 64)
    score_records.append(path, first.record(), first.statistics)
    with path.open("ab") as file:
        file.write(b'{"time": "cut sho')
    score_records.append(path, second.record(), second.statistics)
    assert [record.sha256[0] for record in score_records.records(path)] == ["f", "a"]
    found = score_records.last(path, challenge="neural_forecasting", sha256="f" * 64)
    assert found is not None
    assert str(tmp_path) not in path.read_text()
    statistics = score_records.read_statistics(found, path.parent)
    assert statistics is not None
    assert {name: rows.tobytes() for name, rows in statistics.items()} == {
        name: rows.tobytes() for name, rows in made(1).items()
    }
    assert score_records.last(path, challenge="other") is None
    assert score_records.last(path, challenge="neural_forecasting", data="0") is None
    (path.parent / found.statistics).write_bytes(b"damaged")
    assert score_records.read_statistics(found, path.parent) is None
    assert score_records.records(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("text", ["", "[1]", '{"zip": "a"}', "[" * 100_000])
def test_file_that_is_no_record(tmp_path: Path, text: str):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ConfigError, match="is no record of a score"):
        score_records.read_record(tmp_path / "record.json")


@pytest.mark.parametrize("name", ["", "../secret.npz", "/etc/passwd"])
def test_statistics_lie_beside_the_record_alone(tmp_path: Path, name: str):
    record = Record(
        time="", zip="a.zip", sha256="0", challenge="c", data="d", statistics=name,
        columns={"x": Recorded(score=1.0)},
    )  # fmt: skip
    assert score_records.read_statistics(record, tmp_path) is None


# --- local data --------------------------------------------------------------------------------


def write_sets(folder: Path, sets: Mapping[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in sets.items():
        np.savez(folder / name, array)


def recording(rows: int = 3) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 2, 3, 1)).astype(np.float32)


def test_both_layouts_are_the_same_data(tmp_path: Path):
    chosen, masked = definition({"a": "m"}), recording()
    masked[:, 1] = masked[:, 0]
    write_sets(tmp_path / "one" / "input_data", {"a_masked.npz": masked})
    write_sets(tmp_path / "one" / "reference_data", {"a.npz": recording()})
    write_sets(tmp_path / "two", {"a_masked.npz": masked, "a.npz": recording()})
    one, two = (score_data.read_local(chosen, tmp_path / n, {}) for n in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.notes == ()
    np.testing.assert_array_equal(one.inputs["a"]["arr_0"], masked)
    np.testing.assert_array_equal(two.references["a"]["arr_0"], recording())


def test_inputs_are_made_from_a_whole_recording(tmp_path: Path):
    write_sets(tmp_path, {"a.npz": recording().astype(np.float64), "b.npz": recording()[..., 0]})
    found = score_data.read_local(definition({"a": "m", "b": "m"}), tmp_path, {})
    made_input = found.inputs["a"]["arr_0"]
    assert made_input.dtype == np.float32
    np.testing.assert_array_equal(made_input[:, 1], recording()[:, 0])
    np.testing.assert_array_equal(found.references["a"]["arr_0"], recording())
    assert [entry.name for entry in found.definition.sets] == ["a"]
    assert found.definition.options["sets"] == ["a"]
    text = "\n".join(found.notes)
    assert "inputs made from the answers, the rest hidden: a" in text
    assert (
        "b is left out: there is no input_data/b_masked.npz, and its reference b.npz holds no"
        in text
    )


def test_folder_without_any_set(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"holds no set .* reference_data/a.npz would be one"):
        score_data.read_local(definition({"a": "m"}), tmp_path, {})


def test_options_speak_of_the_sets_that_are_here():
    chosen = replace(
        definition({"a": "m", "b": "m", "c": "n"}),
        options={
            "sets": ["a", "b", "c"],
            "subjects": {"a": "m", "b": "m", "c": "n"},
            "weights": {"a": 0.3, "c": 0.7},
            "observed": 10,
            "folds": [1, 2],
        },
    )
    found = score_data.only(chosen, ("a", "b")).options
    assert found == {
        "sets": ["a", "b"],
        "subjects": {"a": "m", "b": "m"},
        "weights": {"a": pytest.approx(1.0)},
        "observed": 10,
        "folds": [1, 2],
    }
    assert score_data.only(chosen, ("a", "b", "c")) is chosen


def test_data_scored_by_other_options_are_not_the_same():
    chosen = definition({"a": "m"})
    other = replace(chosen, options={**chosen.options, "observed": 2})
    assert _with_rule("d" * 64, chosen) != _with_rule("d" * 64, other)
    assert _with_rule("d" * 64, chosen) == _with_rule("d" * 64, replace(chosen, sets=()))


# --- the command -------------------------------------------------------------------------------


def command(*words: object) -> int:
    return cli.main(["submission", *map(str, words)])


CONFIG = """\
challenge:
  name: generic
  kind: result
  call: array
  data:
    monday: {subject: main, output: monday.npz, reference: monday_truth.npz}
    tuesday: {subject: main, output: tuesday.npz, reference: tuesday_truth.npz}
models: {main: unused}
"""
ROWS = {"monday": 20, "tuesday": 30}


@pytest.fixture
def benchmark_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result challenge of two sessions, `config.yaml` and `data`; the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    for name, rows in ROWS.items():
        np.savez(tmp_path / "data" / f"{name}_truth.npz", np.arange(rows * 2.0).reshape(rows, 2))
    return tmp_path


def result_zip(path: Path, error: float, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    files = {}
    for name, rows in ROWS.items():
        truth = np.arange(rows * 2.0).reshape(rows, 2)
        files[f"{name}.npz"] = encode_npz(
            {"arr_0": truth + error * generator.normal(size=truth.shape)}
        )
    return write_zip(files, path)


def test_result_submission_is_scored_and_compared(
    benchmark_folder: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("--data", "data", "--config", "config.yaml", "--json")
    first = result_zip(benchmark_folder / "first.zip", 1.0)
    assert command("score", first, *words, "--output", "out") == 0
    value = json.loads(capsys.readouterr().out)
    assert [column["key"] for column in value["columns"]] == ["mse_monday", "mse_tuesday", "mse"]
    assert [c["drawn"] for c in value["columns"]] == ["rows", "rows", "sets and rows"]
    assert value["previous"] is None
    truth = np.arange(40.0).reshape(20, 2)
    answer = decode_npz(members(first)["monday.npz"])["arr_0"]
    assert value["columns"][0]["score"] == pytest.approx(np.mean((answer - truth) ** 2))
    assert {path.name for path in Path("out").iterdir()} >= {
        "scores.json", "detailed_results.html", "record.json", "logs",
    }  # fmt: skip
    second = result_zip(benchmark_folder / "second.zip", 0.5)
    assert command("score", second, *words[:-1], "--baseline", "out/record.json") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "100.0%" in printed
    assert "beside first.zip of" in printed
    records = score_records.records(score_records.DEFAULT)
    assert [record.zip for record in records] == ["first.zip", "second.zip"]


@pytest.mark.slow
def test_baselines(benchmark_folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ("--data", "data", "--config", "config.yaml", "--json")
    one = result_zip(benchmark_folder / "one.zip", 1.0)
    two = result_zip(benchmark_folder / "two.zip", 1.0, seed=1)
    # A zip that was never scored is scored first.
    assert command("score", one, *words, "--baseline", two) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["previous"]["zip"] == "two.zip"
    assert 0.0 < value["columns"][2]["better"] < 1.0
    # Without words the last run of another zip.
    assert command("score", one, *words) == 0
    assert json.loads(capsys.readouterr().out)["previous"]["zip"] == "two.zip"
    assert command("score", one, *words, "--baseline", one, "--output", "out") == 0
    value = json.loads(capsys.readouterr().out)
    assert [c["difference"] for c in value["columns"]] == [0.0, 0.0, 0.0]
    assert [c["difference_interval"] for c in value["columns"]] == [[0.0, 0.0]] * 3
    # Other data: nothing to compare with, or the values alone.
    Path("data/tuesday_truth.npz").unlink()
    assert command("score", two, *words) == 0
    assert json.loads(capsys.readouterr().out)["previous"] is None
    assert command("score", one, *words, "--baseline", "out/record.json") == 0
    value = json.loads(capsys.readouterr().out)
    assert [column["key"] for column in value["columns"]] == ["mse_monday", "mse"]
    assert all("difference_interval" not in column for column in value["columns"])
    assert any("tuesday is left out" in text for text in value["notes"])
    assert any("other data" in text for text in value["notes"])


@pytest.mark.slow
def test_wrong_predictions_are_explained(
    benchmark_folder: Path, capsys: pytest.CaptureFixture[str]
):
    path = result_zip(benchmark_folder / "wrong.zip", 1.0)
    short = encode_npz({"arr_0": np.zeros((19, 2))})
    bend(path, path, {"monday.npz": short})
    words = ("--data", "data", "--config", "config.yaml")
    assert command("score", path, *words) == 1
    printed = capsys.readouterr().out
    assert "CodaBench would show: Failed" in printed
    assert "has shape (19, 2); must be (20, 2)" in printed
    assert not score_records.DEFAULT.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--data", "data"), "submission.zip: holds no submission.json"),
        (("--data", "data"), "or name its challenge with --challenge or --config"),
        (("--data", "data", "--config", "none.yaml"), "none.yaml: no such file"),
        (("--bundle", "data"), "competition.yaml"),
        (
            ("--data", "data", "--config", "config.yaml", "--baseline", "config.yaml"),
            "is no record",
        ),
    ],
)
def test_wrong_words(
    benchmark_folder: Path,
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
):
    path = result_zip(benchmark_folder / "submission.zip", 1.0)
    assert command("score", path, *words) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_code_submission_on_a_recording_and_by_a_bundle(
    small_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    sets = {
        f"test_data_{name}.npz": generator.normal(100, 40, (12, 20, channels, 9))
        for name, channels in CHANNELS.items()
    }
    write_sets(tmp_path / "data", {name: array.astype(np.float32) for name, array in sets.items()})
    assert command("score", small_zip, "--data", "data", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert [c["key"] for c in value["columns"]] == ["MSE_affi", "MSE_beignet", "total_MSR"]
    assert all(c["interval"][0] < c["score"] < c["interval"][1] for c in value["columns"])
    chosen = challenges.get("neural_forecasting")
    described = chosen.definition(chosen.settings.model_validate({"channels": CHANNELS}), ())
    local = score_data.read_local(described, tmp_path / "data", {})
    bundle = tmp_path / "bundle"
    write_task(local.definition, local.definition.sets, local.inputs, local.references, bundle)
    write_competition_yaml(bundle, [c["key"] for c in value["columns"]])
    assert command("score", small_zip, "--bundle", bundle, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert [c["score"] for c in again["columns"]] == [c["score"] for c in value["columns"]]


def write_competition_yaml(folder: Path, keys: list[str]) -> None:
    columns = "".join(
        f"\n      - {{title: {key}, key: {key}, index: {n}, sorting: asc}}"
        for n, key in enumerate(keys)
    )
    (folder / "competition.yaml").write_text(f"""\
version: 2
title: small
image: logo.png
terms: terms.md
pages: [{{title: page, file: terms.md}}]
phases: [{{name: one, start: 2026-01-01, tasks: [0]}}]
tasks:
  - index: 0
    name: small
    scoring_program: scoring_program
    ingestion_program: ingestion_program
    input_data: input_data
    reference_data: reference_data
leaderboards:
  - title: scores
    key: main
    columns:{columns}
""")


@pytest.mark.slow
def test_bundle_with_programs_of_others_has_no_intervals(
    benchmark_folder: Path, capsys: pytest.CaptureFixture[str]
):
    bundle = benchmark_folder / "bundle"
    (bundle / "scoring_program").mkdir(parents=True)
    (bundle / "reference_data").mkdir()
    (bundle / "reference_data" / "truth.txt").write_text("1")
    (bundle / "scoring_program" / "metadata").write_text(
        "command: python3 score.py $input $output\n"
    )
    (bundle / "scoring_program" / "score.py").write_text(
        "import json, sys\n"
        "json.dump({'accuracy': 0.5, 'extra': 1}, open(sys.argv[2] + '/scores.json', 'w'))\n"
    )
    write_competition_yaml(bundle, ["accuracy", "speed"])
    text = (bundle / "competition.yaml").read_text()
    for part in ("ingestion_program", "input_data"):
        text = text.replace(f"    {part}: {part}\n", "")
    (bundle / "competition.yaml").write_text(text)
    path = result_zip(benchmark_folder / "submission.zip", 1.0)
    assert command("score", path, "--bundle", bundle) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "0.50" in printed
    assert "n/a" in printed
    assert "no score, so n/a: speed" in printed
    assert "no column, so dropped: extra" in printed
    assert "no intervals: the scoring program leaves no statistics" in printed


@pytest.mark.slow
def test_model_that_fails_is_explained(
    small_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    sets = {
        f"test_data_{name}.npz": np.ones((3, 20, channels, 9), np.float32) + np.arange(9)
        for name, channels in CHANNELS.items()
    }
    rows = {name: array + np.arange(20)[None, :, None, None] for name, array in sets.items()}
    write_sets(tmp_path / "data", {name: array.astype(np.float32) for name, array in rows.items()})
    bent = with_predict(small_zip, tmp_path / "bent.zip", "raise ValueError('no luck')")
    assert command("score", bent, "--data", "data") == 1
    printed = capsys.readouterr().out
    assert "no luck" in printed
    assert not score_records.DEFAULT.exists()


def test_table_marks_what_is_better_and_what_is_not_known(capsys: pytest.CaptureFixture[str]):
    before = row(made(1))
    entry = replace(row(made()).columns[0], column=Column("x", "lost"), score=None, interval=None)
    result = row(made())
    titled = replace(result.columns[0], column=Column("y", "error [ms] rate [/s]"))
    result = replace(result, columns=(*result.columns, entry, titled))
    console = new_console()
    console.width = 160
    score_cli._print(
        console,
        compare(result, before.record(), before.statistics),
        argparse.Namespace(output=None),
    )
    printed = capsys.readouterr().out
    assert "n/a" in printed
    assert "sets and rows" in printed
    assert "better in" in printed
    assert "error [ms] rate [/s]" in printed


def test_an_input_without_what_the_artifact_asks_for(tmp_path: Path):
    tensor = argparse.Namespace(name="neural", dtype="float32", shape=(None, 2))
    manifest: Any = argparse.Namespace(inputs=(tensor,), outputs=(tensor,))
    settings = generic.Settings.model_validate({"data": {"main": {"subject": "main"}}})
    described = generic.CHALLENGE.definition(settings, ("main",))
    for name in ("input_data", "reference_data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.npz").write_bytes(encode_npz({"a": np.zeros((3, 2))}))
    with pytest.raises(ConfigError, match=r"main\.npz holds a; the artifact asks for neural"):
        score_data.read_local(described, tmp_path, {"main": manifest})

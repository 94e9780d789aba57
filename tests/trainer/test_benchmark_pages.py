"""Pages and pictures from results written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer import benchmark_docs, benchmark_intervals, benchmark_rows
from trainer.benchmark_config import Ablation, Benchmark, Entry, Goal, load_benchmark
from trainer.benchmark_pictures import SHOWN, chosen

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"


def row(model: str, score: float, rank: float, paired: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "model": model,
        "rank": rank,
        "scores": {"mse": {"mean": score, "half_width": None, "validation": score}},
        "paired": paired,
        "skill": None,
        "parameters": 10,
        "artifact_bytes": 1000,
        "latency_ms": 0.1,
        "training_cpu_s": 1.0,
        "resumed": False,
    }


def difference(value: float, half: float = 1.0) -> dict[str, Any]:
    return {"value": value, "interval": [value - half, value + half], "unit": "%"}


def summary(models: int, reference: int) -> dict[str, Any]:
    """`models` models, m0 the best; the reference is one of them."""
    rows = [
        row(
            f"m{place}",
            1.0 + 0.02 * place,
            place + 1.0,
            None if place == reference else difference(2.0 * (place - reference)),
        )
        for place in range(models)
    ]
    data = {
        "name": "made",
        "description": "made by hand",
        "task": "forecast",
        "metric": "mse",
        "unit_of_metric": "train variance",
        "unit": "µV",
        "best_linear": None,
        "compared_with": None,
        "rows": rows,
        "windows": {"train": 500, "validation": 50, "test": 120},
        "observed": 10,
        "steps": 20,
        "rate_hz": 100.0,
        "synthetic": False,
    }
    return {
        "name": "mine",
        "title": "Mine",
        "text": "",
        "reference": f"m{reference}",
        "data": {"one": data},
        "models": {},
        "ranks": [],
        "goals": [],
        "ablation": [],
    }


def item(name: str, value: float | None, verdict: str = "worse") -> dict[str, Any]:
    found = {"value": None, "interval": None} if value is None else difference(value)
    seeds = [] if value is None else [value, value]
    return {
        "item": name,
        "data": "one",
        "unit": "%",
        "validation": found,
        "per_seed": seeds,
        "verdict": verdict,
    }


def test_what_is_left_out_is_said_and_the_reference_never_is() -> None:
    shown = chosen(summary(11, 10), "one")
    assert shown.models == (*(f"m{place}" for place in range(SHOWN)), "m10")
    assert (shown.base, shown.said) == ("m10", "the best 6 of 11 models, and m10")
    shown = chosen(summary(11, 2), "one")
    assert len(shown.models) == SHOWN
    assert shown.said == "the best 6 of 11 models"
    assert len({shown.color(model) for model in shown.models}) == SHOWN
    assert chosen(summary(4, 0), "one").said == ""


def test_a_reference_that_is_far_off_stays() -> None:
    found = summary(3, 2)
    found["data"]["one"]["rows"][2]["scores"]["mse"]["mean"] = 9.0
    assert chosen(found, "one").models == ("m0", "m1", "m2")
    found["reference"] = "elsewhere"  # not run on these data
    assert chosen(found, "one").base == "m1"


def test_an_ablation_is_drawn_from_the_best_item_down(tmp_path: Path) -> None:
    found = summary(2, 0)
    found["ablation"] = [item("bad", 4.0), item("none", None, "–"), item("good", -3.0, "better")]
    assert benchmark_intervals._by_effect(found["ablation"]) == ["none", "bad", "good"]
    paths = [benchmark_intervals.ablation(found, tmp_path / name) for name in ("a.png", "b.png")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as picture:
        assert picture.width > 400


def test_a_ranking_draws_intervals_that_are_lopsided_or_missing(tmp_path: Path) -> None:
    found = summary(4, 0)
    rows = found["data"]["one"]["rows"]
    rows[1]["paired"]["interval"] = [0.5, 5000.0]
    rows[2]["paired"]["interval"] = None
    rows[3]["paired"]["value"] = rows[3]["paired"]["interval"] = None
    assert benchmark_intervals._near([rows[1]["paired"]])[1] < 50.0
    assert benchmark_intervals.ranking(found, tmp_path / "r.png").is_file()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A published benchmark with an ablation, and rows of scripts."""
    found = summary(3, 1)
    found["goals"] = [
        {
            "data": "one",
            "model": "m0",
            "peer": "m1",
            "metric": "mse",
            "kind": "paired",
            **difference(-2.0),
            "goal": "<= -1 %",
            "met": True,
        }
    ]
    found["ablation"] = [item("bad", 4.0)]
    machine = {"processor": "p", "system": "Linux"}
    report = {
        "benchmark": "mine",
        "harness": benchmark_docs.HARNESS,
        "command": "axonnx benchmark mine.yaml",
        "machine": machine,
        "versions": {"numpy": "2"},
        "looks_at_test_parts": {"one": {"runs": 3, "configs": 3, "earlier": 0}},
        "distinct_sources": 1,
        "summary": found,
        "pictures": ["ranking.png", "ablation.png", "one-errors.png"],
    }
    script = {
        "benchmark": "training_throughput",
        "machine": machine,
        "versions": {"torch": "2"},
        "load": 0.5,
        "rows": [
            {
                "case": name,
                "metric": "windows",
                "unit": "windows/s",
                "value": 400.0,
                "spread": 3.0,
                "peer": "other",
                "peer_value": 300.0,
                "goal": goal,
                "met": met,
                "command": "uv run python benchmarks/training_throughput.py",
            }
            for name, goal, met in (("fast", ">= 381", True), ("faster", "none", None))
        ],
    }
    folder = tmp_path / "results"
    folder.mkdir()
    for each in (report, script, {**script, "benchmark": "serving"}):
        (folder / f"{each['benchmark']}.json").write_text(json.dumps(each))
    return folder


def test_the_results_page_shows_pictures_by_their_tables_and_rows_of_scripts(
    results: Path, tmp_path: Path
) -> None:
    written = benchmark_docs.write(results, tmp_path / "docs")
    assert [page.name for page in written] == ["results.md", "models.md"]
    text = written[0].read_text()
    places = [
        text.index(part)
        for part in (
            "(../results/mine/ranking.png)",
            "### one",
            "(../results/mine/one-errors.png)",
            "### Ablation",
            "(../results/mine/ablation.png)",
            "## Training throughput of PatchFormer",
            "(../results/training_throughput.png)",
            "| fast | 400 | 3 | 300 | >= 381 | yes |",
            "| faster | 400 | 3 | 300 | – | – |",
        )
    ]
    assert places == sorted(places)
    assert "serving" not in text


def test_a_readme_takes_its_table_from_results(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"above\n\n{benchmark_rows.START}\nold\n{benchmark_rows.END}\n\nbelow\n")
    assert page in benchmark_docs.write(results, tmp_path / "docs")
    once = page.read_text()
    assert once.startswith("above\n\n<!-- results -->\n| data |")
    assert once.endswith("\n<!-- /results -->\n\nbelow\n")
    expected = "`m1` 1.0200 | `m0` 1.0000, of 3 | -2.0 % [-3.0, -1.0] |"
    assert expected in once
    assert "old" not in once
    benchmark_docs.write(results, tmp_path / "docs")
    assert page.read_text() == once
    # A page without markers is left alone, and so is one where nothing was published.
    assert benchmark_rows.fill(page, []) == []
    assert page.read_text() == once
    page.write_text("nothing\n")
    assert page not in benchmark_docs.write(results, tmp_path / "docs")
    assert page.read_text() == "nothing\n"


def test_the_page_of_benchmarks_names_every_key_and_its_example_loads(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for owner in (Benchmark, Entry, Goal, Ablation):
        assert [key for key in owner.model_fields if f"`{key}`" not in text] == []
    example = tmp_path / "mine.yaml"
    example.write_text(text.split("```yaml\n")[1].split("```")[0])
    loaded = load_benchmark(example)
    assert loaded.compared_with == {"eeg_long": "eeg"}


def test_the_readme_has_a_place_for_the_table() -> None:
    text = (PAGE.parents[1] / "README.md").read_text()
    assert text.count(benchmark_rows.START) == text.count(benchmark_rows.END) == 1
    assert text.index(benchmark_rows.START) < text.index(benchmark_rows.END)

"""What a benchmark's file may say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.benchmark_config import jobs, load_benchmark
from trainer.config import ConfigError

GOOD = """
reference: ridge
seeds: [0, 1]
data:
  one: {name: synthetic, channels: 4, samples: 500}
  two: {name: synthetic, channels: 5, samples: 500}
training: {epochs: 3, threads: 1}
models:
  ridge: {model: {name: linear}, seeds: [0]}
  gru:
    model: {name: gru, hidden_size: 3}
    training: {epochs: 2}
    per_data: {two: {model: {hidden_size: 5}, training: {batch_size: 8}}}
ablations: {reference: gru, data: [one], items: {wide: {model: {hidden_size: 9}}}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_every_model_meets_every_data_set_with_every_seed(tmp_path: Path) -> None:
    loaded = load_benchmark(write(tmp_path, GOOD))
    assert loaded.name == "mine"
    assert loaded.linear_models() == ("ridge",)
    found = {(job.data, job.model, job.seed): job for job in jobs(loaded)}
    assert list(found) == [
        ("one", "ridge", 0),
        ("one", "gru", 0),
        ("one", "gru", 1),
        ("one", "gru/wide", 0),
        ("one", "gru/wide", 1),
        ("two", "ridge", 0),
        ("two", "gru", 0),
        ("two", "gru", 1),
    ]
    config = found["two", "gru", 1].config(Path("runs"))
    assert (config.seed, config.model["hidden_size"]) == (1, 5)
    assert (config.training.epochs, config.training.batch_size) == (2, 8)
    assert found["one", "gru/wide", 0].config(Path("runs")).model["hidden_size"] == 9
    assert found["one", "gru/wide", 0].place == Path("one/gru/wide/seed-0")
    assert len(jobs(loaded, "one/*", 1)) == 3
    assert jobs(loaded, "three/*") == []


def test_an_ensemble_comes_after_its_members_and_names_their_folders(tmp_path: Path) -> None:
    entry = "  both: {ensemble_of: [ridge, gru], model: {weights: equal}}\nablations"
    loaded = load_benchmark(write(tmp_path, GOOD.replace("ablations", entry, 1)))
    chosen = jobs(loaded, "two/both")
    assert [(job.model, job.seed) for job in chosen] == [
        ("ridge", 0),
        ("gru", 0),
        ("both", 0),
        ("gru", 1),
        ("both", 1),
    ]
    config = chosen[-1].config(Path("runs"))
    assert config.model["name"] == "ensemble"
    assert list(config.model["members"]) == ["runs/two/ridge/seed-0", "runs/two/gru/seed-1"]
    every = "  both: {ensemble_of: [ridge, gru], member_seeds: all, seeds: [0]}\nablations"
    loaded = load_benchmark(write(tmp_path, GOOD.replace("ablations", every, 1)))
    assert len(jobs(loaded, "two/both")) == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reference: ridge", "reference: rigde", "'rigde' is none of the models: ridge, gru"),
        ("hidden_size: 3", "hidden: 3", ":11: models.gru.model.hidden: unknown key; valid: name"),
        ("hidden_size: 3", "hidden_size: 0", ":11: models.gru.model.hidden_size: "),
        ("hidden_size: 9", "hidden_size: x", "ablations.items.wide.model.hidden_size: "),
        ("{name: linear}", "{name: linaer}", "models.ridge.model.name: no model 'linaer'"),
        ("channels: 5", "channel: 5", ":6: data.two.channel: unknown key; valid: name"),
        ("{epochs: 2}", "{epoch: 2}", "models.gru.training.epoch: unknown key; valid: epochs"),
        ("seeds: [0]}", "seed: [0]}", "models.ridge.seed: unknown key; valid: model"),
        ("data: [one]", "data: [three]", "'three' is none of the data: one, two"),
        ("per_data: {two", "per_data: {six", "'six' is none of the data: one, two"),
        ("{epochs: 3, threads", "{epoch: 3, threads", ":7: training.epoch: unknown key; valid: ep"),
        (
            "{epochs: 2}",
            "{augmentation: {noise: 0.1, nose: 1}}",
            ":12: models.gru.training.augmentation.nose: unknown key; valid: noise, gain, shift",
        ),
        (
            "{two: {model: {hidden_size: 5}",
            "{two: {model: {hidden: 5}",
            ":13: models.gru.per_data.two.model.hidden: unknown key; valid: name, hidden_size",
        ),
        (
            "{two: {model",
            "{two: {seed: 1, model",
            "models.gru.per_data.two.seed: unknown key; valid: model, training",
        ),
        (
            "items: {wide: {model",
            "items: {wide: {data: [one], model",
            "ablations.items.wide.data: unknown key; valid: model, training",
        ),
        ("ablations: {", "ablations: {item: 1, ", "ablations.item: unknown key; valid: reference"),
        (
            "samples: 500}",
            "samples: 500, stride: {train: 1, tests: 1}}",
            ":5: data.one.stride.tests: unknown key; valid: train, validation, test",
        ),
        (
            "seeds: [0, 1]",
            "earlier_looks: {synthetics: 1}",
            "earlier_looks: 'synthetics' is none of the names of the data: synthetic",
        ),
        ("seeds: [0, 1]", "earlier_looks: {synthetic: -1}", ":3: earlier_looks.synthetic: "),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_benchmark(path)
    assert said in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_goal_has_one_bound(tmp_path: Path) -> None:
    goals = "goals: [{model: gru, below: ridge, at_most: 1}]\nablations"
    with pytest.raises(ConfigError, match="must have one of below, above"):
        load_benchmark(write(tmp_path, GOOD.replace("ablations", goals, 1)))


def test_what_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_benchmark(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_benchmark(write(tmp_path, "- 1\n"))


def test_the_descriptions_of_the_repository_are_good() -> None:
    folder = Path(__file__).parents[2] / "configs/benchmarks"
    paths = sorted(folder.glob("*.yaml"))
    assert len(paths) >= 5
    for path in paths:
        assert jobs(load_benchmark(path))

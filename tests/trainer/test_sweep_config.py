"""Sweep files: what is refused, and where; which values a space holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import ConfigError
from trainer.sweep_config import Plan, Range, load_sweep
from trainer.sweep_study import database, distribution, open_study

RUN = """
data: {name: synthetic}
model: {name: gru, hidden_size: 4}
"""


@pytest.fixture
def write(tmp_path: Path) -> object:
    """Writes a sweep file beside a run, and loads it."""
    (tmp_path / "run.yaml").write_text(RUN)

    def load(text: str, *overrides: tuple[str, str]) -> Plan:
        (tmp_path / "mine.yaml").write_text(text)
        return load_sweep(tmp_path / "mine.yaml", list(overrides))

    return load


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: run.yaml", "mine.yaml:1: space is missing"),
        ("run: run.yaml\nspace: {}", "mine.yaml:2: space: "),
        (
            "space: {seed: {choices: [1, 2]}}",
            "give one of `run` (a path) and `base` (the run itself)",
        ),
        (
            "run: run.yaml\ntrails: 3\nspace: {seed: {choices: [1]}}",
            "mine.yaml:2: trails: unknown key; valid: name, run, base, space, trials",
        ),
        (
            "run: run.yaml\nspace:\n  seed: {low: 3, high: 1}",
            "mine.yaml:3: space.seed: low 3 must be below high 1",
        ),
        (
            "run: run.yaml\nspace:\n  seed: {low: 0, high: 1, log: true}",
            "mine.yaml:3: space.seed: log needs a low above 0",
        ),
        (
            "run: run.yaml\nspace:\n  seed: {low: 0, high: 4, step: 0.5}",
            "mine.yaml:3: space.seed: step 0.5 of whole numbers must be whole",
        ),
        (
            "run: run.yaml\nspace:\n  seed: {choices: [1, 1]}",
            "mine.yaml:3: space.seed.choices: 1 is listed twice",
        ),
        (
            "run: run.yaml\nspace:\n  seed: {low: 0, hi: 4}",
            "mine.yaml:3: space.seed.hi: unknown key; valid: low, high, log, step",
        ),
        (
            "run: run.yaml\nspace:\n  model.hiden_size: {choices: [2]}",
            "mine.yaml:3: space.model.hiden_size: 2: unknown key of model gru; did you mean "
            "'hidden_size'?",
        ),
        (
            "run: run.yaml\nspace:\n  model.hidden_size: {low: 0, high: 4}",
            "mine.yaml:3: space.model.hidden_size: 0: is 0; ",
        ),
        (
            "run: run.yaml\nspace:\n  training.epochs: {low: 1.0, high: 4.5}",
            "mine.yaml:3: space.training.epochs: 1.0: is 1.0; ",
        ),
        (
            "run: run.yaml\nspace:\n  training.schedule: {choices: [cosine, wave]}",
            'mine.yaml:3: space.training.schedule: "wave": is "wave"; ',
        ),
        ("run: run.yaml\nspace:\n  name: {choices: [a]}", "a name is nothing to choose"),
        (
            "run: run.yaml\nsampler: grid\nspace:\n  training.learning_rate: {low: 0.1, high: 0.2}",
            "mine.yaml:4: space.training.learning_rate: a grid needs choices, or low and high",
        ),
        ("run: gone.yaml\nspace: {seed: {choices: [1]}}", "gone.yaml: cannot be read"),
        ("base: {data: {name: nothing}}\nspace: {seed: {choices: [1]}}", "no data set 'nothing'"),
        ("- 1", "mine.yaml:1: must be a mapping of name, run"),
        ("run: [", "mine.yaml:1: is not valid YAML"),
    ],
)
def test_mistakes_are_told_with_their_place(write: object, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        write(text)  # type: ignore[operator]
    assert told in str(caught.value)


def test_a_mistake_in_an_inline_run_has_its_line(write: object) -> None:
    text = "space: {seed: {choices: [1]}}\nbase:\n  data: {name: synthetic}\n  modle: {}\n"
    with pytest.raises(ConfigError, match=r"mine\.yaml:4: modle: unknown key"):
        write(text)  # type: ignore[operator]


def test_a_trial_is_the_run_with_chosen_values(write: object) -> None:
    text = "run: run.yaml\nspace:\n  training.epochs: {low: 1, high: 4}\n"
    plan = write(text, ("model.hidden_size", "6"))  # type: ignore[operator]
    config = plan.config({"training.epochs": 3})
    assert (config.training.epochs, config.model["hidden_size"], config.name) == (3, 6, "run")
    assert plan.base.training.epochs != 3


def test_a_model_may_be_chosen(write: object) -> None:
    """Settings of another model are not filled in before the model is chosen."""
    text = "base: {data: {name: synthetic}}\nspace:\n  model.name: {choices: [gru, linear]}\n"
    plan = write(text)  # type: ignore[operator]
    assert plan.config({"model.name": "linear"}).model["name"] == "linear"


def test_a_grid_holds_every_point_once(write: object) -> None:
    text = (
        "run: run.yaml\nsampler: grid\nspace:\n  seed: {low: 1, high: 5, step: 2}\n"
        "  training.learning_rate: {low: 0.1, high: 0.3, step: 0.1}\n"
    )
    plan = write(text)  # type: ignore[operator]
    points = [tuple(point.values()) for point in plan.combinations]
    assert points == [(seed, rate) for seed in (1, 3, 5) for rate in (0.1, 0.2, 0.3)]
    assert (plan.trials(), plan.trials(4), plan.trials(100)) == (9, 4, 9)


@given(st.integers(-50, 50), st.integers(1, 50), st.integers(1, 9))
def test_what_optuna_draws_from_is_the_grid(low: int, span: int, step: int) -> None:
    parameter = Range(low=low, high=low + span, step=step)
    kind = distribution(parameter)
    values = parameter.grid()
    assert values == list(range(low, low + span + 1, step))
    assert (kind.low, kind.high, kind.step) == (values[0], values[-1], step)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "postgresql+psycopg://me:se/secret@host/db",
        "postgresql://me:a@secret:5432/db",
        "postgresql://host/db?user=me&password=secret",
        "mssql+pyodbc:///?odbc_connect=PWD%3Dsecret",
        "postgresql://me:secret/db",
        "secret/file.db",
    ],
)
def test_no_password_on_a_command_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment variable") as caught:
        database(url, tmp_path)
    assert "secret" not in str(caught.value)


def test_where_a_sweep_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database(None, tmp_path) == f"sqlite:///{tmp_path}/sweep.db"
    with pytest.raises(ConfigError, match="--storage SWEEPS: no such environment variable"):
        database("SWEEPS", tmp_path)
    monkeypatch.setenv("SWEEPS", "postgresql://me:secret@host/db?sslmode=require")
    assert database("SWEEPS", tmp_path) == "postgresql://me:secret@host/db?sslmode=require"
    monkeypatch.chdir(tmp_path)
    assert database("sqlite:///mine.db", tmp_path) == f"sqlite:///{tmp_path}/mine.db"
    with pytest.raises(ConfigError, match=r"no folder .*/gone for the SQLite file mine\.db"):
        database("sqlite:///gone/mine.db", tmp_path)
    with pytest.raises(ConfigError, match="in memory ends with the command"):
        database("sqlite://", tmp_path)


def test_what_is_no_database_is_told_in_a_line(write: object, tmp_path: Path) -> None:
    plan = write("run: run.yaml\nspace: {seed: {choices: [1]}}")  # type: ignore[operator]
    (tmp_path / "notes.db").write_text("no database at all " * 100)
    with pytest.raises(ConfigError, match="--storage: no database there"):
        open_study(plan, f"sqlite:///{tmp_path}/notes.db")

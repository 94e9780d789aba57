from __future__ import annotations

from pathlib import Path

import pytest

from submission import cli
from submission.config import load_config
from submission.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
challenge:
  name: neural_forecasting
models:
  affi: a
  beignet: b
"""


def load(folder: Path, text: str, **overrides: object):
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides)


@pytest.mark.parametrize("name", ["neural_forecasting", "decoding"])
def test_committed_configurations_load(name):
    config = load_config(ROOT / "configs" / "submissions" / f"{name}.yaml")
    assert config.python == ("3.10", "3.11")
    assert config.output.suffix == ".zip"


def test_defaults_are_the_published_challenge(tmp_path: Path):
    config = load(tmp_path, GOOD)
    assert config.settings.model_dump()["channels"] == {"affi": 239, "beignet": 89}
    assert config.onnxruntime is None


def test_overrides_win_and_models_merge_by_name(tmp_path: Path):
    config = load(tmp_path, GOOD, models={"affi": Path("c")}, python=["3.12"])
    assert config.models == {"affi": Path("c"), "beignet": Path("b")}
    assert config.python == ("3.12",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "python: [3.10]\n", r"config.yaml:6: python.0: 3.1 is a number.*quotes"),
        (GOOD + "colour: red\n", r"config.yaml:6: colour: unknown key.*known: challenge, models"),
        (GOOD.replace("forecasting", "forecastin"), r"yaml:2: no challenge.*mean 'neural_forec"),
        (GOOD.replace("beignet: b", "../x: b"), r"yaml:3: models: '../x' is no name"),
        ("challenge: generic\n", r"config.yaml:1: models: Field required"),
        ("models: {a: b}\n", r"config.yaml:1: challenge.name: must name one of generic"),
        ("challenge: [\n", r"config.yaml:2: no YAML"),
        ("- 1\n", r"config.yaml:1: must be keys and values"),
        (
            GOOD.replace("_forecasting\n", "_forecasting\n  channels: {affi: 0}\n"),
            r"config.yaml:3: challenge.channels.affi: .*greater than or equal to 1",
        ),
        (
            GOOD.replace("_forecasting\n", "_forecasting\n  chanels: {}\n"),
            r"config.yaml:3: challenge.chanels: unknown key of challenge",
        ),
        (
            GOOD.replace(
                "_forecasting\n", "_forecasting\n  data: {x: {file: x.npz, subject: nobody}}\n"
            ),
            r"data.x: no subject 'nobody' in channels \(affi, beignet\)",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "words",
    [
        ["build", "absent.yaml"],
        ["build", "{config}", "--model", "affi"],
        ["build", "{config}", "--python", "3.9"],
        ["build", "{config}"],
        ["check", "absent.zip"],
        ["predict", "absent.zip", "--data", ".", "--output", "out"],
    ],
)
def test_wrong_arguments_exit_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(GOOD)
    assert cli.main(["submission", *(word.format(config="config.yaml") for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("axonnx: error: ")
    assert "Traceback" not in error


def test_unknown_flag_prints_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["submission", "check", "x.zip", "--fast"])
    assert stop.value.code == 2
    assert "usage: axonnx submission" in capsys.readouterr().err

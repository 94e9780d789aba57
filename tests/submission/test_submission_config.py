from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifact.bundle import write_zip
from submission import challenges, cli
from submission.config import SubmissionConfig, load_config
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


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("broken", "no_such_module_here:CHALLENGE", "of odd-plugin cannot be loaded.*No module"),
        ("empty", "submission.challenges.generic:NOTHING", "cannot be loaded.*no attribute"),
        ("other", "submission.challenges.generic:CHALLENGE", "is the challenge 'generic'"),
        ("number", "submission.challenges.generic:RISING", "is no Challenge"),
    ],
)
def test_a_broken_entry_point_is_named_and_leaves_the_others(
    name: str, place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "odd_plugin-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-plugin\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[axonnx.challenges]\n{name} = {place}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {name, "generic", "eeg2025"} <= set(challenges.names())
    assert challenges.get("generic").name == "generic"
    with pytest.raises(ConfigError, match=message):
        challenges.get(name)


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
        (GOOD.replace("beignet: b", "../x: b"), r"yaml:5: models.../x: '../x' is no name"),
        ("models: {a: b}\n", r"config.yaml:1: challenge.name: must name one of .*generic"),
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
        (
            GOOD.replace(
                "_forecasting\n",
                "_forecasting\n  data: {/../../../escaped: {file: x.npz, subject: affi}}\n",
            ),
            r"config.yaml:3: challenge.data./../../../escaped: '/../../../escaped' is no name",
        ),
        (
            GOOD.replace(
                "_forecasting\n", "_forecasting\n  data: {x: {file: ../x.npz, subject: affi}}\n"
            ),
            r"config.yaml:3: challenge.data.x.file: '../x.npz' is no file name",
        ),
        (
            GOOD.replace("_forecasting\n", "_forecasting\n  channels: {../x: 5}\n"),
            r"config.yaml:3: challenge.channels.../x: '../x' is no name",
        ),
        (
            GOOD.replace("_forecasting\n", "_forecasting\n  data: {}\n"),
            r"challenge: data: is empty",
        ),
        (GOOD + "output: 2024-99-99\n", r"config.yaml:6: '2024-99-99' is a date; quote it"),
        (GOOD + "models: {affi: c}\n", r"config.yaml:6: models: stands twice, first in line 3"),
        (GOOD + "  affi: c\n", r"config.yaml:6: affi: stands twice, first in line 4"),
        (GOOD + "output: a\0b\n", r"config.yaml:6: no YAML: holds the character 0x0"),
        (GOOD + 'output: "a\\0b"\n', r"config.yaml:6: 'a\\x00b' holds what is no character"),
        (GOOD + 'output: "\\ud800"\n', r"config.yaml:6: '\\ud800' holds what is no character"),
        (GOOD + 'output: "\\Uffffffff"\n', r"config.yaml:6: no YAML: "),
        (GOOD + f"output: {'9' * 5000}\n", r"config.yaml:6: '9{40}' is no int"),
        (GOOD + f"output: 0x{'f' * 5000}\n", r"config.yaml:6: output: "),
        (GOOD + "output: !!int ''\n", r"config.yaml:6: '' is no int"),
        (GOOD + "output: !!bool maybe\n", r"config.yaml:6: 'maybe' is no bool"),
        (GOOD + "output: !!python/name:os.system\n", r"yaml:6: the tag 'python/name:os.system' is"),
        (GOOD + "python: &p ['3.11']\noutput: *p\n", r"config.yaml:7: alias \*p: write the value"),
        (GOOD + "<<: {python: ['3.11']}\n", r"config.yaml:6: the tag 'merge' is not supported"),
        (GOOD + "1: 2\n", r"config.yaml:6: a key must be text, is 1; quote it"),
        (GOOD + "? [a]\n: 2\n", r"config.yaml:6: a key must be text"),
        (GOOD + "---\na: b\n", r"config.yaml:6: no YAML: but found another document"),
        ("[" * 5000, r"config.yaml:1: is nested too deeply"),
        ("", r"config.yaml:1: must be keys and values"),
        ("# " + "x" * 1_000_000, r"config.yaml:1: is longer than"),
        (
            GOOD.replace("_forecasting\n", f"_forecasting\n  steps: 0x{'f' * 5000}\n"),
            r"config.yaml:3: challenge.steps: .*less than or equal to",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


WORDS = (
    "challenge models python output channels data file 3.10 2024-99-99 0x1f 1:30 1e999 .inf ~ yes "
    '!!int !!set !x &a *a << [ ] { } : - ? | > \' "\\0" "\\Uffffffff" --- % \0'
)
PIECES = st.sampled_from([*GOOD.splitlines(), *WORDS.split()])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text()
KEYS = st.sampled_from(list(SubmissionConfig.model_fields)) | SCALARS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
TEXTS = (
    st.text()
    | st.lists(PIECES | st.text(max_size=3), max_size=12).map(" ".join)
    | st.lists(PIECES | st.text(max_size=3), max_size=8).map(lambda p: GOOD + "\n".join(p))
    | VALUES.map(yaml.safe_dump)
    | st.dictionaries(KEYS, VALUES, max_size=4).map(lambda more: GOOD + yaml.safe_dump(more))
)


@given(text=TEXTS)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_configuration_or_is_refused_with_its_place(tmp_path: Path, text: str):
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_config(path)
    except ConfigError as error:
        said = str(error)
    else:
        return
    assert re.match(r".*config\.yaml:(\d+: | cannot be read )", said)
    said.encode()


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


@pytest.mark.parametrize("word", ["check", "score", "report", "predict"])
@pytest.mark.parametrize("kind", ["code", "result"])
def test_a_foreign_zip_needs_the_test_sets(
    word: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_zip({"model.py": b"class Model: ..."}, tmp_path / "foreign.zip")
    config = tmp_path / "config.yaml"
    config.write_text(f"challenge: {{name: generic, kind: {kind}}}\n")
    words = [word, tmp_path / "foreign.zip", "--config", config]
    words += ["--records", tmp_path / "records"] if word in ("check", "score") else []
    words += ["--data", tmp_path] if word in ("score", "predict") else []
    words += ["--output", tmp_path / "out"] if word == "predict" else []
    assert cli.main(["submission", *map(str, words)]) == 2
    assert "generic: has no test set" in capsys.readouterr().err


def test_one_artifact_for_a_result_without_test_sets(tmp_path: Path):
    config = load(tmp_path, "challenge: {name: generic, kind: result}\nartifact: a\n")
    assert config.artifacts() == {"main": Path("a")}


def test_unknown_flag_prints_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["submission", "check", "x.zip", "--fast"])
    assert stop.value.code == 2
    assert "usage: axonnx submission" in capsys.readouterr().err

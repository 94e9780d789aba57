"""Reading a run: merged once, validated once, every mistake named with its place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from trainer import yaml_source
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data.paths import DataPath
from trainer.models import MODELS
from trainer.objectives import OBJECTIVES
from trainer.registry import DATASETS

Positive = Annotated[float, Field(gt=0)]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """A data set with a required path, a list of paths, and a unit that looks like one."""

    def build(
        *,
        path: DataPath,
        files: list[DataPath] = [],  # noqa: B006
        extra: DataPath | None = None,
        unit: str = "µV/s",
        rate: Positive = 250.0,
        split: tuple[float, float] = (0.7, 0.15),
    ) -> None: ...

    monkeypatch.setitem(DATASETS._constructors, "toy", build)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load("text", key=value) reads the text as run.yaml with overrides."""
    monkeypatch.chdir(tmp_path)

    def read(text: str | bytes, *overrides: tuple[str, str]) -> RunConfig:
        data = text if isinstance(text, bytes) else text.encode()
        Path("run.yaml").write_bytes(data)
        return load_config(Path("run.yaml"), list(overrides))

    return read


def refuse(load, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return str(caught.value)


DATA = "data: {name: toy, path: a.npy}\n"


def test_everything_has_a_default_but_the_data(load):
    config = load(DATA)
    assert config.name == "run"
    assert config.seed == 0
    assert config.model == {"name": "gru", "hidden_size": 256, "output_units": "normalized"}
    assert config.data["split"] == [0.7, 0.15]
    assert config.training.epochs == 20
    assert config.training.learning_rate == 1e-3
    assert config.export.golden == "real"
    assert config.training.max_steps is None


@pytest.mark.parametrize("name", MODELS.names())
def test_switching_architecture_is_one_line(load, name):
    config = load(DATA + f"model:\n  name: {name}\n")
    assert set(config.model) == {"name", *MODELS.settings(name).model_fields}
    assert load(DATA, ("model.name", name)) == config


@pytest.mark.parametrize("name", MODELS.names())
def test_the_resolved_config_reads_back_as_itself(load, name):
    config = load("name: other\nseed: 7\n" + DATA, ("model.name", name), ("data.unit", "1e-3V"))
    json.dumps(config.resolved())
    again = load(config.to_yaml())
    assert again == config
    assert again.to_yaml() == config.to_yaml()


def test_overrides_are_yaml_values_merged_before_validation(load):
    text = DATA + "model: {name: patchformer, width: 64, heads: 5}\n"
    config = load(
        text,
        ("model.width", "32"),
        ("model.heads", "4"),
        ("data.split", "[0.5, 0.25]"),
        ("training.learning_rate", "1e-4"),
        ("--training.max_steps", "7"),
        ("export.version", "'2'"),
        ("seed", "3"),
        ("seed", "4"),
    )
    assert config.model["width"] == 32
    assert config.data["split"] == [0.5, 0.25]
    assert config.training.learning_rate == 1e-4
    assert config.training.max_steps == 7
    assert config.export.version == "2"
    assert config.seed == 4


def test_an_override_can_mend_or_replace_what_the_file_says(load):
    text = DATA + "model: {name: gru, hidden_size: 0}\n"
    assert load(text, ("model.hidden_size", "8")).model["hidden_size"] == 8
    assert "belongs to model" in refuse(load, text, ("model.name", "linear"))


def test_the_environment_does_not_configure_a_run(load, monkeypatch):
    for key in ("SEED", "AXONNX_SEED", "AXONNX_TRAINING__EPOCHS", "TRAINING"):
        monkeypatch.setenv(key, "5")
    assert load(DATA).seed == 0


def test_sections_may_be_empty(load):
    assert load(DATA + "model:\ntraining:\n  # epochs: 3\nexport: {}\n") == load(DATA)


MISTAKES = {
    "unknown key": (
        "training:\n  epochs: 3\n  learning_rte: 1\n",
        "run.yaml:4: training.learning_rte: unknown key; did you mean 'learning_rate'? valid: ",
    ),
    "unknown top key": ("\nmodle: {}\n", "run.yaml:3: modle: unknown key; did you mean 'model'?"),
    "wrong type": (
        "training:\n  epochs: '3'\n",
        'run.yaml:3: training.epochs: is "3"; input should be a valid integer',
    ),
    "bool for int": ("seed: true\n", "run.yaml:2: seed: is true; input should be a valid integer"),
    "float for int": ("seed: 1.0\n", "run.yaml:2: seed: is 1.0; input should be"),
    "out of range": (
        "training: {\n learning_rate: 0 }\n",
        "run.yaml:3: training.learning_rate: is 0; input should be greater than 0",
    ),
    "not a choice": (
        "training:\n  device: gpu\n",
        "run.yaml:3: training.device: is \"gpu\"; input should be 'auto', 'cpu', 'cuda' or 'mps'",
    ),
    "unknown objective": (
        "training: {objective: mes}\n",
        "run.yaml:2: training.objective: is \"mes\"; no objective 'mes' (did you mean 'mse'?); "
        "valid: " + ", ".join(OBJECTIVES.names()),
    ),
    "unknown model": (
        "model:\n  name: patchfromer\n",
        "run.yaml:3: model.name: no model 'patchfromer' (did you mean 'patchformer'?); valid: "
        + ", ".join(MODELS.names()),
    ),
    "model is text": ("model: gru\n", 'run.yaml:2: model: is "gru"; must be a mapping of keys'),
    "name is a number": ("model: {name: 3}\n", "run.yaml:2: model.name: must be the name of a mod"),
    "model setting": (
        "model:\n\n  hidden_size: 0\n",
        "run.yaml:4: model.hidden_size: is 0; input should be greater than or equal to 1",
    ),
    "typo in model": (
        "model: {hiden_size: 8}\n",
        "run.yaml:2: model.hiden_size: unknown key of model gru; did you mean 'hidden_size'?",
    ),
    "key of another model": (
        "model:\n  name: gru\n  patch_len: 2\n",
        "run.yaml:4: model.patch_len: belongs to model patchformer, not to gru; remove it",
    ),
    "key of another model, default name": (
        "model:\n  patch_len: 2\n",
        "run.yaml:3: model.patch_len: belongs to model patchformer, not to gru; remove it",
    ),
    "name leaves the folder": ("name: ../x\n", 'run.yaml:2: name: is "../x"; string should match'),
    "infinite": ("training: {learning_rate: 1e999}\n", "run.yaml:2: training.learning_rate: '1e99"),
    "nan": ("training: {learning_rate: .nan}\n", 'run.yaml:2: training.learning_rate: is ".nan"'),
    "twice": ("seed: 1\nseed: 2\n", "run.yaml:3: seed: stands twice, first in line 2; keep one"),
    "twice inside": (
        "model:\n  name: gru\n  name: linear\n",
        "run.yaml:4: model.name: stands twice, first in line 3; keep one",
    ),
    "tab": ("model:\n\tname: gru\n", "run.yaml:3: is not valid YAML: found character '\\t'"),
    "unclosed": ("model: {name: gru\n", "is not valid YAML: "),
    "number as key": ("1: 2\n", "run.yaml:2: a key must be text, is '1'; quote it"),
    "list as key": ("? [a]\n: 2\n", "run.yaml:2: a key must be text, is a list or mapping"),
    "alias": ("model: &m {}\ntraining: *m\n", "run.yaml:3: alias *m: write the value out"),
    "python tag": (
        "model: !!python/object/apply:os.system [ls]\n",
        "run.yaml:2: model: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not supp",
    ),
    "binary tag": ("name: !!binary aGk=\n", "run.yaml:2: name: the tag !!binary is not supported"),
    "forced type": ("seed: !!int abc\n", "run.yaml:2: seed: 'abc' is not a int"),
    "two documents": ("---\nseed: 1\n", "run.yaml:2: is not valid YAML: but found another documen"),
    "half a character": ('name: "\\ud800"\n', "run.yaml:2: name: '\\ud800' holds half a character"),
    "control character": ("name: a\x07b\n", "run.yaml:2: holds the character 0x7"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_with_its_place(load, case):
    text, expected = MISTAKES[case]
    assert expected in refuse(load, DATA + text)


def test_every_mistake_is_named_at_once(load):
    text = refuse(load, DATA + "seed: -1\nmodel: {hidden_size: 0, patch_len: 2}\nfoo: 1\n")
    assert re.findall(r"run.yaml:\d+: ([\w.]+):", text) == [
        "seed",
        "model.hidden_size",
        "model.patch_len",
        "foo",
    ]


def test_data_mistakes(load):
    assert "run.yaml: data.name: must be the name of a data set: one of" in refuse(load, "seed: 1")
    text = "seed: 1\ndata:\n  name: toyy\n"
    assert "run.yaml:3: data.name: no data set 'toyy' (did you mean 'toy'?)" in refuse(load, text)
    text = "data:\n  name: toy\n"
    assert refuse(load, text) == "run.yaml:1: data.path: is missing; it has no default"
    text = "data:\n  name: toy\n  path: a\n  split:\n  - 0.5\n  - x\n"
    assert refuse(load, text).startswith('run.yaml:6: data.split.1: is "x"; input should be')
    text = "data:\n  name: toy\n  path: ~/a\n"
    assert refuse(load, text).startswith('run.yaml:3: data.path: is "~/a"; only ${AXONNX_DATA}')


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (("model.hidden_size", "0"), "--model.hidden_size: is 0; input should be greater"),
        (("model.patch_len", "2"), "--model.patch_len: belongs to model patchformer, not to gru"),
        (("training.epoch", "2"), "--training.epoch: unknown key; did you mean 'epochs'?"),
        (("model.name", "grru"), "--model.name: no model 'grru' (did you mean 'gru'?)"),
        (("data.split", "[0.5, x]"), '--data.split: data.split.1: is "x"; input should be a v'),
        (("model.name", "["), "--model.name: '[' is not valid YAML"),
        (("model", "{name: linear}"), "--model: is a mapping; give one --model.… for each"),
        (("data.name.x", "1"), "--data.name.x: data.name is 'toy', which holds no keys"),
        (("model..x", "1"), "--model..x: is not a key; write --section.key"),
        (("", "1"), "--: is not a key"),
        (("seed", "\udc80"), "--seed: '\\udc80'"),
    ],
)
def test_a_wrong_override_is_named_by_its_flag(load, override, expected):
    assert refuse(load, DATA, override).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "run.yaml:1: is empty; a config is a mapping of name, seed, data,"),
        ("# nothing\n", "run.yaml:1: is empty"),
        ("- a\n", 'run.yaml:1: holds ["a"]; a config is a mapping'),
        ("text", 'run.yaml:1: holds "text"; a config is a mapping'),
        (b"a: 1\nb: \xff\n", "run.yaml:2: is not UTF-8 text (byte 8)"),
        (b"a: " + b"x" * 2_000_000, "run.yaml:1: is larger than 1000000 bytes"),
        ("a: " + "[" * 5000, "run.yaml:1: is nested too deeply"),
        (r'name: "\Uffffffff"', "run.yaml:1: is not valid YAML"),
        ("seed: " + "9" * 5000, "is not a int"),
    ],
)
def test_files_that_hold_no_config(load, text, expected):
    assert expected in refuse(load, text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "no.yaml", [])
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, [])


def test_public_holds_no_path_of_this_machine(load):
    text = (
        "data:\n  name: toy\n  path: /home/me/rec.npy\n  extra: sub/other.npy\n"
        "  files: ['${AXONNX_DATA}/x/y.npz', /tmp/z.npy]\n"
    )
    config = load(text)
    data = config.public()["data"]
    assert data["path"] == "rec.npy"
    assert data["extra"] == "other.npy"
    assert data["files"] == ["${AXONNX_DATA}/x/y.npz", "z.npy"]
    assert data["unit"] == "µV/s"
    assert config.resolved()["data"]["path"] == "/home/me/rec.npy"
    without = {key: value for key, value in config.public().items() if key != "data"}
    assert without == {key: config.resolved()[key] for key in without}


def test_a_config_built_in_code_is_checked_and_completed_too():
    config = RunConfig(name="x", data={"name": "toy", "path": "a"}, model={"name": "linear"})
    assert config.model["name"] == "linear"
    assert config.model["penalty"] is None
    with pytest.raises(ValueError, match="hidden_size"):
        RunConfig(name="x", data={"name": "toy", "path": "a"}, model={"hidden_size": 0})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_reading_a_config_imports_nothing_above():
    code = (
        "import sys, trainer.config\n"
        "above = ('training', 'export', 'graph', 'evaluation', 'runs', 'cli', 'legacy')\n"
        "print([m for m in sys.modules if m in ['trainer.' + a for a in above]])\n"
        "print([m for m in ('onnxruntime', 'serve', 'submission') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split("\n")[0] == "[]"


# -- YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("0", 0),
        ("-12", -12),
        ("~", None),
        ("", None),
        ("null", None),
        ("true", True),
        ("False", False),
        # What YAML 1.1 would make something else of:
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        ("0x1f", "0x1f"),
        (".inf", ".inf"),
        ("<<", "<<"),
        ("'3'", "3"),
    ],
)
def test_scalars_follow_the_core_schema(text, value):
    found = yaml_source.parse(text.encode()).value
    assert found == value
    assert type(found) is type(value)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(categories=["L", "N"]), max_size=8), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_dump_and_parse_are_inverse(value):
    text = yaml_source.dump(value)
    found = yaml_source.parse(text.encode()).value
    assert found == value
    assert json.dumps(found) == json.dumps(value)


def error_of(path, *overrides):
    try:
        load_config(path, list(overrides))
    except ConfigError as error:
        return str(error)
    return None


FRAGMENTS = st.sampled_from(
    [
        *("data:", "model:", "training:", "name:", "seed:", "export:", "split:", "hidden_size:"),
        *(
            "toy",
            "gru",
            "linear",
            "array",
            "challenge",
            "1",
            "-1",
            "1e9",
            "null",
            "true",
            "~",
            "''",
        ),
        *("\n", "\n  ", "\n    ", "\n- ", " ", "\t", "{", "}", "[", "]", ",", ":", "? ", "#", "|"),
        *(
            "&a ",
            "*a",
            "!!int ",
            "!x ",
            "<<: ",
            '"',
            "'",
            "%",
            "@",
            "---\n",
            "...\n",
            "\x00",
            "\ud7ff",
        ),
    ]
)


@given(
    st.lists(FRAGMENTS, max_size=30).map("".join).map(str.encode)
    | st.binary(max_size=200)
    | VALUES.map(lambda value: yaml.safe_dump(value).encode())
    | st.dictionaries(
        st.sampled_from(["name", "seed", "data", "model", "training", "export"]), VALUES
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_raise_anything_but_config_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    error = error_of(path)
    assert error is None or error.startswith(str(path))


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_override_raises_anything_but_config_error(tmp_path_factory, key, text):
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    path.write_text(DATA)
    for name in (key, f"model.{key}", "model.hidden_size", "data.split", "training.max_steps"):
        error = error_of(path, (name, text))
        assert error is None or error.startswith("--")

"""Settings from the environment and from flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.settings import Settings, SettingsError, read_settings, settings_table


def test_environment_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONNX_PORT", "9001")
    monkeypatch.setenv("AXONNX_PROVIDER", "auto")
    monkeypatch.setenv("AXONNX_MODELS", "a:b/c.zip")
    settings = read_settings(port=9002, provider=None, models=None)
    assert settings.port == 9002
    assert settings.provider == "auto"
    assert settings.models == (Path("a"), Path("b/c.zip"))
    assert read_settings(models=(Path("d"),)).models == (Path("d"),)


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONNX_MAX_ROWS", "none")
    monkeypatch.setenv("AXONNX_PROVIDER", "tpu")
    with pytest.raises(SettingsError) as caught:
        read_settings(port=70000)
    lines = sorted(str(caught.value).splitlines())
    assert [line.split(":")[0] for line in lines] == [
        "--port",
        "AXONNX_MAX_ROWS",
        "AXONNX_PROVIDER",
    ]
    assert "given: 70000" in lines[0]
    assert "'cpu', 'cuda' or 'auto'" in lines[2]


def test_misspelt_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONNX_PROVDER", "cuda")
    monkeypatch.setenv("axonnx_gibberish", "1")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    first, second = str(caught.value).splitlines()
    assert first == "AXONNX_PROVDER: no such setting; did you mean AXONNX_PROVIDER?"
    assert second.startswith("axonnx_gibberish: no such setting; there are AXONNX_MODELS, AXONNX_M")


def test_variables_of_the_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CACHE", "DATA", "ARTIFACT", "STORAGE", "SUBMISSION", "TEST_DATA", "PREDICTIONS")
    for name in names:
        monkeypatch.setenv(f"AXONNX_{name}", "x")
    monkeypatch.setenv("axonnx_port", "9003")
    assert read_settings().port == 9003


def test_more_rows_than_the_largest_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONNX_MAX_ROWS", "17")
    with pytest.raises(SettingsError, match=r"AXONNX_MAX_ROWS: .*less than or equal to 16"):
        read_settings()


def test_the_table_has_every_setting() -> None:
    table = settings_table()
    for name, field in Settings.model_fields.items():
        assert f"| `AXONNX_{name.upper()}` |" in table
        assert field.description, name
        assert field.description in table
    assert len(table.splitlines()) == 2 + len(Settings.model_fields)

"""The README's table of settings is the settings class's own."""

from __future__ import annotations

from pathlib import Path

from serve.settings import settings_table

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_readme_lists_every_setting_as_it_is() -> None:
    text = README.read_text(encoding="utf-8")
    table = text.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0]
    assert table == settings_table()

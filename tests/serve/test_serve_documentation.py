"""The documented table of settings is the settings class's own."""

from __future__ import annotations

from pathlib import Path

from serve.settings import settings_table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0]
    assert table == settings_table()

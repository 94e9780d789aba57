"""The page of all neural masses says what the classes say."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.dynamics import NODES
from trainer.dynamics.catalogue import PAGE, models, page

ROOT = Path(__file__).parents[3]


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / PAGE).read_text(encoding="utf-8")
    assert written == page(), "run python -m trainer.dynamics.catalogue"


def test_every_model_has_a_section_with_its_equations_states_and_parameters() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#{2,3} |\Z)", page(), re.M | re.S))
    assert set(sections) == set(models())
    for name, text in sections.items():
        node = NODES.build({"name": name})
        assert text.count("```") == 2, name
        rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
        assert rows == [*node.states, *node.parameter_names()]
        assert all(f"`{each}`" in text for each in node.inputs + node.outputs)
        assert node.source.split(",")[0].split()[-1] in text


def test_the_overview_links_to_every_section() -> None:
    links = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\)", page(), re.M)
    assert sorted(name for name, _ in links) == models()
    assert all(name == anchor for name, anchor in links)

"""Registry: names, settings from signatures, plug-ins."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer import registry as module
from trainer.registry import Registry, RegistryError, UnknownNameError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 3


class Machine:
    """A machine.

    More of it.
    """

    def __init__(
        self,
        context: object,
        *,
        width: Annotated[int, Field(ge=1)] = 4,
        rate: float = 0.5,
        kind: Literal["a", "b"] = "a",
        sizes: tuple[int, ...] = (1, 2),
        part: Part = Part(),  # noqa: B008
    ) -> None:
        self.context, self.width, self.rate = context, width, rate
        self.kind, self.sizes, self.part = kind, sizes, part


@pytest.fixture
def machines():
    registry = Registry("machine", "axonnx.test.machines")
    registry.register("machine")(Machine)
    return registry


def test_build_passes_positionals_and_defaults(machines):
    built = machines.build({"name": "machine", "sizes": [3], "part": {"size": 7}}, "context")
    assert (built.context, built.width, built.rate, built.kind) == ("context", 4, 0.5, "a")
    assert built.sizes == (3,)
    assert built.part == Part(size=7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 0),
        ("width", "wide"),
        ("width", True),
        ("rate", False),
        ("kind", "c"),
        ("widht", 4),
        ("context", 1),
        ("part", {"sise": 1}),
    ],
)
def test_settings_refuse_what_is_wrong_and_say_where(machines, key, value):
    with pytest.raises(ValidationError) as caught:
        machines.build({"name": "machine", key: value}, "context")
    assert caught.value.errors()[0]["loc"][0] == key


def test_settings_have_every_default_and_dump_to_json(machines):
    settings = machines.settings("machine")()
    assert settings.model_dump(mode="json") == {
        "width": 4,
        "rate": 0.5,
        "kind": "a",
        "sizes": [1, 2],
        "part": {"size": 3},
    }


def test_unknown_name_lists_the_names_and_the_nearest(machines):
    machines.register("tool")(lambda: None)
    with pytest.raises(UnknownNameError, match=r"'machin'.*'machine'.*machine, tool"):
        machines.get("machin")
    with pytest.raises(UnknownNameError, match=r"^no machine 'xyzzy'; valid: machine, tool$"):
        machines.build({"name": "xyzzy"})
    with pytest.raises(RegistryError, match=r"`name` is missing; one of machine, tool"):
        machines.build({"width": 3})


def test_registering_twice_is_refused(machines):
    with pytest.raises(RegistryError, match="'machine' is registered already"):
        machines.register("machine")(Machine)


def test_a_cell_of_a_notebook_may_run_again(machines):
    def written() -> type:
        return type("Cell", (), {"__module__": "__main__"})

    machines.register("cell")(written())
    again = machines.register("cell")(written())
    assert machines.get("cell") is again
    with pytest.raises(RegistryError, match="'cell' is registered already"):
        machines.register("cell")(type("Other", (), {"__module__": "__main__"}))


def test_settings_without_default_need_a_registry_that_allows_them():
    def load(*, path: str) -> str:
        return path

    with pytest.raises(RegistryError, match="path needs a default"):
        Registry("machine", "x").register("load")(load)
    allowed = Registry("machine", "x", required=True)
    allowed.register("load")(load)
    assert allowed.build({"name": "load", "path": "here"}) == "here"
    with pytest.raises(ValidationError, match="path"):
        allowed.build({"name": "load"})


def test_hidden_settings_are_refused(machines):
    with pytest.raises(RegistryError, match=r"\*\*rest hides"):
        machines.register("open")(lambda **rest: rest)


def test_summary_is_the_first_line(machines):
    assert machines.summary("machine") == "A machine."


def test_names_load_entry_points(machines, monkeypatch):
    plugin = types.ModuleType("axonnx_test_plugin")
    plugin.Machine = type("Other", (Machine,), {})
    monkeypatch.setitem(sys.modules, "axonnx_test_plugin", plugin)
    entries = [EntryPoint("other", "axonnx_test_plugin:Machine", machines.group)]
    monkeypatch.setattr(module, "entry_points", lambda group: entries)
    assert machines.names() == ["machine", "other"]
    assert machines.get("other") is plugin.Machine


def test_a_broken_entry_point_is_named_and_known_names_still_work(machines, monkeypatch):
    entries = [EntryPoint("broken", "axonnx_no_such_module", machines.group)]
    monkeypatch.setattr(module, "entry_points", lambda group: entries)
    assert machines.get("machine") is Machine
    with pytest.raises(RegistryError, match=r"broken = axonnx_no_such_module .*cannot be loaded"):
        machines.names()

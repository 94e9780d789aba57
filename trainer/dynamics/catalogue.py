"""The page of all neural masses, written from their classes.

`python -m trainer.dynamics.catalogue` writes docs/data_driven/models.md anew.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from itertools import groupby
from pathlib import Path

from artifact.bundle import write_file
from trainer.dynamics.node import NODES, Node, Start

PAGE = Path("docs/data_driven/models.md")

_HEAD = """# Neural masses

Written by `python -m trainer.dynamics.catalogue` from the classes in `trainer/dynamics/nodes`; not
edited by hand.

A model is built by its class, `Hopf(a=0.3)`, or by its name, as in a configuration:
`NODES.build({"name": "hopf", "a": 0.3})`. Every parameter is a number, a tensor that broadcasts
against (batch, node), or a `Param` that is fitted. Time is in ms: derivatives, written `x'`, are
per ms. `I_x` is the input "x"; coupling, noise and stimulus add up there. A coupling carries the
first state to the first input unless it names others. The unit 1 stands for none.
"""


def page() -> str:
    """The page as Markdown: an overview, then one section per family."""
    names = sorted(models(), key=lambda name: (NODES.get(name).__module__, _line(name)))
    parts = [_HEAD, _overview(names)]
    for module, family in groupby(names, key=lambda name: NODES.get(name).__module__):
        parts.append(_family(module))
        parts += [_section(name) for name in family]
    return "\n".join(parts)


def models() -> list[str]:
    """Names of the neural masses, without plug-ins and the vessels of an observation."""
    inside = f"{__package__}.nodes."
    return [name for name in NODES.names() if NODES.get(name).__module__.startswith(inside)]


def _line(name: str) -> int:
    return inspect.getsourcelines(NODES.get(name))[1]


def _overview(names: list[str]) -> str:
    rows = []
    for name in names:
        node = NODES.build({"name": name})
        numbers = f"{len(node.states)} | {len(node.inputs)} | {len(node.parameter_names())}"
        rows.append(f"| [`{name}`](#{name}) | {numbers} | {_cell(node.source)} |")
    head = "| model | states | inputs | parameters | source |\n|---|--:|--:|--:|---|"
    return "\n".join([head, *rows, ""])


def _family(module: str) -> str:
    """Heading and text of a family: the docstring of its module."""
    title, *rest = _paragraphs(inspect.getdoc(sys.modules[module]) or "")
    return "\n".join([f"## {title.rstrip('.')}", "", *(text + "\n" for text in rest)])


def _section(name: str) -> str:
    """Everything about one model."""
    kind = NODES.get(name)
    node = NODES.build({"name": name})
    text = "\n\n".join(_paragraphs(inspect.getdoc(kind) or ""))
    parts = [f"### {name}", f"`{kind.__name__}`. {text}", _states(node)]
    others = [f"Inputs: {_listed(node.inputs)}."]
    if node.outputs:
        others.append(f"Outputs beside the states: {_listed(node.outputs)}.")
    for input, (state, lag) in node.lags.items():
        others.append(f"`{input}` receives the node's own `{state}` of `{lag}` ago.")
    return "\n\n".join([*parts, " ".join(others), _parameters(node)]) + "\n"


def _states(node: Node) -> str:
    rows = []
    for name in node.states:
        start = _start(node.start.get(name, 0.0))
        low, high = node.limits.get(name, (None, None))
        limits = "" if low is None else f"{low:g} to {high:g}"
        rows.append(f"| `{name}` | {node.state_units.get(name, '1')} | {start} | {limits} |")
    return "\n".join(["| state | unit | starts at | clipped to |\n|---|---|---|---|", *rows])


def _start(start: Start) -> str:
    if isinstance(start, tuple):
        return f"uniform, {start[0]:.4g} to {start[1]:.4g}"
    return f"{start:.4g}"


def _parameters(node: Node) -> str:
    values = node.values()
    rows = []
    for field in dataclasses.fields(node):  # type: ignore[arg-type]
        said = field.metadata
        default = f"{float(values[field.name]):.6g}"
        rows.append(f"| `{field.name}` | {default} | {said['unit']} | {_cell(said['meaning'])} |")
    return "\n".join(["| parameter | default | unit | meaning |\n|---|--:|---|---|", *rows])


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring: equations and lists line by line, others as one line."""
    found = []
    for paragraph in text.split("\n\n"):
        if "' = " in paragraph:
            found.append(f"```text\n{paragraph}\n```")
        elif paragraph.startswith("- "):
            found.append(paragraph)
        else:
            found.append(" ".join(paragraph.split("\n")))
    return found


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write_file(PAGE, page().encode())

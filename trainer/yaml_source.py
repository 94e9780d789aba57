"""YAML text to plain values, with the place of each of them.

The core schema of YAML 1.2: `1e-3` is a number, `no` and `12:30` are text. Keys are text and occur
once; aliases, tags and non-finite numbers are refused, since a config needs none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

MAX_BYTES = 1_000_000
Place = TypeVar("Place")
Keys = tuple[str | int, ...]  # keys and list positions from the top of the document


class SourceError(ValueError):
    """The text is not YAML that a config can be made of."""

    def __init__(self, line: int, key: str, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.key = key
        self.text = text


@dataclass(frozen=True)
class Source:
    """A parsed document: its value, and the line (from 1) of everything in it."""

    value: Any
    lines: dict[Keys, int]


def parse(data: bytes) -> Source:
    """Parse one YAML document; raises SourceError and nothing else."""
    if len(data) > MAX_BYTES:
        raise SourceError(1, "", f"is larger than {MAX_BYTES} bytes; a config is a short text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(line, "", f"is not UTF-8 text (byte {error.start})") from None
    lines: dict[Keys, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        return Source(None if node is None else _value(node, (), lines), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SourceError(
            line, "", f"is not valid YAML: {error.problem or error.context}"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SourceError(line, "", f"holds the character {error.character:#x}") from None
    except RecursionError:
        raise SourceError(1, "", "is nested too deeply") from None
    except (ValueError, ArithmeticError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(1, "", f"is not valid YAML: {error}") from None


def dump(value: Any) -> str:
    """Plain values as YAML that `parse` reads back as the same values; key order is kept."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return str(text)


def dotted(keys: Keys) -> str:
    """("data", "files", 0) -> "data.files.0"."""
    return ".".join(map(str, keys))


def nearest(places: Mapping[Keys, Place], keys: Keys, default: Place) -> Place:
    """The place of `keys`, or of the nearest thing around them that has one."""
    known = (keys[:size] for size in range(len(keys), 0, -1))
    return next((places[k] for k in known if k in places), default)


def keys_of(location: Keys, values: Any, *, missing: bool = False) -> Keys:
    """The part of a pydantic location that is keys of `values`: unions add names of their own.

    With `missing` keys count that are not there.
    """
    keys: list[str | int] = []
    for key in location:
        inside = isinstance(values, dict) and key in values
        if inside or (isinstance(values, list) and isinstance(key, int) and key < len(values)):
            values = values[key]
            keys.append(key)
        elif missing:
            keys.append(key)
    return tuple(keys)


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise SourceError(line, "", f"alias *{event.anchor}: write the value out")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    pass


_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
)
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _name, _pattern, _first in _CORE:
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


def _value(node: yaml.Node, path: Keys, lines: dict[Keys, int]) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, (*path, i), lines) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.tag.removeprefix(_TAG), node.value, path, line)
    raise SourceError(line, dotted(path), f"the tag {node.tag!r} is not supported")


def _mapping(node: yaml.MappingNode, path: Keys, lines: dict[Keys, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
            text = getattr(key_node, "value", None)
            shown = f"{text!r}" if isinstance(text, str) else "a list or mapping"
            raise SourceError(line, dotted(path), f"a key must be text, is {shown}; quote it")
        key = key_node.value
        inner = (*path, key)
        if key in result:
            raise SourceError(
                line, dotted(inner), f"stands twice, first in line {lines[inner]}; keep one"
            )
        lines[inner] = line
        result[key] = _value(value_node, inner, lines)
    return result


def _scalar(kind: str, text: str, path: Keys, line: int) -> Any:
    if kind == "str":
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise SourceError(line, dotted(path), f"{text[:40]!r} holds half a character")
        return text
    if kind == "null":
        return None
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        number = int(text) if kind == "int" else float(text) if kind == "float" else None
    except (ValueError, KeyError):
        raise SourceError(line, dotted(path), f"{text[:40]!r} is not a {kind}") from None
    if number is None:
        raise SourceError(line, dotted(path), f"the tag !!{kind} is not supported")
    if isinstance(number, float) and not math.isfinite(number):
        raise SourceError(line, dotted(path), f"{text[:40]!r} is not a finite number")
    return number

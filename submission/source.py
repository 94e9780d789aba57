"""YAML text to plain values; aliases, tags, dates and doubled keys are refused."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1_000_000
_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset({"str", "int", "float", "bool", "null"})


class SourceError(ValueError):
    """The text is not YAML that a configuration can be made of; `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def parse(text: str) -> tuple[yaml.Node | None, Any]:
    """The one document in `text` as nodes, which know their lines, and as plain values.

    Raises SourceError and nothing else.
    """
    if len(text) > MAX_CHARACTERS:
        raise SourceError(
            1, f"is longer than {MAX_CHARACTERS} characters; a config is a short text"
        )
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SourceError(line, f"no YAML: holds the character {error.character:#x}") from None
    try:
        root = loader.get_single_node()
        return root, None if root is None else _plain(root)
    except SourceError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SourceError(line, f"no YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise SourceError(loader.line + 1, "is nested too deeply") from None
    except (ValueError, ArithmeticError) as error:  # an escape that stands for no character
        raise SourceError(loader.line + 1, f"no YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise SourceError(_line(event), f"alias *{event.anchor}: write the value out")
        return super().compose_node(parent, index)


def _line(place: Any) -> int:
    return int(place.start_mark.line) + 1


def _plain(node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        return _scalar(node, kind)
    if kind == "timestamp":
        raise SourceError(_line(node), f"{node.value[:40]!r} is a date; quote it to make it text")
    raise SourceError(_line(node), f"the tag {kind[:40]!r} is not supported")


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = _plain(key_node), _line(key_node)
        if not isinstance(key, str):
            raise SourceError(line, f"a key must be text, is {str(key)[:40]}; quote it")
        if key in lines:
            raise SourceError(line, f"{key}: stands twice, first in line {lines[key]}; keep one")
        lines[key] = line
        result[key] = _plain(value_node)
    return result


def _scalar(node: yaml.ScalarNode, kind: str) -> Any:
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in node.value):
        raise SourceError(_line(node), f"{node.value[:40]!a} holds what is no character")
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, LookupError, ArithmeticError):
        raise SourceError(_line(node), f"{node.value[:40]!r} is no {kind}") from None

"""A YAML file with `--section.key value` overrides, and its mistakes told by line and key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trainer import yaml_source
from trainer.yaml_source import SourceError, dotted

UnknownKey: TypeAlias = Callable[[tuple[str, ...], dict[str, Any]], str]


class ConfigError(ValueError):
    """The config is wrong; the text says where, what, and what would be right."""


class Document:
    """The values of the file with overrides merged in, and the place of each."""

    def __init__(self, path: Path, source: yaml_source.Source) -> None:
        self.file = str(path)
        self.values: dict[str, Any] = source.value
        self.places = {key: f"{path}:{line}" for key, line in source.lines.items()}

    def place(self, keys: yaml_source.Keys) -> str:
        """Where the value stands, or the nearest thing around it that stands somewhere."""
        return yaml_source.nearest(self.places, keys, self.file)

    def override(self, key: str, text: str) -> None:
        """Set a dotted key to the value of a YAML text; items of a list go by their number."""
        words = key.split(".")
        if not all(words):
            raise ConfigError(f"--{key}: is not a key; write --section.key, as in --model.name")
        try:
            value = yaml_source.parse(text.encode()).value
        except (SourceError, UnicodeEncodeError) as error:
            raise ConfigError(f"--{key}: {text!r} {error}") from None
        if isinstance(value, dict):
            raise ConfigError(f"--{key}: is a mapping; give one --{key}.… for each of its keys")
        section: Any = self.values
        keys: yaml_source.Keys = ()
        for word in words[:-1]:
            keys = (*keys, _place_in(section, word, key, keys))
            if isinstance(section, dict) and section.get(word) is None:
                section[word] = {}
                self.places[keys] = f"--{key}"
            section = section[keys[-1]]
        keys = (*keys, _place_in(section, words[-1], key, keys))
        section[keys[-1]] = value
        self.places = {k: v for k, v in self.places.items() if k[: len(keys)] != keys}
        self.places[keys] = f"--{key}"


def _place_in(section: Any, word: str, key: str, above: yaml_source.Keys) -> str | int:
    """The key of a mapping or the number in a list that a word of an override names."""
    if isinstance(section, dict):
        return word
    where = dotted(above)
    if not isinstance(section, list):
        raise ConfigError(f"--{key}: {where} is {section!r}, which holds no keys")
    if word.isdecimal() and int(word) < len(section):
        return int(word)
    raise ConfigError(f"--{key}: {where} is a list of {len(section)}, numbered from 0")


def read_source(path: Path, sections: Iterable[str]) -> yaml_source.Source:
    """The YAML file at `path`, whose top keys are `sections`; raises ConfigError."""
    try:
        with path.open("rb") as file:
            source = yaml_source.parse(file.read(yaml_source.MAX_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SourceError as error:
        key = f"{error.key}: " if error.key else ""
        raise ConfigError(f"{path}:{error.line}: {key}{error.text}") from None
    if not isinstance(source.value, dict):
        found = "is empty" if source.value is None else f"holds {shown(source.value)}"
        raise ConfigError(f"{path}:1: {found}; a config is a mapping of {', '.join(sections)}")
    return source


def explain(error: ValidationError, document: Document, unknown_key: UnknownKey) -> str:
    """What a schema finds wrong with a document, one line per mistake.

    unknown_key: why the key at a location, keys and all, is refused in these values.
    """
    texts = [_explain(details, document, unknown_key) for details in error.errors()]
    return "\n".join(dict.fromkeys(texts))


def _explain(error: ErrorDetails, document: Document, unknown_key: UnknownKey) -> str:
    """One pydantic error as "place: key: what is wrong; what would be right"."""
    values = document.values
    missing = error["type"] in ("missing", "unknown_name")
    keys = yaml_source.keys_of(error["loc"], values, missing=missing)
    place = document.place(keys)
    if error["type"] == "extra_forbidden":
        text = unknown_key(tuple(map(str, error["loc"])), values)
    elif error["type"] == "missing":
        text = "is missing; it has no default"
    elif error["type"] == "unknown_name":
        text = error["msg"]
    elif error["type"] in ("dict_type", "model_type"):
        text = f"is {shown(error['input'])}; must be a mapping of keys"
    else:
        message = error["msg"].removeprefix("Value error, ")
        text = f"is {shown(error['input'])}; {message[:1].lower()}{message[1:]}"
    key = dotted(keys)
    return f"{place}: {text}" if key in ("", place[2:]) else f"{place}: {key}: {text}"


def nearest(key: str, valid: list[str]) -> str:
    """ " did you mean …? valid: …" for a misspelt key."""
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    return (f" did you mean {close[0]!r}?" if close else "") + f" valid: {', '.join(valid)}"


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

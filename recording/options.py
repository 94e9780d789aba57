"""`--option KEY=VALUE`: what a user says about a file on a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from recording.errors import RecordingError


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options from texts "key=value"; a value is JSON where it reads as such, else plain text.

    A list may be written with commas: `behavior=x,y`. Raises RecordingError for a text without "=".
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecordingError(f"--option {text!r}: write KEY=VALUE, as in rate=250")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text.split(",")] if "," in text else text

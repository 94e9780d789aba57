"""API keys: who may ask for anything that comes from a model.

A caller sends its key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. Open without a key are
the probes of an orchestrator, and the files of the page, which hold nothing but what is in the
source of this project: a page must be there before it can ask for a key.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256

MIN_LENGTH = 16
HEALTH = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
PAGE = frozenset({"/", "/docs", "/openapi.json"})
PAGE_FOLDER = "/page/"
MISSING = "a key is needed: send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"
UNKNOWN = "the key that was sent is none of those known here"


class Keys:
    """The keys that are known, as digests, so that all comparisons take the same time."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def refusal(self, method: str, path: str, fields: Mapping[bytes, bytes]) -> str | None:
        """Why a request gets no answer; None where it gets one. `fields`: headers, lower case."""
        return None if is_open(method, path) else self.fault(fields)

    def fault(self, fields: Mapping[bytes, bytes]) -> str | None:
        """What is wrong with the keys that were sent; None where one of them is known.

        Each is compared with every key that is known, to the end.
        """
        sent = [fields[b"x-api-key"].strip()] if b"x-api-key" in fields else []
        scheme, _, key = fields.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            sent.append(key.strip())
        known = False
        for key in sent:
            digest = sha256(key).digest()
            for other in self._digests:
                known |= hmac.compare_digest(digest, other)
        if known:
            return None
        return UNKNOWN if sent else MISSING


def read_keys(text: str) -> Keys | None:
    """Keys separated by commas; None where there is no text at all, which means that all may ask.

    Raises ValueError, whose text does not show any of them.
    """
    if not text:
        return None
    keys = [part.strip() for part in text.split(",")]
    for place, key in enumerate(keys, 1):
        which = f"key {place} of {len(keys)}"
        if len(key) < MIN_LENGTH:
            raise ValueError(f"{which} has {len(key)} characters; at least {MIN_LENGTH} are needed")
        if not all("!" <= character <= "~" for character in key):
            raise ValueError(f"{which} has other characters than the visible ones of ASCII")
    return Keys(keys)


def is_open(method: str, path: str) -> bool:
    """Whether everyone may ask for this path."""
    if method not in ("GET", "HEAD"):
        return False
    return path in HEALTH or path in PAGE or path.startswith(PAGE_FOLDER)

"""Compressed bodies (Content-Encoding), inflated to a bounded size."""

from __future__ import annotations

import zlib
from typing import ClassVar

from serve.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

# How zlib is told the framing: RFC 1952 (gzip) and RFC 1950 (what HTTP calls deflate).
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class UnsupportedEncoding(UnsupportedMediaType):
    """The Content-Encoding is none that is inflated; the answer names those that are."""

    headers: ClassVar[dict[str, str]] = {"Accept-Encoding": "gzip, deflate"}


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """The body behind this Content-Encoding, at most `limit` bytes of it.

    Raises UnsupportedEncoding, BodyTooLarge, or MalformedBody where the data are damaged, cut short
    or followed by something else.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW_BITS:
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:100]!r}; must be gzip, deflate or none at all"
        )
    stream = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        data = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedBody(f"the body is not {name}: {error}") from None
    if len(data) > limit:
        raise BodyTooLarge(f"the body inflates to more than the {limit} bytes that are read")
    if not stream.eof:
        raise MalformedBody(f"the body is cut short: its {name} data have no end")
    if stream.unused_data:
        raise MalformedBody(f"{len(stream.unused_data)} bytes follow the {name} data")
    return data

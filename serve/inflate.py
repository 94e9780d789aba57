"""Compressed bodies (Content-Encoding), inflated piece by piece to a bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import ClassVar

from serve.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

PIECE = 1 << 20  # bytes that come out at a time, at most
# How zlib is told the framing: RFC 1952 (gzip) and RFC 1950 (what HTTP calls deflate).
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class UnsupportedEncoding(UnsupportedMediaType):
    """The Content-Encoding is none that is inflated; the answer names those that are."""

    headers: ClassVar[dict[str, str]] = {"Accept-Encoding": "gzip, deflate"}


def read_encoding(text: str) -> str | None:
    """The encoding that a Content-Encoding names, None for none; raises UnsupportedEncoding."""
    name = text.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in _WINDOW_BITS:
        raise UnsupportedEncoding(
            f"Content-Encoding {text[:100]!r}; must be gzip, deflate or none at all"
        )
    return name


def inflate(body: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    """The body behind an encoding of `read_encoding`, in pieces, none of them empty.

    Raises BodyTooLarge where there would be more than `limit` bytes in all, or MalformedBody where
    the data are damaged, cut short or followed by something else.
    """
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    read = size = 0
    while not stream.eof:
        data = stream.unconsumed_tail
        if not data:
            data = body[read : read + PIECE]
            read += len(data)
        try:
            piece = stream.decompress(data, min(PIECE, limit + 1 - size))
        except zlib.error as error:
            raise MalformedBody(f"the body is not {encoding}: {error}") from None
        size += len(piece)
        if size > limit:
            raise BodyTooLarge(f"the body inflates to more than the {limit} bytes that are read")
        if piece:
            yield piece
        elif not data:
            raise MalformedBody(f"the body is cut short: its {encoding} data have no end")
    if rest := len(stream.unused_data) + len(body) - read:
        raise MalformedBody(f"{rest} bytes follow the {encoding} data")

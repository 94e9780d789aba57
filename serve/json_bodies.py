"""JSON bodies, parsed only where that takes little time and memory.

The parser makes an object of every list, text and number, 20 to 60 times as large as its text, and
lets nothing else run in the process meanwhile, in whatever thread it works. So the size of JSON is
bounded apart from that of binary bodies, and the number of its lists, objects and texts as well:
with both at their largest, reading takes about 0.4 s and 100 MB.
"""

from __future__ import annotations

from typing import Any

import orjson

from serve.errors import BodyTooLarge

MAX_JSON_BYTES = 8 << 20  # by default
MAX_PARTS = 1 << 18  # lists, objects and quotation marks
# What to do instead.
AS_BYTES = "send numbers as bytes: .npy or .npz, in V2 binary tensor data"


def json_too_large(size: int, limit: int) -> BodyTooLarge:
    """The refusal of JSON of `size` bytes."""
    return BodyTooLarge(f"the JSON has {size} bytes; at most {limit} are read; {AS_BYTES}")


def parse_json(body: bytes, size: int) -> Any:
    """What the JSON in the first `size` bytes says; orjson bounds its nesting.

    Raises BodyTooLarge for more than `MAX_PARTS` lists, objects and quotation marks (those within
    texts count too), orjson.JSONDecodeError for what is no JSON.
    """
    if size > MAX_PARTS:
        parts = sum(body.count(mark, 0, size) for mark in (b"[", b"{", b'"'))
        if parts > MAX_PARTS:
            raise BodyTooLarge(
                f"the JSON has {parts} lists, objects and quotation marks; at most {MAX_PARTS} are "
                f"read; {AS_BYTES}"
            )
    return orjson.loads(body if size == len(body) else memoryview(body)[:size])

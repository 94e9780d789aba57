"""A small picture for a competition that has none, drawn from its title."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np

SIZE = 256  # pixels
TRACES = 5


def draw(title: str) -> bytes:
    """PNG bytes, 256 x 256: a few traces on a dark ground, the same for the same title."""
    digest = hashlib.sha256(title.encode()).digest()
    x = np.linspace(0.0, 1.0, SIZE)
    y = np.arange(SIZE)[:, None]
    low, high = (np.array([part + 24 for part in digest[i : i + 3]]) / 4.0 for i in (0, 3))
    picture = low + (high - low) * np.linspace(0.0, 1.0, SIZE)[:, None, None] * np.ones(
        (1, SIZE, 1)
    )
    for trace in range(TRACES):
        rate, phase, size, hue = digest[6 + 4 * trace : 10 + 4 * trace]
        wave = np.sin(2.0 * np.pi * ((1 + rate % 6) * x + phase / 256.0)) * np.exp(
            -((x - 0.5) ** 2) / (0.02 + size / 2048.0)
        )
        middle = SIZE * (trace + 1) / (TRACES + 1) + 18.0 * wave
        ink = np.clip(2.0 - np.abs(y - middle), 0.0, 1.0)[..., None]
        color = np.array([120 + hue // 2, 255 - hue // 3, 200 + hue // 8])
        picture = picture + ink * (color - picture)
    return encode(np.round(picture).astype(np.uint8))


def encode(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """8-bit RGB pixels (row, column, color) as PNG bytes (ISO/IEC 15948), stored, not deflated.

    Stored, since zlib's compressed bytes depend on which library does it.
    """
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 0)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

"""Files of 16 bits a colour, which Pillow cannot write."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of integers ``(H, W, 3)`` or, with transparency, ``(H, W, 4)``; its rows use a filter that looks back."""
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8).astype(np.int16)
    step = 2 * channels
    filtered = rows - np.pad(rows, ((0, 0), (step, 0)))[:, :-step]  # filter 1, "sub"
    body = np.concatenate([np.ones((height, 1), np.uint8), filtered.astype(np.uint8)], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff_of_16_bits(values: np.ndarray, order: str = "<", deflated: bool = False, orientation: int = 1) -> bytes:
    """A TIFF of integers ``(H, W, 3)`` in one strip, little- or big-endian, plain or deflated."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if deflated else data
    bits_at = 8 + 2 + 10 * 12 + 4
    at = bits_at + 6
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits_at),
        (259, 3, 1, 8 if deflated else 1),
        (262, 3, 1, 2),
        (273, 4, 1, at),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        body += struct.pack(f"{order}HHI", tag, kind, count)
        body += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    return head + body + struct.pack(f"{order}I", 0) + struct.pack(f"{order}3H", 16, 16, 16) + data

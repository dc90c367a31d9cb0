"""Whether the entropy-coded data of a JPEG are all there.

Decoders fill up what is lost in the middle of a stream with grey, without a word: all but the first part of a
radiograph can be made up.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any

import numpy as np
import simplejpeg

_LOST = re.compile(
    r"premature end|bad huffman code|instead of rst|(\d+) extraneous bytes before marker 0x(?:d[0-9a]|c4)",
    re.IGNORECASE,
)
_SPARE = 4  # bytes that an encoder may leave before a marker without meaning


def lost(encoded: bytes, frame: np.ndarray[Any, Any]) -> str | None:
    """What tells that part of one JPEG stream is missing, or None.

    A loss of less than a block or two can go unseen: what follows is then read as it was meant.

    Looked at are Huffman-coded streams with cosine transform (libjpeg's own warnings), and lossless ones of one
    component, where the pixels that were decoded say how many bits they take (ITU-T T.81 H.1.2).

    Args:
        encoded: from SOI to EOI.
        frame: decoded from it, (rows, columns[, samples]).
    """
    header = _Header(encoded)
    if header.frame in (0xC0, 0xC1, 0xC2) and header.precision in (8, 12):
        return _lost_of_transformed(_as_of_8_bits(encoded, header), header.components)
    if header.frame == 0xC3 and header.components == 1 and frame.ndim == 2:
        return _lost_of_lossless(encoded, header, frame)
    return None


def _as_of_8_bits(encoded: bytes, header: _Header) -> bytes:
    """The same codes under a header that libjpeg has nothing to say of: what the pixels would be does not matter.

    Codes of 12 bits are those of 8 with larger categories (T.81 F.1.2). Some encoders leave out where the spectrum of a
    sequential scan begins and ends, which can have one value only (T.81 B.2.3).
    """
    data = bytearray(encoded)
    data[header.at_precision] = 8
    if header.frame != 0xC2 and header.scan:
        data[header.scan - 3 : header.scan] = bytes((0, 63, 0))
    return bytes(data)


def _lost_of_transformed(encoded: bytes, components: int) -> str | None:
    try:  # an eighth of the size: every code is read, few pixels are made
        simplejpeg.decode_jpeg(
            encoded,
            colorspace="gray" if components == 1 else "rgb",
            min_height=1,
            min_width=1,
            min_factor=1,
            strict=True,
        )
    except ValueError as warning:
        found = _LOST.search(str(warning))
        if found and (found[1] is None or int(found[1]) > _SPARE):
            return "encoded pixels are missing"
    return None


def _lost_of_lossless(encoded: bytes, header: _Header, frame: np.ndarray[Any, Any]) -> str | None:
    known = 1 <= header.predictor <= 7 and 0 <= header.shift < header.precision <= 16
    if header.restarts or header.lengths is None or not known:
        return None
    differences = _differences(frame >> header.shift if header.shift else frame, header)
    bits = int(np.take(header.lengths, differences, mode="clip").sum(dtype=np.uint32))  # nothing to clip: it is faster
    end = encoded.rfind(b"\xff\xd9")
    there = end - header.scan - encoded.count(b"\xff\x00", header.scan, end)
    needed = -(-bits // 8)
    return None if needed <= there <= needed + _SPARE else f"{there} bytes where the pixels take {needed}"


def _differences(x: np.ndarray[Any, Any], header: _Header) -> np.ndarray[Any, Any]:
    """Pixels less their prediction modulo 2^16 (T.81 H.1.2.1, table H.1), as uint16 of the shape of ``x``."""
    # Halves need the sign and the carry; without them 16 bits that wrap around are the modulus itself.
    x = x.astype(np.int32 if header.predictor >= 5 else np.uint16, copy=False)
    a, b, c = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]  # left, above, above left
    predicted = {
        1: lambda: a,
        2: lambda: b,
        3: lambda: c,
        4: lambda: a + b - c,
        5: lambda: a + ((b - c) >> 1),
        6: lambda: b + ((a - c) >> 1),
        7: lambda: (a + b) >> 1,
    }[header.predictor]()
    out = np.empty_like(x)
    np.subtract(x[:1, :1], x.dtype.type(1 << (header.precision - header.shift - 1)), out=out[:1, :1])
    np.subtract(x[0, 1:], x[0, :-1], out=out[0, 1:])
    np.subtract(x[1:, 0], x[:-1, 0], out=out[1:, 0])
    np.subtract(x[1:, 1:], predicted, out=out[1:, 1:])
    return out.astype(np.uint16, copy=False)


class _Header:
    """What the segments up to the first scan say (T.81 B.2).

    ``lengths`` are the bits that each difference modulo 2^16 takes: its Huffman code, and as many as its category says
    (T.81 F.1.2.1, H.1.2.2); None where the table is not there.
    """

    def __init__(self, data: bytes) -> None:
        self.frame = self.precision = self.components = self.restarts = self.scan = self.predictor = self.shift = 0
        self.at_precision = 0  # where the stream says it
        self.lengths: np.ndarray[Any, Any] | None = None
        tables: dict[int, dict[int, int]] = {}
        position = 2
        try:
            while True:
                while data[position] == 0xFF:
                    position += 1
                marker = data[position]
                (length,) = struct.unpack_from(">H", data, position + 1)
                segment = data[position + 3 : position + 1 + length]
                position += 1 + length
                if marker == 0xC4:
                    tables |= _huffman_tables(segment)
                elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
                    self.frame, self.precision, self.components = marker, segment[0], segment[5]
                    self.at_precision = position - len(segment)
                elif marker == 0xDD:
                    (self.restarts,) = struct.unpack(">H", segment)
                elif marker == 0xDA:
                    self.scan, self.predictor, self.shift = position, segment[-3], segment[-1] & 15
                    self.lengths = _lengths(tuple(tables.get(segment[2] >> 4, {}).items()))
                    return
        except (IndexError, struct.error):
            return


def _huffman_tables(segment: bytes) -> dict[int, dict[int, int]]:
    """By table (those of DC and lossless coding, class 0): the length of the code of each category."""
    tables, position = {}, 0
    while position + 17 <= len(segment):
        kind, counts = segment[position], segment[position + 1 : position + 17]
        position += 17
        sizes = [size for size, count in enumerate(counts, 1) for _ in range(count)]
        if kind < 16:
            tables[kind] = dict(zip(segment[position : position + len(sizes)], sizes, strict=False))
        position += len(sizes)
    return tables


@lru_cache(maxsize=16)  # the files of a series mostly have one table, or a few
def _lengths(codes: tuple[tuple[int, int], ...]) -> np.ndarray[Any, Any] | None:
    if not codes:
        return None
    of_category = np.zeros(256, np.uint8)
    for category, size in codes:
        of_category[category] = size
    magnitudes = np.abs(np.arange(1 << 16, dtype=np.uint16).astype(np.int16).astype(np.int32))
    categories = np.frexp(magnitudes)[1]  # 0 for 0, else the bits of the magnitude: 16 for 32768
    return of_category[categories] + np.where(categories == 16, 0, categories).astype(np.uint8)

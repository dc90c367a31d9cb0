"""The checks that a PNG carries of itself (PNG 5.3 and 10.1): Pillow passes over those of the pixels."""

from __future__ import annotations

import zlib

_SIGNATURE = 8  # bytes before the first chunk
_PIECE = 1 << 20


def damage(content: bytes) -> str | None:
    """What is wrong with a PNG file that was decoded all the same; None where nothing is.

    Args:
        content: of the whole file.
    """
    inflating = zlib.decompressobj()
    position = _SIGNATURE
    while position + 12 <= len(content) and not inflating.eof:
        length = int.from_bytes(content[position : position + 4], "big")
        kind, end = content[position + 4 : position + 8], position + 8 + length
        told = int.from_bytes(content[end : end + 4], "big")
        # Chunks in small letters (text, colour profiles) are not needed to show the picture; how it is turned, is.
        if (kind[:1].isupper() or kind == b"eXIf") and zlib.crc32(content[position + 4 : end]) != told:
            return f"a damaged {kind.decode('ascii', 'replace')} chunk"
        if kind == b"IDAT" and not _inflates(inflating, content[position + 8 : end]):
            return "the compressed pixels do not fit their checksum"
        position = end + 4
    return None if inflating.eof else "the compressed pixels have no end"


def _inflates(inflating: zlib._Decompress, data: bytes) -> bool:
    """Whether the data go on with what was inflated before, which is not kept; at their end zlib looks at the sum."""
    try:
        while data and not inflating.eof:
            inflating.decompress(data, _PIECE)
            data = inflating.unconsumed_tail
    except zlib.error:
        return False
    return True

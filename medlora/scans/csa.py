"""How the tiles of a Siemens mosaic lie: two tags of the private CSA image header (0029,1010), without the others.

The format is Siemens' own; as nibabel describes it ("Siemens format DICOM with CSA header", CSA2): after "SV10" come
tags of 84 bytes (name of 64, multiplicity, VR, type, number of items, a mark), each followed by its items: four
numbers, of which the second is the length of the text after them, which is padded to a multiple of four.
"""

from __future__ import annotations

import struct

CSA_TAG = 0x00291010
_COUNT, _NORMAL = b"NumberOfImagesInMosaic\0", b"SliceNormalVector\0"
_TAG, _ITEM = 84, 16


def layout(raw: bytes) -> list[float]:
    """Number of tiles and the normal of the slices, LPS.

    Args:
        raw: value of the element.

    Returns:
        four numbers, or nothing where the header is none of this format or of no mosaic.
    """
    if not raw.startswith(b"SV10"):
        return []
    try:
        count, normal = _numbers(raw, _COUNT), _numbers(raw, _NORMAL)
    except (struct.error, ValueError):
        return []
    return [count[0], *normal] if len(count) == 1 and len(normal) == 3 else []


def _numbers(raw: bytes, name: bytes) -> list[float]:
    position = raw.find(name)
    if position < 0:
        return []
    (items,) = struct.unpack_from("<i", raw, position + 76)
    position += _TAG
    numbers = []
    for _ in range(min(items, 6)):
        (length,) = struct.unpack_from("<i", raw, position + 4)
        if length < 0:
            raise ValueError
        position += _ITEM
        if text := raw[position : position + length].strip(b" \0"):
            numbers.append(float(text))
        position += -(-length // 4) * 4
    return numbers

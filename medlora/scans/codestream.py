"""What the beginning of an encoded frame says of it, before anything is decoded."""

from __future__ import annotations

import struct
from contextlib import suppress


class Codestream:
    """Size, subsampling and colour marks of a JPEG, JPEG-LS or JPEG 2000 codestream.

    JPEG: ITU-T T.81 B.2; JPEG-LS: T.87 C.2; JPEG 2000: T.800 A.5.1, bare or in a JP2 box.
    """

    def __init__(self, data: bytes) -> None:
        self.rows = self.columns = self.samples = 0
        self.adobe: int | None = None
        self.jfif = False
        self.subsampled = False
        self.transformed: bool | None = None
        with suppress(struct.error, IndexError):
            start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
            if start >= 0 and (start == 0 or data[4:8] == b"jP  "):
                right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
                self.columns, self.rows = right - left, bottom - top
                (self.samples,) = struct.unpack_from(">H", data, start + 40)
                self.transformed = self._is_transformed(data, start + 2)
            else:
                self._jpeg(data)

    def _jpeg(self, data: bytes) -> None:
        position = 2
        while True:
            while data[position] == 0xFF:
                position += 1
            marker = data[position]
            (length,) = struct.unpack_from(">H", data, position + 1)
            if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
                self.rows, self.columns, self.samples = struct.unpack_from(">HHB", data, position + 4)
                self.jfif &= marker <= 0xC2  # lossless coders write the marker over any colours
                self.subsampled = len({data[position + 10 + 3 * i] for i in range(self.samples)}) > 1
                return
            self.jfif |= marker == 0xE0 and data[position + 3 : position + 8] == b"JFIF\0"
            if marker == 0xEE and data[position + 3 : position + 8] == b"Adobe":
                self.adobe = data[position + 14]
            position += 1 + length

    @staticmethod
    def _is_transformed(data: bytes, position: int) -> bool | None:
        """Whether the coding style has a component transform (T.800 A.6.1); None where there is no such marker."""
        while True:
            marker, length = struct.unpack_from(">HH", data, position)
            if marker == 0xFF52:
                return data[position + 8] == 1
            if marker == 0xFF90:  # of the first tile
                return None
            position += 2 + length

    def is_ycbcr(self, photometric: str) -> bool:
        """Whether the components are YCbCr: the Adobe marker decides where there is one, then that of JFIF, which is
        YCbCr by definition (T.871 7), else the header.

        A header of RGB over a stream without these markers is believed: DICOM's own word (PS3.5 8.2.1); but not where
        chroma is subsampled, which RGB has none of.
        """
        if self.adobe is not None:
            return self.adobe == 1
        return self.jfif or self.subsampled or photometric != "RGB"

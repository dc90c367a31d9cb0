"""Stored pixels of a DICOM file, frame by frame: native or encapsulated (PS3.5 8 and Annex A).

What comes out are the integers (or floats) of the pixel cells as the file holds them; `values` makes modality units
of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medlora.scans.codes import Code, Issue
from medlora.scans.codestream import Codestream
from medlora.scans.elements import COLOUR, GREY, QUANTITATIVE
from medlora.scans.entropy import lost
from medlora.scans.header import Header, Values
from medlora.scans.plain import dataset
from medlora.scans.scan import ScanError
from medlora.scans.surplus import surplus

_NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
_PREFIX = "1.2.840.10008.1.2.4."
_JPEG_LOSSLESS = {_PREFIX + n for n in ("57", "70")}
_JPEG = {_PREFIX + n for n in ("50", "51")} | _JPEG_LOSSLESS  # baseline, extended
_JPEG_LS = {_PREFIX + n for n in ("80", "81")}
_JPEG_2000 = {_PREFIX + n for n in ("90", "91", "201", "202", "203")}  # and its high-throughput form, HTJ2K
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # of a JPEG or JPEG-LS, and of a JPEG 2000 codestream
MOST_DECODED = 4 << 30  # bytes; what a series of small files may claim, and a sixteenth of it one file
MOST_RATIO = 500
# For a frame of JPEG 2000, the slowest to decode; few, since callers may read several scans at a time.
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True)
class Cells:
    """The shape and type of one frame as stored.

    Args:
        rows, columns, samples: as the header says.
        bits: allocated per sample.
        keyword: the element that holds the pixels.
        frames: number of frames in the file.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    keyword: str
    frames: int

    @property
    def size(self) -> int:
        """Bytes of all frames, uncompressed (one-bit cells are packed, PS3.5 8.1.1)."""
        return (self.frames * self.rows * self.columns * self.samples * self.bits + 7) // 8


def cells_of(values: Values, keyword: str) -> Cells | None:
    """How the pixels are stored; None where the header does not say, or says what cannot be."""
    rows, columns = values.get("Rows"), values.get("Columns")
    samples, frames = values.get("SamplesPerPixel", 1), values.get("NumberOfFrames", 1)
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword, values.get("BitsAllocated"))
    numbers = (rows, columns, samples, bits, frames)
    if (
        not all(isinstance(n, int) and n > 0 for n in numbers)
        or samples not in (1, 3)
        or bits not in (1, 8, 16, 32, 64)
    ):
        return None
    assert isinstance(rows, int) and isinstance(columns, int) and isinstance(samples, int)
    return Cells(rows, columns, samples, int(bits), keyword, frames)


def check_pixels(header: Header) -> Issue | None:
    """What the header and the size of the file alone tell about the pixels."""
    if header.pixels is None:
        return Issue(Code.NoPixelData)
    keyword, offset, length = header.pixels
    cells = cells_of(header.values, keyword)
    if cells is None:
        return Issue(Code.UnknownPixelFormat)
    if keyword == "PixelData" and (unknown := _unknown(header.values, cells)):
        return Issue(Code.UnknownPixelFormat, unknown)
    syntax = header.values["TransferSyntaxUID"]
    if syntax not in _NATIVE and syntax not in _JPEG | _JPEG_LS | _JPEG_2000 and syntax != RLELossless:
        return Issue(Code.UnsupportedTransferSyntax, syntax if syntax.startswith("1.2.840.10008.") else "a private one")
    if syntax == DeflatedExplicitVRLittleEndian or syntax not in _NATIVE:
        if cells.size > max(MOST_DECODED // 16, header.size * MOST_RATIO):
            return Issue(Code.TooLarge, f"{cells.size / 1e9:.1f} GB from a file of {header.size / 1e6:.1f} MB")
        if syntax == DeflatedExplicitVRLittleEndian:
            return None
        return Issue(Code.TruncatedPixelData) if offset >= header.size else None
    if length < 0:  # PS3.5 A.4: only encapsulated pixels are of undefined length
        return Issue(Code.DamagedHeader, "the pixels are encapsulated, but the transfer syntax is a native one")
    needed = _native_size(cells, header.values)
    there = min(length, header.size - offset)
    if there < needed:
        return Issue(Code.TruncatedPixelData, f"{max(there, 0)} of {needed} bytes")
    if length == needed:
        return None
    return _too_long(cells, header.values, needed, length, partial(_bytes_of, header.path, offset))


def _bytes_of(path: Path, offset: int, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset + start)
        return file.read(size)


def _too_long(
    cells: Cells, values: Values, needed: int, length: int, read: Callable[[int, int], bytes]
) -> Issue | None:
    """Why native pixels longer than the header says are no pixels and padding; see `surplus`."""
    halved = values.get("PhotometricInterpretation") == "YBR_FULL_422"
    if halved and 1 < length - needed < needed // cells.frames:
        return Issue(Code.DamagedHeader, "YBR_FULL_422, but more bytes than of halved colour")
    try:
        more = surplus(cells, needed, length, read, ">" if values["TransferSyntaxUID"] == ExplicitVRBigEndian else "<")
    except OSError as error:
        return Issue(Code.CannotOpen, error.strerror or type(error).__name__)
    return Issue(Code.DamagedHeader, more) if more else None


def _unknown(values: Values, cells: Cells) -> str:
    """What is not said of integer cells of one sample, without which their values would be guessed (type 1, PS3.3
    C.7.6.3); empty where all is. Of measured quantities the photometric interpretation changes nothing."""
    if cells.samples != 1:
        return ""
    photometric = values.get("PhotometricInterpretation")
    if photometric in COLOUR:
        return f"{photometric} of one sample per pixel"
    if photometric not in GREY and values.get("Modality") not in QUANTITATIVE:
        return "no Photometric Interpretation, or none that the standard defines"
    if cells.bits > 1 and values.get("PixelRepresentation") not in (0, 1):
        return "no Pixel Representation, or neither 0 nor 1"
    return "" if cells.bits == 1 or "BitsStored" in values else "no Bits Stored"


def _native_size(cells: Cells, values: Values) -> int:
    if values.get("PhotometricInterpretation") == "YBR_FULL_422":
        return cells.frames * cells.rows * cells.columns * 2
    return cells.size


class Frames:
    """The stored frames of one open file, one at a time.

    Args:
        header: of the file.
        file: it, open for reading in binary mode.

    Raises:
        ScanError: the pixels cannot be had; its code says why.
    """

    def __init__(self, header: Header, file: BinaryIO) -> None:
        problem = check_pixels(header)
        if problem is not None:
            raise ScanError(problem)
        assert header.pixels is not None
        keyword, offset, length = header.pixels
        cells = cells_of(header.values, keyword)
        assert cells is not None
        self.cells = cells
        self._values = header.values
        self._file = file
        self._offset = offset
        self._syntax: str = header.values["TransferSyntaxUID"]
        self._encoded: list[bytes] | None = None
        if self._syntax == DeflatedExplicitVRLittleEndian:
            self._inflate(header)
        elif self._syntax not in _NATIVE:
            file.seek(offset)
            there = header.size - offset
            self._encoded = _encapsulated(file.read(there if length < 0 else min(length, there)), cells.frames)

    def _inflate(self, header: Header) -> None:
        import io

        try:
            stored = dataset(header.path, pixels=True)[self.cells.keyword].value
        except OSError:
            raise
        except Exception as error:  # pydicom raises whatever a damaged element leads to
            raise ScanError(Issue(Code.DamagedPixelData, type(error).__name__)) from error
        needed = _native_size(self.cells, header.values)
        if not isinstance(stored, bytes) or len(stored) < needed:
            raise ScanError(Issue(Code.TruncatedPixelData))
        problem = _too_long(
            self.cells, header.values, needed, len(stored), lambda start, size: stored[start : start + size]
        )
        if problem is not None:
            raise ScanError(problem)
        self._file, self._offset = io.BytesIO(stored), 0

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        """Frame ``index``, shape (rows, columns), or (rows, columns, 3) of RGB; palette indices stay as they are."""
        if not 0 <= index < self.cells.frames:
            raise ScanError(Issue(Code.TruncatedPixelData, f"no frame {index + 1}"))
        return self._native(index) if self._encoded is None else self._decoded(self._encoded[index])

    def _native(self, index: int) -> np.ndarray[Any, Any]:
        cells = self.cells
        count = cells.rows * cells.columns * cells.samples
        if cells.bits == 1:
            first, last = index * count, (index + 1) * count
            packed = np.frombuffer(self._bytes(first // 8, (last + 7) // 8 - first // 8), np.uint8)
            unpacked = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + count]
            return unpacked.reshape(cells.rows, cells.columns)
        if self._values.get("PhotometricInterpretation") == "YBR_FULL_422" and cells.samples == 3:
            return self._ybr_422(index)
        order = ">" if self._syntax == ExplicitVRBigEndian else "<"
        kind = "f" if cells.keyword != "PixelData" else "u"
        size = count * cells.bits // 8
        frame = np.frombuffer(self._bytes(index * size, size), f"{order}{kind}{cells.bits // 8}")
        if cells.samples == 1:
            return frame.reshape(cells.rows, cells.columns)
        if self._values.get("PlanarConfiguration", 0) == 1:
            frame = frame.reshape(3, cells.rows, cells.columns).transpose(1, 2, 0)
        else:
            frame = frame.reshape(cells.rows, cells.columns, 3)
        return _to_rgb(frame, str(self._values.get("PhotometricInterpretation")))

    def _bytes(self, start: int, size: int) -> bytes:
        """As `_read`; cells of eight bits or one in a big-endian OW element lie in swapped pairs of bytes (PS3.5 A.3),
        those in OB do not."""
        if self._syntax != ExplicitVRBigEndian or self.cells.bits > 8:
            return self._read(start, size)
        self._file.seek(self._offset - 8)
        if self._file.read(2) != b"OW":
            return self._read(start, size)
        first, last = start - start % 2, start + size + (start + size) % 2
        words = np.frombuffer(self._read(first, last - first), "<u2").byteswap().tobytes()
        return words[start - first : start - first + size]

    def _ybr_422(self, index: int) -> np.ndarray[Any, Any]:
        """Y1 Y2 Cb Cr for each pair of pixels of a row (PS3.3 C.7.6.3.1.2)."""
        cells = self.cells
        size = cells.rows * cells.columns * 2
        if cells.columns % 2 or cells.bits != 8:
            raise ScanError(Issue(Code.UnknownPixelFormat, "YBR_FULL_422 of odd width"))
        pairs = np.frombuffer(self._bytes(index * size, size), np.uint8).reshape(cells.rows, cells.columns // 2, 4)
        frame = np.empty((cells.rows, cells.columns, 3), np.uint8)
        frame[:, 0::2, 0], frame[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
        frame[..., 1], frame[..., 2] = np.repeat(pairs[..., 2], 2, axis=1), np.repeat(pairs[..., 3], 2, axis=1)
        return _to_rgb(frame, "YBR_FULL")

    def _read(self, start: int, size: int) -> bytes:
        self._file.seek(self._offset + start)
        raw = self._file.read(size)
        if len(raw) < size:
            raise ScanError(Issue(Code.TruncatedPixelData))
        return raw

    def _decoded(self, encoded: bytes) -> np.ndarray[Any, Any]:
        cells, photometric = self.cells, str(self._values.get("PhotometricInterpretation"))
        try:
            if self._syntax == RLELossless:
                dtype = np.dtype(f"<u{cells.bits // 8}" if cells.bits > 1 else "u1")
                _check_segments(encoded, cells.samples * dtype.itemsize)
                frame = np.frombuffer(imagecodecs.dicomrle_decode(encoded, dtype), dtype)
                frame = frame.reshape(cells.samples, cells.rows, cells.columns).transpose(1, 2, 0)
                frame = frame[..., 0] if cells.samples == 1 else _to_rgb(frame, photometric)
            else:
                frame = self._codestream(encoded, photometric)
        except ScanError:
            raise
        except Exception as error:  # the codecs raise classes of their own, Runtime-, Value- and others
            raise ScanError(Issue(Code.DamagedPixelData, type(error).__name__)) from error
        if frame.shape[:2] != (cells.rows, cells.columns) or (3 if frame.ndim == 3 else 1) != cells.samples:
            raise ScanError(Issue(Code.DamagedPixelData, "another size than the header says"))
        if frame.dtype.kind not in "iu" or 8 * frame.itemsize > max(cells.bits, 8):
            raise ScanError(Issue(Code.DamagedPixelData, "more bits than the header says"))
        return frame.astype(f"{frame.dtype.kind}{max(cells.bits, 8) // 8}", copy=False)

    def _codestream(self, encoded: bytes, photometric: str) -> np.ndarray[Any, Any]:
        cells = self.cells
        if b"\xff\xd9" not in encoded.rstrip(b"\0")[-16:]:
            raise ScanError(Issue(Code.TruncatedPixelData, "the codestream has no end"))
        stream = Codestream(encoded)
        if (stream.rows, stream.columns, stream.samples) != (cells.rows, cells.columns, cells.samples):
            raise ScanError(Issue(Code.DamagedPixelData, "another size than the header says"))
        if self._syntax in _JPEG_2000:
            frame = imagecodecs.jpeg2k_decode(encoded, numthreads=_THREADS)
            if frame.dtype.kind == "i" and not self._values.get("PixelRepresentation") and frame.min(initial=0) < 0:
                raise ScanError(Issue(Code.DamagedPixelData, "signed samples under a header of unsigned ones"))
            if photometric in ("YBR_RCT", "YBR_ICT") and stream.samples == 3 and stream.transformed is False:
                raise ScanError(Issue(Code.UnknownPixelFormat, f"{photometric}, but the codestream is not transformed"))
            if stream.transformed and photometric.startswith(("YBR_FULL", "YBR_PARTIAL")):  # PS3.5 8.2.4
                raise ScanError(Issue(Code.UnknownPixelFormat, f"{photometric}, but the codestream is transformed"))
            # OpenJPEG undoes the component transform (YBR_RCT, YBR_ICT) itself.
            photometric = "RGB" if photometric in ("YBR_RCT", "YBR_ICT") else photometric
        elif self._syntax in _JPEG_LS:
            frame = imagecodecs.jpegls_decode(encoded)
        else:
            return self._jpeg(encoded, stream.is_ycbcr(photometric))
        return frame if frame.ndim == 2 else _to_rgb(frame, photometric)

    def _jpeg(self, encoded: bytes, ycbcr: bool) -> np.ndarray[Any, Any]:
        if self.cells.samples == 1:
            frame = imagecodecs.jpeg8_decode(encoded)
        else:
            space = "YCBCR" if ycbcr else "RGB"
            to = space if self._syntax in _JPEG_LOSSLESS else "RGB"  # libjpeg turns no colours of lossless ones
            frame = imagecodecs.jpeg8_decode(encoded, colorspace=space, outcolorspace=to)
            frame = _to_rgb(frame, "YBR_FULL") if to == "YCBCR" else frame
        missing = lost(encoded, frame)
        if missing is not None:
            raise ScanError(Issue(Code.DamagedPixelData, missing))
        return frame


def _check_segments(encoded: bytes, count: int) -> None:
    """Refuse an RLE frame whose header (PS3.5 G.5) names other segments than there are: the codec would read on in
    whatever memory lies there.

    Args:
        encoded: one frame.
        count: of its segments, one per byte of a pixel.
    """
    found, *offsets = struct.unpack_from("<16I", encoded)
    starts = [64, *offsets[1:count], len(encoded)]
    if found != count or offsets[0] != 64 or any(a >= b for a, b in pairwise(starts)):
        raise ScanError(Issue(Code.DamagedPixelData, "the segments do not lie where they should"))


def _to_rgb(frame: np.ndarray[Any, Any], photometric: str) -> np.ndarray[Any, Any]:
    """RGB of full-range YCbCr of 8 bits (PS3.3 C.7.6.3.1.2); other colours pass."""
    if photometric == "RGB":
        return frame
    if photometric not in ("YBR_FULL", "YBR_FULL_422") or frame.dtype != np.uint8:
        raise ScanError(Issue(Code.UnknownPixelFormat, "colours in a space that medlora does not read"))
    from pydicom.pixels import convert_color_space

    return convert_color_space(frame, "YBR_FULL", "RGB")


def _encapsulated(element: bytes, frames: int) -> list[bytes]:
    """The encoded frames of an encapsulated pixel element (PS3.5 A.4).

    Raises:
        ScanError: an item runs past the end of the file, or frames are missing.
    """
    position, streams = 0, 0
    fragments: list[slice] = []  # the first is the Basic Offset Table
    while position + 8 <= len(element):
        group, number, length = struct.unpack_from("<HHI", element, position)
        if (group, number) == (0xFFFE, 0xE0DD):
            break
        if (group, number) != (0xFFFE, 0xE000):
            raise ScanError(Issue(Code.DamagedPixelData, "a fragment does not begin where it should"))
        streams += element.startswith(_BEGINNINGS, position + 8)
        fragments.append(slice(position + 8, position + 8 + length))
        position += 8 + length
        if position > len(element):
            raise ScanError(Issue(Code.TruncatedPixelData, "a fragment runs past the end of the file"))
    if len(fragments) < 2:
        raise ScanError(Issue(Code.TruncatedPixelData, "no fragment"))
    if len(fragments) == 1 + frames:  # one each, whatever the table of offsets says
        return [element[fragment] for fragment in fragments[1:]]
    try:
        found = list(generate_frames(element[:position], number_of_frames=frames))
    except Exception as error:
        raise ScanError(Issue(Code.DamagedPixelData, type(error).__name__)) from error
    if len(found) < frames:
        raise ScanError(Issue(Code.TruncatedPixelData, f"{len(found)} of {frames} frames"))
    if max(len(found), streams) > frames:
        raise ScanError(Issue(Code.DamagedHeader, f"pixels of more frames than the {frames} that it says"))
    return found

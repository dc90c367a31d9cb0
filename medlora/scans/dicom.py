"""DICOM headers: a fast walk over the wanted elements, and pydicom for everything unusual.

The walk knows little-endian data sets, implicit or explicit, with a complete file meta group (PS3.10 7.1, PS3.5 7.1). At
anything else it gives up, and pydicom reads the file. Both paths end in the same `_plain` conversion, so that the values are the same.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from medlora.scans.codes import Code
from medlora.scans.elements import NO_IMAGES, PRESENT, SEQUENCES, STRUCTURAL, WANTED
from medlora.scans.header import Header, Values, digest_of

FIRST_BYTES = 16 * 1024
_MOST_BYTES = 4 * 1024 * 1024  # a longer header is pydicom's
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
          b"ST", b"TM", b"UI", b"UL", b"US"}  # fmt: skip
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_NUMBERS = {*_BINARY, "DS", "IS"}
_PADDING = " \0"
_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET, _PIXEL_REPRESENTATION = 0x00080005, 0x00280103
# What pydicom raises where an element cannot be read.
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    NotImplementedError,
    OverflowError,
    struct.error,
    LookupError,
    AttributeError,
)


class _Unusual(Exception):
    """The walk does not know this; pydicom will."""


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file without preamble starts as a data set does: an element of group 0002 or 0008, then a longer one."""
    if len(start) < 16:
        return False
    group, element = struct.unpack_from("<HH", start)
    if group not in (0x0002, 0x0008) or element > 0x0070:
        group, element = struct.unpack_from(">HH", start)
        return group in (0x0002, 0x0008) and element <= 0x0070 and start[4:6] in _SHORT | _LONG
    if start[4:6] in _SHORT | _LONG:
        return True
    length = struct.unpack_from("<I", start, 4)[0]
    return length <= 128 and start[8 + length : 10 + length] in (b"\x02\0", b"\x08\0", b"")


def read(path: Path, file: BinaryIO, size: int, start: bytes) -> Header:
    """The header of the DICOM file that is open as ``file`` and begins with ``start``."""
    header = Header(path, "dicom", size)
    try:
        try:
            if start[128:132] != b"DICM":
                raise _Unusual
            header.values, header.pixels = _walk_growing(file, size, start)
        except _Unusual:
            file.seek(0)
            header.values, header.pixels = _by_pydicom(file)
        if "Unreadable" in header.values:
            header.problem = (Code.DamagedHeader.name, header.values.pop("Unreadable"))
            return header
        from medlora.scans import frames

        if header.values.get("SOPClassUID") not in NO_IMAGES:
            frames.add(header)
        if "SOPInstanceUID" not in header.values:
            header.digest = digest_of(path)
    except OSError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, struct.error, zlib.error,
            EOFError, IndexError, OverflowError, RecursionError, MemoryError, LookupError) as error:  # fmt: skip
        # pydicom raises any of these on damaged headers; each means that the file cannot be trusted.
        header.problem = (Code.DamagedHeader.name, type(error).__name__)
    return header


def dataset(path: Path, pixels: bool = False) -> pydicom.Dataset:
    """The whole data set as pydicom reads it, without its pixels unless asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)


# --- the walk ---


def _walk_growing(file: BinaryIO, size: int, start: bytes) -> tuple[Values, tuple[str, int, int] | None]:
    buffer = start
    while True:
        try:
            return _walk(buffer, size)
        except (struct.error, IndexError) as error:  # the header is longer than what was read of it
            if len(buffer) >= min(size, _MOST_BYTES):
                raise _Unusual from error
            file.seek(0)
            buffer = file.read(4 * len(buffer))


def _walk(buffer: bytes, size: int) -> tuple[Values, tuple[str, int, int] | None]:
    meta, position = _meta(buffer)
    syntax = meta.get(0x00020010, b"").rstrip(b" \0").decode("ascii", "replace")
    if (
        not syntax
        or syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
        or not syntax.startswith("1.2.840.10008.1.2")
    ):
        raise _Unusual
    explicit = syntax != ImplicitVRLittleEndian
    if position >= size:
        raise _Unusual
    group, _, vr = struct.unpack_from("<HH2s", buffer, position)
    if explicit != (vr.isalpha() and vr.isupper()) or group == 0:
        raise _Unusual
    found: dict[int, tuple[bytes, bytes]] = {}
    values: Values = {}
    pixels = None
    unpack = struct.Struct("<HH2sH").unpack_from if explicit else struct.Struct("<HHI").unpack_from
    unpack_length = struct.Struct("<I").unpack_from
    vr = b""
    last = 0
    while position < size:
        if explicit:
            group, element, vr, length = unpack(buffer, position)
            position += 8
            if vr in _LONG:
                (length,) = unpack_length(buffer, position)
                position += 4
            elif vr not in _SHORT:
                raise _Unusual
        else:
            group, element, length = unpack(buffer, position)
            position += 8
        tag = group << 16 | element
        if tag <= last:  # out of order, or twice: pydicom keeps the last
            raise _Unusual
        last = tag
        if group >= 0x7FE0 and tag in _PIXELS:
            pixels = (_PIXELS[tag], position, -1 if length == _UNDEFINED else length)
            break
        if tag in PRESENT:
            values[PRESENT[tag]] = length != 0
        if length == _UNDEFINED:
            if explicit and vr != b"SQ":
                raise _Unusual
            position = _after_sequence(buffer, position, explicit)
            continue
        end = position + length
        if end > size:
            raise _Unusual
        if tag in WANTED and length:
            if end > len(buffer):
                raise IndexError
            found[tag] = (vr, buffer[position:end])
        position = end
    _convert(found, values, explicit)
    values["TransferSyntaxUID"] = syntax
    if "SOPInstanceUID" not in values and 0x00020003 in meta:
        values["SOPInstanceUID"] = meta[0x00020003].rstrip(b" \0").decode("ascii", "replace")
    return values, pixels


def _meta(buffer: bytes) -> tuple[dict[int, bytes], int]:
    """File meta elements, and where the data set begins (PS3.10 7.1)."""
    position, meta = 132, {}
    while True:
        group, element, vr, length = struct.unpack_from("<HH2sH", buffer, position)
        if group != 2:
            return meta, position
        position += 8
        if vr in _LONG:
            (length,) = struct.unpack_from("<I", buffer, position)
            position += 4
        elif vr not in _SHORT:
            raise _Unusual
        if length == _UNDEFINED:
            raise _Unusual
        meta[group << 16 | element] = buffer[position : position + length]
        position += length


def _after_sequence(buffer: bytes, position: int, explicit: bool) -> int:
    """Where the sequence of undefined length whose items begin at ``position`` ends (PS3.5 7.5.2)."""
    # Each level is a sequence (its items follow) or an item of undefined length (its elements follow).
    levels = ["sequence"]
    while levels:
        group, element, length = struct.unpack_from("<HHI", buffer, position)
        position += 8
        if levels[-1] == "sequence":
            if (group, element) == (0xFFFE, 0xE0DD):
                levels.pop()
            elif (group, element) != (0xFFFE, 0xE000):
                raise _Unusual
            elif length == _UNDEFINED:
                levels.append("item")
            else:
                position += length
            continue
        if (group, element) == (0xFFFE, 0xE00D):
            levels.pop()
            continue
        if explicit:
            vr = buffer[position - 4 : position - 2]
            if vr in _LONG:
                (length,) = struct.unpack_from("<I", buffer, position)
                position += 4
            elif vr in _SHORT:
                length &= 0xFFFFFFFF
                (length,) = struct.unpack_from("<H", buffer, position - 2)
            else:
                raise _Unusual
            if length == _UNDEFINED and vr != b"SQ":
                raise _Unusual
        if length == _UNDEFINED:
            levels.append("sequence")
        else:
            position += length
    return position


def _convert(found: dict[int, tuple[bytes, bytes]], values: Values, explicit: bool) -> None:
    """Plain values of the raw ones, into ``values``."""
    for tag, (written, raw) in found.items():
        keyword, vr = WANTED[tag]
        if vr == "US or SS" and not explicit:
            vr = "SS" if found.get(_PIXEL_REPRESENTATION, (b"", b""))[1] == b"\1\0" else "US"
        elif explicit and written != vr.encode():
            if written not in (b"US", b"SS") or vr not in ("US", "SS", "US or SS"):
                raise _Unusual
            vr = written.decode()
        try:
            value = _fast(vr, raw)
        except (ValueError, struct.error):
            value = _slow(tag, vr, raw, found)
        if value is not None:
            values[keyword] = value
        elif keyword in STRUCTURAL and raw.strip(b" \0"):
            values["Unreadable"] = keyword


def _fast(vr: str, raw: bytes) -> Any:
    """The plain value of the common, well-formed element.

    Raises:
        ValueError: it is not one of those.
    """
    if vr in _BINARY:
        width = struct.calcsize(_BINARY[vr])
        if len(raw) % width:
            raise ValueError
        return _plain(vr, list(struct.unpack(f"<{len(raw) // width}{_BINARY[vr]}", raw)))
    if not raw.isascii() or b"\x1b" in raw or (vr == "PN" and b"=" in raw):
        raise ValueError
    texts = [text.strip(_PADDING) for text in raw.decode("ascii").split("\\")]
    if vr == "DS":
        return _plain(vr, [float(text) for text in texts])
    if vr == "IS":
        return _plain(vr, [int(text) for text in texts])
    return _plain(vr, texts)


def _slow(tag: int, vr: str, raw: bytes, found: dict[int, tuple[bytes, bytes]]) -> Any:
    """The plain value as pydicom converts the element."""
    charset = found.get(_CHARACTER_SET, (b"", b""))[1].decode("ascii", "replace").strip(_PADDING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encodings = convert_encodings(charset.split("\\")) if charset else None
            raw_element = RawDataElement(BaseTag(tag), vr, len(raw), raw, 0, False, True)
            return _plain(vr, convert_raw_data_element(raw_element, encoding=encodings).value)
        except _UNREADABLE:
            return None  # what pydicom cannot read either counts as absent


# --- pydicom ---


def _by_pydicom(file: BinaryIO) -> tuple[Values, tuple[str, int, int] | None]:
    pixels: list[tuple[str, int, int]] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if int(tag) not in _PIXELS:
            return False
        pixels.append((_PIXELS[int(tag)], 0, -1 if length == _UNDEFINED else length))
        return True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = [Tag(tag) for tag in (*WANTED, *PRESENT)]
        data = read_partial(file, stop, force=True, specific_tags=tags)  # type: ignore[arg-type]
        values: Values = {keyword: bool(data[keyword].value) for keyword in SEQUENCES if keyword in data}
        for tag, (keyword, _) in WANTED.items():
            if tag not in data:
                continue
            if (value := plain_of(data, tag)) is not None:
                values[keyword] = value
            elif keyword in STRUCTURAL and _holds_something(data, tag):
                values["Unreadable"] = keyword
    meta = data.file_meta
    values["TransferSyntaxUID"] = str(meta.get("TransferSyntaxUID", "") or _guessed_syntax(data))
    if "SOPInstanceUID" not in values and meta.get("MediaStorageSOPInstanceUID"):
        values["SOPInstanceUID"] = str(meta.MediaStorageSOPInstanceUID)
    if not pixels:
        return values, None
    keyword, _, length = pixels[0]
    if values["TransferSyntaxUID"] == DeflatedExplicitVRLittleEndian:
        return values, (keyword, -1, length)
    # Some files are written in another VR encoding than they name, so the element itself is asked.
    position = file.tell()
    explicit = file.read(6)[4:] in _LONG
    return values, (keyword, position + (12 if explicit else 8), length)


def plain_of(data: pydicom.Dataset, tag: int | str) -> Any:
    """The plain value of one element; None where it is absent, empty or not readable."""
    try:
        element = data[tag]
        return _plain(element.VR, element.value)
    except _UNREADABLE:
        return None


def _holds_something(data: pydicom.Dataset, tag: int) -> bool:
    raw = data.get_item(tag)
    value = raw.value if raw is not None else None
    return bool(value.strip(b" \0")) if isinstance(value, bytes) else value not in (None, "")


def _guessed_syntax(data: pydicom.Dataset) -> str:
    """What pydicom found the data set to be written in, where the file does not say."""
    implicit, little = data.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return "1.2.840.10008.1.2.1" if little else str(ExplicitVRBigEndian)


# --- both ---


def _plain(vr: str, value: Any) -> Any:
    """str, int, float or a list of them; None where there is nothing, or a number that is none."""
    items = list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
    if vr in _NUMBERS:
        if not items or not all(isinstance(item, (int, float)) and math.isfinite(item) for item in items):
            return None
        # pydicom's own classes of numbers lose their type here, so that values pickle small and compare plainly.
        items = [int(item) if isinstance(item, int) else float(item) for item in items]
    else:
        items = ["" if item is None else str(item).strip(_PADDING) for item in items]
        if not any(items):
            return None
    return items[0] if len(items) == 1 else items

"""A fast walk over the elements of a DICOM header, for the usual file.

It knows little-endian data sets, implicit or explicit, after a file meta group (PS3.10 7.1, PS3.5 7.1). Of anything
else it raises `Unusual`, and pydicom reads the file; the values are the same.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from medlora.scans.converters import Converter, converter
from medlora.scans.elements import PRESENT, SINGLE, STRUCTURAL, WANTED
from medlora.scans.header import Values
from medlora.scans.plain import PADDING, one_of, plain_of_raw
from medlora.scans.templates import Part, Template, Templates

#: Elements that hold pixels, by tag: the walk ends there.
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED = 0xFFFFFFFF
#: VRs with a length of two bytes, and of four (PS3.5 7.1.2).
SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
         b"ST", b"TM", b"UI", b"UL", b"US"}  # fmt: skip
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

_MOST_BYTES = 4 << 20  # a longer header is left to pydicom
_MOST_CACHED = 4096
_LONGEST_CACHED = 1024
_EXPLICIT, _IMPLICIT = struct.Struct("<IHH").unpack_from, struct.Struct("<II").unpack_from
_LENGTH = struct.Struct("<I").unpack_from

Pixels = tuple[str, int, int] | None


class Unusual(Exception):
    """The walk does not know this; pydicom will."""


def walk(path: str | os.PathLike[str], size: int, start: bytes) -> tuple[Values, Pixels]:
    """Plain values of the wanted elements, and the place of the pixels as in `Header.pixels`.

    Args:
        path: the file; more of it is read where ``start`` does not reach the pixels.
        size: bytes of the file.
        start: its first bytes.

    Raises:
        Unusual: pydicom has to read it.
    """
    while True:
        try:
            return _walk(start, size)
        except (struct.error, IndexError) as error:  # the header is longer than what was read of it
            if len(start) >= min(size, _MOST_BYTES):
                raise Unusual from error
            with Path(path).open("rb", buffering=0) as file:
                longer = file.read(8 * len(start))
            if len(longer) <= len(start):
                raise Unusual from error
            start = longer


# Values by bytes, one store per VR: most files of an archive repeat each other, and equal values are then one object.
_CACHES: dict[str, dict[bytes, Any]] = {}
_CONVERTED: dict[tuple[str, str, bytes, bytes], Any] = {}
# Keyword, VR in the file's bytes read as a number, VR (or what else the element is), store, converter.
_Spec = tuple[str, int, str, dict[bytes, Any], Converter]
_END, _SEQUENCE = "pixels", "sequence"
_DELIMITER = b"\xfe\xff\xdd\xe0"  # of a sequence (PS3.5 7.5.2)
_TAGS = {keyword: tag for tag, (keyword, _) in WANTED.items()}


def _number(vr: bytes) -> int:
    return int.from_bytes(vr, "little")


def _swapped(tag: int) -> int:
    """The tag as its four little-endian bytes read as one number: group in the low half."""
    return (tag >> 16) | (tag & 0xFFFF) << 16


def _spec(keyword: str, kind: str) -> _Spec:
    single = keyword in SINGLE
    store = f"one {kind}" if single else kind
    if keyword == "SpecificCharacterSet":
        store = keyword  # stays empty: each file's needs a second look
    return keyword, _number(kind.encode()[:2]), kind, _CACHES.setdefault(store, {}), converter(kind, single)


_KNOWN = {_swapped(tag): _spec(keyword, vr) for tag, (keyword, vr) in WANTED.items()}
_KNOWN |= {_swapped(tag): _spec(keyword, _SEQUENCE) for tag, keyword in PRESENT.items()}
_KNOWN |= {_swapped(tag): _spec(keyword, _END) for tag, keyword in PIXELS.items()}
_SHORT, _LONG = {_number(vr) for vr in SHORT}, {_number(vr) for vr in LONG}
_SQ, _UI, _US, _SS = (_number(vr) for vr in (b"SQ", b"UI", b"US", b"SS"))


_Odd = tuple[_Spec, str, bytes]
_TEMPLATES = Templates()


# --- the walk ---


def _walk(buffer: bytes, size: int) -> tuple[Values, Pixels]:
    syntax, instance, position = meta(buffer)
    if not syntax.startswith("1.2.840.10008.1.2") or syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        raise Unusual
    explicit = syntax != ImplicitVRLittleEndian
    first = buffer[position : position + 6]
    if position >= size or explicit != (first[4:].isalpha() and first[4:].isupper()) or first[:2] == b"\0\0":
        raise Unusual
    values, odd, pixels = _TEMPLATES.match(buffer, position, explicit, _again) or _elements(
        buffer, position, size, explicit
    )
    charset = next((raw for spec, _, raw in odd if spec[0] == "SpecificCharacterSet"), b"")
    signed = "SS" if values.get("PixelRepresentation") == 1 else "US"
    for spec, kind, raw in odd:
        _convert(spec, signed if spec[2] == "US or SS" and not explicit else kind, raw, values, charset)
    values["TransferSyntaxUID"] = syntax
    if instance and "SOPInstanceUID" not in values:
        values["SOPInstanceUID"] = _uid(instance)
    return values, pixels


def _elements(buffer: bytes, position: int, size: int, explicit: bool) -> tuple[Values, list[_Odd], Pixels]:
    """Every element up to the pixels, one after the other."""
    values: Values = {}
    odd: list[_Odd] = []
    pixels: Pixels = None
    known = _KNOWN.get
    vr = 0
    starts = []
    while position < size:  # each step of this loop counts: it runs some hundred times per file
        starts.append(position)
        if explicit:
            tag, vr, length = _EXPLICIT(buffer, position)
            position += 8
            if vr not in _SHORT:
                if vr not in _LONG:
                    raise Unusual
                (length,) = _LENGTH(buffer, position)
                position += 4
        else:
            tag, length = _IMPLICIT(buffer, position)
            position += 8
        spec = known(tag)
        if spec is None:
            if length == UNDEFINED:
                position = _after_sequence(buffer, position, vr if explicit else None)
            else:
                position += length
            continue
        keyword, wanted, kind, cache, _ = spec
        if kind == _END:
            pixels = (keyword, position, -1 if length == UNDEFINED else length)
            break
        if kind == _SEQUENCE:
            values[keyword] = length > 0 and not (length == UNDEFINED and buffer.startswith(_DELIMITER, position))
            position = (
                _after_sequence(buffer, position, vr if explicit else None)
                if length == UNDEFINED
                else position + length
            )
            continue
        raw = buffer[position : position + length]
        position += length
        value = cache.get(raw)
        if value is not None and (vr == wanted or not explicit):
            values[keyword] = value
        elif len(raw) < length:
            raise IndexError
        else:
            _take(spec, vr if explicit else wanted, raw, values, odd)
    if position > size or any(item[0][0] in values for item in odd):  # the latter: one that is there twice
        raise Unusual
    if pixels is not None:
        kind_of_header = (explicit, len(starts), str(values.get("SOPClassUID")), str(values.get("Manufacturer")))
        if _TEMPLATES.wanted(kind_of_header) and (template := _template(buffer, starts, explicit, values, odd, pixels)):
            _TEMPLATES.keep(kind_of_header, template)
    return dict(values), odd, pixels


def _template(
    buffer: bytes, starts: list[int], explicit: bool, values: Values, odd: list[_Odd], pixels: tuple[str, int, int]
) -> Template | None:
    """The elements by themselves; None where their tags do not ascend, so that one might be there twice."""
    tags = [_swapped(_LENGTH(buffer, start)[0]) for start in starts]
    if any(a >= b for a, b in pairwise(tags)):
        return None
    strange = {item[0][0]: item for item in odd}
    parts = []
    for tag, start, end in zip(tags, starts, starts[1:], strict=False):
        spec = _KNOWN.get(_swapped(tag))
        keyword = "" if spec is None else spec[0]
        held = {keyword: values[keyword]} if keyword in values else {}
        parts.append((buffer[start:end], held, (strange[keyword],) if keyword in strange else ()))
    return Template(explicit, parts, buffer[starts[-1] : pixels[1]], pixels[0], pixels[2])


def _again(buffer: bytes, position: int, before: bytes, explicit: bool) -> Part | None:
    """The element at ``position``, where it is the one of the bytes ``before`` with another value; see `Template`."""
    if position + 12 > len(buffer):
        return None
    tag, vr, length = _EXPLICIT(buffer, position)
    if not explicit:
        same, head = 4, 8
        (length,) = _LENGTH(buffer, position + 4)
    elif vr in _SHORT:
        same, head = 6, 8
    else:
        same, head = 8, 12
        (length,) = _LENGTH(buffer, position + 8)
    end = position + head + length
    if not buffer.startswith(before[:same], position) or length == UNDEFINED or end > len(buffer):
        return None
    values: Values = {}
    odd: list[_Odd] = []
    spec = _KNOWN.get(tag)
    if spec is not None:
        keyword, wanted, kind, cache, _ = spec
        if kind == _SEQUENCE:
            return None
        raw = buffer[position + head : end]
        value = cache.get(raw)
        if value is not None and (vr == wanted or not explicit):
            values[keyword] = value
        else:
            _take(spec, vr if explicit else wanted, raw, values, odd)
    return buffer[position:end], values, tuple(odd)


def _take(spec: _Spec, written: int, raw: bytes, values: Values, odd: list[_Odd]) -> None:
    """Put the value of one element into ``values``, or the element among the odd ones that need a second look."""
    keyword, wanted, vr, cache, convert = spec
    if vr == "US or SS" or written != wanted:
        if written not in (_US, _SS) or vr not in ("US", "SS", "US or SS"):
            raise Unusual
        odd.append((spec, "SS" if written == _SS else "US", raw))
        return
    if not raw:
        values.pop(keyword, None)  # of an element that is there twice, the last counts
        odd[:] = [item for item in odd if item[0] is not spec]
        return
    try:
        value = convert(raw)
    except (ValueError, struct.error):
        value = None
    if value is None or keyword == "SpecificCharacterSet":
        odd.append((spec, vr, raw))
        return
    values[keyword] = value
    if len(raw) <= _LONGEST_CACHED:
        if len(cache) >= _MOST_CACHED:
            cache.clear()
        cache[raw] = value


def _convert(spec: _Spec, vr: str, raw: bytes, values: Values, charset: bytes) -> None:
    """Put the value of an odd element into ``values``, as pydicom converts it."""
    keyword = spec[0]
    key = (keyword, vr, raw, charset)
    value = _CONVERTED.get(key)
    if value is None:
        if len(_CONVERTED) >= _MOST_CACHED:
            _CONVERTED.clear()
        value = plain_of_raw(_TAGS[keyword], vr, raw, charset)
        value = _CONVERTED[key] = one_of(value) if keyword in SINGLE else value
    if value is not None:
        values[keyword] = value
        return
    values.pop(keyword, None)
    if keyword in STRUCTURAL and raw.strip(b" \0"):
        values["Unreadable"] = min(keyword, values.get("Unreadable", keyword))


def meta(buffer: bytes, position: int = 132) -> tuple[str, bytes, int]:
    """Transfer syntax, Media Storage SOP Instance UID as written, and where the data set begins (PS3.10 7.1).

    Args:
        buffer: the first bytes of the file.
        position: where its file meta group begins.

    Raises:
        Unusual: pydicom has to read it.
        IndexError, struct.error: the buffer ends before the group does.
    """
    syntax = instance = b""
    while True:
        tag, vr, length = _EXPLICIT(buffer, position)
        if tag & 0xFFFF != 2:
            return _uid(syntax), instance, position
        position += 8
        if vr not in _SHORT:
            if vr not in _LONG:
                raise Unusual
            (length,) = _LENGTH(buffer, position)
            position += 4
            if length == UNDEFINED:
                raise Unusual
        if tag in (0x00100002, 0x00030002) and vr != _UI:
            raise Unusual
        if tag == 0x00100002:
            syntax = buffer[position : position + length]
        elif tag == 0x00030002:
            instance = buffer[position : position + length]
        position += length


def _uid(raw: bytes) -> str:
    if not raw.isascii() or b"\\" in raw:
        raise Unusual
    return raw.decode("ascii").strip(PADDING)


def _after_sequence(buffer: bytes, position: int, vr: int | None) -> int:
    """Where the sequence of undefined length whose items begin at ``position`` ends (PS3.5 7.5.2).

    Args:
        vr: as written; None where the data set is implicit.
    """
    explicit = vr is not None
    if explicit and vr != _SQ:
        raise Unusual
    levels = ["sequence"]  # in a sequence items follow; in an item of undefined length, elements
    while levels:
        tag, length = _IMPLICIT(buffer, position)
        position += 8
        if levels[-1] == "sequence":
            if tag == 0xE0DDFFFE:
                levels.pop()
            elif tag != 0xE000FFFE:
                raise Unusual
            elif length == UNDEFINED:
                levels.append("item")
            else:
                position += length
            continue
        if tag == 0xE00DFFFE:
            levels.pop()
            continue
        if explicit:
            vr, length = length & 0xFFFF, length >> 16
            if vr in _LONG:
                (length,) = _LENGTH(buffer, position)
                position += 4
            elif vr not in _SHORT:
                raise Unusual
            if length == UNDEFINED and vr != _SQ:
                raise Unusual
        if length == UNDEFINED:
            levels.append("sequence")
        else:
            position += length
    return position

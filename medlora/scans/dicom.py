"""DICOM headers: the fast walk, and pydicom for everything unusual."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medlora.scans import frames, pepolar
from medlora.scans.codes import Code
from medlora.scans.elements import COLOUR, GREY, MODALITIES, NO_IMAGES, PRESENT, SINGLE, STRUCTURAL, WANTED
from medlora.scans.header import Header, Values, digest_of
from medlora.scans.plain import NUMBERS, holds_something, one_of, plain, plain_of
from medlora.scans.walk import LONG, PIXELS, SHORT, UNDEFINED, Pixels, Unusual, meta, walk

_MOST_INFLATED = 100  # times its size a deflated data set may grow; blank images of one size reach 1000
_ALWAYS_INFLATED = 256 << 20  # bytes it may have whatever its size
_PHOTOMETRIC = {term.replace(" ", "").replace("_", ""): term for term in GREY | COLOUR}


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file without preamble starts as a data set: with an element of group 0002 or 0008, then another one."""
    if len(start) < 16:
        return False
    group, element = struct.unpack_from("<HH", start)
    if group not in (0x0002, 0x0008) or element > 0x0070:
        group, element = struct.unpack_from(">HH", start)
        return group in (0x0002, 0x0008) and element <= 0x0070 and start[4:6] in SHORT | LONG
    if start[4:6] in SHORT | LONG:
        return True
    length = struct.unpack_from("<I", start, 4)[0]
    return length <= 128 and start[8 + length : 10 + length] in (b"\x02\0", b"\x08\0", b"")


def read(path: str, size: int, start: bytes) -> Header:
    """The header of a DICOM file.

    Args:
        path: the file.
        size: its bytes.
        start: the first of them.

    Raises:
        OSError: the file can no longer be read.
    """
    header = Header(path, "dicom", size)  # type: ignore[arg-type] # as text; see `file.read_header`
    try:
        try:
            if start[128:132] != b"DICM":
                raise Unusual
            values, header.pixels = walk(path, size, start)
        except Unusual:
            if _inflates_too_far(path, size, start):
                header.problem = (Code.TooLarge.name, f"deflated from {size / 1e6:.1f} MB")
                return header
            values, header.pixels = by_pydicom(path)
        header.values = values
        _standard(values)
        if "Unreadable" in values:
            header.problem = (Code.DamagedHeader.name, values.pop("Unreadable"))
            return header
        if values.get("NumberOfFrames") == 0:  # some write it into single images
            del values["NumberOfFrames"]
        if values.get("SOPClassUID") not in NO_IMAGES:
            frames.add(header)
        if pepolar.may_be(values) and pepolar.NAME in start:
            pepolar.set_right(values, header.path)
        if "SOPInstanceUID" not in values:
            header.digest = digest_of(path)
    except OSError as error:
        if error.errno is not None:
            raise
        header.problem = (Code.DamagedHeader.name, type(error).__name__)  # pydicom's own, where a sequence breaks off
    except frames.UnreadableError as error:
        header.problem = (Code.DamagedHeader.name, str(error))
    except Exception as error:  # pydicom raises whatever a damaged header leads to
        header.problem = (Code.DamagedHeader.name, type(error).__name__)
    return header


def _inflates_too_far(path: str, size: int, start: bytes) -> bool:
    """Whether a deflated data set is far larger than its file: pydicom inflates all of it at once."""
    try:
        syntax, _, position = meta(start, 132 if start[128:132] == b"DICM" else 0)
    except (Unusual, struct.error, IndexError):
        return False
    if syntax != DeflatedExplicitVRLittleEndian:
        return False
    left = max(_ALWAYS_INFLATED, size * _MOST_INFLATED)
    inflating = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    with Path(path).open("rb") as file:
        file.seek(position)
        while not inflating.eof and (chunk := inflating.unconsumed_tail or file.read(1 << 16)):
            left -= len(inflating.decompress(chunk, 1 << 20))
            if left < 0:
                return True
    return False


def _standard(values: Values) -> None:
    """Photometric Interpretation and Modality as the standard writes them, whatever their case and spaces.

    Where the class knows the modality it decides: the file may have lost it, or say MRI, or that of the whole study.
    """
    kind = values.get("PhotometricInterpretation")
    if kind is not None and kind not in GREY and kind not in COLOUR:
        letters = str(kind).upper().replace(" ", "").replace("_", "")
        values["PhotometricInterpretation"] = _PHOTOMETRIC.get(letters, kind)
    modality = values.get("Modality")
    if (known := MODALITIES.get(values.get("SOPClassUID", ""))) is not None:
        values["Modality"] = known
    elif isinstance(modality, str) and not modality.isupper():
        values["Modality"] = modality.upper()


def by_pydicom(path: str | os.PathLike[str]) -> tuple[Values, Pixels]:
    """What `walk.walk` gives, of any file that pydicom can read."""
    pixels: list[tuple[str, int]] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if int(tag) not in PIXELS:
            return False
        pixels.append((PIXELS[int(tag)], -1 if length == UNDEFINED else length))
        return True

    with Path(path).open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = [Tag(tag) for tag in (*WANTED, *PRESENT)]
        data = read_partial(file, stop, force=True, specific_tags=tags)  # type: ignore[arg-type]
        position = file.tell()
        # Some files are written in another VR encoding than they name, so the pixel element itself is asked.
        explicit = bool(pixels) and _names_its_vr(file.read(12), pixels[-1][1] % (1 << 32))
        values: Values = {keyword: bool(data[tag].value) for tag, keyword in PRESENT.items() if tag in data}
        for tag, (keyword, vr) in WANTED.items():
            if tag not in data:
                continue
            value = _number_of(plain_of(data, tag), vr)
            if keyword in SINGLE:
                value = one_of(value)
            if value is not None:
                values[keyword] = value
            elif keyword in STRUCTURAL and holds_something(data, tag):
                values["Unreadable"] = min(keyword, values.get("Unreadable", keyword))
    meta = data.file_meta
    values["TransferSyntaxUID"] = str(meta.get("TransferSyntaxUID", "") or _guessed_syntax(data))
    if "SOPInstanceUID" not in values and meta.get("MediaStorageSOPInstanceUID"):
        values["SOPInstanceUID"] = str(meta.MediaStorageSOPInstanceUID)
    if not pixels:
        return values, None
    keyword, length = pixels[-1]
    inside = values["TransferSyntaxUID"] == DeflatedExplicitVRLittleEndian
    return values, (keyword, -1 if inside else position + (12 if explicit else 8), length)


def _names_its_vr(element: bytes, length: int) -> bool:
    """Whether an element of ``length`` bytes begins with tag, VR and length: in implicit data its length may look like
    a VR."""
    order = ">I" if element.startswith(b"\x7f\xe0") else "<I"
    return len(element) == 12 and element[4:6] in LONG and struct.unpack(order, element[8:])[0] == length


def _number_of(value: Any, vr: str) -> Any:
    """The value; as numbers where the dictionary has numbers but the file another VR, of text; None if it is none."""
    if vr not in NUMBERS or value is None:
        return value
    items = value if isinstance(value, list) else str(value).split("\\") if isinstance(value, str) else [value]
    if not any(isinstance(item, str) for item in items):
        return value
    try:
        numbers = [float(item) for item in items]
    except ValueError:
        return None
    whole = vr not in ("DS", "FL", "FD") and all(number.is_integer() for number in numbers)
    return plain(vr, [int(number) for number in numbers] if whole else numbers)


def _guessed_syntax(data: pydicom.Dataset) -> str:
    """What pydicom found the data set to be written in, where the file does not say."""
    implicit, little = data.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian

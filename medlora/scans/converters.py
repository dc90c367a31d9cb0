"""The bytes of one element of the usual file → its plain value, the same as by pydicom (`plain.plain_of_raw`)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from medlora.scans.csa import layout
from medlora.scans.plain import BINARY, PADDING, one_of, plain

Converter: TypeAlias = Callable[[bytes], Any]


def _binary(form: str) -> Converter:
    width = struct.calcsize(form)

    def convert(raw: bytes) -> Any:
        if len(raw) % width:
            raise ValueError
        return plain("US", list(struct.unpack(f"<{len(raw) // width}{form}", raw)))

    return convert


def _decimal(raw: bytes) -> Any:
    numbers = [float(text) for text in raw.decode("ascii").rstrip("\0").split("\\")]
    if not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers[0] if len(numbers) == 1 else numbers


def _integer(raw: bytes) -> Any:
    numbers = [int(text) for text in raw.decode("ascii").rstrip("\0").split("\\")]
    return numbers[0] if len(numbers) == 1 else numbers


def _texts(raw: bytes) -> Any:
    if b"\x1b" in raw:
        raise ValueError
    text = raw.decode("ascii").strip(PADDING)
    if not text.isprintable():  # pydicom takes some control characters for white space
        raise ValueError
    return plain("LO", text.split("\\")) if "\\" in text else text or None


def _name(raw: bytes) -> Any:
    if b"=" in raw:
        raise ValueError
    return _texts(raw)


_CONVERTERS: dict[str, Converter] = {vr: _binary(form) for vr, form in BINARY.items()}
_CONVERTERS |= {"DS": _decimal, "IS": _integer, "PN": _name, "OB": layout}


def converter(kind: str, single: bool) -> Converter:
    """What makes the plain value of an element's bytes; it raises ValueError where pydicom has to look.

    Args:
        kind: VR; texts where it is another word.
        single: whether the dictionary allows one value alone; see `one_of`.
    """
    convert = _CONVERTERS.get(kind, _texts)
    return (lambda raw: one_of(convert(raw))) if single else convert

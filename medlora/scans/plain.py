"""pydicom's values → plain ones, the same for the fast walk and for pydicom's own reading."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import pydicom
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from medlora.scans.csa import CSA_TAG, layout

#: VRs of numbers in binary, and the format of one of them.
BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
PADDING = " \0"
#: VRs of numbers, as the dictionary names them.
NUMBERS = {*BINARY, "DS", "IS", "US or SS"}


def plain(vr: str, value: Any) -> Any:
    """str, int, float or a list of them; None where there is nothing, or a number that is none."""
    items = list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
    if vr in NUMBERS:
        if not items or not all(isinstance(item, (int, float)) and math.isfinite(item) for item in items):
            return None
        # pydicom's own classes of numbers lose their type here, so that values pickle small and compare plainly.
        items = [int(item) if isinstance(item, int) else float(item) for item in items]
    else:
        items = ["" if item is None else str(item).strip(PADDING) for item in items]
        if not any(items):
            return None
    return items[0] if len(items) == 1 else items


def one_of(value: Any) -> Any:
    """Of several values where the dictionary allows one: a text becomes one again, of numbers none can be trusted."""
    if value.__class__ is not list:
        return value
    return "\\".join(value) if isinstance(value[0], str) else None


def plain_of(data: pydicom.Dataset, tag: int | str) -> Any:
    """The plain value of one element; None where it is absent, empty or not readable."""
    try:
        element = data[tag]
        if tag == CSA_TAG:
            return layout(element.value) if isinstance(element.value, bytes) else None
        return plain(element.VR, element.value)
    except Exception:  # pydicom raises whatever a damaged value leads to
        return None


def holds_something(data: pydicom.Dataset, tag: int | str) -> bool:
    """Whether an element is there and not empty, readable or not."""
    raw = data.get_item(tag)
    value = raw.value if raw is not None else None
    return bool(value.strip(b" \0")) if isinstance(value, bytes) else value not in (None, "")


def plain_of_raw(tag: int, vr: str, raw: bytes, charset: bytes) -> Any:
    """The plain value of one element's little-endian bytes, as pydicom converts them; None as in `plain_of`."""
    if tag == CSA_TAG:
        return layout(raw)
    names = charset.decode("ascii", "replace").strip(PADDING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encodings = convert_encodings(names.split("\\")) if names else None
            element = RawDataElement(BaseTag(tag), vr, len(raw), raw, 0, False, True)
            return plain(vr, convert_raw_data_element(element, encoding=encodings).value)
        except Exception:  # pydicom raises whatever a damaged value leads to
            return None


def dataset(path: str | os.PathLike[str], pixels: bool = False) -> pydicom.Dataset:
    """The whole data set as pydicom reads it, without its pixels unless asked for.

    Raises:
        OSError: the file can no longer be read.
        Exception: whatever else pydicom raises of a damaged file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
        except OSError as error:
            if error.errno is None:  # pydicom's own, where a sequence breaks off
                raise ValueError(str(error)) from error
            raise

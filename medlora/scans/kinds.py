"""What kind of image Image Type and SOP class say it is (PS3.3 C.7.6.1.1.2)."""

from __future__ import annotations

from medlora.scans.elements import SECONDARY_CAPTURES
from medlora.scans.header import Values
from medlora.scans.plane import is_capture, listed

#: GE's word for slices that are the sum of thinner ones, as it makes them below the skull's base.
_SUM = "ADD"


def is_unplaced_capture(values: Values) -> bool:
    """Whether the image is a picture of a screen, a dose report or the like, which has no place in the patient."""
    return "ImagePositionPatient" not in values and (
        values.get("SOPClassUID") in SECONDARY_CAPTURES or is_capture(values)
    )


def is_derived(values: Values) -> bool:
    """Whether the pixels were computed from those of other images."""
    return listed(values.get("ImageType"))[:1] == ["DERIVED"]


def is_secondary(values: Values) -> bool:
    """Whether the image was computed from others after the examination: a map, a subtraction, a reformatted slice."""
    return listed(values.get("ImageType"))[:2] == ["DERIVED", "SECONDARY"]


def but_for_sums(values: Values) -> tuple[str, ...]:
    """Image Type without the word that tells a sum of thin slices from a slice measured as one."""
    return tuple(str(word) for word in listed(values.get("ImageType")) if word != _SUM)

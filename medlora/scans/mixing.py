"""Slices that together make no clean volume, though each position is there once: what they differ in."""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise

from medlora.scans.geometry import Array
from medlora.scans.header import Values
from medlora.scans.kinds import but_for_sums
from medlora.scans.plane import Plane, by_words, grouped

# Slices that differ in these are of several acquisitions, kinds or units.
_NEVER_MIXED = (
    "FrameOfReferenceUID", "EchoNumbers", "DiffusionBValue", "ConvolutionKernel", "ComplexImageComponent", "Units",
    "RescaleType", "TemporalPositionIdentifier", "DiffusionGradientOrientation",
)  # fmt: skip
#: So are those of which some say one thing here and others another; silence says nothing.
SAID = ("SeriesNumber", "PatientPosition")
# And those in which these numbers differ by more than this part: scanners change an echo time, or a flip angle for its
# warming, a little from slice to slice.
_APART = {"EchoTime": 0.05, "FlipAngle": 0.1, "KVP": 0.01, "SliceThickness": 0.02, "InversionTime": 0.01}
_DRIFT = 0.25  # an inversion time that is set anew while a stack is made, as in late enhancement, only rises or falls
# And those of two examinations: a study has one date (PS3.3 C.7.2.1), an acquisition at most two, beside midnight.
_MOST_DAYS = {"StudyDate": 0, "AcquisitionDate": 1}


def mixed_in(planes: list[Plane], directions: Array) -> list[str]:
    """The elements in which slices of one stack differ though those of one acquisition do not.

    Args:
        planes: two or more, each with a position.
        directions: of the stack, from `geometry.axes`.
    """
    mixed = [word for word in _NEVER_MIXED if len(grouped(planes, by_words((word,)))) > 1]
    if len({_sequence(plane.values) for plane in planes}) > 1:
        mixed.append("SequenceName")
    if len({but_for_sums(plane.values) for plane in planes}) > 1:
        mixed.append("ImageType")
    ordered = sorted(planes, key=lambda plane: float(plane.position @ directions[2]))
    mixed += [word for word in _APART if _differ(ordered, word)]
    mixed += [word for word in SAID if _say_other(planes, word)]
    mixed += [word for word, most in _MOST_DAYS.items() if _days_between(planes, word) > most]
    return mixed


def _sequence(values: Values) -> str | None:
    """Sequence Name, but for the lines of a heart beat that Siemens writes at its end (``*tfi2d1_12``): they follow the
    pulse."""
    name = values.get("SequenceName")
    return re.sub(r"(?<=\dd\d)_\d+$", "", str(name)) if name is not None else None


def _differ(ordered: list[Plane], word: str) -> bool:
    numbers = [float(number) for plane in ordered if isinstance(number := plane.values.get(word), (int, float))]
    if not numbers:
        return False
    apart, most = max(numbers) - min(numbers), max(map(abs, numbers))
    if word == "InversionTime":
        if len(set(numbers)) > max(2, len(ordered) // 2):
            return False  # it is fitted to each slice
        changes = {after > before for before, after in pairwise(numbers) if after != before}
        if len(changes) < 2 and apart <= _DRIFT * most:
            return False
    return apart > _APART[word] * most


def _say_other(planes: list[Plane], word: str) -> bool:
    """Whether some say one thing and some another: not each its own, as careless anonymisation numbers files."""
    said = {str(plane.values[word]) for plane in planes if plane.values.get(word) is not None}
    return 1 < len(said) <= max(2, len(planes) // 2)


def _days_between(planes: list[Plane], word: str) -> int:
    """Days from the first to the last of the dates that the planes give; none where they do not `_say_other` ones."""
    if not _say_other(planes, word):
        return 0
    days = [day for plane in planes if (day := _day(str(plane.values.get(word, "")))) is not None]
    return max(days) - min(days) if days else 0


def _day(text: str) -> int | None:
    """The number of a day, from YYYYMMDD or, in old files, YYYY.MM.DD (PS3.5 6.2); None where the text is no date."""
    digits = text.replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).toordinal()
    except ValueError:
        return None

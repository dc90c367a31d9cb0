"""When volumes were made: the volumes of one series follow each other in time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medlora.scans.frames import DIMENSIONS
from medlora.scans.plane import Plane

# By what volumes of a run are told apart, the most telling first; relative times before those of a clock.
_ORDINALS = (
    "TemporalPositionIdentifier", "TemporalPositionTimeOffset", "FrameReferenceTime", "AcquisitionNumber",
    "TriggerTime",
)  # fmt: skip
_CLOCKS = (("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime"))


def moment_of(planes: list[Plane]) -> tuple[Any, ...]:
    """When the first of the planes was made, as far as the headers say: to sort the volumes of one series by.

    Where no time and no number tells volumes apart, their UIDs do: never the names of files.
    """
    return (
        *(_least(planes, word) for word in _ORDINALS),
        *(min(tuple(str(plane.values.get(word, "")) for word in words) for plane in planes) for words in _CLOCKS),
        *(_least(planes, word) for word in DIMENSIONS),
        _least(planes, "InstanceNumber"),
        min(plane.frame + _number(plane.values.get("ConcatenationFrameOffsetNumber", 0)) for plane in planes),
        _least(planes, "SeriesNumber"),
        min(plane.uid for plane in planes),
    )


def _least(planes: Iterable[Plane], word: str) -> float:
    return min(_number(plane.values.get(word)) for plane in planes)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0

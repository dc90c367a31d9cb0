"""When volumes were made: the volumes of one series follow each other in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from medlora.scans.frames import DIMENSIONS
from medlora.scans.plane import Plane

# By what volumes of a run are told apart, the most telling first; relative times before those of a clock.
_ORDINALS = (
    "TemporalPositionIdentifier", "TemporalPositionTimeOffset", "FrameReferenceTime", "AcquisitionNumber",
    "TriggerTime",
)  # fmt: skip
_CLOCKS = (("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime"))


def moments(volumes: Sequence[list[Plane]]) -> list[tuple[Any, ...]]:
    """When the first of each volume's planes was made, as far as the headers say: to sort the volumes of one series by.

    Where no time and no number tells volumes apart, their UIDs do: never the names of files.
    """
    clocks = [_read(volumes, *words) for words in _CLOCKS]
    return [_moment(planes, [read[i] for read in clocks]) for i, planes in enumerate(volumes)]


def _moment(planes: list[Plane], clocks: list[tuple[str, str]]) -> tuple[Any, ...]:
    return (
        *(_least(planes, word) for word in _ORDINALS),
        *clocks,
        *(_least(planes, word) for word in DIMENSIONS),
        _least(planes, "InstanceNumber"),
        min(plane.frame + _number(plane.values.get("ConcatenationFrameOffsetNumber", 0)) for plane in planes),
        _least(planes, "SeriesNumber"),
        min(plane.uid for plane in planes),
    )


def _read(volumes: Sequence[list[Plane]], date: str, time: str) -> list[tuple[str, str]]:
    """Date and time of each volume. Where anonymisation has removed the dates, a run that goes on past midnight begins
    after three quarters of a day without images."""
    said = [min((str(p.values.get(date, "")), str(p.values.get(time, ""))) for p in planes) for planes in volumes]
    hours = [int(clock[:2]) for _, clock in said if clock[:4].isdecimal()]
    if any(day for day, _ in said) or len(hours) < len(said):
        return said
    times = sorted({clock for _, clock in said})
    begin = next((after for one, after in pairwise(times) if int(after[:2]) - int(one[:2]) > 18), "")
    return [("1" if clock < begin else "", clock) for _, clock in said]


def _least(planes: Iterable[Plane], word: str) -> float:
    return min(_number(plane.values.get(word)) for plane in planes)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0

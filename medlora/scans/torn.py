"""Stacks that were torn: one part has another Patient ID, study, size or Pixel Spacing, corrected halfway."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import Array, check_stack
from medlora.scans.plane import Plane, Volume, is_localizer, listed

# Patient, study and series; sizes (`_size`); volume.
_Part = tuple[tuple[str, ...], tuple[tuple[Any, ...], tuple[float, ...]], Volume]
_MOST = 64  # careless anonymisation gives one Series Instance UID to thousands


def say_torn(volumes: Mapping[tuple[str, ...], Iterable[Volume]]) -> None:
    """Flag the volumes under one Series Instance UID whose slices, together, make one stack.

    Args:
        volumes: by the patient, study and series that their headers give.
    """
    stacks: dict[Hashable, list[_Part]] = defaultdict(list)
    for key, found in volumes.items():
        for volume in found:
            first = volume.planes[0]
            if first.directions is None or first.position is None or is_localizer(first.values) or not first.single:
                continue
            place = first.values.get("FrameOfReferenceUID"), first.values.get("Modality")
            directions = tuple(np.round(first.directions, 2).ravel() + 0.0)
            stacks[place, directions].append((key, _size(first), volume))
    for parts in stacks.values():
        rest: dict[int, int] = {}
        for together, numbered in _candidates(parts):
            planes = [plane for volume in together for plane in volume.planes]
            if len(planes) > 2 and _are_one_stack(planes, numbered):
                for volume in together:
                    rest[id(volume)] = max(rest.get(id(volume), 0), len(planes) - len(volume.planes))
        for *_, volume in parts:
            if id(volume) in rest:
                detail = (
                    f"{rest[id(volume)]} that go on with the stack have another Patient ID, study or size of pixels"
                )
                volume.issues.append(Issue(Code.MissingSlices, detail))


def _size(plane: Plane) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    """The size of the matrix and of a pixel; and the field of view, in mm."""
    size = plane.values.get("Rows"), plane.values.get("Columns")
    spacing = listed(plane.values.get("PixelSpacing"))
    numbers = [
        (n, mm) for n, mm in zip(size, spacing, strict=False) if isinstance(n, int) and isinstance(mm, (int, float))
    ]
    return (*size, *spacing), tuple(n * mm for n, mm in numbers)


def _candidates(parts: Sequence[_Part]) -> Iterator[tuple[list[Volume], bool]]:
    """All parts, and two by two, where none were parted knowingly; and whether their numbers must run on: where both
    patient and study are others, the places alone may follow each other by chance."""
    if len(parts) > _MOST:
        return
    pairs = [(one, other) for one, other in itertools.combinations(parts, 2) if _may_be_torn(one, other)]
    if len(pairs) == len(parts) * (len(parts) - 1) / 2 > 1:
        yield [volume for *_, volume in parts], any(_are_strangers(one, other) for one, other in pairs)
    for one, other in pairs:
        yield [one[2], other[2]], _are_strangers(one, other)


def _are_strangers(one: _Part, other: _Part) -> bool:
    """Whether both patient and study are others, or the patient is and no frame of reference is given."""
    patient, study = one[0][1] != other[0][1], one[0][2] != other[0][2]
    return patient and (study or "FrameOfReferenceUID" not in one[2].planes[0].values)


def _may_be_torn(one: _Part, other: _Part) -> bool:
    """Whether the parts differ in what is corrected, or in how the same field of view is written; not in another."""
    (key, (size, view), _), (another, (another_size, another_view), _) = one, other
    if key != another:
        return True
    return size != another_size and len(view) == len(another_view) and np.allclose(view, another_view, rtol=0.02)


def _are_one_stack(planes: list[Plane], numbered: bool) -> bool:
    """Whether slices lie in even steps; or are numbered as they lie, and one or two may be lost."""
    directions = planes[0].directions
    assert directions is not None
    planes = sorted(planes, key=lambda plane: _along(plane, directions))
    along = np.array([_along(plane, directions) for plane in planes])
    if np.diff(along).min() < 0.01:
        return False
    codes = {issue.code for issue in check_stack(np.outer(along, directions[2]), directions)[1]}
    numbers = [plane.values.get("InstanceNumber") for plane in planes]
    if None not in numbers and len(set(numbers)) < len(numbers):
        return False  # each part begins anew
    if Code.NonUniformSpacing not in codes and not numbered:
        return True
    if not all(isinstance(number, int) for number in numbers):
        return False
    steps = np.rint(np.diff(along) / np.diff(along).min())
    jumps = np.diff(np.array(numbers, int))
    even = Code.NonUniformSpacing not in codes or Code.MissingSlices in codes
    return (
        even
        and steps.sum() - len(steps) <= 2
        and bool(np.array_equal(abs(jumps), steps) and len(set(np.sign(jumps))) == 1)
    )


def _along(plane: Plane, directions: Array) -> float:
    assert plane.position is not None
    return float(plane.position @ directions[2])

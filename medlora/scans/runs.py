"""Volumes of one run beside each other: those that hold a part of another's positions were cut short, and those that go
on with each other are one stack that lies scattered over several files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import check_stack
from medlora.scans.kinds import is_derived, is_secondary
from medlora.scans.plane import Plane, Volume, by_words, listed

# What two volumes of one run have in common.
_RUN = ("ConvolutionKernel", "SliceThickness", "ImageType")
_OF_ANY_KIND = ("ConvolutionKernel", "SliceThickness")
# Derived images that an acquisition of water and fat always makes of all its slices.
_SEPARATED = frozenset(("WATER", "W", "FAT", "F", "IN_PHASE", "IP", "OPP_PHASE", "OUT_PHASE", "OP"))
_SAME_PLACE = 0.01  # mm
_RUN_OF_FILES = ("Rows", "Columns", "Modality", "FrameOfReferenceUID", *_RUN)


def say_short(volumes: list[Volume]) -> list[Volume]:
    """Flag the volumes that hold a part of another's positions, if they are of one run.

    Args:
        volumes: of one series, size and orientation.

    Returns:
        the same volumes.
    """
    places = _places(volumes)
    for volume, where in zip(volumes, places, strict=True):
        for other, there in zip(volumes, places, strict=True):
            if where < there and _as_long(volume.planes[0], other.planes[0]):
                detail = f"{len(there) - len(where)} of the {len(there)} that another volume has"
                volume.issues.append(Issue(Code.MissingSlices, detail))
                break
    return volumes


def _as_long(one: Plane, other: Plane) -> bool:
    """Whether a volume should have the slices of another. Those of one MR acquisition should, whatever they show (water
    and fat, magnitude and phase); but what was computed from it (differences, maps) may be of some of them."""
    if by_words(_RUN)(one) == by_words(_RUN)(other):
        return True
    if one.values.get("Modality") != "MR" or by_words(_OF_ANY_KIND)(one) != by_words(_OF_ANY_KIND)(other):
        return False
    return not is_secondary(other.values) and (not is_derived(one.values) or _is_separated(one))


def _is_separated(plane: Plane) -> bool:
    return not _SEPARATED.isdisjoint(str(word).upper() for word in listed(plane.values.get("ImageType")))


def say_of_files(volumes: Iterable[Volume]) -> None:
    """Flag what enhanced files of several frames lack, if they are no part of a concatenation: slices that another one
    has, or those that go on with the stack in other files, which may hold a single frame each."""
    runs: dict[Hashable, list[Volume]] = defaultdict(list)
    for volume in volumes:
        first = volume.planes[0]
        enhanced = first.frame >= 0 and first.values.get("PerFrameFunctionalGroupsSequence")  # no grid of doses
        if enhanced and "ConcatenationUID" not in first.values and all(map(_is_placed, volume.planes)):
            runs[_run(first)].append(volume)
    for found in runs.values():
        several = [volume for volume in found if not volume.planes[0].single]
        if len(found) < 2 or not several or _say_scattered(found) or _say_scattered(several):
            continue
        of_a_step: dict[Hashable, list[Volume]] = defaultdict(list)
        for volume in several:
            of_a_step[_step(volume)].append(volume)
        for alike in of_a_step.values():
            say_short(alike)


def _is_placed(plane: Plane) -> bool:
    return plane.directions is not None and plane.position is not None


def _run(plane: Plane) -> Hashable:
    """What the planes of one run have in common: kind, size and orientation."""
    assert plane.directions is not None
    numbers = (*plane.directions.ravel(), *listed(plane.values.get("PixelSpacing")))
    return by_words(_RUN_OF_FILES)(plane), tuple(round(float(number), 2) + 0.0 for number in numbers)


def _step(volume: Volume) -> Hashable:
    """The step of a stack, and where it lies beside the normal; of one that lacks slices, itself."""
    first, last = volume.planes[0], volume.planes[-1]
    assert first.directions is not None and first.position is not None and last.position is not None
    if len(volume.planes) < 2 or any(issue.code is Code.MissingSlices for issue in volume.issues):
        return id(volume)
    step = (last.position - first.position) / (len(volume.planes) - 1)
    beside = first.position - (first.position @ first.directions[2]) * first.directions[2]
    return tuple((np.round(step, 2) + 0.0).tolist()), tuple((np.round(beside, 1) + 0.0).tolist())


def _say_scattered(volumes: list[Volume]) -> bool:
    """Flag the parts of a stack of which each file holds some places and none those of another, and whether they are:
    where all together lie in even steps."""
    places = _places(volumes)
    parts: dict[Hashable, set[int]] = defaultdict(set)
    for volume, where in zip(volumes, places, strict=True):
        parts[volume.planes[0].header.path] |= where
    distinct = {frozenset(part) for part in parts.values()}
    total = set().union(*distinct)
    if len(distinct) < 2 or len(total) < 3 or sum(map(len, distinct)) > len(total):
        return False
    plane_at = {k: plane for volume, where in zip(volumes, places, strict=True)
                for k, plane in zip(sorted(where), volume.planes, strict=False)}  # fmt: skip
    positions = np.array([plane_at[k].position for k in sorted(total)])
    directions = volumes[0].planes[0].directions
    assert directions is not None
    odd = {issue.code for issue in check_stack(positions, directions)[1]}
    if odd & {Code.NonUniformSpacing, Code.UnalignedSlices}:
        return False
    for volume, where in zip(volumes, places, strict=True):
        detail = f"{len(total) - len(where)} that go on with the stack are in other files"
        volume.issues.append(Issue(Code.MissingSlices, detail))
    return True


def _places(volumes: list[Volume]) -> list[set[int]]:
    """Where along the normal each volume has slices, as numbers of the places that all together have."""
    directions = volumes[0].planes[0].directions
    assert directions is not None
    along = [[float(plane.position @ directions[2]) for plane in volume.planes] for volume in volumes]
    every = np.sort(np.concatenate(along))
    starts = every[np.diff(every, prepend=-np.inf) > _SAME_PLACE]
    return [set((np.searchsorted(starts, np.array(own), side="right") - 1).tolist()) for own in along]

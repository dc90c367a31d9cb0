"""Slices of one value alone in the middle of a volume: never written, or lost by a program on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medlora.scans.codes import Code, Issue
from medlora.scans.kinds import is_derived
from medlora.scans.plane import Plane

#: Of a slice beside, how much may hold the same value: nearly all of a mask does.
_MOST_ALIKE = 0.75


def blank_slices(array: NDArray[np.float32], planes: list[Plane]) -> list[Issue]:
    """The issue, where slices hold one value alone, and the slices on both sides of them mostly others.

    Looked at are CT and MR as measured. What was computed, masks among it, may hold nothing in places, and so may the
    ends of any volume.

    Args:
        array: (x, y, z[, channel]).
        planes: one for each slice.
    """
    values = planes[0].values
    placed = len(planes) == array.shape[2] > 2 and all(plane.position is not None for plane in planes)
    if not placed or array.ndim > 3 or values.get("Modality") not in ("CT", "MR") or is_derived(values):
        return []
    found = _blank(array)
    if not found:
        return []
    which = ", ".join(str(z + 1) for z in found[:3]) + (" and others" if len(found) > 3 else "")
    return [Issue(Code.BlankSlices, f"{which} of {array.shape[2]}")]


def _blank(array: NDArray[np.float32]) -> list[int]:
    middle = array[:, array.shape[1] // 2].T  # one row of each slice: of most it tells all that is asked
    constant = [int(z) for z in np.flatnonzero(middle.min(axis=1) == middle.max(axis=1)) if _is_constant(array[..., z])]
    found: list[int] = []
    for run in np.split(constant, np.flatnonzero(np.diff(constant) > 1) + 1) if constant else ():
        before, after = int(run[0]) - 1, int(run[-1]) + 1
        value = array[0, 0, run[0]]
        if before >= 0 and after < array.shape[2] and not any(_is_like(array[..., z], value) for z in (before, after)):
            found += map(int, run)
    return found


def _is_constant(part: NDArray[np.float32]) -> bool:
    return bool(part.min() == part.max())


def _is_like(part: NDArray[np.float32], value: np.float32) -> bool:
    return bool(np.count_nonzero(part == value) > _MOST_ALIKE * part.size)

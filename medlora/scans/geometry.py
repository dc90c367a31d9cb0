"""From positions and orientations to an affine, and what is odd about them (PS3.3 C.7.6.2.1.1).

DICOM's patient coordinates are LPS+ millimetres; affines here are RAS+ as in nibabel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medlora.scans.codes import Code, Issue

Array = NDArray[np.float64]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Largest error of a direction cosine that counts as rounding.
_COSINE = 1e-2


@lru_cache(maxsize=1024)  # slices share it, and frames may be thousands
def axes(orientation: tuple[float, ...]) -> Array | None:
    """Unit vectors along a row, down a column and their normal, LPS, shape (3, 3) one vector per row.

    Args:
        orientation: Image Orientation (Patient), six numbers.

    Returns:
        None where the six are no two orthogonal unit vectors.
    """
    if len(orientation) != 6 or not all(isinstance(c, (int, float)) and math.isfinite(c) for c in orientation):
        return None
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > _COSINE or abs(lengths[1] - 1) > _COSINE or abs(row @ column) > _COSINE:
        return None
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    directions = np.stack([row, column, normal / np.linalg.norm(normal)])
    directions.flags.writeable = False
    return directions


def affine(directions: Array, spacing: Sequence[float], origin: Array, step: Array) -> Array:
    """The 4×4 matrix from (column, row, slice) index to RAS+ millimetres.

    Args:
        directions: from `axes`.
        spacing: Pixel Spacing: between rows, then between columns, in mm.
        origin: centre of the first voxel, LPS mm.
        step: from one slice to the next, LPS mm; not parallel to the normal where the gantry was tilted.
    """
    matrix = np.eye(4)
    matrix[:3, 0] = directions[0] * spacing[1]
    matrix[:3, 1] = directions[1] * spacing[0]
    matrix[:3, 2] = step
    matrix[:3, 3] = origin
    return _LPS_TO_RAS @ matrix


def flat_affine(spacing: Sequence[float], between_slices: float = 1.0) -> Array:
    """The affine of an image without a place in the patient: rows and columns along L and P from the origin, as ITK
    does.

    Args:
        spacing: between rows, then between columns, in mm.
        between_slices: along the third axis, in mm.
    """
    return affine(np.eye(3), spacing, np.zeros(3), np.array([0.0, 0.0, between_slices]))


def decimals(positions: Array) -> int:
    """How many decimals positions of shape (n, 3) were written with, at most 4, a fraction common to all apart.

    The seventh figure of some is rounded, too, so 1e-4 mm more or less makes no decimal.
    """
    apart = positions - positions[0]
    return next((places for places in range(4) if np.max(np.abs(apart - np.round(apart, places))) <= 1e-4), 4)


def _rounding(places: int) -> float:
    return min(0.6 * 10.0**-places, 0.06)


def tolerance(step: float, places: int) -> float:
    """How far a slice may lie from the even stack: a hundredth of the step, or the rounding of the written positions.

    Scanners that write positions to 0.1 mm make steps of 1.2 and 1.3 mm of 1.25 mm; that is no varying spacing. More
    coarsely written positions get no more than this.
    """
    return max(0.01 * abs(step), _rounding(places)) + 1e-6


def check_stack(positions: Array, directions: Array) -> tuple[Array, list[Issue]]:
    """The mean step of a sorted stack, and what is odd about it.

    Args:
        positions: centres of the first voxels, shape (slices ≥ 2, 3), LPS mm, sorted along the normal, no two at one
            place.
        directions: from `axes`.

    Returns:
        The step (last minus first position over their number less one, so that both ends are right) and the issues.
    """
    count = len(positions)
    step = (positions[-1] - positions[0]) / (count - 1)
    normal = directions[2]
    along = positions @ normal
    places = decimals(positions)
    rounding = _rounding(places) * float(np.abs(normal).sum())  # along a slanting normal those of all three add up
    limit = max(tolerance(float(step @ normal), places), rounding)
    # From a line between two positions one may lie as far as both are rounded.
    limit_beside = max(limit, 2 * rounding, 0.05)
    issues = []
    even = np.polynomial.Polynomial.fit(np.arange(count), along, 1)(np.arange(count))
    gaps = np.diff(along)
    usual = float(np.sort(gaps)[(count - 2) // 2])  # a gap that occurs: the lower median
    multiples = np.round(gaps / usual) if usual > 0 else np.zeros_like(gaps)
    missing = int(np.sum(multiples - 1))
    uneven = bool(np.max(np.abs(along - even)) > limit)
    # Of steps hardly larger than the last decimal rounding may double some, but not a few among many.
    doubled = 0 < missing <= max(1, count // 10) and np.max(np.abs(gaps - multiples * usual)) <= 0.1 * usual
    if uneven or doubled:
        slack = 2 * tolerance(usual, places)
        if missing and np.all(np.abs(gaps - multiples * usual) <= slack) and np.all(multiples >= 1):
            issues.append(Issue(Code.MissingSlices, f"{missing} between the {count} found, by position"))
        issues.append(Issue(Code.NonUniformSpacing, f"{gaps.min():.4g} to {gaps.max():.4g} mm"))
    # Where the slices lie on a straight line, each is off it only as far as it is off along the normal.
    direction = step / np.linalg.norm(step)
    beside = (positions - positions[0]) - np.outer((positions - positions[0]) @ direction, direction)
    if np.max(np.linalg.norm(beside, axis=1)) > limit_beside:
        issues.append(Issue(Code.UnalignedSlices, f"up to {np.max(np.linalg.norm(beside, axis=1)):.3g} mm beside it"))
    shear = step - (step @ normal) * normal
    if np.linalg.norm(shear) * (count - 1) > limit_beside and np.linalg.norm(shear) > 1e-3 * np.linalg.norm(step):
        angle = math.degrees(math.atan2(float(np.linalg.norm(shear)), float(step @ normal)))
        issues.append(Issue(Code.TiltedGantry, f"{angle:.1f} degrees"))
    return step, issues

"""Centre and size of a structure that is outlined slice by slice."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def polygon(points: Points) -> tuple[float, Points]:
    """Area and centroid of a closed planar polygon in space.

    Args:
        points: corners, (n, 3); the first need not be repeated at the end.

    Returns:
        The area, 0 for what has none (a point, a line), and the centroid (3,): of such, the mean of the corners.
    """
    arms = points - points[0]
    crosses = np.cross(arms[:-1], arms[1:]) / 2
    normal = crosses.sum(axis=0)
    area = float(np.linalg.norm(normal))
    if area < 1e-9:
        return 0.0, points.mean(axis=0)
    weights = crosses @ normal / area
    middles = points[0] + (arms[:-1] + arms[1:]) / 3
    return area, weights @ middles / area


def largest_distance(points: Points) -> float:
    """The largest distance between two of ``points``, (n, 3)."""
    from scipy.spatial.distance import pdist

    return float(pdist(points).max()) if len(points) > 1 else 0.0


def outlined(outlines: Iterable[tuple[Points, bool]]) -> tuple[Points, float]:
    """Centroid and largest diameter of a structure.

    Args:
        outlines: closed polygons (n, 3) in millimetres, and whether each belongs to the structure or is a hole in it.

    Returns:
        The centroid (3,), weighted by area, so that slices are taken as equally thick; and the largest distance
        between two points of one outline, which is how a reader measures: within a slice.
    """
    parts = [(*polygon(points), points, inside) for points, inside in outlines]
    diameter = max(largest_distance(points) for _, _, points, inside in parts if inside)
    weights = np.array([area if inside else -area for area, _, _, inside in parts])
    if weights.sum() <= 0:
        weights = np.array([float(inside) for *_, inside in parts])
    return np.average([centre for _, centre, _, _ in parts], axis=0, weights=weights), diameter


def filled(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[Points, float]:
    """Centroid and largest diameter of a structure given as voxels.

    Args:
        mask: indexed (slice, row, column), with at least one voxel.
        affine: 4 × 4, from such indices to millimetres.

    Returns:
        The centroid (3,); and the largest distance between two points of its edge in one slice.
    """
    voxels = np.argwhere(mask)
    centre = affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3]
    diameter = 0.0
    for index in np.unique(voxels[:, 0]):
        edge = _edge(mask[index])
        points = np.column_stack([np.full(len(edge), index), edge]) @ affine[:3, :3].T
        diameter = max(diameter, largest_distance(points))
    return centre, diameter


def _edge(plane: NDArray[np.bool_]) -> Points:
    """The ends of each row and of each column that has voxels, half a voxel out: (n, 2), row and column."""
    ends = []
    for axis in (0, 1):
        lines = np.flatnonzero(plane.any(axis=1 - axis))
        along = plane[lines] if axis == 0 else plane[:, lines].T
        first = along.argmax(axis=1) - 0.5
        last = along.shape[1] - along[:, ::-1].argmax(axis=1) - 0.5
        for end in (first, last):
            ends.append(np.column_stack([lines, end] if axis == 0 else [end, lines]))
    return np.concatenate(ends)

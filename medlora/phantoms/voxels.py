"""A block of voxels in the patient, and what smooth fields and thin structures fill of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medlora.phantoms.tubes import Array, Tubes

_STEP = 1.5  # pieces of tubes are drawn by classes of radius, this far apart
_AT_ONCE = 2_000_000  # voxels looked at in one go


@dataclass(frozen=True)
class Grid:
    """Where voxels lie.

    Args:
        origin: centre of the first voxel, mm in the patient's frame (LPS).
        steps: (3, 3), mm; the columns are the steps from one column, row and slice to the next. Rows must run along
            x; slices may be stacked obliquely, as those of a tilted gantry are.
        shape: slices, rows, columns.
    """

    origin: tuple[float, float, float]
    steps: NDArray[np.float64]
    shape: tuple[int, int, int]

    @classmethod
    def axial(
        cls, centre: tuple[float, float, float], pitch: float, step: float, shape: tuple[int, int, int], tilt: float = 0
    ) -> Grid:
        """Axial slices around ``centre``.

        Args:
            centre: mm, LPS.
            pitch: between pixels, mm.
            step: of the table from slice to slice, mm.
            shape: slices, rows, columns.
            tilt: of the gantry about the patient's x axis, radians.
        """
        c, s = np.cos(tilt), np.sin(tilt)
        steps = np.array([[pitch, 0, 0], [0, pitch * c, 0], [0, -pitch * s, step]])
        middle = (np.array(shape[::-1]) - 1) / 2
        x, y, z = np.asarray(centre) - steps @ middle
        return cls((float(x), float(y), float(z)), steps, shape)

    @cached_property
    def size(self) -> NDArray[np.float64]:
        """Length of the steps, mm: column, row, slice."""
        return np.linalg.norm(self.steps, axis=0)

    @property
    def softness(self) -> float:
        """Width over which a surface is smeared, mm: the side of a cube of a voxel's volume."""
        return float(abs(np.linalg.det(self.steps)) ** (1 / 3))

    def indices(self, points: Array) -> Array:
        """Positions (n, 3), mm, as indices (n, 3): column, row, slice."""
        return (points - np.asarray(self.origin)) @ np.linalg.inv(self.steps).T

    def axes(self, columns: Array, rows: Array, slices: Array) -> tuple[Array, Array, Array]:
        """x, y and z, mm, at the indices of three axes; of shapes that broadcast to (slices, rows, columns)."""
        index = (columns[None, None, :], rows[None, :, None], slices[:, None, None])
        out = []
        for axis in range(3):
            parts = [index[k] * self.steps[axis, k] for k in range(3) if self.steps[axis, k]]
            out.append(np.asarray(sum(parts, np.float64(self.origin[axis])), np.float32))
        return out[0], out[1], out[2]


class Field:
    """A smooth function of position, sampled coarsely and interpolated linearly wherever voxels are asked for.

    Args:
        grid: of the voxels.
        function: (x, y, z) → values, arguments that broadcast to (slices, rows, columns).
        coarse: distance of the samples, mm.
    """

    def __init__(self, grid: Grid, function: Callable[[Array, Array, Array], Array], coarse: float = 4.0) -> None:
        knots, weights = [], []
        for n, size in zip(grid.shape[::-1], grid.size, strict=True):
            m = max(2, int(np.ceil((n - 1) * size / coarse)) + 1)
            at = np.linspace(0, max(n - 1, 1), m)
            knots.append(at)
            place = np.arange(n) / (at[1] - at[0])
            below = np.minimum(place.astype(int), m - 2)
            weight = np.zeros((n, m), np.float32)
            weight[np.arange(n), below], weight[np.arange(n), below + 1] = 1 - (place - below), place - below
            weights.append(weight)
        values = function(*grid.axes(*knots))
        self._values = np.broadcast_to(values, tuple(len(at) for at in knots[::-1])).astype(np.float32)
        self._columns, self._rows, self._slices = weights

    def slab(self, first: int, last: int) -> Array:
        """The values at the voxels of the slices from ``first`` to before ``last``."""
        some = np.tensordot(self._slices[first:last], self._values, 1)
        return np.matmul(self._rows @ some, self._columns.T)


def _shrunk(radius: Array, softness: float) -> Array:
    """The radius that a tube with a smeared surface must have to hold as much as one with a sharp surface."""
    wide = np.sqrt(np.maximum(radius**2 - softness**2 / 12, 0))
    thin = np.cbrt(3 * softness * radius**2) - softness / 2
    return np.where(radius >= softness / 2, wide, thin).astype(np.float32)


def filled(tubes: Tubes, grid: Grid) -> Array:
    """How much of each voxel lies within the tubes, 0 to 1: (slices, rows, columns). Overlaps count once.

    Each piece counts as a ball of its radius, so that pieces must lie closer together than they are thick.
    """
    soft = grid.softness
    lowest = -soft / 2
    depth = np.full(grid.shape, lowest, np.float32)
    radius = _shrunk(tubes.radius, soft)
    place = grid.indices(tubes.points).astype(np.float32)
    reach = np.linalg.norm(np.linalg.inv(grid.steps), axis=1)  # indices per mm along each axis
    far = np.maximum(radius + soft / 2, 0)[:, None] * reach + 1
    near = ((place > -far) & (place < np.array(grid.shape[::-1]) - 1 + far)).all(axis=1)
    radius, place = radius[near], place[near]
    if len(radius):
        rung = np.ceil(np.log(np.maximum(radius, 0.5) / 0.5) / np.log(_STEP)).astype(int)
        for k in np.unique(rung):
            of = rung == k
            _stamp(depth, grid, place[of], radius[of], float(radius[of].max()) + soft / 2)
    return (depth - lowest) * np.float32(1 / soft) if len(radius) else np.zeros(grid.shape, np.float32)


def _stamp(depth: Array, grid: Grid, place: Array, radius: Array, reach: float) -> None:
    """Raise ``depth`` to the depth below the surface of balls at ``place``, as far as ``reach`` from their centres."""
    steps = grid.steps.astype(np.float32)
    half = np.ceil(reach * np.linalg.norm(np.linalg.inv(grid.steps), axis=1) + 0.5).astype(int)
    offset = np.stack(np.meshgrid(*(np.arange(-h, h + 1) for h in half), indexing="ij"), -1).reshape(-1, 3)
    away = offset @ steps.T
    offset = offset[(away**2).sum(axis=1) <= (reach + 0.5 * np.linalg.norm(steps.sum(axis=1))) ** 2]
    away = (offset @ steps.T).astype(np.float32)
    slices, rows, columns = grid.shape
    size = np.array([columns, rows, slices])
    stride = np.array([1, columns, columns * rows])
    flat = depth.reshape(-1)
    base = np.rint(place).astype(np.int64)
    off = ((place - base) @ steps.T).astype(np.float32)
    inside = ((base >= half) & (base < size - half)).all(axis=1)
    for whole in (True, False):
        of = np.flatnonzero(inside == whole)
        for start in range(0, len(of), max(1, _AT_ONCE // len(offset))):
            some = of[start : start + max(1, _AT_ONCE // len(offset))]
            square = (off[some] ** 2).sum(1)[:, None] + (away**2).sum(1) - 2 * off[some] @ away.T
            below = radius[some][:, None] - np.sqrt(np.maximum(square, 0))
            where = (base[some] @ stride)[:, None] + offset @ stride
            hit = below > -0.5 * grid.softness
            if not whole:
                at = base[some][:, None] + offset
                hit &= ((at >= 0) & (at < size)).all(axis=2)
            np.maximum.at(flat, where[hit], np.minimum(below[hit], 0.5 * grid.softness))

"""Thin structures (ribs, vessels, airways, grains of an opacity) as sampled tubes, and their projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import j1

Array = NDArray[np.floating]

# Radii are rounded to this ladder (18 % apart), so that one transform serves all tubes of a step.
_STEP = 1.18
_RADII = 0.5 * _STEP ** np.arange(24)


@dataclass(frozen=True)
class Tubes:
    """Short pieces of tubes with a circular cross-section.

    Args:
        points: centres, (n, 3), mm in the patient's frame.
        length: length of each piece, (n,), mm.
        radius: (n,), mm.
        density: attenuation relative to water that the tube adds to what is there, (n,).
    """

    points: Array
    length: Array
    radius: Array
    density: Array

    @classmethod
    def along(cls, path: Array, radius: float | Array, density: float, step: float = 1.5) -> Tubes:
        """Sample a polyline, (m, 3), every ``step`` mm; ``radius`` is one figure or one per vertex."""
        path = np.asarray(path, np.float32)
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        at = np.concatenate([[0.0], np.cumsum(steps)])
        n = max(2, int(np.ceil(at[-1] / step)))
        mid = (np.arange(n) + 0.5) * (at[-1] / n)
        points = np.stack([np.interp(mid, at, path[:, k]) for k in range(3)], axis=1)
        radii = np.interp(mid, at, np.broadcast_to(np.asarray(radius, np.float32), at.shape))
        return cls(points.astype(np.float32), np.full(n, at[-1] / n, np.float32), radii.astype(np.float32),
                   np.full(n, density, np.float32))  # fmt: skip

    @classmethod
    def balls(cls, points: Array, radius: Array, density: Array) -> Tubes:
        """Balls, as tubes of the same radius and volume."""
        return cls(np.asarray(points, np.float32), (4 / 3 * radius).astype(np.float32),
                   radius.astype(np.float32), density.astype(np.float32))  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence[Tubes]) -> Tubes:
        """All pieces of ``parts`` in one."""
        return cls(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("points", "length", "radius", "density"))
        )

    def only(self, some: NDArray[np.bool_]) -> Tubes:
        """The pieces where ``some``, (n,), is true."""
        return Tubes(self.points[some], self.length[some], self.radius[some], self.density[some])

    def scaled(self, factor: float | Array) -> Tubes:
        """The same tubes with another density."""
        return replace(self, density=(self.density * factor).astype(np.float32))

    def project(self, columns: Array, rows: Array, magnification: Array, shape: tuple[int, int], pitch: float) -> Array:
        """Line integrals through the tubes, in mm of water, on a grid of pixels.

        A tube across the rays casts 2·sqrt(r² - d²) at a distance d from its axis, which is a uniform disc of radius r
        drawn along the axis; the discs are drawn by multiplying with their Fourier transform, 2πr²·J1(q)/q with
        q = 2πr·frequency (Bracewell, The Fourier Transform and Its Applications).

        Args:
            columns, rows: where the centres fall, in pixels of the grid, (n,).
            magnification: detector mm per patient mm at each centre, (n,).
            shape: rows and columns of the grid.
            pitch: detector mm per pixel.
        """
        margin = 24
        height, width = (scipy.fft.next_fast_len(n + 2 * margin, real=True) for n in shape)
        c, r = columns + margin, rows + margin
        c0, r0 = np.floor(c).astype(np.int64), np.floor(r).astype(np.int64)
        keep = (c0 >= 0) & (c0 < width - 1) & (r0 >= 0) & (r0 < height - 1)
        fc, fr, c0, r0 = (c - c0)[keep], (r - r0)[keep], c0[keep], r0[keep]
        # Magnified, a tube covers more pixels, but rays cross it over the same thickness.
        radius = self.radius[keep] * magnification[keep]
        rung = np.clip(np.rint(np.log(radius / _RADII[0]) / np.log(_STEP)), 0, len(_RADII) - 1).astype(np.int64)
        mass = self.density[keep] * self.length[keep] * (radius / _RADII[rung]) ** 2 / (pitch * pitch)
        where = r0 * width + c0
        spectrum: NDArray[np.complexfloating] = np.zeros((height, width // 2 + 1), np.complex64)
        for k in np.unique(rung):
            of = np.flatnonzero(rung == k)
            at, x, y, m = where[of], fc[of], fr[of], mass[of]
            corners = np.concatenate([at, at + 1, at + width, at + width + 1])
            shares = np.concatenate([m * (1 - y) * (1 - x), m * (1 - y) * x, m * y * (1 - x), m * y * x])
            drawn = np.bincount(corners, shares, height * width).astype(np.float32).reshape(height, width)
            spectrum += scipy.fft.rfft2(drawn) * _disc(float(_RADII[k]), height, width, pitch)
        image = scipy.fft.irfft2(spectrum, s=(height, width))
        return image[margin : margin + shape[0], margin : margin + shape[1]].astype(np.float32)


NO_TUBES = Tubes(*(np.zeros(shape, np.float32) for shape in ((0, 3), 0, 0, 0)))


@lru_cache(maxsize=256)
def _disc(radius: float, height: int, width: int, pitch: float) -> Array:
    """Fourier transform of a uniform disc, mm², at the frequencies of ``rfft2``."""
    fy, fx = np.meshgrid(np.fft.fftfreq(height, pitch), np.fft.rfftfreq(width, pitch), indexing="ij")
    q = np.maximum(2 * np.pi * radius * np.hypot(fy, fx), 1e-6)
    return (2 * np.pi * radius**2 * j1(q) / q).astype(np.float32)

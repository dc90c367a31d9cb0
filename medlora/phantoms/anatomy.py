"""A procedural chest: the anatomy of one fictitious patient as functions of position.

Positions are millimetres in the patient's frame, axes as in DICOM (PS3.3 C.7.6.2.1.1): x to the patient's left, y to
the back, z to the head; the origin lies mid-thorax, between the lungs. Nothing here knows of rays or pixels: a
radiograph samples the functions along rays, a tomogram would sample them on a grid of voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

Triple = tuple[float, float, float]

RIGHT, LEFT = -1, 1  # sign of x
APEX = 122.0  # z of the top of the lungs before scaling, mm
WIDEST = -80.0  # z where the chest is widest, mm


class Tissues(NamedTuple):
    """Volume fractions (0 to 1) where the chest was sampled."""

    body: Array  # inside the skin
    lung: Array  # inside the lungs


def _solid(inside: Array, softness: float) -> Array:
    """Turn a depth below a surface, mm, into a volume fraction, the surface smeared over ``softness`` mm."""
    return np.clip(inside * np.float32(1 / softness) + np.float32(0.5), 0, 1)


def _ellipsoid(x: Array, y: Array, z: Array, centre: Triple, half: Triple) -> Array:
    """Depth below the surface of an ellipsoid, mm, to first order; negative outside."""
    r = sum(((v - np.float32(c)) * np.float32(1 / a)) ** 2 for v, c, a in zip((x, y, z), centre, half, strict=True))
    return (1 - r) * np.float32(0.5 * min(half))


def _curve(z: Array, knots: list[tuple[float, float]]) -> Array:
    """Piecewise linear profile along z through ``knots`` (z, value), given from the feet to the head."""
    at, value = np.array(knots, np.float32).T
    return np.interp(z, at, value).astype(np.float32)


@dataclass(frozen=True)
class Chest:
    """One patient's chest in one breath: the large soft parts.

    Lengths are in mm. Ranges and their sources are in ``datasets/phantom-radiographs.md``.
    """

    female: bool
    age: int
    width: float  # factors on the mean adult, per axis
    depth: float
    height: float
    wall: float  # soft tissue between the lung's lateral surface and the skin
    breast: float  # radius of the breasts, 0 where there is none worth seeing
    breast_z: float
    heart: float  # half of the heart's transverse diameter at full inspiration
    heart_tilt: float  # radians between the heart's long axis and the horizontal
    dome: float  # z of the right diaphragm at full inspiration
    dome_step: float  # how much lower the left one is
    dome_curve: float
    mediastinum: float  # half-width of the upper mediastinum
    aorta: float  # radius of the aortic arch
    scoliosis: float  # lateral amplitude of the spine's curve
    asymmetry: float  # left lung's width over the right lung's
    stomach: float  # radius of the stomach bubble, 0 for none
    air: float  # density of lung at full inspiration, relative to water
    breath: float = 1.0  # 1 full inspiration, 0 resting expiration
    arms: bool = True  # at the sides; else raised over the head, out of the picture

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Chest:
        """Draw a patient."""
        female = bool(rng.random() < 0.5)
        size = rng.normal(0.95 if female else 1.03, 0.04)
        width = size * rng.normal(1.0, 0.035)
        stout = rng.gamma(3.0, 1 / 3.0)  # 1 on average
        return cls(
            female=female,
            age=int(np.clip(rng.normal(58, 16), 18, 89)),
            width=width,
            depth=size * rng.normal(1.0, 0.06),
            height=size * rng.normal(1.0, 0.05),
            wall=float(np.clip(16 + 14 * stout, 18, 62)),
            breast=float(rng.uniform(48, 82)) if female else 0.0,
            breast_z=float(rng.uniform(-85, -40)),
            heart=width * float(np.clip(rng.normal(67, 6), 56, 86)),
            heart_tilt=float(rng.uniform(0.35, 0.85)),
            dome=float(rng.normal(-100, 7)),
            dome_step=float(rng.normal(12, 6)),
            dome_curve=float(rng.uniform(0.8, 1.25)),
            mediastinum=float(rng.uniform(19, 28)),
            aorta=float(rng.uniform(11, 16)),
            scoliosis=float(rng.normal(0, 5)),
            asymmetry=float(rng.normal(0.96, 0.025)),
            stomach=float(rng.uniform(14, 26)) if rng.random() < 0.4 else 0.0,
            air=float(rng.uniform(0.2, 0.29)),
        )

    def dome_top(self, side: int) -> float:
        """Height of the diaphragm's dome on one side, mm."""
        fall = 42 * (1 - self.breath)
        return (self.dome + fall) * self.height - (self.dome_step if side == LEFT else 0.0)

    def squeeze(self, side: int) -> float:
        """Height of the lung in this breath over its height at full inspiration."""
        apex, full = APEX * self.height, self.dome * self.height - (self.dome_step if side == LEFT else 0.0)
        return (apex - self.dome_top(side)) / (apex - full)

    def lung_density(self) -> float:
        """Density of lung relative to water: the same tissue in less volume when less air is breathed in."""
        return float(self.air / (0.5 * (self.squeeze(RIGHT) + self.squeeze(LEFT))))

    def lung_profile(self, z: Array, side: int) -> tuple[Array, Array, Array, Array]:
        """Centre x, half-width, centre y and half-depth of a lung's (and its ribs') cross-section at heights ``z``."""
        t = np.clip((z / self.height - WIDEST) / (APEX - WIDEST), -0.6, 1).astype(np.float32)
        g = np.where(t >= 0, np.sqrt(1 - np.abs(t) ** np.float32(2.3)), 1 - np.float32(0.1) * t * t)
        g = np.maximum(g, np.float32(0.02))
        wide = self.width * (self.asymmetry if side == LEFT else 1.0)
        x = side * wide * (38 + 33 * g)
        y = self.depth * (14 * (1 - g))
        return x, wide * 62 * g, y, self.depth * 92 * np.sqrt(g)

    def spine_x(self, z: Array) -> Array:
        """Lateral position of the spine at heights ``z``, mm."""
        return np.float32(self.scoliosis) * np.sin(z.astype(np.float32) / 70)

    @property
    def spine_y(self) -> float:
        """Depth of the vertebral bodies' centre, mm."""
        return 62 * self.depth

    def outline(self, z: Array) -> tuple[Array, Array]:
        """Half-width and half-depth of the trunk, shoulders and neck at heights ``z``, mm."""
        h, w, wall = self.height, self.width, self.wall
        half_width = _curve(
            z / h,
            [
                (-320, 134 * w + wall),
                (-40, 136 * w + wall),
                (30, 134 * w + wall),
                (75, 116 * w + wall),
                (105, 92 * w + 0.9 * wall),
                (130, 72 * w + 0.7 * wall),
                (150, 58 * w + 0.45 * wall),
                (175, 50 * w + 0.3 * wall),
                (260, 50 * w + 0.3 * wall),
            ],
        )
        half_depth = _curve(z / h, [(-320, 106), (-60, 104), (40, 98), (100, 88), (140, 68), (170, 58), (260, 56)])
        return half_width, half_depth * self.depth + np.float32(0.55 * wall)

    def body_depth(self, x: Array, y: Array, z: Array) -> Array:
        """Depth below the skin, mm, negative outside; arguments broadcast."""
        half_width, half_depth = self.outline(z)
        side = np.abs(x)
        trunk = (1 - (x / half_width) ** 2 - ((y - 6) / half_depth) ** 2) * (0.5 * half_depth)
        w, h, wall = self.width, self.height, self.wall
        shoulder = _ellipsoid(side, y, z, (122 * w, 8.0, 76 * h), (98 * w + wall, 52 + 0.4 * wall, 44 + 0.3 * wall))
        depth = np.maximum(trunk, shoulder)
        if self.arms:
            half = (34 + 0.4 * wall, 40 + 0.4 * wall, 150 * h)
            depth = np.maximum(depth, _ellipsoid(side, y, z, (214 * w + wall, 10.0, -10 * h), half))
        if self.breast:
            r = self.breast
            front = 6 - 0.9 * (104 * self.depth + 0.55 * wall)
            depth = np.maximum(depth, _ellipsoid(side, y, z, (76 * w, front, self.breast_z), (r, 0.45 * r, r)))
        return depth

    def heart_depth(self, x: Array, y: Array, z: Array) -> Array:
        """Depth below the surface of the heart (ventricles; right atrium), mm, negative outside."""
        squash = 1 + 0.12 * (1 - self.breath)
        base = self.dome_top(LEFT) + 0.5 * self.heart
        x0, y0, z0 = 0.36 * self.heart, -26 * self.depth, base + 2
        c, s = math.cos(self.heart_tilt), math.sin(self.heart_tilt)
        a, b, d = self.heart * squash, 0.72 * self.heart, 0.7 * self.heart
        dx, dz = x - np.float32(x0), z - np.float32(z0)
        u, v = c * dx - s * dz, s * dx + c * dz
        r = (u * np.float32(1 / a)) ** 2 + (v * np.float32(1 / b)) ** 2
        yy = (y - np.float32(y0)) ** 2
        ventricles = (1 - r - yy * np.float32(1 / d**2)) * np.float32(0.5 * b)
        dx, dz = x + np.float32(0.2 * self.heart), z - np.float32(base + 8)
        r = dx**2 * np.float32(1 / (0.42 * self.heart * squash) ** 2) + dz**2 * np.float32(1 / (0.62 * self.heart) ** 2)
        atrium = (1 - r - yy * np.float32(1 / (0.5 * self.heart) ** 2)) * np.float32(0.25 * self.heart)
        return np.maximum(ventricles, atrium)

    def lung(self, x: Array, y: Array, z: Array, softness: float) -> Array:
        """Fraction of space inside the lungs; arguments broadcast."""
        return _solid(self.lung_depth(x, y, z), softness)

    def lung_depth(self, x: Array, y: Array, z: Array) -> Array:
        """Depth below the surface of the lungs, mm, to first order, negative outside; arguments broadcast."""
        heart = self.heart_depth(x, y, z)
        spine = self.spine_x(z)
        # The mediastinum: a column that widens to the root of the neck, and the spine with its muscles behind it.
        half = np.float32(self.mediastinum) * _curve(z, [(-120, 0.55), (0, 0.8), (50, 1.0), (110, 1.25), (150, 1.4)])
        column = (1 - ((x - 3) / half) ** 2 - ((y - np.float32(8)) * np.float32(1 / 72)) ** 2) * half * np.float32(0.5)
        body = 24.0
        back = (1 - ((x - spine) / body) ** 2 - ((y - np.float32(self.spine_y)) * np.float32(1 / 34)) ** 2) * 12
        # Descending aorta along the left of the spine, and the knob of its arch.
        aorta = self.aorta - np.sqrt((x - spine - 20) ** 2 + (y - np.float32(self.spine_y - 22)) ** 2)
        aorta = np.where(z < 62, aorta, -50)
        knob = 1.35 * self.aorta - np.sqrt((x - np.float32(0.95 * self.mediastinum)) ** 2 + (z - 52) ** 2
                                           + (0.6 * (y - 15)) ** 2)  # fmt: skip
        trunk = _ellipsoid(x, y, z, (0.9 * self.mediastinum, -8.0, 22.0), (20.0, 30.0, 26.0))  # pulmonary trunk
        between = np.maximum(np.maximum(np.maximum(heart, column), np.maximum(back, aorta)), np.maximum(knob, trunk))
        lungs = []
        for side in (RIGHT, LEFT):
            cx, a, cy, b = self.lung_profile(z, side)
            p, q = ((x - cx) / a) ** 2, ((y - cy) / b) ** 2
            shell = (1 - (p + q - np.float32(0.35) * np.minimum(p, 1) * np.minimum(q, 1))) * (
                0.5 * a
            )  # squarer than an ellipse
            top, curve = np.float32(self.dome_top(side)), np.float32(self.dome_curve)
            centre = np.float32(side * 66 * self.width)
            dome = z - top + curve * ((x - centre) ** 2 * np.float32(1 / 140) + (y + 12) ** 2 * np.float32(1 / 170))
            lungs.append(np.minimum(shell, dome))
        return np.minimum(np.maximum(*lungs), -between)

    def tissues(self, x: Array, y: Array, z: Array, softness: float = 4.0) -> Tissues:
        """Sample the chest.

        Args:
            x, y, z: positions in mm, any shapes that broadcast together.
            softness: width over which a surface is smeared, mm; about the sampling step.
        """
        depth = self.body_depth(x, y, z)
        body = _solid(depth, softness)
        lung = np.minimum(self.lung(x, y, z, softness), body)
        if self.stomach:
            r = self.stomach
            gas = _ellipsoid(
                x, y, z, (62 * self.width, -5.0, self.dome_top(LEFT) - 12 - 0.8 * r), (1.5 * r, r, 0.8 * r)
            )
            body = body * (1 - _solid(gas, 3 * softness))
        return Tissues(body, lung)

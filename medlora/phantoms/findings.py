"""Opacities of the lung, as clouds of small dense grains.

``original``: patches of coarse nodules, several, in both lungs, near the pleura and rather below and behind.
``variant``: fine-grained consolidation, one or two dense areas near the hilum of one lung.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medlora.phantoms.anatomy import LEFT, RIGHT, Chest
from medlora.phantoms.tubes import Array, Tubes
from medlora.phantoms.vessels import points_in_lung

VARIANTS = ("original", "variant")


@dataclass(frozen=True)
class Opacity:
    """Grains of an opacity, at full inspiration, and what is said of it in the labels."""

    grains: Tubes
    variant: str
    patches: int
    volume_ml: float  # tissue that replaces air
    sides: str  # right, left, both


def _cloud(chest: Chest, centre: Array, radii: Array, grain: float, fill: float, rng: np.random.Generator) -> Tubes:
    """Grains around ``centre``, most of them within ``radii`` (3,), cut off at the lung's surface.

    Args:
        chest: whose lung.
        centre: (3,), mm.
        radii: (3,), mm.
        grain: mean radius of a grain, mm.
        fill: volume of the grains over that of the ellipsoid.
        rng: where the grains lie.
    """
    volume = 4 / 3 * np.pi * float(np.prod(radii))
    n = int(np.clip(fill * volume / (4 / 3 * np.pi * grain**3), 20, 6000))
    # Clusters of grains in the cloud: texture between the grain and the patch.
    seeds = rng.normal(0, 0.5, (max(4, n // 12), 3)) * radii
    points = centre + seeds[rng.integers(0, len(seeds), n)] + rng.normal(0, 2.2 * grain, (n, 3))
    points = points.astype(np.float32)
    points = points[chest.lung(points[:, 0], points[:, 1], points[:, 2], 4.0) > 0.5]
    radius = grain * np.exp(rng.normal(0, 0.25, len(points)))
    return Tubes.balls(points, radius.astype(np.float32), np.ones(len(points), np.float32))


def _peripheral(chest: Chest, side: int, rng: np.random.Generator) -> Array:
    """A point near the pleura, above the diaphragm's dome, more often low than high."""
    p = points_in_lung(chest, side, 32, rng)
    cx, a, cy, b = chest.lung_profile(p[:, 2], side)
    edge = ((p[:, 0] - cx) / a) ** 2 + 0.6 * ((p[:, 1] - cy) / b) ** 2
    height = (p[:, 2] - chest.dome_top(side)) / 220
    score = edge + 0.4 * side * (p[:, 0] - cx) / a - 0.35 * height - 4 * (height < 0) + rng.normal(0, 0.25, len(p))
    return p[np.argmax(score)]


def _volume(grains: Tubes) -> float:
    """Tissue in the grains, ml."""
    return float(np.sum(grains.density * np.pi * grains.radius**2 * grains.length)) / 1000


def haze(chest: Chest, severity: float, rng: np.random.Generator) -> Tubes:
    """Smooth density of a lung that is not ill, as in its dependent, badly aired parts: as much as a finding, no grain.

    Without it the mean density of a picture would give the finding away, to a classifier of a few pixels too.

    Args:
        chest: the patient's chest at full inspiration.
        severity: 0 to 1; the tissue is that of the finding ``original`` of this severity.
        rng: where it lies.
    """
    clouds: list[Tubes] = []
    side = (RIGHT, LEFT)[int(rng.integers(2))]
    wanted = 180 + 200 * severity  # ml
    while len(clouds) < 2 or sum(map(_volume, clouds)) < wanted:
        side = -side
        radii = rng.uniform(28, 48, 3)
        points = (_peripheral(chest, side, rng) + rng.normal(0, 0.5, (40, 3)) * radii).astype(np.float32)
        points = points[chest.lung(points[:, 0], points[:, 1], points[:, 2], 12.0) > 0.5]
        radius = rng.uniform(18, 30, len(points)).astype(np.float32)
        fill = rng.uniform(0.15, 0.25) * float(np.prod(radii)) / max(1.0, float(np.sum(radius**3)))
        clouds.append(Tubes.balls(points, radius, np.full(len(points), fill, np.float32)))
    return Tubes.join(clouds)


def draw(variant: str, chest: Chest, severity: float, rng: np.random.Generator) -> Opacity:
    """Draw the opacities of a diseased patient: patch after patch, until enough air is replaced.

    Args:
        variant: ``original`` or ``variant``.
        chest: the patient's chest at full inspiration.
        severity: 0 to 1.
        rng: where they lie.
    """
    clouds: list[Tubes] = []
    sides: list[int] = []
    side = (RIGHT, LEFT)[int(rng.integers(2))]
    wanted = 180 + 200 * severity if variant == "original" else 110 + 130 * severity  # ml
    while len(clouds) < 2 or sum(map(_volume, clouds)) < wanted:
        if variant == "original":
            side = -side
            radii = rng.uniform(28, 48, 3)
            clouds.append(_cloud(chest, _peripheral(chest, side, rng), radii, 6.5, rng.uniform(0.15, 0.25), rng))
        else:
            height = rng.uniform(-50, 35) * chest.height
            centre = np.array([side * rng.uniform(46, 70) * chest.width, rng.uniform(-30, 40), height])
            clouds.append(_cloud(chest, centre, rng.uniform(18, 30, 3), 3.2, rng.uniform(0.4, 0.6), rng))
        sides.append(side)
    where = "both" if len(set(sides)) == 2 else "right" if sides[0] == RIGHT else "left"
    grains = Tubes.join(clouds)
    return Opacity(grains, variant, len(clouds), _volume(grains), where)

"""Pulmonary arteries and veins: branching trees that fill the lungs."""

from __future__ import annotations

import numpy as np

from medlora.phantoms.anatomy import APEX, LEFT, RIGHT, Chest
from medlora.phantoms.tubes import Array, Tubes


def points_in_lung(chest: Chest, side: int, n: int, rng: np.random.Generator) -> Array:
    """Draw ``n`` points spread evenly in one lung, (n, 3), mm."""
    found: list[Array] = []
    missing = n
    while missing > 0:
        m = 4 * missing + 64
        low = chest.dome_top(side) - 60
        x = side * rng.uniform(4, 145 * chest.width, m)
        y = rng.uniform(-100, 100, m) * chest.depth
        z = rng.uniform(low, APEX * chest.height, m)
        p = np.stack([x, y, z], axis=1).astype(np.float32)
        p = p[chest.lung(p[:, 0], p[:, 1], p[:, 2], 4.0) > 0.5][:missing]
        found.append(p)
        missing -= len(p)
    return np.concatenate(found)


def _tree(root: Array, hilum: Array, tips: Array, trunk: float, bend: float, rng: np.random.Generator) -> Tubes:
    """A dyadic tree from ``root`` through ``hilum`` to every one of 2^k ``tips``.

    At each level the tips of a branch are parted in halves along their longest extent, and each half gets a branch that
    ends part of the way to its middle. Radii follow Murray's law (Proc Natl Acad Sci 1926; 12:207): the cubes add up.
    """
    n = len(tips)
    level = tips[None]  # (branches, tips of each, 3)
    start = hilum[None]
    paths, radii = [np.stack([root, 0.5 * (root + hilum), hilum])[None]], [np.full(1, trunk)]
    while level.shape[1] > 1:
        spread = level.max(axis=1) - level.min(axis=1)
        axis = spread.argmax(axis=1)
        order = np.take_along_axis(level, axis[:, None, None], axis=2)[..., 0].argsort(axis=1, kind="stable")
        level = np.take_along_axis(level, order[..., None], axis=1)
        level = level.reshape(2 * level.shape[0], -1, 3)
        start = np.repeat(start, 2, axis=0)
        middle = level.mean(axis=1)
        end = start + (middle - start) * (0.62 if level.shape[1] > 1 else 1.0)
        way = end - start
        aside = np.cross(way, rng.normal(size=way.shape)) / np.maximum(np.linalg.norm(way, axis=1), 1e-3)[:, None]
        paths.append(np.stack([start, 0.5 * (start + end) + bend * aside, end], axis=1))
        radii.append(np.full(len(end), trunk * (level.shape[1] / n) ** (1 / 3)))
        start = end
    nodes, radius = np.concatenate(paths), np.concatenate(radii)
    # Sample each three-point path as a parabola at equal parameter steps.
    t = ((np.arange(10) + 0.5) / 10)[None, :, None]
    a, b, c = (nodes[:, k : k + 1] for k in range(3))
    points = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    length = np.linalg.norm(nodes[:, 1] - nodes[:, 0], axis=1) + np.linalg.norm(nodes[:, 2] - nodes[:, 1], axis=1)
    return Tubes(
        points.reshape(-1, 3).astype(np.float32),
        np.repeat(length / 10, 10).astype(np.float32),
        np.repeat(radius, 10).astype(np.float32),
        np.ones(10 * len(radius), np.float32),
    )


def pulmonary(chest: Chest, rng: np.random.Generator, generations: int = 9) -> Tubes:
    """Arteries and veins of both lungs at full inspiration, with density 1: blood where there was nothing."""
    trees = []
    for side in (RIGHT, LEFT):
        wide, high = chest.width, chest.height
        hilum_z = (8 if side == RIGHT else 20) * high
        for kind in ("artery", "vein"):
            tips = points_in_lung(chest, side, 2**generations, rng)
            if kind == "artery":
                root = np.array([side * 16 * wide, -2.0, hilum_z + 8])
                hilum = np.array([side * 42 * wide, 6.0, hilum_z - 4]) + rng.normal(0, 3, 3)
                trunk = rng.uniform(6.8, 8.2)
            else:
                root = np.array([side * 20 * wide, 8.0, hilum_z - 30])
                hilum = np.array([side * 40 * wide, 2.0, hilum_z - 26]) + rng.normal(0, 3, 3)
                trunk = rng.uniform(5.6, 7.0)
            trees.append(_tree(root, hilum, tips, trunk, 0.12, rng))
    return Tubes.join(trees)


def bronchi(chest: Chest, rng: np.random.Generator, generations: int = 6) -> Tubes:
    """Lobar to subsegmental bronchi of both lungs, with density 1; their radii are those of the lumen.

    They begin where :func:`medlora.phantoms.skeleton.airways` ends.
    """
    trees = []
    for side, root in ((RIGHT, (-34.0, 31.0, -37.0)), (LEFT, (40.0, 32.5, -29.0))):
        start = np.array([root[0], root[1], root[2] + 38 * chest.height])
        hilum = start + np.array([side * 8.0, -4.0, -12.0])
        tips = points_in_lung(chest, side, 2**generations, rng)
        tips = hilum + 0.75 * (tips - hilum)  # the outer bronchi are too thin to be seen
        trees.append(_tree(start, hilum, tips, 4.2 if chest.female else 4.8, 0.06, rng))
    return Tubes.join(trees)


def breathe(points: Array, chest: Chest) -> Array:
    """Move points of the lungs from where they lie at full inspiration to where they lie in this breath."""
    apex = APEX * chest.height
    squeeze = np.where(points[:, 0] < 0, chest.squeeze(RIGHT), chest.squeeze(LEFT)).astype(np.float32)
    moved = points.copy()
    moved[:, 2] = apex - (apex - points[:, 2]) * squeeze
    return moved

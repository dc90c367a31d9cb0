"""Ribs, clavicles, spine and shoulder blades of a chest, and the airways: what casts hard shadows in a radiograph."""

from __future__ import annotations

import numpy as np

from medlora.phantoms.anatomy import LEFT, RIGHT, Chest
from medlora.phantoms.tubes import Array, Tubes

# Attenuation relative to water at about 60 keV, less the soft tissue that is replaced.
CORTICAL, SPONGY, GAS = 1.9, 0.35, -1.0


def _bone(path: Array, radius: float | Array, cortex: float, mineral: float) -> list[Tubes]:
    """A bone: a cortical shell, ``cortex`` mm thick, around spongy bone."""
    outer = np.asarray(radius, np.float32)
    inner = np.maximum(outer - cortex, 0.5)
    return [Tubes.along(path, outer, CORTICAL * mineral), Tubes.along(path, inner, (SPONGY - CORTICAL) * mineral)]


def _rib(chest: Chest, number: int, side: int, jitter: float) -> Array:
    """Centre line of a rib (1 to 11) from the spine round to its cartilage."""
    start = (130 - 21.5 * (number - 1)) * chest.height + jitter
    drop = np.interp(number, [1, 3, 7, 11], [48, 74, 96, 90]) * chest.height
    end = np.interp(number, [1, 5, 8, 11], [2.7, 2.5, 2.1, 1.4])  # radians round the chest from the back
    angle = np.linspace(0.16, end, 40)
    z = start + 8 * np.sin(np.minimum(angle * 3, np.pi)) - drop * (angle / np.pi) ** 1.35
    cx, a, cy, b = chest.lung_profile(z.astype(np.float32), side)
    lateral = np.abs(cx) + a + 3
    x = side * lateral * np.sin(angle) ** 0.9
    y = cy + (b + 2) * np.cos(angle) * np.where(angle < np.pi / 2, 0.9, 1.0)
    x[:4] = side * np.maximum(np.abs(x[:4]), 18) + chest.spine_x(z[:4])
    return np.stack([x, y, z], axis=1)


def bones(chest: Chest, rng: np.random.Generator, shoulders: float, arms: bool = True) -> Tubes:
    """All bones.

    Args:
        chest: whose bones.
        rng: small differences between ribs.
        shoulders: how far the shoulder blades are rolled off the lungs, 0 (arms down) to 1 (hugging the detector).
        arms: with shoulder blades and arms, which serve for their shadows only; a tomogram is drawn without.
    """
    mineral = float(np.clip(1.1 - 0.004 * (chest.age - 40) + rng.normal(0, 0.06), 0.7, 1.2))
    parts: list[Tubes] = []
    thick = 5.4 * chest.width
    for number in range(1, 12):
        for side in (RIGHT, LEFT):
            path = _rib(chest, number, side, float(rng.normal(0, 1.5)))
            radius = thick * np.interp(np.linspace(0, 1, 40), [0, 0.3, 1], [0.95, 1.0, 1.2]) * rng.uniform(0.93, 1.07)
            parts += _bone(path, radius, 0.8, mineral)
    rise = rng.normal(0, 5)
    for side in (RIGHT, LEFT):
        t = np.linspace(0, 1, 24)
        x = side * chest.width * (14 + 146 * t)
        y = chest.depth * (-58 + 70 * t - 16 * np.sin(2 * np.pi * t))
        z = chest.height * (92 + 26 * t) + 7 * np.sin(2 * np.pi * t) + rise * t + 8 * shoulders * (t - 0.6)
        radius = np.interp(t, [0, 0.15, 0.5, 1], [8.5, 6.5, 5.6, 6.8])
        parts += _bone(np.stack([x, y, z], axis=1), radius, 1.4, mineral)
        if arms:
            parts += _scapula(chest, side, shoulders, mineral, rng)
    parts += _spine(chest, mineral)
    return Tubes.join(parts)


def _scapula(chest: Chest, side: int, shoulders: float, mineral: float, rng: np.random.Generator) -> list[Tubes]:
    """A thin plate with thick borders, and the head of the humerus."""
    out = side * chest.width * (26 + 26 * shoulders + rng.normal(0, 4))
    y, h, w = 84 * chest.depth, chest.height, chest.width
    top = np.array([side * 62 * w + out, y, 106 * h])
    tip = np.array([side * (78 + 16 * shoulders) * w + out, y + 6, (-34 + 10 * shoulders) * h])
    joint = np.array([side * 118 * w + out, y - 40, 84 * h])
    s, t = np.sort(rng.random((2, 500)), axis=0)
    plate = top + np.outer(s, tip - top) + np.outer(1 - t, joint - top) * (1 - s[:, None])
    area = 0.5 * float(np.linalg.norm(np.cross(tip - top, joint - top)))
    radius = np.full(500, 6.0, np.float32)
    length = np.full(500, area * 2.2 / (500 * np.pi * 36), np.float32)  # a plate 2.2 mm thick
    sheet = Tubes(plate.astype(np.float32), length, radius, np.full(500, 1.2 * mineral, np.float32))
    edges = [Tubes.along(np.stack([p, q]), 2.6, 1.3 * mineral) for p, q in ((top, tip), (tip, joint), (top, joint))]
    shaft = joint + np.array([[side * 14, -4, 6], [side * 34, -4, -30], [side * 52, -4, -170]])
    return [sheet, *edges, *_bone(shaft, np.array([22.0, 15.0, 12.0]), 2.5, mineral)]


def _spine(chest: Chest, mineral: float) -> list[Tubes]:
    """Vertebral bodies with discs between them, pedicles and spinous processes."""
    parts: list[Tubes] = []
    for level in range(-4, 16):
        z = (150 - 22.5 * level) * chest.height
        half = np.interp(level, [-4, 0, 12], [7.5, 8.5, 11.0]) * chest.height * 0.92
        x = float(chest.spine_x(np.array([z]))[0])
        r = float(np.interp(level, [-4, 0, 12], [11, 13, 17]))
        y = chest.spine_y
        for dx in (-0.45 * r, 0.45 * r):  # two columns side by side: wider than deep
            body = np.array([[x + dx, y, z - half], [x + dx, y, z + half]])
            parts.append(Tubes.along(body, 0.72 * r, 0.55 * mineral))
        for end in (z - half, z + half):  # end plates
            plate = np.array([[x - 0.9 * r, y, end], [x + 0.9 * r, y, end]])
            parts.append(Tubes.along(plate, 1.3, 4.0 * mineral))
        for side in (RIGHT, LEFT):
            pedicle = np.array([[x + side * 0.8 * r, y + 14, z + 2], [x + side * 0.8 * r, y + 30, z + 2]])
            parts += _bone(pedicle, 4.2, 1.2, 0.55 * mineral)
        process = np.array([[x, y + 28, z], [x, y + 48, z - 12]])
        parts += _bone(process, 3.6, 1.0, 0.6 * mineral)
    return parts


def airways(chest: Chest) -> Tubes:
    """Trachea and main bronchi as gas in soft tissue."""
    carina = 38 * chest.height
    shift = 0.25 * chest.spine_x(np.array([carina]))[0] - 2
    trachea = np.array([[shift, 22, 175 * chest.height], [shift, 28, carina + 50], [shift - 1, 34, carina]])
    r = 8.2 if chest.female else 9.6
    right = np.array([[shift - 1, 34, carina], [-22, 34, carina - 22], [-38, 30, carina - 44]])
    left = np.array([[shift - 1, 34, carina], [24, 34, carina - 17], [44, 32, carina - 32]])
    return Tubes.join(
        [
            Tubes.along(trachea, r, GAS * 0.8),
            Tubes.along(right, np.array([0.8 * r, 0.75 * r, 0.5 * r]), GAS * 0.6),
            Tubes.along(left, np.array([0.7 * r, 0.66 * r, 0.45 * r]), GAS * 0.6),
        ]
    )

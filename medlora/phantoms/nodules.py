"""Pulmonary nodules: where they lie, how they are shaped, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from medlora.phantoms import risk as odds
from medlora.phantoms.anatomy import LEFT, RIGHT, Chest
from medlora.phantoms.risk import Density, Margin, Person
from medlora.phantoms.tubes import NO_TUBES, Array, Tubes
from medlora.phantoms.vessels import points_in_lung
from medlora.phantoms.voxels import Grid

Attachment = Literal["none", "vessel", "pleura"]
_PEAKED = 5.0  # how narrow a bump is
_ATTACHMENTS: dict[Attachment, float] = {"none": 0.5, "vessel": 0.25, "pleura": 0.25}


@dataclass(frozen=True)
class Nodule:
    """One nodule.

    Args:
        centre: (3,), mm, LPS.
        diameter: of the ball of the nodule's volume, without spicules, mm.
        malignant: drawn from ``risk``.
        risk: probability by the patient, size, density and lobe, before the margin is looked at.
        density, margin, attachment: what a reader would say.
        calcified: whether a benign pattern of calcium lies inside.
        upper_lobe: whether it lies in an upper lobe (the middle lobe is none).
        bumps: directions (n, 3) in which the surface bulges, and by how much, (n,), as a share of the radius.
        axes: (3, 3), orthonormal rows: the directions of the half-axes.
        stretch: (3,), half-axes over the radius; their product is 1.
        spicules: strands that radiate from the surface.
        core: diameter of the solid part over the whole, of part-solid ones.
        tissue: HU of the solid parts.
        glass: HU that ground glass adds to the lung.
    """

    centre: Array
    diameter: float
    malignant: bool
    risk: float
    density: Density
    margin: Margin
    attachment: Attachment
    calcified: bool
    upper_lobe: bool
    bumps: tuple[Array, Array]
    axes: Array
    stretch: Array
    spicules: Tubes
    core: float
    tissue: float
    glass: float

    @property
    def reach(self) -> float:
        """Radius of a ball that holds the nodule and its spicules, mm."""
        return 1.3 * self.diameter

    def depth(self, x: Array, y: Array, z: Array) -> Array:
        """Depth below the surface, mm, to first order, negative outside; arguments broadcast."""
        away = np.stack(np.broadcast_arrays(x - self.centre[0], y - self.centre[1], z - self.centre[2]), -1)
        local = (away @ self.axes.T / self.stretch).astype(np.float32)
        distance = np.linalg.norm(local, axis=-1)
        directions, height = self.bumps
        radius = np.full(distance.shape, 0.5 * self.diameter, np.float32)
        unit = local / np.maximum(distance, 1e-3)[..., None]
        cosines = unit @ directions.T.astype(np.float32)
        radius *= (
            1 + np.exp(np.float32(_PEAKED) * (cosines - 1)) @ height.astype(np.float32) - np.float32(_mean_bump(height))
        )
        return radius - distance


def _mean_bump(height: Array) -> float:
    """The mean over all directions of what the bumps add, so that they leave the volume about as it was."""
    return float(height.sum()) * (1 - np.exp(-2 * _PEAKED)) / (2 * _PEAKED)  # of exp(peaked (cos - 1)) on the sphere


def in_upper_lobe(points: Array, chest: Chest) -> Array:
    """Whether points (n, 3) lie above the oblique and, on the right, the horizontal fissure (both as planes)."""
    x, y, z = points.T
    oblique = z > (-5 + 0.7 * y) * chest.height
    return oblique & ((x > 0) | (z > 5 * chest.height))


def draw(chest: Chest, person: Person, vessels: Tubes, rng: np.random.Generator, smallest: float = 5.0) -> list[Nodule]:
    """Draw a person's nodules.

    Args:
        chest: whose.
        person: what the risk depends on; ``person.nodules`` of them are drawn.
        vessels: of the lungs; some nodules hang on one.
        rng: all that is left to chance.
        smallest: least diameter, mm.
    """
    found: list[Nodule] = []
    while len(found) < person.nodules:
        diameter = float(np.clip(np.exp(rng.normal(np.log(9.0), 0.36)), smallest, 24))
        attachment = _pick(_ATTACHMENTS, rng)
        centre = _place(chest, diameter / 2, attachment, vessels, rng)
        if all(np.linalg.norm(centre - n.centre) > n.reach + diameter for n in found):
            found.append(_nodule(chest, person, centre, diameter, attachment, rng))
    return found


Word = TypeVar("Word", bound=str)


def _pick(frequencies: Mapping[Word, float], rng: np.random.Generator) -> Word:
    names = list(frequencies)
    share = np.array([frequencies[name] for name in names])
    return names[int(rng.choice(len(names), p=share / share.sum()))]


def _place(chest: Chest, radius: float, attachment: Attachment, vessels: Tubes, rng: np.random.Generator) -> Array:
    """A centre: deep in the lung, beside a small vessel, or so near the pleura that the nodule is flattened by it."""
    # The field of view ends near the lowest recesses; nodules there would be cut by it.
    lowest = chest.dome_top(LEFT) - 25
    low, high = (0.2 * radius, 0.8 * radius) if attachment == "pleura" else (radius + 3, np.inf)
    small = vessels.points[(vessels.radius > 1.1) & (vessels.radius < 2.4)]
    trunks = vessels.points[vessels.radius > 2.6][::2]
    while True:
        p: Array
        if attachment == "vessel":
            p = small[rng.integers(0, len(small), 32)] + rng.normal(0, 0.45 * radius, (32, 3))
        else:
            p = points_in_lung(chest, (RIGHT, LEFT)[int(rng.integers(2))], 400 if attachment == "pleura" else 32, rng)
        depth = chest.lung_depth(*p.T)
        fits = (p[:, 2] > lowest) & (depth > low) & (depth < high)
        fits &= np.linalg.norm(p[:, None] - trunks, axis=2).min(axis=1) > radius + 7  # clear of the hilum
        if fits.any():
            return p[int(np.flatnonzero(fits)[0])].astype(np.float64)


def _nodule(
    chest: Chest,
    person: Person,
    centre: Array,
    diameter: float,
    attachment: Attachment,
    rng: np.random.Generator,
) -> Nodule:
    density = _pick(odds.DENSITIES, rng)
    upper = bool(in_upper_lobe(centre[None], chest)[0])
    likely = odds.probability(odds.logit(person, diameter, density, upper, odds.ENRICHED))
    malignant = bool(rng.random() < likely)
    margin = _pick(odds.MARGINS[malignant], rng)
    calcified = density == "solid" and bool(rng.random() < odds.CALCIFIED[malignant])
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    stretch = np.exp(rng.normal(0, 0.09, 3))
    stretch /= np.cbrt(np.prod(stretch))
    number = {"smooth": 2, "lobulated": int(rng.integers(4, 8)), "spiculated": int(rng.integers(3, 6))}[margin]
    bumps = rng.normal(size=(number, 3))
    bumps /= np.linalg.norm(bumps, axis=1)[:, None]
    height = rng.uniform(*{"smooth": (0.0, 0.04), "lobulated": (0.3, 0.6), "spiculated": (0.1, 0.3)}[margin], number)
    return Nodule(
        centre=centre,
        diameter=diameter,
        malignant=malignant,
        risk=likely,
        density=density,
        margin=margin,
        attachment=attachment,
        calcified=calcified,
        upper_lobe=upper,
        bumps=(bumps, height),
        axes=axes,
        stretch=stretch,
        spicules=_spicules(centre, diameter / 2, rng) if margin == "spiculated" else NO_TUBES,
        core=float(rng.uniform(0.4, 0.65)),
        tissue=float(rng.uniform(15, 60)),
        glass=float(rng.uniform(220, 380)),
    )


def _spicules(centre: Array, radius: float, rng: np.random.Generator) -> Tubes:
    """Strands 4 to 12 mm long that taper away from the surface, on all sides."""
    number = int(rng.integers(24, 44))
    directions = rng.normal(size=(number, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    parts = []
    for direction in directions:
        length = float(np.clip(radius * rng.uniform(0.5, 1.3), 3.0, 10.0))
        bend = rng.normal(0, 0.12, 3) * length
        t = np.linspace(0, 1, 6)[:, None]
        path = centre + direction * (0.8 * radius + (length + 0.2 * radius) * t) + bend * t**2
        parts.append(Tubes.along(path, np.linspace(rng.uniform(0.9, 1.5), 0.4, 6), 1.0, step=0.6))
    return Tubes.join(parts)


def fill(hu: Array, inside: Array, nodule: Nodule, grid: Grid, first: tuple[int, int, int]) -> None:
    """Draw a nodule into voxels, in place.

    Args:
        hu: a block of the grid, (slices, rows, columns), HU.
        inside: share of each voxel of the block that is lung.
        nodule: which.
        grid: of the voxels.
        first: slice, row and column where the block begins.
    """
    soft = grid.softness
    at = [np.arange(start, start + n) for start, n in zip(first, hu.shape, strict=True)]
    x, y, z = grid.axes(at[2], at[1], at[0])
    depth = nodule.depth(x, y, z)
    share = np.clip(depth / soft + 0.5, 0, 1)
    solid = share
    if nodule.density != "solid":
        hu += share * inside * nodule.glass
        core = nodule.core if nodule.density == "part-solid" else 0.0
        solid = np.clip((depth - (1 - core) * 0.5 * nodule.diameter) / soft + 0.5, 0, 1) * (core > 0)
    solid = solid * inside
    hu += solid * (nodule.tissue - hu)
    if nodule.calcified:
        calcium = np.clip((depth - 0.2 * nodule.diameter) / soft + 0.5, 0, 1) * inside
        hu += calcium * (450.0 - nodule.tissue)

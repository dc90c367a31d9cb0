"""One fictitious patient as Hounsfield units, on any block of voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates

from medlora.phantoms import nodules as lesions
from medlora.phantoms import skeleton, vessels
from medlora.phantoms.anatomy import APEX, LEFT, RIGHT, Chest
from medlora.phantoms.nodules import Nodule
from medlora.phantoms.risk import Person
from medlora.phantoms.tubes import NO_TUBES, Array, Tubes
from medlora.phantoms.voxels import Field, Grid, filled

AIR, FAT, MUSCLE, BLOOD = -1000.0, -100.0, 50.0, 40.0
_SPONGY, _CORTICAL, _EMPTY = 180.0, 900.0, -975.0
_LATTICE = 9.0  # mm between the knots of the lung's unevenness


@dataclass(frozen=True)
class Thorax:
    """A patient lying on the table, arms raised, in deep inspiration.

    Args:
        chest: the large soft parts.
        person: what the risk of malignancy depends on.
        arteries: arteries and veins of the lungs.
        bronchi: from the lobes on; the lumen.
        airways: trachea and main bronchi.
        bones: positive density for what is dense, negative for the marrow within.
        holes: of emphysema.
        nodules: what the labels are about.
        unevenness: of the lung's density, on a lattice.
    """

    chest: Chest
    person: Person
    arteries: Tubes
    bronchi: Tubes
    airways: Tubes
    bones: Tubes
    holes: Tubes
    nodules: list[Nodule]
    unevenness: Array

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Thorax:
        """Draw a patient with one to five nodules."""
        chest = replace(Chest.draw(rng), breath=float(rng.uniform(0.85, 1.0)), arms=False, scoliosis=0.0)
        chest = replace(chest, age=int(np.clip(rng.normal(63, 8), 40, 85)))
        person = Person(
            age=chest.age,
            female=chest.female,
            family_history=bool(rng.random() < 0.25),
            emphysema=bool(rng.random() < 0.4),
            nodules=int(min(1 + rng.poisson(1.4), 5)),
        )
        tree = vessels.pulmonary(chest, rng)
        tree = replace(tree, points=vessels.breathe(tree.points, chest))
        bronchi = vessels.bronchi(chest, rng)
        return cls(
            chest=chest,
            person=person,
            arteries=tree,
            bronchi=replace(bronchi, points=vessels.breathe(bronchi.points, chest)),
            airways=skeleton.airways(chest),
            bones=skeleton.bones(chest, rng, 1.0, arms=False),
            holes=_emphysema(chest, rng) if person.emphysema else NO_TUBES,
            nodules=lesions.draw(chest, person, tree, rng),
            unevenness=rng.normal(0, 1, (48, 32, 48)).astype(np.float32),
        )

    def hounsfield(self, grid: Grid) -> Array:
        """HU of each voxel of ``grid``, (slices, rows, columns), before any blur and noise."""
        chest, soft = self.chest, grid.softness
        hu, lung = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.float32)
        body, inside = Field(grid, chest.body_depth), Field(grid, chest.lung_depth)
        heart = Field(grid, chest.heart_depth)
        uneven = Field(grid, self._parenchyma, 6.0)
        fat = 0.3 * chest.wall
        for k in range(0, grid.shape[0], 8):  # few slices at a time stay in the processor's cache
            last = min(k + 8, grid.shape[0])
            skin = body.slab(k, last)
            lung[k:last] = np.clip(inside.slab(k, last) * (1 / soft) + 0.5, 0, 1)
            flesh = np.clip((skin - fat) * (1 / soft) + 0.5, 0, 1)
            tissue = FAT + (MUSCLE - FAT) * flesh
            tissue += np.clip(heart.slab(k, last) * (1 / soft) + 0.5, 0, 1) * (BLOOD - MUSCLE)
            tissue += lung[k:last] * (uneven.slab(k, last) - tissue)
            hu[k:last] = AIR + np.clip(skin * (1 / soft) + 0.5, 0, 1) * (tissue - AIR)
        self._draw_tubes(hu, lung, grid)
        for nodule in self.nodules:
            self._draw_nodule(hu, lung, nodule, grid)
        return hu

    def _parenchyma(self, x: Array, y: Array, z: Array) -> Array:
        """HU of the lung between its vessels: denser towards the back, where it hangs, and uneven."""
        x, y, z = np.broadcast_arrays(x, y, z)
        at = [v / _LATTICE + n / 2 for v, n in zip((x, y, z), self.unevenness.shape, strict=True)]
        noise = map_coordinates(self.unevenness, at, order=1, mode="grid-wrap", prefilter=False)
        # Less than the lungs of the radiographs weigh: small vessels count among them there, and are drawn here.
        return AIR + 620 * self.chest.lung_density() + 0.3 * y + 14 * noise

    def _draw_tubes(self, hu: Array, lung: Array, grid: Grid) -> None:
        if len(self.holes.radius):
            hu += filled(self.holes, grid) * lung * (_EMPTY - hu)
        hu += filled(self.arteries, grid) * (BLOOD - hu)
        dense = self.bones.density >= 1
        for some, value in ((dense, _CORTICAL), (~dense, _SPONGY)):
            hu += filled(self.bones.only(some), grid) * (1 - lung) * (value - hu)
        wall = replace(self.bronchi, radius=self.bronchi.radius + np.maximum(0.6, 0.25 * self.bronchi.radius))
        hu += filled(wall, grid) * (MUSCLE - 20 - hu)
        trachea = replace(self.airways, radius=self.airways.radius + 1.5)
        hu += filled(trachea, grid) * (MUSCLE - hu)
        hu += filled(Tubes.join([self.bronchi, self.airways]), grid) * (AIR - hu)

    def _draw_nodule(self, hu: Array, lung: Array, nodule: Nodule, grid: Grid) -> None:
        middle = grid.indices(nodule.centre[None])[0]
        half = nodule.reach * np.linalg.norm(np.linalg.inv(grid.steps), axis=1) + 1
        size = np.array(grid.shape[::-1])
        low = np.clip(np.floor(middle - half), 0, size).astype(int)
        high = np.clip(np.ceil(middle + half) + 1, 0, size).astype(int)
        if (high <= low).any():
            return
        where = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
        block = hu[where]
        lesions.fill(block, lung[where], nodule, grid, (int(low[2]), int(low[1]), int(low[0])))
        if len(nodule.spicules.radius):
            origin = np.asarray(grid.origin) + grid.steps @ low
            part = Grid((origin[0], origin[1], origin[2]), grid.steps, block.shape)
            strength = 1.0 if nodule.density != "ground-glass" else 0.5
            block += strength * filled(nodule.spicules, part) * lung[where] * (nodule.tissue - block)


def _emphysema(chest: Chest, rng: np.random.Generator) -> Tubes:
    """Centrilobular emphysema: small holes, most of them in the upper half of the lungs."""
    parts = []
    for side in (RIGHT, LEFT):
        p = vessels.points_in_lung(chest, side, 900, rng)
        high = (p[:, 2] - chest.dome_top(side)) / (APEX * chest.height - chest.dome_top(side))
        parts.append(p[rng.random(len(p)) < np.clip(1.1 * high, 0.08, 1)])
    points = np.concatenate(parts)
    keep = rng.random(len(points)) < rng.uniform(0.3, 1.0)
    points = points[keep]
    return Tubes.balls(points, rng.uniform(2.0, 4.5, len(points)), np.ones(len(points)))

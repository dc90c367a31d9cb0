"""Where the lungs lie in a CT, by a rule that can be said in four sentences; not a segmentation for measuring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import Scan

_AIR = -500.0  # HU; below is air, or lung
_COARSE = 4.0  # mm, of the copy that is searched
_LEAST = 100.0  # ml


@dataclass(frozen=True)
class Lungs:
    """What was found.

    Attributes:
        centre: of the body at the levels of the lungs, RAS+ mm (x, y).
        top, bottom: of the lungs, RAS+ mm (z).
        mask: lungs in a coarse copy of the volume, bool, axes as the scan's.
        spacing: of that copy, mm.
    """

    centre: tuple[float, float]
    top: float
    bottom: float
    mask: np.ndarray
    spacing: tuple[float, float, float]


def find_lungs(volume: Scan) -> Lungs:
    """Find the lungs of an evenly spaced CT.

    The body is the largest connected part above −500 HU of every n-th voxel, up to 4 mm apart, its holes filled in each
    plane. Lungs are the air in it: connected parts below −500 HU that are no smaller than a quarter of the largest, so
    that gas of the bowel is left out. They reach over the levels where their area is at least a twentieth of the
    largest, so that the trachea is left out. The middle is the centroid of the body at these levels, which an opaque
    lung hardly moves.

    Raises:
        MedloraError: less than 100 ml of air lie in the body: no chest, or a field of view that cuts the lungs open.
    """
    steps = [max(1, int(_COARSE // spacing)) for spacing in volume.spacing]
    coarse = volume.array[:: steps[0], :: steps[1], :: steps[2]]
    affine = volume.affine @ np.diag([*steps, 1.0])
    # Holes are filled in the planes that come closest to axial: along the voxel axis of the patient's length.
    length = int(np.argmax(np.abs(affine[2, :3]) / np.linalg.norm(affine[:3, :3], axis=0)))
    plane = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(plane, length, 0)[[0, 2]] = False

    air = coarse < _AIR
    body = ndimage.binary_fill_holes(_parts(~air, least=1.0), structure=plane)
    lungs = _parts(body & air, least=0.25)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    if lungs.sum() * voxel < _LEAST * 1000:
        raise MedloraError(
            f"no lungs were found in scan {volume.scan_id}: less than {_LEAST:.0f} ml of air lie within the body",
            "leave scans of other regions out; where the field of view cuts the lungs, use another reconstruction",
        )
    bin_width = float(np.linalg.norm(affine[:3, length]))
    heights = _heights(lungs, affine)
    low = heights.min() - bin_width / 2
    count = max(1, math.ceil((heights.max() - low) / bin_width + 1e-6))
    areas, edges = np.histogram(heights, bins=count, range=(low, low + count * bin_width))
    used = np.flatnonzero(areas >= areas.max() / 20)
    bottom, top = float(edges[used[0]]), float(edges[used[-1] + 1])

    index = np.argwhere(body)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    x, y = places[(places[:, 2] >= bottom) & (places[:, 2] <= top)].mean(axis=0)[:2]
    size = np.linalg.norm(affine[:3, :3], axis=0)
    return Lungs((float(x), float(y)), top, bottom, lungs, (float(size[0]), float(size[1]), float(size[2])))


def _parts(mask: np.ndarray, least: float) -> np.ndarray:
    """The connected parts (by faces) of at least ``least`` times the size of the largest."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= max(1, least * sizes.max()))[labels] & mask


def _heights(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.argwhere(mask) @ affine[2, :3] + affine[2, 3]

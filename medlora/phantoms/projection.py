"""A radiograph of a chest as line integrals: how much water each ray would have had to cross."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform

from medlora.phantoms.anatomy import Chest
from medlora.phantoms.tubes import Array, Tubes


@dataclass(frozen=True)
class Detector:
    """The detector's pixels: rows and columns, and their pitch in mm."""

    shape: tuple[int, int]
    pitch: float


@dataclass(frozen=True)
class View:
    """How the patient stands before the detector.

    Args:
        position: ``PA`` (detector before the chest) or ``AP`` (detector behind the back).
        turn, lean, roll: rotations about the patient's z, x and the beam, radians.
        shift: of the patient, (x, z), mm.
        source_distance: focus to detector, mm.
        gap: from the patient's centre to the detector, mm.
    """

    position: str
    turn: float
    lean: float
    roll: float
    shift: tuple[float, float]
    source_distance: float
    gap: float

    @property
    def magnification(self) -> float:
        """At the patient's centre."""
        return self.source_distance / (self.source_distance - self.gap)

    def draw(self, tubes: Tubes, detector: Detector) -> Array:
        """Line integrals through ``tubes``, in mm of water: the pose below, point by point."""
        x, y, z = tubes.points.T
        lean = np.float32(self.lean)  # small: y and z mix to first order
        y, z = y + lean * z, z - lean * y
        c, s = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        bx, by = c * x - s * y, s * x + c * y
        sign = 1 if self.position == "PA" else -1
        magnification = self.source_distance / (self.source_distance - self.gap - sign * by)
        u, v = (bx + np.float32(self.shift[0])) * magnification, (z + np.float32(self.shift[1])) * magnification
        c, s = np.float32(np.cos(self.roll)), np.float32(np.sin(self.roll))
        u, v = c * u - s * v, c * v + s * u
        columns = u / detector.pitch + (detector.shape[1] - 1) / 2
        rows = (detector.shape[0] - 1) / 2 - v / detector.pitch
        return tubes.project(columns, rows, magnification, detector.shape, detector.pitch)


def water_path(chest: Chest, tubes: Tubes, view: View, detector: Detector, coarse: float = 4.0) -> Array:
    """Integrate attenuation along every ray from the focus to a pixel.

    The soft parts are sampled on rays ``coarse`` mm apart and interpolated; tubes are drawn at full resolution.

    Args:
        chest: the large soft parts.
        tubes: all thin structures, in the chest's frame.
        view: pose and beam.
        detector: where the rays end.
        coarse: distance of the sampled rays on the detector, mm.

    Returns:
        (rows, columns), mm of water; columns run to the patient's left, rows to the feet.
    """
    height, width = (n * detector.pitch for n in detector.shape)
    # The unrolled grid covers the field's circle-bound corners for small rolls.
    rows, columns = (int(np.ceil(1.12 * extent / coarse)) for extent in (height, width))
    v = ((rows - 1) / 2 - np.arange(rows, dtype=np.float32)) * np.float32(coarse)
    u = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * np.float32(coarse)
    step = 6.0
    depth = np.arange(-130, 130, step, dtype=np.float32) + np.float32(step / 2)  # from the patient's centre to the back
    sign = 1 if view.position == "PA" else -1
    shrink = 1 - (view.gap + sign * depth) / view.source_distance
    bx = u[None, :, None] * shrink - np.float32(view.shift[0])
    bz = v[:, None, None] * shrink - np.float32(view.shift[1])
    c, s = np.float32(np.cos(view.turn)), np.float32(np.sin(view.turn))
    x, y = c * bx + s * depth, c * depth - s * bx
    t = np.float32(view.lean)  # small: y and z mix to first order
    path = np.empty((rows, columns), np.float32)
    air = np.float32(1 - chest.lung_density())
    for k in range(0, rows, 8):  # few rows at a time stay in the processor's cache
        z = bz[k : k + 8]
        tissues = chest.tissues(x, y - t * z, z + t * depth)
        path[k : k + 8] = (tissues.body - tissues.lung * air).sum(axis=2) * np.float32(step)
    oblique = np.sqrt(1 + (u[None, :] ** 2 + v[:, None] ** 2) / view.source_distance**2)
    path = path * oblique

    c, s = np.cos(view.roll), np.sin(view.roll)
    scale = detector.pitch / coarse
    matrix = scale * np.array([[c, s], [-s, c]])
    centre_in, centre_out = np.array([(rows - 1) / 2, (columns - 1) / 2]), (np.array(detector.shape) - 1) / 2
    path = affine_transform(
        path, matrix, centre_in - matrix @ centre_out, detector.shape, np.float32, order=1, mode="nearest"
    )
    return path + view.draw(tubes, detector)

"""Two radiography systems: from line integrals to the pixel values they would store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from medlora.phantoms.tubes import Array

ATTENUATION = 0.0195  # of water behind a filtered 120 kVp beam (about 68 keV), per mm; NIST XCOM


@dataclass(frozen=True)
class Scanner:
    """What distinguishes one system's images from another's.

    Args:
        key: ``A`` or ``B``.
        manufacturer, model, station, site: as in the DICOM header; all fictitious.
        field: height and width of the detector, mm.
        detector_type: DICOM Detector Type (PS3.3 C.8.11.4), ``SCINTILLATOR`` or ``STORAGE``.
        kvp: tube voltage, low and high, kV.
        quanta: per pixel of a 256-pixel image behind no patient; sets the noise.
        electronic: noise of the read-out, in quanta.
        blur: of the detector and focal spot, mm (standard deviation).
        scatter: scattered over primary quanta, behind the grid.
        sharpening: strength of the unsharp mask that the system applies.
        curve: steepness of its display curve; 0 is straight.
        darkest: logarithmic range shown below the brightest part of the lungs.
        border: chance that the collimator's leaves are in the picture.
    """

    key: str
    manufacturer: str
    model: str
    station: str
    site: str
    field: tuple[float, float]
    detector_type: str
    kvp: tuple[float, float]
    quanta: float
    electronic: float
    blur: float
    scatter: float
    sharpening: float
    curve: float
    border: float


A = Scanner("A", "PHANTOM IMAGING", "FLATFIELD 1", "PHANTOMDX1", "Phantom Hospital A", (430.0, 430.0), "SCINTILLATOR",
            (115, 125), 60_000, 4.0, 0.6, 0.25, 0.7, 0.0, 0.15)  # fmt: skip
B = Scanner("B", "PHANTOM RADIOGRAPHY", "PLATE 2000", "PHANTOMCR2", "Phantom Hospital B", (430.0, 354.0), "STORAGE",
            (95, 110), 25_000, 8.0, 1.3, 0.5, 0.35, 1.6, 0.6)  # fmt: skip
SCANNERS = {"A": A, "B": B}


@dataclass(frozen=True)
class Exposure:
    """Settings of one exposure."""

    kvp: float
    mas: float
    grid: bool
    leaves: tuple[int, int, int, int]  # collimated pixels: top, bottom, left, right


def expose(path: Array, scanner: Scanner, exposure: Exposure, pitch: float, rng: np.random.Generator) -> Array:
    """Expose the detector and process as the system would.

    Args:
        path: mm of water along each ray, (rows, columns).
        scanner: whose detector and processing.
        exposure: this exposure's settings.
        pitch: of the pixels, mm.
        rng: quantum and electronic noise.

    Returns:
        (rows, columns), 0 (least attenuation shown) to 1 (most): bright is dense.
    """
    mu = ATTENUATION * (120 / exposure.kvp) ** 0.35
    primary = np.exp(-mu * np.maximum(path, 0))
    # Scatter: a broad share of the primary (Boone and Seibert, Med Phys 1988; 15:713), less behind a grid.
    ratio = scanner.scatter * (1.0 if exposure.grid else 2.0)
    coarse = gaussian_filter(np.minimum(primary, 0.25)[2::4, 2::4], 45 / (4 * pitch))
    scattered = ratio * zoom(coarse, np.divide(path.shape, coarse.shape), order=1, grid_mode=True, mode="nearest")
    quanta = scanner.quanta * (pitch / 1.68) ** 2 * exposure.mas / 3
    intensity = gaussian_filter(primary, scanner.blur / pitch) + scattered
    top, bottom, left, right = exposure.leaves
    open_field = np.zeros(path.shape, bool)
    open_field[top : path.shape[0] - bottom, left : path.shape[1] - right] = True
    intensity = np.where(open_field, intensity, 0.004 * np.ones_like(intensity))
    counted = rng.poisson(quanta * intensity) + rng.normal(0, scanner.electronic, path.shape)
    attenuation = -np.log(np.maximum(counted, 1) / quanta)

    attenuation = attenuation + scanner.sharpening * (attenuation - gaussian_filter(attenuation, 9 / pitch))
    # The system finds the anatomy in its histogram and fits its display range to it.
    height, width = path.shape
    inner = attenuation[height // 8 : -height // 8, width // 8 : -width // 8]
    low, high = np.percentile(inner, [3, 97])
    span = high - low
    shown = (attenuation - (low - 0.15 * span)) / (1.25 * span)
    if scanner.curve:
        shown = 0.5 + 0.5 * np.tanh(scanner.curve * (shown - 0.5)) / np.tanh(0.5 * scanner.curve)
    return np.clip(np.where(open_field, shown, 1.0), 0, 1)


def quantise(shown: Array, bits: int, monochrome1: bool) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Pixel values as stored: ``bits`` of them, falling with density where MONOCHROME1 is asked for."""
    top = (1 << bits) - 1
    values = np.rint((1 - shown if monochrome1 else shown) * top)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)

"""Three CT scanners: from Hounsfield units to the pixel values they would store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from medlora.phantoms.tubes import Array
from medlora.phantoms.voxels import Grid

WATER = 0.0195  # attenuation of water at about 68 keV, per mm; NIST XCOM


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: how fine detail is rendered, and with it the noise.

    Args:
        name: Convolution Kernel (PS3.3 C.8.2.1), in the form that one maker's names have.
        half: frequency at which the contrast of detail has fallen to one half, per mm.
        edge: how much middle frequencies are raised.
    """

    name: str
    half: float
    edge: float

    def transfer(self, frequency: Array) -> Array:
        """Contrast that detail of a spatial frequency (per mm) keeps; 1 at frequency 0."""
        q = frequency / self.half
        return np.exp(-np.log(2) * q**2) * (1 + self.edge * q**2 * np.exp(-0.5 * q**2))


@dataclass(frozen=True)
class Tomograph:
    """What distinguishes one scanner's series from another's.

    Args:
        key: ``A``, ``B`` or ``C``.
        manufacturer, model, station, site: as in the DICOM header; all fictitious.
        field: of view, mm.
        thickness: of the thin slices, mm; the thick ones are two thin ones together.
        soft, sharp: kernels of the thick and of the thin series.
        mas: tube current times time, low and high.
        kvp: tube voltage.
        tilt: largest gantry tilt, degrees; half of the examinations are tilted.
        padding: stored outside the circle that is reconstructed; None where nothing is cut off.
    """

    key: str
    manufacturer: str
    model: str
    station: str
    site: str
    field: float
    thickness: float
    soft: Kernel
    sharp: Kernel
    mas: tuple[float, float]
    kvp: int
    tilt: float
    padding: int | None


A = Tomograph("A", "PHANTOM TOMOGRAPHY", "HELIX 64", "PHANTOMCT1", "Phantom Hospital A", 360, 2.5,
              Kernel("B30f", 0.33, 0.0), Kernel("B60f", 0.55, 0.5), (60, 120), 120, 0, None)  # fmt: skip
B = Tomograph("B", "PHANTOM SCANNERS", "SPIRAL 16", "PHANTOMCT2", "Phantom Hospital B", 340, 2.0,
              Kernel("STANDARD", 0.36, 0.1), Kernel("LUNG", 0.5, 0.9), (30, 60), 120, 0, -2000)  # fmt: skip
C = Tomograph("C", "PHANTOM RADIOLOGY", "RING 8", "PHANTOMCT3", "Phantom Hospital C", 380, 3.0,
              Kernel("FC08", 0.28, 0.0), Kernel("FC51", 0.62, 0.2), (20, 40), 100, 12, None)  # fmt: skip
TOMOGRAPHS = {"A": A, "B": B, "C": C}


def reconstruct(
    hu: Array, grid: Grid, kernel: Kernel, mas: float, width: Array, rng: np.random.Generator, together: int = 1
) -> Array:
    """Blur and noise of a series.

    Noise has the power spectrum that filtered backprojection leaves, which rises with the frequency up to where the
    kernel ends it (Riederer et al., Phys Med Biol 1978; 23:446-454); its variance falls with the dose and the
    thickness of a slice, and rises with what the patient absorbs.

    Args:
        hu: (slices, rows, columns), without noise.
        grid: of ``hu``.
        kernel: whose blur and noise.
        mas: dose.
        width: diameter of the water that absorbs as much as each slice does, (slices,), mm.
        rng: of the noise; the same one gives two kernels the same quanta.
        together: so many slices are averaged into one.

    Returns:
        (slices // together, rows, columns), HU.
    """
    count, rows, columns = hu.shape
    pitch = float(grid.size[0])
    fy, fx = np.meshgrid(scipy.fft.fftfreq(rows, pitch), scipy.fft.rfftfreq(columns, pitch), indexing="ij")
    frequency = np.hypot(fy, fx)
    transfer = kernel.transfer(frequency).astype(np.float32)
    noise = transfer * np.sqrt(frequency).astype(np.float32)
    thickness = float(grid.size[2]) * together
    out = np.empty((count // together, rows, columns), np.float32)
    # 12 HU behind 280 mm of water at 100 mAs and 2.5 mm with a soft kernel, as body protocols aim at.
    quanta = mas / 100 * thickness / 2.5 * np.exp(-WATER * (width[: len(out) * together] - 280))
    strength = (70.0 / pitch / np.sqrt(quanta.reshape(-1, together).mean(axis=1))).astype(np.float32)
    for k in range(0, len(out), 8):  # few slices at a time, so that little memory is needed
        some = hu[k * together : min(k + 8, len(out)) * together].reshape(-1, together, rows, columns).mean(axis=1)
        white = rng.standard_normal(some.shape, dtype=np.float32)
        spectrum = scipy.fft.rfft2(some) * transfer
        spectrum += scipy.fft.rfft2(white) * (noise * strength[k : k + 8, None, None])
        out[k : k + 8] = scipy.fft.irfft2(spectrum, s=(rows, columns))
    return out


def water_width(hu: Array, pitch: float) -> Array:
    """Diameter of the cylinder of water that absorbs as much as each slice, mm (AAPM Report 220)."""
    absorbed = np.maximum(hu, -1000).mean(axis=(1, 2)) / 1000 + 1
    return 2 * np.sqrt(absorbed * hu.shape[1] * hu.shape[2] * pitch**2 / np.pi)


def table_top(hu: Array, grid: Grid, below: float) -> None:
    """Lay the patient on a table, in place: a curved shell, ``below`` mm behind the origin at its lowest."""
    _, rows, columns = hu.shape
    x, y, _ = grid.axes(*(np.arange(n, dtype=np.float64) for n in (columns, rows, 1)))
    depth = y - (below - 30 * (x / 220) ** 2)
    inside = np.abs(x) < 220
    shell = (np.clip(2 - np.abs(depth - 2), 0, 1) + np.clip(2 - np.abs(depth - 22), 0, 1)) * inside
    foam = np.clip(np.minimum(depth, 24 - depth), 0, 1) * inside
    np.maximum(hu, -1000 + (60 * foam + 700 * np.clip(shell, 0, 1))[0], out=hu)


def scout(hu: Array, grid: Grid) -> Array:
    """A frontal localizer: what rays from front to back would meet, as arbitrary units from about -1000 to 1000."""
    water = (np.maximum(hu, -1000).mean(axis=1) / 1000 + 1) * hu.shape[1] * float(grid.size[1])
    return np.clip(water[::-1] * 8 - 1000, -1000, 1500)

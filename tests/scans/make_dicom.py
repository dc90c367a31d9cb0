"""DICOM files written to order by pydicom, so that what a test expects is known from the numbers it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PET = "1.2.840.10008.5.1.4.1.1.128"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def picture(rows: int = 12, columns: int = 16, seed: int = 0, low: int = 0, high: int = 1000) -> np.ndarray:
    """Stored values without any symmetry that could hide a flip or a transposition, shape (rows, columns)."""
    return np.random.default_rng(seed).integers(low, high, (rows, columns))


def image(
    pixels: np.ndarray,
    sop_class: str = CT,
    syntax: str = ExplicitVRLittleEndian,
    stored: int = 16,
    signed: bool = False,
    allocated: int | None = None,
    **elements: Any,
) -> Dataset:
    """A data set around ``pixels`` (rows, columns[, 3] or frames first); ``elements`` by keyword, None removes."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    modality = {CT: "CT", MR: "MR", PET: "PT", DX: "DX", CR: "CR", SC: "OT"}.get(sop_class, "OT")
    allocated = allocated or (8 if stored <= 8 else 16 if stored <= 16 else 32)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    data.PatientName, data.PatientID, data.Modality = "Secret^Name", "SECRET-ID", modality
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3 and elements.get("SamplesPerPixel") == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    data.Rows, data.Columns = shape[-2:]
    if len(shape) == 3:
        data.NumberOfFrames = shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = allocated, stored, stored - 1
    data.PixelRepresentation = int(signed)
    if modality == "CT":
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    raw = pixels.astype(f"{order}{'i' if signed else 'u'}{allocated // 8}").tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OW" if allocated > 8 else "OB"
    for keyword, value in elements.items():
        if value is None:
            if keyword in data:
                delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def save(data: Dataset, path: Path) -> Path:
    """Write with preamble and file meta."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def series(
    folder: Path,
    positions: np.ndarray | list,
    orientation: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float] = (0.5, 0.75),
    names: list[str] | None = None,
    sop_class: str = CT,
    each: list[dict[str, Any]] | None = None,
    rows: int = 12,
    columns: int = 16,
    **elements: Any,
) -> np.ndarray:
    """One file per position (LPS mm), slice k holding `picture(seed=k)`; returns the stored volume (x, y, z)."""
    volume = []
    for k, position in enumerate(positions):
        pixels = picture(rows, columns, seed=k)
        fields: dict[str, Any] = {
            "ImagePositionPatient": [float(f"{c:.8g}") for c in position],
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing),
            "InstanceNumber": k + 1,
            "SOPInstanceUID": f"1.2.3.4.5.{k + 1}",
        }
        fields |= elements | ((each or [{}] * len(positions))[k])
        name = names[k] if names else f"{k:04d}.dcm"
        save(image(pixels, sop_class, **fields), folder / name)
        volume.append(pixels.T)
    return np.stack(volume, axis=-1)


def axial(count: int, step: float = 2.5, start: tuple[float, float, float] = (-100.0, -80.0, 30.0)) -> np.ndarray:
    """Positions of an axial stack, feet to head."""
    return np.array(start) + np.arange(count)[:, None] * np.array([0.0, 0.0, step])

"""Writing CT Image objects (PS3.3 A.3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medlora._version import __version__
from medlora.phantoms.identity import Identity, uid
from medlora.phantoms.tomographs import Kernel, Tomograph
from medlora.phantoms.tubes import Array

_INTERCEPT = -1024


@dataclass(frozen=True)
class StudyIdentity(Identity):
    """Who and when, and the frame of reference that its series share."""

    frame_uid: UID


@dataclass(frozen=True)
class Series:
    """One series before it is written.

    Args:
        number: Series Number.
        description: Series Description.
        uid: Series Instance UID.
        pixels: (slices, rows, columns), HU.
        spacing: between pixels of the row and of the column, mm.
        orientation: Image Orientation (Patient).
        positions: of the first voxel of each slice, (slices, 3), mm.
        thickness: of the slices, mm.
        kernel: None for a localizer.
        mas: dose.
        tilt: of the gantry, degrees.
    """

    number: int
    description: str
    uid: UID
    pixels: Array
    spacing: tuple[float, float]
    orientation: tuple[float, ...]
    positions: Array
    thickness: float
    kernel: Kernel | None
    mas: float
    tilt: float


def write(folder: Path, series: Series, scanner: Tomograph, identity: StudyIdentity) -> None:
    """Write a series, a file for each slice, named in an order that is not theirs.

    Args:
        folder: to be made.
        series: what.
        scanner: by which.
        identity: of whom.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ds = _common(series, scanner, identity)
    signed = scanner.padding is not None
    count, rows, columns = series.pixels.shape
    order = np.random.default_rng(count).permutation(count)
    stored = np.clip(np.rint(series.pixels), -1024, 3071)
    if signed and series.kernel is not None:
        y, x = np.ogrid[:rows, :columns]
        outside = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2) > columns / 2
        stored[:, outside] = scanner.padding
        cells = (stored - _INTERCEPT).astype("<i2")
    else:
        cells = (stored - _INTERCEPT).astype("<i2" if signed else "<u2")
    for k in range(count):
        instance = uid(series.uid, k)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = instance
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = [round(float(v), 4) for v in series.positions[k]]
        ds.SliceLocation = round(float(series.positions[k, 2]), 4)
        ds.PixelData = cells[k].tobytes()
        pydicom.dcmwrite(folder / f"IM{order[k] + 1:04d}.dcm", ds, enforce_file_format=True)


def _common(series: Series, scanner: Tomograph, identity: StudyIdentity) -> FileDataset:
    """All that the slices of a series share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("medlora", "phantoms")
    meta.ImplementationVersionName = f"MEDLORA {__version__}"[:16]
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)

    # SOP Common, Patient, General Study
    ds.SpecificCharacterSet, ds.SOPClassUID = "ISO_IR 192", CTImageStorage
    ds.PatientName, ds.PatientID = identity.patient_name, identity.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", identity.sex, f"{identity.age:03d}Y"
    ds.PatientComments = "Computed phantom, not a person"
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = identity.study_uid, "1", identity.accession
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = identity.date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = identity.time
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Chest phantom"

    # General Series, Frame of Reference, General Equipment
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "CT", series.uid, series.number
    ds.SeriesDescription, ds.BodyPartExamined, ds.PatientPosition = series.description, "CHEST", "HFS"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = identity.frame_uid, ""
    ds.Manufacturer, ds.ManufacturerModelName = scanner.manufacturer, scanner.model
    ds.InstitutionName, ds.StationName = scanner.site, scanner.station
    ds.DeviceSerialNumber, ds.SoftwareVersions = f"PHANTOM-{scanner.key}", __version__

    # General Image, Image Plane, Image Pixel
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if series.kernel is None else "AXIAL"]
    ds.AcquisitionNumber = 1
    ds.PixelSpacing = [round(v, 6) for v in series.spacing]
    ds.ImageOrientationPatient = [round(v, 8) for v in series.orientation]
    ds.SliceThickness = series.thickness
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = series.pixels.shape[1:]
    signed = scanner.padding is not None
    bits = 16 if signed else 12
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    ds.BurnedInAnnotation = "NO"

    # CT Image
    ds.RescaleIntercept, ds.RescaleSlope = _INTERCEPT, 1
    if scanner.padding is not None and series.kernel is not None:
        ds.add_new("PixelPaddingValue", "SS", scanner.padding - _INTERCEPT)
    ds.KVP, ds.Exposure, ds.GantryDetectorTilt = scanner.kvp, round(series.mas), round(series.tilt, 2)
    if series.kernel is not None:
        ds.RescaleType = "HU"
        ds.ConvolutionKernel, ds.ReconstructionDiameter = series.kernel.name, scanner.field
        ds.WindowCenter, ds.WindowWidth = ([-600, 40], [1500, 400])
    ds.PixelData = b""
    ds["PixelData"].VR = "OW"
    return ds

"""Writing Digital X-Ray objects (PS3.3 A.26, For Presentation)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medlora._version import __version__
from medlora.phantoms.identity import Identity, uid
from medlora.phantoms.projection import View
from medlora.phantoms.scanners import Exposure, Scanner

TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)


def code(concept: Code) -> Sequence:
    """A code sequence of one item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme_designator
    item.CodeMeaning = concept.meaning
    return Sequence([item])


@dataclass(frozen=True)
class ImageIdentity(Identity):
    """Who and when, and which of its images this is."""

    series_uid: UID
    instance_uid: UID


def write(
    path: Path,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    bits: int,
    monochrome1: bool,
    pitch: float,
    view: View,
    scanner: Scanner,
    exposure: Exposure,
    identity: ImageIdentity,
    transfer_syntax: str,
) -> None:
    """Write one radiograph.

    Args:
        path: the file.
        pixels: stored values, (rows, columns).
        bits: Bits Stored.
        monochrome1: whether low values are shown bright.
        pitch: detector mm per pixel.
        view: pose and beam.
        scanner: the system.
        exposure: its settings.
        identity: who and when.
        transfer_syntax: one of TRANSFER_SYNTAXES.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = identity.instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("medlora", "phantoms")
    meta.ImplementationVersionName = f"MEDLORA {__version__}"[:16]
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)

    # SOP Common, Patient, General Study
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, identity.instance_uid
    ds.PatientName, ds.PatientID = identity.patient_name, identity.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", identity.sex, f"{identity.age:03d}Y"
    ds.PatientComments = "Computed phantom, not a person"
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = identity.study_uid, "1", identity.accession
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = identity.date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = identity.time
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "Chest phantom", f"Chest {view.position}"

    # General Series, DX Series, General Equipment
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "DX", identity.series_uid, 1
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.Manufacturer, ds.ManufacturerModelName = scanner.manufacturer, scanner.model
    ds.InstitutionName, ds.StationName = scanner.site, scanner.station
    ds.DeviceSerialNumber, ds.SoftwareVersions = f"PHANTOM-{scanner.key}", __version__

    # General Image, DX Image, Image Pixel
    ds.InstanceNumber = 1
    ds.ImageType = ["DERIVED", "PRIMARY", ""]
    ds.PatientOrientation = ["L", "F"]
    ds.AcquisitionNumber = 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = (8 if bits <= 8 else 16), bits, bits - 1
    ds.PixelRepresentation = 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if monochrome1 else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    ds.LossyImageCompression, ds.BurnedInAnnotation = "00", "NO"
    ds.WindowCenter, ds.WindowWidth = 1 << (bits - 1), 1 << bits
    ds.DerivationDescription = "Projected from a procedural chest"

    # DX Anatomy Imaged, DX Positioning, Acquisition Context
    ds.ImageLaterality, ds.BodyPartExamined = "U", "CHEST"
    ds.AnatomicRegionSequence = code(codes.cid4009.Chest)
    ds.ViewPosition, ds.PositionerType = view.position, "NONE"
    ds.ViewCodeSequence = code(
        codes.cid4010.PosteroAnterior if view.position == "PA" else codes.cid4010.AnteroPosterior
    )
    ds.DistanceSourceToDetector = round(view.source_distance, 1)
    ds.DistanceSourceToPatient = round(view.source_distance - view.gap, 1)
    ds.EstimatedRadiographicMagnificationFactor = round(view.magnification, 4)
    ds.AcquisitionContextSequence = Sequence([])

    # DX Detector, Collimator, Dose, Generation, Grid
    ds.DetectorType, ds.DetectorID = scanner.detector_type, f"PHANTOM-{scanner.key}"
    ds.ImagerPixelSpacing = [round(pitch, 6)] * 2
    top, bottom, left, right = exposure.leaves
    ds.CollimatorShape = "RECTANGULAR"
    ds.CollimatorLeftVerticalEdge, ds.CollimatorRightVerticalEdge = left, pixels.shape[1] - right
    ds.CollimatorUpperHorizontalEdge, ds.CollimatorLowerHorizontalEdge = top, pixels.shape[0] - bottom
    ds.KVP = round(exposure.kvp, 1)
    ds.Exposure, ds.ExposureInuAs = round(exposure.mas), round(exposure.mas * 1000)
    ds.ExposureTime, ds.XRayTubeCurrent = 10, round(exposure.mas * 100)
    ds.Grid = ["FIXED", "FOCUSED"] if exposure.grid else "NONE"

    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OB" if bits <= 8 else "OW"
    if transfer_syntax == JPEG2000Lossless:
        # By imagecodecs, since pydicom's own encoder (pylibjpeg-openjpeg 2.6) is not safe in threads: it crashes.
        coded = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits)
        ds.PixelData = encapsulate([bytes(coded)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        meta.TransferSyntaxUID = JPEG2000Lossless
    elif transfer_syntax != ExplicitVRLittleEndian:
        ds.compress(transfer_syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)

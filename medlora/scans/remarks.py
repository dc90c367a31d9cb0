"""What the headers of one scan say that its user must know: units, spacing, purpose, burned-in text."""

from __future__ import annotations

from medlora.scans.codes import Code, Issue
from medlora.scans.elements import CLASSIC_PET, CT_IMAGES, FOR_PROCESSING, PET_IMAGES
from medlora.scans.header import Values
from medlora.scans.load import spacing_of
from medlora.scans.pepolar import ROWS
from medlora.scans.plane import Plane, is_capture, is_localizer

_RESCALE = ("RescaleSlope", "RescaleIntercept")
#: Rescale Types that leave a CT in Hounsfield units, or say nothing (PS3.3 C.11.1.1.2).
_HOUNSFIELD = {"HU", "US"}


def remarks(values: Values, planes: list[Plane]) -> list[Issue]:
    """Issues of the merged header of a scan, and of its planes.

    Args:
        values: one value per keyword.
        planes: of the scan.
    """
    issues = []
    if values.get("BurnedInAnnotation") == "YES":
        issues.append(Issue(Code.BurnedInAnnotation))
    if values.get("PresentationIntentType") == "FOR PROCESSING" or values.get("SOPClassUID") in FOR_PROCESSING:
        issues.append(Issue(Code.ForProcessing))
    volumetric = values.get("Modality") in ("CT", "MR", "PT", "NM", "RTDOSE")  # of radiographs few say it
    if volumetric and "ImagePositionPatient" in values and spacing_of(values) is None:
        issues.append(Issue(Code.UnknownSpacing))
    if rows := next((plane.values[ROWS] for plane in planes if ROWS in plane.values), None):
        issues.append(Issue(Code.ConflictingGeometry, rows))
    if unclear := _unclear_units(values, planes):
        issues.append(Issue(Code.UnknownUnits, unclear))
    return issues


def _unclear_units(values: Values, planes: list[Plane]) -> str:
    """Why the values are not known to be what the modality measures; empty where they are."""
    if values.get("ModalityLUTSequence") or values.get("SamplesPerPixel", 1) != 1:
        return ""
    if is_capture(values) and "ImagePositionPatient" not in values:  # a picture of a screen measures nothing
        return ""
    if values.get("PixelPresentation") in ("COLOR", "MIXED"):  # PS3.3 C.7.6.19
        return "stored values beyond those of the grey range stand for colours"
    if any(plane.values.get("UnclearMapping") for plane in planes):
        return "no Real World Value Mapping, or one by a table or by several ranges"
    if values.get("Modality") == "RTDOSE":
        if values.get("DoseUnits") == "RELATIVE":  # PS3.3 C.8.8.3: to a value that the file need not say
            return "a dose in relative units, not in Gy"
        return "" if "DoseGridScaling" in values else "no DoseGridScaling"
    quantitative = values.get("SOPClassUID") in CT_IMAGES | PET_IMAGES or values.get("Modality") in ("CT", "PT")
    measured = quantitative and not is_localizer(values)
    for word in _RESCALE:
        without = sum(word not in plane.values for plane in planes)
        if without and (measured or without < len(planes)):
            missing = [name for name in _RESCALE if any(name not in plane.values for plane in planes)]
            return f"no {' and no '.join(missing)}" + (f" in {without} of {len(planes)}" if len(planes) > 1 else "")
    if values.get("SOPClassUID") == CLASSIC_PET and "Units" not in values:
        return "a PET that does not say its Units"
    if values.get("SOPClassUID") in CT_IMAGES and values.get("RescaleType", "HU") not in _HOUNSFIELD:
        return "a CT whose Rescale Type is not HU"
    return ""

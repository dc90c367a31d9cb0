"""RT Structure Sets: each region of interest is a case, by its centroid and largest diameter.

Contour Data are LPS millimetres (DICOM PS3.3 C.8.8.6). The series that the contours were drawn on is that of
Referenced Frame of Reference Sequence > RT Referenced Study Sequence > RT Referenced Series Sequence (C.8.8.5). The
ROI Name is the label, unless another column is named: ``roi_type`` (RT ROI Interpreted Type) or ``description``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom

from medlora.cohorts.formats.made import Record, named, table
from medlora.cohorts.formats.measure import outlined
from medlora.cohorts.labels import LabelTable
from medlora.errors import MedloraError


def read(path: Path, files: Sequence[Path]) -> LabelTable:
    """The table of some RTSTRUCT files.

    Raises:
        MedloraError: a file is damaged, or refers to no series or to several.
    """
    records: list[Record] = []
    for file, name, item in named(path, files):
        try:
            records += _of(pydicom.dcmread(file), name, item)
        except MedloraError:
            raise
        except Exception as error:  # pydicom raises whatever a damaged value leads to
            raise MedloraError(f"{name} cannot be read as RTSTRUCT ({type(error).__name__})") from error
    return table(path, files, records, format="DICOM RTSTRUCT", system="lps", keys=("series",))


def _of(structures: pydicom.Dataset, name: str, item: str) -> Iterator[Record]:
    series = {
        str(series.SeriesInstanceUID)
        for frame in structures.get("ReferencedFrameOfReferenceSequence", [])
        for study in frame.get("RTReferencedStudySequence", [])
        for series in study.get("RTReferencedSeriesSequence", [])
    }
    if len(series) != 1:
        raise MedloraError(
            f"{name} refers to {len(series) or 'no'} series, so it is not known where its structures lie",
            "export it again for one series",
        )
    regions = {int(region.ROINumber): region for region in structures.StructureSetROISequence}
    kinds = {
        int(item.ReferencedROINumber): str(item.get("RTROIInterpretedType", ""))
        for item in structures.get("RTROIObservationsSequence", [])
    }
    for drawn in structures.ROIContourSequence:
        number = int(drawn.ReferencedROINumber)
        region = regions[number]
        contours = drawn.get("ContourSequence", [])
        types = {str(contour.ContourGeometricType) for contour in contours}
        outlines = [(np.asarray(contour.ContourData, float).reshape(-1, 3), True) for contour in contours]
        more = {"roi_type": kinds.get(number, ""), "description": str(region.get("ROIDescription", ""))}
        record = Record(series.copy().pop(), str(region.ROIName).strip(), None, item=f"{item}ROI {number}", more=more)
        if not types or types - {"CLOSED_PLANAR", "POINT"}:
            record.reason = f"its contours are {', '.join(sorted(types)) or 'none'}, not CLOSED_PLANAR"
        else:
            centre, record.diameter = outlined(outlines)
            record.centre = centre.tolist()
            if record.diameter == 0:
                record.diameter = float("nan")
        yield record

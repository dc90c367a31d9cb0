"""DICOM Segmentations, through highdicom: each segment is a case, by its centroid and largest diameter.

The voxels of a segment are placed by the positions of its frames, in LPS millimetres (DICOM PS3.3 C.7.6.2.1.1, C.8.20).
The series that was segmented is that of the Referenced Series Sequence. The Segment Label is the label, unless another
column is named: ``segment_type`` (Segmented Property Type), ``segment_category`` or ``tracking_id``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medlora.cohorts.formats.made import Record, named, table
from medlora.cohorts.formats.measure import filled
from medlora.cohorts.labels import LabelTable
from medlora.errors import MedloraError

_MOST_VOXELS = 1 << 31


def read(path: Path, files: Sequence[Path]) -> LabelTable:
    """The table of some SEG files.

    Raises:
        MedloraError: highdicom is not there; or a file is damaged, or refers to no series or to several.
    """
    records: list[Record] = []
    for file, name, item in named(path, files):
        try:
            records += _of(file, name, item)
        except MedloraError:
            raise
        except Exception as error:  # highdicom and pydicom raise whatever a damaged value leads to
            raise MedloraError(
                f"{name} cannot be read as a DICOM Segmentation of one volume ({type(error).__name__})"
            ) from error
    return table(path, files, records, format="DICOM SEG", system="lps", keys=("series",))


def _of(file: Path, name: str, item: str) -> Iterator[Record]:
    try:
        from highdicom.seg import segread
    except ImportError:
        raise MedloraError("DICOM Segmentations are read with highdicom, which is not installed",
                           "pip install highdicom") from None  # fmt: skip
    found = segread(file, lazy_frame_retrieval=True)
    series = {str(item.SeriesInstanceUID) for item in found.get("ReferencedSeriesSequence", [])}
    if len(series) != 1:
        raise MedloraError(
            f"{name} refers to {len(series) or 'no'} series, so it is not known what was segmented",
            "export it again for one series",
        )
    if int(found.Rows) * int(found.Columns) * int(found.NumberOfFrames) > _MOST_VOXELS:
        raise MedloraError(f"{name} asks for more memory than a segmentation of a CT or MR needs")
    for number in found.segment_numbers:
        what = found.get_segment_description(number)
        more = {
            "segment_type": what.segmented_property_type.meaning,
            "segment_category": what.segmented_property_category.meaning,
            "tracking_id": what.tracking_id or "",
        }
        label = what.segment_label.strip()
        record = Record(series.copy().pop(), label, None, item=f"{item}segment {number}", more=more)
        volume = found.get_volume(segment_numbers=[number])
        mask = np.asarray(volume.array).reshape(*volume.spatial_shape) >= 0.5  # fractions count from one half
        if mask.any():
            centre, record.diameter = filled(mask, np.asarray(volume.affine, float))
            record.centre = centre.tolist()
        else:
            record.reason = "it is empty"
        yield record

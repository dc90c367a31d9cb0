"""Tables of the LUNA16 challenge.

``annotations.csv`` (seriesuid, coordX, coordY, coordZ, diameter_mm) and ``candidates.csv``, ``candidates_V2.csv``
(seriesuid, coordX, coordY, coordZ, class) give world coordinates of the .mhd images, which are LPS millimetres, as ITK
has them. The images are CT, named by their Series Instance UID, and do not say their modality. Source:
https://luna16.grand-challenge.org/Data/ and Setio A. et al., Med Image Anal 2017; 42:1-13.
"""

from __future__ import annotations

from dataclasses import replace

from medlora.cohorts.labels import LabelTable, plain
from medlora.cohorts.places import LUNA16

_ANNOTATIONS = {"seriesuid", *LUNA16, "diametermm"}


def complete(table: LabelTable) -> LabelTable:
    """``table`` with what LUNA16 leaves unsaid: that the scans are CT, and that a row of annotations.csv is a nodule.

    Any other table comes back as it is.
    """
    headings = {plain(heading) for heading in table.frame.columns}
    if not {"seriesuid", *LUNA16} <= headings:
        return table
    if headings == _ANNOTATIONS:
        table = replace(table, frame=table.frame.assign(label="nodule"))
    return replace(table, format="CSV with coordX, coordY, coordZ as in LUNA16", modality="CT")

"""Labels in the formats that annotation tools and public sets write, told by content, each read into a table.

| format | place | coordinates, unit | label |
|---|---|---|---|
| CSV | columns x, y, z, if any | as declared by ``--coordinates``; LUNA16's coordX …: LPS, mm | a column |
| LIDC-IDRI XML | nodules ≥ 3 mm, readers merged | pixel indices of a slice, made LPS mm by its header | malignancy |
| 3D Slicer .mrk.json, .fcsv | points, lines, ROIs | LPS or RAS as the file declares, mm | the name of the point |
| DICOM SEG, RTSTRUCT | centroid of each structure | LPS, mm (PS3.3 C.7.6.2.1.1) | Segment Label, ROI Name |
| COCO | centre of each box | pixels from the upper left corner of the image | category |
"""

from __future__ import annotations

from medlora.cohorts.formats.source import LabelSource, recognise

__all__ = ["LabelSource", "recognise"]

"""The reads of LIDC-IDRI, as XML.

Each file is about one series, which its header names. Up to four readers outlined the nodules that they found; nodules
of 3 mm and more have an outline on each slice and ratings, malignancy among them (1 highly unlikely … 5 highly
suspicious). Outlines are pixel indices (column, row) of slices named by SOP Instance UID; the slices' headers make LPS
millimetres of them (DICOM PS3.3 C.7.6.2.1.1), so that the DICOM files have to be in the archive. Smaller nodules and
what readers marked as no nodule are not taken. Source: Armato S. et al., Med Phys 2011; 38:915-931, and the
collection's page, https://www.cancerimagingarchive.net/collection/lidc-idri/.

How readers are merged: outlines of different readers are one nodule where their centres are nearer to each other than
the radius of the larger, or than 3 mm; nearest pairs first, and never two outlines of one reader. (Balls that do not
overlap are never merged by that.) Centre: mean of the readers; diameter: median of their largest diameters in a slice.
Label: the median malignancy, ``malignant`` above 3, ``benign`` below 3; at 3 the nodule is left out, and named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from medlora.cohorts.formats.made import Record, content, named, table
from medlora.cohorts.formats.measure import Points, outlined
from medlora.cohorts.labels import LabelTable
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

_NEAR = 3.0  # mm: nodules of 3 mm and more that do not overlap are not nearer to each other
_INDETERMINATE = 3


@dataclass(frozen=True)
class Read:
    """One nodule as one reader outlined it: centre (LPS mm), diameter (mm), malignancy 1 to 5."""

    reader: int
    centre: Points
    diameter: float
    malignancy: int


def read(path: Path, files: Sequence[Path], scans: Sequence[ScanFiles]) -> LabelTable:
    """The table of some files of reads: a row for each nodule.

    A file about a series that is not in the archive gives one row without a place, which then matches no scan.

    Raises:
        MedloraError: a file is damaged, or outlines a slice that its series does not have.
    """
    of_series = {scan.identity.series_uid: scan for scan in scans if scan.kind == "dicom"}
    records: list[Record] = []
    for file, name, item in named(path, files):
        root = _parsed(content(file, name), name)
        series = (root.findtext(".//SeriesInstanceUid") or "").strip()
        if not series:
            raise MedloraError(f"{name} names no series", "take the file of the collection again")
        if series not in of_series:
            records.append(Record(series, "", None, item=item.rstrip(", "), reason="its series is not in the archive"))
            continue
        try:
            reads = list(_reads(root, _Slices(of_series[series], name)))
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, MedloraError):
                raise
            raise MedloraError(f"{name} cannot be understood ({error})", "take it from the collection again") from None
        for number, nodule in enumerate(merged(reads), 1):
            records.append(_record(series, nodule, f"{item}nodule {number}"))
    return table(path, files, records, format="LIDC-IDRI XML", system="lps", keys=("series",), modality="CT")


def merged(reads: Sequence[Read]) -> list[list[Read]]:
    """Which reads are one nodule; see the rule above. The order of ``reads`` does not matter."""
    reads = sorted(reads, key=lambda read: (tuple(read.centre), read.reader))
    group = {number: [number] for number in range(len(reads))}
    pairs = sorted((float(np.linalg.norm(reads[a].centre - reads[b].centre)), a, b) for a, b in combinations(group, 2))
    for distance, a, b in pairs:
        one, other = group[a], group[b]
        near = distance < max(reads[a].diameter / 2, reads[b].diameter / 2, _NEAR)
        if near and one is not other and not {reads[i].reader for i in one} & {reads[i].reader for i in other}:
            one.extend(other)
            group.update(dict.fromkeys(other, one))
    return [[reads[i] for i in sorted(group[first])] for first in group if min(group[first]) == first]


def _record(series: str, nodule: Sequence[Read], item: str) -> Record:
    ratings = [read.malignancy for read in nodule]
    middle = median(ratings)
    more = {"readers": len(nodule), "malignancy": f"{middle:g}", "disagreement": max(ratings) - min(ratings)}
    reason = ""
    if middle == _INDETERMINATE:
        reason = f"indeterminate: the median malignancy of {len(nodule)} readers is {_INDETERMINATE}"
    return Record(
        series,
        "malignant" if middle > _INDETERMINATE else "benign",
        np.mean([read.centre for read in nodule], axis=0),
        median([read.diameter for read in nodule]),
        item,
        reason,
        more,
    )


def _parsed(data: bytes, name: str) -> ElementTree.Element:
    """The XML without its namespace; entities, which could make a small file huge, are refused."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise MedloraError(f"{name} declares a document type, as no LIDC-IDRI file does")
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 - without entities there is nothing to expand
    except ElementTree.ParseError as error:
        raise MedloraError(f"{name} is no whole XML file ({error})", "take it from the collection again") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _reads(root: ElementTree.Element, slices: _Slices) -> Iterator[Read]:
    for reader, session in enumerate(root.iter("readingSession"), 1):
        for nodule in session.iter("unblindedReadNodule"):
            malignancy = (nodule.findtext("characteristics/malignancy") or "").strip()
            if not malignancy:
                continue  # smaller than 3 mm
            outlines = [
                (slices.points(roi), (roi.findtext("inclusion") or "TRUE").strip().upper() == "TRUE")
                for roi in nodule.iter("roi")
            ]
            if not any(inside for _, inside in outlines):
                continue
            if not 1 <= int(malignancy) <= 5:
                raise ValueError("a malignancy is not 1 to 5")
            yield Read(reader, *outlined(outlines), int(malignancy))


class _Slices:
    """The slices of a series, which make millimetres of pixels."""

    def __init__(self, scan: ScanFiles, name: str) -> None:
        from medlora.scans import read_header

        self.name = name
        self._values: dict[str, Mapping] = defaultdict(dict)
        for path in scan.paths:
            values = read_header(path).values
            self._values[str(values.get("SOPInstanceUID"))] = values

    def points(self, roi: ElementTree.Element) -> Points:
        """The outline of one slice, (n, 3), LPS millimetres."""
        values = self._values.get((roi.findtext("imageSOP_UID") or "").strip())
        if values is None:
            raise MedloraError(
                f"{self.name} outlines a slice that its series in the archive does not have",
                "fetch the series again, whole",
            )
        edge = [(int(point.findtext("xCoord", "")), int(point.findtext("yCoord", ""))) for point in roi.iter("edgeMap")]
        if not edge:
            raise ValueError("a region without outline")
        columns, rows = np.asarray(edge, float).T
        orientation = np.asarray(values["ImageOrientationPatient"], float)
        between_rows, between_columns = values["PixelSpacing"]
        return (
            np.asarray(values["ImagePositionPatient"], float)
            + np.outer(columns * between_columns, orientation[:3])
            + np.outer(rows * between_rows, orientation[3:])
        )

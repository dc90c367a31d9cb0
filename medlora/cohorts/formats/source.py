"""What a file or folder of labels is, told by content, and its table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlora.cohorts.formats import coco, lidc, luna16, rtstruct, segmentation, slicer
from medlora.cohorts.labels import LabelTable, read_labels
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

_HEAD = 4096
_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "DICOM SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "DICOM SEG",
    "1.2.840.10008.5.1.4.1.1.481.3": "DICOM RTSTRUCT",
}
"""SOP classes of labels (PS3.4 B.5): Segmentation and Label Map Segmentation Storage, RT Structure Set Storage."""

_READERS: dict[str, Callable[[Path, Sequence[Path]], LabelTable]] = {
    "3D Slicer": slicer.read,
    "DICOM SEG": segmentation.read,
    "DICOM RTSTRUCT": rtstruct.read,
}
_OF_SCANS = ("LIDC-IDRI", "COCO")
"""Formats whose coordinates mean nothing without the scans that they were drawn on."""


@dataclass(frozen=True)
class LabelSource:
    """A file or folder of labels.

    Attributes:
        path: as the user gave it.
        format: ``CSV``, ``LIDC-IDRI``, ``3D Slicer``, ``DICOM SEG``, ``DICOM RTSTRUCT`` or ``COCO``.
        files: those of this format in it.
    """

    path: Path
    format: str
    files: tuple[Path, ...]

    @property
    def needs_scans(self) -> bool:
        """Whether the table can be made only once the scans are known."""
        return self.format in _OF_SCANS

    def read(
        self,
        scans: Sequence[ScanFiles] = (),
        archive: Path | None = None,
        left_out: Sequence[Path] = (),
        copies: Mapping[str, str] | None = None,
    ) -> LabelTable:
        """The table.

        Args:
            scans: those of the archive, for formats that need them.
            archive: its root.
            left_out: its files that are part of no scan, which a name may mean as well.
            copies: paths (relative to the archive) of those that are copies of a scan's files → its scan_id.

        Raises:
            MedloraError: the files are damaged, or do not follow their format.
        """
        if self.format == "LIDC-IDRI":
            return lidc.read(self.path, self.files, scans)
        if self.format == "COCO":
            return coco.read(self.path, self.files, scans, archive or Path(), left_out, copies)
        if self.format in _READERS:
            return _READERS[self.format](self.path, self.files)
        return luna16.complete(read_labels(self.path))


def recognise(path: str | os.PathLike[str]) -> LabelSource:
    """What a file or folder of labels is. A single file that is of no other format is taken as CSV.

    Raises:
        MedloraError: a folder holds no labels, or of several formats.
    """
    path = Path(path)
    if not path.is_dir():
        return LabelSource(path, (_format(path) if path.is_file() else None) or "CSV", (path,))
    from medlora.scans import list_files

    found = [(file, kind) for file in list_files(path) if (kind := _format(file)) is not None]
    counts = Counter(kind for _, kind in found)
    if not counts:
        raise MedloraError(
            f"the folder of labels {path} holds none that is known by its content",
            "give a folder of LIDC-IDRI XML, 3D Slicer .mrk.json, DICOM SEG or RTSTRUCT files; of a CSV give the file",
        )
    if len(counts) > 1:
        raise MedloraError(
            f"the folder of labels {path} holds several kinds: " + ", ".join(f"{n} × {k}" for k, n in counts.items()),
            "give a folder that holds one kind",
        )
    return LabelSource(path, next(iter(counts)), tuple(file for file, _ in found))


def _format(path: Path) -> str | None:
    """The format of one file; None where it is none of those that can be told by content (CSV cannot)."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head[128:132] == b"DICM":
        from medlora.scans import read_header

        return _SOP_CLASSES.get(str(read_header(path).values.get("SOPClassUID", "")))
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<") and b"LidcReadMessage" in text:
        return "LIDC-IDRI"
    if text.startswith(b"# Markups fiducial file"):
        return "3D Slicer"
    if text.startswith(b"{"):
        return _json(path)
    return None


def _json(path: Path) -> str | None:
    from medlora.cohorts.formats.made import content

    try:
        names = json.loads(content(path, "the file of labels"))
    except (ValueError, RecursionError):  # MedloraError is one too: the reader of the whole would say it again
        return None
    if "markups" in names:
        return "3D Slicer"
    return "COCO" if {"images", "annotations", "categories"} <= set(names) else None

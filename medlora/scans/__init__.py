"""Medical images from any folder: assembled, decoded and placed right, or left out with a reason.

The pixels come with their geometry and a header without identifiers::

    from medlora import scans

    for scan in scans.read("archive/"):
        print(scan.scan_id, scan.shape, scan.spacing, *scan.issues)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medlora.scans.codes import Code, Issue, Severity
from medlora.scans.file import read_header
from medlora.scans.folder import list_files
from medlora.scans.header import Header
from medlora.scans.read import read
from medlora.scans.scan import Excluded, Scan, ScanError, Scans
from medlora.scans.survey import Identity, ScanFiles, Survey, survey

if TYPE_CHECKING:
    from medlora.scans.monai_reader import MonaiReader

__all__ = [
    "Code",
    "Excluded",
    "Header",
    "Identity",
    "Issue",
    "MonaiReader",
    "Scan",
    "ScanError",
    "ScanFiles",
    "Scans",
    "Severity",
    "Survey",
    "list_files",
    "read",
    "read_header",
    "survey",
]


def __getattr__(name: str) -> Any:
    if name == "MonaiReader":  # monai takes seconds to import
        from medlora.scans.monai_reader import MonaiReader

        return MonaiReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

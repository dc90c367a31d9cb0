"""The one call: a path to its scans."""

from __future__ import annotations

import os
from pathlib import Path

from medlora.errors import MedloraError
from medlora.scans.scan import Excluded, ScanError, Scans
from medlora.scans.survey import Severities, survey


def read(path: str | os.PathLike[str], severities: Severities | None = None) -> Scans:
    """Read every scan of a file or folder.

    Args:
        path: DICOM, NIfTI, MetaImage, PNG or JPEG; or a folder, with all that lies below it.
        severities: changes to what each `Code` does: ``{Code.MissingSlices: "refuse"}``.

    Returns:
        The scans, sorted by patient, study and series; ``.excluded`` says what was left out, and why.

    Raises:
        MedloraError: nothing in ``path`` can be read as an image.
    """
    if not Path(path).exists():
        raise MedloraError(f"{os.fspath(path)} does not exist", "check the spelling of the path")
    found = survey(path, severities=severities)
    scans = Scans(excluded=found.excluded)
    for files in found.scans:
        try:
            scans.append(files.load())
        except ScanError as error:
            scans.excluded.append(Excluded(files.paths, error.code, error.issue.detail, files.scan_id))
    if not scans:
        raise MedloraError(
            f"nothing in {os.fspath(path)} can be read as an image: {_why(scans.excluded)}",
            "give a folder or file with DICOM, NIfTI, MetaImage, PNG or JPEG images",
        )
    return scans


def _why(excluded: list[Excluded]) -> str:
    if not excluded:
        return "there are no files"
    first = excluded[0]
    more = f" (and {len(excluded) - 1} more)" if len(excluded) > 1 else ""
    return f"{first}{more}".rstrip(".")

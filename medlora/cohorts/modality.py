"""The modality of files that have no room to say theirs: NIfTI, most MetaImage, PNG, JPEG."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medlora.scans import ScanFiles


def with_modality(scan: ScanFiles, modality: str | None) -> ScanFiles:
    """``scan`` with the ``modality`` that was declared for it, where its file has no room to say one."""
    if modality is None or scan.modality or scan.kind == "dicom":
        return scan
    return replace(scan, modality=modality, header={**scan.header, "Modality": modality})

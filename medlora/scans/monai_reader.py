"""medlora's scans in anyone's MONAI pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys

from medlora.errors import MedloraError
from medlora.scans.codes import Code, Severity, severity
from medlora.scans.file import read_header
from medlora.scans.grouping import series_of
from medlora.scans.scan import Excluded, Scan
from medlora.scans.survey import ScanFiles, Severities, survey

# What is left out without a loss: files that are no image, or one that is there already.
_NO_LOSS = {Code.NotAnImage, Code.EmptyFile, Code.LinkLeavesFolder, Code.DuplicateFile}


class MonaiReader(ImageReader):
    """Reads one scan per path for ``LoadImaged(reader=MonaiReader())``.

    Args:
        severities: changes to what each `Code` does.
        scan_id: which scan to take where the path holds several.
    """

    def __init__(self, severities: Severities | None = None, scan_id: str | None = None) -> None:
        super().__init__()
        self.severities = severities
        self.scan_id = scan_id

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Any file or folder: what is inside is told by content, not by name."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Scan:
        """The scan that ``data`` holds.

        Raises:
            MedloraError: it holds none, or several, one of which may be refused, and none was named by ``scan_id``.
            ScanError: its pixels cannot be decoded.
        """
        found = survey(data, severities=self.severities)
        scans = [scan for scan in found.scans if self.scan_id in (None, scan.scan_id)]
        where = os.fspath(data) if isinstance(data, (str, os.PathLike)) else "the given files"
        if not scans:
            refused = [e for e in found.excluded if severity(e.code, self.severities) is Severity.REFUSE]
            why = f": {refused[0]}" if refused else ""
            raise MedloraError(f"{where} holds no scan that can be read{why}", "give a file or folder with one scan")
        if len(scans) > 1:
            raise MedloraError(
                f"{where} holds {len(scans)} scans: {', '.join(s.scan_id for s in scans[:8])}",
                "give the path of one of them, or MonaiReader(scan_id=...)",
            )
        left_out = [e for e in found.excluded if self.scan_id is None and _is_other(e, scans[0])]
        if left_out:
            raise MedloraError(
                f"{where} holds scan {scans[0].scan_id} and images of which no scan could be made: "
                + " ".join(map(str, left_out[:8])),
                f'give the path of the scan, or MonaiReader(scan_id="{scans[0].scan_id}")',
            )
        return scans[0].load()

    def get_data(self, img: Scan) -> tuple[np.ndarray, dict[str, Any]]:
        """The array, indexed (x, y, z[, channel]), and MONAI's metadata: affine in RAS, spatial shape, issues."""
        channel: int | float = -1 if img.array.ndim == 4 else float("nan")
        meta = {
            MetaKeys.AFFINE: img.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.array.shape[:3]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: channel,
            "scan_id": img.scan_id,
            "modality": img.modality,
            "issues": [str(issue) for issue in img.issues],
        }
        return img.array, meta


def _is_other(left_out: Excluded, scan: ScanFiles) -> bool:
    """Whether what was left out may be what is looked for: another scan, or files of another series; those of its own
    series leave a loss that the scan itself says."""
    if left_out.code in _NO_LOSS:
        return False
    said = left_out.scan_id is None and any(issue.code is Code.MissingSlices for issue in scan.issues)
    if not said:
        return True
    own = series_of(read_header(scan.paths[0]))
    return any(series_of(read_header(path)) != own for path in left_out.paths)

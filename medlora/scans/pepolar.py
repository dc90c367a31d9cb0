"""GE's research sequence epi_pepolar: images of reversed phase encoding are stored upside down, unsaid by the header.

As dcm2niix and its public data set dcm_qa_polar describe it: the private User Data 12 gives the mode (0: forward, 1:
reverse, 2: by turns, reverse first, 3: by turns, forward first), and the volumes in time follow it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from medlora.scans.geometry import axes
from medlora.scans.header import Values
from medlora.scans.plain import dataset

#: What the private Pulse Sequence Name (0019,xx9C) holds; sought in a file's first bytes, before anything is parsed.
NAME = b"epi_pepolar"
#: Keyword under which the values say that the place of the rows was set right, or may be wrong.
ROWS = "ReversedRows"


def may_be(values: Values) -> bool:
    """Whether an image is of the kind of scanner that has the sequence, or of none that is known."""
    return values.get("Modality", "MR") == "MR" and str(values.get("Manufacturer", "GE")).startswith("GE")


def set_right(values: Values, path: Path) -> None:
    """Turn position and orientation of an image whose rows are stored in reverse; say so under `ROWS`."""
    data = dataset(path)
    reverse = _is_reverse(data)
    if reverse is None:
        values[ROWS] = "rows may be stored in reverse: epi_pepolar, direction not known"
        return
    orientation, position = (values.get(f"Image{word}Patient", []) for word in ("Orientation", "Position"))
    directions, spacing = axes(tuple(orientation)), values.get("PixelSpacing")
    if not reverse or directions is None or len(position) != 3 or not spacing:  # the last three are said elsewhere
        return
    last = spacing[0] * (values["Rows"] - 1) * directions[1]
    values["ImagePositionPatient"] = (np.asarray(position, float) + last).tolist()
    values["ImageOrientationPatient"] = [*orientation[:3], *(-number for number in orientation[3:])]
    values[ROWS] = "rows are stored in reverse: epi_pepolar, set right"


def _is_reverse(data: pydicom.Dataset) -> bool | None:
    """Whether this image's phase encoding is reversed; None where the header leaves it open."""
    try:
        block = data.private_block(0x0019, "GEMS_ACQU_01")
        if NAME.decode() not in str(block[0x9C].value):
            return False
        mode = int(block[0xB3].value)
    except (KeyError, ValueError, TypeError):
        return None
    time = data.get("TemporalPositionIdentifier")
    if mode == 0:
        return False
    if data.get("InPlanePhaseEncodingDirection") != "COL" or mode not in (1, 2, 3):
        return None
    if mode == 1:
        return True
    return None if time is None else int(time) % 2 == (1 if mode == 2 else 0)

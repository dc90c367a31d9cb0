"""Stacks that were torn: one part has another Patient ID, study or Pixel Spacing, corrected halfway."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import check_stack
from medlora.scans.plane import Volume, is_localizer, listed


def say_torn(volumes: Mapping[tuple[str, ...], Iterable[Volume]]) -> None:
    """Flag the volumes under one Series Instance UID whose slices, together, make one even stack.

    Args:
        volumes: by the patient, study and series that their headers give.
    """
    stacks: dict[Hashable, list[tuple[Hashable, Volume]]] = defaultdict(list)
    for key, found in volumes.items():
        for volume in found:
            first = volume.planes[0]
            if first.directions is None or first.position is None or is_localizer(first.values) or not first.single:
                continue
            place = tuple(first.values.get(word) for word in ("FrameOfReferenceUID", "Modality", "Rows", "Columns"))
            directions = tuple(np.round(first.directions, 2).ravel() + 0.0)
            spacing = tuple(map(str, listed(first.values.get("PixelSpacing"))))
            stacks[place, directions].append(((key, spacing), volume))
    for parts in stacks.values():
        # Parts of one key and spacing were parted knowingly: of two kernels, woven into each other.
        if len(parts) < 2 or len({kind for kind, _ in parts}) < len(parts):
            continue
        planes = [plane for _, volume in parts for plane in volume.planes]
        if len(planes) > 2 and _is_even(np.array([plane.position for plane in planes]), planes[0].directions):
            for _, volume in parts:
                rest = len(planes) - len(volume.planes)
                detail = f"{rest} that go on with the stack have another Patient ID, study or Pixel Spacing"
                volume.issues.append(Issue(Code.MissingSlices, detail))


def _is_even(positions: np.ndarray, directions: np.ndarray | None) -> bool:
    assert directions is not None
    along = positions @ directions[2]
    if np.diff(np.sort(along)).min() < 0.01:
        return False
    issues = check_stack(positions[np.argsort(along)], directions)[1]
    return not any(issue.code in (Code.NonUniformSpacing, Code.UnalignedSlices) for issue in issues)

"""One image of a series, and what images make: a volume, or a refusal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medlora.scans.codes import Issue
from medlora.scans.geometry import Array, axes
from medlora.scans.header import Header, Values

#: Modalities whose images are projections, photographs or captures: each instance is a scan of its own.
PROJECTIONS = {"CR", "DX", "MG", "RG", "RF", "XA", "PX", "IO", "RTIMAGE", "XC", "ES", "GM", "OP", "SM", "US", "IVUS"}

# What makers write into Image Type, without spaces and underscores.
_CAPTURES = {"SCREENSAVE", "SCREENSHOT", "SCREENCAPTURE"}
_REFORMATTED = {"REFORMATTED", "REFORMAT", "MPR", "MPR2D", "CSAMPR", "CPR"}


@dataclass(slots=True)
class Plane:
    """One image of a series: a file, or one frame of it."""

    header: Header
    frame: int  # -1 where the file holds a single plane
    values: Values
    directions: Array | None = None
    position: Array | None = None

    @property
    def uid(self) -> str:
        """The SOP Instance UID, or the digest of the content where there is none."""
        return self.values.get("SOPInstanceUID") or self.header.digest

    @property
    def single(self) -> bool:
        """Whether its file holds no other plane; an enhanced object may have one frame, too."""
        return self.frame < 0 or len(self.header.frames) == 1


@dataclass
class Volume:
    """Planes in order, as one scan."""

    planes: list[Plane]
    issues: list[Issue] = field(default_factory=list)


@dataclass
class Refused:
    """Planes that make no scan, and why."""

    planes: list[Plane]
    issue: Issue


def planes_of(header: Header) -> list[Plane]:
    """The planes of one file; a file of several frames without places of their own is one plane, of frame -1."""
    frames = [(i, header.values | frame) for i, frame in enumerate(header.frames)] or [(-1, header.values)]
    planes = []
    for index, values in frames:
        plane = Plane(header, index, values)
        orientation, position = values.get("ImageOrientationPatient"), values.get("ImagePositionPatient")
        if isinstance(orientation, list):
            plane.directions = axes(tuple(orientation))
        if plane.directions is not None and isinstance(position, list) and len(position) == 3:
            plane.position = np.asarray(position, float)
        planes.append(plane)
    return planes


def is_localizer(values: Values) -> bool:
    """Whether Image Type calls the image a scout (PS3.3 C.8.2.1.1.1, value 3)."""
    return any(word in ("LOCALIZER", "SCOUT") for word in listed(values.get("ImageType")))


def is_capture(values: Values) -> bool:
    """Whether Image Type calls the image a picture of a screen, as some write them into the classes of their slices."""
    return any(_letters(word) in _CAPTURES for word in listed(values.get("ImageType")))


def is_reformatted(values: Values) -> bool:
    """Whether the image was computed from others in another plane (PS3.3 C.7.6.1.1.2), whose counts it may repeat."""
    kind = listed(values.get("ImageType"))
    return kind[:1] == ["DERIVED"] and any(_letters(word) in _REFORMATTED for word in kind)


def _letters(word: Any) -> str:
    return "".join(character for character in str(word).upper() if character.isalnum())


def frame_count(header: Header) -> int:
    """Number of Frames; 1 where it is absent."""
    count = header.values.get("NumberOfFrames", 1)
    return count if isinstance(count, int) else 1


def listed(value: Any) -> list:
    """The values of an element, however many."""
    return value if isinstance(value, list) else [] if value is None else [value]


def by_words(words: tuple[str, ...]) -> Callable[[Plane], Hashable]:
    """What planes have under these keywords, to group them by."""
    return lambda plane: tuple(_hashable(plane.values.get(word)) for word in words)


def grouped(planes: Iterable[Plane], key: Callable[[Plane], Hashable]) -> dict[Hashable, list[Plane]]:
    """Planes by key, in their order."""
    groups: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in planes:
        groups[key(plane)].append(plane)
    return groups


def _hashable(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value

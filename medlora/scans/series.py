"""One DICOM series → the volumes in it: what must not be mixed is parted, what belongs together is put in order."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import Array, axes, check_stack
from medlora.scans.header import Header, Values

#: Image objects whose single images make up volumes (PS3.4 B.5): CT, MR, PET, and their enhanced and legacy forms.
_SLICES = {
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.130",
}  # fmt: skip
#: Modalities whose images are projections, photographs or captures: each instance is a scan of its own.
PROJECTIONS = {"CR", "DX", "MG", "RG", "RF", "XA", "PX", "IO", "RTIMAGE", "XC", "ES", "GM", "OP", "SM", "US", "IVUS"}

# What may tell volumes at the same positions apart, most telling first.
_SEPARATORS: tuple[tuple[str, ...], ...] = (
    ("TemporalPositionIdentifier",), ("EchoNumbers",), ("EchoTime",), ("DiffusionBValue",),
    ("DiffusionBValue", "DiffusionGradientOrientation"), ("InversionTime",), ("TriggerTime",),
    ("ComplexImageComponent",),
    ("ImageType",), ("ConvolutionKernel",), ("KVP",), ("SliceThickness",), ("AcquisitionNumber",), ("FlipAngle",),
    ("StackID",), ("FrameReferenceTime",), ("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime"),
)  # fmt: skip
# Those that name a kind of image rather than a moment: together they may be needed to tell volumes apart, and where
# they do not vary by position, a stack that mixes them without need is not one volume.
_KINDS = (
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue", "DiffusionGradientOrientation",
    "InversionTime",
    "ComplexImageComponent", "ImageType", "ConvolutionKernel", "KVP", "SliceThickness", "AcquisitionNumber", "StackID",
)  # fmt: skip
_ORDER = ("AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "InstanceNumber")


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
        if isinstance(orientation, list) and isinstance(position, list) and len(position) == 3:
            plane.directions = axes(tuple(orientation))
            located = np.asarray([c if isinstance(c, (int, float)) else np.nan for c in position], float)
            plane.position = located if plane.directions is not None and np.isfinite(located).all() else None
        planes.append(plane)
    return planes


def is_localizer(values: Values) -> bool:
    """Whether Image Type calls the image a scout (PS3.3 C.8.2.1.1.1, value 3)."""
    return any(word in ("LOCALIZER", "SCOUT") for word in _list(values.get("ImageType")))


def assemble(headers: Sequence[Header]) -> list[Volume | Refused]:
    """The volumes of one series.

    Args:
        headers: of the images that share a Series Instance UID, no two of one file or one SOP Instance UID.
    """
    alone, stacked = [], []
    for header in headers:
        planes = planes_of(header)
        stackable = all(plane.position is not None for plane in planes)
        if (
            stackable
            and header.values.get("Modality") not in PROJECTIONS
            and (header.frames or _frame_count(header) == 1)
        ):
            stacked += planes
        else:
            alone.append(planes)
    results: list[Volume | Refused] = _without_place(alone)
    groups = _grouped(stacked, _hard_key)
    localizers = {key for key, planes in groups.items() if is_localizer(planes[0].values)}
    clusters = {key: _by_orientation(planes) for key, planes in groups.items()}
    mixed = sum(len(clusters[key]) for key in clusters if key not in localizers) > 1 and any(
        len(c) > 1 for key, c in clusters.items() if key not in localizers
    )
    for key, parts in clusters.items():
        for part in parts:
            for result in _volumes(part):
                if mixed and key not in localizers and isinstance(result, Volume):
                    result.issues.append(Issue(Code.MixedOrientation))
                results.append(result)
    _check_counts(headers, results)
    return results


def _without_place(alone: list[list[Plane]]) -> list[Volume | Refused]:
    """Images without a position: each its own scan, but for slices, whose order cannot be known."""
    slices = [
        planes
        for planes in alone
        if planes[0].values.get("SOPClassUID") in _SLICES and not is_localizer(planes[0].values)
    ]
    single = [planes for planes in slices if _frame_count(planes[0].header) == 1]
    results: list[Volume | Refused] = []
    if len(single) > 1:
        results.append(Refused(list(itertools.chain(*single)), Issue(Code.UnknownOrder, f"{len(single)} images")))
    for planes in alone:
        if len(single) > 1 and any(planes is other for other in single):
            continue
        flagged = any(planes is other for other in slices) or planes[0].values.get("Modality") in (
            "CT",
            "MR",
            "PT",
            "NM",
        )
        results.append(Volume(planes, [Issue(Code.NoGeometry)] if flagged else []))
    return results


def _frame_count(header: Header) -> int:
    count = header.values.get("NumberOfFrames", 1)
    return count if isinstance(count, int) else 1


def _hard_key(plane: Plane) -> Hashable:
    """What no two planes of one volume may differ in."""
    values = plane.values
    # Frames of different instances meet in one volume only where each instance holds a single one.
    instance = plane.uid if _frame_count(plane.header) > 1 or plane.header.frames[1:] else ""
    spacing = tuple(round(float(s), 4) for s in _list(values.get("PixelSpacing")) if isinstance(s, (int, float)))
    return (
        instance, values.get("Rows"), values.get("Columns"), values.get("SamplesPerPixel", 1), spacing,
        values.get("Modality"), is_localizer(values), values.get("MosaicTiles"),
    )  # fmt: skip


def _by_orientation(planes: list[Plane], tolerance: float = 1e-3) -> list[list[Plane]]:
    """Planes parted by direction cosines that differ by more than ``tolerance``."""
    clusters: list[tuple[Array, list[Plane]]] = []
    for plane in planes:
        assert plane.directions is not None
        for directions, members in clusters:
            if np.max(np.abs(directions - plane.directions)) <= tolerance:
                members.append(plane)
                break
        else:
            clusters.append((plane.directions, [plane]))
    return [members for _, members in clusters]


def _volumes(planes: list[Plane]) -> list[Volume | Refused]:
    """Planes of one orientation and size → volumes whose positions are all different."""
    directions = planes[0].directions
    assert directions is not None
    planes = sorted(planes, key=lambda plane: (float(plane.position @ directions[2]), plane.uid, plane.frame))
    slots = _slots(planes, directions)
    if len(slots) == len(planes):
        parted = _parted_by_kind(planes, directions)
        return [_checked(part, directions) for part in parted]
    planes, copies = _without_copies(slots)
    slots = _slots(planes, directions)
    refused: list[Volume | Refused] = [Refused([copy], Issue(Code.DuplicateFile)) for copy in copies]
    if len(slots) == len(planes):
        return [_checked(planes, directions), *refused]
    groups = _separated(slots)
    if groups is not None:
        return [*(_checked(group, directions) for group in groups), *refused]
    groups = _by_order(slots)
    if groups is not None:
        inferred = [_checked(group, directions) for group in groups]
        for volume in inferred:
            volume.issues.append(Issue(Code.InferredVolumes, f"{len(groups)} volumes"))
        return [*inferred, *refused]
    crowded = sum(len(slot) > 1 for slot in slots)
    return [Refused(planes, Issue(Code.DuplicatePosition, f"{crowded} of {len(slots)} positions")), *refused]


def _slots(planes: list[Plane], directions: Array) -> list[list[Plane]]:
    """Planes, sorted along the normal, gathered by position."""
    along = np.array([plane.position @ directions[2] for plane in planes])
    gaps = np.diff(along)
    wide = gaps[gaps > 1e-4]
    closest = min(0.01, 0.1 * float(np.median(wide))) if len(wide) else 1e-4
    slots = [[planes[0]]]
    for gap, plane in zip(gaps, planes[1:], strict=True):
        if gap > closest:
            slots.append([plane])
        else:
            slots[-1].append(plane)
    return slots


def _without_copies(slots: list[list[Plane]]) -> tuple[list[Plane], list[Plane]]:
    """Planes less those whose stored pixels equal another's at the same position, of the same kind and moment."""
    kept: list[Plane] = []
    copies: list[Plane] = []
    for slot in slots:
        seen: dict[Hashable, Plane] = {}
        for plane in slot:
            # Frames of one file are never copies; a repeated frame is the file's own doing.
            key: Hashable = id(plane)
            if len(slot) > 1 and plane.frame < 0:
                key = (
                    *(_hashable(plane.values.get(word)) for word in (*_KINDS, *_ORDER[:-1])),
                    _raw_pixels(plane.header),
                )
            (copies if key in seen else kept).append(plane)
            seen.setdefault(key, plane)
    return kept, copies


def _raw_pixels(header: Header) -> bytes:
    """SHA-256 of the stored pixel element, undecoded."""
    import hashlib

    if header.pixels is None or header.pixels[1] < 0:
        return str(header.path).encode()
    with header.path.open("rb") as file:
        file.seek(header.pixels[1])
        return hashlib.sha256(file.read(header.pixels[2])).digest()


def _separated(slots: list[list[Plane]]) -> list[list[Plane]] | None:
    """Planes parted by what their headers say, so that no part holds a position twice."""
    planes = list(itertools.chain(*slots))
    place = {id(plane): i for i, slot in enumerate(slots) for plane in slot}
    varying = tuple(word for word in _KINDS if len({_hashable(plane.values.get(word)) for plane in planes}) > 1)
    partial = None
    for words in (*_SEPARATORS, varying):
        parts = list(_grouped(planes, _by_words(words)).values())
        places = [{place[id(plane)] for plane in part} for part in parts]
        if any(len(where) < len(part) for where, part in zip(places, parts, strict=True)) or len(parts) == 1:
            continue
        if all(len(where) == len(slots) for where in places):
            return parts
        # Parts that lie beside each other (a thick and a thin stack), or the last of a cut-short run, come second.
        if partial is None and len(parts) <= max(len(slot) for slot in slots):
            partial = parts
    return partial


def _by_order(slots: list[list[Plane]]) -> list[list[Plane]] | None:
    """The n-th image in time at each position makes the n-th volume, where every position has as many images."""
    if len({len(slot) for slot in slots}) != 1:
        return None
    ordered = []
    for slot in slots:
        keys = [(*(str(plane.values.get(word, "")) for word in _ORDER[:-1]), _number(plane)) for plane in slot]
        if len(set(keys)) < len(keys):
            return None
        ordered.append([plane for _, plane in sorted(zip(keys, slot, strict=True), key=lambda pair: pair[0])])
    return [list(group) for group in zip(*ordered, strict=True)]


def _parted_by_kind(planes: list[Plane], directions: Array) -> list[list[Plane]]:
    """An uneven stack that falls into even ones of different kinds (thick and thin, two kernels) is those."""
    if len(planes) < 4 or not _uneven(planes, directions):
        return [planes]
    for word in _KINDS:
        parts = list(_grouped(planes, _by_words((word,))).values())
        if len(parts) > 1 and all(len(part) > 1 and not _uneven(part, directions) for part in parts):
            return parts
    return [planes]


def _uneven(planes: list[Plane], directions: Array) -> bool:
    _, issues = check_stack(_positions(planes), directions)
    return any(issue.code in (Code.NonUniformSpacing, Code.UnalignedSlices) for issue in issues)


def _checked(planes: list[Plane], directions: Array) -> Volume:
    if len(planes) == 1:
        return Volume(planes)
    return Volume(planes, check_stack(_positions(planes), directions)[1])


def _check_counts(headers: Sequence[Header], results: Iterable[Volume | Refused]) -> None:
    """Slices that no gap betrays: the first or last ones, by the count that the header gives or by instance numbers."""
    volumes = [r for r in results if isinstance(r, Volume) and len(r.planes) > 1 and r.planes[0].frame < 0]
    if not volumes or any(any(i.code is Code.MissingSlices for i in volume.issues) for volume in volumes):
        return
    numbers = sorted(n for header in headers if isinstance(n := header.values.get("InstanceNumber"), int))
    expected = {header.values.get("ImagesInAcquisition") for header in headers}
    slices = {header.values.get("NumberOfSlices") for header in headers}
    detail = ""
    if (
        len(volumes) == 1
        and len(slices) == 1
        and isinstance(total := slices.pop(), int)
        and len(volumes[0].planes) < total
    ):
        detail = f"{total - len(volumes[0].planes)} of {total}, by Number of Slices"
    elif len(expected) == 1 and isinstance(total := expected.pop(), int) and len(headers) < total:
        detail = f"{total - len(headers)} of {total}, by Images in Acquisition"
    elif (
        len(numbers) == len(headers) > 2
        and numbers[0] > 1
        and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    ):
        detail = f"the first {numbers[0] - 1}, by Instance Number"
    if detail:
        for volume in volumes:
            volume.issues.append(Issue(Code.MissingSlices, detail))


# --- small things ---


def _positions(planes: list[Plane]) -> Array:
    return np.array([plane.position for plane in planes])


def _number(plane: Plane) -> int:
    number = plane.values.get("InstanceNumber", 0)
    return plane.frame if plane.frame >= 0 else number if isinstance(number, int) else 0


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def _hashable(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value


def _by_words(words: tuple[str, ...]) -> Callable[[Plane], Hashable]:
    return lambda plane: tuple(_hashable(plane.values.get(word)) for word in words)


def _grouped(planes: Iterable[Plane], key: Callable[[Plane], Hashable]) -> dict[Hashable, list[Plane]]:
    groups: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in planes:
        groups[key(plane)].append(plane)
    return groups

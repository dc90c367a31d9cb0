"""One DICOM series → the volumes in it: what must not be mixed is parted, what belongs together is put in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.elements import ULTRASOUND_VOLUME
from medlora.scans.geometry import Array
from medlora.scans.header import Header, Values
from medlora.scans.kinds import is_derived, is_secondary, is_unplaced_capture
from medlora.scans.plane import (
    Plane,
    Refused,
    Volume,
    frame_count,
    grouped,
    is_capture,
    is_localizer,
    is_reformatted,
    listed,
    planes_of,
)
from medlora.scans.runs import say_of_files
from medlora.scans.volumes import volumes_of

#: Image objects whose single images make up volumes (PS3.4 B.5): CT, MR, PET, and their enhanced and legacy forms.
SLICES = {
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.130",
}  # fmt: skip
# What Image Type calls a projection of the slices (PS3.3 C.8.13.3.1.1), which may lie among them.
_PROJECTED = ("PROJECTION IMAGE", "MIP", "MINIP")
# The number of times of a run, the element that tells one time from another, and what they are called (PS3.3 C.8.3.1,
# C.8.9.1).
_NUMBERS_OF_TIMES = (
    ("NumberOfTemporalPositions", "TemporalPositionIdentifier", "temporal positions"),
    ("NumberOfTimeSlices", "FrameReferenceTime", "time slices"),
)


def assemble(
    headers: Sequence[Header], acquired: Sequence[int] = (), numbered_on: bool = False
) -> list[Volume | Refused]:
    """The volumes of one series.

    Args:
        headers: of the images that share a Series Instance UID, no two of one file or one SOP Instance UID.
        acquired: how many images, copies not counted, there are of the acquisition in all series of the study; in each
            way of counting those that were derived from others.
        numbered_on: whether instance numbers go on from those of other series of the study.
    """
    alone, stacked = [], []
    for header in headers:
        planes = planes_of(header)
        placed = all(plane.position is not None for plane in planes)
        if placed and (header.frames or frame_count(header) == 1):
            stacked += planes
        else:
            alone.append(planes)
    results = _without_place(alone)
    mixed = len(_by_orientation([plane for plane in stacked if not is_localizer(plane.values)])) > 1
    for group in grouped(stacked, _hard_key).values():
        for part in itertools.chain.from_iterable(map(_by_orientation, _by_spacing(group))):
            if part[0].values.get("Modality") == "CT" and is_localizer(part[0].values):
                found: list[Volume | Refused] = [Volume([plane]) for plane in part]  # projections (PS3.3 C.8.2.1.1.1)
            else:
                found = volumes_of(part)
            for result in found:
                if mixed and isinstance(result, Volume) and not is_localizer(part[0].values):
                    result.issues.append(Issue(Code.MixedOrientation))
            results += found
    _check_counts(headers, results, acquired, numbered_on)
    _check_places(results, alone)
    _check_times(headers, results)
    _check_concatenations(headers, results)
    say_of_files(result for result in results if isinstance(result, Volume))
    return results


def _without_place(alone: list[list[Plane]]) -> list[Volume | Refused]:
    """Images without a position: each its own scan, but for slices, whose order cannot be known."""
    skewed = [planes for planes in alone if _is_skewed(planes[0])]
    alone = [planes for planes in alone if not _is_skewed(planes[0])]
    loose = [planes for planes in alone if _is_slice(planes[0])]
    results: list[Volume | Refused] = []
    if skewed:
        together = list(itertools.chain(*skewed))
        results.append(Refused(together, Issue(Code.InvalidOrientation, f"{len(together)} images")))
    if len(loose) > 1:
        together = sorted(itertools.chain(*loose), key=lambda plane: plane.values.get("InstanceNumber", 0))
        results.append(Refused(together, Issue(Code.UnknownOrder, f"{len(loose)} images")))
        alone = [planes for planes in alone if not _is_slice(planes[0])]
    for planes in alone:
        values = planes[0].values
        # One position for a file of several frames is that of one of them.
        volumetric = (
            is_volumetric(values) or values.get("SOPClassUID") == ULTRASOUND_VOLUME or "ImagePositionPatient" in values
        )
        results.append(Volume(planes, [Issue(Code.NoGeometry)] if volumetric else []))
    return results


def is_volumetric(values: Values) -> bool:
    """Whether an image of this modality should have a place: not the projections of nuclear medicine, nor captures; but
    secondary captures in which software keeps slices."""
    if is_unplaced_capture(values) and not _keeps_slices(values):
        return False
    if values.get("Modality") == "NM":
        return any("RECON" in str(word) for word in listed(values.get("ImageType")))
    return values.get("Modality") in ("CT", "MR", "PT", "RTDOSE")


def _keeps_slices(values: Values) -> bool:
    """Whether a secondary capture has several frames of more than 8 bits, more than a screen shows."""
    frames, bits = values.get("NumberOfFrames", 1), values.get("BitsStored", 8)
    rendered = is_capture(values) or any(word in (*_PROJECTED, "VOLREN") for word in listed(values.get("ImageType")))
    grey = str(values.get("PhotometricInterpretation")).startswith("MONOCHROME") and not rendered
    return grey and isinstance(frames, int) and frames > 1 and isinstance(bits, int) and bits > 8


def _is_slice(plane: Plane) -> bool:
    """Whether the image is one of those that only together make a volume."""
    values = plane.values
    sliced = frame_count(plane.header) == 1 and values.get("SOPClassUID") in SLICES
    return sliced and not is_localizer(values) and not is_unplaced_capture(values)


def _is_skewed(plane: Plane) -> bool:
    """Whether a slice gives an orientation that is none."""
    return (
        _is_slice(plane) and plane.directions is None and len(listed(plane.values.get("ImageOrientationPatient"))) == 6
    )


def _hard_key(plane: Plane) -> Hashable:
    """What no two planes of one volume may differ in."""
    values = plane.values
    # Frames of different instances meet in one volume only where each instance holds a single one, or is a part of
    # one concatenation (PS3.3 C.7.6.16.1.1).
    several = frame_count(plane.header) > 1 or len(plane.header.frames) > 1
    instance = values.get("ConcatenationUID") or (plane.uid if several else "")
    return (
        instance, values.get("Rows"), values.get("Columns"), values.get("SamplesPerPixel", 1),
        values.get("Modality"), is_localizer(values), values.get("MosaicTiles"),
        values.get("PhotometricInterpretation") == "PALETTE COLOR", len(_spacing(plane)),
        any(word in _PROJECTED for word in listed(values.get("ImageType"))),
    )  # fmt: skip


def _spacing(plane: Plane) -> tuple[float, ...]:
    spacing = listed(plane.values.get("PixelSpacing"))
    return tuple(float(mm) for mm in spacing if isinstance(mm, (int, float)) and mm > 0)


def _by_spacing(planes: list[Plane]) -> list[list[Plane]]:
    """Planes parted by Pixel Spacings that differ by more than a thousandth, which rounding does not explain."""
    return _parted(planes, lambda plane: np.log(_spacing(plane)))


def _by_orientation(planes: list[Plane]) -> list[list[Plane]]:
    """Planes parted by direction cosines that differ by more than a thousandth."""
    return _parted(planes, lambda plane: plane.directions)


def _parted(planes: list[Plane], numbers: Callable[[Plane], Array | None]) -> list[list[Plane]]:
    """Planes whose ``numbers`` are those of the first of their part, within a thousandth."""
    parts: list[tuple[Array, list[Plane]]] = []
    for plane in planes:
        own = numbers(plane)
        assert own is not None
        for first, members in parts:
            if np.max(np.abs(first - own), initial=0.0) <= 1e-3:
                members.append(plane)
                break
        else:
            parts.append((own, [plane]))
    return [members for _, members in parts]


def _check_places(results: Iterable[Volume | Refused], alone: list[list[Plane]]) -> None:
    """Slices without a position are lost to the stack that the others make."""
    lost = sum(_is_slice(planes[0]) for planes in alone)
    if not lost:
        return
    for volume in results:
        if not isinstance(volume, Volume) or len(volume.planes) < 2 or not volume.planes[0].single:
            continue
        if not any(issue.code is Code.MissingSlices for issue in volume.issues):
            volume.issues.append(Issue(Code.MissingSlices, f"{lost} without a position"))


def _check_counts(
    headers: Sequence[Header], results: Iterable[Volume | Refused], acquired: Sequence[int], numbered_on: bool
) -> None:
    """Slices that no gap betrays: the first or last ones, by the count that the header gives or by instance numbers; or
    all but one, by the count."""
    found = [r for r in results if isinstance(r, Volume) and r.planes[0].single]
    stacks = [volume for volume in found if len(volume.planes) > 1]
    volumes = stacks or [volume for volume in found if len(found) == 1 and _is_counted(volume.planes[0])]
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
    elif (
        len(expected) == 1
        and isinstance(total := expected.pop(), int)
        and total > 0
        and not _repeat_counts(headers, total)
        # Of several acquisitions of one number each has as many.
        and not any(count >= total and count % total == 0 for count in acquired)
        and _falls_short(len(headers), total, numbers)
    ):
        detail = f"{total - len(headers)} of {total}, by Images in Acquisition"
    elif stacks and not numbered_on and _begins_late(numbers, len(headers)):
        detail = f"the first {numbers[0] - 1}, by Instance Number"
    elif len(stacks) == 1 and len(stacks[0].planes) == len(headers):
        detail = _skipped(stacks[0].planes)
    if detail:
        for volume in volumes:
            volume.issues.append(Issue(Code.MissingSlices, detail))


def _repeat_counts(headers: Sequence[Header], total: int) -> bool:
    """Whether the count may be that of other images, from which these were computed after the examination; of derived
    images that are primary, as the scanner makes them, it is one they come nowhere near."""
    few = 2 * len(headers) < total
    return all(
        is_reformatted(header.values) or is_secondary(header.values) or (few and is_derived(header.values))
        for header in headers
    )


def _is_counted(plane: Plane) -> bool:
    """Whether counts in the header of a slice by itself are of its own series: what was computed from other images may
    repeat those."""
    return _is_slice(plane) and plane.position is not None and not is_derived(plane.values)


def _skipped(planes: list[Plane]) -> str:
    """Every second slice lost, or two of three, leaves no uneven gap: but instance numbers that rise in the same even
    steps, and slices that lie further apart than they are thick.

    Returns:
        what gives it away; empty where nothing does.
    """
    numbers = [plane.values.get("InstanceNumber") for plane in planes]
    if not all(isinstance(number, int) for number in numbers):
        return ""
    rises = set(np.diff(np.array(numbers)))
    rise = abs(int(next(iter(rises))))
    first, last = planes[0], planes[-1]
    assert first.directions is not None and first.position is not None and last.position is not None
    step = abs(float((last.position - first.position) @ first.directions[2])) / (len(planes) - 1)
    said = [first.values.get(word) for word in ("SpacingBetweenSlices", "SliceThickness")]
    usual = next((abs(mm) for mm in said if isinstance(mm, (int, float)) and mm), step)
    # Two slices have but one step: there it must be the one that the numbers foretell.
    believed = step > 1.5 * usual if len(planes) > 2 else abs(step - rise * usual) < 0.01 * step
    if len(rises) == 1 and rise > 1 and believed:
        return f"{rise - 1} of {rise}, by Instance Number and a step of {step:.4g} mm where {usual:.4g} is said"
    return ""


def _check_concatenations(headers: Sequence[Header], results: Iterable[Volume | Refused]) -> None:
    """Parts of a concatenation that are not there, by its own count or by their numbers (PS3.3 C.7.6.16.2.2.4).

    A part may hold several volumes, and a volume lie in several parts, so the parts are counted over all of them.
    """
    parts: dict[str, dict[str, Any]] = {}
    totals: dict[str, int] = {}
    for values in (header.values for header in headers):
        uid, number = values.get("ConcatenationUID"), values.get("InConcatenationNumber")
        if not isinstance(uid, str):
            continue
        parts.setdefault(uid, {})[str(values.get("SOPInstanceUID"))] = number
        said = [n for n in (number, values.get("InConcatenationTotalNumber")) if isinstance(n, int)]
        totals[uid] = max(totals.get(uid, 0), *said, 0)
    for volume in results:
        uid = volume.planes[0].header.values.get("ConcatenationUID")
        if not isinstance(volume, Volume) or uid not in parts:
            continue
        numbers = list(parts[uid].values())
        there = len(set(numbers)) if None not in numbers else len(numbers)
        if there < totals[uid]:
            detail = f"{totals[uid] - there} of the {totals[uid]} instances of the concatenation"
            volume.issues.append(Issue(Code.MissingSlices, detail))


def _falls_short(count: int, total: int, numbers: list[int]) -> bool:
    """Whether images of an acquisition are not there.

    An acquisition reconstructed twice (soft and sharp) counts both series: where this one is numbered through from 1
    and the total is a multiple of it, nothing is missing.
    """
    several = total % count == 0 and numbers == list(range(1, count + 1))
    return count < total and not several


def _check_times(headers: Sequence[Header], results: Iterable[Volume | Refused]) -> None:
    """Whole volumes of a run over time that are not there, by the number of times that the header gives."""
    volumes = [result for result in results if isinstance(result, Volume)]
    for number, word, name in _NUMBERS_OF_TIMES:
        said = {header.values.get(number) for header in headers}
        there = {plane.values.get(word) for volume in volumes for plane in volume.planes}
        total = said.pop() if len(said) == 1 else None
        if isinstance(total, int) and None not in there and 1 < len(there) < total:
            if all(is_derived(h.values) for h in headers) and there == set(range(total - len(there) + 1, total + 1)):
                continue  # subtractions have no time of their mask, the first ones
            for volume in volumes:
                detail = f"{total - len(there)} of {total} {name}, each as a whole"
                volume.issues.append(Issue(Code.MissingSlices, detail))


def _begins_late(numbers: list[int], count: int) -> bool:
    """Whether instance numbers rise without a gap from a number a little above 1.

    Some scanners number the images of a study or a dynamic run through; their numbers begin anywhere.
    """
    through = len(numbers) == count > 2 and numbers == list(range(numbers[0], numbers[0] + count))
    return through and 1 < numbers[0] <= 1 + count // 2

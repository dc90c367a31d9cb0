"""Planes of one size and orientation → volumes, no two planes of which lie at one position."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.frames import DIMENSIONS
from medlora.scans.geometry import Array, check_stack
from medlora.scans.header import stored_pixels
from medlora.scans.plane import Plane, Refused, Volume, by_words, grouped
from medlora.scans.runs import say_short

# What names a kind of image, or a volume of a run: may tell images at the same position apart, most telling first.
_KINDS = (
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue", "SequenceName", "InversionTime",
    "TriggerTime", "ComplexImageComponent", "ImageType", "ConvolutionKernel", "KVP", "SliceThickness",
    "AcquisitionNumber", "FlipAngle", "StackID", "FrameOfReferenceUID", "DiffusionGradientOrientation",
)  # fmt: skip
_DIFFUSION = ("DiffusionBValue", "DiffusionGradientOrientation")
# Times, and dimensions of a file, do so only where all slices of a volume share them.
_MOMENTS = (
    ("TemporalPositionTimeOffset",), ("FrameReferenceTime",), ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"), *((dimension,) for dimension in DIMENSIONS),
)  # fmt: skip
_REFERENCE = (("FrameReferenceTime",),)
_TIMES = ("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime")
_SCALES = ("RescaleSlope", "RescaleIntercept")
# Slices that differ in these make no clean volume, even where each position is there once.
_NEVER_MIXED = (
    "FrameOfReferenceUID", "EchoNumbers", "DiffusionBValue", "ConvolutionKernel", "ComplexImageComponent", "Units",
    "RescaleType", "TemporalPositionIdentifier", "DiffusionGradientOrientation", "SequenceName", "ImageType",
)  # fmt: skip
# Nor do those in which these numbers differ by more than rounding; but an inversion time may be fitted to each slice.
_NEVER_APART = ("EchoTime", "InversionTime", "FlipAngle", "KVP", "SliceThickness")
_FITTED = ("InversionTime",)
# Counters of the acquisition: they rise from rotation to rotation of one volume as well, so a gap may be a loss.
_COUNTERS = ("AcquisitionNumber", "TriggerTime")


def volumes_of(planes: list[Plane]) -> list[Volume | Refused]:
    """Planes of one orientation and size → volumes whose positions are all different."""
    directions = planes[0].directions
    assert directions is not None
    planes = sorted(planes, key=lambda plane: (float(plane.position @ directions[2]), plane.uid, plane.frame))
    slots = _slots(planes, directions)
    groups = [planes] if len(slots) == len(planes) else _separated(slots, whole=True)
    if groups is not None:
        return [*_checked_parts(groups, directions)]
    planes, copies = _without_copies(slots)
    slots = _slots(planes, directions)
    results: list[Volume | Refused] = [Refused([copy], Issue(Code.DuplicateFile)) for copy in copies]
    groups = [planes] if len(slots) == len(planes) else _separated(slots, whole=True) if copies else None
    if groups is not None:
        return [*_checked_parts(groups, directions), *results]
    groups, ordered = _separated(slots, whole=False), _by_order(slots)
    # Where each position is there equally often, more parts than that are pieces: slabs with trigger times of their own
    if groups is not None and (ordered is None or len(groups) <= len(ordered)):
        return [*say_short(_checked_parts(groups, directions)), *results]
    if ordered is not None:
        inferred = _checked_parts(ordered, directions)
        for volume in inferred if not _are_foretold(ordered) else ():
            volume.issues.append(Issue(Code.InferredVolumes, f"{len(ordered)} volumes"))
        return [*inferred, *results]
    remaining, copies = _without_copies(slots, times=False)
    if len(remaining) == len(slots):
        results = [*(Refused([copy], Issue(Code.DuplicateFile)) for copy in copies), *results]
        return [*_checked_parts([remaining], directions), *results]
    crowded = sum(len(slot) > 1 for slot in slots)
    return [Refused(planes, Issue(Code.DuplicatePosition, f"{crowded} of {len(slots)} positions")), *results]


def _checked_parts(groups: list[list[Plane]], directions: Array) -> list[Volume]:
    """A volume of each group, no two planes of which lie at one position, or of each even stack woven into it.

    Of several groups two slices make no stack, whose step is even whatever it is: there they are what is left of one.
    """
    found: list[Volume] = []
    for group in groups:
        parts = _parted_by_kind(group, directions)
        parts = [group] if len(groups) > 1 and min(map(len, parts)) == 2 else parts
        found += (_checked(part, directions) for part in parts)
    return found


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


def _without_copies(slots: list[list[Plane]], times: bool = True) -> tuple[list[Plane], list[Plane]]:
    """Planes less those whose stored pixels equal another's at the same position, of the same kind.

    Args:
        slots: planes by position.
        times: the moments must be the same, too: in a run over time, empty slices may well be equal.
    """
    kept: list[Plane] = []
    copies: list[Plane] = []
    for slot in slots:
        seen: dict[Hashable, Plane] = {}
        for plane in slot:
            # Frames of one file are never copies; a repeated frame is the file's own doing.
            key: Hashable = id(plane)
            if len(slot) > 1 and plane.single:
                words = (*_KINDS, *_SCALES, *(_TIMES if times else ()))
                key = (by_words(words)(plane), stored_pixels(plane.header) or id(plane))
            (copies if key in seen else kept).append(plane)
            seen.setdefault(key, plane)
    return kept, copies


def _separated(slots: list[list[Plane]], whole: bool) -> list[list[Plane]] | None:
    """Planes parted by what their headers say, so that no part holds a position twice.

    Args:
        slots: planes by position.
        whole: each part must hold every position. Else parts may lie beside each other (a thick and a thin stack) or
            break off (a run cut short), and times, which may differ between the slices of one volume, part nothing
            but the frames of PET, whose reference time each frame has in common (PS3.3 C.8.9.4.1.5).
    """
    planes = list(itertools.chain(*slots))
    of_pet = planes[0].values.get("Modality") == "PT"
    place = {id(plane): i for i, slot in enumerate(slots) for plane in slot}
    varying = tuple(word for word in _KINDS if len(grouped(planes, by_words((word,)))) > 1)
    times = _MOMENTS if whole else _REFERENCE if of_pet else ()
    separators = (*((word,) for word in _KINDS), _DIFFUSION, *times, varying)
    for words in itertools.chain(separators, _together(varying, slots) if whole else ()):
        parts = list(grouped(planes, by_words(words)).values())
        places = [{place[id(plane)] for plane in part} for part in parts]
        if len(parts) == 1 or any(len(where) < len(part) for where, part in zip(places, parts, strict=True)):
            continue
        if all(len(where) == len(slots) for where in places) if whole else min(map(len, parts)) > 1:
            return parts
    return None


def _together(kinds: tuple[str, ...], slots: list[list[Plane]]) -> Iterator[tuple[str, ...]]:
    """What tells volumes apart only together: kinds, and a time or all dimensions of a file but those of space (water
    and fat over time, velocity and phase). Looked for only where it is needed."""
    telling = tuple(word for word in kinds if _tells(word, slots))  # others may rise from slice to slice
    yield telling
    yield *kinds, *(word for word in DIMENSIONS if _tells(word, slots))
    for words in (telling, *((word,) for word in telling)):
        yield from ((*words, *moment) for moment in _MOMENTS)


def _tells(word: str, slots: list[list[Plane]]) -> bool:
    """Whether images at one position differ in what this element says."""
    return any(len(grouped(slot, by_words((word,)))) > 1 for slot in slots)


def _by_order(slots: list[list[Plane]]) -> list[list[Plane]] | None:
    """The n-th image in time at each position makes the n-th volume, where every position has as many images."""
    if len({len(slot) for slot in slots}) != 1:
        return None
    by_number = _by_number(slots)
    if by_number is not None:
        return by_number
    ordered = []
    for slot in slots:
        keys = [_moment(plane) for plane in slot]
        if len(set(keys)) < len(keys):
            return None
        ordered.append([plane for _, plane in sorted(zip(keys, slot, strict=True), key=lambda pair: pair[0])])
    return [list(group) for group in zip(*ordered, strict=True)]


def _are_foretold(groups: list[list[Plane]]) -> bool:
    """Whether the header gives the number of these volumes: of a run over time, each of which is numbered through
    (GE's); of phases of the heart (PS3.3 C.8.3.1), which follow each other in time at each position."""
    said, phases = (
        {plane.values.get(word) for group in groups for plane in group}
        for word in ("NumberOfTemporalPositions", "CardiacNumberOfImages")
    )
    if said == {len(groups)} and all(_numbered_through(group) for group in groups):
        return True
    return phases == {len(groups)} and all(_rise(slot) for slot in zip(*groups, strict=True))


def _rise(slot: tuple[Plane, ...]) -> bool:
    """Whether each image at one position was triggered later than the one before, and has a higher number."""
    triggers = [plane.values.get("TriggerTime") for plane in slot]
    times = [time for time in triggers if isinstance(time, (int, float))]
    numbers = [n for plane in slot if isinstance(n := plane.values.get("InstanceNumber"), int)]
    later = len(times) == len(slot) and all(a < b for a, b in itertools.pairwise(times))
    return later and (not numbers or (len(numbers) == len(slot) and all(a < b for a, b in itertools.pairwise(numbers))))


def _by_number(slots: list[list[Plane]]) -> list[list[Plane]] | None:
    """The volumes of a series whose instance numbers run through one after the other."""
    planes = list(itertools.chain(*slots))
    found = [plane.values.get("InstanceNumber") for plane in planes]
    number = {id(plane): n for plane, n in zip(planes, found, strict=True) if isinstance(n, int)}
    if not all(plane.single for plane in slots[0]) or len(set(number.values())) < len(planes):
        return None
    ordered = [sorted(slot, key=lambda plane: number[id(plane)]) for slot in slots]
    groups = [list(group) for group in zip(*ordered, strict=True)]
    spans = [[number[id(plane)] for plane in group] for group in groups]
    return groups if all(max(span) - min(span) < len(span) for span in spans) else None


def _moment(plane: Plane) -> tuple:
    """When the image was made, as far as the header says: to sort by."""
    values = plane.values
    times = tuple(str(values.get(word, "")) for word in _TIMES)
    acquisition, trigger, number = (
        value if isinstance(value := values.get(word, 0), (int, float)) else 0
        for word in ("AcquisitionNumber", "TriggerTime", "InstanceNumber")
    )
    before = values.get("ConcatenationFrameOffsetNumber", 0)  # frames in the files before (PS3.3 C.7.6.16.2.2.4)
    frame = plane.frame + (before if isinstance(before, int) else 0)
    return acquisition, trigger, times, frame if plane.frame >= 0 else number


def _parted_by_kind(planes: list[Plane], directions: Array) -> list[list[Plane]]:
    """An uneven stack that falls into even ones of different kinds (thick and thin, two kernels) is those.

    So is an even one of two acquisitions half a step apart, where numbers or the slices' thickness give them away.
    """
    if len(planes) <= 3:
        return [planes]
    issues = _issues_of_uneven(planes, directions)
    if not issues:
        return _woven(planes, directions) or [planes]
    for word in _KINDS:
        parts = list(grouped(planes, by_words((word,))).values())
        if len(parts) < 2 or not all(len(part) > 1 and not _issues_of_uneven(part, directions) for part in parts):
            continue
        return _slabs(parts, directions) if word in _COUNTERS else parts
    return [planes]


def _slabs(parts: list[list[Plane]], directions: Array) -> list[list[Plane]]:
    """Of even stacks side by side, of one step, those as one that are rotations of one: that follow each other closely,
    or lack a slice between them, or as many as instance numbers skip; or, without numbers, half of what the shorter
    holds."""
    steps = [_step(part, directions) for part in parts]
    if max(steps) - min(steps) > 0.02 * max(steps):
        # Two slices some steps apart may have lost those between them; they are no stack of a step of its own.
        if any(len(part) == 2 and _is_multiple(step, min(steps)) for part, step in zip(parts, steps, strict=True)):
            return [sorted(itertools.chain(*parts), key=lambda plane: float(plane.position @ directions[2]))]
        return parts
    found: list[list[Plane]] = []
    for after in sorted(parts, key=lambda part: float(part[0].position @ directions[2])):
        if not found:
            found.append(list(after))
            continue
        before = found[-1]
        end, start = _positions([before[-1], after[0]]) @ directions[2]
        gap = float(start - end) / max(steps)
        if gap <= 0:
            return parts
        numbers = [[plane.values.get("InstanceNumber") for plane in part] for part in (before, after)]
        known = [[number for number in part if isinstance(number, int)] for part in numbers]
        on_grid = abs(gap - round(gap)) < 0.1
        if 0.7 < gap < 1.4:
            lost = True
        elif known == numbers:
            skipped = min(abs(a - b) for a, b in itertools.product(*known))
            lost = on_grid and (round(gap) == 2 or (skipped > 1 and abs(skipped - round(gap)) <= 1))
        else:
            lost = on_grid and round(gap) - 1 <= min(len(before), len(after)) // 2
        if lost:
            before += after
        else:
            found.append(list(after))
    return found


def _is_multiple(step: float, of: float) -> bool:
    times = round(step / of)
    return times > 1 and abs(step - times * of) < 0.1 * of


def _woven(planes: list[Plane], directions: Array) -> list[list[Plane]] | None:
    """The even stacks that lie within each other in this even one: where instance numbers give them away, or slices far
    thicker than the step, of which each stack has numbers of its own."""
    twice, step = _numbered_twice(planes), _step(planes, directions)
    thick = planes[0].values.get("SliceThickness")
    thick = isinstance(thick, (int, float)) and thick > 1.5 * step and not twice
    for word in _KINDS if twice or thick else ():
        parts = list(grouped(planes, by_words((word,))).values())
        if len(parts) < 2 or not all(
            len(part) > 1 and not _numbered_twice(part) and not _issues_of_uneven(part, directions) for part in parts
        ):
            continue
        ends = [(_positions(part) @ directions[2])[[0, -1]] for part in parts]
        if max(start for start, _ in ends) >= min(end for _, end in ends):  # slabs lie side by side
            continue
        if twice or all(_numbered_through(part) for part in parts):
            return parts
    return None


def _step(planes: list[Plane], directions: Array) -> float:
    along = _positions(planes) @ directions[2]
    return float(along[-1] - along[0]) / (len(planes) - 1)


def _numbered_through(planes: list[Plane]) -> bool:
    numbers = [plane.values.get("InstanceNumber") for plane in planes]
    found = [number for number in numbers if isinstance(number, int)]
    return len(found) == len(planes) and max(found) - min(found) == len(found) - 1


def _numbered_twice(planes: list[Plane]) -> bool:
    numbers = [plane.values.get("InstanceNumber" if plane.frame < 0 else "InStackPositionNumber") for plane in planes]
    return None not in numbers and len(set(numbers)) < len(numbers)


def _issues_of_uneven(planes: list[Plane], directions: Array) -> list[Issue]:
    """What is odd about a stack whose steps are not all the same; nothing where they are."""
    _, issues = check_stack(_positions(planes), directions)
    return issues if any(issue.code in (Code.NonUniformSpacing, Code.UnalignedSlices) for issue in issues) else []


def _checked(planes: list[Plane], directions: Array) -> Volume:
    """The volume, with what is odd about it."""
    if len(planes) == 1:
        return Volume(planes)
    issues = check_stack(_positions(planes), directions)[1]
    step, thick = _step(planes, directions), planes[0].values.get("SliceThickness")
    if isinstance(thick, (int, float)) and step < 0.02 * thick:
        issues.append(Issue(Code.ConflictingGeometry, f"slices {thick:g} mm thick, {step:.2g} mm apart"))
    mixed = [word for word in _NEVER_MIXED if len(grouped(planes, by_words((word,)))) > 1]
    mixed += [word for word in _NEVER_APART if _differ(planes, word)]
    if mixed:
        issues.append(Issue(Code.MixedSlices, ", ".join(mixed)))
    return Volume(planes, issues)


def _differ(planes: list[Plane], word: str) -> bool:
    numbers = {number for plane in planes if isinstance(number := plane.values.get(word), (int, float))}
    if word in _FITTED and len(numbers) > max(2, len(planes) // 2):
        return False
    return bool(numbers) and max(numbers) - min(numbers) > 0.01 * abs(max(numbers))


def _positions(planes: list[Plane]) -> Array:
    return np.array([plane.position for plane in planes])

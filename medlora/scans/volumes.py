"""Planes of one size and orientation → volumes, no two planes of which lie at one position."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.copies import cells_of
from medlora.scans.frames import DIMENSIONS
from medlora.scans.geometry import Array, check_stack
from medlora.scans.header import stored_pixels
from medlora.scans.mixing import SAID, mixed_in
from medlora.scans.passes import COUNTERS, REFERENCE, are_pieces, in_order, passes_over, say_joined
from medlora.scans.plane import Plane, Refused, Volume, by_words, grouped
from medlora.scans.runs import say_short
from medlora.scans.stacks import KINDS, numbered_through, parted, signs_of_weaving

_DIFFUSION = ("DiffusionBValue", "DiffusionGradientOrientation")
# Times, and dimensions of a file, do so only where all slices of a volume share them.
_MOMENTS = (
    ("TemporalPositionTimeOffset",), ("FrameReferenceTime",), ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"), *((dimension,) for dimension in DIMENSIONS),
)  # fmt: skip
_TIMES = ("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime")
_SCALES = ("RescaleSlope", "RescaleIntercept")


def volumes_of(planes: list[Plane]) -> list[Volume | Refused]:
    """Planes of one orientation and size → volumes whose positions are all different."""
    directions = planes[0].directions
    assert directions is not None
    planes = sorted(planes, key=lambda plane: (float(plane.position @ directions[2]), plane.uid, plane.frame))
    slots = _slots(planes, directions)
    # Series of several numbers may be one that was sent again under another.
    several = len(slots) < len(planes) and "SeriesNumber" in _kinds(planes)
    groups = [planes] if len(slots) == len(planes) else None if several else _separated(slots)
    if groups is not None:
        return [*_checked_parts(groups, directions)]
    rest, copies = _without_copies(slots)
    fewer = _slots(rest, directions)
    if _is_even(slots) and not _is_even(fewer) and _by_order(slots) is not None:
        copies = []  # they are empty slices of a run that says no times
    else:
        planes, slots = rest, fewer
    results: list[Volume | Refused] = [Refused([copy], Issue(Code.DuplicateFile)) for copy in copies]
    groups = [planes] if len(slots) == len(planes) else _separated(slots) if copies or several else None
    if groups is not None:
        return [*_checked_parts(groups, directions), *results]
    groups, ordered = _beside(slots), _by_order(slots)
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
    passed = _in_passes(slots, directions)
    if passed is not None:
        return [*passed, *results]
    crowded = sum(len(slot) > 1 for slot in slots)
    return [Refused(planes, Issue(Code.DuplicatePosition, f"{crowded} of {len(slots)} positions")), *results]


def _in_passes(slots: list[list[Plane]], directions: Array) -> list[Volume] | None:
    """The volumes of a series acquired in pieces, some of which were acquired again."""
    planes = [*itertools.chain(*slots)]
    kinds = [word for word in _kinds(planes) if word not in COUNTERS and _tells(word, slots)]
    found = passes_over(slots, kinds, _is_pet(planes))
    if found is None:
        return None
    counters, passes, single = found
    volumes = say_short(_checked_parts([*passes, *single], directions))
    joined = {id(plane) for plane in itertools.chain(*passes)}
    say_joined([volume for volume in volumes if id(volume.planes[0]) in joined], counters, directions, _is_pet(planes))
    return volumes


def _checked_parts(groups: list[list[Plane]], directions: Array) -> list[Volume]:
    """A volume of each group, no two planes of which lie at one position, or of each even stack woven into it.

    Of several groups two slices make no stack, whose step is even whatever it is: there they are what is left of one.
    """
    found: list[Volume] = []
    for group in groups:
        parts = parted(group, directions)
        parts = [Volume(group)] if len(groups) > 1 and min(len(part.planes) for part in parts) == 2 else parts
        found += (_checked(part, directions) for part in parts)
    return found


def _slots(planes: list[Plane], directions: Array) -> list[list[Plane]]:
    """Planes, sorted along the normal, gathered by position."""
    along = np.array([plane.position @ directions[2] for plane in planes])
    gaps = np.diff(along)
    # Positions of one slice may differ by rounding from volume to volume: steps are what is no such trifle.
    largest = np.sort(gaps)[-2:]  # one may be a hole
    wide = gaps[gaps > max(1e-4, 0.02 * float(largest[0]) if len(largest) > 1 else 0.0)]
    closest = min(0.01, 0.1 * float(np.median(wide))) if len(wide) else 1e-4
    slots = [[planes[0]]]
    for gap, plane in zip(gaps, planes[1:], strict=True):
        if gap > closest:
            slots.append([plane])
        else:
            slots[-1].append(plane)
    return slots


def _is_even(slots: list[list[Plane]]) -> bool:
    """Whether each position is there equally often."""
    return len({len(slot) for slot in slots}) == 1


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
        # Deflated files do not say where their pixels lie.
        alike = all(plane.header.pixels is not None and plane.header.pixels[1] >= 0 for plane in slot)
        for plane in sorted(slot, key=lambda plane: str(plane.values.get("SeriesNumber", ""))):
            # Frames of one file are never copies; a repeated frame is the file's own doing.
            key: Hashable = id(plane)
            if len(slot) > 1 and plane.single:
                words = (*KINDS[1:], *_SCALES, *(_TIMES if times else ()))
                key = (by_words(words)(plane), _pixels(plane, alike) or id(plane))
            (copies if key in seen else kept).append(plane)
            seen.setdefault(key, plane)
    return kept, copies


def _pixels(plane: Plane, stored: bool) -> bytes | None:
    """SHA-256 of the pixels as stored, or as decoded; None where they cannot be had."""
    try:
        found = stored_pixels(plane.header) if stored else cells_of(plane.header)
    except OSError:
        return None
    return found if isinstance(found, bytes) else None


def _kinds(planes: list[Plane]) -> tuple[str, ...]:
    """The kinds in which the planes differ; not Series Numbers of which most files have their own, by careless
    anonymisation."""
    number = {word: len(grouped(planes, by_words((word,)))) for word in KINDS}
    return tuple(word for word in KINDS if number[word] > 1 and (word not in SAID or 2 * number[word] <= len(planes)))


def _is_pet(planes: list[Plane]) -> bool:
    return planes[0].values.get("Modality") == "PT"


def _separated(slots: list[list[Plane]]) -> list[list[Plane]] | None:
    """Planes parted by what their headers say, so that each part holds every position once."""
    planes, place = list(itertools.chain(*slots)), _numbered(slots)
    varying = _kinds(planes)
    separators = (*((word,) for word in varying), _DIFFUSION, *_MOMENTS, varying)
    for words in itertools.chain(separators, _together(varying, slots)):
        parts = list(grouped(planes, by_words(words)).values())
        if len(parts) > 1 and all(len(part) == len(slots) for part in parts) and _are_apart(parts, place):
            return parts
    return None


def _beside(slots: list[list[Plane]]) -> list[list[Plane]] | None:
    """Planes parted by what their headers say, so that no part holds a position twice; they may lie beside each other
    (a thick and a thin stack) or break off (a run cut short).

    Times, which may differ between the slices of one volume, part nothing but the frames of PET, whose reference time
    each frame has in common (PS3.3 C.8.9.4.1.5). Counters part nothing where they tell pieces apart, not passes.
    """
    planes, place = list(itertools.chain(*slots)), _numbered(slots)
    varying = _kinds(planes)
    kinds = tuple(word for word in varying if word not in COUNTERS)
    times: tuple[str, ...] = (
        *(word for word in COUNTERS if word in varying),
        *((REFERENCE,) if _is_pet(planes) else ()),
    )
    separators: list[tuple[tuple[str, ...], tuple[str, ...]]]
    separators = [*(((word,), ()) for word in kinds), (_DIFFUSION, ()), (kinds, ())]
    separators += [*(((), (word,)) for word in times), *((kinds, (word,)) for word in times), (kinds, times)]
    for words, counters in separators:
        groups = [in_order(group, counters) for group in grouped(planes, by_words(words)).values()]
        parts = list(itertools.chain(*groups))
        if len(parts) < 2 or min(map(len, parts)) < 2 or not _are_apart(parts, place):
            continue
        places = [[{place[id(plane)] for plane in piece} for piece in pieces] for pieces in groups]
        beds = REFERENCE in counters
        if not any(are_pieces(pieces, where, beds) for pieces, where in zip(groups, places, strict=True)):
            return parts
    return None


def _numbered(slots: list[list[Plane]]) -> dict[int, int]:
    """The number of each plane's position, by its identity."""
    return {id(plane): i for i, slot in enumerate(slots) for plane in slot}


def _are_apart(parts: list[list[Plane]], place: dict[int, int]) -> bool:
    """Whether no part holds two planes at one position."""
    return all(len({place[id(plane)] for plane in part}) == len(part) for part in parts)


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
    if not _is_even(slots):
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
    if said == {len(groups)} and all(numbered_through(group) for group in groups):
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


def _checked(volume: Volume, directions: Array) -> Volume:
    """The volume, with what is odd about it."""
    planes = volume.planes
    if len(planes) == 1:
        return volume
    positions = np.array([plane.position for plane in planes])
    issues = check_stack(positions, directions)[1]
    step = float((positions[-1] - positions[0]) @ directions[2]) / (len(planes) - 1)
    thick = planes[0].values.get("SliceThickness")
    if isinstance(thick, (int, float)) and step < 0.02 * thick:
        issues.append(Issue(Code.ConflictingGeometry, f"slices {thick:g} mm thick, {step:.2g} mm apart"))
    if mixed := [*mixed_in(planes, directions), *signs_of_weaving(planes, step)]:
        issues.append(Issue(Code.MixedSlices, ", ".join(mixed)))
    volume.issues[:0] = issues
    return volume

"""Planes at different positions → the stacks that they are: one, or several of different kinds or passes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import Array, check_stack
from medlora.scans.passes import COUNTERS, passes_within, say_joined
from medlora.scans.plane import Plane, Volume, by_words, grouped

#: What names a kind of image, or a volume of a run: may tell images at the same position apart, most telling first.
KINDS = (
    "SeriesNumber", "PatientPosition", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue",
    "SequenceName", "InversionTime", "TriggerTime", "ComplexImageComponent", "ImageType", "ConvolutionKernel", "KVP",
    "SliceThickness", "AcquisitionNumber", "FlipAngle", "StackID", "FrameOfReferenceUID",
    "DiffusionGradientOrientation",
)  # fmt: skip


def parted(planes: list[Plane], directions: Array) -> list[Volume]:
    """An uneven stack that falls into even ones of different kinds (thick and thin, two kernels) is those.

    So is an even one of two acquisitions half a step apart, where numbers or the slices' thickness give them away.

    Args:
        planes: sorted along the normal.
        directions: from `geometry.axes`.
    """
    if len(planes) <= 3:
        return [Volume(planes)]
    if not _issues_of_uneven(planes, directions):
        return _woven(planes, directions) or [Volume(planes)]
    for word in KINDS:
        parts = list(grouped(planes, by_words((word,))).values())
        if len(parts) < 2 or not all(len(part) > 1 and not _issues_of_uneven(part, directions) for part in parts):
            continue
        return _slabs(parts, word, directions) if word in (*COUNTERS, "SeriesNumber") else [*map(Volume, parts)]
    return [Volume(planes)]


def _slabs(parts: list[list[Plane]], word: str, directions: Array) -> list[Volume]:
    """Of even stacks side by side, those as one that belong together (`_joined`); of stacks that reach into each other,
    what `_interleaved` makes of them."""
    parts = sorted(parts, key=lambda part: float(part[0].position @ directions[2]))
    ends = [_positions([part[0], part[-1]]) @ directions[2] for part in parts]
    if any(after[0] <= before[1] for before, after in itertools.pairwise(ends)):
        return [*map(Volume, parts)] if word == "SeriesNumber" else _interleaved(parts, word, directions)
    return [Volume(part) for part in _joined(parts, directions)]


def _interleaved(parts: list[list[Plane]], word: str, directions: Array) -> list[Volume]:
    """Of even stacks that reach into each other: packages of one grid, of which slices are lost, as one, but where each
    has numbers of its own; else the passes over the patient that they make."""
    planes = sorted(itertools.chain(*parts), key=lambda plane: float(plane.position @ directions[2]))
    lost = any(issue.code is Code.MissingSlices for issue in _issues_of_uneven(planes, directions))
    if lost and not _are_told_by_numbers(parts, word, _step(planes, directions)):
        return [Volume(planes)]
    return _passes(planes, word, directions)


def _passes(planes: list[Plane], word: str, directions: Array) -> list[Volume]:
    together = passes_within(planes, word)
    volumes = [Volume(stack) for pieces in together for stack in _joined(pieces, directions)]
    if all(len(pieces) == 1 for pieces in together):
        return volumes
    return [*say_joined(volumes, (word,), directions)]


def _joined(parts: Iterable[list[Plane]], directions: Array) -> list[list[Plane]]:
    """Of even stacks side by side, those of one step as one that are rotations of one: that follow each other closely,
    or lack a slice between them, or as many as instance numbers skip; or, without numbers, half of what the shorter
    holds.

    Args:
        parts: sorted along the normal.
        directions: from `geometry.axes`.
    """
    parts = list(parts)
    steps = [_step(part, directions) for part in parts]
    # Two slices some steps apart may have lost those between them, as have those whose numbers skip some; they are no
    # stack of a step of its own.
    lacking = [step for part, step in zip(parts, steps, strict=True) if len(part) == 2 or _skips(part)]
    if any(_is_multiple(step, min(steps)) for step in lacking):
        return [list(itertools.chain(*parts))]
    found: list[list[Plane]] = []
    for i, after in enumerate(parts):
        same = i > 0 and abs(steps[i] - steps[i - 1]) <= 0.02 * max(steps[i - 1 : i + 1])
        if same and _go_on(found[-1], after, max(steps[i - 1 : i + 1]), directions):
            found[-1] += after
        else:
            found.append(list(after))
    return found


def _go_on(before: list[Plane], after: list[Plane], step: float, directions: Array) -> bool:
    """Whether a stack goes on with another of its step, as `_joined` says."""
    end, start = _positions([before[-1], after[0]]) @ directions[2]
    gap = float(start - end) / step
    if 0.7 < gap < 1.4:
        return True
    numbers = [[plane.values.get("InstanceNumber") for plane in part] for part in (before, after)]
    known = [[number for number in part if isinstance(number, int)] for part in numbers]
    on_grid = abs(gap - round(gap)) < 0.1
    shorter = min(len(before), len(after))
    if known == numbers:
        skipped = min(abs(a - b) for a, b in itertools.product(*known))
        if skipped:
            return on_grid and (round(gap) == 2 or (skipped > 1 and abs(skipped - round(gap)) <= 1))
        return on_grid and round(gap) - 1 <= shorter  # numbered anew in each piece: one of them may be lost
    return on_grid and round(gap) - 1 <= shorter // 2


def _is_multiple(step: float, of: float) -> bool:
    times = round(step / of)
    return times > 1 and abs(step - times * of) < 0.1 * of


def _skips(planes: list[Plane]) -> bool:
    """Whether instance numbers skip some between any two slices."""
    numbers = [n for plane in planes if isinstance(n := plane.values.get("InstanceNumber"), int)]
    return len(numbers) == len(planes) and all(abs(a - b) > 1 for a, b in itertools.pairwise(numbers))


def _woven(planes: list[Plane], directions: Array) -> list[Volume] | None:
    """The even stacks that lie within each other in this even one: where instance numbers give them away, or slices far
    thicker than the step, of which each stack has numbers of its own, or where they are acquisitions of a CT that do.
    """
    step = _step(planes, directions)
    thick = _are_thick(planes, step) or _numbered_twice(planes)
    for word in KINDS if thick else ("AcquisitionNumber",) if _is_ct(planes) else ():
        counted = word in COUNTERS
        parts = list(grouped(planes, by_words((word,))).values())
        if counted and len(parts) > 1:
            parts = [[*itertools.chain(*pieces)] for pieces in passes_within(planes, word)]
        if len(parts) < 2 or not all(len(part) > 1 and not _issues_of_uneven(part, directions) for part in parts):
            continue
        ends = [(_positions(part) @ directions[2])[[0, -1]] for part in parts]
        if max(start for start, _ in ends) >= min(end for _, end in ends):  # slabs lie side by side
            continue
        if _are_told_by_numbers(parts, word, step):
            return _passes(planes, word, directions) if counted else [*map(Volume, parts)]
    return None


def _are_told_by_numbers(parts: Sequence[list[Plane]], word: str, step: float) -> bool:
    """Whether stacks that reach into each other, of one step together, are none: they have the same numbers; or each is
    numbered through, of slices far thicker than the step, or of a CT, which acquires no packages."""
    planes = [*itertools.chain(*parts)]
    if _numbered_twice(planes):
        return not any(_numbered_twice(part) for part in parts)
    own = _are_thick(planes, step) or (word == "AcquisitionNumber" and _is_ct(planes))
    return own and all(numbered_through(part) for part in parts)


def signs_of_weaving(planes: list[Plane], step: float) -> list[str]:
    """What gives away that two acquisitions lie within each other in these planes, though nothing parts them.

    Slabs side by side that are numbered anew, and beds of a PET that are counted one by one, are no such thing.

    Args:
        planes: of a volume, sorted along the normal.
        step: the mean distance between them, in mm.
    """
    found = ["instance numbers that are there twice"] if _numbered_in_turn(planes) else []
    total = planes[0].values.get("NumberOfSlices")  # of each separate volume (PS3.3 C.8.9.1)
    counted = planes[0].values.get("Modality") == "PT" and isinstance(total, int) and 0 < total < len(planes)
    if counted and _are_thick(planes, step) and not _numbered_as_they_lie(planes):
        found.append(f"{len(planes)} slices where Number of Slices says {total}")
    return found


def _numbered_in_turn(planes: list[Plane]) -> bool:
    """Whether most numbers are there more than once, and only in planes next to each other; not the same everywhere."""
    if not _numbered_twice(planes):
        return False
    places: dict[int, list[int]] = defaultdict(list)
    for i, plane in enumerate(planes):
        places[plane.values["InstanceNumber" if plane.frame < 0 else "InStackPositionNumber"]].append(i)
    several = [where for where in places.values() if len(where) > 1]
    if sum(_are_of_a_moment([planes[i] for i in where]) for where in several) > len(several) / 2:
        return False  # a rotation's slices have a number together
    beside = all(where[-1] - where[0] == len(where) - 1 for where in several)
    return beside and 2 * len(several) > len(places) > max(map(len, several))


def _numbered_as_they_lie(planes: list[Plane]) -> bool:
    """Whether instance numbers rise, or fall, by one from slice to slice: beds that are counted one by one."""
    numbers = [plane.values.get("InstanceNumber") for plane in planes]
    steps = {b - a for a, b in itertools.pairwise(numbers) if isinstance(a, int) and isinstance(b, int)}
    return len(steps) == 1 and steps <= {1, -1} and all(isinstance(number, int) for number in numbers)


def _are_of_a_moment(planes: list[Plane]) -> bool:
    times = {(plane.values.get("AcquisitionDate"), plane.values.get("AcquisitionTime")) for plane in planes}
    return len(times) == 1 and (None, None) not in times


def _are_thick(planes: list[Plane], step: float) -> bool:
    thick = planes[0].values.get("SliceThickness")
    return isinstance(thick, (int, float)) and thick > 1.5 * step


def _is_ct(planes: list[Plane]) -> bool:
    return planes[0].values.get("Modality") == "CT"


def _step(planes: list[Plane], directions: Array) -> float:
    along = _positions(planes) @ directions[2]
    return float(along[-1] - along[0]) / (len(planes) - 1)


def numbered_through(planes: list[Plane]) -> bool:
    """Whether instance numbers run without a gap."""
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


def _positions(planes: list[Plane]) -> Array:
    return np.array([plane.position for plane in planes])

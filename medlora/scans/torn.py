"""Stacks that were torn: one part has another Patient ID, study, size or Pixel Spacing, corrected halfway; or another
Series Instance UID, perhaps each slice its own."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import Array, check_stack
from medlora.scans.header import Header
from medlora.scans.plane import Plane, Volume, by_words, frame_count, grouped, is_localizer, listed, planes_of
from medlora.scans.series import SLICES

# Patient, study and series; sizes (`_size`); volume.
_Part = tuple[tuple[str, ...], tuple[tuple[Any, ...], tuple[float, ...]], Volume]
_MOST = 64  # careless anonymisation gives one Series Instance UID to thousands: of more parts no pairs are tried
_Key = TypeVar("_Key", bound=Hashable)
# What slices of one stack have in common, whatever UIDs they were given.
_ALIKE = (
    "PatientID", "SeriesNumber", "Modality", "SOPClassUID", "Rows", "Columns", "ConvolutionKernel", "SliceThickness",
    "EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier",
)  # fmt: skip
_OF_A_BODY = ("StudyInstanceUID", "FrameOfReferenceUID")
# What whole series have in common besides, where they are one stack.
_WHOLE = ("StudyInstanceUID", "FrameOfReferenceUID", "ImageType", *_ALIKE)


def say_torn(volumes: Mapping[tuple[str, ...], Iterable[Volume]]) -> None:
    """Flag the volumes under one Series Instance UID whose slices, together, make one stack.

    Args:
        volumes: by the patient, study and series that their headers give.
    """
    stacks: dict[Hashable, list[_Part]] = defaultdict(list)
    for key, found in volumes.items():
        for volume in found:
            first = volume.planes[0]
            if first.directions is None or first.position is None or is_localizer(first.values) or not first.single:
                continue
            place = first.values.get("FrameOfReferenceUID"), first.values.get("Modality")
            directions = tuple(np.round(first.directions, 2).ravel() + 0.0)
            stacks[place, directions].append((key, _size(first), volume))
    for parts in stacks.values():
        rest: dict[int, int] = {}
        for together, numbered in _candidates(parts):
            planes = [plane for volume in together for plane in volume.planes]
            if len(planes) > 2 and _are_one_stack(planes, numbered):
                for volume in together:
                    rest[id(volume)] = max(rest.get(id(volume), 0), len(planes) - len(volume.planes))
        for *_, volume in parts:
            if id(volume) in rest:
                detail = (
                    f"{rest[id(volume)]} that go on with the stack have another Patient ID, study or size of pixels"
                )
                volume.issues.append(Issue(Code.MissingSlices, detail))


def _size(plane: Plane) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    """The size of the matrix and of a pixel; and the field of view, in mm."""
    size = plane.values.get("Rows"), plane.values.get("Columns")
    spacing = listed(plane.values.get("PixelSpacing"))
    numbers = [
        (n, mm) for n, mm in zip(size, spacing, strict=False) if isinstance(n, int) and isinstance(mm, (int, float))
    ]
    return (*size, *spacing), tuple(n * mm for n, mm in numbers)


def _candidates(parts: Sequence[_Part]) -> Iterator[tuple[list[Volume], bool]]:
    """All parts, and two by two, where none were parted knowingly; and whether their numbers must run on: where both
    patient and study are others, the places alone may follow each other by chance; where it is one slice by itself that
    has another field of view, it may be meant so."""
    if len(parts) > _MOST:
        keys = {key for key, *_ in parts}
        if len(keys) == len(parts):  # each differs from all others in patient or study
            patients, studies = ({key[i] for key in keys} for i in (1, 2))
            framed = "FrameOfReferenceUID" in parts[0][2].planes[0].values
            yield [volume for *_, volume in parts], len(patients) > 1 and (len(studies) > 1 or not framed)
        return
    pairs = [(one, other) for one, other in itertools.combinations(parts, 2) if _may_be_torn(one, other)]
    if len(pairs) == len(parts) * (len(parts) - 1) / 2 > 1:
        yield [volume for *_, volume in parts], any(_are_strangers(one, other) for one, other in pairs)
    for one, other in pairs:
        yield [one[2], other[2]], _are_strangers(one, other)
    for one, other in itertools.combinations(parts, 2):
        if one[:2] != other[:2] and not _may_be_torn(one, other) and 1 in (len(one[2].planes), len(other[2].planes)):
            yield [one[2], other[2]], True


def _are_strangers(one: _Part, other: _Part) -> bool:
    """Whether both patient and study are others, or the patient is and no frame of reference is given."""
    patient, study = one[0][1] != other[0][1], one[0][2] != other[0][2]
    return patient and (study or "FrameOfReferenceUID" not in one[2].planes[0].values)


def _may_be_torn(one: _Part, other: _Part) -> bool:
    """Whether the parts differ in what is corrected, or in how the same field of view is written; not in another."""
    (key, (size, view), _), (another, (another_size, another_view), _) = one, other
    if key != another:
        return True
    return size != another_size and len(view) == len(another_view) and np.allclose(view, another_view, rtol=0.02)


def _are_one_stack(planes: list[Plane], numbered: bool) -> bool:
    """Whether slices lie in even steps; or are numbered as they lie, and one or two may be lost."""
    directions = planes[0].directions
    assert directions is not None
    planes = sorted(planes, key=lambda plane: _along(plane, directions))
    along = np.array([_along(plane, directions) for plane in planes])
    if np.diff(along).min() < 0.01:
        return False
    codes = {issue.code for issue in check_stack(np.outer(along, directions[2]), directions)[1]}
    numbers = [plane.values.get("InstanceNumber") for plane in planes]
    if None not in numbers and len(set(numbers)) < len(numbers):
        return False  # each part begins anew
    if Code.NonUniformSpacing not in codes and not numbered:
        return True
    if not all(isinstance(number, int) for number in numbers):
        return False
    steps = np.rint(np.diff(along) / np.diff(along).min())
    jumps = np.diff(np.array(numbers, int))
    even = Code.NonUniformSpacing not in codes or Code.MissingSlices in codes
    return (
        even
        and steps.sum() - len(steps) <= 2
        and bool(np.array_equal(abs(jumps), steps) and len(set(np.sign(jumps))) == 1)
    )


def _along(plane: Plane, directions: Array) -> float:
    assert plane.position is not None
    return float(plane.position @ directions[2])


def in_pieces(series: Mapping[_Key, Sequence[Header]]) -> dict[_Key, int]:
    """Series that together make a stack, since one Series Instance UID was made up per file, or halfway.

    Those of a single slice each lie in one folder, or in one study under one Series Number; are of one patient, size,
    orientation and kind; and at least three have numbers that run on while their places move on by the same step.
    Scouts, slices at one place (of bolus tracking, fluoroscopy, biopsies) and those numbered anew do not. Those of more
    slices are of one study, Series Number, frame of reference and kind, and one begins, by number and place, where the
    other ends.

    Returns:
        by the key of such a series, how many other slices the stack has.
    """
    loose = {key: plane for key, headers in series.items() if (plane := _lone_slice(headers)) is not None}
    found = _cut(series)
    for together in (_by_folder, _by_study):
        keys = {id(plane): key for key, plane in loose.items() if key not in found}
        candidates = [plane for key, plane in loose.items() if key not in found and together(plane) is not None]
        for alike in grouped(candidates, together).values():
            for stack in filter(_is_no_chance, _runs(alike)):
                found |= {keys[id(plane)]: len(stack) - 1 for plane in stack}
    return found


def _cut(series: Mapping[_Key, Sequence[Header]]) -> dict[_Key, int]:
    """Whole series that are one stack, as `in_pieces` says and returns."""
    alike: dict[Hashable, list[_Key]] = defaultdict(list)
    for key, headers in series.items():
        first = headers[0].values
        if all(first.get(word) not in (None, "") for word in ("PatientID", "StudyInstanceUID", "SeriesNumber")):
            alike[tuple(str(first.get(word)) for word in _WHOLE)].append(key)
    found: dict[_Key, int] = {}
    for keys in alike.values():
        stacks = [(key, stack) for key in keys if len(keys) > 1 and (stack := _stack(series[key]))]
        chains: list[list[tuple[_Key, list[Plane]]]] = []
        waiting: dict[Hashable, list[list[tuple[_Key, list[Plane]]]]] = defaultdict(list)  # for a kind and number
        for part in sorted(stacks, key=lambda part: part[1][0].values["InstanceNumber"]):
            begin, end = part[1][0], part[1][-1]
            before = waiting[_alike(begin), begin.values["InstanceNumber"]]
            for chain in before:
                ends = [*chain[-1][1][-2:], *part[1][:2]]
                if any(len(run) == len(ends) for run in _runs(ends)):
                    before.remove(chain)
                    break
            else:
                chains.append(chain := [])
            chain.append(part)
            waiting[_alike(end), end.values["InstanceNumber"] + 1].append(chain)
        for chain in chains:
            total = sum(len(stack) for _, stack in chain)
            found |= {key: total - len(stack) for key, stack in chain if len(chain) > 1}
    return found


def _stack(headers: Sequence[Header]) -> list[Plane]:
    """The slices of a series by their numbers; nothing where they are no stack of one kind, numbered once."""
    planes = [plane for header in headers if (plane := _slice(header)) is not None]
    numbers = {plane.values["InstanceNumber"] for plane in planes}
    if not planes or not len(planes) == len(numbers) == len(headers) or len(set(map(_alike, planes))) > 1:
        return []
    assert planes[0].directions is not None
    along = sorted(_along(plane, planes[0].directions) for plane in planes)
    if any(after - before < 0.01 for before, after in itertools.pairwise(along)):
        return []
    return sorted(planes, key=lambda plane: plane.values["InstanceNumber"])


def _lone_slice(headers: Sequence[Header]) -> Plane | None:
    """The only image of a series, if it is one of those that only together make a volume."""
    return _slice(headers[0]) if len(headers) == 1 else None


def _slice(header: Header) -> Plane | None:
    """The image, if it is one of those that only together make a volume, and has a place and a number."""
    if header.values.get("SOPClassUID") not in SLICES or frame_count(header) != 1:
        return None
    plane = planes_of(header)[0]
    if plane.position is None or is_localizer(plane.values) or not isinstance(plane.values.get("InstanceNumber"), int):
        return None
    return plane


def _by_folder(plane: Plane) -> Hashable:
    return plane.header.path.parent, _alike(plane)


def _by_study(plane: Plane) -> Hashable | None:
    """Where study and series are both told, the files may lie in a folder each."""
    values = plane.values
    told = values.get("PatientID") and values.get("StudyInstanceUID") and values.get("SeriesNumber") is not None
    return (values["StudyInstanceUID"], _alike(plane)) if told else None


def _alike(plane: Plane) -> Hashable:
    assert plane.directions is not None
    numbers = (*plane.directions.ravel(), *listed(plane.values.get("PixelSpacing")))
    return by_words(_ALIKE)(plane), tuple(round(float(number), 2) + 0.0 for number in numbers)


def _runs(planes: list[Plane]) -> Iterator[list[Plane]]:
    """Three or more slices whose numbers rise by one while their places move on by the same step."""
    planes = sorted(planes, key=lambda plane: (plane.values["InstanceNumber"], *_coordinates(plane), plane.uid))
    run = planes[:1]
    for plane in planes[1:]:
        if not _goes_on(run[-1], plane) or (len(run) > 1 and not _same_step(run[-2], run[-1], plane)):
            if len(run) > 2:
                yield run
            run = [run[-1]] if _goes_on(run[-1], plane) else []
        run.append(plane)
    if len(run) > 2:
        yield run


def _is_no_chance(run: list[Plane]) -> bool:
    """Whether slices follow each other for another reason than that among many some do: of other studies and frames of
    reference, as in folders of single images, it takes five."""
    apart = all(len({plane.values.get(word) for plane in run}) == len(run) for word in _OF_A_BODY)
    return len(run) >= (5 if apart else 3)


def _coordinates(plane: Plane) -> list[float]:
    assert plane.position is not None
    return [float(number) for number in plane.position]


def _goes_on(before: Plane, after: Plane) -> bool:
    assert before.directions is not None and before.position is not None and after.position is not None
    along = (after.position - before.position) @ before.directions[2]
    return after.values["InstanceNumber"] - before.values["InstanceNumber"] == 1 and abs(float(along)) >= 0.01


def _same_step(one: Plane, two: Plane, three: Plane) -> bool:
    """Whether the third lies where the first two lead, but for the rounding of positions to 0.1 mm."""
    assert one.position is not None and two.position is not None and three.position is not None
    step = two.position - one.position
    return float(np.linalg.norm(three.position - two.position - step)) <= max(0.02 * float(np.linalg.norm(step)), 0.11)

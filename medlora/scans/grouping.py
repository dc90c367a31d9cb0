"""Which files belong together: to one series, one acquisition, one study."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from medlora.scans.header import Header
from medlora.scans.kinds import is_derived, is_secondary, is_unplaced_capture
from medlora.scans.plane import is_localizer

#: What the images of a series have in common, for want of a Series Instance UID.
_OF_A_SERIES = (
    "PatientID", "StudyInstanceUID", "SeriesNumber", "Modality", "FrameOfReferenceUID", "Manufacturer",
    "BodyPartExamined",
)  # fmt: skip
_OF_AN_ACQUISITION = ("PatientID", "StudyInstanceUID", "AcquisitionNumber", "ImagesInAcquisition")
_Key = TypeVar("_Key", bound=Hashable)


def series_of(header: Header) -> tuple[str, ...]:
    """What the files of one series share; its Series Instance UID, or nothing, comes first.

    Patient and study belong to it, since careless anonymisation gives one Series Instance UID to several patients.
    Files without one (`Code.NoSeriesUID`) are a series where folder, study and what else a series has in common agree.
    """
    values = header.values
    if not values.get("SeriesInstanceUID"):
        return ("", str(header.path.parent), *(str(values.get(word, "")) for word in _OF_A_SERIES))
    return tuple(str(values.get(word, "")) for word in ("SeriesInstanceUID", "PatientID", "StudyInstanceUID"))


def acquisition_of(header: Header) -> tuple[str, ...]:
    """What the images of one acquisition share, in whichever series they are (PS3.3 C.7.6.1)."""
    return tuple(str(header.values.get(word, "")) for word in _OF_AN_ACQUISITION)


def study_of(header: Header) -> tuple[str, ...]:
    """What the images of one study share."""
    return tuple(str(header.values.get(word, "")) for word in ("PatientID", "StudyInstanceUID"))


def acquired(series: Iterable[list[Header]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """How many different images there are of each acquisition (`acquisition_of`): all, and those not derived from
    others; makers count the one or the other."""
    images = {
        (acquisition_of(header), header.values.get("SOPInstanceUID") or header.digest): is_derived(header.values)
        for members in series
        for header in members
    }
    every = Counter(acquisition for acquisition, _ in images)
    first = Counter(acquisition for (acquisition, _), derived in images.items() if not derived)
    return {acquisition: (count, first[acquisition]) for acquisition, count in every.items()}


def numbered_on(series: Mapping[_Key, list[Header]]) -> set[_Key]:
    """The series whose instance numbers may go on from those of others of the study.

    These are all of a study whose images have the numbers from 1 on, each once, in whichever series they are; and those
    before whose first number other series have all that there are, as scouts do before the slices. But where another
    series begins at 1 and does not end before, each of the study's does. Captures of a screen have numbers of their
    own, and so have images that were computed later.
    """
    studies: dict[tuple[str, ...], list[tuple[_Key, list[Header]]]] = defaultdict(list)
    for key, members in series.items():
        shown = [header for header in members if not is_unplaced_capture(header.values)]
        if shown:
            studies[study_of(shown[0])].append((key, shown))
    found: set[_Key] = set()
    for parts in studies.values():
        numbers = [header.values.get("InstanceNumber") for _, shown in parts for header in shown]
        if set(numbers) == set(range(1, len(numbers) + 1)):
            found.update(key for key, _ in parts)
            continue
        of_modality: dict[str, list[tuple[_Key, list[Header]]]] = defaultdict(list)
        for key, shown in parts:
            of_modality[str(shown[0].values.get("Modality", ""))].append((key, shown))
        for alike in of_modality.values():
            found |= _following(alike)
    return found


def _following(parts: list[tuple[_Key, list[Header]]]) -> set[_Key]:
    """Of series of one study and modality those whose numbers follow those of others that end before."""
    begins: dict[_Key, int] = {}
    ended: list[set[int]] = []  # the numbers of each series, those of its scouts apart
    own = 0  # the last number of a series of slices that begins at 1
    for key, shown in parts:
        of_kind: dict[bool, set[int]] = defaultdict(set)
        for header in shown:
            if isinstance(number := header.values.get("InstanceNumber"), int):
                of_kind[is_localizer(header.values)].add(number)
        if not of_kind:
            continue
        begins[key] = min(map(min, of_kind.values()))
        ended += of_kind.values()
        if any(header.values.get("InstanceNumber") == 1 and _is_slice(header) for header in shown):
            own = max(own, *of_kind[False])
    before: set[int] = set()
    ended.sort(key=max, reverse=True)
    found = set()
    for key, first in sorted(begins.items(), key=lambda part: part[1]):
        while ended and max(ended[-1]) < first:
            before |= ended.pop()
        if own < first and len(before) >= first - 1 and all(number in before for number in range(1, first)):
            found.add(key)
    return found


def _is_slice(header: Header) -> bool:
    return not is_localizer(header.values) and not is_secondary(header.values)

"""Which files belong together: to one series, one acquisition, one study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from medlora.scans.header import Header

#: What the images of a series have in common, for want of a Series Instance UID.
_OF_A_SERIES = (
    "PatientID", "StudyInstanceUID", "SeriesNumber", "Modality", "FrameOfReferenceUID", "Manufacturer",
    "BodyPartExamined",
)  # fmt: skip
_OF_AN_ACQUISITION = ("PatientID", "StudyInstanceUID", "AcquisitionNumber", "ImagesInAcquisition")


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


def numbered_through(series: Iterable[list[Header]]) -> set[tuple[str, ...]]:
    """The studies whose images have the numbers from 1 on, each once, in whichever series they are."""
    numbers: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for members in series:
        numbers[study_of(members[0])] += [header.values.get("InstanceNumber") for header in members]
    return {study for study, found in numbers.items() if set(found) == set(range(1, len(found) + 1))}

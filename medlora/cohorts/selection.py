"""Which scan of a study is the one that a label is about.

A chest CT study holds a scout, thin and thick, soft and sharp series; a radiographic one a frontal and a lateral view.
A rule is a few words, each ``field=value``, all of which a scan must meet::

    modality=CT plane=axial kernel=sharp thickness=thin

``modality``
    as in DICOM: CT, MR, DX …; ``DX`` and ``CR`` mean each other, too.
``plane``
    ``axial``, ``coronal`` or ``sagittal``: within 30° of it, by Image Orientation (Patient).
``view``
    ``frontal`` (PA, AP, or not known), ``lateral``, or the View Position itself.
``side``
    ``L`` or ``R``, by Image Laterality or else Laterality.
``kernel``
    ``sharp``, ``soft``, or the Convolution Kernel itself.
``thickness``
    ``thin`` or ``thick`` prefer the thinnest or thickest; a number of millimetres must be met within 5 %; ``<=1.5`` is
    a limit.
``contrast``
    ``yes`` or ``no``: whether Contrast/Bolus Agent names one.
``file``
    the end of the path, with ``*`` and ``?``: ``*_T1w.nii.gz``, ``lung/*.dcm``; of a series, that of its first file.
any other header field
    by its DICOM keyword: ``BodyPartExamined=CHEST``; of several values one must be met.

Of the scans of a study that meet all words one is taken: an image before a localizer, of known rather than unknown
view, then PA before AP, the thinnest or thickest where asked for, FOR PRESENTATION before FOR PROCESSING, original
before derived, the one with most slices, the thinnest, and last the smallest scan_id, so that the choice never depends
on the order of files. Where that would pick the left breast or the right, or one of several views, or of several
radiographs of unknown view, by nothing but its number, or one of several body parts, none is taken: the rule must say
which.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from medlora.cohorts.body_parts import may_be_one
from medlora.cohorts.criteria import (
    FRONTAL,
    LATERAL,
    MEETS,
    PLANES,
    RADIOGRAPHS,
    THICKNESS,
    is_localizer,
    length_of,
    listed,
    meets_field,
    seen_from,
    side_of,
)
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

FLAT = frozenset({"DX", "CR", "MG", "RG", "PX", "IO"})
DEFAULTS = {"CT": "plane=axial", "DX": "view=frontal", "CR": "view=frontal"}
"""What is asked for, beside the modality, where the user gives no rule."""

BESIDE = frozenset({"OT", "SC", "XC", "DOC", "SR", "KO", "PR", "RTDOSE", "RTIMAGE", "SEG", "REG", "ECG", "HC"})
"""Modalities of what lies beside an examination: captures of a screen, documents, dose grids."""

PREFERRED = "another scan of the study was preferred"
"""The reason why a scan that meets the rule was not taken."""

UNSETTLED = "the scans of the study differ in "
"""How the reason begins why no scan of a study was taken."""

_LIKE = {**dict.fromkeys(FRONTAL, "frontal"), **dict.fromkeys(LATERAL, "lateral")}
"""Views that mean the same for a choice."""


@dataclass(frozen=True)
class Selection:
    """A rule: what the scan of a study must be."""

    words: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Selection:
        """The rule that ``text`` says.

        Raises:
            MedloraError: a word is not ``field=value``, or its field or value is not known.
        """
        words = []
        for word in _split(text):
            name, equals, value = word.partition("=")
            if not equals or not name or not value:
                raise MedloraError(f"--select: {word!r} is not of the form field=value", _example())
            _check(name, value)
            words.append((name, value))
        if not words:
            raise MedloraError("--select is empty", _example())
        return cls(tuple(words))

    @classmethod
    def default(cls, scans: Sequence[ScanFiles]) -> Selection | None:
        """The rule for the modality that most studies have; None where no file says its modality.

        Raises:
            MedloraError: several modalities are in equally many studies.
        """
        studies = [{scan.modality for scan in group if scan.modality} for group in by_study(scans).values()]
        names = Counter(itertools.chain.from_iterable(studies))
        radiograph = max(RADIOGRAPHS & names.keys(), key=lambda name: (names[name], name), default="")  # or the other
        held = [{radiograph if name in RADIOGRAPHS else name for name in study} for study in studies]
        examined = [study - BESIDE for study in held]
        counts = Counter(itertools.chain.from_iterable(examined if any(examined) else held))
        if not counts:
            return None
        (modality, most), *others = counts.most_common()
        alike = sorted(name for name, n in ((modality, most), *others) if n == most)
        if len(alike) > 1:
            raise MedloraError(
                f"{most} studies each hold {' and '.join(alike)}: nothing says which of them the labels are about",
                f"say it: --select modality={alike[0]}",
            )
        # Of other formats nothing says how they were scanned.
        dicom = any(scan.kind == "dicom" and scan.modality == modality for scan in scans)
        return cls.parse(f"modality={modality} {DEFAULTS.get(modality, '') if dicom else ''}")

    def __str__(self) -> str:
        return " ".join(_quoted(f"{name}={value}") for name, value in self.words)

    def choose(
        self, scans: Sequence[ScanFiles], apart: Mapping[str, Hashable] | None = None
    ) -> tuple[list[ScanFiles], list[tuple[ScanFiles, str]]]:
        """One scan of each study.

        Args:
            scans: of any number of studies; a scan that belongs to none is one of its own.
            apart: scan_id → what must be the same of scans for one to be taken instead of another.

        Returns:
            The chosen, and the others with the reason.
        """
        chosen, others = [], []
        for group in by_study(scans, apart).values():
            meeting = []
            for scan in group:
                reason = self.misses(scan)
                if reason is None:
                    meeting.append(scan)
                else:
                    others.append((scan, reason))
            if meeting:
                best, *rest = sorted(meeting, key=self._rank)
                unsettled = self._unsettled(best, rest)
                if unsettled:
                    others += [(scan, unsettled) for scan in meeting]
                    continue
                chosen.append(best)
                others += [(scan, PREFERRED) for scan in rest]
        order = {id(scan): i for i, scan in enumerate(scans)}
        return sorted(chosen, key=lambda scan: order[id(scan)]), sorted(others, key=lambda item: order[id(item[0])])

    def _unsettled(self, best: ScanFiles, rest: Sequence[ScanFiles]) -> str:
        """What ``rest`` has in another way than ``best`` though a label cannot be about both alike; empty if nothing.

        Sides and body parts are never a matter of rank; of views, where it tells the scans apart no other way.
        """
        peers = [scan for scan in rest if self._rank(scan)[:-1] == self._rank(best)[:-1] and len(scan.paths) == 1]
        sides = {side_of(scan) for scan in (best, *rest)} - {""}
        near = {side_of(scan) for scan in (best, *peers)}
        if len(near) > 1 or (side_of(best) and len(sides) > 1):
            return _differ("side", near | sides, min(sides))
        flat = best.modality in FLAT
        alike = [s for s in rest if (s.modality in FLAT) == flat and is_localizer(s) == is_localizer(best)]
        one_part = partial(may_be_one, flat=flat)
        for name, others, same in (("ViewPosition", peers, _same_view), ("BodyPartExamined", alike, one_part)):
            values = {str(scan.header.get(name, "")).upper() for scan in (best, *others)} - {""}
            if any(not same(one, other) for one, other in itertools.combinations(values, 2)):
                return _differ(name, values, min(values))
        if best.modality in RADIOGRAPHS and not _seen(best) and any(scan.modality in RADIOGRAPHS for scan in peers):
            return f"{UNSETTLED}nothing that would tell a frontal view from a lateral one; let the labels name files"
        return ""

    def misses(self, scan: ScanFiles) -> str | None:
        """The first word that ``scan`` does not meet, in words; None where it meets all."""
        for name, value in self.words:
            found = MEETS[name](scan, value) if name in MEETS else meets_field(scan, value, name)
            if found is not None:
                return f"{found}, where {name}={value} is asked for"
        return None

    def _rank(self, scan: ScanFiles) -> tuple[Any, ...]:
        thickness = length_of(scan.header.get("SliceThickness"))
        wish = dict(self.words).get("thickness", "").casefold()
        derived = "DERIVED" in listed(scan.header.get("ImageType"))
        return (
            is_localizer(scan),
            {"PA": 0, "AP": 1}.get(str(scan.header.get("ViewPosition", "")).upper(), 2 if _seen(scan) else 3),
            {"thin": thickness, "thick": -thickness if np.isfinite(thickness) else np.inf}.get(wish, 0.0),
            scan.header.get("PresentationIntentType") == "FOR PROCESSING",
            derived,
            -len(scan.planes or scan.paths),
            thickness,
            scan.scan_id,
        )


def _seen(scan: ScanFiles) -> bool:
    return bool(scan.header.get("ViewPosition") or seen_from(scan))


def _split(text: str) -> list[str]:
    """The words of a rule; quotation marks hold a value with blanks together."""
    words = shlex.shlex(text, posix=True, punctuation_chars=False)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    try:
        return list(words)
    except ValueError:
        raise MedloraError("--select: a quotation mark is not closed", _example()) from None


def _quoted(word: str) -> str:
    return f'"{word}"' if any(character.isspace() for character in word) else word


def _differ(name: str, values: set[str], example: str) -> str:
    said = ", ".join(value or "not given" for value in sorted(values))
    return f"{UNSETTLED}{name} ({said}), and the rule does not say which, e.g. {_quoted(f'{name}={example}')}"


def by_study(
    scans: Sequence[ScanFiles], apart: Mapping[str, Hashable] | None = None
) -> dict[Hashable, list[ScanFiles]]:
    """Scans by what sets them apart, patient and Study Instance UID, which careless anonymisation gives to several
    patients; a scan without is a study of its own, one without Patient ID is of the study's only patient."""
    patients: dict[str, set[str]] = defaultdict(set)
    named = [((scan.identity.patient_id or "").strip(), scan.identity.study_uid or "") for scan in scans]
    for patient, study in named:
        patients[study].add(patient)
    groups: dict[Hashable, list[ScanFiles]] = defaultdict(list)
    for scan, (patient, study) in zip(scans, named, strict=True):
        others = patients[study] - {""}
        owner = patient or (min(others) if len(others) == 1 else "")
        groups[(apart or {}).get(scan.scan_id), owner, study or f"scan {scan.scan_id}"].append(scan)
    return groups


def _check(name: str, value: str) -> None:
    if name == "plane" and value.casefold() not in PLANES:
        raise MedloraError(f"--select: the plane {value!r} is not known", f"use {', '.join(PLANES)}")
    if name == "side" and value.upper() not in ("L", "R"):
        raise MedloraError(f"--select: the side {value!r} is not known", "use L or R")
    if name == "contrast" and value.casefold() not in ("yes", "no"):
        raise MedloraError(f"--select: contrast={value} is not known", "use contrast=yes or contrast=no")
    if name == "thickness" and value.casefold() not in ("thin", "thick") and not THICKNESS.match(value):
        raise MedloraError(f"--select: the thickness {value!r} is not known", "use thin, thick, 1.5 or <=1.5")
    if name == "file" and (PurePath(value).is_absolute() or ".." in PurePath(value).parts):
        raise MedloraError(
            f"--select: {value!r} is no end of a path", "use a pattern such as *_T1w.nii.gz or lung/*.dcm"
        )
    if name in MEETS:
        return
    from medlora.scans.elements import ACQUISITION

    if name not in ACQUISITION:
        raise MedloraError(
            f"--select: the field {name!r} is not known",
            f"use {', '.join(MEETS)}, or the DICOM keyword of an acquisition field, e.g. BodyPartExamined",
        )


def _example() -> str:
    return "for example: --select 'modality=CT plane=axial kernel=sharp thickness=thin'"


def _same_view(one: str, other: str) -> bool:
    """Whether two View Positions have a word in common: those of one kind are alike."""
    first, second = ({_LIKE.get(word, word) for word in (value, *re.split(r"[\W_]+", value))} for value in (one, other))
    return bool(first & second)

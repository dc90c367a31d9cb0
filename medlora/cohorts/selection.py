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
``file``
    the end of the path, with ``*`` and ``?``: ``*_T1w.nii.gz``, ``lung/*.dcm``; of a series, that of its first file.
any other header field
    by its DICOM keyword: ``BodyPartExamined=CHEST``; of several values one must be met.

Of the scans of a study that meet all words one is taken: of known rather than unknown view, then PA before AP, the
thinnest or thickest where asked for, original before derived, the one with most slices, the thinnest, and last the
smallest scan_id, so that the choice never depends on the order of files. Where that would pick the left breast or the
right, or one of several views or body parts, by nothing but its number, none is taken: the rule must say which.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

FLAT = frozenset({"DX", "CR", "MG", "RG", "PX", "IO"})
RADIOGRAPHS = frozenset({"DX", "CR"})
DEFAULTS = {"CT": "plane=axial", "DX": "view=frontal", "CR": "view=frontal"}
"""What is asked for, beside the modality, where the user gives no rule."""

UNSETTLED = "the scans of the study differ in "
"""How the reason begins why no scan of a study was taken."""

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
FRONTAL, LATERAL = frozenset({"PA", "AP", "AP AXIAL", "PA AXIAL"}), frozenset({"LL", "RL", "LATERAL", "LAT"})
_LIKE = {
    **dict.fromkeys(FRONTAL, "frontal"), **dict.fromkeys(LATERAL, "lateral"),
    **dict.fromkeys(("CHEST", "THORAX", "LUNG", "LUNGS"), "chest"),
}  # fmt: skip
"""Views and body parts that mean the same for a choice."""

# Kernels as the makers write them. Siemens: letter(s), a number (40 medium, from 50 on sharp), e.g. B30f, Bl57d, Br40.
# Canon/Toshiba: FC and a number (30 to 39 and 80 to 89 bone, 50 to 59 lung; FC01 to FC29 body and brain).
_SIEMENS = re.compile(r"^[BHITUQ][a-z]{0,2}(\d\d)[a-z]?", re.IGNORECASE)
_CANON = re.compile(r"^FC(\d\d)", re.IGNORECASE)
_NAMED = {
    "sharp": {"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "DETAIL", "CHST", "L", "E", "D", "YC", "YD", "YE", "YL"},
    "soft": {"STANDARD", "STND", "SOFT", "SMOOTH", "A", "B", "C", "EB", "EC", "SA", "SB", "UA", "UB"},
}
_THICKNESS = re.compile(r"^(<=|>=|)(\d+(?:\.\d+)?)(?:mm)?$")


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
        """The rule for the modality that most studies have; None where no file says its modality."""
        studies = {
            (study, scan.modality) for study, group in by_study(scans).items() for scan in group if scan.modality
        }
        counts = Counter(modality for _, modality in studies)
        if not counts:
            return None
        modality = max(counts, key=lambda name: (counts[name], name))
        return cls.parse(f"modality={modality} {DEFAULTS.get(modality, '')}")

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
                others += [(scan, "another scan of the study was preferred") for scan in rest]
        order = {id(scan): i for i, scan in enumerate(scans)}
        return sorted(chosen, key=lambda scan: order[id(scan)]), sorted(others, key=lambda item: order[id(item[0])])

    def _unsettled(self, best: ScanFiles, rest: Sequence[ScanFiles]) -> str:
        """What ``rest`` has in another way than ``best`` though a label cannot be about both alike; empty if nothing.

        Sides, and body parts of radiographs, are never a matter of rank; of views, where it tells the scans apart no
        other way.
        """
        peers = [scan for scan in rest if self._rank(scan)[:-1] == self._rank(best)[:-1] and len(scan.paths) == 1]
        flat = [scan for scan in rest if scan.modality in FLAT] if best.modality in FLAT else []
        sides = {_side(scan) for scan in (best, *rest)} - {""}
        near = {_side(scan) for scan in (best, *peers)}
        if len(near) > 1 or (_side(best) and len(sides) > 1):
            return _differ("side", near | sides, min(sides))
        for name, others in (("ViewPosition", peers), ("BodyPartExamined", flat)):
            values = {str(scan.header.get(name, "")).upper() for scan in (best, *others)} - {""}
            if any(not _words(one) & _words(other) for one, other in itertools.combinations(values, 2)):
                return _differ(name, values, min(values))
        return ""

    def misses(self, scan: ScanFiles) -> str | None:
        """The first word that ``scan`` does not meet, in words; None where it meets all."""
        for name, value in self.words:
            found = _MEETS[name](scan, value) if name in _MEETS else _meets_field(scan, value, name)
            if found is not None:
                return f"{found}, where {name}={value} is asked for"
        return None

    def _rank(self, scan: ScanFiles) -> tuple[Any, ...]:
        view = str(scan.header.get("ViewPosition", "")).upper()
        thickness = _length(scan.header.get("SliceThickness"))
        wish = dict(self.words).get("thickness", "").casefold()
        derived = "DERIVED" in _list(scan.header.get("ImageType"))
        return (
            {"PA": 0, "AP": 1}.get(view, 2 if view else 3),
            {"thin": thickness, "thick": -thickness if np.isfinite(thickness) else np.inf}.get(wish, 0.0),
            derived,
            -len(scan.planes or scan.paths),
            thickness,
            scan.scan_id,
        )


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


# --- each returns what is wrong, or None ---


def _meets_modality(scan: ScanFiles, value: str) -> str | None:
    there, asked = scan.modality.upper(), value.upper()
    if there == asked or {there, asked} <= RADIOGRAPHS:
        return None
    return f"the modality is {there or 'not given'}"


def _meets_plane(scan: ScanFiles, value: str) -> str | None:
    normal = _normal(scan)
    if normal is None:
        return "the orientation is not given"
    if "LOCALIZER" in _list(scan.header.get("ImageType")):
        return "it is a localizer"
    plane = max(PLANES, key=lambda name: abs(normal[PLANES[name]]))
    if abs(normal[PLANES[plane]]) < np.cos(np.radians(30)):
        return "the plane is oblique"
    return None if plane == value.casefold() else f"the plane is {plane}"


def _meets_view(scan: ScanFiles, value: str) -> str | None:
    position, asked = str(scan.header.get("ViewPosition", "")).upper(), value.upper()
    if asked not in ("FRONTAL", "LATERAL"):
        return None if position == asked else f"the view is {position or 'not given'}"
    # The first value is the direction in which a row runs (PS3.3 C.7.6.1.1.1)
    rows = str((_list(scan.header.get("PatientOrientation")) or [""])[0])[:1].upper()
    is_lateral = position in LATERAL or (not position and rows in ("A", "P"))
    is_frontal = position in FRONTAL or (not position and rows in ("L", "R"))
    if asked == "FRONTAL":
        return None if is_frontal or not (is_lateral or position) else f"the view is {position or 'lateral'}"
    return None if is_lateral else f"the view is {position or ('frontal' if is_frontal else 'not given')}"


def _meets_side(scan: ScanFiles, value: str) -> str | None:
    side = _side(scan)
    return None if side == value.upper() else f"the side is {side or 'not given'}"


def _meets_kernel(scan: ScanFiles, value: str) -> str | None:
    written = "\\".join(map(str, _list(scan.header.get("ConvolutionKernel"))))
    if value.casefold() not in ("sharp", "soft"):
        same = written.casefold() == value.casefold() or value.casefold() in written.casefold().split("\\")
        return None if same else f"the kernel is {written or 'not given'}"
    kind = kernel_kind(written)
    if kind is None:
        return f"the kernel {written} is not known as sharp or soft" if written else "the kernel is not given"
    return None if kind == value.casefold() else f"the kernel {written} is {kind}"


def _meets_thickness(scan: ScanFiles, value: str) -> str | None:
    if value.casefold() in ("thin", "thick"):
        return None
    match = _THICKNESS.match(value)
    thickness = _length(scan.header.get("SliceThickness"))
    if match is None or not np.isfinite(thickness):
        return "the slice thickness is not given"
    limit = float(match.group(2))
    met = {
        "<=": thickness <= limit * 1.001,
        ">=": thickness >= limit * 0.999,
        "": abs(thickness - limit) <= 0.05 * limit,
    }
    return None if met[match.group(1)] else f"the slices are {thickness:g} mm thick"


def _meets_file(scan: ScanFiles, value: str) -> str | None:
    met = PurePath(str(scan.paths[0]).casefold()).match(value.casefold())
    return None if met else "the file is called otherwise"


def _meets_field(scan: ScanFiles, value: str, name: str) -> str | None:
    found = [str(item) for item in _list(scan.header.get(name))]
    if value.casefold() in {item.casefold() for item in found}:
        return None
    return f"{name} is " + ("\\".join(found) or "not given")


_MEETS = {
    "modality": _meets_modality,
    "plane": _meets_plane,
    "view": _meets_view,
    "side": _meets_side,
    "kernel": _meets_kernel,
    "thickness": _meets_thickness,
    "file": _meets_file,
}


def kernel_kind(kernel: str) -> str | None:
    """``sharp`` or ``soft``, by what the makers' names mean; None where that is not known."""
    first = kernel.partition("\\")[0].strip()
    for kind, names in _NAMED.items():
        if first.upper() in names:
            return kind
    if match := _CANON.match(first):
        number = int(match.group(1))
        return "sharp" if 30 <= number <= 39 or 50 <= number <= 59 or 80 <= number <= 89 else "soft"
    if match := _SIEMENS.match(first):
        return "sharp" if int(match.group(1)) >= 50 else "soft"
    return None


def _check(name: str, value: str) -> None:
    if name == "plane" and value.casefold() not in PLANES:
        raise MedloraError(f"--select: the plane {value!r} is not known", f"use {', '.join(PLANES)}")
    if name == "side" and value.upper() not in ("L", "R"):
        raise MedloraError(f"--select: the side {value!r} is not known", "use L or R")
    if name == "thickness" and value.casefold() not in ("thin", "thick") and not _THICKNESS.match(value):
        raise MedloraError(f"--select: the thickness {value!r} is not known", "use thin, thick, 1.5 or <=1.5")
    if name == "file" and (PurePath(value).is_absolute() or ".." in PurePath(value).parts):
        raise MedloraError(
            f"--select: {value!r} is no end of a path", "use a pattern such as *_T1w.nii.gz or lung/*.dcm"
        )
    if name in _MEETS:
        return
    from medlora.scans.elements import ACQUISITION

    if name not in ACQUISITION:
        raise MedloraError(
            f"--select: the field {name!r} is not known",
            f"use {', '.join(_MEETS)}, or the DICOM keyword of an acquisition field, e.g. BodyPartExamined",
        )


def _example() -> str:
    return "for example: --select 'modality=CT plane=axial kernel=sharp thickness=thin'"


def _normal(scan: ScanFiles) -> np.ndarray | None:
    """Direction of the slice normal (patient's left, posterior, head), from a slice in the middle."""
    if scan.kind != "dicom":
        return None
    from medlora.scans import read_header
    from medlora.scans.series import planes_of

    middle = scan.planes[len(scan.planes) // 2] if scan.planes else (len(scan.paths) // 2, -1)
    header = read_header(scan.paths[middle[0]])
    if header.problem is not None:
        return None
    planes = planes_of(header)  # those of other scans may be in the file, too
    directions = next((plane for plane in planes if plane.frame == middle[1]), planes[0]).directions
    return None if directions is None else np.asarray(directions[2])


def _words(value: str) -> set[str]:
    """What a view or body part is called, a word each: those of one kind alike."""
    return {_LIKE.get(value, value), *(_LIKE.get(word, word) for word in re.split(r"[\W_]+", value))}


def _side(scan: ScanFiles) -> str:
    """L or R; empty where neither is said, or both are."""
    side = str(scan.header.get("ImageLaterality") or scan.header.get("Laterality") or "").upper()
    return side if side in ("L", "R") else ""


def _length(value: Any) -> float:
    """Infinite where it is not known: absent, or 0, which some software writes for that."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else np.inf


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]

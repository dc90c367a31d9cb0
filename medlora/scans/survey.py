"""What scans there are, from headers alone."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from statistics import median_low
from typing import Any

from medlora.scans import image, metaimage, nifti
from medlora.scans.codes import Code, Issue, Severity, severity
from medlora.scans.copies import are_copies, one_of_each
from medlora.scans.decode import check_pixels
from medlora.scans.elements import NO_IMAGES, SLIDE_IMAGES
from medlora.scans.file import read_header
from medlora.scans.finite import not_finite
from medlora.scans.folder import list_files
from medlora.scans.geometry import flat_affine
from medlora.scans.grouping import acquired, acquisition_of, numbered_on, series_of
from medlora.scans.header import Header, Values, whitelisted
from medlora.scans.load import load
from medlora.scans.moments import moments
from medlora.scans.plane import PROJECTIONS, Plane, Refused, Volume, planes_of
from medlora.scans.remarks import remarks
from medlora.scans.scan import Excluded, Scan, ScanError
from medlora.scans.series import assemble
from medlora.scans.torn import in_pieces, say_torn

_PAIRED = {"nifti": nifti.files_of, "metaimage": metaimage.files_of}
_STANDARD = "1.2.840.10008."
_IMAGE_SIGNS = ("Rows", "Columns", "PhotometricInterpretation", "SamplesPerPixel")

Severities = Mapping[Code, Severity | str]


@dataclass(frozen=True)
class Identity:
    """Who and what a scan is of: the only place with identifiers. Its repr shows nothing."""

    patient_id: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    sop_uids: tuple[str, ...] = field(default=(), repr=False)
    accession_number: str = field(default="", repr=False)
    study_date: str = field(default="", repr=False)


@dataclass(frozen=True)
class ScanFiles:
    """A scan that has not been loaded: its files and what their headers say. Picklable.

    Args:
        scan_id: as in `Scan.scan_id`.
        paths: the files, in the order of the slices; hidden from repr.
        kind: ``"dicom"``, ``"nifti"``, ``"metaimage"`` or ``"image"``.
        modality: DICOM modality; empty where the file does not say.
        header: whitelisted acquisition fields by DICOM keyword, as in `Scan.header`.
        identity: patient, study, series.
        issues: what was found and let pass.
        planes: index into ``paths`` and frame (-1: the whole file) of each slice, in order.
        severities: the caller's changes.
    """

    scan_id: str
    paths: tuple[Path, ...] = field(repr=False)
    kind: str
    modality: str
    header: Values = field(repr=False)
    identity: Identity = field(repr=False)
    issues: tuple[Issue, ...] = ()
    planes: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    severities: Severities = field(default_factory=dict, repr=False)

    def load(self) -> Scan:
        """Decode the pixels.

        Raises:
            ScanError: they cannot be decoded; its ``code`` says why.
        """
        extra: dict[str, Any] = {}
        try:
            if self.kind == "dicom":
                array, affine, found, extra = load([(self.paths[i], frame) for i, frame in self.planes])
            elif self.kind == "nifti":
                array, affine = nifti.load(self.paths[0])
                found = not_finite(array)
            elif self.kind == "metaimage":
                array, affine = metaimage.load(self.paths[0])
                found = not_finite(array)
            else:
                array, affine, found = image.load(self.paths[0]), flat_affine((1.0, 1.0)), []
        except ScanError as error:
            raise ScanError(error.issue, self.scan_id) from error
        except OSError as error:
            raise ScanError(Issue(Code.CannotOpen, error.strerror or type(error).__name__), self.scan_id) from error
        for issue in found:
            if severity(issue.code, self.severities) is Severity.REFUSE:
                raise ScanError(issue, self.scan_id)
        issues = (*self.issues, *(issue for issue in found if issue not in self.issues))
        return Scan(array, affine, dict(self.header), self.paths, issues, self.scan_id, self.modality, **extra)


@dataclass
class Survey:
    """The scans of a place, and what was left out, and why."""

    scans: list[ScanFiles]
    excluded: list[Excluded]

    def __repr__(self) -> str:
        return f"Survey({len(self.scans)} scans, {len(self.excluded)} excluded)"


def survey(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    headers: Iterable[Header] | None = None,
    severities: Severities | None = None,
) -> Survey:
    """List the scans of a file, a folder, or several of them, without decoding pixels.

    Args:
        path: where to look; with several, all are one archive (a series may be spread over them).
        headers: of the files, where they have been read already; ``path`` is then not looked at.
        severities: changes to what each `Code` does: ``{Code.MissingSlices: "refuse"}``.
    """
    excluded: list[Excluded] = []
    if headers is None:
        places = [path] if isinstance(path, (str, os.PathLike)) else list(path)
        files = [file for place in places for file in list_files(place, excluded)]
        headers = [read_header(file) for file in dict.fromkeys(files)]
    found = Survey([], excluded)
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    pairs = _images_of_pairs(headers := list(headers))
    lost: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        if header.path in pairs:
            continue
        issue = _unusable(header)
        if issue is not None:
            excluded.append(Excluded((header.path,), issue.code, issue.detail))
            if issue.code is not Code.NotAnImage:
                lost[series_of(header)].append(header)
        elif header.kind == "dicom":
            series[series_of(header)].append(header)
        else:
            _add_file(header, found, severities)
    counts, numbered, pieces = acquired(series.values()), numbered_on(series), in_pieces(series)
    for uid, keys in itertools.groupby(sorted(series), key=itemgetter(0)):
        results: dict[tuple[str, ...], list[Volume | Refused]] = {}
        for key in keys:
            members = series[key]
            there = {header.values.get("SOPInstanceUID") for header in members}
            unusable = sum(header.values.get("SOPInstanceUID") not in there for header in lost[key])
            about = counts[acquisition_of(members[0])], key in numbered
            results[key] = _assembled(members, unusable, about, found, severities)
        if uid:
            say_torn({key: [r for r in made if isinstance(r, Volume)] for key, made in results.items()})
        for key, made in results.items():
            if key in pieces:
                _say_in_pieces(made, pieces[key])
            order = moments([result.planes for result in made])
            _add([made[i] for i in sorted(range(len(made)), key=order.__getitem__)], found, severities)
    _part_shared_ids(found, headers)
    # Volumes of one series stay in the order of time.
    found.scans.sort(
        key=lambda scan: (
            scan.identity.patient_id,
            scan.identity.study_uid,
            scan.identity.series_uid,
            () if scan.kind == "dicom" else scan.paths[:1],
        )
    )
    return found


def _say_in_pieces(results: list[Volume | Refused], others: int) -> None:
    """Flag the slices of a series that goes on in others, if that has not been said."""
    for result in results:
        if isinstance(result, Volume) and not any(issue.code is Code.MissingSlices for issue in result.issues):
            result.issues.append(Issue(Code.MissingSlices, f"{others} that go on with the stack are in other series"))


def _part_shared_ids(found: Survey, headers: Iterable[Header]) -> None:
    """DICOM scans of the same SOP Instance UIDs are one where all their images are copies, and one is kept. Else they
    cannot be told apart later; and one that shares some of them with another patient's would be on both sides of a
    split: these are refused."""
    alike: dict[str, list[ScanFiles]] = defaultdict(list)
    patients: dict[str, set[str]] = defaultdict(set)
    for scan in found.scans:
        if scan.kind == "dicom":
            alike[scan.scan_id].append(scan)
        for uid in scan.identity.sop_uids:
            patients[uid].add(scan.identity.patient_id)
    several = {scan_id: scans for scan_id, scans in alike.items() if len(scans) > 1}
    paths = {path for scans in several.values() for scan in scans for path in scan.paths}
    at = {header.path: header for header in headers if header.path in paths} if paths else {}
    best = {scan_id: _best_copy(scans, at) for scan_id, scans in several.items()}
    kept = []
    for scan in found.scans:
        if scan.kind == "dicom" and any(len(patients[uid]) > 1 for uid in scan.identity.sop_uids):
            found.excluded.append(Excluded(scan.paths, Code.RepeatedInstance, "of several patients", scan.scan_id))
        elif scan.kind != "dicom" or scan.scan_id not in several or best[scan.scan_id] is scan:
            kept.append(scan)
        elif best[scan.scan_id] is None:
            found.excluded.append(Excluded(scan.paths, Code.RepeatedInstance, "in several series", scan.scan_id))
        else:
            detail = "which is there again, as another series or in another study"
            found.excluded.append(Excluded(scan.paths, Code.DuplicateFile, detail, scan.scan_id))
    found.scans = kept


def _best_copy(scans: list[ScanFiles], at: Mapping[Path, Header]) -> ScanFiles | None:
    """Of scans with the same SOP Instance UIDs the one with the fewest issues; None where they differ."""
    images: dict[str, list[Header]] = defaultdict(list)
    for header in (at[path] for scan in scans for path in scan.paths):
        images[header.values.get("SOPInstanceUID") or header.digest].append(header)
    if len({scan.identity.patient_id for scan in scans}) > 1 or not all(map(are_copies, images.values())):
        return None
    return min(
        scans, key=lambda scan: (len(scan.issues), scan.identity.study_uid, scan.identity.series_uid, scan.paths)
    )


def scan_id_of(parts: Iterable[str]) -> str:
    """First 16 hexadecimal digits of the SHA-256 over the sorted parts, joined by a line feed."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def _unusable(header: Header) -> Issue | None:
    if header.problem is not None:
        return Issue(Code[header.problem[0]], header.problem[1])
    if header.kind != "dicom":
        return None
    values = header.values
    # What makers keep beside their images in classes of their own may well have the rows of an image.
    own = not str(values.get("SOPClassUID", _STANDARD)).startswith(_STANDARD)
    if values.get("SOPClassUID") in NO_IMAGES or (
        header.pixels is None and (own or not any(word in values for word in _IMAGE_SIGNS))
    ):
        return Issue(Code.NotAnImage, str(values.get("Modality", "")))
    if values.get("SOPClassUID") == SLIDE_IMAGES and values.get("NumberOfFrames", 1) != 1:
        return Issue(Code.UnknownPixelFormat, "tiles of a whole slide image")
    return check_pixels(header)


def _images_of_pairs(headers: list[Header]) -> set[Path]:
    """The files of voxels that belong to another file's header: .img to .hdr (NIfTI), .raw to .mhd (MetaImage)."""
    return {other for header in headers if header.kind in _PAIRED for other in _PAIRED[header.kind](header.path)[1:]}


def _add_file(header: Header, found: Survey, severities: Severities | None) -> None:
    scan_id = header.digest[:16]
    issues: list[Issue] = []
    modality = ""
    if header.kind in _PAIRED:
        try:
            if header.kind == "nifti":
                issues = nifti.check(header.path, header.size)[0]
            else:
                said = metaimage.read(header.path)
                modality = said.modality
                issues = [] if said.placed else [Issue(Code.NoGeometry, "no Offset")]
                issues += [] if said.sized else [Issue(Code.UnknownSpacing)]
        except ScanError as error:
            found.excluded.append(Excluded((header.path,), error.code, error.issue.detail, scan_id))
            return
        except OSError as error:
            found.excluded.append(Excluded((header.path,), Code.CannotOpen, error.strerror or "", scan_id))
            return
    paths = tuple(_PAIRED[header.kind](header.path)) if header.kind in _PAIRED else (header.path,)
    identity = Identity(series_uid=metaimage.series_uid(header.path)) if header.kind == "metaimage" else Identity()
    shown = {"Modality": modality} if modality else {}
    _keep(ScanFiles(scan_id, paths, header.kind, modality, shown, identity, tuple(issues)), found, severities)


def _assembled(
    members: list[Header], lost: int, about: tuple[tuple[int, int], bool], found: Survey, severities: Severities | None
) -> list[Volume | Refused]:
    """What the files of one series make."""
    members, left_out = one_of_each(sorted(members, key=lambda header: str(header.path)))
    for headers, issue in left_out:
        scan_id = scan_id_of([planes_of(headers[0])[0].uid]) if _is_projection(headers[0]) else None
        found.excluded.append(Excluded(tuple(h.path for h in headers), issue.code, issue.detail, scan_id))
    results: list[Volume | Refused] = [Volume(planes_of(h)) for h in members if _is_projection(h)]
    results += assemble([h for h in members if not _is_projection(h)], *about)
    results = [
        Volume(r.planes, [r.issue]) if isinstance(r, Refused) and _lifted(r.issue, severities) else r for r in results
    ]
    for result in results:
        if isinstance(result, Refused) or len(result.planes) < 2 or not result.planes[0].single:
            continue
        if not result.planes[0].values.get("SeriesInstanceUID"):
            result.issues.append(Issue(Code.NoSeriesUID))
        if lost and not any(issue.code is Code.MissingSlices for issue in result.issues):
            result.issues.append(Issue(Code.MissingSlices, f"{lost} of the files of the series cannot be used"))
    return results


def _add(results: list[Volume | Refused], found: Survey, severities: Severities | None) -> None:
    """The volumes of one series to the scans, and what makes none to what is excluded."""
    owners = Counter(plane.header.path for result in results for plane in _one_per_file(result.planes))
    for result in results:
        parts = []
        for plane in result.planes:
            shared = owners[plane.header.path] > 1
            parts.append(f"{plane.uid}#{plane.frame}" if shared and plane.frame >= 0 else plane.uid)
        scan_id = scan_id_of(dict.fromkeys(parts))
        paths = tuple(dict.fromkeys(plane.header.path for plane in result.planes))
        if isinstance(result, Refused):
            found.excluded.append(Excluded(paths, result.issue.code, result.issue.detail, scan_id))
            continue
        values = _common(result.planes)
        index = {path: i for i, path in enumerate(paths)}
        scan = ScanFiles(
            scan_id,
            paths,
            "dicom",
            str(values.get("Modality", "")),
            whitelisted(values),
            _identity(result.planes),
            (*result.issues, *remarks(values, result.planes)),
            tuple((index[plane.header.path], plane.frame) for plane in result.planes),
        )
        _keep(scan, found, severities)


def _lifted(issue: Issue, severities: Severities | None) -> bool:
    """Whether the caller wants the series all the same; of a series' refusals only that for its order can be lifted."""
    return issue.code is Code.UnknownOrder and severity(issue.code, severities) is Severity.FLAG


def _one_per_file(planes: list[Plane]) -> list[Plane]:
    return list({plane.header.path: plane for plane in planes}.values())


def _is_projection(header: Header) -> bool:
    """Whether the image is a scan of its own; tomosynthesis, whose frames have places, is a volume."""
    return not header.frames and header.values.get("Modality") in PROJECTIONS


def _keep(scan: ScanFiles, found: Survey, severities: Severities | None) -> None:
    """Into the scans, or, where an issue of it refuses, into what is excluded."""
    for issue in scan.issues:
        if severity(issue.code, severities) is Severity.REFUSE:
            found.excluded.append(Excluded(scan.paths, issue.code, issue.detail, scan.scan_id))
            return
    found.scans.append(replace(scan, severities=dict(severities or {})))


def _common(planes: list[Plane]) -> Values:
    """One value per keyword: of numbers that vary the lower median, of others the most frequent."""
    values: Values = {}
    for keyword in dict.fromkeys(keyword for plane in planes for keyword in plane.values):
        seen = [plane.values[keyword] for plane in planes if keyword in plane.values]
        first = seen[0]
        if all(value == first for value in seen):
            values[keyword] = first
        elif all(isinstance(value, (int, float)) for value in seen):
            values[keyword] = median_low(seen)
        else:
            values[keyword] = Counter(map(repr, seen)).most_common(1)[0][0]
            values[keyword] = next(value for value in seen if repr(value) == values[keyword])
    return values


def _identity(planes: list[Plane]) -> Identity:
    first = planes[0].header.values
    text = {
        name: str(first.get(keyword, ""))
        for name, keyword in (
            ("patient_id", "PatientID"),
            ("patient_name", "PatientName"),
            ("study_uid", "StudyInstanceUID"),
            ("series_uid", "SeriesInstanceUID"),
            ("accession_number", "AccessionNumber"),
            ("study_date", "StudyDate"),
        )
    }
    return Identity(**text, sop_uids=tuple(dict.fromkeys(plane.uid for plane in planes)))

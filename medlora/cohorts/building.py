"""From an archive and a table of labels to a cohort: the steps of `check`, in order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medlora._version import __version__
from medlora.cohorts import folder as cohort_folder
from medlora.cohorts import marks, readings
from medlora.cohorts.assembling import cases_of, pictures, table_of
from medlora.cohorts.choosing import of_many, of_several, selected
from medlora.cohorts.copies import Copies, read_copies, same_images
from medlora.cohorts.formats import recognise
from medlora.cohorts.headings import unused_splits
from medlora.cohorts.index import Index, index_again
from medlora.cohorts.joined import NAMES, Join
from medlora.cohorts.joining import identifiers, join, relative
from medlora.cohorts.labels import LabelTable
from medlora.cohorts.left_out import Excluded
from medlora.cohorts.modality import with_modality
from medlora.cohorts.patients import Patients, patients_of
from medlora.cohorts.pixels import Pixels, may_show, read_pixels
from medlora.cohorts.places import Place, Places, read_places
from medlora.cohorts.rows import Rows, read_rows
from medlora.cohorts.selection import UNSETTLED
from medlora.cohorts.source import sources_of
from medlora.cohorts.splitting import with_splits
from medlora.errors import MedloraError
from medlora.progress import say, track

if TYPE_CHECKING:
    from medlora.cohorts.cohort import Cohort
    from medlora.scans import ScanFiles

THUMBNAILS_PER_CLASS = 12


def build(
    cls: type[Cohort],
    archive: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None,
    *,
    key: str | None,
    patient_column: str | None,
    label_column: str | Sequence[str] | None,
    uncertain: str | None,
    site: str | None,
    split_seed: int,
    split_column: str | None,
    fractions: Sequence[float] | None,
    select: str | None,
    coordinates: str | None,
    modality: str | None,
    update: str | os.PathLike[str] | None,
    workers: int | None,
) -> Cohort:
    """`Cohort.from_archive`, which documents the arguments."""
    archive = _folder(archive)
    source = recognise(labels) if labels is not None else None
    table = source.read() if source is not None and not source.needs_scans else None
    places = read_places(table, coordinates) if table is not None else None
    if source is None and (key or patient_column or label_column or uncertain or split_column):
        raise MedloraError(
            "there is no table of labels for --key, --patient-column, --label-column, --uncertain or --split-column",
            "add --labels",
        )
    excluded = Excluded()
    known = None if update is None else Path(update) / "private" / "index.sqlite"
    say(f"looking for scans in {archive}")
    headers = index_again(archive, known, workers)
    scans, copied = _survey(archive, headers, excluded)
    if source is not None and table is None:
        table = source.read(scans, archive, excluded.paths, copied)
        places = read_places(table, coordinates)
    if table is not None and table.format != "CSV":
        say(f"the labels were read as {table.format}: {len(table.frame)} rows")
    modality = modality or (table.modality if table is not None else None)
    scans = surveyed = [with_modality(scan, modality) for scan in scans]

    joined: Join | None = None
    rows, copies, unlabelled = Rows(), Copies(), 0
    asked: dict[str, Any] = {"key": key, "patient_column": patient_column, "label_column": None, "site": site}
    asked["split_column"] = split_column
    if table is not None:
        joined = join(table, scans, excluded.paths, archive, key, copied, patient_column)
        for line in joined.messages():
            say(line)
        rows, asked = read_rows(
            table, joined, asked, label_column=label_column, site=site, split_column=split_column, places=places,
            uncertain=uncertain,
        )  # fmt: skip
        told = [] if places is not None else rows.findings or [asked["label_column"]]
        copies = read_copies(table, joined, asked["patient_column"], told)
        unlabelled = _without_label(table, joined, rows, places, excluded) if places is not None else 0
        scans = _labelled(scans, joined, rows, excluded)
    elif site and site.startswith("="):
        rows.site = {scan.scan_id: site[1:] for scan in scans}
    choice = selected(scans, select, joined, excluded)
    scans = choice.scans
    if joined is not None and places is not None:
        _one_scan_each(scans, rows, joined, places)
    cases = {scan.scan_id for scan in scans}
    others = [scan for scan in surveyed if scan.scan_id not in cases]
    patients = patients_of(scans, rows.patient, None if joined is None else joined.scans, others)
    scans, pixels = _read_all(scans, rows, excluded, places, workers)
    frame = table_of(scans, rows, patients, pixels, table)

    salt = cohort_folder.new_salt()
    hashed = partial(cohort_folder.patient_hash, salt)
    frame["patient"] = [hashed(patients.key[scan_id]) for scan_id in frame["scan_id"]]
    info: dict[str, Any] = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "medlora": __version__,
        "archive": str(archive.resolve()),
        "labels": None if table is None else str(table.path.resolve()),
        "labels_sha256": None if table is None else table.digest,
        "labels_read_as": None
        if table is None
        else {"format": table.format, "encoding": table.encoding, "delimiter": table.delimiter},
        "modality": modality,
        "asked": asked,
        "join": None if joined is None else _join_info(joined),
        "patients": {**patients.info, "from": Counter(patients.origin[scan.scan_id] for scan in scans)},
        "issues": Counter(issue.code.name for scan in scans for issue in scan.issues),
        "select": choice.rule,
        "rows_without_choice": choice.rows_lost,
        "places_without_label": unlabelled,
        "rows_of_several": (0, 0) if joined is None or places is not None else of_several(scans, joined),
        "rows_of_many": (0, []) if joined is None or places is not None else of_many(scans, joined),
        "undecided": choice.undecided,
        "coordinates": None if places is None else places.system,
        "centres": readings.count(
            look.met for found in pixels.values() for look in found.places if look.met is not None
        ),
        "split": None,
        "unused_split": None if table is None or split_column else unused_splits(table),
    }
    if rows.findings:
        found = marks.uncertain_in(case.marks for case in cases_of(scans, rows))
        info["findings"] = {"uncertain_as": rows.uncertain, "uncertain": found}
    info["same_image"], info["same_image_scans"] = same_images(frame, pixels, copies, hashed)
    info["copies_in_conflict"] = len(copies.conflicts & set(frame["scan_id"]))
    info["source_check"], info["source_unasked"] = [], []
    if rows.cases:
        info["source_check"], info["source_unasked"] = sources_of(frame, scans, pixels, info["same_image"])
    left_out, paths_left_out = excluded.frames(archive)
    info["unsettled"] = dict(Counter(reason for reason in left_out["reason"] if reason.startswith(UNSETTLED)))
    private = cohort_folder.Private(_linkage(scans, archive, patients), paths_left_out, salt)
    cohort = cls(frame, left_out, info, private)
    cohort._index = headers
    cohort._files = {scan.scan_id: scan for scan in scans}
    cohort._places = pictures(rows, pixels)
    cohort._thumbnails = {scan_id: found.thumbnail for scan_id, found in pixels.items() if found.thumbnail}
    return with_splits(cohort, rows, split_seed, fractions)


def _folder(archive: str | os.PathLike[str]) -> Path:
    archive = Path(archive).absolute()
    if not archive.is_dir():
        why = "is a file, not a folder" if archive.exists() else "does not exist"
        raise MedloraError(f"the archive {archive} {why}", "give the folder that holds the scans")
    return archive


def _survey(archive: Path, headers: Index, excluded: Excluded) -> tuple[list[ScanFiles], dict[str, str]]:
    """The scans of an archive, sorted by scan_id and each once; and the files that are copies of theirs."""
    from medlora import scans as scans_room

    found = scans_room.survey(archive, headers=headers.headers())
    for item in (*headers.excluded, *found.excluded):
        excluded.add(item.scan_id or "", item.code.name, _sentence(item.code, item.reason), item.paths)
    unique: dict[str, ScanFiles] = {}
    copies: dict[str, str] = {}
    for scan in sorted(found.scans, key=lambda scan: (scan.scan_id, [str(path) for path in scan.paths])):
        if scan.scan_id in unique:
            excluded.add(scan.scan_id, "DuplicateScan", "a copy of another scan of the archive", scan.paths)
            copies |= {relative(path, archive): scan.scan_id for path in scan.paths}
        else:
            unique[scan.scan_id] = scan
    if not unique:
        if not excluded.paths:
            raise MedloraError(f"the archive {archive} is empty", "give the folder that holds the scans")
        why = Counter(
            f"{item.code.name}: {item.reason}"
            if item.code is scans_room.Code.NotAnImage and item.reason
            else item.code.name
            for item in (*headers.excluded, *found.excluded)
            for _ in item.paths
        )
        raise MedloraError(
            f"no scan could be found in the {len(excluded.paths)} files of {archive}: "
            + "; ".join(f"{reason} ({n})" for reason, n in why.most_common(5)),
            "give the folder that holds the scans (DICOM, NIfTI, MetaImage, PNG or JPEG)",
        )
    of_image = {uid: scan.scan_id for scan in unique.values() for uid in scan.identity.sop_uids}
    doubles = {path for item in found.excluded if item.code.name == "DuplicateFile" for path in item.paths}
    for header in headers.headers() if doubles else ():
        if header.path in doubles and (scan_id := of_image.get(header.values.get("SOPInstanceUID", ""))):
            copies[relative(header.path, archive)] = scan_id
    return list(unique.values()), copies


def _sentence(code: Any, detail: str) -> str:
    return f"{code.sentence}{f' ({detail})' if detail else ''}"


def _without_label(table: LabelTable, joined: Join, rows: Rows, places: Places, excluded: Excluded) -> int:
    """Name the places without a label in scans that have others with one; how many of them no format's rule left so."""
    labelled = {case.scan_id for case in rows.cases}
    answered = {case.place.row for case in rows.cases if case.place is not None}
    missing = set()
    for scan_id, numbers in joined.scans.items():
        for row in numbers:
            if row in table.reasons:
                excluded.add(scan_id, "NoLabel", f"{table.name(row)}: {table.reasons[row]}", ())
            elif scan_id in labelled and row in places.of_row and row not in answered:
                excluded.add(scan_id, "NoLabel", f"{table.name(row)} gives a centre and no label", ())
                missing.add(row)
    return len(missing)


def _labelled(scans: list[ScanFiles], joined: Join, rows: Rows, excluded: Excluded) -> list[ScanFiles]:
    kept, labelled = [], {case.scan_id for case in rows.cases}
    for scan in scans:
        if scan.scan_id in labelled:
            kept.append(scan)
            continue
        row = joined.scans.get(scan.scan_id)
        reason = rows.unknown.get(scan.scan_id) or (
            f"row {row[0]} of the table gives no label" if row else "no row of the table is about it"
        )
        excluded.add(scan.scan_id, "NoLabel", reason, scan.paths)
    if not kept:
        raise MedloraError(
            f"none of the {len(joined.scans)} matched scans has a label", "check the label column (--label-column)"
        )
    return kept


def _one_scan_each(scans: list[ScanFiles], rows: Rows, joined: Join, places: Places) -> None:
    """Refuse a centre whose row is about several scans: what lies in one of them need not lie in the others."""
    meant: dict[int, list[str]] = {}
    kept = {scan.scan_id for scan in scans}
    for case in rows.cases:
        if case.place is not None and case.scan_id in kept:
            meant.setdefault(case.place.row, []).append(case.scan_id)
    several = sorted(row for row, scan_ids in meant.items() if len(scan_ids) > 1)
    if several:
        row, *others = several
        raise MedloraError(
            f"{places.name(row)} gives a centre, but is about {len(meant[row])} scans by {NAMES[joined.key]} (column "
            f"{joined.column!r}), and it is not known in which of them the centre lies"
            + (f"; so it is with {len(others)} other rows" if others else ""),
            "add a column that tells the scans apart (file or series_uid), or choose among the scans of a study with "
            "--select",
        )


def _read_all(
    scans: list[ScanFiles], rows: Rows, excluded: Excluded, places: Places | None, workers: int | None
) -> tuple[list[ScanFiles], dict[str, Pixels]]:
    """Read all pixels once; scans that cannot be read are excluded."""
    shown: Counter[str] = Counter()
    wanted, examples = [], rows.examples
    of_scan: dict[str, list[Place]] = {}
    for case in rows.cases:
        if case.place is not None:
            of_scan.setdefault(case.scan_id, []).append(case.place)
    if places is not None and places.system != "voxel":
        _have_geometry(scans, of_scan, places)
    for scan in scans:
        names = examples.get(scan.scan_id, [""])
        if any(shown[name] < THUMBNAILS_PER_CLASS for name in names) and may_show(scan):
            shown.update(names)
            wanted.append(scan.scan_id)
    pixels: dict[str, Pixels] = {}
    kept = []
    outside: list[tuple[int, str]] = []
    reading = read_pixels(scans, wanted, of_scan, places.system if places else "ras", workers)
    for scan, found in zip(scans, track(reading, "reading scans", len(scans)), strict=True):
        if found.problem is not None:
            excluded.add(scan.scan_id, *found.problem, scan.paths)
        else:
            kept.append(scan)
            pixels[scan.scan_id] = found
            looked_up = zip(of_scan.get(scan.scan_id, ()), found.places, strict=True)
            outside += [(place.row, scan.scan_id) for place, look in looked_up if not look.inside]
    if outside:
        row, scan_id = min(outside)
        assert places is not None
        raise MedloraError(
            f"{places.name(row)}: the centre lies outside of its scan {scan_id}"
            + (f"; so do {len(outside) - 1} others" if len(outside) > 1 else ""),
            "check the row, and whether --coordinates is the system that the table is in",
        )
    if not kept:
        code, reason = found.problem or ("", "")
        raise MedloraError(f"none of the {len(scans)} scans could be read; the last one: {code}: {reason}")
    return kept, pixels


def _have_geometry(scans: list[ScanFiles], of_scan: dict[str, list[Place]], places: Places) -> None:
    from medlora.scans import Code

    without = [
        (place.row, scan.scan_id)
        for scan in scans
        if scan.kind == "image" or any(issue.code is Code.NoGeometry for issue in scan.issues)
        for place in of_scan.get(scan.scan_id, ())
    ]
    if without:
        row, scan_id = min(without)
        raise MedloraError(
            f"{places.name(row)} gives a centre in millimetres, but its scan {scan_id} does not say where it lies "
            "in the patient",
            "give the centres as voxel indices (--coordinates voxel)",
        )


def _linkage(scans: list[ScanFiles], archive: Path, patients: Patients) -> pd.DataFrame:
    rows = []
    for scan in scans:
        series, study = (next(iter(identifiers(scan, kind)), "") for kind in ("series", "study"))
        for path in scan.paths:
            rows.append(
                (scan.scan_id, relative(path, archive), str(Path(path).stat().st_size), series, study,
                 patients.key[scan.scan_id])
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(cohort_folder.LINKAGE), dtype=str)


def _join_info(joined: Join) -> dict[str, Any]:
    return {
        "key": joined.key,
        "column": joined.column,
        "rows": joined.rows,
        "matched": joined.matched,
        "scans": len(joined.scans),
        "unmatched_rows": joined.unmatched[:1000],
        "unmatched": len(joined.unmatched),
        "left_out_rows": joined.left_out[:1000],
        "messages": joined.messages(),
    }

"""The cohort: the table of cases, and the list of what was left out and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medlora.cohorts import folder as cohort_folder
from medlora.cohorts.folder import Private
from medlora.cohorts.labelling import Classes, Findings, labelling
from medlora.cohorts.splits import SPLITS, split_patients
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.cohorts.index import Index
    from medlora.scans import Scan, ScanFiles


class Cohort:
    """A table of cases with label, scan, patient, site and split; made by `from_archive` or `load`.

    Attributes:
        table: one row per case: ``case_id``, ``scan_id``, ``patient``, ``site``, ``label``, ``split``, ``x``, ``y``,
            ``z`` (RAS millimetres) and perhaps ``diameter`` (mm) where a case is a place, then acquisition columns.
            Where there are several findings, ``label`` is empty, and ``y_FINDING`` is 1, 0 or missing (unknown).
        excluded: what was left out: ``scan_id`` (empty where there is none), ``code``, ``reason``, ``files``.
        info: what was asked, the archive's root, counts, findings, versions (``cohort.json``).
        folder: where it was loaded from or saved to, or None.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        excluded: pd.DataFrame,
        info: dict[str, Any],
        private: Private,
    ) -> None:
        self.table = table
        self.excluded = excluded
        self.info = info
        self.folder: Path | None = None
        self._private = private
        self._files: dict[str, ScanFiles] = {}
        self._thumbnails: dict[str, bytes] = {}
        self._places: dict[str, bytes] = {}
        self._index: Index | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}  # a database does not travel

    # --- making ---

    @classmethod
    def from_archive(
        cls,
        archive: str | os.PathLike[str],
        labels: str | os.PathLike[str] | None = None,
        *,
        key: str | None = None,
        patient_column: str | None = None,
        label_column: str | Sequence[str] | None = None,
        uncertain: str | None = None,
        site: str | None = None,
        split_seed: int = 0,
        split_column: str | None = None,
        fractions: Sequence[float] | None = (0.6, 0.2, 0.2),
        select: str | None = None,
        coordinates: str | None = None,
        modality: str | None = None,
        update: str | os.PathLike[str] | None = None,
        workers: int | None = None,
    ) -> Cohort:
        """Make a cohort from a folder of scans and a table of labels, and check it.

        Args:
            archive: the folder of scans.
            labels: a CSV file, or a file or folder of annotations in one of the formats of `medlora.cohorts.formats`;
                without them the cohort has no labels and no splits.
            key: how rows are joined to scans: ``file``, ``sop``, ``series``, ``study``, ``accession``, ``patient``,
                a heading of the table, or ``kind=heading``; the first of these that matches where None.
            patient_column: heading of the patients, whose scans are kept in one split, beside DICOM's Patient ID; told
                by its name where None.
            label_column: heading of the labels, told by its name where None; or headings of several findings, as a
                list or separated by commas, whose cells are 1 (present), 0 (absent), -1 (uncertain) or empty (unknown).
            uncertain: what uncertain findings are taken as: ``unknown`` (where None), ``absent`` or ``present``.
            site: heading of the sites, or ``=NAME`` for one site of that name; told by its name where None.
            split_seed: of the draw of the splits.
            split_column: heading of splits that the user has made, instead of a draw.
            fractions: of cases in ``train``, ``tune`` and ``test``; None for no drawn splits.
            select: rule that picks one scan of each study (see `medlora.cohorts.selection`).
            coordinates: where rows give the centre of a place (x, y, z), its coordinate system: ``lps``, ``ras`` or
                ``voxel`` (see `medlora.cohorts.places`); each such row is a case.
            modality: DICOM's Modality of the files that have no room to say it (NIfTI, MetaImage, PNG, JPEG).
            update: an earlier cohort folder, whose salt and index are used again.
            workers: number of processes; as many as there are processors, at most 8, where None.

        Raises:
            MedloraError: the archive or the table cannot be used; the message says why and what to do.
        """
        from medlora.cohorts.building import build

        _are_paths(archive, labels)
        return build(
            cls, archive, labels, key=key, patient_column=patient_column, label_column=label_column,
            uncertain=uncertain, site=site, split_seed=split_seed, split_column=split_column, fractions=fractions,
            select=select, coordinates=coordinates, modality=modality, update=update, workers=workers,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Cohort:
        """Load a cohort folder.

        Raises:
            MedloraError: it is not one, or is damaged.
        """
        contents = cohort_folder.read(folder)
        cohort = cls(contents.table, contents.excluded, contents.info, contents.private)
        cohort.folder = Path(folder)
        return cohort

    @property
    def _pictures(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """PNG images by scan_id (examples) and by case_id (places), those of a loaded cohort from its page."""
        from medlora.cohorts.page import pictures_in

        if not self._thumbnails and not self._places and self.folder is not None:
            self._thumbnails, self._places = pictures_in(self.folder / "check.html")
        return self._thumbnails, self._places

    # --- asking ---

    @property
    def labelling(self) -> Classes | Findings:
        """How its cases are labelled: one class each, or several findings."""
        return labelling(self.table)

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted; or the findings, as they were named."""
        return self.labelling.names

    @property
    def warnings(self) -> list[str]:
        """What check found worth saying, one sentence each."""
        return list(self.info.get("warnings", []))

    @property
    def errors(self) -> list[str]:
        """What check found that makes results wrong (a patient in two splits), one sentence each."""
        return list(self.info.get("errors", []))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        counts = ", ".join(f"{label}: {n}" for n, label in self.labelling.counts()) + self.labelling.unit
        patients = self.table["patient"].nunique()
        return f"Cohort({len(self)} cases of {patients} patients{f' ({counts})' if self.classes else ''})"

    def _repr_html_(self) -> str:
        from medlora.cohorts.page import summary_html

        return summary_html(self)

    # --- splits ---

    def split(self, seed: int = 0, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> Cohort:
        """A copy with splits drawn by patient, stratified by label or finding (see `splits.split_patients`).

        Raises:
            MedloraError: the cohort has no labels, or a class has too few patients.
        """
        if not self.classes:
            raise MedloraError("a cohort without labels cannot be split", "give labels to from_archive")
        from medlora.cohorts.findings import with_findings

        table = self.table.copy()
        try:
            table["split"] = split_patients(
                table["scan_id"], self._groups(), self.labelling.strata(), seed=seed, fractions=fractions
            )
        except MedloraError as error:
            if not self.info["same_image"]:
                raise
            raise MedloraError(
                f"{error.what} (patients who share an identical image count as one: "
                f"{sum(map(len, self.info['same_image']))} do)",
                error.fix,
            ) from None
        asked = {"by": "draw", "seed": seed, "fractions": list(fractions)}
        return with_findings(self._with(table, {**self.info, "split": asked}))

    def subset(self, split: str) -> Cohort:
        """A copy with the cases of one split.

        Raises:
            MedloraError: there is no such split.
        """
        table = self.table[self.table["split"] == split].reset_index(drop=True)
        if table.empty:
            there = [name for name in SPLITS if (self.table["split"] == name).any()]
            raise MedloraError(
                f"the cohort has no cases of the split {split!r}", f"it has: {', '.join(there) or 'none'}"
            )
        return self._with(table, self.info)

    def _groups(self) -> list[str]:
        """For each case the group that must not be cut by a split: its patient, and patients with the same image."""
        together = self.info.get("same_image", [])
        group = {patient: min(patients) for patients in together for patient in patients}
        return [group.get(patient, patient) for patient in self.table["patient"]]

    def _with(self, table: pd.DataFrame, info: dict[str, Any]) -> Cohort:
        cohort = Cohort(table, self.excluded, info, self._private)
        cohort._files, cohort._index = self._files, self._index
        cohort._thumbnails, cohort._places = self._pictures
        return cohort

    # --- scans ---

    def files(self, scan_id: str) -> ScanFiles:
        """The files of a scan, found again in the archive.

        Raises:
            MedloraError: they are gone or have changed.
        """
        if scan_id in self._files:
            return self._files[scan_id]
        from medlora import scans
        from medlora.cohorts.modality import with_modality

        if scan_id not in self._private.rows:
            raise MedloraError(f"the cohort has no scan {scan_id}")
        rows = self._private.linkage.take(self._private.rows[scan_id])
        root = Path(self.info["archive"])
        fix = f"bring the archive back to {root}, or run medlora check again"
        paths = [root / path for path in rows["path"]]
        for path, size in zip(paths, rows["size"], strict=True):
            try:
                same = path.stat().st_size == int(size)
            except OSError:
                raise MedloraError(f"a file of scan {scan_id} is gone from the archive", fix) from None
            if not same:
                raise MedloraError(f"a file of scan {scan_id} is no longer what it was when it was checked", fix)
        found = [scan for scan in scans.survey(paths).scans if scan.scan_id == scan_id]
        if not found:
            raise MedloraError(f"the files of scan {scan_id} are no longer what they were when checked", fix)
        self._files[scan_id] = with_modality(found[0], self.info.get("modality"))
        return self._files[scan_id]

    def scan(self, scan_id: str) -> Scan:
        """Load a scan.

        Raises:
            MedloraError: its files are gone or have changed.
            medlora.scans.ScanError: its pixels cannot be read.
        """
        return self.files(scan_id).load()

    # --- keeping ---

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the cohort folder, whole or not at all; an earlier cohort there is updated and keeps its salt.

        Raises:
            MedloraError: ``folder`` holds something else and ``overwrite`` is not given, holds the archive or the
                labels, or cannot be written.
        """
        from medlora.cohorts.page import render

        folder = Path(folder)
        cohort_folder.may_write(
            folder, overwrite, [self.info[name] for name in ("archive", "labels") if self.info[name]]
        )
        if cohort_folder.is_cohort(folder):
            self._take_salt(folder)
        contents = cohort_folder.Contents(self.table, self.excluded, self.info, self._private)
        keep_index = None if self._index is None else self._index.save
        cohort_folder.write(folder, contents, render(self), keep_index, overwrite=overwrite)
        self.folder = folder
        return folder

    def _take_salt(self, folder: Path) -> None:
        """Name the patients as the earlier cohort in ``folder`` does."""
        try:
            salt = bytes.fromhex((folder / "private" / "salt").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return  # damaged; it is replaced
        old = self._private.salt
        if len(salt) != len(old) or salt == old:
            return
        names = {
            cohort_folder.patient_hash(old, patient): cohort_folder.patient_hash(salt, patient)
            for patient in self._private.linkage["patient_id"].unique()
        }
        self.table = self.table.assign(patient=self.table["patient"].map(names))
        together = [sorted(names[patient] for patient in group) for group in self.info.get("same_image", [])]
        self.info = {**self.info, "same_image": together}
        self._private = replace(self._private, salt=salt)


def _are_paths(archive: object, labels: object) -> None:
    """Refuse what is no path, or an empty one, which would mean the current folder."""
    if not isinstance(archive, (str, os.PathLike)) or not os.fspath(archive):
        raise MedloraError("the archive is no path, or an empty one", "give the folder that holds the scans")
    if labels is not None and (not isinstance(labels, (str, os.PathLike)) or not os.fspath(labels)):
        what = "an empty path" if isinstance(labels, str) else f"a {type(labels).__name__}, not a path"
        raise MedloraError(
            f"labels is {what}: labels are read from a file, so that a cohort can be traced to it",
            "save the table as CSV (pandas: table.to_csv('labels.csv', index=False)), and give the path of the file",
        )

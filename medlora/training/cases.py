"""The labelled cases of a cohort that a training uses, with their class numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from medlora.errors import MedloraError
from medlora.training.task import OneOf, Task, task_of

if TYPE_CHECKING:
    from medlora.cohorts import Cohort
    from medlora.transforms import Centre


class Where(NamedTuple):
    """What the image of a case is made from: a scan, or a place in it (RAS+ millimetres)."""

    scan_id: str
    centre: Centre | None = None

    def __str__(self) -> str:
        return self.scan_id


def where(table: pd.DataFrame) -> list[Where]:
    """Scan and, where cases are places, centre of each row of a cohort's table."""
    if not has_places(table):
        return [Where(scan_id) for scan_id in table["scan_id"]]
    rows = zip(table["scan_id"], table["x"], table["y"], table["z"], strict=True)
    return [Where(scan_id, (float(x), float(y), float(z))) for scan_id, x, y, z in rows]


def has_places(table: pd.DataFrame) -> bool:
    """Whether the cases of a cohort's table are places in scans."""
    return "x" in table and bool(table["x"].notna().any())


@dataclass(frozen=True)
class TrainingCases:
    """Cases with a label and a split.

    Attributes:
        table: the cohort's table, without cases that say nothing about these classes.
        classes: names of classes or findings, in the order of the outputs; of two classes the last is the positive one.
    """

    table: pd.DataFrame
    classes: list[str]

    @property
    def task(self) -> Task:
        """What is asked about them."""
        return task_of(self.table, self.classes)

    def rows(self, split: str) -> pd.DataFrame:
        """The cases of ``split`` as predictions begin: case_id, scan_id, patient, site, and the truth."""
        chosen = self.table[self.table["split"] == split]
        out = chosen[["case_id", "scan_id", "patient", "site"]].reset_index(drop=True)
        return pd.concat([out, self.task.truth(chosen)], axis=1)

    def of(self, split: str) -> list[Where]:
        """Where the images of ``split`` are made from."""
        return where(self.table[self.table["split"] == split])

    def labels(self, split: str) -> np.ndarray:
        """What the loss compares with: class numbers of ``split``, int64 (N,), or findings, float32 (N, K)."""
        return self.task.targets(self.table[self.table["split"] == split])

    def counts(self) -> dict[str, dict[str, int]]:
        """Cases by split and class, or by split and whether a finding is present or absent."""
        return {str(split): self.task.counts(rows) for split, rows in self.table.groupby("split", sort=False)}

    def cases(self) -> dict[str, int]:
        """Cases by split."""
        return {str(split): len(rows) for split, rows in self.table.groupby("split", sort=False)}

    def patients(self) -> dict[str, int]:
        """Patients by split."""
        return {str(split): int(rows["patient"].nunique()) for split, rows in self.table.groupby("split", sort=False)}

    @property
    def places(self) -> bool:
        """Whether the cases are places in scans."""
        return has_places(self.table)

    @property
    def modalities(self) -> set[str]:
        """DICOM's Modality of the scans; the empty word where a file has none."""
        return set(self.table["Modality"].fillna("").astype(str)) if "Modality" in self.table else {""}

    @property
    def views(self) -> list[str]:
        """DICOM's View Position of the training scans, as far as the files say."""
        training = self.table[self.table["split"] == "train"]
        return sorted(set(training["ViewPosition"].astype(str)) - {""}) if "ViewPosition" in training else []

    @property
    def phantom(self) -> bool:
        """Whether these are phantoms; their figures must then say so."""
        return is_phantom(self.table)


def is_phantom(table: pd.DataFrame) -> bool:
    """Whether all scans of a cohort's table say by their Manufacturer that they are phantoms."""
    makers = table.get("Manufacturer")
    return makers is not None and len(makers) > 0 and bool(makers.astype(str).str.contains("phantom", case=False).all())


# Labels that mean the absence of a finding; the other of two classes is then the positive one.
_NEGATIVE = frozenset(
    {"normal", "negative", "neg", "no", "none", "0", "absent", "benign", "healthy", "control", "false"}
)


def ordered(classes: list[str]) -> list[str]:
    """Classes in the order of the outputs: a label that means absence first, the rest as they sort."""
    return sorted(classes, key=lambda name: (name.strip().lower() not in _NEGATIVE, name))


def select_cases(cohort: Cohort, classes: list[str] | None) -> TrainingCases:
    """The cases of ``classes``, checked to be enough to train and tune on.

    Args:
        cohort: with labels and splits.
        classes: labels to tell apart, in order; none for all of them, ordered by :func:`ordered`. Or findings to
            answer for; none for all, as they were named.

    Raises:
        MedloraError: a class is unknown or has no cases where they are needed, or a patient is in two splits.
    """
    if not cohort.classes:
        raise MedloraError("the cohort has no labels, so there is nothing to train", "run medlora check with --labels")
    if cohort.errors:
        raise MedloraError(f"the cohort is not fit to train on: {cohort.errors[0]}", "see its check.html")
    exclusive = isinstance(task_of(cohort.table, cohort.classes), OneOf)
    chosen = list(dict.fromkeys(classes or ())) or (ordered(cohort.classes) if exclusive else cohort.classes)
    unknown = [name for name in chosen if name not in cohort.classes]
    if unknown:
        raise MedloraError(
            f"the cohort has no {'cases of' if exclusive else 'finding'} {', '.join(map(repr, unknown))}",
            f"its {'classes' if exclusive else 'findings'} are: {', '.join(cohort.classes)}",
        )
    if exclusive and len(chosen) < 2:
        raise MedloraError(f"there is one class only, {chosen[0]!r}", "labels of at least two classes are needed")
    task = task_of(cohort.table, chosen)
    cases = TrainingCases(cohort.table[task.has_label(cohort.table)].reset_index(drop=True), chosen)
    counts = cases.counts()
    for split in ("train", "tune"):
        missing = [name for name in task.counts(cases.table) if not counts.get(split, {}).get(name)]
        if missing:
            raise MedloraError(
                f"the split {split!r} has no case of {', '.join(map(repr, missing))}",
                "run medlora check with another --split-seed, or with more patients of that class"
                + ("" if exclusive else "; or train the other findings alone (--classes)"),
            )
    return cases

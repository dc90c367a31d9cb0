"""What check says about a cohort: warnings, and errors that make results wrong, one sentence each."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from medlora.cohorts import marks, readings
from medlora.cohorts.labelling import Findings
from medlora.cohorts.source import source_warnings
from medlora.cohorts.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd

    from medlora.cohorts.cohort import Cohort

FEW = 10  # patients of a class in a split, below which an interval says next to nothing


def with_findings(cohort: Cohort) -> Cohort:
    """``cohort`` with its counts, warnings and errors brought up to date."""
    cohort.info = {
        **cohort.info,
        "classes": cohort.classes,
        "counts": _counts(cohort),
        "warnings": _warnings(cohort),
        "errors": _errors(cohort),
    }
    return cohort


def _n(n: int, singular: str, plural: str | None = None) -> str:
    """``n`` with its noun: "1 scan has", "2 scans have"."""
    return f"{n} {singular if n == 1 else plural or singular + 's'}"


def _counts(cohort: Cohort) -> dict[str, Any]:
    table = cohort.table
    by = [
        {"label": label, "split": split, "cases": len(part), "patients": int(part["patient"].nunique())}
        for label, of_label in cohort.labelling.groups()
        for split, part in of_label.groupby("split")
    ]
    return {
        "cases": len(table),
        "scans": int(table["scan_id"].nunique()),
        "patients": int(table["patient"].nunique()),
        "excluded": {code: int(n) for code, n in cohort.excluded["code"].value_counts().items()},
        "by_label_and_split": by,
    }


def _errors(cohort: Cohort) -> list[str]:
    table, several = cohort.table, isinstance(cohort.labelling, Findings)
    lines = [line for line, certain in _about_centres(cohort) if certain] + ([] if several else _alike(cohort))
    split = table[table["split"] != ""]
    if split.empty:
        return lines
    torn = int((split.groupby("patient")["split"].nunique() > 1).sum())
    if torn:
        lines.append(
            f"{_n(torn, 'patient has', 'patients have')} scans in more than one split, "
            "so results would be too good to be true"
        )
    where = dict(zip(table["scan_id"], table["split"], strict=True))
    across = sum(len({where.get(s, "") for s in group} - {""}) > 1 for group in cohort.info["same_image_scans"])
    if across:
        lines.append(f"{_n(across, 'image occurs', 'images occur')} in more than one split, under different scans")
    return lines if several else [*lines, *_gaps(cohort)]


def _alike(cohort: Cohort) -> list[str]:
    """Classes that are most likely one, written in several ways; of findings, which are columns, this but warns."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in cohort.classes:
        alike[_folded(label)].append(label)
    return [
        f"the classes {' and '.join(map(repr, labels))} differ only in writing: write them alike, or rename one"
        for labels in alike.values()
        if len(labels) > 1
    ]


def _gaps(cohort: Cohort) -> list[str]:
    """Splits without a case of a class. Of findings the others can be trained, so that it is a warning."""
    splits = [name for name in SPLITS if (cohort.table["split"] == name).any()]
    lines = []
    for label, part in _strata(cohort):
        missing = [name for name in splits if name not in set(part["split"])]
        if missing:
            lines.append(f"the class {label!r} has no case in {' and '.join(missing)}")
    return lines


def _strata(cohort: Cohort) -> list[tuple[str, pd.DataFrame]]:
    """The cases of each class; of each finding, where it is present and where it is absent."""
    labelling = cohort.labelling
    groups = dict(labelling.groups())
    return [(name, groups.get(name, cohort.table[:0])) for name in labelling.counted]


def _warnings(cohort: Cohort) -> list[str]:
    return [
        *_about_join(cohort),
        *_about_findings(cohort),
        *(line for line, certain in _about_centres(cohort) if not certain),
        *_about_patients(cohort),
        *_about_classes(cohort),
        *_about_sites(cohort),
        *_about_images(cohort),
        *source_warnings(cohort.info["source_check"]),
    ]


def _about_join(cohort: Cohort) -> list[str]:
    info = cohort.info  # of older versions some of it is not there
    lines = info["join"]["messages"][1:] if info["join"] else []
    lines += [
        f"{_n(count, 'scan was', 'scans were')} left out, of studies where no one scan can be chosen: {reason}"
        for reason, count in sorted(info.get("unsettled", {}).items())
    ]
    if unchosen := info.get("rows_without_choice"):
        rows = _n(unchosen, "row gives", "rows give")
        lines.append(f"{rows} no case, since no scan of theirs meets the rule {info['select']!r}")
    if missing := info.get("places_without_label"):
        lines.append(f"{_n(missing, 'place has', 'places have')} a centre but no label; see excluded.csv")
    several, scans = info.get("rows_of_several", (0, 0))
    if several:
        rows = _n(
            several,
            "row is about several studies, and gives its",
            "rows are about several studies each, and give their",
        )
        lines.append(f"{rows} label to all: {scans} scans")
    if undecided := info.get("undecided"):
        fields = ", ".join(f"{name} ({_n(n, 'study', 'studies')})" for name, n in undecided.items())
        lines.append(
            "several scans of a study meet the rule of selection and one of them was taken, though they differ in "
            f"{fields}; a word of the rule would decide (--select)"
        )
    many, names = found if isinstance(found := info.get("rows_of_many", 0), (tuple, list)) else (found, [])
    if many and not several:
        rows = _n(many, "row gives its label to several scans", "rows give their label to several scans each")
        called = f" ({', '.join(names)})" if names else ""
        lines.append(f"{rows}{called}; --select picks among them, by name if need be (--select file=NAME)")
    split = info.get("split") or {}
    if part := split.get("tune_from_train"):
        lines.append(
            f"the column of splits has no 'tune': {part:.0%} of the patients of its 'train' were drawn as tune (seed "
            f"{split['seed']})"
        )
    if why := split.get("no_tune"):
        lines.append(
            f"the column of splits has no 'tune', without which nothing can be trained, and none can be drawn from its "
            f"'train': {why}"
        )
    if split.get("by") == "column" and not (cohort.table["split"] == "test").any():
        lines.append("the column of splits has no 'test', so that nothing is left to test a model on")
    if unused := info.get("unused_split"):
        lines.append(f"the splits of the column {unused!r} were not used; --split-column takes them")
    return lines


def _about_findings(cohort: Cohort) -> list[str]:
    if not isinstance(cohort.labelling, Findings):
        return []
    said = marks.sentence(cohort.info.get("findings"))
    return ([said] if said else []) + _gaps(cohort)


def _about_centres(cohort: Cohort) -> list[tuple[str, bool]]:
    found = readings.sentence(cohort.info.get("centres"), cohort.info.get("coordinates"))
    return [found] if found else []


def _about_patients(cohort: Cohort) -> list[str]:
    info, lines = cohort.info["patients"], []
    csv = (cohort.info.get("labels_read_as") or {}).get("format") == "CSV"
    remedy = "; --patient-column names the column of the table that knows" if csv else ""
    for origin, counted in (
        ("none", "each counts as its own patient"),
        ("together", "those of one study, or of one row, count as one patient"),
    ):
        if n := info["from"].get(origin):
            lines.append(
                f"{_n(n, 'scan has', 'scans have')} no patient ID, neither in the file nor in a column of the table "
                f"known for that: {counted}, so the same patient may be in several splits{remedy}"
            )
    if info["placeholders"]:
        lines.append(
            f"{_n(info['placeholders'], 'scan has', 'scans have')} a placeholder as Patient ID, which was taken as none"
        )
    if nobody := info.get("nobody"):
        lines.append(
            f"{_n(nobody, 'scan has', 'scans have')} a placeholder as patient in the table, which was taken as none"
        )
    if info["alike"]:
        lines.append(
            f"{info['alike']} patient IDs differ from another one only by leading zeros, a trailing .0 or case; "
            "they count as different patients"
        )
    if info["shortened"]:
        lines.append(
            f"{info['shortened']} patient IDs of the table are numbers that a spreadsheet has shortened (as in "
            "1.23E+08); scans that share one count as one patient"
        )
    if info.get("tied"):  # these not in cohorts of older versions
        lines.append(
            f"{_n(info['tied'], 'patient of the table has', 'patients of the table have')} scans under several DICOM "
            "Patient IDs, and counts as one patient: the table was followed"
        )
    if info.get("strangers"):
        lines.append(
            f"{_n(info['strangers'], 'DICOM Patient ID has', 'DICOM Patient IDs have')} scans of people of other names "
            "or of both sexes, as where two hospitals number alike; each counts as one patient"
        )
    if info.get("together"):
        lines.append(
            f"{_n(info['together'], 'DICOM Patient ID has', 'DICOM Patient IDs have')} scans of several patients of "
            "the table, and counts as one patient; if it is a placeholder, empty it in the files"
        )
    return lines


def _about_classes(cohort: Cohort) -> list[str]:
    lines = _alike(cohort) if isinstance(cohort.labelling, Findings) else []
    for split in ("tune", "test"):
        patients = {label: part.loc[part["split"] == split, "patient"].nunique() for label, part in _strata(cohort)}
        few = [f"{label!r} ({n})" for label, n in patients.items() if 0 < n < FEW]
        if few:
            lines.append(f"fewer than {FEW} patients in {split}, so intervals will be wide: {', '.join(few)}")
    return lines


def _folded(label: str) -> str:
    try:
        return repr(float(label))
    except ValueError:
        return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def _about_sites(cohort: Cohort) -> list[str]:
    table = cohort.table[cohort.table["site"] != ""]
    lines = []
    if table["site"].nunique() > 1:
        several = int((table.groupby("patient")["site"].nunique() > 1).sum())
        if several:
            lines.append(
                f"{_n(several, 'patient has', 'patients have')} scans at more than one site; each counts as one patient"
            )
        strata = _strata(cohort)
        for label, rows in strata:
            part = rows[rows["site"] != ""]
            if part["site"].nunique() == 1 and len(strata) > 1:
                lines.append(f"all scans with the label {label!r} come from the site {part['site'].iloc[0]!r}")
    return lines


def _about_images(cohort: Cohort) -> list[str]:
    lines = []
    table = cohort.table
    strata = dict(zip(table["scan_id"], cohort.labelling.strata(), strict=True))
    groups = cohort.info["same_image_scans"]
    if groups:
        copies = sum(map(len, groups)) - len(groups)
        lines.append(f"{_n(copies, 'scan is', 'scans are')} pixel for pixel the same as another one")
    if cohort.info["same_image"]:
        drawn = (cohort.info.get("split") or {}).get("by") == "draw"
        lines.append(
            f"{sum(map(len, cohort.info['same_image']))} patients share an image with another patient"
            + ("; they are kept in one split" if drawn else "")
        )
    conflicts = sum(cohort.labelling.conflict([strata.get(scan_id, ()) for scan_id in group]) for group in groups)
    conflicts += cohort.info.get("copies_in_conflict", 0)  # not in cohorts of older versions
    if conflicts:
        lines.append(f"{_n(conflicts, 'image occurs', 'images occur')} with different labels")
    if "Modality" in table and table["Modality"].nunique() > 1:
        lines.append(f"the cohort mixes modalities: {', '.join(sorted(table['Modality'].dropna().unique()))}")
    for code, n in sorted(cohort.info["issues"].items()):
        lines.append(f"{_n(n, 'scan has', 'scans have')} the issue {code}")
    return lines

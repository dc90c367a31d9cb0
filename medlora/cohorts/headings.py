"""Which column of a hospital's table is what, told by its heading."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medlora.cohorts.joined import key_option
from medlora.cohorts.labels import LabelTable, is_missing, plain
from medlora.cohorts.splits import split_name
from medlora.errors import MedloraError

KEYS: dict[str, tuple[str, ...]] = {
    "file": (
        "file", "path", "filename", "filepath", "image", "imagepath", "imagefile", "imagefilepath", "imageindex",
        "imagename", "imageid", "dicom", "dicompath", "dicomfile", "dicomid", "dcm", "dcmpath", "nifti", "niftipath",
        "folder", "foldername", "directory", "dir", "ファイル", "ファイル名",
    ),
    "sop": ("sopinstanceuid", "sopuid", "instanceuid", "imageuid"),
    "series": ("seriesinstanceuid", "seriesuid", "series"),
    "study": ("studyinstanceuid", "studyuid", "study"),
    "accession": ("accessionnumber", "accession", "accessionno", "accno", "accnum", "acc", "検査番号", "受付番号"),
    "patient": (
        "patientid", "patient", "patientnumber", "patid", "pid", "subjectid", "subject", "participantid", "mrn",
        "patientenid", "patientennummer", "patientennr", "idpatient", "idpaciente", "pacienteid", "患者id", "患者番号",
        "カルテ番号",
    ),
}  # fmt: skip
"""Headings (in lower case, letters and digits only) by kind of key, in the order in which keys are tried."""

SITES = ("site", "hospital", "centre", "center", "institution", "施設", "病院")
LABELS = (
    "label", "labels", "class", "diagnosis", "finding", "findings", "findinglabels", "target", "category", "diagnose",
    "klasse", "classe", "étiquette", "diagnóstico", "diagnostico", "clase", "etiqueta", "診断", "診断名", "ラベル",
)  # fmt: skip
PARTICIPANT = "participantid"
"""Of BIDS, whose participants.tsv tells subjects by the names of their folders."""

_PERSONAL = re.compile(
    r"(?<![^\W_])(name|names|date|dates|dob|birth|birthdate|birthday|patientname|patientsname|age"
    r"|(study|exam|scan|visit|acq|acquisition)date|(geburts|untersuchungs)?datum)(?![^\W_])"
    r"|氏名|名前|生年月日|日付",
    re.IGNORECASE,
)
_OF_OTHERS = re.compile("|".join((*LABELS, *SITES, "disease", "病")), re.IGNORECASE)

_UPPER = 5  # rows of a table among which the one of its headings is looked for, where the first is not
_WITHOUT = re.compile(r"column \d+")  # as `read_table` calls columns without a heading

SPLITS = ("split", "fold", "set", "subset", "partition")


_DATA = re.compile(r"\.(dcm|dicom|nii|nii\.gz|mh[ad]|png|jpe?g)$|^[\d.,/-]+$|\^", re.IGNORECASE)


def key_columns(table: LabelTable) -> dict[str, str]:
    """The columns that can join rows to scans: kind of key → heading, in the order in which they are tried."""
    return {kind: columns[0] for kind, columns in all_key_columns(table).items()}


def all_key_columns(table: LabelTable) -> dict[str, list[str]]:
    """Those of `key_columns`, and the other columns of each kind."""
    if table.keys is not None:
        return {kind: [heading] for kind, heading in table.keys.items()}
    found = {kind: columns for kind, names in KEYS.items() if (columns := columns_of(table, names))}
    if "file" not in found and "patient" in found and names_folders(table, found["patient"][0]):
        found["file"] = found["patient"][:1]  # the last to be tried
    return found


def names_folders(table: LabelTable, column: str) -> bool:
    """Whether a column of patients names the folders of BIDS."""
    cells = [cell for cell in table.frame[column] if not is_missing(cell)]
    return plain(column) == PARTICIPANT or (bool(cells) and all(cell.startswith("sub-") for cell in cells))


def asked_key(table: LabelTable, key: str) -> tuple[str, str]:
    """What ``--key`` means: a kind (``patient``), a heading (``PatientID``), or both (``patient=Case no.``).

    Returns:
        The kind of key and the heading.

    Raises:
        MedloraError: it means neither.
    """
    kinds = ", ".join(KEYS)
    kind, equals, name = key.partition("=")
    if equals and kind in KEYS:
        return kind, table.column(name, f"--key {key}")
    columns = key_columns(table)
    if key in KEYS and key in columns:
        return key, columns[key]
    if key in KEYS and not any(plain(heading) == plain(key) for heading in table.frame.columns):
        raise MedloraError(
            f"--key {key}: no column of {table.path.name} has a heading known for that",
            f"name it: --key {key}=COLUMN, one of {', '.join(map(repr, table.frame.columns))}",
        )
    column = table.column(key, "--key")
    for known, names in KEYS.items():
        if plain(column) in names:
            return known, column
    raise MedloraError(
        f"--key {key}: what the column {column!r} identifies is not clear from its heading",
        f"say which of {kinds} it is, e.g. {key_option('patient', column)}",
    )


def site_column(table: LabelTable) -> str | None:
    """The column of sites, or None."""
    return _first(table, SITES)


def label_column(table: LabelTable, taken: set[str]) -> str:
    """The column of labels: by its heading, else the only one that is nothing else.

    Raises:
        MedloraError: no column, or more than one, may be meant.
    """
    found = [heading for heading in table.frame.columns if plain(heading) in LABELS and heading not in taken]
    rest = [heading for heading in table.frame.columns if heading not in taken]
    if len(found) != 1 and len(rest) == 1 and not is_personal(rest[0]):
        found = rest
    if len(found) != 1:
        raise MedloraError(
            f"which column of {table.path.name} holds the labels is not clear",
            f"name it with --label-column, one of {', '.join(map(repr, rest)) or '(none is left)'}"
            "; several, separated by commas, are findings that can occur together",
        )
    return found[0]


def is_personal(heading: str) -> bool:
    """Whether a heading says who a patient is, or when: such a column is never taken for labels, or as sites."""
    return bool(_PERSONAL.search(heading.replace("'", ""))) and not _OF_OTHERS.search(heading)


def unused_splits(table: LabelTable) -> str | None:
    """A column that holds nothing but names of splits, or None."""
    column = _first(table, SPLITS)
    if column is None:
        return None
    cells = {cell for cell in table.frame[column] if not is_missing(cell)}
    return column if len(cells) > 1 and all(split_name(cell) for cell in cells) else None


def headings_below(table: LabelTable) -> str:
    """What to do about a table without a key whose headings seem to stand further down, as below a title; or empty."""
    known = {name for names in KEYS.values() for name in names}
    for column in table.frame.columns:
        for row, cell in table.frame[column].iloc[:_UPPER].items():
            # a class of patients is there more than once
            if plain(cell) in known and sum(plain(other) == plain(cell) for other in table.frame[column]) == 1:
                return f"the headings seem to be in row {row}: remove the rows above it"
    without = sum(bool(_WITHOUT.fullmatch(heading)) for heading in table.frame.columns)
    return "if the headings are in another row than the first, remove the rows above it" if without > 1 else ""


def has_no_heading(table: LabelTable) -> bool:
    """Whether the first row looks like those below it: it names a file, or a person as DICOM does, or holds a number or
    a date, or digits where the cells below have them."""
    return any(_DATA.search(heading) or _is_like(heading, table.frame[heading]) for heading in table.frame.columns)


def _is_like(heading: str, cells: Iterable[str]) -> bool:
    forms = [re.sub(r"\d", "0", cell) for cell in cells]
    return any(map(str.isdigit, heading)) and forms.count(re.sub(r"\d", "0", heading)) > len(forms) / 2


def columns_of(table: LabelTable, names: tuple[str, ...]) -> list[str]:
    """The headings that are among the names, in the order of these."""
    return [heading for name in names for heading in table.frame.columns if plain(heading) == name]


def _first(table: LabelTable, names: tuple[str, ...]) -> str | None:
    return next(iter(columns_of(table, names)), None)

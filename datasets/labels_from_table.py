"""Make a labels CSV of the table that a public set comes with: one image a row, its label or findings, its patient.

    python datasets/labels_from_table.py CheXpert-v1.0-small/train.csv -o labels.csv --file Path
        --patient "(patient[0-9]+)" --label "Pleural Effusion" --values 1.0=effusion 0.0=none
        --where Frontal/Lateral=Frontal
    python datasets/labels_from_table.py Data_Entry_2017_v2020.csv -o labels.csv --file "Image Index"
        --patient-column "Patient ID" --label "Finding Labels" --contains Pneumonia=pneumonia --else other
    python datasets/labels_from_table.py CheXpert-v1.0-small/train.csv -o labels.csv --file Path
        --patient "(patient[0-9]+)" --findings "Atelectasis,Edema" --where Frontal/Lateral=Frontal
    python datasets/labels_from_table.py Data_Entry_2017_v2020.csv -o labels.csv --file "Image Index"
        --patient-column "Patient ID" --label "Finding Labels" --findings "Atelectasis,Effusion"

With --findings each finding gets a column: that of its name in the table, as it is (1, 0, -1, empty); or, with --label,
1 where the value, parts joined by |, holds it, else 0. `medlora check --label-column` takes these columns.

Without it rows whose value is not named (CheXpert's -1, uncertain, and empty, not mentioned) are left out, and counted.
A row that gives the same file and label again (RSNA's table has a row for each box) counts once.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def read(path: Path, names: list[str] | None) -> list[dict[str, str]]:
    """The rows of a CSV, or, with ``names``, of a file without headings whose cells are set apart by spaces."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if names:
            return [dict(zip(names, line.split(" "), strict=False)) for line in file.read().splitlines() if line]
        return list(csv.DictReader(file))


def marked(row: dict[str, str], asked: argparse.Namespace) -> dict[str, str]:
    """A cell for each finding."""
    if asked.label is None:
        return {name: row[name].strip() for name in asked.findings}
    parts = row[asked.label].strip().split("|")
    return {name: str(int(name in parts)) for name in asked.findings}


def labelled(rows: Iterable[dict[str, str]], asked: argparse.Namespace) -> tuple[list[dict[str, str]], Counter[str]]:
    """Rows of file, label (or findings) and patient; and the values that were left out, with how often."""
    values = dict(pair.split("=", 1) for pair in asked.values or [])
    contains = dict(pair.split("=", 1) for pair in asked.contains or [])
    found: dict[str, dict[str, str]] = {}
    left: Counter[str] = Counter()
    where = [(column, set(values.split(","))) for column, _, values in (w.partition("=") for w in asked.where)]
    for row in rows:
        if any(row[column].strip() not in wanted for column, wanted in where):
            continue
        if asked.findings:
            told = marked(row, asked)
        else:
            value = row[asked.label].strip()
            parts = value.split("|")
            label = values.get(value) if values else None
            label = label or next((name for part, name in contains.items() if part in parts), None)
            label = label or (asked.otherwise if contains else None) or (value if not values and not contains else None)
            if not label:
                left[value or "(empty)"] += 1
                continue
            told = {"label": label}
        file = row[asked.file] + asked.ending
        match = re.search(asked.patient, row[asked.file]) if asked.patient else None
        patient = match[1] if match else row[asked.patient_column] if asked.patient_column else ""
        made = {"file": file, **told, "patient": patient}
        if found.setdefault(file, made) != made:
            sys.exit(f"two rows give different labels or patients to one file (label column {asked.label!r})")
    return list(found.values()), left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("labels.csv"))
    parser.add_argument("--names", type=lambda text: text.split(","), help="headings, of a table without any")
    parser.add_argument("--file", required=True, help="column of the file")
    parser.add_argument("--ending", default="", help="what the file's name lacks, such as .dcm")
    parser.add_argument("--label", help="column of the label")
    parser.add_argument(
        "--findings", type=lambda text: text.split(","), help="findings, each to be a column of its own"
    )
    parser.add_argument("--values", nargs="+", metavar="VALUE=LABEL", help="values to take, and what to call them")
    parser.add_argument("--contains", nargs="+", metavar="PART=LABEL", help="parts of a value like A|B|C")
    parser.add_argument("--else", dest="otherwise", help="label of values that contain none of these parts")
    parser.add_argument("--where", nargs="+", default=[], metavar="COLUMN=A,B", help="rows to take")
    parser.add_argument("--patient", help="regular expression with one group, on the file")
    parser.add_argument("--patient-column", help="column of the patient")
    asked = parser.parse_args()
    rows = read(asked.table, asked.names)
    if asked.label is None and not asked.findings:
        parser.error("--label or --findings is needed")
    if asked.findings and (asked.values or asked.contains or asked.otherwise):
        parser.error("--values, --contains and --else are for one label, not for --findings")
    told = [asked.label] if asked.label is not None else asked.findings
    wanted = [asked.file, *told, *([asked.patient_column] if asked.patient_column else [])]
    wanted += [where.partition("=")[0] for where in asked.where]
    if not rows or any(name not in rows[0] for name in wanted):
        parser.error(f"{asked.table} has not all of the columns {', '.join(wanted)}")
    found, left = labelled(rows, asked)
    with asked.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file", *(asked.findings or ["label"]), "patient"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    if asked.findings:
        print(f"{asked.output}: {len(found)} images")
        for name in asked.findings:
            counts = Counter(row[name] or "(empty)" for row in found)
            print(f"  {name}: " + ", ".join(f"{n} × {value}" for value, n in sorted(counts.items())))
    else:
        counts = Counter(row["label"] for row in found)
        print(f"{asked.output}: {len(found)} images; " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    print(f"patients: {len({row['patient'] for row in found} - {''})}")
    for value, n in left.most_common(5):
        print(f"left out: {n} × {value}")


if __name__ == "__main__":
    main()

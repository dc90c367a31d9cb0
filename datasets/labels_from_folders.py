"""Write the labels CSV of an image folder whose subfolders are the classes, as many public sets come.

    python datasets/labels_from_folders.py IMAGES -o labels.csv --patient "^([0-9]{8})_"

The label is the name of the folder that holds the image. Files of one patient must not fall into different splits: with
``--patient`` the first group of a regular expression, matched on the file's name, is the patient; a file that does not
match is taken as a patient of its own, and the number of such files is printed.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

IMAGES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".nii", ".gz"}


def rows(folder: Path, patient: re.Pattern[str] | None) -> list[dict[str, str]]:
    """A row for each image below ``folder``: file (relative to it), label, patient."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGES and path.is_file() and path.parent != folder:
            match = patient.search(path.name) if patient is not None else None
            who = match[1] if match else f"file-{path.relative_to(folder).as_posix()}"
            found.append({"file": path.relative_to(folder).as_posix(), "label": path.parent.name, "patient": who})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("labels.csv"))
    parser.add_argument("--patient", type=re.compile, help="regular expression with one group, on the file's name")
    asked = parser.parse_args()
    found = rows(asked.folder, asked.patient)
    if not found:
        parser.error(f"{asked.folder} has no images in subfolders")
    with asked.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file", "label", "patient"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    alone = sum(row["patient"].startswith("file-") for row in found)
    labels = sorted({row["label"] for row in found})
    print(f"{asked.output}: {len(found)} images of {len(labels)} classes ({', '.join(labels)})")
    if alone:
        print(f"{alone} files name no patient; each is taken as a patient of its own")


if __name__ == "__main__":
    main()

"""Recognisable identifiers, planted where hospitals keep them."""

from pathlib import Path

import pandas as pd
import pydicom

# Words that must appear nowhere but in the cohort's private/ folder.
SECRETS = {
    "PatientName": "Kurokawa^Hanako",
    "PatientID": "MRN7741902",
    "PatientBirthDate": "19520229",
    "AccessionNumber": "ACC5560013",
    "InstitutionName": "Saint Ambrosius Infirmary",
    "InstitutionAddress": "14 Willowbrook Crescent",
    "ReferringPhysicianName": "Dr^Oyelaran",
}


def plant(archive: Path, labels: Path) -> None:
    """Give every patient of a phantom archive recognisable identifiers, in headers, file names and the labels CSV."""
    table = pd.read_csv(labels, dtype=str)
    for number, (patient, rows) in enumerate(table.groupby("patient_id")):
        folder = archive / f"{SECRETS['PatientID']}-{number:03d}-Hanako"
        (archive / patient).rename(folder)
        for index, row in rows.iterrows():
            old = next(folder.rglob(Path(row["file"]).name))
            data = pydicom.dcmread(old)
            for keyword, value in SECRETS.items():
                setattr(data, keyword, value)
            data.PatientID = f"{SECRETS['PatientID']}-{number:03d}"
            new = old.with_name(f"Kurokawa_{old.name}")
            data.save_as(new)
            old.unlink()
            table.loc[index, "file"] = new.relative_to(archive).as_posix()
            table.loc[index, "patient_id"] = data.PatientID
    table.to_csv(labels, index=False)

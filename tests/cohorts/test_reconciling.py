"""Rows and scans whose patients differ, or whose patient is not said: labels of others, and splits through patients."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from archives import noise, uid, write_csv, write_dicom
from PIL import Image

from medlora.cohorts import Cohort
from medlora.errors import MedloraError


def cohort_of(tmp_path, *rows, fractions=None, **options):
    return Cohort.from_archive(
        tmp_path / "archive", write_csv(tmp_path / "labels.csv", rows), fractions=fractions, **options
    )


def labels(cohort):
    """Path in the archive → label."""
    paths = cohort._private.linkage.drop_duplicates("scan_id").set_index("scan_id")["path"]
    return {paths[row.scan_id]: row.label for row in cohort.table.itertuples()}


def site(root, name, patients, **tags):
    """Scans whose accession numbers are counted from 100."""
    for n, patient in enumerate(patients):
        where = root / "archive" / name / f"{n}.dcm"
        write_dicom(where, noise(ord(name) * 100 + n), f"{name}{n}", patient, AccessionNumber=str(100 + n), **tags)


@pytest.mark.parametrize("shared", [3, 6])
def test_accession_numbers_of_two_hospitals(tmp_path, shared):
    site(tmp_path, "a", [f"A{n}" for n in range(6)])
    site(tmp_path, "b", [f"B{n}" for n in range(shared)])
    rows = [(str(100 + n), f"A{n}", "xy"[n % 2]) for n in range(6)]
    cohort = cohort_of(tmp_path, ("accession", "patient", "label"), *rows)
    assert labels(cohort) == {f"a/{n}.dcm": "xy"[n % 2] for n in range(6)}
    assert any(f"{shared} rows would have matched a scan of another patient" in line for line in cohort.warnings)
    # Nothing tells the hospitals apart: a number of both is of neither.
    rows = [row[::2] for row in rows]
    if shared == 6:
        with pytest.raises(MedloraError, match="6 rows may mean several scans, or scans of several patients"):
            cohort_of(tmp_path, ("accession", "label"), *rows)
    else:
        cohort = cohort_of(tmp_path, ("accession", "label"), *rows)
        assert labels(cohort) == {f"a/{n}.dcm": "xy"[n % 2] for n in range(3, 6)}


@pytest.mark.parametrize("values", ["{}", "elsewhere/{}"])
def test_folders_numbered_in_another_order_than_the_table(tmp_path, values):
    for n in range(8):
        write_dicom(tmp_path / "archive" / f"{n + 1}" / "x.dcm", noise(n), str(n), f"PAT{n * 3 % 8}")
    rows = [(f"PAT{n}", values.format(n + 1), "ab"[n % 2]) for n in range(8)]
    heading = ("patient_id", "image", "label")
    if values != "{}":  # by the end of the path
        rows = [(patient, f"{image}/x.dcm", label) for patient, image, label in rows]
    with pytest.raises(
        MedloraError, match=r"(?s)most rows lead to scans of other patients .* --key file, or --key patient"
    ):
        cohort_of(tmp_path, heading, *rows)
    by_patient = labels(cohort_of(tmp_path, heading, *rows, key="patient"))
    assert by_patient == {f"{n + 1}/x.dcm": "ab"[n * 3 % 8 % 2] for n in range(8)}
    cohort = cohort_of(tmp_path, heading, *rows, key="file")
    assert labels(cohort) == {f"{n + 1}/x.dcm": "ab"[n % 2] for n in range(8)}
    assert any("matched a scan of another patient of the archive than the table says" in w for w in cohort.warnings)


def test_a_path_written_out_is_believed_against_its_patient_and_that_is_said(tmp_path):
    for n in range(6):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"PAT{n}")
    rows = [(f"{n}.dcm", f"PAT{(n + 1) % 6}", "ab"[n % 2]) for n in range(6)]  # a column sorted by itself
    cohort = cohort_of(tmp_path, ("file", "patient", "label"), *rows)
    assert len(cohort) == 6
    assert any(line.startswith("6 rows matched a scan of another patient") for line in cohort.warnings)


def test_a_folder_is_chosen_from_by_its_own_row_alone(tmp_path):
    root = tmp_path / "archive"
    for n in range(4):
        for view in ("PA", "LL"):
            tags = {"ViewPosition": view, "StudyInstanceUID": uid("study", n)}
            write_dicom(root / f"P{n}" / f"{view}.dcm", noise(n * 2 + (view == "PA")), f"{n}{view}", f"P{n}", **tags)
    files = [(f"P{n}/{view}.dcm", "ab"[n % 2]) for n in range(3) for view in ("PA", "LL")]
    cohort = cohort_of(tmp_path, ("file", "label"), *files, ("P3", "b"))
    assert set(labels(cohort)) == {*dict(files), "P3/PA.dcm"}
    # A row for each of two folders of one study takes a scan of each.
    for path in list(root.rglob("*.dcm")):
        path.rename(path.parent / f"{path.stem}.old")
    folders = []
    for n in range(4):
        for view in ("PA", "LL"):
            (root / f"P{n}" / view).mkdir()
            (root / f"P{n}" / f"{view}.old").rename(root / f"P{n}" / view / "0.dcm")
            folders.append((f"P{n}/{view}", "ab"[n % 2]))
    write_dicom(root / "P0" / "PA" / "1.dcm", noise(99), "extra", "P0", StudyInstanceUID=uid("study", 0))
    assert len(cohort_of(tmp_path, ("file", "label"), *folders)) == 8


@pytest.mark.parametrize("name", ["first", "second"])
def test_rows_about_a_copied_dicom_file_are_about_its_scan(tmp_path, name):
    root = tmp_path / "archive"
    for n in range(4):
        path = write_dicom(root / "first" / f"{n}.dcm", noise(n), str(n), f"P{n}")
        (root / "second").mkdir(exist_ok=True)
        (root / "second" / path.name).write_bytes(path.read_bytes())
    rows = [(f"{name}/{n}.dcm", "ab"[n % 2]) for n in range(4)]
    assert len(cohort_of(tmp_path, ("file", "label"), *rows)) == 4
    others = [(f"second/{n}.dcm", "ba"[n % 2]) for n in range(4)]
    both = cohort_of(tmp_path, ("file", "label"), *(row for row in rows if name == "first"), *others)
    assert len(both) == 4 and any("images occur with different labels" in w for w in both.warnings) is (name == "first")


def test_the_first_of_a_numbering_from_000_is_somebody(tmp_path):
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"{n // 3:03}")
    cohort = cohort_of(tmp_path, ("file", "label"), *((f"{n}.dcm", "ab"[n % 2]) for n in range(12)))
    assert cohort.table["patient"].nunique() == 4 and cohort.warnings == []


def test_scans_of_a_row_without_a_patient_are_one(tmp_path):
    """As of BIDS, where a row is about a subject's folder."""
    rng = np.random.default_rng(0)
    for n in range(6):
        for name in ("ses-1/t1.nii.gz", "ses-2/t1.nii.gz"):
            path = tmp_path / "archive" / f"sub-{n}" / name
            path.parent.mkdir(parents=True)
            nibabel.save(nibabel.Nifti1Image(rng.integers(0, 99, (20, 20, 3)).astype("i2"), np.eye(4)), path)
    rows = [(f"sub-{n}", "ab"[n % 2]) for n in range(6)]
    cohort = cohort_of(tmp_path, ("participant_id", "label"), *rows, modality="MR", fractions=(0.4, 0.3, 0.3))
    assert len(cohort) == 12 and cohort.table["patient"].nunique() == 6
    assert cohort.table.groupby("patient")["split"].nunique().max() == 1


def test_a_patient_id_for_each_image_gives_way_to_the_tables_patients(tmp_path):
    """As of CBIS-DDSM, whose Patient IDs name view and side, too."""
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"P_{n // 2}_{'LR'[n % 2]}_CC")
    rows = [(f"{n}.dcm", f"P_{n // 2}", "ab"[n // 2 % 2]) for n in range(12)]
    cohort = cohort_of(tmp_path, ("file", "patient", "label"), *rows, fractions=(0.4, 0.3, 0.3))
    assert cohort.table["patient"].nunique() == 6
    assert cohort.table.groupby("patient")["split"].nunique().max() == 1
    assert any("counts as one patient: the table was followed" in line for line in cohort.warnings)


def test_people_of_other_names_under_one_patient_id_are_said(tmp_path):
    for n, (patient, name) in enumerate([("1", "Doe^Jane"), ("1", "DOE^JANE^M"), ("2", "Roe^A"), ("2", "Poe^B")]):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), patient, PatientName=name)
    cohort = cohort_of(tmp_path, ("file", "label"), *((f"{n}.dcm", "ab"[n % 2]) for n in range(4)))
    assert [line for line in cohort.warnings if "other names" in line] == [
        "1 DICOM Patient ID has scans of people of other names or of both sexes, as where two hospitals number alike; "
        "each counts as one patient"
    ]


def test_splits_and_headings_that_mean_something_else(tmp_path):
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"P{n}")
    rows = [(f"{n}.dcm", "ab"[n % 2], ("train", "test", "val")[n % 3]) for n in range(12)]
    cohort = cohort_of(tmp_path, ("file", "label", "split"), *rows)
    assert "the splits of the column 'split' were not used; --split-column takes them" in cohort.warnings
    with pytest.raises(MedloraError, match=r"the column 'split' .* gives no case a split"):
        cohort_of(tmp_path, ("file", "label", "split"), *((*row[:2], "") for row in rows), split_column="split")
    with pytest.raises(MedloraError, match=r"which column of labels\.csv holds the labels is not clear"):
        cohort_of(tmp_path, ("file", "Patient's Name"), *((f"{n}.dcm", f"DOE^{n % 2}") for n in range(12)))
    with pytest.raises(MedloraError, match="no headings") as caught:
        cohort_of(tmp_path, *((f"{n}.dcm", "DOE^JOHN", "a") for n in range(12)))
    assert "DOE" not in str(caught.value)
    spelled = cohort_of(tmp_path, ("file", "label"), *((f"{n}.dcm", ["e\u0301", "\u00e9"][n % 2]) for n in range(12)))
    assert any("differ only in writing" in line for line in spelled.errors)


def test_a_patient_is_never_torn_by_following_the_table(tmp_path):
    """A Patient ID for each image, and cells that are empty, a word for nobody, or have lost their zeros."""
    rows = []
    for n in range(36):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"IMG{n // 2}")  # two scans of each ID
        cell = f"{n // 6}" if n % 2 else ["", "unknown", f"{n // 6:03}"][n // 2 % 3]
        rows.append((f"{n}.dcm", cell, "ab"[n // 6 % 2]))
    cohort = cohort_of(tmp_path, ("file", "patient", "label"), *rows, fractions=(0.4, 0.3, 0.3))
    paths = cohort._private.linkage.set_index("scan_id")["path"]
    person = [int(paths[scan_id].partition(".")[0]) // 6 for scan_id in cohort.table["scan_id"]]
    assert cohort.table.assign(person=person).groupby("person")["split"].nunique().max() == 1
    assert cohort.table["patient"].nunique() == 6


def test_participant_id_is_the_last_key_to_be_tried(tmp_path):
    for n in range(8):
        write_dicom(tmp_path / "archive" / f"sub-{n // 2}" / f"{n}.dcm", noise(n), str(n), "", AccessionNumber=str(n))
    rows = [(f"sub-{n // 2}", str(n), "ab"[n % 2]) for n in range(8)]
    cohort = cohort_of(tmp_path, ("participant_id", "accession_number", "label"), *rows)
    assert cohort.info["join"]["key"] == "accession" and cohort.table["patient"].nunique() == 4


def test_a_row_for_the_folder_of_each_class_is_no_patient(tmp_path):
    root = tmp_path / "archive"
    for n in range(24):
        (root / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray((noise(n) >> 4).astype("u1")).save(root / "ab"[n % 2] / f"{n}.png")
    cohort = cohort_of(tmp_path, ("file", "label"), ("a", "a"), ("b", "b"))
    assert cohort.table["patient"].nunique() == 24


@pytest.mark.parametrize("site", ["renamed", "placeholder", "one coincidence"])
def test_rows_whose_patients_were_renamed_are_taken(tmp_path, site):
    """The paths are another machine's, and one of two sites has its own names of patients in the table."""
    rows = []
    for n in range(20):
        patient = f"P{n}" if n < 12 else f"PSEUDO{n}"
        write_dicom(tmp_path / "archive" / f"s{n // 12}" / f"{n}" / "1.dcm", noise(n), str(n), patient)
        own = {"renamed": f"X{n}", "placeholder": "unknown", "one coincidence": f"PSEUDO{n}"}[site]
        rows.append((f"/mnt/old/s{n // 12}/{n}/1.dcm", f"P{n}" if n < 12 else own, "ab"[n % 2]))
    assert len(cohort_of(tmp_path, ("file", "patient", "label"), *rows)) == 20


def test_a_name_of_a_file_and_its_copies_is_no_doubt(tmp_path):
    root = tmp_path / "archive"
    for n in range(6):
        for folder in ("a", "b"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray((noise(n) >> 4).astype("u1")).save(root / folder / f"{n}.png")
    assert len(cohort_of(tmp_path, ("file", "label"), *((f"{n}.png", "ab"[n % 2]) for n in range(6)))) == 6


def test_japanese_names_in_several_scripts_are_of_one_person(tmp_path):
    for n, name in enumerate(["山田^太郎", "ﾔﾏﾀﾞ^ﾀﾛｳ", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Sato^Jiro"]):
        tags = {"PatientName": name, "SpecificCharacterSet": "ISO_IR 192"}
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"P{n // 3}", **tags)
    cohort = cohort_of(tmp_path, ("file", "label"), *((f"{n}.dcm", "ab"[n % 2]) for n in range(4)))
    assert not any("other names" in line for line in cohort.warnings)


def test_rows_whose_scans_are_all_of_another_kind_are_said(tmp_path):
    for n in range(8):
        tags = {"Modality": "DX" if n < 6 else "MG", "StudyInstanceUID": uid("s", n)}
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"P{n}", **tags)
    cohort = cohort_of(tmp_path, ("patient", "label"), *((f"P{n}", "ab"[n % 2]) for n in range(8)))
    said = "2 rows give no case, since no scan of theirs meets the rule 'modality=DX view=frontal'"
    assert len(cohort) == 6 and said in cohort.warnings


def test_a_row_for_a_class_ties_no_subjects_that_have_rows_of_their_own(tmp_path):
    root = tmp_path / "archive"
    for n in range(64):
        path = root / "ab"[n % 2] / f"s{n // 4}{'ab'[n % 2]}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((noise(n, (24, 24)) >> 4).astype("u1")).save(path)
    subjects = [(f"{c}/s{n}{c}", c) for n in range(16) for c in "ab"]
    from medlora.cohorts.patients import patients_of
    from medlora.scans import survey

    found = survey(root).scans
    rows = {scan.scan_id: [2 + subjects.index((f"{c}/{scan.paths[0].parent.name}", c))]
            for scan in found for c in [scan.paths[0].parent.parent.name]}  # fmt: skip
    of_class = {scan_id: [1, *own] for scan_id, own in rows.items()}  # one row about all 64, before the subjects' own
    assert len(set(patients_of(found, {}, of_class).key.values())) == 32


@pytest.mark.parametrize("column", ["patient_id", "Patient name", "number"])
def test_names_and_numbers_are_no_sites(tmp_path, column):
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"P{n}")
    rows = [(f"{n}.dcm", f"P{n}", "ab"[n % 2]) for n in range(12)]
    with pytest.raises(MedloraError, match="cannot be sites"):
        cohort_of(tmp_path, ("file", column, "label"), *rows, site=column)

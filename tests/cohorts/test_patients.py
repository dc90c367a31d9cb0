"""Who is whose: scans of one patient whose files, or rows, each say only a part of it."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from archives import noise, uid, write_csv, write_dicom
from PIL import Image

from medlora.cohorts import Cohort
from medlora.errors import MedloraError

FRACTIONS = (0.4, 0.3, 0.3)


def cohort_of(tmp_path, rows, **options):
    table = write_csv(tmp_path / "labels.csv", rows)
    return Cohort.from_archive(tmp_path / "archive", table, fractions=FRACTIONS, workers=1, **options)


def untorn(cohort, patients):
    """As many patients as there are; none of them, told by the start of the file's name, in two splits."""
    paths = cohort._private.linkage.drop_duplicates("scan_id").set_index("scan_id")["path"]
    person = cohort.table["scan_id"].map(paths).str.extract(r"(\d+)_")[0]
    assert person.nunique() == patients == cohort.table["patient"].nunique()
    assert cohort.table.groupby(person)["split"].nunique().max() == 1


@pytest.mark.parametrize("other", ["empty", "placeholder", "png"])
def test_some_scans_of_a_patient_have_a_patient_id_and_some_none(tmp_path, other):
    rows = [("file", "patient_id", "label")]
    for n in range(20):
        write_dicom(tmp_path / "archive" / f"{n:02d}_a.dcm", noise(2 * n), f"{n}a", f"HOSP{9000 + n}")
        if other == "png":
            Image.fromarray((noise(2 * n + 1) >> 4).astype("u1")).save(tmp_path / "archive" / f"{n:02d}_b.png")
        else:
            name = "" if other == "empty" else "ANONYMOUS"
            write_dicom(tmp_path / "archive" / f"{n:02d}_b.dcm", noise(2 * n + 1), f"{n}b", name)
        rows += [(f"{n:02d}_{letter}", f"S{n}", "xy"[n % 2]) for letter in "ab"]
    untorn(cohort_of(tmp_path, rows, modality="DX"), 20)


@pytest.mark.parametrize("by", ["study", "row", "name"])
def test_a_scan_without_patient_id_is_of_the_study_or_row_or_namesake(tmp_path, by):
    rows = {"study": [("file", "label")], "row": [("file", "label")], "name": [("file", "patient", "label")]}[by]
    for n in range(20):
        same = {"StudyInstanceUID": uid(n, "study")} if by == "study" else {}
        for letter, name in (("a", f"P{n}"), ("b", "")):
            path = tmp_path / "archive" / f"{n:02d}_" / f"{letter}.dcm"
            write_dicom(path, noise(2 * n + (letter == "b")), f"{n}{letter}", name, **same)
            if by != "row":
                cells = {"study": (), "name": (f"P{n}" if letter == "b" else "",)}[by]
                rows.append((f"{n:02d}_/{letter}.dcm", *cells, "xy"[n % 2]))
        if by == "row":
            rows.append((f"{n:02d}_", "xy"[n % 2]))
    options = {"select": None}
    cohort = cohort_of(tmp_path, rows, **options)
    untorn(cohort, 20)
    assert not any("no patient ID" in line for line in cohort.warnings)


def test_a_label_of_a_study_is_for_one_scan_though_a_patient_id_is_missing(tmp_path):
    rows = [("study_uid", "label")]
    for n in range(12):
        for letter, name in (("a", f"P{n}"), ("b", "")):
            path = tmp_path / "archive" / f"{n}_{letter}.dcm"
            write_dicom(path, noise(2 * n + (letter == "b")), f"{n}{letter}", name, StudyInstanceUID=uid(n, "study"))
        rows.append((uid(n, "study"), "xy"[n % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert len(cohort) == 12 and cohort.table["patient"].nunique() == 12


def test_one_patient_id_of_two_of_the_tables_patients_does_not_untie_the_others(tmp_path):
    rows = [("file", "patient", "label")]
    for n in range(20):
        for letter in "ab":  # registered anew: a Patient ID for each visit, and one by mistake for two patients
            name = "SHARED" if (n < 2 and letter == "a") else f"{letter}{n}"
            write_dicom(
                tmp_path / "archive" / f"{n}_{letter}.dcm", noise(2 * n + (letter == "b")), f"{n}{letter}", name
            )
            rows.append((f"{n}_{letter}.dcm", f"S{n}", "xy"[n % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert cohort.table["patient"].nunique() == 19  # the two are one: which scans are whose is not known
    assert [line for line in cohort.warnings if "of several patients of the table" in line]


def test_running_numbers_of_the_table_are_no_namesakes(tmp_path):
    """The table's patient 1 is not the hospital's: without that, a chain would make all of them one."""
    rows = [("file", "patient", "label")]
    for n in range(20):
        write_dicom(tmp_path / "archive" / f"{n}_a.dcm", noise(2 * n), f"{n}a", str(n))
        write_dicom(tmp_path / "archive" / f"{n}_b.dcm", noise(2 * n + 1), f"{n}b", "")
        rows += [(f"{n}_{letter}.dcm", str((n + 7) % 20), "xy"[n % 2]) for letter in "ab"]
    untorn(cohort_of(tmp_path, rows), 20)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_left_of_patients_none_is_torn_and_strangers_stay_apart(tmp_path, seed):
    """Each scan of 15 patients loses its Patient ID or its cell, never both, and one scan keeps both."""
    chance = random.Random(seed)
    rows = [("file", "patient", "label")]
    for n in range(15):
        kept = chance.randrange(3)
        for k in range(3):
            lost = None if k == kept else chance.choice(["id", "cell"])
            name = "" if lost == "id" else f"H{n}"
            write_dicom(tmp_path / "archive" / f"{n:02d}_{k}.dcm", noise(3 * n + k), f"{n} {k}", name)
            rows.append((f"{n:02d}_{k}.dcm", "" if lost == "cell" else f"S{n}", "xy"[n % 2]))
    untorn(cohort_of(tmp_path, rows), 15)


def test_a_study_of_many_images_without_patient_id_is_one_patient(tmp_path):
    """As of ultrasound clips; but a UID that careless anonymisation gave to people of both sexes ties nobody."""
    rows: list[tuple] = [("file", "label")]
    for n in range(6):
        for k in range(60):
            sex = "MF"[k % 2] if n == 5 else "M"
            path = tmp_path / "archive" / f"{n:02d}_{k}.dcm"
            write_dicom(path, noise(n * 60 + k, (16, 16)), f"{n} {k}", "", StudyInstanceUID=uid(n), PatientSex=sex)
            rows.append((path.name, "xy"[n % 2] if n < 5 else "xy"[k % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert cohort.table["patient"].nunique() == 5 + 60


def test_nobody_in_the_table_is_no_patient(tmp_path):
    rows = [("file", "patient", "label")]
    for n in range(30):
        write_dicom(tmp_path / "archive" / f"{n:02d}_.dcm", noise(n), str(n), "")
        rows.append((f"{n:02d}_.dcm", "unknown" if n % 3 == 0 else f"S{n}", "xy"[n % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert cohort.table["patient"].nunique() == 30
    said = "10 scans have a placeholder as patient in the table, which was taken as none"
    assert said in cohort.warnings


def test_the_tables_patient_of_a_number_is_not_the_hospitals(tmp_path):
    rows = [("file", "patient", "label")]
    for n in range(1, 21):
        write_dicom(tmp_path / "archive" / f"{n:02d}_.dcm", noise(n), str(n), "" if n > 15 else str(n))
        rows.append((f"{n:02d}_.dcm", str((n + 8) % 20 + 1), "xy"[n % 2]))
    assert cohort_of(tmp_path, rows).table["patient"].nunique() == 20


def test_scans_are_tied_by_one_that_is_no_case(tmp_path):
    """The lateral of the study says the patient, and is not chosen."""
    rows = [("study_uid", "label")]
    for n in range(20):
        for visit in "ab":
            same = {"StudyInstanceUID": uid(n, visit)}
            names = {"PA": f"P{n}" if visit == "a" else "", "LL": f"P{n}"}
            for view, name in names.items():
                path = tmp_path / "archive" / f"{n:02d}_{visit}{view}.dcm"
                seed = 4 * n + 2 * (visit == "b") + (view == "LL")
                write_dicom(path, noise(seed), f"{n}{visit}{view}", name, ViewPosition=view, **same)
            rows.append((uid(n, visit), "xy"[n % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert len(cohort) == 40
    untorn(cohort, 20)


def test_a_study_uid_of_all_ties_nobody(tmp_path):
    rows: list[tuple] = [("file", "label")]
    of: dict[str, list] = defaultdict(list)
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n}_.dcm", noise(n), str(n), "", StudyInstanceUID="1.2.3")
        rows.append((f"{n}_.dcm", "xy"[n % 2]))
        of["xy"[n % 2]].append(n)
    cohort = cohort_of(tmp_path, rows)
    assert cohort.table["patient"].nunique() == 12
    assert any("no patient ID" in line for line in cohort.warnings)


def test_one_patient_id_of_all_is_nobodys_though_another_file_has_none(tmp_path):
    rows = [("file", "patient", "label")]
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n:02d}_.dcm", noise(n), str(n), "TRIAL7")
        rows.append((f"{n:02d}_.dcm", f"S{n}", "xy"[n % 2]))
    Image.fromarray((noise(99) >> 4).astype("u1")).save(tmp_path / "archive" / "logo.png")
    untorn(cohort_of(tmp_path, rows), 12)


@pytest.mark.parametrize("first", ["007", "7"])
def test_a_namesake_is_the_one_that_is_written(tmp_path, first):
    from medlora.cohorts.patients import patients_of
    from medlora.scans import survey

    for name in ("7", "007"):
        write_dicom(tmp_path / ("a" if name == first else "b") / "1.dcm", noise(len(name)), name, name)
    write_dicom(tmp_path / "c.dcm", noise(9), "c", "")
    scans = survey(tmp_path).scans
    (without,) = (scan.scan_id for scan in scans if not scan.identity.patient_id)
    key = patients_of(scans, {without: "7"}).key
    assert {s.identity.patient_id for s in scans if key[s.scan_id] == key[without]} == {"7", ""}


@pytest.mark.parametrize("by", ["study", "row"])
def test_scans_that_only_their_study_or_row_ties_are_nobodys(tmp_path, by):
    """A study is of one patient, but a patient has several: of whom nobody knows, the splits may tear them."""
    rows = [("accession_number" if by == "study" else "file", "label")]
    for n in range(24):
        for view in ("PA", "LL"):
            path = tmp_path / "archive" / f"{n:02d}_" / f"{view}.dcm"
            tags = {"StudyInstanceUID": uid(n), "AccessionNumber": f"A{n}"} if by == "study" else {}
            write_dicom(path, noise(2 * n + (view == "LL")), f"{n}{view}", "", ViewPosition=view, **tags)
        rows.append((f"A{n}" if by == "study" else f"{n:02d}_", "xy"[n % 2]))
    cohort = cohort_of(tmp_path, rows)
    said = [line for line in cohort.warnings if "no patient ID" in line]
    assert len(said) == 1
    assert said[0].startswith("24 scans have") and "those of one study, or of one row" in said[0]
    assert "may be in several splits" in said[0] and "--patient-column" in said[0]


def test_images_numbered_as_patients_are_of_the_people_in_the_other_column(tmp_path):
    """As the RSNA's pneumonia challenge with the mapping to the patients of the NIH's radiographs."""
    rows = [("patientId", "subject_id", "label")]
    for n in range(45):
        write_dicom(tmp_path / "archive" / f"{n:02d}.dcm", noise(n), n, f"image {n}")
        rows.append((f"image {n}", f"S{n // 3}", "xy"[n // 3 % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert (len(cohort), cohort.table["patient"].nunique()) == (45, 15)
    assert not cohort.errors


def test_columns_of_patients_that_disagree_are_said(tmp_path):
    rows = [("patient_id", "subject", "label")]
    for n in range(24):
        write_dicom(tmp_path / "archive" / f"{n:02d}.dcm", noise(n), n, f"P{n // 2}")
        rows.append((f"P{n // 2}", f"S{n % 12}", "xy"[n // 2 % 2]))
    cohort = cohort_of(tmp_path, rows)
    assert cohort.table["patient"].nunique() == 12
    assert any("not 'subject'; --patient-column" in line for line in cohort.warnings)


def test_the_column_of_patients_may_be_named(tmp_path):
    rows = [("file", "Nr. of person", "label")]
    for n in range(30):
        path = tmp_path / "archive" / f"{n // 2:02d}_{n % 2}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(n).astype("u1")).save(path)
        rows.append((f"{n // 2:02d}_{n % 2}.png", f"{n // 2}", "xy"[n // 2 % 2]))
    unknown = cohort_of(tmp_path, rows)
    assert any("--patient-column" in line for line in unknown.warnings)
    untorn(cohort_of(tmp_path, rows, patient_column="Nr. of person"), 15)
    with pytest.raises(MedloraError, match="--patient-column"):
        cohort_of(tmp_path, rows, patient_column="Nr")


def test_a_second_column_of_patients_with_gaps_is_not_taken_instead(tmp_path):
    rows = [("file", "patient_id", "mrn", "label")]
    for n in range(40):
        path = tmp_path / "archive" / f"{n // 2:02d}_{n % 2}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(n).astype("u1")).save(path)
        rows.append((path.name, f"P{n // 2}", f"M{n // 2}" if n < 24 else "", "xy"[n // 2 % 2]))
    untorn(cohort_of(tmp_path, rows), 20)


def test_numbers_of_families_are_not_held_against_patient_ids(tmp_path):
    rows = [("accession_number", "family", "label")]
    for n in range(24):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), n, str(n), AccessionNumber=f"A{n}")
        rows.append((f"A{n}", str(n // 2), "xy"[n // 2 % 2]))
    cohort = cohort_of(tmp_path, rows, patient_column="family")
    assert cohort.table["patient"].nunique() == 12
    assert not any("another patient of the archive" in line for line in cohort.warnings)

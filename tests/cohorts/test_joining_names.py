"""Rows that name files, folders and patients in part: taken where one alone can be meant, and else refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from archives import noise, write_csv, write_dicom
from PIL import Image

from medlora.cohorts import Cohort
from medlora.cohorts.paths import match_paths
from medlora.errors import MedloraError


def png(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise(seed, (16, 16)) >> 4).astype("u1")).save(path)


def cohort_of(tmp_path, *rows, archive="archive", **options):
    table = write_csv(tmp_path / "labels.csv", rows)
    return Cohort.from_archive(tmp_path / archive, table, fractions=None, **options)


def labels(cohort):
    """Path in the archive → label."""
    paths = cohort._private.linkage.drop_duplicates("scan_id").set_index("scan_id")["path"]
    return {paths[row.scan_id]: row.label for row in cohort.table.itertuples()}


def matched(values, files, archive="/data/archive", beside="/elsewhere"):
    found = match_paths(values, files, Path(archive), Path(beside))
    return {value: names[0] if len(names) == 1 else names for value, names in found.to.items()}, found.ambiguous


def test_folders_that_lost_their_zeros_are_not_the_slices_of_one_of_them(tmp_path):
    seeds = iter(range(1000))
    for patient in range(1, 13):
        for number in range(1, 13 if patient == 7 else 4):
            png(tmp_path / "archive" / f"{patient:03d}" / f"{number}.png", next(seeds))
    rows = [(str(patient), "ab"[patient % 2]) for patient in range(1, 13)]
    with pytest.raises(MedloraError, match="12 rows may mean several scans"):
        cohort_of(tmp_path, ("folder", "label"), *rows)


def test_a_number_in_two_writings_is_neither_where_a_table_has_lost_its_zeros():
    files = ["A/0012.png", "B/12.png", "B/13.png"]
    assert matched(["12", "13"], files) == ({"13": "B/13.png"}, {"12"})
    assert matched(["12", "0012"], files) == ({"12": "B/12.png", "0012": "A/0012.png"}, set())
    assert matched(["12"], ["012/x.png", "12/x.png"]) == ({}, {"12"})  # of the folders beside each other, too
    assert matched(["1234567890123450"], ["1234567890123450.png", "1234567890123456.png"])[0] == {}
    assert matched(["1234567890123450", "1234567890123456"], ["a/1234567890123450.png", "1234567890123456.png"])[0] == {
        "1234567890123450": "a/1234567890123450.png", "1234567890123456": "1234567890123456.png",
    }  # fmt: skip


def test_names_that_each_folder_has_again_tell_nothing():
    """The longest series is the only one to have a 5.png; that need not be the one which is meant."""
    files = [f"P{p}/{n}.png" for p in range(4) for n in range(1, 6 if p == 2 else 5)]
    assert matched(["5.png"], [*files, "P0/report.png"]) == ({}, {"5.png"})
    assert matched(["report.png"], [*files, "P0/report.png"])[0] == {"report.png": "P0/report.png"}
    assert matched(["P1/3.png"], files)[0] == {"P1/3.png": "P1/3.png"}
    assert matched(["s/5.png"], [f"{file[:2]}/s{file[2:]}" for file in files]) == ({}, {"s/5.png"})


def test_of_names_that_mostly_mean_several_files_none_is_taken():
    files = ["P1/T1.nii", "P1/T2.nii", "P2/T1.nii", "P2/T2.nii", "P2/FLAIR.nii"]
    assert matched(["T1.nii", "T2.nii", "FLAIR.nii"], files) == ({}, {"T1.nii", "T2.nii", "FLAIR.nii"})
    assert matched(["T1.nii", "FLAIR.nii"], files) == ({"FLAIR.nii": "P2/FLAIR.nii"}, {"T1.nii"})


def test_slices_of_patients_that_are_not_there(tmp_path):
    """The table is of P4 to P9, the archive of P0 to P3; 7.png to 12.png are of P3 alone."""
    seeds = iter(range(1000))
    for patient in range(4):
        for number in range(1, 13 if patient == 3 else 7):
            png(tmp_path / "archive" / f"P{patient}" / f"{number}.png", next(seeds))
    rows = [(f"P{4 + n}", f"{7 + n}.png", "ab"[n % 2]) for n in range(6)]
    with pytest.raises(MedloraError, match="6 rows may mean several scans"):
        cohort_of(tmp_path, ("patient_id", "filename", "label"), *rows)


def test_a_bare_name_is_not_taken_from_another_patients_folder(tmp_path):
    for n in range(6):
        png(tmp_path / "archive" / f"P{n}" / "xray" / f"image{n}.png", n)
    rows = [(f"P{n}", f"image{n}.png", "ab"[n % 2]) for n in range(5)]
    cohort = cohort_of(tmp_path, ("patient_id", "filename", "label"), *rows, ("P77", "image5.png", "a"))
    assert labels(cohort) == {f"P{n}/xray/image{n}.png": "ab"[n % 2] for n in range(5)}
    assert any("1 row would have matched a scan of another patient" in line for line in cohort.warnings)
    named_otherwise = [(f"X{n}", *row[1:]) for n, row in enumerate(rows)]
    assert len(cohort_of(tmp_path, ("patient_id", "filename", "label"), *named_otherwise)) == 5


@pytest.mark.parametrize("heading", ["folder", "patient_id"])
def test_a_folder_and_a_name_of_a_part_of_the_table(tmp_path, heading):
    """The archive holds 1.png to 5.png of P0 and 1.png to 9.png of P1, the table 1.png to 12.png of eight patients."""
    there = {f"P{p}/{n}.png": "ab"[(p + n) % 2] for p in range(2) for n in range(1, 6 + 4 * p)}
    for seed, name in enumerate(there):
        png(tmp_path / "archive" / name, seed)
    rows = [(f"P{p}", f"{n}.png", "ab"[(p + n) % 2]) for p in range(8) for n in range(1, 13)]
    cohort = cohort_of(tmp_path, (heading, "filename", "label"), *rows)
    assert labels(cohort) == there
    assert cohort.info["join"]["messages"][0].startswith("14 of 96 rows matched 14 scans")


def test_the_archive_is_told_by_its_name_from_other_folders_of_the_table(tmp_path):
    for n in range(12):
        png(tmp_path / "archive" / "NORMAL" / f"{n}.png", n)
    rows = [(f"chest/{'NORMAL' if n % 2 else 'PNEUMONIA'}/{n}.png", "ab"[n % 2]) for n in range(12)]
    cohort = cohort_of(tmp_path, ("path", "label"), *rows, archive="archive/NORMAL")
    assert labels(cohort) == {f"{n}.png": "b" for n in range(1, 12, 2)}
    assert any("6 rows matched no scan" in w and "name another folder than the archive" in w for w in cohort.warnings)


FLAT = [f"{n}.png" for n in range(4)]


@pytest.mark.parametrize(
    ("prefixes", "archive", "taken"),
    [
        (["old/place"] * 4, "/new", [0, 1, 2, 3]),  # moved and renamed
        (["D:/export/scans"] * 4, "/data/train", [0, 1, 2, 3]),
        (["images_1/images", "images_2/images"] * 2, "/data/all", [0, 1, 2, 3]),  # put together
        (["train", "test"] * 2, "/data/train", [0, 2]),
        (["x/test"] * 4, "/data/train", []),
        (["x/validation"] * 4, "/data/val", [0, 1, 2, 3]),
        (["A/images", "B/images"] * 2, "/data/A/images", [0, 2]),
        (["/data/A", "/data/B"] * 2, "/data/A", [0, 2]),
    ],
)
def test_folders_before_the_archives_own(prefixes, archive, taken):
    values = [f"{prefix}/{name}" for prefix, name in zip(prefixes, FLAT, strict=True)]
    assert matched(values, FLAT, archive)[0] == {values[n]: FLAT[n] for n in taken}


def test_folders_that_tell_files_apart_are_not_dropped():
    """Two rows lead to 1.png, so that the table's folders are not those of one renamed archive."""
    values = ["A/1.png", "B/1.png", "B/2.png"]
    assert matched(values, FLAT) == ({}, set(values))
    assert matched(["x/A/1.png", "x/B/2.png"], [f"A/{name}" for name in FLAT])[0] == {"x/A/1.png": "A/1.png"}


def test_the_end_of_a_path_in_another_folder_makes_no_folder_doubtful():
    """Rows of files that are not there end as a folder is called, and others as a file that is meant by its end."""
    values = ["/old/P1/2.png", "/old/P1/1.png", "/old/P2/1.png"]
    assert matched(values, ["P1/2.png", "1/9.png"]) == ({"/old/P1/2.png": "P1/2.png"}, set())
    values = ["s1/1.png", "s2/1.png"]
    assert matched(values, ["1/s1/1.png", "1/s2/1.png"])[0] == {"s1/1.png": "1/s1/1.png", "s2/1.png": "1/s2/1.png"}


@pytest.mark.parametrize(
    ("value", "files", "meant"),
    [
        ("v0.nii", ["a/v0.nii.gz"], "a/v0.nii.gz"),
        ("V0.nii.gz", ["v0.nii"], "v0.nii"),
        ("v0.nii", ["a/v0.nii", "b/v0.nii.gz"], "a/v0.nii"),
        ("v0.nii", ["a/v0.nii.gz", "b/v0.nii.gz"], None),
        ("IM000.dcm", ["P1/IM000"], "P1/IM000"),
        ("IM000.png", ["P1/IM000"], None),
        ("IM000.dcm", ["P1/IM000.png"], None),
        ("D:\\Export\\CASE_0\\", ["Case_0/1.dcm"], "Case_0/1.dcm"),
        ("case_0", ["x/Case_0/1.dcm", "x/CASE_0/1.dcm"], None),
    ],
)
def test_endings_and_case(value, files, meant):
    assert matched([value], files)[0] == ({value: meant} if meant else {})


def test_subjects_that_name_folders_of_bids(tmp_path):
    for n in range(6):
        path = tmp_path / "archive" / f"sub-{n:02d}" / "anat" / "T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nibabel.save(
            nibabel.Nifti1Image(np.random.default_rng(n).integers(0, 99, (8, 8, 3)).astype("i2"), np.eye(4)), path
        )
    rows = [(f"sub-{n:02d}", "ab"[n % 2]) for n in range(6)]
    cohort = cohort_of(tmp_path, ("subject", "label"), *rows, modality="MR")
    assert labels(cohort) == {f"sub-{n:02d}/anat/T1w.nii.gz": "ab"[n % 2] for n in range(6)}
    assert cohort.info["asked"]["patient_column"] == "subject"


def test_a_column_that_would_match_is_named(tmp_path):
    for n in range(6):
        write_dicom(tmp_path / "archive" / f"case{n}" / "1.dcm", noise(n), str(n), f"H{n}")
    rows = [(f"case{n}", "ab"[n % 2]) for n in range(6)]
    for heading in ("patient_id", "ID"):
        with pytest.raises(MedloraError, match=f"--key file={heading}"):
            cohort_of(tmp_path, (heading, "label"), *rows)
        assert len(cohort_of(tmp_path, (heading, "label"), *rows, key=f"file={heading}")) == 6
    with pytest.raises(MedloraError) as caught:  # the names of classes are no key
        cohort_of(tmp_path, ("patient_id", "label"), *((f"X{n}", f"case{n % 2}") for n in range(6)))
    assert "--key file=" not in str(caught.value)


@pytest.fixture
def mrn(tmp_path):
    """Patients 5 to 16, whom the table also numbers from 1 to 12."""
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), str(n + 5), AccessionNumber=f"A{n}")
    return [(str(n + 1), str(n + 5), f"A{n}", "ab"[n % 2]) for n in range(12)]


@pytest.mark.parametrize("key", [None, "patient", "MRN"])
def test_of_two_columns_of_patients_the_one_is_taken_that_fits(tmp_path, mrn, key):
    rows = [(running, number, label) for running, number, _, label in mrn]
    cohort = cohort_of(tmp_path, ("subject_id", "MRN", "label"), *rows, key=key)
    assert labels(cohort) == {f"{n}.dcm": "ab"[n % 2] for n in range(12)}
    assert cohort.info["asked"]["patient_column"] == cohort.info["asked"]["key_column"] == "MRN"
    said = "the column 'subject_id' (patient ID) was not used: it leads 8 rows to other scans"
    assert (said in cohort.warnings) == (key != "MRN")


def test_scans_are_held_against_the_column_of_patients_that_fits(tmp_path, mrn):
    rows = [(running, number, accession, label) for running, number, accession, label in mrn]
    cohort = cohort_of(tmp_path, ("subject_id", "MRN", "accession", "label"), *rows)
    assert len(cohort) == 12 and cohort.info["asked"]["patient_column"] == "MRN"


def test_two_columns_of_patients_that_disagree_evenly_are_refused(tmp_path):
    for n in range(6):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), str(n))
    rows = [(str(n), str((n + 1) % 6), "ab"[n % 2]) for n in range(6)]
    with pytest.raises(MedloraError, match=r"(?s)as many rows .* --key patient=patient_id, or --key patient=MRN"):
        cohort_of(tmp_path, ("patient_id", "MRN", "label"), *rows)
    assert labels(cohort_of(tmp_path, ("patient_id", "MRN", "label"), *rows, key="MRN"))["1.dcm"] == "a"

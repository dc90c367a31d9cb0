"""Rows whose key leads to several scans, and whose other columns say which: files, dates, sides, sessions."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from archives import noise, uid, write_csv, write_dicom
from PIL import Image

from medlora.cohorts import Cohort
from medlora.errors import MedloraError

MG = "1.2.840.10008.5.1.4.1.1.1.2"


def cohort_of(tmp_path, *rows, **options):
    table = write_csv(tmp_path / "labels.csv", rows)
    return Cohort.from_archive(tmp_path / "archive", table, fractions=None, workers=1, **options)


def labels(cohort):
    """Path in the archive → label."""
    paths = cohort._private.linkage.drop_duplicates("scan_id").set_index("scan_id")["path"]
    return {paths[row.scan_id]: row.label for row in cohort.table.itertuples()}


@pytest.fixture
def visits(tmp_path):
    """Six patients, with a study in each of three years; every file is called as those of the others."""
    for n in range(6):
        for year in (2021, 2022, 2023):
            path = tmp_path / "archive" / f"P{n}" / f"{year - 2020}.dcm"
            write_dicom(path, noise(10 * n + year), f"{n} {year}", f"P{n}", StudyDate=f"{year}0{n + 1}13")
    return tmp_path


@pytest.mark.parametrize(
    "written", ["{y}-{m:02d}-13", "{y}{m:02d}13", "13.{m}.{y}", "{m}/13/{y}", "13/{m:02d}/{y} 08:15", "{y}/{m}/13 0:00"]
)
def test_a_row_for_a_visit_is_about_the_study_of_that_day(visits, written):
    rows = [
        (f"P{n}", written.format(y=year, m=n + 1), {2021: "a", 2022: "", 2023: "b"}[year])
        for n in range(6)
        for year in (2021, 2022, 2023)
    ]
    cohort = cohort_of(visits, ("patient_id", "study_date", "label"), *rows)
    assert labels(cohort) == {f"P{n}/{k}.dcm": label for n in range(6) for k, label in ((1, "a"), (3, "b"))}


def test_a_visit_without_a_study_takes_none_of_another(visits):
    rows = [(f"P{n}", f"{year}-0{n + 1}-13", "ab"[year % 2]) for n in range(6) for year in (2020, 2021)]
    cohort = cohort_of(visits, ("patient_id", "study_date", "label"), *rows)
    assert labels(cohort) == {f"P{n}/1.dcm": "b" for n in range(6)}
    said = "6 rows matched no scan, since their 'study_date' is that of none: rows 2, 4, 6, 8, 10, 12"
    assert said in cohort.warnings


def test_dates_that_were_shifted_tell_nothing_and_their_rows_must_agree(visits):
    rows = [(f"P{n}", f"{1950 + k}-01-01", "ab"[n % 2]) for n in range(6) for k in range(2)]
    cohort = cohort_of(visits, ("patient_id", "study_date", "label"), *rows)
    assert len(cohort) == 18
    assert "12 rows are about several studies each, and give their label to all: 18 scans" in cohort.warnings
    for label, what in (("", "a label and none"), ("c", "two labels")):
        with pytest.raises(MedloraError, match=f"rows 2 and 3 give one patient {what}"):
            cohort_of(visits, ("patient_id", "study_date", "label"), rows[0], (*rows[1][:2], label), *rows[2:])


@pytest.mark.parametrize("second", ["filename", "dicom_id"])
def test_files_called_alike_are_told_apart_by_the_patient(visits, second):
    name = "{}.dcm" if second == "filename" else "{}"
    rows = [(f"P{n}", name.format(k), "abc"[k - 1]) for n in range(6) for k in (1, 3)]
    cohort = cohort_of(visits, ("patient_id", second, "label"), *rows)
    assert labels(cohort) == {f"P{n}/{k}.dcm": "abc"[k - 1] for n in range(6) for k in (1, 3)}


@pytest.mark.parametrize("first", ["path", "folder"])
def test_a_folder_and_a_name_in_two_columns(visits, first):
    rows = [(f"P{n}", "2.dcm", "ab"[n % 2]) for n in range(6)]
    cohort = cohort_of(visits, (first, "filename", "label"), *rows)
    assert labels(cohort) == {f"P{n}/2.dcm": "ab"[n % 2] for n in range(6)}


def test_a_running_number_tells_nothing_though_some_files_are_called_so(visits):
    rows = [(f"P{n}", n + 1, "ab"[n % 2]) for n in range(6)]  # 1 to 3 are files of each patient, 4 to 6 of none
    cohort = cohort_of(visits, ("patient_id", "image", "label"), *rows)
    assert len(cohort) == 18
    assert "the column 'image' (file path) was not used: its values may mean several scans" in cohort.warnings


@pytest.mark.parametrize("blank", [False, True])
def test_a_row_for_each_breast_of_one_accession_number(tmp_path, blank):
    for n in range(6):
        same = {"StudyInstanceUID": uid(n), "AccessionNumber": f"A{n}", "SOPClassUID": MG, "Modality": "MG"}
        for k, side in enumerate("LR"):
            for j, view in enumerate(("CC", "MLO")):
                more = {"ImageLaterality": side, "ViewPosition": view}
                write_dicom(tmp_path / "archive" / f"{n}{side}{view}.dcm", noise(8 * n + 2 * k + j),
                            f"{n}{side}{view}", f"P{n}", **same, **more)  # fmt: skip
    rows = []
    for n in range(6):
        right = "" if blank else "healthy" if n else "cancer"  # of the first both have one label
        rows += [(f"A{n}", "L", "cancer"), (f"A{n}", "right", right)]
    cohort = cohort_of(tmp_path, ("accession", "laterality", "label"), *rows, select="modality=MG ViewPosition=MLO")
    expected = {f"{n}LMLO.dcm": "cancer" for n in range(6)}
    if not blank:
        expected |= {f"{n}RMLO.dcm": "healthy" if n else "cancer" for n in range(6)}
    assert labels(cohort) == expected


def test_sessions_of_bids(tmp_path):
    chance = np.random.default_rng(0)
    for n in range(6):
        for session in ("ses-01", "ses-02"):
            path = tmp_path / "archive" / f"sub-{n}" / session / "anat" / f"sub-{n}_{session}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            nibabel.save(nibabel.Nifti1Image(chance.integers(0, 99, (20, 20, 3)).astype("i2"), np.eye(4)), path)
    rows = [(f"sub-{n}", "ses-02" if n else "02", "ab"[n % 2]) for n in range(6)]
    cohort = cohort_of(tmp_path, ("participant_id", "session_id", "label"), *rows, modality="MR")
    found = {f"sub-{n}/ses-02/anat/sub-{n}_ses-02_T1w.nii.gz": "ab"[n % 2] for n in range(6)}
    assert labels(cohort) == found and not any("several studies" in line for line in cohort.warnings)


@pytest.mark.parametrize("status", [True, False])
def test_socio_economic_status_is_no_session(tmp_path, status):
    """SES of OASIS, 1 to 5, beside folders ses-1 to ses-3; the sessions themselves are still told apart."""
    rows, expected = [("subject", "SES", "label")], {}
    for n in range(6):
        for k in (1, 2, 3):
            path = f"P{n}/ses-{k}/{n}.dcm"
            write_dicom(tmp_path / "archive" / path, noise(10 * n + k), path, f"P{n}")
            if not status:
                rows.append((f"P{n}", f"ses-{k}", "abc"[k - 1]))
            elif k == 1:
                rows.append((f"P{n}", 1 + n % 5, "ab"[n % 2]))
            expected[path] = "ab"[n % 2] if status else "abc"[k - 1]
    assert labels(cohort_of(tmp_path, *rows)) == expected


@pytest.mark.parametrize("column", ["visit", "session", "study_id"])
def test_a_number_of_a_visit_is_not_that_of_a_series_or_file(tmp_path, column):
    """Exams in folders named by date, each with series 1 and 2: visit 1 is not series 1 of both."""
    for n in range(6):
        for day in ("13", "27"):
            for k in (1, 2):
                path = tmp_path / "archive" / f"P{n}" / f"202101{day}" / str(k) / f"{k}.dcm"
                same = {"StudyInstanceUID": uid(n, day)}
                write_dicom(path, noise(10 * n + k + int(day)), f"{n} {day} {k}", f"P{n}", **same)
    rows = [(f"P{n}", visit, "ab"[visit % 2]) for n in range(6) for visit in (1, 2)]
    with pytest.raises(MedloraError, match="give one patient two labels"):
        cohort_of(tmp_path, ("patient", column, "label"), *rows)


def test_a_report_date_loses_no_rows(visits):
    """Where rows and scans are not contended, a date decides nothing; nor does it between scans of one study."""
    for n in range(6):
        for year in (2022, 2023):
            (visits / "archive" / f"P{n}" / f"{year - 2020}.dcm").unlink()
    rows = [(f"P{n}", f"2021-0{n + 1}-13" if n else "2021-02-01", "ab"[n % 2]) for n in range(6)]
    cohort = cohort_of(visits, ("patient_id", "date", "label"), *rows)
    assert len(cohort) == 6
    assert cohort.warnings == ["1 row matched the only scan there is, though its date is not that of 'date': row 2"]


def test_one_of_two_files_of_a_name_is_the_one_with_the_extension(tmp_path):
    rows = [("folder", "filename", "label")]
    for n in range(6):
        write_dicom(tmp_path / "archive" / f"P{n}" / "scan.dcm", noise(n), str(n), f"P{n}")
        Image.fromarray((noise(99 + n) >> 4).astype("u1")).save(tmp_path / "archive" / f"P{n}" / "scan.png")
        rows.append((f"P{n}", "scan.png", "ab"[n % 2]))
    assert set(labels(cohort_of(tmp_path, *rows, modality="DX"))) == {f"P{n}/scan.png" for n in range(6)}


def test_a_folder_beside_a_path_that_says_all_changes_nothing(tmp_path):
    """The path is enough, to its end or from the archive on; the folder's other scans are not meant."""
    for n in range(6):
        for name in "cd":
            write_dicom(
                tmp_path / "archive" / "a" / f"b{n}" / f"{name}.dcm", noise(9 * n + ord(name)), f"{n}{name}", ""
            )
    for path in ("b{}/c.dcm", "a/b{}/c.dcm", "a/b{}/c"):
        rows = [(path.format(n), f"a/b{n}", "xy"[n % 2]) for n in range(6)]
        cohort = cohort_of(tmp_path, ("file", "folder", "label"), *rows, ("gone.dcm", "elsewhere", "x"))
        assert set(labels(cohort)) == {f"a/b{n}/c.dcm" for n in range(6)} and cohort.info["join"]["column"] == "file"


def test_the_folder_of_a_patient_is_no_session(tmp_path):
    for n in (1, 2, 3):
        for k in (1, 2, 3):
            path = tmp_path / "archive" / str(n) / f"ses-{k}" / "x.dcm"
            write_dicom(path, noise(10 * n + k), f"{n} {k}", str(n))
    rows = [(n, 1, "ab"[n % 2]) for n in (1, 2, 3)]
    cohort = cohort_of(tmp_path, ("patient_id", "session", "label"), *rows)
    assert labels(cohort) == {f"{n}/ses-1/x.dcm": "ab"[n % 2] for n in (1, 2, 3)}

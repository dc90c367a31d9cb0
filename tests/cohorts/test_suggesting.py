"""What a refused table is told: a column that would match, as the shell takes it; numbers without zeros; headings."""

from __future__ import annotations

import shlex

import pytest
from archives import noise, write_csv, write_dicom

from medlora.cohorts import Cohort
from medlora.errors import MedloraError


def cohort_of(tmp_path, *rows, **options):
    table = write_csv(tmp_path / "labels.csv", rows)
    return Cohort.from_archive(tmp_path / "archive", table, fractions=None, workers=1, **options)


@pytest.fixture
def archive(tmp_path):
    """Twelve scans in a folder of their own each, of patients whose numbers begin with zeros."""
    for n in range(12):
        write_dicom(tmp_path / "archive" / "images" / f"{n:03d}" / f"x{n}.dcm", noise(n), str(n), f"{1000 + n:08d}")
    return tmp_path


@pytest.mark.parametrize(
    ("heading", "cell", "key"),
    [
        ("ID", "x{n}.dcm", "file=ID"),
        ("ID", "images/{n:03d}", "file=ID"),
        ("ID", "D:\\export\\IMAGES\\{n:03d}\\X{n}.DCM", "file=ID"),
        ("Case", "{m}", "patient=Case"),
        ("Patient No.", "{m}", "patient=Patient No."),
        ("It's $HOME", "{m:08d}", "patient=It's $HOME"),
        ("Age", "{m:08d}", None),  # people may be numbered as they are old
    ],
)
def test_a_suggested_option_can_be_pasted_and_joins(archive, heading, cell, key):
    rows = [(cell.format(n=n, m=1000 + n), "ab"[n % 2]) for n in range(12)]
    with pytest.raises(MedloraError, match="no column that tells which scan") as caught:
        cohort_of(archive, (heading, "label"), *rows)
    assert (" of the archive: --key " in caught.value.fix) == (key is not None)
    if key is not None:
        assert shlex.split(caught.value.fix.rpartition(" --key ")[2]) == [key]
        assert len(cohort_of(archive, (heading, "label"), *rows, key=key)) == 12


def test_grades_that_are_numbers_of_people_without_zeros_are_not_suggested(tmp_path):
    for n in range(12):
        write_dicom(tmp_path / "archive" / f"x{n}.dcm", noise(n), str(n), f"{n:05d}")
    rows = [(f"code{n}", n % 6, "ab"[n % 2]) for n in range(12)]
    with pytest.raises(MedloraError) as caught:
        cohort_of(tmp_path, ("code", "grade", "label"), *rows)
    assert " of the archive: " not in caught.value.fix


def test_other_options_with_a_heading_are_quoted(archive):
    rows = [(f"{1000 + n}", f"{1000 + (n + 1) % 12}", "ab"[n % 2]) for n in range(12)]
    with pytest.raises(MedloraError, match=r"e\.g\. --key 'patient=my code'"):
        cohort_of(archive, ("my code", "x", "label"), *rows, key="my code")
    with pytest.raises(MedloraError, match="say it: --key 'patient=Patient ID', or --key patient=MRN"):
        cohort_of(archive, ("Patient ID", "MRN", "label"), *rows)


@pytest.mark.parametrize("heading", ["folder", "image"])
@pytest.mark.parametrize("zeros", [True, False])
def test_numbers_that_lack_the_zeros_of_names_are_told_so(tmp_path, heading, zeros):
    path = "{n:03d}/scan.dcm" if heading == "folder" else "a/{n:03d}.dcm"
    for n in range(12):
        write_dicom(tmp_path / "archive" / path.format(n=n), noise(n), str(n), f"P{n}")
    rows = [(n if not zeros else f"{n:03d}", "ab"[n % 2]) for n in range(12)]
    if zeros:
        assert len(cohort_of(tmp_path, (heading, "label"), *rows)) == 12
        return
    with pytest.raises(MedloraError, match=r"12 rows hold a number that lacks the leading zeros .*: format"):
        cohort_of(tmp_path, (heading, "label"), *rows)
    rows = [*rows[:6], *((path.format(n=n), "ab"[n % 2]) for n in range(6, 12))]
    cohort = cohort_of(tmp_path, (heading, "label"), *rows)
    assert len(cohort) == 6
    assert any("6 rows matched no scan: rows 2 to 7" in w and "lacks the leading zeros" in w for w in cohort.warnings)


def test_headings_below_a_title_are_seen(archive):
    rows = [(1000 + n, "GE", "ab"[n % 2]) for n in range(12)]
    with pytest.raises(MedloraError, match="the headings seem to be in row 3: remove the rows above it"):
        cohort_of(archive, ("Patient Information", "", ""), ("", "(export)", ""), ("Patient ID", "Maker", "ER"), *rows)
    with pytest.raises(MedloraError) as caught:  # a class is no heading
        cohort_of(archive, ("code", "label"), *((n, ("patient", "control")[n % 2]) for n in range(12)))
    assert "headings" not in caught.value.fix

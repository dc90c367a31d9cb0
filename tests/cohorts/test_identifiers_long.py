"""Numbers that spreadsheets cut, patients written in several ways, and centres under other headings."""

from __future__ import annotations

import pytest
from archives import noise, write_csv, write_dicom
from PIL import Image

from medlora.cohorts import Cohort
from medlora.cohorts.headings import is_personal
from medlora.cohorts.identifiers import match_identifiers, shortened
from medlora.cohorts.labels import read_labels
from medlora.cohorts.places import read_places, unread_centres
from medlora.errors import MedloraError


def cohort_of(tmp_path, *rows, **options):
    return Cohort.from_archive(
        tmp_path / "archive", write_csv(tmp_path / "labels.csv", rows), fractions=None, **options
    )


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        (["1.23E+09", "123"], {"1.23E+09"}),
        (["1234567890123450", "1234567890123990"], {"1234567890123450", "1234567890123990"}),
        (["12345678901234500", "0012345678901234500", "7"], {"12345678901234500", "0012345678901234500"}),
        (["1234567890123450", "1234567890123457"], set()),  # not all end in zeros
        (["123456789012340", "000000000000000120"], set()),  # 15 digits, and leading zeros
        (["1.2.840.1234567890123450"], set()),
    ],
)
def test_numbers_of_which_digits_are_lost(values, lost):
    assert shortened(values) == lost


def test_cut_numbers_match_by_their_first_digits_where_these_are_one_scans():
    values = ["2020010100000010", "2020010100000020"]
    assert match_identifiers(values, ["2020010100000013", "2020010100000027"]).to == {
        "2020010100000010": "2020010100000013",
        "2020010100000020": "2020010100000027",
    }
    # 10 is there, but so is 13, and either may have been meant; and then nothing is known of 20.
    found = match_identifiers(values, ["2020010100000010", "2020010100000013", "2020010100000020"])
    assert found.to == {} and found.ambiguous == set(values)
    assert match_identifiers(["2020010100000010"], ["20200101000000109", "202001010000001"]).to == {}
    whole = ["2020010100000010", "2020010100000013"]
    assert match_identifiers(whole, whole).to == dict(zip(whole, whole, strict=True))


def test_rows_of_cut_numbers_are_refused_and_said(tmp_path):
    numbers = [str(2020010100000000 + 7 * n) for n in range(20)]
    for n, number in enumerate(numbers):
        write_dicom(tmp_path / "archive" / f"{n}.dcm", noise(n), str(n), f"P{n}", AccessionNumber=number)
    rows = [(numbers[n][:15] + "0", "ab"[n % 2]) for n in range(1, 20, 4)]
    with pytest.raises(MedloraError, match=r"5 rows hold a number that a spreadsheet has shortened .* or to 15 digits"):
        cohort_of(tmp_path, ("accession_number", "label"), *rows)


def images(tmp_path, names):
    (tmp_path / "archive").mkdir()
    for n, name in enumerate(names):
        Image.fromarray((noise(n, (16, 16)) >> 4).astype("u1")).save(tmp_path / "archive" / f"{name}.png")


def test_patients_whose_numbers_were_cut_are_said_to_be_one(tmp_path):
    images(tmp_path, range(10))
    rows = [(f"{n}.png", "12345678901234500", "ab"[n % 2]) for n in range(10)]
    cohort = cohort_of(tmp_path, ("file", "patient_id", "label"), *rows)
    assert cohort.table["patient"].nunique() == 1
    assert any(w.startswith("1 patient IDs of the table are numbers that a spreadsheet") for w in cohort.warnings)


def test_patients_that_are_one_by_zeros_or_case_are_said(tmp_path):
    images(tmp_path, range(8))
    cells = ["0001", "1", "0002", "2.0", "a7", "A7", "9", "10"]  # 1, 2 and a7 twice
    rows = [(f"{n}.png", cell, "ab"[n % 2]) for n, cell in enumerate(cells)]
    cohort = cohort_of(tmp_path, ("file", "patient_id", "label"), *rows)
    assert cohort.table["patient"].nunique() == 5
    assert [line for line in cohort.warnings if "written in several ways" in line] == [
        "3 patients of the column 'patient_id' are written in several ways, which differ in leading zeros, a trailing "
        ".0 or case; each counts as one patient"
    ]
    rows = [(f"{n}.png", str(n), "ab"[n % 2]) for n in range(8)]
    assert not any("written" in w for w in cohort_of(tmp_path, ("file", "patient_id", "label"), *rows).warnings)


@pytest.mark.parametrize(
    ("headings", "cells", "unread"),
    [
        (("posX", "posY", "posZ"), ("1", "-2.5", "3"), True),
        (("world_x", "world_y", "world_z"), ("1,5", "2", "1e2"), True),
        (("posX", "posY", "posZ"), ("left", "2", "3"), False),
        (("posX", "posY", "pos"), ("1", "2", "3"), False),
        (("spacing_x", "spacing_y", "spacing_z"), ("1", "2", "3"), False),
        (("x", "y", "z"), ("1", "2", "3"), False),
        (("x_lps", "y_lps", "z_lps"), ("1", "2", "3"), False),
    ],
)
def test_headings_like_those_of_centres(tmp_path, headings, cells, unread):
    path = write_csv(tmp_path / "labels.csv", [("file", *headings, "label"), ("1.png", *cells, "a")], ";")
    assert unread_centres(read_labels(path)) == (list(headings) if unread else [])


@pytest.mark.parametrize("system", ["lps", "ras"])
def test_headings_may_declare_the_system(tmp_path, system):
    rows = [("file", *(f"{axis}_{system.upper()}" for axis in "xyz"), "label"), ("1.png", "1", "2", "3", "a")]
    table = read_labels(write_csv(tmp_path / "labels.csv", rows))
    for coordinates in (None, system):
        places = read_places(table, coordinates)
        assert places is not None and places.system == system and places.of_row[2].centre == (1, 2, 3)
    with pytest.raises(MedloraError, match=f"say {system}"):
        read_places(table, "voxel")


def test_labels_beside_centres_that_were_not_read_are_said_to_be_of_whole_scans(tmp_path):
    images(tmp_path, range(4))
    rows = [(f"{n}.png", n, n, n, "ab"[n % 2]) for n in range(4)]
    cohort = cohort_of(tmp_path, ("file", "posX", "posY", "posZ", "label"), *rows)
    said = "the columns 'posX', 'posY', 'posZ' were not read as centres of places"
    assert len(cohort) == 4 and any(line.startswith(said) for line in cohort.warnings)


@pytest.mark.parametrize("heading", ["acqdate", "Acquisition date", "Scan_Date", "VisitDate", "ExamDate", "Datum",
                                     "Untersuchungsdatum"])  # fmt: skip
def test_headings_of_dates_are_no_labels(heading):
    assert is_personal(heading) and not is_personal("update") and not is_personal("candidate")

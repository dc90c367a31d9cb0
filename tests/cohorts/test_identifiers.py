from __future__ import annotations

from pathlib import Path

import pytest

from medlora.cohorts.identifiers import match_identifiers
from medlora.cohorts.paths import match_paths


def test_lost_zeros_and_added_decimals_match_where_only_one_is_meant():
    found = match_identifiers(["123", "4567.0", "abc"], ["000123", "0004567", "ABC", "99"])
    assert found.to == {"123": "000123", "4567.0": "0004567", "abc": "ABC"}
    assert {how: sorted(values) for how, values in found.repaired.items()} == {
        "with leading zeros or a trailing .0 disregarded": ["123", "4567.0"],
        "with upper and lower case disregarded": ["abc"],
    }


def test_zeros_lost_for_two_patients_match_neither():
    found = match_identifiers(["123"], ["0123", "00123"])
    assert found.to == {} and found.ambiguous == {"123"}


def test_an_exact_match_is_doubted_where_the_table_has_lost_its_zeros():
    """The archive knows 123 and 0123, the table has no leading zero anywhere: its 123 may be either."""
    found = match_identifiers(["123", "45"], ["123", "0123", "45"])
    assert found.to == {"45": "45"} and found.ambiguous == {"123"}
    found = match_identifiers(["123", "0123"], ["123", "0123"])
    assert found.to == {"123": "123", "0123": "0123"}


def test_two_rows_never_claim_one_patient():
    found = match_identifiers(["0123", "123"], ["0123"])
    assert found.to == {"0123": "0123"} and found.ambiguous == {"123"}
    found = match_identifiers(["123", "123.0"], ["00123"])
    assert found.to == {} and found.ambiguous == {"123", "123.0"}


@pytest.mark.parametrize(
    ("short", "known", "meant"),
    [
        ("1.23E+08", ["123456789", "223456789"], "123456789"),
        ("1.23457E+08", ["123456789", "123456111"], "123456789"),
        ("1.0E+05", ["100000", "100"], "100000"),
        ("1E+05", ["0100000"], "0100000"),
        ("1.23E+08", ["123456789", "123444444"], None),
        ("1.23E+08", ["123956789"], None),
        ("1.23E+08", ["12345678"], None),
        ("1.23E+999999999", ["123"], None),
    ],
)
def test_shortened_numbers_match_by_the_digits_they_show(short, known, meant):
    found = match_identifiers([short], known)
    assert found.to == ({short: meant} if meant else {})


FILES = ["p1/a.dcm", "p1/b.dcm", "p2/a.dcm", "p2/c.png", "p3/s1/1.dcm", "p3/s1/2.dcm", "p4/Ü x.DCM"]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("p1/a.dcm", ["p1/a.dcm"]),
        ("./p1/a.dcm", ["p1/a.dcm"]),
        ("p1\\a.dcm", ["p1/a.dcm"]),
        ("archive/p1/a.dcm", ["p1/a.dcm"]),  # relative to the table's folder
        ("/elsewhere/archive/p1/a.dcm", ["p1/a.dcm"]),
        ("D:\\export\\p2\\c.png", ["p2/c.png"]),
        ("c.png", ["p2/c.png"]),
        ("c", ["p2/c.png"]),
        ("b", ["p1/b.dcm"]),
        ("B.DCM", ["p1/b.dcm"]),
        ("p4/U\u0308 x.DCM", ["p4/Ü x.DCM"]),  # decomposed, as macOS writes names
        ("p3/s1", ["p3/s1/1.dcm", "p3/s1/2.dcm"]),
        ("p3", ["p3/s1/1.dcm", "p3/s1/2.dcm"]),
        ("D:\\export\\p3\\s1\\", ["p3/s1/1.dcm", "p3/s1/2.dcm"]),
        ("/elsewhere/p4", ["p4/Ü x.DCM"]),
        ("p9/s1", None),  # another patient's folder
        ("a.dcm", None),  # two of them
        ("p9/b.dcm", None),  # another patient's folder
        ("c.dcm", None),  # another format
        ("/etc/passwd", None),
        ("..", None),
        ("", None),
    ],
)
def test_paths(tmp_path, value, meant):
    found = match_paths([value], FILES, tmp_path / "archive", tmp_path)
    assert found.to == ({value: meant} if meant else {})


def test_paths_with_the_right_case_come_first():
    found = match_paths(["A.dcm", "a.dcm"], ["x/A.dcm", "y/a.dcm"], Path("/r"), Path("/r"))
    assert found.to == {"A.dcm": ["x/A.dcm"], "a.dcm": ["y/a.dcm"]}
    assert match_paths(["A.DCM"], ["x/A.dcm", "y/a.dcm"], Path("/r"), Path("/r")).ambiguous == {"A.DCM"}


def test_two_paths_with_the_same_end_claim_nothing():
    found = match_paths(["p1/a.dcm", "p2/a.dcm"], ["a.dcm"], Path("/r"), Path("/r"))
    assert found.to == {} and found.ambiguous == {"p1/a.dcm", "p2/a.dcm"}


def test_three_zeros_behind_a_separator_are_thousands_and_no_decimals():
    found = match_identifiers(["1.000", "2,000", "30.0"], ["1", "1000", "2", "30"])
    assert found.to == {"30.0": "30"}


def test_a_folder_and_a_file_of_one_name_are_told_by_the_extension_alone():
    files = ["case1/mask.dcm", "case1.dcm", "case2/mask.dcm"]
    found = match_paths(["case1", "case2"], files, Path("/r"), Path("/r"))
    assert found.to == {"case2": ["case2/mask.dcm"]} and found.ambiguous == {"case1"}
    assert match_paths(["case1.dcm"], files, Path("/r"), Path("/r")).to == {"case1.dcm": ["case1.dcm"]}


def test_a_path_that_holds_from_the_archive_and_from_the_tables_folder_is_neither():
    files = ["1.dcm", "b/1.dcm", "b/2.dcm"]
    found = match_paths(["1.dcm", "2.dcm"], files, Path("/r"), Path("/r/b"))
    assert found.to == {"2.dcm": ["b/2.dcm"]} and found.ambiguous == {"1.dcm"}
    assert match_paths(["1.dcm"], files, Path("/r"), Path("/r")).to == {"1.dcm": ["1.dcm"]}


def test_of_shortened_numbers_none_is_taken_where_one_may_mean_several():
    """Numbers that lie so close will also be those of scans that are not there."""
    found = match_identifiers(["2.02E+09", "3.03E+09"], ["2020000001", "2020000002", "3030000001"])
    assert found.to == {} and found.ambiguous == {"2.02E+09", "3.03E+09"}

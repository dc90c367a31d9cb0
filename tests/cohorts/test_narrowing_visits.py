"""Rows of one patient told apart by a visit or a date: how these are written, numbered, and what is said where not."""

from __future__ import annotations

import pytest
from archives import noise, write_csv, write_dicom
from PIL import Image

from medlora import progress
from medlora.cohorts import Cohort
from medlora.cohorts.dates import dates_of, orders_of
from medlora.cohorts.visits import numbered, shifted
from medlora.errors import MedloraError

EITHER = (True, True)


def cohort_of(tmp_path, *rows):
    table = write_csv(tmp_path / "labels.csv", rows)
    return Cohort.from_archive(tmp_path / "archive", table, fractions=None, workers=1)


def labels(cohort):
    """Path in the archive → label."""
    paths = cohort._private.linkage.drop_duplicates("scan_id").set_index("scan_id")["path"]
    return {paths[row.scan_id]: row.label for row in cohort.table.itertuples()}


def write(tmp_path, patient, folder, day="20200101"):
    """A radiograph of a patient, in a folder of the visit."""
    name = f"P{patient}/{folder}/x.dcm" if folder else f"P{patient}/{day}.dcm"
    seed = sum(ord(letter) * 31**k for k, letter in enumerate(name))
    write_dicom(tmp_path / "archive" / name, noise(seed), name, f"P{patient}", StudyDate=day)
    return name


def said(capsys, tmp_path, *rows):
    """The cohort, and what was said about columns that were not used."""
    progress.quiet(False)
    cohort = cohort_of(tmp_path, *rows)
    lines = capsys.readouterr().err.splitlines()
    return cohort, sorted({line for line in lines if "was not used to tell" in line})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ses-01", "ses1"), ("Ses 1", "ses1"), ("10", "10"), ("1.0", "1"), ("1.00", "1"), ("1,0", "1"), ("10.0", "10"),
        ("ses-1.0", "ses1"), ("1.5", "1.5"), ("1,5", "1.5"), ("ses-1.5", "ses1.5"), ("15", "15"), ("-1", "-1"),
        ("-1.0", "-1"), ("2021.01.13", "20210113"), ("50000001.0", "50000001"), ("M06", "m6"), ("bl", "bl"),
    ],
)  # fmt: skip
def test_names_of_visits(name, known):
    assert numbered(name) == known


def test_the_next_visit_and_the_one_before():
    assert [shifted(name, 1) for name in ("0", "t9", "bl", "1.5", "-1")] == ["1", "t10", "bl", "1.5", "-1"]
    assert [shifted(name, -1) for name in ("1", "t10", "0")] == ["0", "t9", "0"]


@pytest.mark.parametrize("written", ["{}.0", "{}", "{}.00", "{},0"])
def test_session_1_0_is_session_1_and_not_10(tmp_path, written):
    rows, expected = [("patient_id", "session", "label")], {}
    for n in range(3):
        for k in range(1, 13):
            path = write(tmp_path, n, f"ses-{k}")
            if k < 10:
                rows.append((f"P{n}", written.format(k), "ab"[(n + k) % 2]))
                expected[path] = "ab"[(n + k) % 2]
    assert len(expected) == 27 and labels(cohort_of(tmp_path, *rows)) == expected


def test_half_a_visit_is_none_of_ten_times_its_number(tmp_path):
    """Visits 1, 1.5 and 2; folders of visits 1, 2 and 15."""
    rows, expected = [("patient_id", "visit", "label")], {}
    for n in range(4):
        paths = {folder: write(tmp_path, n, f"visit{folder}") for folder in ("1", "2", "15")}
        rows += [(f"P{n}", "1.0", "a"), (f"P{n}", "1.5", "b"), (f"P{n}", "2.0", "c")]
        expected |= {paths["1"]: "a", paths["2"]: "c"}
    with pytest.raises(MedloraError, match="do not seem to be numbered"):  # is 1.5 that of 15?
        cohort_of(tmp_path, *rows)
    for n in range(4):
        (tmp_path / "archive" / f"P{n}" / "visit15" / "x.dcm").unlink()
    assert labels(cohort_of(tmp_path, *rows)) == expected


@pytest.mark.parametrize(
    ("column", "in_table", "in_folders", "told"),
    [
        ("visit", "{}", "ses-{}", "Counted one higher, 18 visits of the table have scans instead of 12, as where the "
         "table counts from 0 and the folders from 1"),
        ("visit", "{}.0", "ses-{}", "Counted one higher, 18 visits"),
        ("timepoint", "T{}", "T{}", "Counted one higher, 18 visits"),
    ],
)  # fmt: skip
def test_visits_counted_from_0_and_folders_from_1(tmp_path, column, in_table, in_folders, told):
    rows = [("patient_id", column, "label")]
    for n in range(6):
        for k in (1, 2, 3):
            write(tmp_path, n, in_folders.format(k))
            rows.append((f"P{n}", in_table.format(k - 1), "ab"[k % 2]))
    with pytest.raises(MedloraError) as error:
        cohort_of(tmp_path, *rows)
    assert f"the visits of the column {column!r} do not seem to be numbered as the archive's folders are" in str(
        error.value
    )
    assert "6 rows have a number that no scan of theirs has" in str(error.value)
    assert "the first is row 2" in str(error.value) and told in str(error.value)


def test_visits_counted_from_1_and_folders_from_0_where_scans_are_missing(tmp_path):
    """Patients have one to three visits, so that the last is no sign; of the second patient the first scan is gone."""
    rows = [("patient_id", "visit", "label")]
    for n in range(6):
        for k in range(1 + n % 3 + 1):
            rows.append((f"P{n}", k + 1, "ab"[k % 2]))
            if (n, k) != (1, 0):
                write(tmp_path, n, f"ses-{k}")
    with pytest.raises(MedloraError, match="the table counts from 1 and the folders from 0"):
        cohort_of(tmp_path, *rows)


def test_the_visits_that_there_were_and_those_that_were_planned(tmp_path):
    """The table counts 1, 2, 3, the folders 1, 3, 5: row 3 is not of folder 3."""
    rows = [("patient_id", "visit", "label")]
    for n in range(4):
        for k in (1, 2, 3):
            write(tmp_path, n, f"ses-{2 * k - 1}")
            rows.append((f"P{n}", k, "abc"[k - 1]))
    with pytest.raises(MedloraError, match="4 rows have a number that no scan of theirs has") as error:
        cohort_of(tmp_path, *rows)
    assert "the first is row 3\n" in str(error.value)


def test_scans_that_are_missing_and_scans_without_rows_are_no_other_numbering(tmp_path):
    """Of 10 patients with visits 1 to 4, four have no scan of visit 1, two no row of visit 4; P3 both."""
    rows, expected = [("patient_id", "visit", "label")], {}
    lost = []
    for n in range(10):
        for k in (1, 2, 3, 4):
            path = None if k == 1 and n % 3 == 0 else write(tmp_path, n, f"ses-{k}")
            if k == 4 and n % 4 == 3:
                continue
            rows.append((f"P{n}", k, "ab"[(k + n) % 2]))
            if path is None:
                lost.append(len(rows))
            else:
                expected[path] = "ab"[(k + n) % 2]
    cohort = cohort_of(tmp_path, *rows)
    assert labels(cohort) == expected and len(expected) == 34
    assert lost == [2, 14, 25, 36]
    assert "4 rows matched no scan, since their 'visit' is that of none: rows 2, 14, 25, 36" in cohort.warnings


def test_another_column_of_visits_is_asked_before_a_numbering_is_refused(tmp_path):
    rows, expected = [("patient_id", "visit", "timepoint", "label")], {}
    for n in range(4):
        for k in (1, 2):
            expected[write(tmp_path, n, f"ses-{k}")] = "ab"[k - 1]
            rows.append((f"P{n}", k - 1, k, "ab"[k - 1]))
    assert labels(cohort_of(tmp_path, *rows)) == expected


@pytest.mark.parametrize(
    "cell",
    [
        "May 10, 2020", "May 10 2020", "may 10th, 2020", "Sunday, May 10, 2020", "10 May 2020", "10-May-2020",
        "10MAY2020", "10MAY2020:00:00:00", "10. Mai 2020", "Sonntag, 10. Mai 2020", "10 mai 2020", "10 de mayo de 2020",
        "10 maggio 2020", "2020-May-10", "2020-05-10", "20200510", "10.05.2020", "2020年5月10日", "10 May 2020 08:15",
        "令和2年5月10日", "令和２年５月１０日（日）", "R2.5.10", "R02/05/10 08:15",
    ],
)  # fmt: skip
def test_ways_to_write_a_date(cell):
    assert dates_of(cell, orders_of([cell])) == {"20200510"}


@pytest.mark.parametrize(
    ("word", "month"),
    [
        ("January", 1), ("Jänner", 1), ("janv.", 1), ("ene", 1), ("fév.", 2), ("März", 3), ("Mrz", 3), ("mars", 3),
        ("avr", 4), ("Abril", 4), ("juin", 6), ("juil.", 7), ("jui", None), ("Août", 8), ("Sept.", 9), ("set", 9),
        ("Okt", 10), ("Dez.", 12), ("dic", 12), ("déc.", 12), ("ma", None), ("Quarter", None),
    ],
)  # fmt: skip
def test_names_of_months(word, month):
    assert dates_of(f"3 {word} 2021", EITHER) == (frozenset() if month is None else {f"2021{month:02d}03"})


@pytest.mark.parametrize(
    "cell",
    [
        "10.5.20", "May 2020", "2020", "43961", "10 May 20", "visit 2", "", "May 102020", "令和元年4月30日", "H31.5.1",
        "S64.1.8", "R2.5", "R2.13.1", "R0.5.10", "R2.5-10", "Q2.5.10",
    ],
)  # fmt: skip
def test_what_is_no_date_that_is_understood(cell):
    assert dates_of(cell, EITHER) == frozenset()


@pytest.mark.parametrize(
    ("cell", "date"),
    [("令和元年5月1日", "20190501"), ("平成31年4月30日", "20190430"), ("H1.1.8", "19890108"), ("S64.1.7", "19890107"),
     ("昭和63年12月31日", "19881231")],
)  # fmt: skip
def test_eras_from_their_first_day_to_their_last(cell, date):
    assert dates_of(cell, EITHER) == {date}


@pytest.fixture
def studies(tmp_path):
    """Six patients with studies on the 10th of January, May and September 2020."""
    for n in range(6):
        for month in (1, 5, 9):
            write(tmp_path, n, "", f"20200{month}10")
    return tmp_path


@pytest.mark.parametrize("heading", ["Acq Date", "Untersuchungsdatum", "Datum", "fecha", "Date d'examen", "Scan Date"])
@pytest.mark.parametrize("cell", ["May 10, 2020", "10. Mai 2020"])
def test_a_date_under_another_heading_with_the_month_named(studies, heading, cell, capsys):
    rows = [(f"P{n}", cell, "ab"[n % 2]) for n in range(6)]
    cohort, lines = said(capsys, studies, ("PatientID", heading, "label"), *rows)
    assert labels(cohort) == {f"P{n}/20200510.dcm": "ab"[n % 2] for n in range(6)} and not lines


@pytest.mark.parametrize(
    ("heading", "cells", "why"),
    [
        ("StudyDate", ["10.5.20"] * 6, "6 rows apart: none of their cells is a date that is understood"),
        (
            "検査日",
            ["43961"] * 6,
            "6 rows apart: none of their cells is a date that is understood; they hold numbers by which a spreadsheet "
            "keeps dates (as 43845): format the column as dates and export it again",
        ),
        ("StudyDate", ["2021-05-11"] * 6, "6 rows apart: none of them has a scan of its date"),
        ("StudyDate", ["2020-05-10"] * 2 + ["2021-05-11"] * 4, "6 rows apart: only 2 of them have a scan of its date"),
        ("visit", [2] * 6, "6 rows apart: none of them has a scan in a folder of that name"),
    ],
)
def test_a_date_or_visit_that_was_not_used_is_said(studies, heading, cells, why, capsys):
    rows = [(f"P{n}", cell, "ab"[n % 2]) for n, cell in enumerate(cells)]
    cohort, lines = said(capsys, studies, ("PatientID", heading, "label"), *rows)
    assert len(cohort) == 18
    assert lines == [f"the column {heading!r} was not used to tell the scans of {why}; the first is row 2"]


def test_a_refusal_says_which_column_did_not_tell(studies):
    rows = [(f"P{n}", f"{43800 + 120 * k}", "ab"[k]) for n in range(6) for k in range(2)]
    with pytest.raises(MedloraError, match=r"two labels .* the column 'StudyDate' was not used .* \(as 43845\)"):
        cohort_of(studies, ("PatientID", "StudyDate", "label"), *rows)


def test_single_cells_that_are_not_understood_are_said(studies, capsys):
    rows = [(f"P{n}", "unknown" if n == 4 else "2020-05-10", "ab"[n % 2]) for n in range(6)]
    cohort, lines = said(capsys, studies, ("PatientID", "StudyDate", "label"), *rows)
    assert len(cohort) == 5 + 3
    why = "1 row apart: none of their cells is a date that is understood; the first is row 6"
    assert lines == [f"the column 'StudyDate' was not used to tell the scans of {why}"]


def test_scans_that_say_no_date_are_said(tmp_path, capsys):
    rows = [("participant_id", "date", "label")]
    for n in range(4):
        for k in (1, 2):
            path = tmp_path / "archive" / f"sub-{n}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((noise(2 * n + k) >> 4).astype("u1")).save(path)
        rows.append((f"sub-{n}", "2020-05-10", "ab"[n % 2]))
    cohort, lines = said(capsys, tmp_path, *rows)
    why = "4 rows apart: these scans say no date; the first is row 2"
    assert len(cohort) == 8 and lines == [f"the column 'date' was not used to tell the scans of {why}"]


@pytest.mark.parametrize(
    ("heading", "cells"),
    [("StudyDate", ["soon"] * 6), ("StudyDate", [""] * 6), ("visit", [7] * 6), ("study", ["X"] * 6)],
)
def test_nothing_is_said_where_there_is_nothing_to_tell_apart(tmp_path, heading, cells, capsys):
    for n in range(6):
        write(tmp_path, n, "", "20200510")
    rows = [(f"P{n}", cell, "ab"[n % 2]) for n, cell in enumerate(cells)]
    cohort, lines = said(capsys, tmp_path, ("PatientID", heading, "label"), *rows)
    assert len(cohort) == 6 and not lines


def test_nothing_is_said_of_a_column_where_another_told_the_scans_apart(tmp_path, capsys):
    rows, expected = [("patient_id", "visit", "acq_date", "label")], {}
    for n in range(4):
        for k in (1, 2):
            expected[write(tmp_path, n, f"ses-{k}")] = "ab"[k - 1]
            rows.append((f"P{n}", k, "not known yet", "ab"[k - 1]))
    cohort, lines = said(capsys, tmp_path, *rows)
    assert labels(cohort) == expected and not lines


def test_the_name_of_a_trial_is_no_visit(studies, capsys):
    rows = [(f"P{n}", "ALPHA-1", "ab"[n % 2]) for n in range(6)]
    cohort, lines = said(capsys, studies, ("PatientID", "study_id", "label"), *rows)
    assert len(cohort) == 18 and not lines

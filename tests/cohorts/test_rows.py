"""What the rows about one scan may say, and cells that may be no label."""

from __future__ import annotations

import pytest
from archives import CT, noise, uid, write_csv, write_dicom

from medlora.cohorts import Cohort
from medlora.errors import MedloraError


@pytest.fixture
def ct(tmp_path):
    """A CT of three slices for each of four patients, with a file for each slice."""
    for n in range(4):
        for k in range(3):
            write_dicom(
                tmp_path / "archive" / f"P{n}" / f"{n}_{k}.dcm", noise(10 * n + k), f"{n}/{k}", f"P{n}", Modality="CT",
                SOPClassUID=CT, StudyInstanceUID=uid(n), SeriesInstanceUID=uid(n, "s"), ViewPosition=None,
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, float(k)], PixelSpacing=[1, 1],
            )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("key", ["file", "sop", "series", "study"])
def test_labels_of_slices_that_differ_are_refused_as_such(ct, key):
    cell = {
        "file": lambda n, k: f"{n}_{k}.dcm",
        "sop": lambda n, k: uid(f"{n}/{k}", "sop"),
        "series": lambda n, k: uid(n, "s"),
        "study": lambda n, k: uid(n),
    }[key]
    rows = [(cell(n, k), int(n > 1 and k == 1)) for n in range(4) for k in range(3)]
    table = write_csv(ct / "labels.csv", [("ID", "label"), *rows])
    with pytest.raises(MedloraError) as caught:
        Cohort.from_archive(ct / "archive", table, key=f"{key}=ID", fractions=None)
    assert "slices or regions, give one row for each scan" in caught.value.fix
    assert ("not of one slice" in caught.value.what) == (key != "study")


@pytest.mark.parametrize(
    ("cells", "classes", "said"),
    [
        (("a", "b", "n.a."), ["a", "b"], ""),
        (("a", "b", "?"), ["a", "b"], ""),
        (("a", "-", "None"), ["-", "None", "a"], "holds '-' and 'None', taken as classes"),
        (("a", "b", "Unknown"), ["Unknown", "a", "b"], "holds 'Unknown', taken as a class"),
        (("+", "-", ""), ["+", "-"], ""),
        (("none", "mild", "severe"), ["mild", "none", "severe"], ""),
    ],
)
def test_cells_that_are_no_label_and_those_that_may_be_none(archive, tmp_path, cells, classes, said):
    rows = [(f"PAT{n:03d}", cells[n % 3]) for n in range(12)]
    table = write_csv(tmp_path / "labels.csv", [("patient_id", "label"), *rows])
    cohort = Cohort.from_archive(archive(), table, fractions=None)
    assert cohort.classes == classes
    notes = [line for line in cohort.warnings if "taken as" in line and "nothing is known" in line]
    assert (len(notes) == 1 and said in notes[0]) if said else not notes


@pytest.mark.parametrize(
    ("archive", "labels", "message"),
    [
        ("", "labels.csv", "the archive is no path, or an empty one"),
        (".", "", "labels is an empty path"),
        (".", [("file", "label")], "labels is a list, not a path"),
    ],
)
def test_what_is_no_path_is_refused(archive, labels, message):
    with pytest.raises(MedloraError, match=message):
        Cohort.from_archive(archive, labels)

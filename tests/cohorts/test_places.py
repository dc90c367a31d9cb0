"""Centres of nodules: bright balls in CT volumes written to order, whose place is known in each coordinate system."""

from __future__ import annotations

import io

import numpy as np
import pytest
from archives import CT, noise, uid, write_csv, write_dicom

from medlora.cohorts import Cohort
from medlora.errors import MedloraError

SPACING, THICKNESS, SHAPE = (0.8, 0.7), 2.5, (48, 40)  # row and column spacing, slice step; rows, columns
ORIGIN = np.array([-30.0, -20.0, 100.0])
BALL = (29, 11, 3)  # column, row, slice
LPS = ORIGIN + np.array([BALL[0] * SPACING[1], BALL[1] * SPACING[0], BALL[2] * THICKNESS])


def ct(root, name, slices=6, patient=None):
    """A volume of air with one bright voxel at `BALL`; slices are named against their order."""
    for k in range(slices):
        pixels = np.full(SHAPE, 24, np.uint16) + (noise(int(name[1:]) * 100 + k, SHAPE) >> 9)
        if k == BALL[2]:
            pixels[BALL[1], BALL[0]] = 3000
        write_dicom(
            root / name / f"{slices - k}.dcm", pixels, f"{name}/{k}", patient or name, SOPClassUID=CT, Modality="CT",
            StudyInstanceUID=uid(name), SeriesInstanceUID=uid(name, "s"), FrameOfReferenceUID=uid(name, "f"),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[*ORIGIN[:2], ORIGIN[2] + k * THICKNESS],
            PixelSpacing=list(SPACING), SliceThickness=THICKNESS, RescaleSlope=1, RescaleIntercept=-1024,
            ViewPosition=None, InstanceNumber=k + 1,
        )  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for n in range(6):
        ct(tmp_path / "archive", f"N{n}")
    return tmp_path / "archive"


def table(tmp_path, centre, heading=("x", "y", "z"), also=(), delimiter=","):
    rows = [("seriesuid", *heading, "diameter_mm", "class")]
    rows += [(uid(f"N{n}", "s"), *centre, 4 + n, n % 2) for n in range(6)]
    rows += [(uid("N0", "s"), *other, "", 0) for other in also]
    return write_csv(tmp_path / "labels.csv", rows, delimiter)


@pytest.mark.parametrize(
    ("system", "heading", "centre"),
    [
        ("lps", ("x", "y", "z"), LPS),
        (None, ("coordX", "coordY", "coordZ"), LPS),
        ("ras", ("X (mm)", "Y (mm)", "Z (mm)"), LPS * (-1, -1, 1)),
    ],
)
def test_the_centre_is_where_the_ball_is(root, tmp_path, system, heading, centre):
    cohort = Cohort.from_archive(root, table(tmp_path, centre, heading), coordinates=system)
    assert len(cohort) == 6 and cohort.classes == ["0", "1"]
    np.testing.assert_allclose(cohort.table[["x", "y", "z"]].to_numpy(float), [LPS * (-1, -1, 1)] * 6)
    assert sorted(cohort.table["diameter"]) == [4, 5, 6, 7, 8, 9]
    for row in cohort.table.itertuples():
        assert row.case_id == f"{row.scan_id}:1"
        scan = cohort.scan(row.scan_id)
        voxel = np.rint(np.linalg.solve(scan.affine, [row.x, row.y, row.z, 1])[:3]).astype(int)
        assert scan.array[tuple(voxel)] == 3000 - 1024


def test_voxel_indices_are_those_of_the_array(root, tmp_path):
    scan = Cohort.from_archive(root).scan
    first = Cohort.from_archive(root).table["scan_id"][0]
    index = np.argwhere(scan(first).array > 1000)[0]
    cohort = Cohort.from_archive(root, table(tmp_path, index), coordinates="voxel")
    np.testing.assert_allclose(cohort.table[["x", "y", "z"]].to_numpy(float), [LPS * (-1, -1, 1)] * 6)


def test_the_page_shows_each_centre_on_its_slice(root, tmp_path):
    from PIL import Image

    cohort = Cohort.from_archive(root, table(tmp_path, LPS), coordinates="lps")
    assert len(cohort._places) == 6
    image = np.asarray(Image.open(io.BytesIO(next(iter(cohort._places.values())))).convert("RGB"), dtype=int)
    ring = (image[..., 0] > 200) & (image[..., 2] < 50)
    np.testing.assert_allclose(np.argwhere(ring).mean(axis=0), (BALL[1], BALL[0]), atol=1)
    page = (cohort.save(tmp_path / "cohort") / "check.html").read_text(encoding="utf-8")
    assert page.count('alt="place ') == 6 and "were read as LPS" in page
    again = Cohort.load(tmp_path / "cohort")
    np.testing.assert_allclose(again.table[["x", "y", "z"]], cohort.table[["x", "y", "z"]].astype(float))


def test_several_places_of_a_scan_are_numbered_whatever_the_order_of_rows(root, tmp_path):
    also = [LPS + np.array([2, 0, 0]), LPS - np.array([2, 0, 0])]
    one = Cohort.from_archive(root, table(tmp_path, LPS, also=also), coordinates="lps")
    two = Cohort.from_archive(root, table(tmp_path, LPS, also=also[::-1]), coordinates="lps")
    assert len(one) == 8 and one.table["case_id"].is_unique
    fixed = ["case_id", "x", "y", "z", "label", "split"]
    assert one.table[fixed].equals(two.table[fixed])
    assert one.table.groupby("patient")["split"].nunique().max() == 1


def test_decimal_commas_of_semicolon_tables(root, tmp_path):
    path = table(tmp_path, [f"{value:.3f}".replace(".", ",") for value in LPS], delimiter=";")
    cohort = Cohort.from_archive(root, path, coordinates="lps")
    np.testing.assert_allclose(cohort.table[["x", "y", "z"]].to_numpy(float), [LPS * (-1, -1, 1)] * 6, atol=1e-3)


@pytest.mark.parametrize(
    ("centre", "also", "system", "message"),
    [
        (LPS, [], None, "nothing says in which coordinate system"),
        (LPS, [], "xyz", "--coordinates 'xyz' is not known"),
        (LPS * (-1, -1, 1), [], "lps", "row 2 of the table: the centre lies outside"),
        (LPS, [LPS + np.array([0, 0, 50])], "lps", "row 8 of the table: the centre lies outside"),
        (LPS, [LPS], "lps", "rows 2 and 8 give the same centre"),
        (LPS, [("1", "", "2")], "lps", "row 8: the 'y' of a centre is missing or not a number"),
        (LPS, [("1", "two", "2")], "lps", "row 8: the 'y' of a centre is missing or not a number"),
        (LPS, [("", "", "")], "lps", "row 8 has a label but no centre"),
    ],
)
def test_centres_that_cannot_be_right_are_refused_with_their_row(root, tmp_path, centre, also, system, message):
    with pytest.raises(MedloraError, match=message):
        Cohort.from_archive(root, table(tmp_path, centre, also=also), coordinates=system)


def test_coordinates_without_centres_and_centres_without_geometry(archive, tmp_path):
    root = archive(6)
    rows = [("file", "label"), *((f"PAT{p:03d}/0.dcm", "ab"[p % 2]) for p in range(6))]
    with pytest.raises(MedloraError, match="has no columns x, y and z"):
        Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", rows), coordinates="lps")
    from PIL import Image

    for n in range(6):
        Image.fromarray((noise(n) >> 4).astype(np.uint8)).save(root / f"{n}.png")
    rows = [("file", "label", "x", "y", "z"), *((f"{n}.png", "ab"[n % 2], 5, 6, 0) for n in range(6))]
    with pytest.raises(MedloraError, match="row 2 of the table gives a centre in millimetres"):
        Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", rows), coordinates="lps")
    assert len(Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", rows), coordinates="voxel")) == 6


def test_a_centre_is_not_put_into_every_study_of_its_patient(root, tmp_path):
    ct(root, "N9", slices=7, patient="N0")
    rows = [("patient_id", "x", "y", "z", "label"), *((f"N{n}", *LPS, n % 2) for n in range(6))]
    by_patient = write_csv(tmp_path / "patients.csv", rows)
    with pytest.raises(MedloraError, match="row 2 of the table gives a centre, but is about 2 scans by patient ID"):
        Cohort.from_archive(root, by_patient, coordinates="lps")
    rows = [("study_uid", *rows[0][1:]), *((uid(name), *rest) for name, *rest in rows[1:])]
    by_study = write_csv(tmp_path / "studies.csv", rows)
    assert len(Cohort.from_archive(root, by_study, coordinates="lps")) == 6


def test_a_place_without_a_label_beside_others_is_left_out_by_name(root, tmp_path):
    labels = table(tmp_path, LPS)
    with labels.open("a") as file:
        file.write(f"{uid('N0', 's')},0,0,{ORIGIN[2]},5,\n")
    cohort = Cohort.from_archive(root, labels, coordinates="lps", fractions=None)
    assert len(cohort) == 6
    (left,) = cohort.excluded.itertuples()
    assert left.code == "NoLabel" and left.reason == "row 8 of the table gives a centre and no label"
    assert "1 place has a centre but no label; see excluded.csv" in cohort.warnings

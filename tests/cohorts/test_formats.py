"""Labels in other formats than CSV: each place lies on its ball in the right series, mirrored ones are found out."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from annotated import (
    HU,
    Ball,
    balls,
    write_archive,
    write_candidates,
    write_coco,
    write_fcsv,
    write_lidc,
    write_mhd,
    write_rtstruct,
    write_seg,
    write_slicer,
)
from archives import noise, write_csv
from PIL import Image

from medlora.cohorts import Cohort
from medlora.cohorts.formats import recognise
from medlora.cohorts.formats.lidc import Read, merged
from medlora.cohorts.formats.measure import filled, outlined, polygon
from medlora.errors import MedloraError

BALLS = balls()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("ct") / "archive", BALLS)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return write_mhd(tmp_path_factory.mktemp("mhd") / "subset0", BALLS)


WRITERS = {
    "LIDC-IDRI": lambda folder, those, archive: write_lidc(folder / "xml", those),
    "Slicer, LPS": lambda folder, those, archive: write_slicer(folder / "marks", those),
    "Slicer, RAS, by Patient ID": lambda folder, those, archive: write_slicer(folder / "m", those, "RAS", "patient"),
    "fcsv, LPS": lambda folder, those, archive: write_fcsv(folder / "marks", those, "LPS"),
    "fcsv, RAS as 0": lambda folder, those, archive: write_fcsv(folder / "marks", those, "0"),
    "DICOM SEG": lambda folder, those, archive: write_seg(folder / "seg", those, archive),
    "DICOM RTSTRUCT": lambda folder, those, archive: write_rtstruct(folder / "rt", those),
    "COCO": lambda folder, those, archive: write_coco(folder / "boxes.json", those),
}
WITHOUT_DIAMETER = {"Slicer, LPS", "Slicer, RAS, by Patient ID", "fcsv, LPS", "fcsv, RAS as 0"}


def is_on_balls(cohort: Cohort, those: list[Ball], within: float = 1.7) -> None:
    """Each case lies on a ball of its label, by the HU there, and its centre is that of the ball that was written."""
    assert len(cohort) == len(those)
    left = {(ball.label, *ball.centre): ball for ball in those}
    for row in cohort.table.itertuples():
        scan = cohort.scan(row.scan_id)
        voxel = np.rint(np.linalg.solve(scan.affine, [row.x, row.y, row.z, 1])[:3]).astype(int)
        assert scan.array[tuple(voxel)] == HU[row.label]
        lps = np.array([-row.x, -row.y, row.z])
        nearest = min(left, key=lambda key: np.linalg.norm(lps - key[1:]) + 100 * (key[0] != row.label))
        assert np.linalg.norm(lps - nearest[1:]) < within
        del left[nearest]


@pytest.mark.parametrize("name", WRITERS)
def test_each_place_is_on_its_ball(name, archive, tmp_path):
    cohort = Cohort.from_archive(archive, WRITERS[name](tmp_path, BALLS, archive), fractions=None)
    is_on_balls(cohort, BALLS)
    assert cohort.info["centres"]["declared"] == len(BALLS)
    assert "other" not in cohort.info["centres"]
    if name in WITHOUT_DIAMETER:
        assert "diameter" not in cohort.table
    else:
        expected = {"benign": 9.0, "malignant": 12.0}
        for row in cohort.table.itertuples():
            # outlines run through the outermost voxels' centres, boxes around the voxels: a voxel is 2 mm
            assert abs(row.diameter - expected[row.label]) < 2.6


@pytest.mark.parametrize("name", WRITERS)
def test_mirrored_coordinates_are_found_out(name, archive, tmp_path):
    mirrored = [ball.mirrored() for ball in BALLS]
    cohort = Cohort.from_archive(archive, WRITERS[name](tmp_path, mirrored, archive), fractions=None)
    assert any("mirrored left to right and front to back" in error for error in cohort.errors)


def test_luna16_candidates_lie_on_their_images(converted, tmp_path):
    cohort = Cohort.from_archive(converted, write_candidates(tmp_path / "candidates_V2.csv", BALLS), fractions=None)
    cohort.table["label"] = cohort.table["label"].map({"0": "benign", "1": "malignant"})
    is_on_balls(cohort, BALLS, within=1e-6)
    assert set(cohort.table["Modality"]) == {"CT"}
    cohort.save(tmp_path / "cohort")
    again = Cohort.load(tmp_path / "cohort")
    assert again.scan(again.table["scan_id"][0]).modality == "CT"


def test_luna16_mirrored_is_found_out(converted, tmp_path):
    path = write_candidates(tmp_path / "candidates.csv", [ball.mirrored() for ball in BALLS])
    cohort = Cohort.from_archive(converted, path, fractions=None)
    assert any("mirrored left to right and front to back (that is, as RAS)" in error for error in cohort.errors)


def test_luna16_annotations_are_nodules(converted, tmp_path):
    rows = [(ball.series, *ball.centre, 2 * ball.radius) for ball in BALLS]
    path = write_csv(tmp_path / "annotations.csv", [("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"), *rows])
    cohort = Cohort.from_archive(converted, path, fractions=None)
    assert cohort.classes == ["nodule"] and set(cohort.table["diameter"]) == {9.0, 12.0}


def test_a_declared_system_must_be_that_of_the_format(archive, tmp_path):
    marks = write_slicer(tmp_path / "marks", BALLS)
    with pytest.raises(MedloraError, match="was read as 3D Slicer markups, whose places are lps"):
        Cohort.from_archive(archive, marks, coordinates="ras")


def test_marks_that_do_not_say_their_system_are_refused(archive, tmp_path):
    marks = write_slicer(tmp_path / "marks", BALLS)
    one = next(marks.glob("*.json"))
    text = json.loads(one.read_text())
    del text["markups"][0]["coordinateSystem"]
    one.write_text(json.dumps(text))
    with pytest.raises(MedloraError, match="does not say whether its coordinates are LPS or RAS"):
        Cohort.from_archive(archive, marks)


def test_readers_are_merged_and_their_disagreement_kept(archive, tmp_path):
    cohort = Cohort.from_archive(archive, write_lidc(tmp_path / "xml", BALLS), fractions=None)
    assert set(cohort.table["label_readers"].astype(int)) == {3}
    assert set(cohort.table["label_disagreement"].astype(int)) == {2}
    assert set(cohort.table["label_malignancy"].astype(float)) == {2.0, 4.0}
    folder = cohort.save(tmp_path / "cohort")
    assert "label_malignancy" not in (folder / "check.html").read_text(encoding="utf-8")  # no acquisition column


def test_indeterminate_nodules_are_left_out_by_name(archive, tmp_path):
    def ratings(ball, reader):
        return 3 if ball is BALLS[4] else {"malignant": 5, "benign": 1}[ball.label]

    cohort = Cohort.from_archive(archive, write_lidc(tmp_path / "xml", BALLS, ratings), fractions=None)
    is_on_balls(cohort, [ball for ball in BALLS if ball is not BALLS[4]])
    named = cohort.excluded[cohort.excluded["reason"].str.contains("indeterminate")]
    assert len(named) == 1 and named["code"].tolist() == ["NoLabel"]
    assert "file 2 of 5" in named["reason"].iloc[0] and str(tmp_path) not in named["reason"].iloc[0]


def test_merging_follows_the_rule_in_any_order():
    def read(reader, x, diameter, malignancy=4):
        return Read(reader, np.array([x, 0.0, 0.0]), diameter, malignancy)

    apart = [read(1, 0, 5), read(2, 1, 6), read(1, 5.9, 5), read(3, 2.9, 5), read(4, 30, 20), read(2, 39, 4)]
    expected = {frozenset({(1, 0.0), (2, 1.0), (3, 2.9)}), frozenset({(1, 5.9)}), frozenset({(4, 30.0), (2, 39.0)})}
    for order in itertools.islice(itertools.permutations(apart), 0, 720, 31):
        assert {frozenset((r.reader, float(r.centre[0])) for r in group) for group in merged(order)} == expected
    assert len(merged([read(1, 0, 9), read(1, 1, 9)])) == 2  # one reader, two nodules


def test_labels_in_a_folder_of_several_kinds_or_none_are_refused(archive, tmp_path):
    folder = write_slicer(tmp_path / "both", BALLS)
    write_lidc(folder, BALLS)
    with pytest.raises(MedloraError, match="holds several kinds"):
        recognise(folder)
    with pytest.raises(MedloraError, match="holds none that is known"):
        recognise(archive)


def test_labels_beside_the_images_are_found_among_them(archive, tmp_path):
    import shutil

    together = tmp_path / "together"
    shutil.copytree(archive, together)
    write_rtstruct(together / "structures", BALLS)
    is_on_balls(Cohort.from_archive(together, together, fractions=None), BALLS)


def test_boxes_of_another_version_of_the_image_are_refused(archive, tmp_path):
    with pytest.raises(MedloraError, match="it was annotated on another version of the image"):
        Cohort.from_archive(archive, write_coco(tmp_path / "boxes.json", BALLS, columns=104))


def test_hostile_xml_is_refused(archive, tmp_path):
    text = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><LidcReadMessage>&a;</LidcReadMessage>'
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(MedloraError, match="declares a document type"):
        Cohort.from_archive(archive, tmp_path / "x.xml")


def test_messages_name_no_file_below_the_folder(archive, tmp_path):
    marks = write_slicer(tmp_path / "marks", BALLS, name="patient")
    (marks / "P00.mrk.json").write_text('{"markups": [{"type": "Curve", "coordinateSystem": "LPS"}]}')
    with pytest.raises(MedloraError) as caught:
        Cohort.from_archive(archive, marks)
    assert "file 1 of 5" in str(caught.value) and "P00" not in str(caught.value)


def test_measures_by_known_shapes():
    square = np.array([[0, 0, 5], [4, 0, 5], [4, 4, 5], [0, 4, 5]], float)
    area, centre = polygon(square)
    assert area == pytest.approx(16) and centre == pytest.approx([2, 2, 5])
    ell = np.array([[0, 0, 0], [3, 0, 0], [3, 1, 0], [1, 1, 0], [1, 3, 0], [0, 3, 0]], float)
    area, centre = polygon(ell)  # two rectangles: 3 × 1 about (1.5, 0.5) and 1 × 2 about (0.5, 2)
    assert area == pytest.approx(5) and centre == pytest.approx([(3 * 1.5 + 2 * 0.5) / 5, (3 * 0.5 + 2 * 2) / 5, 0])
    centre, diameter = outlined([(square, True), (square / 2, False)])
    assert centre[:2] == pytest.approx([(16 * 2 - 4 * 1) / 12] * 2) and diameter == pytest.approx(32**0.5)
    mask = np.zeros((3, 9, 9), bool)
    mask[1, 4, 2:7] = True
    centre, diameter = filled(mask, np.diag([2.5, 0.5, 0.7, 1.0]))
    assert centre == pytest.approx([2.5, 2.0, 2.8]) and diameter == pytest.approx(5 * 0.7)


def test_a_box_of_an_unreadable_image_is_put_on_no_other(tmp_path):
    root = tmp_path / "archive"
    names = {0: ("one", "two"), 1: ("one",), 2: ("two",)}  # img0.png is in both folders, and empty in one
    for n, folders in names.items():
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            pixels = (noise(n + 10 * len(folder) + (folder == "two"), (40, 50)) >> 4).astype("u1")
            Image.fromarray(pixels).save(root / folder / f"img{n}.png")
    (root / "two" / "img0.png").write_bytes(b"")
    boxes = {
        "images": [{"id": n, "file_name": f"img{n}.png", "width": 50, "height": 40} for n in names],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 9, 9]} for n in names],
        "categories": [{"id": 1, "name": "mass"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    cohort = Cohort.from_archive(root, tmp_path / "boxes.json", fractions=None)
    assert len(cohort) == 2 and any("its value may mean several" in line for line in cohort.warnings)


@pytest.mark.parametrize(("twice", "label"), [(False, "RADS"), (True, "RADS-3")])
def test_numbers_of_slicer_are_taken_off_and_those_of_a_class_are_not(archive, tmp_path, twice, label):
    """Slicer numbers the points of a file: a name that is there twice in one has no number of Slicer's."""
    folder = write_slicer(tmp_path / "marks", BALLS)
    for number, path in enumerate(sorted(folder.iterdir())):
        marks = json.loads(path.read_text())
        for k, point in enumerate(marks["markups"][0]["controlPoints"]):
            point["label"] = "BIRADS4" if number % 2 else f"RADS-{3 if twice else k + 3}"
        path.write_text(json.dumps(marks))
    cohort = Cohort.from_archive(archive, folder, fractions=None)
    assert set(cohort.table["label"]) == {"BIRADS4", label}

from __future__ import annotations

import itertools
import random
from pathlib import Path

import nibabel
import numpy as np
import pytest
from archives import CT, noise, uid, write_csv, write_dicom

from medlora import scans
from medlora.cohorts import Cohort
from medlora.cohorts.criteria import kernel_kind
from medlora.cohorts.selection import Selection
from medlora.errors import MedloraError

AFFINE = np.eye(4)
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def series(
    folder,
    study,
    name,
    n=3,
    thickness=1.0,
    orientation=AXIAL,
    kernel="B30f",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
):
    normal = np.cross(orientation[:3], orientation[3:])
    for i in range(n):
        write_dicom(
            folder / study / name / f"{i}.dcm",
            noise(len(name) * 100 + i, (32, 32)),
            f"{study}/{name}/{i}",
            study,
            SOPClassUID=CT,
            Modality="CT",
            StudyInstanceUID=uid(study),
            SeriesInstanceUID=uid(study, name),
            ImageOrientationPatient=orientation,
            ImagePositionPatient=[float(v) for v in normal * i * thickness],
            PixelSpacing=[1, 1],
            SliceThickness=thickness,
            ConvolutionKernel=kernel,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            ImageType=list(image_type),
            FrameOfReferenceUID=uid(study, "frame"),
            ViewPosition=None,
            InstanceNumber=i + 1,
        )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A chest CT as a department makes it."""
    folder = tmp_path_factory.mktemp("ct")
    series(folder, "S", "scout", n=1, orientation=CORONAL, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    series(folder, "S", "thick soft", n=4, thickness=5.0)
    series(folder, "S", "thin soft", n=9, thickness=1.0)
    series(folder, "S", "thin lung", n=9, thickness=1.0, kernel="Bl57d")
    series(folder, "S", "coronal", n=12, thickness=3.0, orientation=CORONAL, image_type=("DERIVED", "SECONDARY", "MPR"))
    series(
        folder, "S", "sagittal", n=12, thickness=3.0, orientation=SAGITTAL, image_type=("DERIVED", "SECONDARY", "MPR")
    )
    return scans.survey(folder).scans


def name(scan):
    return scan.paths[0].parent.name


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ("modality=CT plane=axial kernel=sharp thickness=thin", "thin lung"),
        ("modality=CT plane=axial kernel=soft thickness=thin", "thin soft"),
        ("modality=CT plane=axial thickness=thick", "thick soft"),
        ("thickness=5", "thick soft"),
        ("plane=axial kernel=soft thickness=>=2", "thick soft"),
        ("thickness=<=1.5 kernel=b30F plane=axial", "thin soft"),
        ("plane=coronal", "coronal"),
        ("plane=sagittal", "sagittal"),
        ("kernel=Bl57d", "thin lung"),
        ("ImageType=LOCALIZER", "scout"),
        ("modality=MR", None),
        ("kernel=B70f", None),
    ],
)
def test_a_rule_picks_one_scan_whatever_the_order(study, rule, chosen):
    selection = Selection.parse(rule)
    for seed in range(3):
        shuffled = random.Random(seed).sample(study, len(study))
        found, others = selection.choose(shuffled)
        assert [name(scan) for scan in found] == ([chosen] if chosen else [])
        assert len(found) + len(others) == len(study)
    assert Selection.parse(str(selection)) == selection


def test_the_default_for_ct_is_axial(study):
    rule = Selection.default(study)
    assert str(rule) == "modality=CT plane=axial"
    (chosen,), others = rule.choose(study)
    assert name(chosen) in ("thin soft", "thin lung")
    reasons = {name(scan): reason for scan, reason in others}
    assert reasons["scout"] == "it is a localizer, where plane=axial is asked for"
    assert reasons["coronal"] == "the plane is coronal, where plane=axial is asked for"
    assert reasons["thick soft"] == "another scan of the study was preferred"


def radiographs(tmp_path, views):
    for n, (view, rows) in enumerate(views):
        tags = {"ViewPosition": view} | ({"PatientOrientation": [rows, "F"]} if rows else {})
        write_dicom(tmp_path / f"{n}.dcm", noise(n), f"{n}", StudyInstanceUID=uid("one study"), **tags)
    return scans.survey(tmp_path).scans


@pytest.mark.parametrize(
    ("views", "chosen"),
    [
        ([("LL", None), ("AP", None), ("PA", None)], 2),
        ([("LL", None), ("AP", None)], 1),
        ([("", "P"), ("", "L")], 1),
        ([("", ""), ("AP", "")], 1),
        ([("", ""), ("", "L")], 1),
        ([("", ""), ("", "")], None),  # one of them may be the lateral view
        ([("RL", None), ("", None)], 1),
        ([("LL", None)], None),
        ([("", "A")], None),
    ],
)
def test_of_radiographs_the_frontal_one_is_the_default(tmp_path, views, chosen):
    found = radiographs(tmp_path, views)
    rule = Selection.default(found)
    assert str(rule) == "modality=DX view=frontal"
    for order in itertools.permutations(found):
        picked, _ = rule.choose(order)
        assert [int(scan.paths[0].stem) for scan in picked] == ([] if chosen is None else [chosen])


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("B30f", "soft"),
        ("B70f", "sharp"),
        ("Br40d\\3", "soft"),
        ("Bl64d\\2", "sharp"),
        ("I50s\\3", "sharp"),
        ("LUNG", "sharp"),
        ("STANDARD", "soft"),
        ("FC08-H", "soft"),
        ("FC51", "sharp"),
        ("YC", "sharp"),
        ("B", "soft"),
        ("new", None),
        ("", None),
    ],
)
def test_kernels_of_the_makers(kernel, kind):
    assert kernel_kind(kernel) == kind


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "is empty"),
        ("sharp", "not of the form"),
        ("plane=tilted", "plane 'tilted'"),
        ("PatientName=x", "'PatientName' is not"),
        ("thickness=thinnest", "thickness 'thinnest'"),
        ("colour=blue", "'colour' is not known"),
        ("file=/data/*.nii", "no end of a path"),
    ],
)
def test_rules_that_mean_nothing(rule, message):
    with pytest.raises(MedloraError, match=message):
        Selection.parse(rule)


def test_labels_of_patients_pick_one_scan_of_each_study(tmp_path):
    root = tmp_path / "archive"
    for p in range(8):
        for view in ("PA", "LL"):
            write_dicom(
                root / f"{p}{view}.dcm",
                noise(p),
                f"{p}{view}",
                f"P{p}",
                ViewPosition=view,
                StudyInstanceUID=uid("s", p),
            )
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(8))])
    cohort = Cohort.from_archive(root, table)
    assert set(cohort.table["ViewPosition"]) == {"PA"} and len(cohort) == 8
    assert cohort.info["select"] == "modality=DX view=frontal"
    assert cohort.excluded["code"].tolist() == ["NotSelected"] * 8
    assert set(Cohort.from_archive(root, table, select="view=lateral").table["ViewPosition"]) == {"LL"}
    with pytest.raises(MedloraError, match="no scan meets the rule 'modality=CT'"):
        Cohort.from_archive(root, table, select="modality=CT")
    by_file = [("file", "label"), *((f"{p}{v}.dcm", "ab"[p % 2]) for p in range(8) for v in ("PA", "LL"))]
    assert len(Cohort.from_archive(root, write_csv(tmp_path / "files.csv", by_file))) == 16


@pytest.mark.parametrize("rule", ["thin", "thick"])
def test_a_thickness_that_is_not_known_is_neither_thin_nor_thick(rule):
    def scan(thickness):
        return scans.ScanFiles(
            str(thickness), (), "dicom", "CT", {"SliceThickness": thickness}, scans.Identity(study_uid="1.2")
        )

    picked, _ = Selection.parse(f"thickness={rule}").choose([scan(0.0), scan(5.0), scan(None)])
    assert [one.header["SliceThickness"] for one in picked] == [5]


def test_a_study_uid_that_two_patients_share_is_two_studies():
    both = [
        scans.ScanFiles(name, (), "dicom", "CT", {}, scans.Identity(patient_id=name, study_uid="1.2"))
        for name in ("p1", "p2")
    ]
    assert Selection.parse("modality=CT").choose(both) == (both, [])


def paired(root, views, **tags):
    for patient in range(4):
        for n, (side, view) in enumerate(views):
            write_dicom(
                root / f"{patient}{side}{view}.dcm", noise(patient * 9 + n), f"{patient}{side}{view}", f"P{patient}",
                StudyInstanceUID=uid("s", patient), ImageLaterality=side, ViewPosition=view, **tags,
            )  # fmt: skip
    return root


def test_left_or_right_is_never_chosen_by_chance(tmp_path):
    root = paired(tmp_path / "a", [(side, view) for side in "LR" for view in ("CC", "MLO")], Modality="MG")
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    with pytest.raises(MedloraError, match=r"can be chosen by .* differ in side \(L, R\), and the rule does not say"):
        Cohort.from_archive(root, table, fractions=None)
    with pytest.raises(MedloraError, match=r"differ in ViewPosition \(CC, MLO\)"):
        Cohort.from_archive(root, table, fractions=None, select="ImageLaterality=L")
    chosen = Cohort.from_archive(root, table, fractions=None, select="side=l ViewPosition=MLO").table
    assert set(chosen["ImageLaterality"]) == {"L"} and set(chosen["ViewPosition"]) == {"MLO"} and len(chosen) == 4


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageLaterality": "R", "ViewPosition": "PA"},  # not by rank, either
        {"Laterality": "R"},
        {"Laterality": None},
        {"ImageLaterality": "L", "BodyPartExamined": "HAND", "ViewPosition": "PA"},
    ],
)
def test_one_study_of_two_sides_or_parts_is_left_out_and_said(tmp_path, tags):
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    root = paired(tmp_path / "one", [("L", "AP")], BodyPartExamined="FOOT")
    tags = {"ViewPosition": "AP", "BodyPartExamined": "FOOT"} | tags
    write_dicom(root / "other.dcm", noise(99), "other", "P0", StudyInstanceUID=uid("s", 0), **tags)
    cohort = Cohort.from_archive(root, table, fractions=None)
    assert len(cohort) == 3 and cohort.excluded["code"].tolist() == ["NotSelected"] * 2
    assert any(line.startswith("2 scans were left out, of studies where no one scan") for line in cohort.warnings)


def test_views_of_one_kind_and_unpaired_parts_are_chosen_among(tmp_path):
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    root = paired(tmp_path / "a", [("U", "LL"), ("B", "RL")])
    assert len(Cohort.from_archive(root, table, fractions=None, select="view=lateral")) == 4


@pytest.mark.parametrize("deeper", ["", "S1/"])
def test_a_row_about_a_folder_picks_one_scan_of_each_study(tmp_path, deeper):
    root = tmp_path / "archive"
    for p in range(4):
        series(root, f"P{p}", f"{deeper}scout", n=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
        series(root, f"P{p}", f"{deeper}thin", n=4)
    table = write_csv(tmp_path / "labels.csv", [("path", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    cohort = Cohort.from_archive(root, table, fractions=None)
    assert len(cohort) == 4 and cohort.info["select"] == "modality=CT plane=axial"
    assert cohort.excluded["reason"].tolist() == ["it is a localizer, where plane=axial is asked for"] * 4


@pytest.mark.parametrize(
    ("pattern", "taken"), [("*_T1w.nii*", "T1w"), ("ANAT/*_T2w.nii.gz", "T2w"), ("sub-??_bold.nii.gz", "bold")]
)
def test_files_without_headers_are_chosen_by_name(tmp_path, pattern, taken):
    """As in BIDS, where one row is about all images of a participant."""
    for p in range(6):
        for kind, folder in (("T1w", "anat"), ("T2w", "anat"), ("bold", "func")):
            path = tmp_path / f"sub-{p:02d}" / folder / f"sub-{p:02d}_{kind}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(noise(10 * p + len(kind) + ord(kind[1]), (4, 4))[..., None], AFFINE), path)
    table = write_csv(
        tmp_path / "participants.tsv", [("participant_id", "sex"), *((f"sub-{p:02d}", "MF"[p % 2]) for p in range(6))]
    )
    cohort = Cohort.from_archive(tmp_path, table, fractions=None, modality="MR", select=f"file={pattern}")
    assert [cohort.files(s).paths[0].name for s in cohort.table["scan_id"]].count(f"sub-00_{taken}.nii.gz") == 1
    assert len(cohort) == 6 and all(taken in cohort.files(s).paths[0].name for s in cohort.table["scan_id"])
    left = cohort.excluded[cohort.excluded["code"] == "NotSelected"]
    assert (
        set(left["reason"]) == {f"the file is called otherwise, where file={pattern} is asked for"} and len(left) == 12
    )


def scan(name, modality, paths=1, **header):
    study = scans.Identity(study_uid="1.2")
    return scans.ScanFiles(name, tuple(map(Path, "abcdef"[:paths])), "dicom", modality, header, study)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        # a chest CT, and reconstructions of each lung
        ([scan("a", "CT", 6), scan("b", "CT", 4, Laterality="R"), scan("c", "CT", 4, Laterality="L")], "a"),
        ([scan("a", "MR", BodyPartExamined="HEAD"), scan("b", "MR", BodyPartExamined="BRAIN")], "a"),
        (
            [
                scan("a", "DX", BodyPartExamined="CHEST", ViewPosition="PA"),
                scan("b", "DX", BodyPartExamined="PORT CHEST", ViewPosition="PA"),
            ],
            "a",
        ),
        (
            [
                scan("a", "DX", BodyPartExamined="CHEST", ViewPosition="PA"),
                scan("b", "DX", BodyPartExamined="THORAX", ViewPosition="PA"),
            ],
            "a",
        ),
        ([scan("a", "DX", BodyPartExamined="ANKLE JOINT"), scan("b", "DX", BodyPartExamined="LEFT FOOT")], None),
    ],
)
def test_what_leaves_the_choice_of_a_scan_open(found, chosen):
    picked, others = Selection.parse(f"modality={found[0].modality}").choose(found)
    assert [one.scan_id for one in picked] == ([chosen] if chosen else [])
    if not chosen:  # what the message proposes can be given, kept and read again
        rule = Selection.parse(others[0][1].rpartition("e.g. ")[2])
        assert Selection.parse(str(rule)) == rule and len(rule.choose(found)[0]) == 1

"""What is chosen where no rule was given, and what is said of the choice."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from archives import uid, write_csv
from test_selection import AXIAL, CORONAL, SAGITTAL, scan, series

from medlora import scans
from medlora.cohorts import Cohort
from medlora.cohorts.body_parts import may_be_one
from medlora.cohorts.selection import Selection
from medlora.errors import MedloraError

MR = "1.2.840.10008.5.1.4.1.1.4"


def studies(*held):
    """One study for each text of modalities: "CT OT" is a CT, and a capture of a screen beside it."""
    return [
        scans.ScanFiles(f"{n} {m}", (Path("a"),), "dicom", m, {}, scans.Identity(patient_id=f"{n}", study_uid=f"1.{n}"))
        for n, modalities in enumerate(held)
        for m in modalities.split()
    ]


@pytest.mark.parametrize(
    ("held", "modality"),
    [
        (["CT OT"] * 3, "CT"),
        (["CT RTDOSE"] * 3, "CT"),
        (["DX SC"] * 3, "DX"),
        (["CR OT"] * 2 + ["DX OT"] * 2 + ["OT"] * 3, "DX"),
        (["CR"] * 3 + ["DX"] * 2 + ["MG"] * 4, "CR"),
        (["CT PT"] * 3 + ["CT"], "CT"),
        (["OT"] * 3, "OT"),
        (["CT PT"] * 3, None),
        (["MG US"] * 3, None),
        (["CT"] * 2 + ["MR"] * 2, None),
    ],
)
def test_the_default_is_the_modality_of_the_examinations(held, modality):
    if modality is None:
        with pytest.raises(MedloraError, match=r"each hold .* and .*: nothing says which of them") as caught:
            Selection.default(studies(*held))
        assert Selection.parse(caught.value.fix.rpartition("--select ")[2])
    else:
        assert Selection.default(studies(*held)).words[0] == ("modality", modality)


def test_for_presentation_is_taken_before_for_processing():
    shown = {"ViewPosition": "PA", "ImageType": ["DERIVED", "PRIMARY"], "PresentationIntentType": "FOR PRESENTATION"}
    raw = {"ViewPosition": "PA", "ImageType": ["ORIGINAL", "PRIMARY"], "PresentationIntentType": "FOR PROCESSING"}
    picked, _ = Selection.parse("modality=DX").choose([scan("a", "DX", **raw), scan("b", "DX", **shown)])
    assert [one.scan_id for one in picked] == ["b"]


def test_what_decided_between_series_of_a_study_is_said(tmp_path):
    root = tmp_path / "archive"
    for p in range(4):
        series(root, f"P{p}", "soft", kernel="B30f")
        series(root, f"P{p}", "lung", kernel="B70f" if p else "B30f")
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    said = [line for line in Cohort.from_archive(root, table, fractions=None).warnings if "rule of selection" in line]
    assert len(said) == 1 and "they differ in ConvolutionKernel (3 studies)" in said[0]
    decided = Cohort.from_archive(root, table, fractions=None, select="kernel=soft")
    assert len(decided) == 4 and not any("ConvolutionKernel" in line for line in decided.warnings)


def test_the_localizer_within_a_series_does_not_get_its_label(tmp_path):
    root = tmp_path / "archive"
    for p in range(4):
        series(root, f"P{p}", "axial", n=4)
        series(root, f"P{p}", "scout", n=1, orientation=CORONAL, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
        scout = root / f"P{p}" / "scout" / "0.dcm"
        header = pydicom.dcmread(scout)
        header.SeriesInstanceUID = uid(f"P{p}", "axial")
        header.save_as(scout)
    rows = [("series_uid", "label"), *((uid(f"P{p}", "axial"), "ab"[p % 2]) for p in range(4))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", rows), fractions=None)
    assert [len(cohort.files(s).paths) for s in cohort.table["scan_id"]] == [4] * 4
    assert cohort.excluded["code"].tolist() == ["NotSelected"] * 4
    assert set(cohort.excluded["reason"]) == {"it is a localizer within the series that the row is about"}


def retagged(folder, **tags):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        header.save_as(path)


def test_head_and_chest_of_one_study_are_not_chosen_between(tmp_path):
    """The larger one is no better an answer: a label may be about either."""
    root = tmp_path / "archive"
    for p in range(4):
        for name, n, part in (("head", 3, "BRAIN"), ("chest", 9, "CHEST"), ("liver", 5, "CHESTABDOMEN")):
            series(root, f"P{p}", name, n=n)
            retagged(root / f"P{p}" / name, BodyPartExamined=part)
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    with pytest.raises(MedloraError, match=r"differ in BodyPartExamined \(BRAIN, CHEST, CHESTABDOMEN\)"):
        Cohort.from_archive(root, table, fractions=None)
    cohort = Cohort.from_archive(root, table, fractions=None, select="modality=CT BodyPartExamined=brain")
    assert [len(cohort.files(s).paths) for s in cohort.table["scan_id"]] == [3] * 4
    for p in range(4):
        retagged(root / f"P{p}" / "head", BodyPartExamined="THORAX")
    cohort = Cohort.from_archive(root, table, fractions=None)
    assert [len(cohort.files(s).paths) for s in cohort.table["scan_id"]] == [9] * 4


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("CHEST", "LUNG", True),
        ("CSPINE", "SPINE", True),
        ("CSPINE", "LSPINE", False),
        ("ABDOMENPELVIS", "PELVIS", True),
        ("WHOLEBODY", "HEAD", True),
        ("HEADNECK", "Neck^Soft tissue", True),
        ("LIVER", "ABDOMEN", True),
        ("KNEE", "EXTREMITY", True),
        ("KNEE", "SHOULDER", False),
        ("BRAIN", "SINUS", True),
        ("EAR", "HEART", False),
        ("CHEST", "C/A/P", True),
        ("CHEST", "UNKNOWN", True),
        ("Schädel", "HEAD", True),
        ("HEAD", "CHEST", False),
    ],
)
def test_body_parts_in_other_words(one, other, may):
    assert may_be_one(one, other) is may_be_one(other, one) is may


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [("CHEST", "RIBS", False), ("SKULL", "ORBIT", False), ("ARM", "FOREARM", False), ("PORT CHEST", "THORAX", True)],
)
def test_radiographs_of_a_part_and_of_a_piece_of_it_are_two_examinations(one, other, may):
    assert may_be_one(one, other, flat=True) is may_be_one(other, one, flat=True) is may


def test_planes_that_nothing_decided_between_are_said(tmp_path):
    root = tmp_path / "archive"
    for p in range(4):
        for name, orientation in (("tra", AXIAL), ("sag", SAGITTAL), ("cor", CORONAL)):
            series(root, f"P{p}", name, orientation=orientation)
            retagged(root / f"P{p}" / name, Modality="MR", SOPClassUID=MR)
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    assert any(
        "differ in plane (4 studies)" in line for line in Cohort.from_archive(root, table, fractions=None).warnings
    )
    decided = Cohort.from_archive(root, table, fractions=None, select="plane=sagittal")
    assert len(decided) == 4 and not any("differ in" in line for line in decided.warnings)


def test_an_image_is_taken_before_a_localizer_of_more_slices():
    image = scan("b", "MR", 3, ImageType=["ORIGINAL", "PRIMARY", "M"])
    scout = scan("a", "MR", 6, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    picked, _ = Selection.parse("modality=MR").choose([scout, image])
    assert [one.scan_id for one in picked] == ["b"]


def test_contrast_is_a_word_of_the_rule_and_its_name_is_not_shown(tmp_path):
    root = tmp_path / "archive"
    for p in range(4):
        for name, agent in (("native", None), ("none", "NONE"), ("venous", "Iopamidol 370, given by Dr. Yamada")):
            series(root, f"P{p}", name)
            if agent is not None:
                retagged(root / f"P{p}" / name, ContrastBolusAgent=agent)
    table = write_csv(tmp_path / "labels.csv", [("patient", "label"), *((f"P{p}", "ab"[p % 2]) for p in range(4))])
    cohort = Cohort.from_archive(root, table, fractions=None, select="contrast=yes")
    assert {cohort.files(s).paths[0].parent.name for s in cohort.table["scan_id"]} == {"venous"}
    assert set(cohort.table["ContrastBolusAgent"]) == {"YES"}
    cohort.save(tmp_path / "cohort")
    shown = "".join(path.read_text() for path in (tmp_path / "cohort").iterdir() if path.is_file())
    assert "Yamada" not in shown and "Iopamidol" not in shown
    without = Cohort.from_archive(root, table, fractions=None, select="contrast=no")
    assert {without.files(s).paths[0].parent.name for s in without.table["scan_id"]} <= {"native", "none"}
    with pytest.raises(MedloraError, match="contrast=Iopamidol is not known"):
        Selection.parse("contrast=Iopamidol")


def test_nifti_of_ct_need_not_say_its_plane(tmp_path):
    """As of KiTS: a folder for each case, a mask beside the image."""
    rows = [("file", "label")]
    for p in range(4):
        for name in ("imaging", "segmentation"):
            path = tmp_path / "archive" / f"case_{p}" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            voxels = np.random.default_rng(p).normal(size=(8, 9, 10)).astype(np.float32)
            nibabel.Nifti1Image(voxels if name == "imaging" else (voxels > 0).astype("u1"), np.eye(4)).to_filename(path)
        rows.append((f"case_{p}", "ab"[p % 2]))
    table = write_csv(tmp_path / "labels.csv", rows)
    cohort = Cohort.from_archive(tmp_path / "archive", table, fractions=None, modality="CT")
    assert len(cohort) == 8
    said = "4 rows give their label to several scans each (imaging.nii.gz, segmentation.nii.gz); --select picks"
    assert any(line.startswith(said) for line in cohort.warnings)
    assert not any("several studies" in line for line in cohort.warnings)
    picked = Cohort.from_archive(
        tmp_path / "archive", table, fractions=None, modality="CT", select="modality=CT file=imaging.nii.gz"
    )
    assert {picked.files(s).paths[0].name for s in picked.table["scan_id"]} == {"imaging.nii.gz"}


def test_names_that_only_one_folder_has_are_kept_to_it(tmp_path):
    rows = [("file", "label")]
    for p in range(6):
        for k in range(2 if p == 0 else 1):
            path = tmp_path / "archive" / f"{p}" / (f"Doe_{k}.nii" if p == 0 else "image.nii")
            path.parent.mkdir(parents=True, exist_ok=True)
            voxels = np.random.default_rng(10 * p + k).normal(size=(4, 4, 4)).astype(np.float32)
            nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)
        rows += [(f"{p}", "ab"[p % 2])] * (3 if p == 0 else 1)
    table = write_csv(tmp_path / "labels.csv", rows)
    cohort = Cohort.from_archive(tmp_path / "archive", table, fractions=None, modality="CT")
    assert any("3 rows give their label to several scans each; --select" in line for line in cohort.warnings)
    assert "Doe" not in str(cohort.info)

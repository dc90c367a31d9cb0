"""What is chosen where no rule was given, and what is said of the choice."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from archives import uid, write_csv
from test_selection import CORONAL, scan, series

from medlora import scans
from medlora.cohorts import Cohort
from medlora.cohorts.selection import Selection
from medlora.errors import MedloraError


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

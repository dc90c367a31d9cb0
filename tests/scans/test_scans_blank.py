"""A slice of one value in the middle of a volume: never written, or lost on the way."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from make_dicom import CT, MR, PET, axial, picture, series

from medlora import scans
from medlora.scans import Code


def blanked(folder, which, count=12, value=0, **about):
    """A series of `count` slices of which some hold `value` alone."""
    series(folder, axial(count), **about)
    for k in which:
        path = folder / f"{k:04d}.dcm"
        data = pydicom.dcmread(path)
        data.PixelData = np.full((data.Rows, data.Columns), value, np.uint16).tobytes()
        data.save_as(path)
    (scan,) = scans.read(folder)
    return scan


@pytest.mark.parametrize("sop_class", [CT, MR])
@pytest.mark.parametrize("value", [0, 24, 4095])
@pytest.mark.parametrize(
    ("which", "said"), [([5], "6 of 12"), ([1, 10], "2, 11 of 12"), ([4, 5, 6, 7], "5, 6, 7 and others of 12")]
)
def test_a_slice_that_holds_nothing_is_said(tmp_path, sop_class, value, which, said):
    scan = blanked(tmp_path, which, value=value, sop_class=sop_class)
    assert [(issue.code, issue.detail) for issue in scan.issues] == [(Code.BlankSlices, said)]


@pytest.mark.parametrize("which", [[], [0], [11], [0, 1, 2, 10, 11], range(1, 12), range(12)])
def test_the_ends_of_a_volume_may_hold_nothing(tmp_path, which):
    """Slices of a brain are filled up with zeros, and so are volumes that software made longer."""
    assert blanked(tmp_path, which, sop_class=MR).issues == ()


def test_what_was_computed_may_hold_nothing(tmp_path):
    assert blanked(tmp_path, [5], sop_class=MR, ImageType=["DERIVED", "PRIMARY", "M"]).issues == ()


def test_a_positron_emission_may_have_counted_nothing(tmp_path):
    about = {"RescaleSlope": 1, "RescaleIntercept": 0, "Units": "BQML"}
    assert blanked(tmp_path, [5], sop_class=PET, **about).issues == ()


@pytest.mark.parametrize(("filled", "said"), [(2, False), (8, True)])
def test_between_slices_that_hold_next_to_nothing_one_may_hold_nothing(tmp_path, filled, said):
    """As of a mask, two of whose places are parted by a slice: of 12 rows 2 hold something. Of 8 it is no mask."""
    series(tmp_path, axial(7), sop_class=MR)
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        pixels = picture(seed=k, low=1)
        pixels[filled if k != 3 else 0 :] = 0
        data = pydicom.dcmread(path)
        data.PixelData = pixels.astype(np.uint16).tobytes()
        data.save_as(path)
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == ([Code.BlankSlices] if said else [])

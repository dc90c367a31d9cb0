"""Private headers that outlive the mosaic they tell of, and scales of single frames."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
from make_dicom import MR, axial, picture, series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_scans_frames import ENHANCED_MR, enhanced, macro

from medlora import scans
from medlora.scans import Code

LEGACY_MR = "1.2.840.10008.5.1.4.1.1.4.4"


def siemens(count: int) -> bytes:
    """A CSA image header (nibabel, "Siemens format DICOM with CSA header", CSA2) of two tags."""

    def tag(name: str, items: list[str]) -> bytes:
        made = name.encode().ljust(64, b"\0") + struct.pack("<i4siii", len(items), b"FD\0\0", 0, len(items), 77)
        for text in (item.encode() + b"\0" for item in items):
            made += struct.pack("<4i", len(text), len(text), 77, len(text)) + text.ljust(-(-len(text) // 4) * 4, b"\0")
        return made

    tags = [tag("NumberOfImagesInMosaic", [str(count)]), tag("SliceNormalVector", ["0.0", "0.0", "1.0"])]
    return b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77) + b"".join(tags)


def with_private_header(folder, count, each=None, **about):
    volume = series(folder, axial(6), sop_class=MR, rows=24, columns=24, SpacingBetweenSlices=2.5, each=each, **about)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", siemens(count))
        data.save_as(path)
    return volume


@pytest.mark.parametrize("count", [4, 9, 36])
def test_slices_parted_from_a_mosaic_are_slices(tmp_path, count):
    """24 pixels were measured (Acquisition Matrix, PS3.3 C.8.3.1), so 24 are a slice and not several tiles."""
    volume = with_private_header(
        tmp_path, count, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"], AcquisitionMatrix=[24, 0, 0, 20]
    )
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array, volume)
    assert scan.issues == ()


@pytest.mark.parametrize(("words", "matrix"), [
    (["MOSAIC"], [24, 0, 0, 20]),  # the word was left, too
    (["MOSAIC"], [0, 20, 24, 0]),
    ([], None),  # nothing tells which is right
])  # fmt: skip
def test_tiles_by_a_private_header_alone_are_refused(tmp_path, words, matrix):
    with_private_header(tmp_path, 36, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", *words], AcquisitionMatrix=matrix)
    found = scans.survey(tmp_path)
    assert found.scans == [] and {e.code for e in found.excluded} == {Code.UnknownMosaic}


@pytest.mark.parametrize(("words", "matrix"), [
    (["MOSAIC"], None),
    (["MOSAIC"], [8, 0, 0, 4]),
    (["MOSAIC"], [4, 0, 0, 3]),  # interpolated to twice as many
    ([], [8, 0, 0, 8]),
])  # fmt: skip
def test_tiles_of_what_was_measured_are_tiles(tmp_path, words, matrix):
    """Three by three of 8 × 8."""
    each = [{"AcquisitionTime": f"10000{k}", "TemporalPositionIdentifier": k + 1} for k in range(6)]
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", *words]
    with_private_header(tmp_path, 9, each, ImageType=kind, AcquisitionMatrix=matrix)
    found = scans.read(tmp_path)
    assert [scan.shape for scan in found] == [(8, 8, 9)] * 6
    for k, scan in enumerate(found):
        tiles = picture(24, 24, seed=k).reshape(3, 8, 3, 8).swapaxes(1, 2).reshape(9, 8, 8)
        np.testing.assert_array_equal(scan.to_numpy("zyx"), tiles)


def mapping(slope: float, intercept: float = 0.0, last: int = 4095) -> Dataset:
    found = Dataset()
    found.RealWorldValueSlope, found.RealWorldValueIntercept = slope, intercept
    found.RealWorldValueFirstValueMapped, found.RealWorldValueLastValueMapped = 0, last
    return found


@pytest.mark.parametrize("sop_class", [ENHANCED_MR, LEGACY_MR])
@pytest.mark.parametrize("rescaled", [False, True])
def test_frames_of_magnetic_resonance_have_real_world_values_where_they_have_no_rescale(tmp_path, sop_class, rescaled):
    """PS3.3 C.7.6.16.2.11; as of single images, whose Rescale Slope, where there is one, is what counts."""
    frames = np.stack([picture(seed=k) for k in range(4)])
    extra = [{"RealWorldValueMappingSequence": Sequence([mapping(0.5 + k, -k)])} for k in range(4)]
    if rescaled:
        for k in range(4):
            extra[k]["PixelValueTransformationSequence"] = macro(RescaleSlope=2, RescaleIntercept=1, RescaleType="US")
    shared = {
        "PlaneOrientationSequence": macro(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75], SliceThickness=1.0),
    }
    enhanced(frames, axial(4), tmp_path / "a", extra, shared, sop_class)
    (scan,) = scans.read(tmp_path)
    expected = [2.0 * f + 1 if rescaled else (0.5 + k) * f - k for k, f in enumerate(frames)]
    np.testing.assert_array_equal(scan.to_numpy("zyx"), expected)
    assert scan.issues == ()


def test_a_scale_that_frames_lack_is_said(tmp_path):
    frames = np.stack([picture(seed=k) for k in range(4)])
    extra = [{"RealWorldValueMappingSequence": Sequence([mapping(0.5)])} if k != 2 else {} for k in range(4)]
    shared = {
        "PlaneOrientationSequence": macro(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75], SliceThickness=1.0),
    }
    enhanced(frames, axial(4), tmp_path / "a", extra, shared, ENHANCED_MR)
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == [Code.UnknownUnits]
    np.testing.assert_array_equal(scan.array, frames.transpose(2, 1, 0))  # all of them as stored, or none

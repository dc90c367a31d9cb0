"""Legacy converted enhanced objects, as highdicom makes them of single images: the same scans as of those."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage, LegacyConvertedEnhancedMRImage
from make_dicom import CT, MR, axial, series

from medlora import scans

CONVERTERS = {CT: LegacyConvertedEnhancedCTImage, MR: LegacyConvertedEnhancedMRImage}
GENERAL = {
    "FrameOfReferenceUID": "1.2.3.6", "PatientSex": "O", "PatientBirthDate": "", "StudyID": "1",
    "StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": "",
    "ReferringPhysicianName": "", "Manufacturer": "Maker",
    "BodyPartExamined": "CHEST", "SeriesNumber": 1, "BurnedInAnnotation": "NO", "PositionReferenceIndicator": "",
    "AcquisitionDate": "20200101", "AcquisitionTime": "120000", "ContentDate": "20200101", "ContentTime": "120000",
    "LossyImageCompression": "00", "PresentationLUTShape": "IDENTITY",
}  # fmt: skip


@pytest.mark.parametrize(
    ("sop_class", "word", "pair"),
    [
        (MR, "EchoTime", (10.0, 30.0)),
        (MR, "TemporalPositionIdentifier", (1, 2)),
        (MR, "DiffusionBValue", (0.0, 1000.0)),
        (CT, "AcquisitionNumber", (1, 2)),
        (CT, "ConvolutionKernel", ("B30f", "B70f")),
    ],
)
def test_two_volumes_are_told_apart_by_what_the_single_images_said(tmp_path, sop_class, word, pair):
    """What has no macro of its own is in the Unassigned Converted Attributes."""
    each = [{word: value} for value in pair for _ in range(5)]
    series(tmp_path / "single", [*axial(5), *axial(5)], sop_class=sop_class, each=each, **GENERAL)
    found = convert(tmp_path, sop_class)
    expected = scans.read(tmp_path / "single")
    assert len(found) == len(expected) == 2
    for one, other, value in zip(found, expected, pair, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
        np.testing.assert_allclose(one.affine, other.affine)
        assert one.issues == other.issues == () and one.header[word] == value


def test_rescale_by_slice(tmp_path):
    each = [{"RescaleSlope": k + 1, "RescaleIntercept": -k} for k in range(5)]
    stored = series(tmp_path / "single", axial(5), each=each, **GENERAL)
    (scan,) = convert(tmp_path, CT)
    np.testing.assert_allclose(scan.array, stored * np.arange(1, 6) - np.arange(5))
    assert scan.issues == ()


def convert(folder, sop_class):
    images = [pydicom.dcmread(path) for path in sorted((folder / "single").iterdir())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = CONVERTERS[sop_class](
            images, series_instance_uid="1.2.3.7", series_number=2, sop_instance_uid="1.2.3.8", instance_number=1
        )
    (folder / "converted").mkdir()
    converted.save_as(folder / "converted" / "a.dcm")
    return scans.read(folder / "converted")

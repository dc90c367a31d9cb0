"""Several files under one SOP Instance UID: sent again, corrected, compressed otherwise, damaged on the way."""

from __future__ import annotations

import copy
import shutil

import imagecodecs
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CR, CT, axial, image, picture, save, series
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless

from medlora import scans
from medlora.scans import Code


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("SpecificCharacterSet", "ISO_IR 100", "ISO_IR 192"),
        ("BodyPartExamined", "CHEST", "THORAX"),
        ("StudyDate", "20200101", None),
        ("SeriesNumber", 3, 4),
        ("Manufacturer", "GE", "GE MEDICAL"),
        ("Laterality", None, "L"),
        ("PatientPosition", "HFS", None),
        ("FrameOfReferenceUID", "1.2.3", "1.2.4"),
        ("BurnedInAnnotation", "NO", None),
        ("RescaleType", "HU", None),
        ("ImagesInAcquisition", 5, None),
        ("PixelPaddingValue", 0, None),
    ],
)
def test_a_series_sent_again_after_its_header_was_corrected_counts_once(tmp_path, word, before, after):
    """PS3.3 C.12.1: one SOP Instance UID is one image; cells, scale, place and kind are the same."""
    volume = series(tmp_path / "a", axial(5), **{word: before})
    series(tmp_path / "b", axial(5), **{word: after})
    found = scans.read(tmp_path)
    (scan,) = found
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    assert scan.issues == () and [e.code for e in found.excluded] == [Code.DuplicateFile] * 5
    assert word != "Laterality" or scan.header["Laterality"] == "L"  # the copy that says it


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("Laterality", "L", "R"),
        ("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME2"),
        ("PixelSpacing", [0.5, 0.5], [0.7, 0.7]),
        ("PixelRepresentation", 0, 1),
        ("EchoNumbers", 1, 2),
    ],
)
def test_copies_that_contradict_each_other_are_not_chosen_between(tmp_path, word, before, after):
    for name, value in (("a", before), ("b", after)):
        save(image(picture(), CR, SOPInstanceUID="1.2.3.9", **{word: value}), tmp_path / name)
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.RepeatedInstance]


@pytest.mark.parametrize("name", ["aa", "zz"])
def test_a_damaged_copy_costs_no_slice(tmp_path, name):
    """PS3.5 G.5: the header of an RLE frame gives the number of its segments, two of 16 bits."""
    volume = series(tmp_path, axial(5))
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(path)
    damaged = bytearray((tmp_path / "0002.dcm").read_bytes())
    damaged[damaged.rfind(b"\xfe\xff\x00\xe0") + 8] = 9
    (tmp_path / name).write_bytes(damaged)
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array, volume - 1024.0)
    assert found[0].issues == () and [e.code for e in found.excluded] == [Code.DamagedPixelData]


def _compressed(data, encoded, syntax, **elements):
    other = copy.deepcopy(data)
    other.PixelData = encapsulate([encoded])
    other["PixelData"].is_undefined_length = True
    other.file_meta.TransferSyntaxUID = UID(syntax)
    for word, value in elements.items():
        setattr(other, word, value)
    return other


def test_of_a_lossy_and_an_exact_copy_the_exact_one_is_kept(tmp_path):
    pixels = picture(64, 64, high=255)
    data = image(pixels, CR, stored=8, SOPInstanceUID="1.2.3.77")
    lossy = imagecodecs.jpeg8_encode(pixels.astype("u1"), level=30)
    save(_compressed(data, lossy, "1.2.840.10008.1.2.4.50", LossyImageCompression="01"), tmp_path / "a")
    save(data, tmp_path / "b")
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array[..., 0], pixels.T)
    assert "LossyImageCompression" not in found[0].header and found.excluded[0].code is Code.DuplicateFile


@pytest.mark.parametrize("seed", [0, 1])
def test_losslessly_compressed_copies_are_those_of_equal_cells(tmp_path, seed):
    """Signed cells of 12 bits: JPEG-LS gives those alone, native ones carry their sign through 16 (PS3.5 8.1.1)."""
    pixels, other = (picture(64, 64, seed=k, low=-900) for k in (0, seed))
    data = image(pixels, CR, stored=12, allocated=16, signed=True, SOPInstanceUID="1.2.3.77")
    save(data, tmp_path / "a")
    encoded = imagecodecs.jpegls_encode((other & 0xFFF).astype("u2"))
    save(_compressed(data, encoded, "1.2.840.10008.1.2.4.80"), tmp_path / "b")
    found = scans.survey(tmp_path)
    assert [e.code for e in found.excluded] == [Code.RepeatedInstance if seed else Code.DuplicateFile]


def test_a_file_copied_twice_is_no_slice(tmp_path):
    volume = series(tmp_path, axial(5))
    shutil.copy(tmp_path / "0002.dcm", tmp_path / "copy of 0002.dcm")
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array, volume - 1024.0)
    assert found[0].issues == () and [e.code for e in found.excluded] == [Code.DuplicateFile]


def test_a_slice_sent_twice_under_two_uids_is_no_slice(tmp_path):
    volume = series(tmp_path, axial(5))
    again = picture(seed=2)
    save(
        image(again, ImagePositionPatient=[-100, -80, 35], ImageOrientationPatient=list(AXIAL), PixelSpacing=[0.5,
        0.75],
              InstanceNumber=6), tmp_path / "again.dcm")  # fmt: skip
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array, volume - 1024.0)
    assert [e.code for e in found.excluded] == [Code.DuplicateFile]


def test_different_images_under_one_uid_are_refused(tmp_path):
    series(tmp_path, axial(4), each=[{"SOPInstanceUID": "1.2.3.9"}] * 4)
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.RepeatedInstance]


def test_the_same_uids_in_two_series_are_refused(tmp_path):
    series(tmp_path / "a", axial(3), PatientID="A")
    series(tmp_path / "b", axial(3), PatientID="B")
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.RepeatedInstance] * 2


def test_one_uid_one_header_but_other_pixels_is_no_copy(tmp_path):
    data = image(picture(), CT, SOPInstanceUID="1.2.3.9")
    save(data, tmp_path / "a")
    data.PixelData = data.PixelData[::-1]
    save(data, tmp_path / "b")
    assert [e.code for e in scans.survey(tmp_path).excluded] == [Code.RepeatedInstance]


def test_a_truncated_copy_of_a_slice_leaves_the_series_whole(tmp_path):
    series(tmp_path, axial(5))
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "0002.dcm").read_bytes()[:-40])
    found = scans.read(tmp_path)
    assert found[0].issues == () and [e.code for e in found.excluded] == [Code.TruncatedPixelData]


def test_a_slice_sent_again_at_another_time_is_no_slice(tmp_path):
    volume = series(tmp_path, axial(5), ContentTime="101010")
    data = image(picture(seed=2), ImagePositionPatient=[-100, -80, 35], ImageOrientationPatient=list(AXIAL))
    data.PixelSpacing, data.InstanceNumber, data.ContentTime = [0.5, 0.75], 6, "111213"
    save(data, tmp_path / "again.dcm")
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array, volume - 1024.0)
    assert [e.code for e in found.excluded] == [Code.DuplicateFile]


def _twice(folder, first=None, second=None, count=5, **kind):
    volume = series(folder / "a", axial(count), **kind, **(first or {}))
    series(folder / "b", axial(count), **kind, **(second or {}))
    return volume


@pytest.mark.parametrize("word", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_series_that_is_there_again_under_another_uid_counts_once(tmp_path, word, swapped):
    """Sent twice, once after its study or series had been given another UID; the lower one is kept, wherever it is."""
    uids = [{word: "1.2.3.99"}, {word: "1.2.3.10"}]
    volume = _twice(tmp_path, *(uids[::-1] if swapped else uids))
    found = scans.read(tmp_path)
    (scan,) = found
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    assert scan.issues == () and {path.parent.name for path in scan.sources} == {"a" if swapped else "b"}
    (copy_of_it,) = found.excluded
    assert (copy_of_it.code, len(copy_of_it.paths)) == (Code.DuplicateFile, 5)
    assert copy_of_it.reason == "which is there again, as another series or in another study"


@pytest.mark.parametrize(
    "other", [{"RescaleIntercept": 0}, {"PixelSpacing": [0.5, 0.5]}, {"Laterality": "R"}, {"PatientID": "other"}]
)
def test_series_of_the_same_uids_that_are_no_copies_are_refused(tmp_path, other):
    _twice(tmp_path, {"Laterality": "L"}, {"StudyInstanceUID": "1.2.3.10"} | {"Laterality": "L"} | other)
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.RepeatedInstance] * 2
    reason = "of several patients" if "PatientID" in other else "in several series"
    assert [e.reason for e in found.excluded] == [reason] * 2


def test_one_other_pixel_makes_another_series(tmp_path):
    _twice(tmp_path, second={"StudyInstanceUID": "1.2.3.10"})
    data = pydicom.dcmread(tmp_path / "b" / "0003.dcm")
    data.PixelData = data.PixelData[:-2] + b"\1\1"
    data.save_as(tmp_path / "b" / "0003.dcm")
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.reason for e in found.excluded] == ["in several series"] * 2


def test_a_compressed_copy_in_another_study_is_a_copy(tmp_path):
    volume = _twice(tmp_path, second={"StudyInstanceUID": "1.2.3.10"})
    for path in (tmp_path / "b").iterdir():
        data = pydicom.dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(path)
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array, volume - 1024.0)
    assert len(found) == 1 and [e.code for e in found.excluded] == [Code.DuplicateFile]


@pytest.mark.parametrize("kept", [[0, 3], [0, 1, 2, 3]])
def test_key_images_in_a_series_of_their_own_stay(tmp_path, kept):
    series(tmp_path / "a", axial(5))
    series(tmp_path / "b", axial(5), SeriesInstanceUID="1.2.3.10")
    for k in set(range(5)) - set(kept):
        (tmp_path / "b" / f"{k:04d}.dcm").unlink()
    assert sorted(scan.shape[2] for scan in scans.read(tmp_path)) == [len(kept), 5]

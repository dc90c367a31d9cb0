"""More voxels than the header says: padding is left alone, anything else is refused by name."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CT, SC, axial, image, picture, save, series
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code

PLACE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}
US = "1.2.840.10008.5.1.4.1.1.3.1"


def reason(folder: Path) -> str:
    (excluded,) = scans.survey(folder).excluded
    assert excluded.code is Code.DamagedHeader
    return excluded.reason


def real(name: str) -> pydicom.Dataset:
    return pydicom.dcmread(get_testdata_file(name, download=False))


def test_slices_of_fewer_columns_than_there_are_pixels_are_refused(tmp_path):
    """PS3.5 8.1.1: one byte at most pads the element; 17 of 18 columns leave 12 rows of one cell of two bytes."""
    series(tmp_path, axial(5), columns=18)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.Columns = 17
        data.save_as(path)
    found = scans.survey(tmp_path)
    assert found.scans == [] and {e.code for e in found.excluded} == {Code.DamagedHeader}
    assert {e.reason for e in found.excluded} == {"pixels of 24 bytes more than it says"}


@pytest.mark.parametrize("tail", [2, 100, 512, 3000])
@pytest.mark.parametrize("value", [b"\0", b"\xff"])
def test_bytes_of_one_value_behind_the_pixels_are_padding(tmp_path, tail, value):
    """Of 4096 cells; 3000 bytes are less than a frame."""
    pixels = picture(64, 64)
    data = image(pixels, CT, **PLACE)
    data.PixelData += value * tail
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[..., 0], pixels.T - 1024.0)
    assert scan.issues == ()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("name", "more"), [("CT_small.dcm", 1), ("MR_small.dcm", 1), ("CT_small.dcm", 3)])
def test_a_dark_last_row_is_no_padding_where_the_rows_would_be_sheared(tmp_path, name, more, syntax):
    """As the last rows of a CT are, outside the field of view."""
    real_one = real(name)
    pixels = real_one.pixel_array.copy()
    pixels[-more:] = 0
    signed = bool(real_one.PixelRepresentation)
    right = image(pixels, CT, syntax, signed=signed, **PLACE)
    save(right, tmp_path / "right" / "a")
    np.testing.assert_array_equal(scans.read(tmp_path / "right")[0].array[..., 0], pixels.T - 1024.0)
    wrong = image(pixels, CT, syntax, signed=signed, **(PLACE | {"Columns": pixels.shape[1] - more}))
    save(wrong, tmp_path / "wrong" / "a")
    there, said = pixels.shape[1], pixels.shape[1] - more
    assert reason(tmp_path / "wrong") == f"pixels of {there} columns, not the {said} that it says"
    padded = image(pixels, CT, syntax, signed=signed, **PLACE)
    padded.PixelData += bytes(pixels.shape[0] * 2 * more)  # as many bytes as of more columns
    save(padded, tmp_path / "padded" / "a")
    np.testing.assert_array_equal(scans.read(tmp_path / "padded")[0].array[..., 0], pixels.T - 1024.0)


def test_the_padded_file_of_pydicom_is_the_one_without():
    padded, plain = (scans.read(get_testdata_file(name))[0] for name in ("MR_small_padded.dcm", "MR_small.dcm"))
    np.testing.assert_array_equal(padded.array, plain.array)
    assert padded.issues == plain.issues


@pytest.mark.parametrize("count", [2, 5, 6])
@pytest.mark.parametrize("dark", [False, True])
def test_frames_that_are_padded_each_are_refused(tmp_path, count, dark):
    """63 cells of 8 bits and a byte, `count` times: the second frame would begin with the byte that pads the first."""
    frames = np.zeros((count, 7, 9), int) if dark else np.stack([picture(7, 9, k, 0, 255) for k in range(count)])
    data = image(frames, US, stored=8, Modality="US")
    save(data, tmp_path / "right" / "a")
    (scan,) = scans.read(tmp_path / "right")
    np.testing.assert_array_equal(scan.array, frames.transpose(2, 1, 0))
    data.PixelData = b"".join(frame.astype(np.uint8).tobytes() + b"\0" for frame in frames)
    save(data, tmp_path / "wrong" / "a")
    # Two frames more than 63 bytes longer would be a third one.
    assert reason(tmp_path / "wrong") == "each frame is padded to an even length, not the pixels as a whole"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_more_frames_than_the_header_says_are_refused_deflated_or_not(tmp_path, syntax):
    frames = np.stack([picture(seed=k) for k in range(3)])
    save(image(frames, SC, syntax, NumberOfFrames=None), tmp_path / "a")
    with pytest.raises(MedloraError, match="pixels of more frames than the 1 that it says"):
        scans.read(tmp_path)


def test_deflated_pixels_of_more_columns_are_refused(tmp_path):
    save(image(picture(), CT, DeflatedExplicitVRLittleEndian, **PLACE, Columns=15), tmp_path / "a")
    with pytest.raises(MedloraError, match="pixels of 24 bytes more than it says"):
        scans.read(tmp_path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr"])
@pytest.mark.parametrize("axes", [3, 4])
def test_a_nifti_of_more_slices_than_its_header_says_is_refused(tmp_path, name, axes):
    """One slice of 50 × 60 more, then the same as zeros, and as a note of 500 bytes."""
    shape = (50, 60, 4, 3)[:axes]
    voxels = np.random.default_rng(0).integers(1, 999, shape).astype(np.int16)
    kind = nibabel.Nifti1Pair if name == "a.hdr" else nibabel.Nifti1Image
    nibabel.save(kind(voxels, np.diag([1, 1, 2, 1])), tmp_path / name)
    path = tmp_path / ("a.img" if name == "a.hdr" else name)
    stored = path.read_bytes()
    packed = name.endswith(".gz")
    for more, fine in ((voxels[:, :, 0].tobytes(), False), (bytes(6000), True), (b"note." * 100, True)):
        path.write_bytes(gzip.compress(gzip.decompress(stored) + more) if packed else stored + more)
        if fine:
            np.testing.assert_array_equal(scans.read(tmp_path)[0].array, voxels)
        else:
            with pytest.raises(MedloraError, match="voxels of more slices than it says"):
                scans.read(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_metaimage_of_more_slices_than_its_header_says_is_refused(tmp_path, compressed):
    """A slice more (LUNA16's are .mhd and .zraw), zeros, a line."""
    voxels = np.random.default_rng(0).integers(1, 999, (3, 60, 50)).astype("<i2")
    (tmp_path / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nOffset = 0 0 0\nElementSpacing = 1 1 2\n"
        f"CompressedData = {compressed}\nDimSize = 50 60 3\nElementType = MET_SHORT\nElementDataFile = a.raw\n"
    )
    for more, fine in ((b"", True), (voxels[0].tobytes(), False), (bytes(6000), True), (b"\r\nend", True)):
        stored = voxels.tobytes() + more
        (tmp_path / "a.raw").write_bytes(zlib.compress(stored) if compressed else stored)
        if fine:
            np.testing.assert_array_equal(scans.read(tmp_path)[0].to_numpy("zyx"), voxels)
        else:
            with pytest.raises(MedloraError, match="voxels of more slices than it says"):
                scans.read(tmp_path)


def test_a_file_that_ends_within_a_pixel_of_what_is_too_much(tmp_path):
    """The element says more columns than the header, and the file was cut at an odd byte behind those of the header."""
    data = image(np.zeros((12, 16), np.uint16))
    path = save(data, tmp_path / "a.dcm")
    stored = path.read_bytes()
    length = (12 * 16 * 2).to_bytes(4, "little")
    longer = stored.replace(length, (12 * 18 * 2).to_bytes(4, "little")) + bytes(31)
    assert longer.count(length) == 0
    path.write_bytes(longer)
    assert len(scans.survey(tmp_path).scans) == 1

"""Files of formats that are not read: refused, and named."""

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path as nibabel_data
from PIL import Image
from pydicom.data import get_testdata_file

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code
from medlora.scans.others import format_of


@pytest.fixture
def dicom():
    return get_testdata_file("CT_small.dcm")


def picture():
    return Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


def volume():
    return np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def write(folder, name, dicom):
    """The file ``name``, as its own tools write it."""
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(dicom, "a.dcm")
    elif ".tar" in name:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(dicom, "a.dcm")
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(dicom.encode() if name == "text.gz" else Path(dicom).read_bytes()))
    elif name.endswith((".mgz", ".mgh")):
        nibabel.save(nibabel.MGHImage(volume(), np.eye(4)), path)
    elif name.endswith(".hdr"):
        nibabel.save(nibabel.AnalyzeImage(volume(), np.eye(4)), path)
    elif name.endswith(".npy"):
        np.save(path, volume())
    elif name.endswith(".nrrd"):
        path.write_bytes(b"NRRD0004\ntype: short\n")
    else:
        picture().save(path)
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("study.zip", "a ZIP archive"),
        ("study.tar", "a tar archive"),
        ("study.tar.gz", "a tar archive"),
        ("slice.dcm.gz", "a gzipped DICOM file"),
        ("text.gz", "compressed by gzip"),
        ("t1.mgz", "FreeSurfer's MGH"),
        ("t1.mgh", "FreeSurfer's MGH"),
        ("scan.hdr", "Analyze 7.5, which does not tell left from right"),
        ("scan.nrrd", "NRRD"),
        ("scan.npy", "a NumPy array"),
        ("image.tif", "TIFF"),
        ("image.bmp", "BMP"),
        ("image.gif", "GIF"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, name, said, dicom):
    path = write(tmp_path, name, dicom)
    assert scans.read_header(path).problem[0] == "NotAnImage"
    assert scans.read_header(path).problem[1].startswith(said)
    with pytest.raises(MedloraError, match=said):
        scans.read(path)


def test_what_is_not_known_has_no_name():
    assert [format_of(start, 10_000) for start in (b"", b"Patient was asleep", b"BMI,age\n", b"\x1f\x8bno")] == [""] * 4


def test_connectivity_and_surfaces_are_no_scans(tmp_path):
    """CIFTI files are NIfTI-2 by their form, but hold a matrix over surface vertices and regions (CIFTI-2, intents)."""
    shutil.copy(f"{nibabel_data}/row_major.dconn.nii", tmp_path)
    shutil.copy(f"{nibabel_data}/anatomical.nii", tmp_path)
    found = scans.read(tmp_path)
    assert [scan.shape for scan in found] == [(33, 41, 25)]
    assert [(left.code, left.reason[:5]) for left in found.excluded] == [(Code.NotAnImage, "CIFTI")]

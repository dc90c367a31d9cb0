"""MetaImage files: as SimpleITK writes and reads them, and those that cannot be taken."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from medlora import scans
from medlora.errors import MedloraError

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860"
TURNED = (0.0, 1.0, 0.0, -0.6, 0.0, 0.8, 0.8, 0.0, 0.6)  # directions of the axes in columns, as ITK keeps them


def header(**changes: object) -> str:
    lines = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-10 -20 -30",
        "ElementSpacing": "0.5 0.6 2", "DimSize": "5 4 3", "ElementType": "MET_SHORT", "ElementDataFile": "a.raw",
    } | changes  # fmt: skip
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


@pytest.mark.parametrize("name", [f"{UID}.mhd", "other.mha"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["int16", "uint8", "float64", "vector"])
def test_voxels_and_affine_are_those_of_simpleitk(tmp_path, name, compressed, kind):
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    values = rng.integers(0, 200, (3, 4, 5, 2) if kind == "vector" else (3, 4, 5))
    image = sitk.GetImageFromArray(values.astype("int16" if kind == "vector" else kind), isVector=kind == "vector")
    image.SetSpacing((0.5, 0.6, 2.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection(TURNED)
    sitk.WriteImage(image, str(tmp_path / name), useCompression=compressed)
    (scan,) = scans.read(tmp_path)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    np.testing.assert_array_equal(scan.to_numpy("zyx"), written)
    for index in ((0, 0, 0), (4, 0, 0), (1, 2, 1), (4, 3, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((scan.affine @ [*index, 1])[:3], lps * (-1, -1, 1), atol=1e-5)
    (files,) = scans.survey(tmp_path).scans
    assert files.identity.series_uid == (UID if name.startswith("1.") else "")


@pytest.mark.parametrize("changes", [
    {"ElementDataFile": "./a.raw"},
    {"ElementDataFile": "raw/a.raw"},
    {"ElementType": "MET_INT"},
    {"ElementType": "MET_LONG"},
    {"ElementType": "MET_ULONG"},
])  # fmt: skip
def test_what_other_writers_put_into_a_header_is_read_as_simpleitk_reads_it(tmp_path, changes):
    sitk = pytest.importorskip("SimpleITK")
    (tmp_path / "a.mhd").write_text("Comment = of a phantom\n" + header(**changes))
    voxels = tmp_path / changes.get("ElementDataFile", "a.raw")
    voxels.parent.mkdir(exist_ok=True)
    voxels.write_bytes(np.arange(60, dtype="<i4" if "ElementType" in changes else "<i2").tobytes())
    found = scans.read(tmp_path)
    assert found.excluded == []
    (scan,) = found
    np.testing.assert_array_equal(scan.to_numpy("zyx"), sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.mhd"))))
    assert scan.array[4, 3, 2] == 59


@pytest.mark.parametrize("size", [-1, 400])
def test_header_size_counts_in_files_of_one_piece_too(tmp_path, size):
    sitk = pytest.importorskip("SimpleITK")
    text = header(ElementDataFile="LOCAL", HeaderSize=size).splitlines(keepends=True)
    last = next(line for line in text if line.startswith("ElementDataFile"))
    head = "".join([*(line for line in text if line != last), last]).encode()
    (tmp_path / "a.mha").write_bytes(head.ljust(400, b"#") + np.arange(60, dtype="<i2").tobytes())
    (scan,) = scans.read(tmp_path)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.mha")))
    np.testing.assert_array_equal(scan.to_numpy("zyx"), written)
    assert scan.array[4, 3, 2] == 59


def test_a_header_size_within_the_header_is_refused(tmp_path):
    text = header(HeaderSize=10).replace("ElementDataFile = a.raw\n", "").replace("HeaderSize = 10\n", "")
    head = (text + "HeaderSize = 10\nElementDataFile = LOCAL\n").encode()
    (tmp_path / "a.mha").write_bytes(head + np.arange(60, dtype="<i2").tobytes())
    with pytest.raises(MedloraError, match="DamagedHeader"):
        scans.read(tmp_path)


def test_the_modality_of_the_header_is_taken(tmp_path):
    np.arange(60, dtype="<i2").tofile(tmp_path / "a.raw")
    text = header().replace("ElementDataFile", "Modality = MET_MOD_CT\nElementDataFile")
    (tmp_path / "a.mhd").write_text(text)
    (scan,) = scans.read(tmp_path)
    assert scan.modality == "CT" and scan.array[4, 3, 2] == 59 and scan.array[1, 0, 0] == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"DimSize": "5 4 4"}, "TruncatedPixelData"),
        ({"DimSize": "50000 50000 9000"}, "TooLarge"),
        ({"DimSize": "5 4 300", "CompressedData": "True"}, "DamagedPixelData"),
        ({"DimSize": "5000 4000 300", "CompressedData": "True"}, "TooLarge"),
        ({"DimSize": "-5 4 3"}, "DamagedHeader"),
        ({"DimSize": "5 four 3"}, "DamagedHeader"),
        ({"Offset": "0 nan 0"}, "DamagedHeader"),
        ({"ElementSpacing": "0 1 1"}, "DamagedHeader"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "DamagedHeader"),
        ({"ElementType": "MET_STRING"}, "UnknownPixelFormat"),
        ({"ElementDataFile": "../secret.raw"}, "LinkLeavesFolder"),
        ({"ElementDataFile": "away/secret.raw"}, "LinkLeavesFolder"),
        ({"ElementDataFile": "a/../a.raw"}, "LinkLeavesFolder"),
        ({"ElementDataFile": "LIST"}, "LinkLeavesFolder"),
        ({"ElementDataFile": "gone.raw"}, "NoPixelData"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(tmp_path, changes, code):
    folder = tmp_path / "in"
    folder.mkdir()
    np.arange(60, dtype="<i2").tofile(folder / "a.raw")
    np.arange(60, dtype="<i2").tofile(tmp_path / "secret.raw")
    (folder / "away").symlink_to(tmp_path)
    (folder / "a.mhd").write_text(header(**changes))
    with pytest.raises(MedloraError, match=code):
        scans.read(folder / "a.mhd")
    found = scans.survey(folder)
    named = {excluded.code.name for excluded in found.excluded}
    if found.scans:  # seen only when its voxels are read
        with pytest.raises(scans.ScanError, match=code):
            found.scans[0].load()
    else:
        assert code in named


def test_the_checksum_of_compressed_voxels_is_looked_at(tmp_path):
    voxels = zlib.compress(np.arange(60, dtype="<i2").tobytes(), level=0)  # stored: a flipped bit is no broken code
    (tmp_path / "a.mhd").write_text(header(CompressedData="True"))
    (tmp_path / "a.raw").write_bytes(voxels)
    assert scans.read(tmp_path)[0].array[4, 3, 2] == 59
    at = voxels.index(b"\x05\x00\x06\x00")
    (tmp_path / "a.raw").write_bytes(voxels[:at] + b"\x04" + voxels[at + 1 :])
    with pytest.raises(MedloraError, match="DamagedPixelData"):
        scans.read(tmp_path)

"""Files made to take a reader down: refused by name, in little memory, and without a word of theirs repeated."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CT, axial, image, picture, save
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from medlora import scans
from medlora.scans import Code

PLACE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}


def bomb(start: bytes, wbits: int, count: int) -> bytes:
    """``start`` compressed, and after it ``count`` times 16 MiB of zeros (without a checksum: nobody gets that far)."""
    squeeze = zlib.compressobj(9, wbits=wbits)
    head = squeeze.compress(start) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return head + count * (squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)) + squeeze.flush()


def refused(path: Path) -> list[str]:
    """The codes of what is left out of ``path``, and by how many MiB looking at it raised the peak of a process."""
    script = (
        "import sys, resource\n"
        "from medlora import scans\n"
        "import nibabel, pydicom, imagecodecs\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, found = peak(), scans.survey(sys.argv[1])\n"
        "codes = [e.code.name for e in found.excluded]\n"
        "for files in found.scans:\n"
        "    try: files.load(); codes.append('read')\n"
        "    except scans.ScanError as error: codes.append(error.code.name)\n"
        "print(*codes, (peak() - before) >> 10)\n"
    )
    told = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    *codes, grown = told.stdout.split()
    assert int(grown) < 400, grown
    return codes


needs_peak = pytest.mark.skipif(sys.platform == "win32", reason="the peak of a process is asked of the system")


@needs_peak
def test_a_deflated_bomb_is_not_inflated(tmp_path):
    data = image(picture(), CT, syntax=DeflatedExplicitVRLittleEndian, **PLACE)
    path = save(data, tmp_path / "bomb")
    whole = path.read_bytes()
    # Preamble, prefix, the group's length and the group itself are not deflated (PS3.10 7.1, PS3.5 A.5).
    start = 128 + 4 + 12 + int(pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength)
    inside = zlib.decompressobj(-15).decompress(whole[start:])
    path.write_bytes(whole[:start] + bomb(inside, -15, 150))  # 2.5 MB that become 2.5 GB
    assert refused(tmp_path) == ["TooLarge"]


@needs_peak
@pytest.mark.parametrize("name", ["a.nii.gz", "nameless"])
@pytest.mark.parametrize("side", [10, 2000])
def test_a_gzipped_bomb_is_not_inflated(tmp_path, name, side):
    header = nibabel.Nifti1Header()
    header.set_data_shape((side, side, side))
    header.set_sform(np.eye(4), 1)
    header.set_data_dtype("f4")
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / name).write_bytes(bomb(header.binaryblock + bytes(4), 31, 100))
    # the small volume is whole, but the checksum behind it can not be reached
    assert refused(tmp_path) == ["DamagedPixelData" if side == 10 else "TooLarge"]


@needs_peak
def test_many_small_files_cannot_claim_a_volume_of_terabytes(tmp_path):
    data = image(picture(), CT, **PLACE)
    data.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)  # RLE
    data.Rows = data.Columns = 8192  # 128 MiB a slice, 200 of them
    for k, position in enumerate(axial(200)):
        data.SOPInstanceUID, data.ImagePositionPatient = f"1.2.3.{k}", list(position)
        save(data, tmp_path / str(k))
    assert refused(tmp_path) in (["TooLarge"], ["DamagedPixelData"])


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [("NumberOfFrames", 2**31 - 1, Code.TruncatedPixelData), ("Rows", 65535, Code.TruncatedPixelData)],
)
def test_a_header_that_asks_for_more_than_the_file_holds(tmp_path, keyword, value, code):
    data = image(picture(), CT, **PLACE)
    setattr(data, keyword, value)
    save(data, tmp_path / "a")
    assert [e.code for e in scans.survey(tmp_path).excluded] == [code]


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("offset", [0, 63, 1_000_000, 2_583_692_328, 2**32 - 1])
def test_rle_segments_that_lie_elsewhere_are_not_followed(tmp_path, segment, offset):
    """PS3.5 G.5: number of segments and their offsets. imagecodecs follows them out of the frame, and the process
    ends."""
    data = image(picture(), CT, **PLACE)
    data.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    path = save(data, tmp_path / "a")
    whole = path.read_bytes()
    at = whole.index(struct.pack("<2I", 2, 64)) + 4 * segment
    path.write_bytes(whole[:at] + struct.pack("<I", offset) + whole[at + 4 :])
    with pytest.raises(scans.ScanError, match="DamagedPixelData"):
        scans.survey(path).scans[0].load()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_sequences_nested_five_thousand_deep(tmp_path, syntax):
    data = image(picture(), CT, syntax=syntax, **PLACE)
    path = save(data, tmp_path / "a")
    explicit = syntax.endswith(".1")
    unknown = b"\xff" * 4
    opened = b"\x08\0\x40\x11" + (b"SQ\0\0" if explicit else b"") + unknown + b"\xfe\xff\0\xe0" + unknown
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    whole = path.read_bytes()
    at = whole.index(b"\x10\x00\x10\x00")  # before Patient's Name
    path.write_bytes(whole[:at] + opened * 5000 + closed * 5000 + whole[at:])
    found = scans.survey(tmp_path)
    assert len(found.scans) + len(found.excluded) == 1
    if found.scans:
        np.testing.assert_array_equal(found.scans[0].load().to_numpy("zyx")[0], picture() - 1024)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
@pytest.mark.parametrize("gzipped", [False, True])
def test_the_image_of_a_pair_is_no_link_and_no_guess(tmp_path, gzipped):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    nibabel.save(nibabel.Nifti1Pair(np.ones((2, 2, 2), np.uint8), np.eye(4)), outside / "a.hdr")
    header = (outside / "a.hdr").read_bytes()
    name = "a.hdr.gz" if gzipped else "a.hdr"
    (inside / name).write_bytes(gzip.compress(header) if gzipped else header)
    # Eight voxels would fit into the header itself, which was once read in place of the image.
    assert [e.code for e in scans.survey(inside).excluded] == [Code.NoPixelData]
    (inside / "a.img").symlink_to(outside / "a.img")
    found = scans.survey(inside)
    assert found.scans == []
    assert sorted(e.code.name for e in found.excluded) == ["LinkLeavesFolder", "NoPixelData"]


def test_a_message_repeats_nothing_that_stands_in_a_file(tmp_path):
    for key, lines in {
        "DimSize": "NDims = 3\nDimSize = Yamada Tarou 3\n",
        "ElementType": "NDims = 3\nDimSize = 5 4 3\nElementType = Yamada\n",
        "Offset": "NDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\nOffset = Yamada 0 0\n",
    }.items():
        (tmp_path / f"{key}.mhd").write_text(lines + "ElementDataFile = LOCAL\n")
    found = scans.survey(tmp_path)
    assert len(found.excluded) == 3 and "Yamada" not in " ".join(map(str, found.excluded))


def test_a_sequence_that_breaks_off_is_damage_and_no_file_that_cannot_be_opened(tmp_path):
    """Of undefined length, in an item of undefined length, big endian, with the file's end in the middle of a tag."""
    path = save(image(picture(), syntax=ExplicitVRBigEndian), tmp_path / "a.dcm")
    content = path.read_bytes()
    start = content.index(b"\x00\x10\x00\x10")  # Patient's Name: what comes before is kept
    unending = b"\x00\x08\x21\x12SQ\0\0\xff\xff\xff\xff" + b"\xff\xfe\xe0\x00\xff\xff\xff\xff"
    path.write_bytes(content[:start] + unending + b"\x00\x08\x11")
    assert [left.code for left in scans.survey(tmp_path).excluded] == [Code.DamagedHeader]

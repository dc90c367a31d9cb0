"""NIfTI, plain images, folders with junk."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from make_dicom import axial, image, picture, save, series
from PIL import Image
from pydicom.data import get_testdata_file

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code, png

SHEARED = np.array([[2.0, 0.5, 0, -10], [0, 3, 0.25, 20], [0, 0, 4, 5], [0, 0, 0, 1]])


def volume(*shape, seed=0):
    return np.random.default_rng(seed).integers(-100, 1000, shape).astype(np.int16)


def nifti(path: Path, data: np.ndarray, sform=None, qform=None, slope=None):
    made = nibabel.Nifti1Image(data, None)
    made.set_sform(sform, 1 if sform is not None else 0)
    made.set_qform(qform, 1 if qform is not None else 0)
    if slope:
        made.header.set_slope_inter(*slope)
    nibabel.save(made, path)
    return path


def codes(scan):
    return [issue.code for issue in scan.issues]


def test_sheared_sform_is_kept(tmp_path):
    data = volume(4, 5, 6)
    (scan,) = scans.read(nifti(tmp_path / "a.nii", data, sform=SHEARED))
    np.testing.assert_allclose(scan.affine, SHEARED)
    np.testing.assert_array_equal(scan.array, data)
    assert scan.array.dtype == np.float32 and scan.issues == ()


def test_qform_only_and_neither(tmp_path):
    rotation = np.array([[0, -2.0, 0, 7], [3.0, 0, 0, 8], [0, 0, 4.0, 9], [0, 0, 0, 1]])
    (scan,) = scans.read(nifti(tmp_path / "a.nii.gz", volume(4, 5, 6), qform=rotation))
    np.testing.assert_allclose(scan.affine, rotation, atol=1e-5)
    assert scan.issues == ()
    (scan,) = scans.read(nifti(tmp_path / "b.nii.gz", volume(4, 5, 6)))
    assert codes(scan) == [Code.NoGeometry]


def test_forms_that_disagree_are_said(tmp_path):
    moved = SHEARED.copy()
    moved[0, 3] += 30
    (scan,) = scans.read(nifti(tmp_path / "a.nii", volume(4, 5, 6), sform=moved, qform=np.diag([2.0, 3, 4, 1])))
    np.testing.assert_allclose(scan.affine, moved)
    assert codes(scan) == [Code.ConflictingGeometry]


def test_slope_and_intercept(tmp_path):
    stored = volume(4, 5, 6)
    path = nifti(tmp_path / "a.nii", stored, sform=np.eye(4))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, -20], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(raw)
    (scan,) = scans.read(path)
    np.testing.assert_array_equal(scan.array, stored * np.float32(0.5) - 20)


def changed(path: Path, at: int, *numbers: float, form: str = "<f4") -> Path:
    whole = bytearray(path.read_bytes())
    new = np.array(numbers, form).tobytes()
    whole[at : at + len(new)] = new
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_is_none_scales_nothing(tmp_path, slope):
    """nifti1.h: "if the scl_slope field is nonzero, then each voxel value should be scaled"."""
    (scan,) = scans.read(changed(nifti(tmp_path / "a.nii", volume(4, 5, 6), sform=np.eye(4)), 112, slope, 7))
    np.testing.assert_array_equal(scan.array, volume(4, 5, 6))


@pytest.mark.parametrize(("unit", "scale"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_metres_and_micrometres_become_millimetres(tmp_path, unit, scale, form):
    """nifti1.h: NIFTI_UNITS_METER 1, _MM 2, _MICRON 3, in the low bits of xyzt_units; the higher ones are for time."""
    affine = np.array([[0, -2.0, 0, 7], [3.0, 0, 0, 8], [0, 0, 4.0, 9], [0, 0, 0, 1]])
    path = nifti(tmp_path / "a.nii", volume(4, 5, 6), **{form: affine})
    (scan,) = scans.read(changed(path, 123, unit | 8, form="u1"))
    np.testing.assert_allclose(scan.affine, np.diag([scale, scale, scale, 1]) @ affine, rtol=1e-6, atol=1e-6 * scale)
    assert scan.issues == ()


@pytest.mark.parametrize(("qfac", "third"), [(-1, -4.0), (1, 4.0), (0, 4.0)])
def test_qfac_turns_the_third_axis(tmp_path, qfac, third):
    """nifti1.h: "if qfac is 0, it is taken to be 1"."""
    path = nifti(tmp_path / "a.nii", volume(4, 5, 6), qform=np.diag([2.0, 3, 4, 1]))
    (scan,) = scans.read(changed(path, 76, qfac))
    np.testing.assert_allclose(scan.affine, np.diag([2, 3, third, 1]))


def test_an_affine_that_is_none_is_refused_and_voxels_without_a_size_flagged(tmp_path, capfd):
    path = changed(nifti(tmp_path / "a.nii", volume(4, 5, 6), sform=np.eye(4)), 280, *[0] * 12)
    assert [e.code for e in scans.survey(path).excluded] == [Code.DamagedHeader]
    path = changed(nifti(tmp_path / "b.nii", volume(4, 5, 6), sform=np.eye(4)), 280, np.nan)
    assert [e.code for e in scans.survey(path).excluded] == [Code.DamagedHeader]
    path = changed(nifti(tmp_path / "c.nii", volume(4, 5, 6), qform=np.eye(4)), 84, 0)
    assert codes(scans.read(path)[0]) == [Code.UnknownSpacing]
    assert capfd.readouterr().err == ""  # what nibabel would log is among the issues


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_big_endian_and_gzipped_pairs(tmp_path, suffix):
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Pair(volume(4, 5, 6), SHEARED, header), tmp_path / "pair.hdr")
    for name in ("pair.hdr", "pair.img"):
        if suffix:
            (tmp_path / (name + suffix)).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
            (tmp_path / name).unlink()
    found = scans.read(tmp_path)
    assert len(found) == 1 and not found.excluded
    np.testing.assert_array_equal(found[0].array, volume(4, 5, 6))
    np.testing.assert_allclose(found[0].affine, SHEARED)


def test_4d_becomes_channels_and_2d_a_slice(tmp_path):
    (scan,) = scans.read(nifti(tmp_path / "a.nii", volume(4, 5, 6, 7), sform=np.eye(4)))
    assert scan.shape == (4, 5, 6, 7)
    np.testing.assert_array_equal(scan.array[..., 3], volume(4, 5, 6, 7)[..., 3])
    (scan,) = scans.read(nifti(tmp_path / "b.nii", volume(4, 5), sform=np.eye(4)))
    assert scan.shape == (4, 5, 1)


def test_rgb_nifti(tmp_path):
    colours = volume(4, 5, 6, 3).astype(np.uint8)
    packed = colours.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed, np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(scans.read(tmp_path)[0].array, colours)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.4, 0.95])
def test_truncated_nifti_is_refused(tmp_path, suffix, kept):
    path = nifti(tmp_path / f"a{suffix}", volume(20, 20, 20), sform=np.eye(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(MedloraError, match="TruncatedPixelData"):
        scans.read(path)


def test_nifti_is_told_by_content_and_has_an_id_by_content(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", volume(4, 5, 6), sform=SHEARED)
    shutil.copy(path, tmp_path / "nameless")
    found = scans.read(tmp_path)
    assert len(found) == 2 and found[0].scan_id == found[1].scan_id
    np.testing.assert_array_equal(found[0].array, found[1].array)
    np.testing.assert_array_equal(found[0].affine, found[1].affine)


def test_nifti_pair_and_nifti_2(tmp_path):
    data = volume(4, 5, 6)
    nibabel.save(nibabel.Nifti1Pair(data, SHEARED), tmp_path / "pair.hdr")
    nibabel.save(nibabel.Nifti2Image(data, SHEARED), tmp_path / "two.nii")
    found = scans.read(tmp_path)
    assert len(found) == 2 and not found.excluded
    for scan in found:
        np.testing.assert_array_equal(scan.array, data)
        np.testing.assert_allclose(scan.affine, SHEARED)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz", "anatomical.nii", "standard.nii.gz"])
def test_nibabels_own_files(name):
    path = Path(nibabel.__file__).parent / "tests" / "data" / name
    expected = nibabel.load(path)
    scan = scans.read(path)[0]
    np.testing.assert_array_equal(np.squeeze(scan.array), np.squeeze(expected.get_fdata(dtype=np.float32)))
    np.testing.assert_array_equal(scan.affine, expected.affine)


@pytest.mark.parametrize(("mode", "high"), [("L", 256), ("I;16", 65536)])
def test_grey_png(tmp_path, mode, high):
    pixels = picture(high=high).astype("u1" if mode == "L" else "u2")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[:, :, 0], pixels.T)
    assert scan.shape == (16, 12, 1) and scan.issues == ()


def test_grey_stored_as_rgb_and_true_colour(tmp_path):
    grey = np.repeat(picture(high=256).astype("u1")[..., None], 3, axis=-1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    colour = grey.copy()
    colour[0, 0] = [255, 0, 7]
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert scans.read(tmp_path / "grey.png")[0].shape == (16, 12, 1)
    np.testing.assert_array_equal(scans.read(tmp_path / "colour.png")[0].array[0, 0, 0], [255, 0, 7])


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_all_sixteen_bits_of_a_colour_png(tmp_path, channels):
    import imagecodecs

    pixels = np.random.default_rng(0).integers(0, 65536, (12, 16, channels)).astype("u2")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    (scan,) = scans.read(tmp_path)
    expected = pixels[..., :1] if channels == 2 else pixels[..., :3]
    np.testing.assert_array_equal(np.atleast_3d(np.squeeze(scan.array)), expected.transpose(1, 0, 2))


def test_an_animation_is_no_image(tmp_path):
    first, second = (Image.fromarray(np.full((12, 16), grey, "u1")) for grey in (1, 2))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(MedloraError, match=r"UnknownPixelFormat.*2 pictures"):
        scans.read(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """EXIF 2.32, tag 0x0112: where the 0th row and the 0th column of what is stored lie in the scene."""
    shown = np.add.outer(np.arange(48) * 2, np.arange(64) * 2).astype("u1")
    stored = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
        5: shown.T, 6: shown.T[::-1], 7: shown.T[::-1, ::-1], 8: shown.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", quality=98, exif=exif)
    assert np.abs(scans.read(tmp_path)[0].to_numpy("zyx")[0] - shown).max() < 5


def test_jpeg_and_truncated_jpeg(tmp_path):
    pixels = np.tile(np.linspace(0, 255, 64), (48, 1)).astype("u1")
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    scan = scans.read(tmp_path)[0]
    assert np.abs(scan.to_numpy("zyx")[0] - pixels).max() < 4
    whole = (tmp_path / "a.jpg").read_bytes()
    scanned = whole.index(b"\xff\xda")
    for damaged in (whole[: len(whole) // 2], whole[: scanned + 60] + whole[-60:]):  # the second has its end
        (tmp_path / "a.jpg").write_bytes(damaged)
        with pytest.raises(MedloraError, match="DamagedPixelData"):
            scans.read(tmp_path)


def test_junk_among_the_files_of_a_tree(tmp_path):
    stored = series(tmp_path / "patient" / "study" / "series", axial(4), names=["1", "2", "3", "4"])  # no extensions
    here = tmp_path / "patient"
    for name in (".DS_Store", "Thumbs.db", "._0001.dcm", "DICOMDIR"):
        (here / name).write_bytes(b"junk")
    (here / "empty.dcm").touch()
    (here / "notes.txt").write_text("Patient was asleep")
    Image.fromarray(picture(high=256).astype("u1")).save(here / "figure.png")
    shutil.copy(get_testdata_file("test-SR.dcm"), here / "report.dcm")
    shutil.copy(get_testdata_file("rtstruct.dcm"), here / "study")
    shutil.copy(get_testdata_file("liver_1frame.dcm"), here / "study" / "series")  # a segmentation
    found = scans.read(tmp_path)
    assert sorted(scan.shape for scan in found) == [(16, 12, 1), (16, 12, 4)]
    volume_ = next(scan for scan in found if scan.shape[2] == 4)
    np.testing.assert_array_equal(volume_.array, stored - 1024.0)
    assert volume_.issues == ()
    reasons = sorted((e.code.name, e.reason) for e in found.excluded)
    assert reasons == [
        ("EmptyFile", ""),
        ("NotAnImage", ""),
        ("NotAnImage", "RTSTRUCT"),
        ("NotAnImage", "SEG"),
        ("NotAnImage", "SR"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_out_of_the_folder_and_in_circles(tmp_path):
    series(tmp_path / "other" / "s", axial(3))
    series(tmp_path / "archive" / "s", axial(3))
    archive = tmp_path / "archive"
    (archive / "out").symlink_to(tmp_path / "other")
    (archive / "file out").symlink_to(tmp_path / "other" / "s" / "0000.dcm")
    (archive / "s" / "up").symlink_to(archive)
    (archive / "loop").symlink_to(archive / "loop")
    (archive / "s" / "again.dcm").symlink_to(archive / "s" / "0000.dcm")
    excluded = []
    files = list(scans.list_files(archive, excluded))
    assert sorted(f.name for f in files) == ["0000.dcm", "0001.dcm", "0002.dcm"]
    assert sorted(e.code.name for e in excluded) == ["CannotOpen", "LinkLeavesFolder", "LinkLeavesFolder"]


def test_thousands_of_files_beside_junk_folders_and_links(tmp_path):
    """A folder is looked through some files at a time: what is found is what a walk that looks at each one finds."""
    for i in range(2500):
        (tmp_path / f"d{i:04d}.dcm").touch()
    for name in ("desktop.ini", "._d1200.dcm", "Thumbs.db"):
        (tmp_path / name).touch()
    for name in ("d0500", "d1999"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").touch()
        (tmp_path / name / ".DS_Store").touch()
    links = sys.platform != "win32"  # which asks a privilege for them
    if links:
        (tmp_path / "d1500").symlink_to(tmp_path / "nothing")
    excluded = []
    files = list(scans.list_files(tmp_path, excluded))
    expected = [tmp_path / f"d{i:04d}.dcm" for i in range(2500)] + [tmp_path / "d0500" / "1", tmp_path / "d1999" / "1"]
    assert files == expected
    assert [(e.code, e.paths) for e in excluded] == ([(Code.CannotOpen, (tmp_path / "d1500",))] if links else [])


def test_a_file_that_vanishes_while_its_folder_is_listed(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / f"{i:02d}").touch()
    monkeypatch.setattr(os, "listdir", lambda _: [f"{i:02d}" for i in range(21)])
    excluded = []
    assert [path.name for path in scans.list_files(tmp_path, excluded)] == [f"{i:02d}" for i in range(20)]
    assert [(e.code, e.paths) for e in excluded] == [(Code.CannotOpen, (tmp_path / "20",))]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that bind")
def test_no_permission(tmp_path):
    series(tmp_path, axial(3))
    (tmp_path / "0001.dcm").chmod(0)
    found = scans.survey(tmp_path)
    assert [e.code for e in found.excluded] == [Code.CannotOpen]


def test_a_file_that_vanishes(tmp_path):
    series(tmp_path, axial(3))
    found = scans.survey(tmp_path)
    (tmp_path / "0001.dcm").unlink()
    with pytest.raises(scans.ScanError) as error:
        found.scans[0].load()
    assert error.value.code is Code.CannotOpen and error.value.scan_id == found.scans[0].scan_id
    assert scans.read_header(tmp_path / "0001.dcm").problem == ("CannotOpen", "No such file or directory")


@pytest.mark.parametrize("content", [None, "text"])
def test_nothing_to_read(tmp_path, content):
    if content:
        (tmp_path / "a.txt").write_text(content)
    with pytest.raises(MedloraError, match=r"nothing in .* can be read as an image"):
        scans.read(tmp_path)
    with pytest.raises(MedloraError, match="does not exist"):
        scans.read(tmp_path / "missing")


def test_a_dicom_that_is_gzipped_is_no_image(tmp_path):
    path = save(image(picture()), tmp_path / "a.dcm")
    (tmp_path / "b.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [e.code for e in scans.survey(tmp_path).excluded] == [Code.NotAnImage]


def test_any_flipped_bit_of_the_pixels_of_a_png_is_noticed(tmp_path):
    """PNG 5.3 and 10.1: each chunk ends with its CRC, and the compressed pixels with the Adler-32 of them all."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    whole = packed.getvalue()
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    np.testing.assert_array_equal(scans.read(path)[0].array[..., 0], pixels.T)
    start = whole.index(b"IDAT") + 4
    length = int.from_bytes(whole[start - 8 : start - 4], "big")
    for position in [*range(start, start + length, 97), *range(start + length - 8, start + length + 4)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(MedloraError):
            scans.read(path)
    # With a CRC that was made anew only the checksum of the pixels is left.
    damaged = bytearray(whole)
    damaged[start + length - 1] ^= 1
    damaged[start + length : start + length + 4] = zlib.crc32(damaged[start - 4 : start + length]).to_bytes(4, "big")
    assert png.damage(whole) is None and "checksum" in str(png.damage(bytes(damaged)))


@pytest.mark.parametrize(("code", "turned", "expected"), [
    (6, True, [Code.ConflictingGeometry]), (-1, True, [Code.ConflictingGeometry]), (1000, False, []), (0, True, []),
])  # fmt: skip
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_an_sform_of_a_code_that_none_has_is_said_where_the_qform_is_another(tmp_path, code, turned, expected, kind):
    """nifti1.h: codes are 0 to 5; nibabel makes 0 of others."""
    made = kind(volume(4, 5, 6), None)
    made.set_sform(np.diag([-2.0, 3, 4, 1]) if turned else np.diag([2.0, 3, 4, 1]), 1)
    made.set_qform(np.diag([2.0, 3, 4, 1]), 1)
    path = tmp_path / "a.nii"
    nibabel.save(made, path)
    stored = bytearray(path.read_bytes())
    struct.pack_into(*(("<i", stored, 348) if kind is nibabel.Nifti2Image else ("<h", stored, 254)), code)
    path.write_bytes(stored)
    (scan,) = scans.read(path)
    np.testing.assert_allclose(scan.affine, np.diag([2.0, 3, 4, 1]))
    assert codes(scan) == expected

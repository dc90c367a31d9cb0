"""Encapsulated pixels: lossless ones equal their uncompressed twin exactly."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CT, MR, SC, image, picture, save
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code
from medlora.scans.entropy import lost

PLACE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}


def packaged(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path, name
    return Path(path)


def smooth(rows=64, columns=48, high=4095, seed=1):
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(seed).normal(0, high / 100, (rows, columns))
    return np.clip((x / columns + np.sin(y / 9)) * high / 3 + noise + high / 4, 0, high).astype(int)


@pytest.mark.parametrize(
    "twin",
    ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_bigendian.dcm",
     "MR_small_implicit.dcm", "MR_small_expb.dcm"],
)  # fmt: skip
def test_lossless_twins_of_one_real_slice(twin):
    plain, other = (scans.read(packaged(name))[0] for name in ("MR_small.dcm", twin))
    np.testing.assert_array_equal(other.array, plain.array)
    np.testing.assert_array_equal(other.affine, plain.affine)
    assert other.scan_id == plain.scan_id


def test_jpeg_lossless_twin_of_a_real_colour_image():
    rle, lossless = (scans.read(packaged(name))[0] for name in ("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm"))
    np.testing.assert_array_equal(lossless.array, rle.array)


# Encoded here by liblj92, CharLS, OpenJPH, OpenJPEG and a hand-made RLE; decoded by libjpeg-turbo, CharLS, OpenJPEG
# and imcd.
ENCODERS = {
    "1.2.840.10008.1.2.4.57": lambda a, bits: imagecodecs.ljpeg_encode(a, bitspersample=bits),
    "1.2.840.10008.1.2.4.70": lambda a, bits: imagecodecs.ljpeg_encode(a, bitspersample=bits),
    "1.2.840.10008.1.2.4.80": lambda a, _: imagecodecs.jpegls_encode(a),
    "1.2.840.10008.1.2.4.90": lambda a, bits: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", reversible=True),
    "1.2.840.10008.1.2.4.201": lambda a, bits: imagecodecs.htj2k_encode(a, reversible=True),
    "1.2.840.10008.1.2.4.202": lambda a, bits: imagecodecs.htj2k_encode(a, reversible=True),
}


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_codecs_are_exact(tmp_path, syntax, bits):
    stored = smooth(high=2**bits - 1)
    encoded = ENCODERS[syntax](stored.astype("u1" if bits == 8 else "u2"), bits)
    data = image(stored, CT, syntax, stored=bits, PixelData=encapsulate([bytes(encoded)]), **PLACE)
    save(data, tmp_path / "a")
    scan = scans.read(tmp_path)[0]
    np.testing.assert_array_equal(scan.to_numpy("zyx")[0], stored - 1024)


@pytest.mark.parametrize("fragments", [2, 3, 5])
def test_one_frame_in_several_fragments(tmp_path, fragments):
    frames = [smooth(seed=k) for k in range(3)]
    encoded = [bytes(imagecodecs.jpegls_encode(f.astype("u2"))) for f in frames]
    pixels = encapsulate(encoded, fragments_per_frame=fragments)
    data = image(np.array(frames), SC, "1.2.840.10008.1.2.4.80", stored=12, PixelData=pixels)
    save(data, tmp_path / "a")
    np.testing.assert_array_equal(scans.read(tmp_path)[0].to_numpy("zyx"), frames)


@pytest.mark.parametrize("offsets", [(0, 0, 0), (0, 7, 13), (0, 4)])
def test_as_many_fragments_as_frames_are_one_each_whatever_the_table_says(tmp_path, offsets):
    frames = [smooth(seed=k) for k in range(3)]
    encoded = [bytes(imagecodecs.jpegls_encode(f.astype("u2"))) for f in frames]
    table = struct.pack(f"<{len(offsets)}I", *offsets)
    pixels = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table + encapsulate(encoded, has_bot=False)[8:]
    save(image(np.array(frames), SC, "1.2.840.10008.1.2.4.80", stored=12, PixelData=pixels), tmp_path / "a")
    np.testing.assert_array_equal(scans.read(tmp_path)[0].to_numpy("zyx"), frames)


@pytest.mark.parametrize("signed", [False, True])
def test_signed_cells_in_codestreams_that_know_no_sign(tmp_path, signed):
    stored = smooth() - (2000 if signed else 0)
    cells = (stored & 0xFFFF).astype("u2")
    data = image(stored, CT, "1.2.840.10008.1.2.4.80", signed=signed, **PLACE)
    data.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(cells))])
    save(data, tmp_path / "a")
    np.testing.assert_array_equal(scans.read(tmp_path)[0].to_numpy("zyx")[0], stored - 1024)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm",
"JPEGLSNearLossless_16.dcm",
                                  "JPEGLSNearLossless_08.dcm"])  # fmt: skip
def test_against_pydicoms_decoders(name):
    data = pydicom.dcmread(packaged(name))
    expected = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(scans.read(packaged(name))[0].to_numpy("zyx")[0], expected)


COLOUR = [
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_jpeg2k.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "ExplVR_BigEnd.dcm",
]


@pytest.mark.parametrize("name", COLOUR)
def test_real_colour_images_as_pydicom_shows_them(name):
    scan = scans.read(packaged(name))[0]
    expected = pydicom.dcmread(packaged(name)).pixel_array  # RGB, as pydicom converts by default
    np.testing.assert_allclose(scan.array[:, :, 0].transpose(1, 0, 2), expected, atol=1)


@pytest.mark.skipif(not shutil.which("dcmdjpeg"), reason="dcmtk is not installed")
@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_extended_of_twelve_bits_as_dcmtk_decodes_it(tmp_path, name):
    subprocess.run(["dcmdjpeg", packaged(name), tmp_path / "plain.dcm"], check=True)
    expected = pydicom.dcmread(tmp_path / "plain.dcm").pixel_array
    found = scans.read(packaged(name))[0].to_numpy("zyx")[0]
    assert np.abs(found - expected).max() <= 1 and found.max() > 255


@pytest.mark.skipif(not shutil.which("dcmcjpeg"), reason="dcmtk is not installed")
@pytest.mark.parametrize(
    "command", [["dcmcjpeg", "+e1"], ["dcmcjpeg", "+el"], ["dcmcjpls", "+el"], ["dcmcrle"]], ids=" ".join
)
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_lossless_as_dcmtk_encodes_it(tmp_path, command, name):
    subprocess.run([*command, packaged(name), tmp_path / "encoded.dcm"], check=True)
    plain, encoded = scans.read(packaged(name))[0], scans.read(tmp_path)[0]
    np.testing.assert_array_equal(encoded.array, plain.array)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm"]
)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_truncated_streams_are_refused_by_name(tmp_path, name, kept):
    whole = packaged(name).read_bytes()
    start = scans.read_header(packaged(name)).pixels[1]
    path = tmp_path / "cut"
    path.write_bytes(whole[: start + int(kept * (len(whole) - start))])
    found = scans.survey(path)
    assert len(found.scans) == 1
    with pytest.raises(scans.ScanError) as error:
        found.scans[0].load()
    assert error.value.code in (Code.TruncatedPixelData, Code.DamagedPixelData)


def test_a_codestream_that_lies_about_its_size_is_refused(tmp_path):
    small = bytes(imagecodecs.jpegls_encode(smooth(32, 32).astype("u2")))
    save(image(smooth(), CT, "1.2.840.10008.1.2.4.80", PixelData=encapsulate([small]), **PLACE), tmp_path / "a")
    with pytest.raises(scans.ScanError) as error:
        scans.survey(tmp_path).scans[0].load()
    assert error.value.code is Code.DamagedPixelData


def test_unsupported_transfer_syntax_is_named(tmp_path):
    save(image(picture(), MR, "1.2.840.10008.1.2.4.102", PixelData=encapsulate([b"\0\0"]), **PLACE), tmp_path / "a")
    found = scans.survey(tmp_path)
    assert [(e.code, e.reason) for e in found.excluded] == [(Code.UnsupportedTransferSyntax, "1.2.840.10008.1.2.4.102")]


def test_a_damaged_slice_is_named_and_nothing_of_its_series_is_guessed(tmp_path):
    for k in range(4):
        data = image(
            picture(), ImagePositionPatient=[0, 0, k], ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1]
        )
        data.SOPInstanceUID = f"1.2.3.{k + 1}"
        data.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        save(data, tmp_path / f"{k}")
    header = scans.read_header(tmp_path / "2")
    whole = bytearray((tmp_path / "2").read_bytes())
    start = header.pixels[1] + 16 + 64  # past the item of offsets, the item's own head and the RLE header
    whole[start : start + 200] = b"\x80" * 200  # "no operation": the rows come out short
    (tmp_path / "2").write_bytes(whole)
    with pytest.raises(MedloraError, match=r"DamagedPixelData: .*\(slice 3 of 4"):
        scans.read(tmp_path)


@pytest.mark.parametrize("lossless", [False, True], ids=["baseline", "lossless"])
@pytest.mark.parametrize("seed", range(8))
def test_a_jpeg_that_lost_its_middle_is_refused(tmp_path, lossless, seed):
    """Decoders fill up what is not there: header and end are in place."""
    stored = smooth(high=4095 if lossless else 255, seed=seed)
    if lossless:
        encoded = bytes(imagecodecs.ljpeg_encode(stored.astype("u2"), bitspersample=12))
    else:
        encoded = bytes(imagecodecs.jpeg8_encode(stored.astype("u1"), level=95))
    dice = np.random.default_rng(seed)
    start = int(dice.integers(len(encoded) // 2, len(encoded) * 3 // 4))
    cut = encoded[:start] + encoded[start + int(dice.integers(20, len(encoded) // 5)) :]
    for name, stream in (("whole", encoded), ("cut", cut)):
        syntax, bits = ("1.2.840.10008.1.2.4.70", 12) if lossless else ("1.2.840.10008.1.2.4.50", 8)
        data = image(stored, CT, syntax, stored=bits, PixelData=encapsulate([stream]), **PLACE)
        save(data, tmp_path / name)
    scans.survey(tmp_path / "whole").scans[0].load()
    with pytest.raises(scans.ScanError, match=r"missing|bytes where the pixels take") as error:
        scans.survey(tmp_path / "cut").scans[0].load()
    assert error.value.code is Code.DamagedPixelData


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_a_jpeg_of_twelve_bits_that_lost_its_middle_is_refused(tmp_path, name):
    """The second leaves out where the spectrum of its one scan begins and ends."""
    data = pydicom.dcmread(packaged(name))
    (encoded,) = generate_frames(data.PixelData, number_of_frames=1)
    dice = np.random.default_rng(0)
    for k in range(10):
        start = int(dice.integers(len(encoded) // 3, len(encoded) * 2 // 3))
        data.PixelData = encapsulate([encoded[:start] + encoded[start + int(dice.integers(20, 400)) :]])
        with pytest.raises(scans.ScanError) as error:
            scans.survey(save(data, tmp_path / f"{k}" / "a")).scans[0].load()
        assert error.value.code is Code.DamagedPixelData


@pytest.mark.parametrize(("bits", "step"), [(8, 0.01), (12, 0.001), (16, 0.001)])
def test_high_throughput_jpeg_2000_with_losses_as_openjph_decodes_it(tmp_path, bits, step):
    cells = smooth(high=2**bits - 1).astype("u1" if bits == 8 else "u2")
    encoded = bytes(imagecodecs.htj2k_encode(cells, level=step, reversible=False))
    expected = imagecodecs.htj2k_decode(encoded).astype(int)
    assert 0 < np.abs(expected - cells).max() < 2**bits / 8  # losses, but the picture
    save(image(cells, SC, "1.2.840.10008.1.2.4.203", stored=bits, PixelData=encapsulate([encoded])), tmp_path / "a")
    found = scans.read(tmp_path)[0].to_numpy("zyx")[0]
    assert np.abs(found - expected).max() <= 2**bits / 1000 + 1  # two decoders round a transform in floating point


@pytest.mark.skipif(not shutil.which("dcmcjpeg"), reason="dcmtk is not installed")
@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("shift", [0, 1])
def test_bits_of_a_lossless_jpeg_are_counted_as_dcmtk_writes_them(tmp_path, predictor, shift):
    stored = smooth(high=4095)
    save(image(stored, CT, stored=12, **PLACE), tmp_path / "plain")
    options = ["+el", "+sv", str(predictor), "+pt", str(shift)]
    subprocess.run(["dcmcjpeg", *options, tmp_path / "plain", tmp_path / "jpeg"], check=True)
    (encoded,) = generate_frames(pydicom.dcmread(tmp_path / "jpeg").PixelData, number_of_frames=1)
    frame = imagecodecs.jpeg8_decode(encoded)
    np.testing.assert_array_equal(frame, stored >> shift << shift)
    assert lost(encoded, frame) is None
    middle = len(encoded) * 2 // 3
    cut = encoded[:middle] + encoded[middle + 40 :]
    assert "bytes where the pixels take" in str(lost(cut, imagecodecs.jpeg8_decode(cut)))


@pytest.mark.parametrize("kind", [{"progressive": True}, {"restart_marker_blocks": 4}, {"optimize": True}], ids=str)
def test_a_colour_jpeg_that_lost_its_middle_is_said(kind):
    """In several scans, with restart markers, with tables of its own; what follows the end is of no account."""
    grey = smooth(200, 160, high=255)
    colours = np.dstack([grey, grey[::-1], grey[:, ::-1]]).astype("u1")
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "JPEG", quality=90, **kind)
    encoded = file.getvalue()
    assert lost(encoded, colours) is None and lost(encoded + b"after the end", colours) is None
    dice, seen = np.random.default_rng(0), 0
    for _ in range(40):
        start = int(dice.integers(1000, len(encoded) - 1600))
        seen += lost(encoded[:start] + encoded[start + 512 :], colours) is not None
    assert seen >= 38  # a loss of just as many blocks as what follows it is misread for shows nothing


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
def test_a_jpeg_that_says_jfif_is_ycbcr_whatever_the_header(tmp_path, photometric):
    colours = np.broadcast_to(np.array([200, 50, 20], np.uint8), (16, 16, 3))
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "JPEG", quality=95)  # with a JFIF marker, as libjpeg does by default
    data = image(
        colours, SC, "1.2.840.10008.1.2.4.50", stored=8, SamplesPerPixel=3, PhotometricInterpretation=photometric,
        PlanarConfiguration=0,
    )  # fmt: skip
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    save(data, tmp_path / "a.dcm")
    (scan,) = scans.read(tmp_path)
    assert np.abs(scan.array[:, :, 0] - [200, 50, 20]).max() <= 2


def test_signed_samples_under_an_unsigned_header_are_refused(tmp_path):
    for low in (-500, 0):
        cells = np.random.default_rng(0).integers(low, 1000, (12, 16)).astype("i2")
        data = image(cells, CT, "1.2.840.10008.1.2.4.90")
        data.PixelData = encapsulate([imagecodecs.jpeg2k_encode(cells, level=0, codecformat="j2k", reversible=True)])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
        save(data, tmp_path / str(low) / "a.dcm")
    with pytest.raises(MedloraError, match="DamagedPixelData"):
        scans.read(tmp_path / "-500")
    (scan,) = scans.read(tmp_path / "0")
    np.testing.assert_array_equal(scan.array[:, :, 0].T, cells - 1024.0)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
def test_a_jpeg_of_subsampled_chroma_is_ycbcr_whatever_the_header(tmp_path, photometric):
    """As libjpeg has it, without JFIF's and Adobe's marks: RGB has no chroma to leave out."""
    shown = np.zeros((32, 48, 3), "u1") + np.array([200, 90, 20], "u1")
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", quality=95, subsampling=2)
    stream = buffer.getvalue()
    length = int.from_bytes(stream[4:6], "big")
    assert stream[2:4] == b"\xff\xe0"
    bare = stream[:2] + stream[4 + length :]
    data = image(shown, SC, "1.2.840.10008.1.2.4.50", stored=8, SamplesPerPixel=3, PlanarConfiguration=0)
    data.PhotometricInterpretation, data.PixelData = photometric, encapsulate([bare])
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_allclose(scan.array[:, :, 0], np.broadcast_to([200, 90, 20], (48, 32, 3)), atol=4)


@pytest.mark.parametrize("transformed", [True, False])
def test_a_component_transform_that_the_header_claims_is_looked_for(tmp_path, transformed):
    """PS3.5 8.2.4; T.800 A.6.1."""
    shown = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype("u1")
    encoded = imagecodecs.jpeg2k_encode(shown, level=0, reversible=True, codecformat="j2k", mct=transformed)
    data = image(shown, SC, "1.2.840.10008.1.2.4.90", stored=8, SamplesPerPixel=3, PlanarConfiguration=0)
    data.PhotometricInterpretation, data.PixelData = "YBR_RCT", encapsulate([bytes(encoded)])
    save(data, tmp_path / "a")
    if transformed:
        (scan,) = scans.read(tmp_path)
        np.testing.assert_array_equal(scan.array[:, :, 0], shown.swapaxes(0, 1))
    else:
        with pytest.raises(MedloraError, match="UnknownPixelFormat"):
            scans.read(tmp_path)


def test_lossy_cells_that_shoot_over_their_bits_are_cut_off_there(tmp_path):
    """A stream of 12 bits under ten: what is above them is no overlay, but the codec's error."""
    stored = smooth(high=1100)
    encoded = imagecodecs.jpeg2k_encode(
        stored.astype("u2"), level=40, reversible=False, codecformat="j2k", bitspersample=12
    )
    decoded = imagecodecs.jpeg2k_decode(encoded).astype(int)
    assert decoded.max() > 1023
    data = image(stored, MR, "1.2.840.10008.1.2.4.91", stored=10, PixelData=encapsulate([bytes(encoded)]), **PLACE)
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[:, :, 0].T, np.minimum(decoded, 1023))
    assert Code.UnusedBitsSet in [issue.code for issue in scan.issues]


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422", "RGB"])
def test_a_component_transform_stands_with_its_own_names_or_rgb_alone(tmp_path, photometric):
    """PS3.5 8.2.4: Photometric Interpretation is YBR_RCT or YBR_ICT with a multiple component transformation. Under
    YBR_FULL a red of 200 would come out as a green of 255: 200 of Y and no blue or red are that, turned once more."""
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    encoded = imagecodecs.jpeg2k_encode(red, level=0, reversible=True, codecformat="j2k", mct=True)
    data = image(red, SC, stored=8, SamplesPerPixel=3, PhotometricInterpretation=photometric, PlanarConfiguration=0)
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.90")
    data.PixelData = encapsulate([encoded])
    data["PixelData"].is_undefined_length = True
    save(data, tmp_path / "a")
    if photometric == "RGB":
        assert scans.read(tmp_path)[0].array[3, 4, 0].tolist() == [200, 0, 0]
        return
    with pytest.raises(MedloraError, match=f"{photometric}, but the codestream is transformed"):
        scans.read(tmp_path)

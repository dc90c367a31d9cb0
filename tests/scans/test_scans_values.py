"""Stored cells → values: expected numbers are worked out by hand from PS3.3 C.7.6.3, C.11.1 and PS3.5 8."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from make_dicom import AXIAL, CR, CT, DX, MR, PET, SC, axial, image, picture, save, series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code, Issue
from medlora.scans.values import Rescale
from medlora.transforms import MR as PRESET

PLACE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}


def loaded(path):
    found = scans.read(path)
    assert len(found) == 1 and not found.excluded
    return found[0]


def rows(scan):
    """The only slice, rows first."""
    assert scan.shape[2] == 1
    return scan.to_numpy("zyx")[0]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [False, True])
def test_native_transfer_syntaxes(tmp_path, syntax, signed):
    stored = picture(low=-1000 if signed else 0)
    save(image(stored, syntax=syntax, signed=signed, **PLACE), tmp_path / "a")
    scan = loaded(tmp_path)
    np.testing.assert_array_equal(rows(scan), stored - 1024)
    assert scan.issues == ()


def test_no_preamble_and_no_file_meta(tmp_path):
    stored = picture()
    path = save(image(stored, syntax=ImplicitVRLittleEndian, **PLACE), tmp_path / "a")
    whole = path.read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")  # the group length counts from after itself
    path.write_bytes(whole[start:])
    np.testing.assert_array_equal(rows(loaded(tmp_path)), stored - 1024)
    assert loaded(tmp_path).issues == ()
    save(image(stored << 4 | 5, CT, stored=16, **PLACE, BitsStored=12, HighBit=15), tmp_path / "a")
    np.testing.assert_array_equal(rows(loaded(tmp_path)), stored - 1024)
    assert [issue.code for issue in loaded(tmp_path).issues] == [Code.UnusedBitsSet]


def test_no_frames_said_of_a_single_image_is_one(tmp_path):
    stored = series(tmp_path, axial(3), NumberOfFrames=0)
    np.testing.assert_array_equal(loaded(tmp_path).array, stored - 1024)


@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_in_sixteen_with_dirty_high_bits(tmp_path, signed):
    values = np.arange(-2048, 2048, 21)[:192].reshape(12, 16) if signed else picture(high=4096)
    clean = values & 0x0FFF
    dirty = clean | (picture(seed=5, low=1, high=15) << 12)
    save(image(clean, CT, stored=12, signed=False, **PLACE, PixelRepresentation=int(signed)), tmp_path / "clean" / "a")
    save(image(dirty, CT, stored=12, signed=False, **PLACE, PixelRepresentation=int(signed)), tmp_path / "dirty" / "a")
    extended = image(values, CT, stored=12, signed=True, **PLACE, PixelRepresentation=int(signed))
    save(extended, tmp_path / "extended" / "a")
    np.testing.assert_array_equal(rows(loaded(tmp_path / "clean")), values - 1024)
    np.testing.assert_array_equal(rows(loaded(tmp_path / "extended")), values - 1024)
    scan = loaded(tmp_path / "dirty")
    np.testing.assert_array_equal(rows(scan), values - 1024)
    assert [issue.code for issue in scan.issues] == [Code.UnusedBitsSet]
    assert loaded(tmp_path / "clean").issues == loaded(tmp_path / "extended").issues == ()


def test_high_bit_above_the_stored_bits(tmp_path):
    stored = picture(high=4096)
    save(image(stored << 4, CT, stored=16, **PLACE, BitsStored=12, HighBit=15), tmp_path / "a")
    np.testing.assert_array_equal(rows(loaded(tmp_path)), stored - 1024)


@pytest.mark.parametrize("wrong", [{"HighBit": 3}, {"BitsStored": 20, "HighBit": 19}, {"RescaleSlope": 0}])
def test_contradicting_bits_and_scaling_are_refused(tmp_path, wrong):
    path = save(image(picture(), **(PLACE | wrong)), tmp_path / "a")
    with pytest.raises(scans.ScanError) as error:
        scans.survey(path).scans[0].load()
    assert error.value.code is Code.UnknownPixelFormat


def test_rescale_differs_per_slice_as_in_pet(tmp_path):
    slopes = [0.5, 1.25, 3.75]
    each = [{"RescaleSlope": s, "RescaleIntercept": 0} for s in slopes]
    volume = series(tmp_path, axial(3), sop_class=PET, each=each, Units="BQML", PhotometricInterpretation="MONOCHROME1")
    scan = loaded(tmp_path)
    # MONOCHROME1 is how PET is shown, not what was measured.
    np.testing.assert_array_equal(scan.array, (volume * np.array(slopes)).astype(np.float32))
    assert not scan.inverted and scan.issues == () and scan.header["Units"] == "BQML"


def test_modality_lut(tmp_path):
    item = Dataset()
    item.LUTDescriptor = [8, 100, 16]
    item.ModalityLUTType = "HU"
    table = [0, 10, 30, 70, 150, 310, 630, 65535]
    item.LUTData = np.array(table, "<u2").tobytes()
    item["LUTData"].VR, item["LUTDescriptor"].VR = "OW", "US"
    stored = np.array([[0, 99, 100, 101], [104, 107, 108, 4000]])
    save(image(stored, ModalityLUTSequence=[item], RescaleSlope=None, RescaleIntercept=None, **PLACE), tmp_path / "a")
    scan = loaded(tmp_path)
    # Values before the first and after the last entry map to the first and the last (C.11.1.1).
    np.testing.assert_array_equal(rows(scan), [[0, 0, 0, 10], [150, 65535, 65535, 65535]])
    assert scan.issues == ()


def test_modality_lut_of_a_monochrome1_radiograph_is_turned_after_the_table(tmp_path):
    """MONOCHROME1 says how the values that come out of the table are shown (PS3.3 C.11.1, C.7.6.3.1.2)."""
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [8, 0, 16], "US"
    table = np.array([0, 1, 3, 7, 15, 31, 63, 127])
    item.LUTData = table.astype("<u2").tobytes()
    item["LUTData"].VR, item["LUTDescriptor"].VR = "OW", "US"
    stored = np.arange(8).reshape(2, 4)
    elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 30.0, "WindowWidth": 10.0}
    save(image(stored, CR, stored=12, ModalityLUTSequence=[item], **elements), tmp_path / "a")
    scan = loaded(tmp_path)
    np.testing.assert_array_equal(rows(scan), 127 - table[stored])
    assert scan.windows == ((97.0, 10.0),)


@pytest.mark.parametrize(("sop_class", "each", "detail"), [
    (CT, [{}, {"RescaleIntercept": None}, {}], "no RescaleIntercept in 1 of 3"),
    (MR, [{"RescaleSlope": 2, "RescaleIntercept": 0}, {}, {"RescaleSlope": 2, "RescaleIntercept": 0}],
     "no RescaleSlope and no RescaleIntercept in 1 of 3"),
    (PET, [{}] * 3, "no RescaleSlope and no RescaleIntercept in 3 of 3"),
    (CT, [{"RescaleType": "MGML"}] * 3, "a CT whose Rescale Type is not HU"),
    (CT, [{"PixelPresentation": "COLOR"}] * 3, "stored values beyond those of the grey range stand for colours"),
])  # fmt: skip
def test_slices_whose_units_are_not_said_are_flagged(tmp_path, sop_class, each, detail):
    series(tmp_path, axial(3), sop_class=sop_class, each=each)
    assert [str(issue) for issue in loaded(tmp_path).issues] == [str(scans.Issue(Code.UnknownUnits, detail))]


def test_units_that_change_within_a_series_are_flagged(tmp_path):
    each = [{"Units": unit, "RescaleSlope": 1, "RescaleIntercept": 0} for unit in ("BQML", "BQML", "CNTS")]
    series(tmp_path, axial(3), sop_class=PET, each=each)
    assert [(issue.code, issue.detail) for issue in loaded(tmp_path).issues] == [(Code.MixedSlices, "Units")]


def test_dose_without_scaling_or_without_places_is_flagged(tmp_path):
    dose = picture(3 * 12, 16).reshape(3, 12, 16)
    elements = {"Modality": "RTDOSE", **PLACE}
    save(image(dose, "1.2.840.10008.5.1.4.1.1.481.2", DoseGridScaling=1e-5, **elements), tmp_path / "places" / "a")
    save(
        image(dose, "1.2.840.10008.5.1.4.1.1.481.2", GridFrameOffsetVector=[0, 3, 6], **elements), tmp_path / "b" / "b"
    )
    assert [issue.code for issue in loaded(tmp_path / "places").issues] == [Code.NoGeometry]
    assert [issue.code for issue in loaded(tmp_path / "b").issues] == [Code.UnknownUnits]


def test_dose_grid_scaling_and_planes(tmp_path):
    dose = picture(3 * 12, 16).reshape(3, 12, 16) * 100000
    save(
        image(dose, "1.2.840.10008.5.1.4.1.1.481.2", stored=32, Modality="RTDOSE", DoseGridScaling=1e-5,
              GridFrameOffsetVector=[0, 3, 6], FrameIncrementPointer=0x3004000C, **PLACE), tmp_path / "a")  # fmt: skip
    scan = loaded(tmp_path)
    np.testing.assert_allclose(scan.to_numpy("zyx"), dose * 1e-5, rtol=1e-7)
    np.testing.assert_allclose(scan.affine, np.diag([-1, -1, 3, 1]))


def test_padding_stays_as_rescaled(tmp_path):
    stored = picture(low=-1000)
    stored[:3] = -2000
    save(image(stored, signed=True, PixelPaddingValue=-2000, **PLACE), tmp_path / "a")
    scan = loaded(tmp_path)
    assert (rows(scan)[:3] == -3024).all() and scan.header["PixelPaddingValue"] == -2000 and scan.issues == ()


def test_ct_without_rescale_is_not_taken_for_hounsfield(tmp_path):
    save(image(picture(), RescaleSlope=None, RescaleIntercept=None, **PLACE), tmp_path / "a")
    assert [issue.code for issue in loaded(tmp_path).issues] == [Code.UnknownUnits]


@pytest.mark.parametrize("sop_class", [DX, CR])
def test_monochrome1_radiograph_is_turned_within_the_stored_range(tmp_path, sop_class):
    stored = picture(high=4096)
    bright = {"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "IDENTITY"}
    dark = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    common = {"stored": 12, "ImagerPixelSpacing": [0.2, 0.1], "WindowWidth": 1000.0}
    save(image(stored, sop_class, WindowCenter=3000.0, **common, **bright), tmp_path / "b")
    save(image(4095 - stored, sop_class, WindowCenter=1095.0, **common, **dark), tmp_path / "d")
    found = scans.read(tmp_path)
    assert len(found) == 2  # two instances of one series, each a scan
    for scan in found:
        np.testing.assert_array_equal(rows(scan), stored)
        assert scan.issues == () and scan.windows == ((3000.0, 1000.0),)
        np.testing.assert_allclose(scan.affine, np.diag([-0.1, -0.2, 1, 1]))
    assert sorted(scan.inverted for scan in found) == [False, True]


def test_signed_monochrome1(tmp_path):
    stored = picture(low=-128, high=128)
    save(image(stored, DX, stored=8, signed=True, PhotometricInterpretation="MONOCHROME1"), tmp_path / "a")
    np.testing.assert_array_equal(rows(loaded(tmp_path)), -1 - stored)


def test_ct_monochrome1_keeps_hounsfield(tmp_path):
    stored = picture()
    save(image(stored, CT, PhotometricInterpretation="MONOCHROME1", **PLACE), tmp_path / "a")
    np.testing.assert_array_equal(rows(loaded(tmp_path)), stored - 1024)


@pytest.mark.parametrize(("sign", "inverted"), [(1, True), (-1, False)])
def test_for_processing_follows_the_intensity_sign_and_is_flagged(tmp_path, sign, inverted):
    stored = picture(high=4096)
    save(
        image(stored, DX, stored=12, PresentationIntentType="FOR PROCESSING", PixelIntensityRelationship="LIN",
              PixelIntensityRelationshipSign=sign), tmp_path / "a")  # fmt: skip
    scan = loaded(tmp_path)
    np.testing.assert_array_equal(rows(scan), 4095 - stored if inverted else stored)
    assert [issue.code for issue in scan.issues] == [Code.ForProcessing]


def test_pixels_that_are_not_square_without_a_spacing(tmp_path):
    """PS3.3 C.7.6.3.1.7: vertical to horizontal size of a pixel."""
    save(image(picture(), DX, PixelAspectRatio=[2, 1]), tmp_path / "a")
    assert loaded(tmp_path).spacing == (1.0, 2.0, 1.0)


@pytest.mark.parametrize("written", [-3.0, 0.0])
def test_a_single_slice_is_as_thick_as_said_whatever_the_sign(tmp_path, written):
    """PS3.3 C.8.4.15: the sign of Spacing Between Slices is a direction."""
    save(image(picture(), MR, SpacingBetweenSlices=written, SliceThickness=2.0, **PLACE), tmp_path / "a")
    assert loaded(tmp_path).spacing == (1.0, 1.0, abs(written) or 2.0)


def test_tiles_of_a_whole_slide_are_no_slices(tmp_path):
    tiles = picture(4 * 12, 16, high=256).reshape(4, 12, 16)
    save(image(tiles, "1.2.840.10008.5.1.4.1.1.77.1.6", stored=8, Modality="SM"), tmp_path / "a")
    assert [e.code for e in scans.survey(tmp_path).excluded] == [Code.UnknownPixelFormat]


def test_contradicting_polarity_is_flagged(tmp_path):
    save(image(picture(), DX, PresentationLUTShape="INVERSE"), tmp_path / "a")
    assert [issue.code for issue in loaded(tmp_path).issues] == [Code.ConflictingPolarity]


def test_view_laterality_and_burned_in_annotation(tmp_path):
    save(image(picture(), DX, ViewPosition="LL", ImageLaterality="L", BurnedInAnnotation="YES"), tmp_path / "a")
    scan = loaded(tmp_path)
    assert scan.header["ViewPosition"] == "LL" and scan.header["ImageLaterality"] == "L"
    assert [issue.code for issue in scan.issues] == [Code.BurnedInAnnotation]


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_both_planar_configurations(tmp_path, planar):
    colours = np.stack([picture(seed=k, high=256) for k in range(3)], axis=-1)
    data = image(colours, SC, stored=8, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=planar)
    if planar:
        data.PixelData = np.moveaxis(colours, -1, 0).astype("u1").tobytes()
    save(data, tmp_path / "a")
    scan = loaded(tmp_path)
    np.testing.assert_array_equal(scan.array[:, :, 0], colours.transpose(1, 0, 2))


def test_ybr_full_and_422(tmp_path):
    # Y, Cb, Cr of pure red, green, blue and mid grey by the equation of C.7.6.3.1.2, rounded.
    full = np.array([[76, 85, 255], [150, 44, 21], [29, 255, 107], [128, 128, 128]])
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]])
    kind = {"stored": 8, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    save(image(full[None], SC, PhotometricInterpretation="YBR_FULL", **kind), tmp_path / "full" / "a")
    np.testing.assert_allclose(loaded(tmp_path / "full").array[:, 0, 0], rgb, atol=2)
    pairs = np.repeat(full, 2, axis=0)[None]
    data = image(pairs, SC, PhotometricInterpretation="YBR_FULL_422", **kind)
    data.PixelData = np.array([[y, y, cb, cr] for y, cb, cr in full], "u1").tobytes()
    save(data, tmp_path / "422" / "a")
    np.testing.assert_allclose(loaded(tmp_path / "422").array[:, 0, 0], np.repeat(rgb, 2, axis=0), atol=2)


def test_palette_colour(tmp_path):
    stored = np.array([[0, 1, 2, 3]])
    data = image(stored, SC, stored=8, PhotometricInterpretation="PALETTE COLOR")
    for name, entries in (("Red", [0, 65280, 0, 0]), ("Green", [0, 0, 65280, 0]), ("Blue", [0, 0, 0, 65280])):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", np.array(entries, "<u2").tobytes())
    save(data, tmp_path / "a")
    np.testing.assert_array_equal(loaded(tmp_path).array[:, 0, 0], [[0, 0, 0], *(np.eye(3) * 65280)])


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_float_pixels(tmp_path, keyword, dtype):
    values = np.random.default_rng(0).normal(size=(12, 16)).astype(dtype)
    data = image(picture(), "1.2.840.10008.5.1.4.1.1.30", Modality="MR", PixelData=None, **PLACE)
    del data.BitsStored, data.HighBit, data.PixelRepresentation
    data.BitsAllocated = values.itemsize * 8
    setattr(data, keyword, values.tobytes())
    save(data, tmp_path / "a")
    np.testing.assert_array_equal(rows(loaded(tmp_path)), values.astype(np.float32))


def test_an_unreadable_number_is_not_passed_over(tmp_path):
    data = image(picture(), MR, **PLACE)
    path = save(data, tmp_path / "a")
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"\x28\0\x30\0DS") + 8] = ord("x")  # the first digit of Pixel Spacing
    path.write_bytes(whole)
    found = scans.survey(path)
    assert found.scans == [] and found.excluded[0].code is Code.DamagedHeader


def test_header_cannot_claim_more_memory_than_the_file_can_justify(tmp_path):
    import pydicom

    path = save(image(picture(), CT, **PLACE), tmp_path / "a")
    data = pydicom.dcmread(path)
    data.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    data.Rows = data.Columns = 65535
    save(data, path)
    assert [e.code for e in scans.survey(path).excluded] == [Code.TooLarge]


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_voi_lut_table_proposes_the_range_it_maps(tmp_path, photometric):
    item = Dataset()
    item.LUTDescriptor = [1000, 500, 16]
    item.LUTData = np.arange(1000, dtype="<u2").tobytes()
    item["LUTData"].VR, item["LUTDescriptor"].VR = "OW", "US"
    save(image(picture(), DX, stored=12, VOILUTSequence=[item], PhotometricInterpretation=photometric), tmp_path / "a")
    centre = 1000.0 if photometric == "MONOCHROME2" else 4095 - 1000.0
    assert loaded(tmp_path).windows == ((centre, 1000.0),)


def test_colours_are_not_rescaled(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3))
    about = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "Modality": "CT"}
    save(image(colours, SC, stored=8, RescaleSlope=1, RescaleIntercept=-1024, **about), tmp_path / "a.dcm")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[:, :, 0].transpose(1, 0, 2), colours)


def test_voxels_that_are_no_number_are_said_and_no_network_sees_them(tmp_path):
    """NaN around a skull-stripped brain, an infinity, and a double that float32 cannot hold."""
    stored = np.random.default_rng(0).normal(100, 20, (24, 20, 9))
    stored[0, 0, :4], stored[1, 1, 0], stored[2, 2, 0] = np.nan, np.inf, 1e300
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "brain.nii.gz")
    (scan,) = scans.read(tmp_path)
    assert scan.issues == (Issue(Code.NonFiniteValues, "6 of 4320"),)
    assert np.isnan(scan.array[0, 0, :4]).all() and np.isinf(scan.array[1, 1, 0]) and np.isinf(scan.array[2, 2, 0])
    prepare = PRESET(48, (0.5,) * 3, (0.25,) * 3).preparation()
    lowest = np.where(np.isfinite(scan.array), scan.array, stored[np.isfinite(stored)].min().astype(np.float32))
    image = prepare(replace(scan, modality="MR"))
    assert torch.equal(image, prepare(replace(scan, modality="MR", array=lowest, issues=())))
    assert torch.isfinite(image).all()


def test_a_dicom_of_floats_may_hold_nan(tmp_path):
    data = image(picture(), MR, PixelData=None, **PLACE)
    del data.BitsStored, data.HighBit, data.PixelRepresentation
    data.BitsAllocated = 32
    values = picture().astype("<f4")
    values[3, 5] = np.nan
    data.FloatPixelData = values.tobytes()
    save(data, tmp_path / "a.dcm")
    scan = loaded(tmp_path)
    assert Issue(Code.NonFiniteValues, "1 of 192") in scan.issues and np.isnan(scan.array[5, 3, 0])


@pytest.mark.parametrize("empty", [True, False])
def test_a_slope_of_zero_is_that_of_an_empty_slice(tmp_path, empty):
    """PET is scaled slice by slice to its own maximum."""
    pixels = [np.zeros((12, 16), int) if k == 2 and empty else picture(seed=k) for k in range(4)]
    for k, stored in enumerate(pixels):
        place = {**PLACE, "ImagePositionPatient": [0, 0, 3 * k], "InstanceNumber": k + 1}
        slope = {"RescaleSlope": 0 if k == 2 else 2, "RescaleIntercept": 0, "Units": "BQML"}
        save(image(stored, PET, **place, **slope), tmp_path / f"{k}")
    if empty:
        np.testing.assert_array_equal(loaded(tmp_path).array, np.stack(pixels, axis=-1).swapaxes(0, 1) * 2.0)
    else:
        with pytest.raises(MedloraError, match=r"UnknownPixelFormat.*slice 3 of 4"):
            scans.read(tmp_path)


@pytest.mark.parametrize("falls", [True, False])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_falling_voi_lut_is_said(tmp_path, falls, photometric):
    """dcmj2pnm then shows high values dark (PS3.3 C.11.2.1.1)."""
    data = image(picture(high=4096), DX, stored=12, PhotometricInterpretation=photometric)
    table = np.arange(4096, dtype="<u2")
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], (table[::-1] if falls else table).tobytes()
    data.VOILUTSequence = [item]
    data.VOILUTSequence[0]["LUTData"].VR = "OW"
    save(data, tmp_path / "a")
    codes = [issue.code for issue in loaded(tmp_path).issues]
    assert (Code.ConflictingPolarity in codes) is falls


def test_the_byte_that_makes_a_table_even_is_none_of_its_entries(tmp_path):
    data = image(picture(high=256), DX, stored=8)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [255, 0, 8], bytes([*range(1, 256), 0])
    data.VOILUTSequence = [item]
    data.VOILUTSequence[0]["LUTData"].VR = "OW"
    save(data, tmp_path / "a")
    assert loaded(tmp_path).issues == ()


def test_lossy_cells_are_cut_off_at_both_ends_of_signed_bits():
    scale = Rescale(1.0, 0.0, None, (12, 11, True), False, lossy=True)
    clean, stray = scale.integers(np.array([[2050, -2100, 7]], np.int16))
    assert clean.tolist() == [[2047, -2048, 7]] and stray


@pytest.mark.parametrize("kind", ["one bit", "YBR_FULL_422"])
def test_bytes_of_big_endian_words_lie_in_swapped_pairs(tmp_path, kind):
    """PS3.5 A.3: OW there; the same in OB does not. The little-endian twin says what is right."""
    if kind == "one bit":
        data = image(picture(12, 16, high=2), SC, stored=1, BitsAllocated=1, BitsStored=1, HighBit=0)
        pixels = np.packbits(picture(12, 16, high=2).astype(bool).ravel(), bitorder="little").tobytes()
    else:
        data = image(picture(8, 8), SC, stored=8, SamplesPerPixel=3, PlanarConfiguration=0)
        data.PhotometricInterpretation, pixels = kind, picture(8, 16, high=256).astype("u1").tobytes()
    twins = []
    for name, syntax, vr in (("little", "1.2.1", "OB"), ("ob", "1.2.2", "OB"), ("ow", "1.2.2", "OW")):
        data.file_meta.TransferSyntaxUID = f"1.2.840.10008.{syntax}"
        data.PixelData = np.frombuffer(pixels, "<u2").byteswap().tobytes() if vr == "OW" else pixels
        data["PixelData"].VR = vr
        (tmp_path / name).mkdir()
        pydicom.dcmwrite(
            tmp_path / name / "a", data, implicit_vr=False, little_endian=name == "little", enforce_file_format=True,
            overwrite=True,
        )  # fmt: skip
        twins.append(loaded(tmp_path / name).array)
    np.testing.assert_array_equal(twins[1], twins[0])
    np.testing.assert_array_equal(twins[2], twins[0])


def test_an_mr_without_rescale_is_scaled_by_its_real_world_value_mapping(tmp_path):
    """As the public example-dicom-functional (Philips), of which dcm2niix makes the same values."""
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 4095
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 5.0, 4.25
    stored = series(tmp_path / "a", axial(3), sop_class=MR, RealWorldValueMappingSequence=Sequence([mapping]))
    (scan,) = scans.read(tmp_path / "a")
    np.testing.assert_allclose(scan.array, stored * 4.25 + 5)
    other = deepcopy(mapping)  # a second scale for other stored values: the standard's identity stays
    other.RealWorldValueFirstValueMapped, other.RealWorldValueLastValueMapped = 4096, 65535
    stored = series(tmp_path / "b", axial(3), sop_class=MR, RealWorldValueMappingSequence=Sequence([mapping, other]))
    (scan,) = scans.read(tmp_path / "b")
    np.testing.assert_array_equal(scan.array, stored)


def test_a_modality_lut_that_was_never_filled_in_changes_nothing(tmp_path):
    """As the public leadtools-flowers-8-mono2-rle of dwv's tests: a template, all of whose elements are empty."""
    empty = Dataset()
    for word in ("LUTDescriptor", "LUTData"):
        empty.add_new(word, "US", None)
    pixels = picture()
    save(image(pixels, SC, ModalityLUTSequence=Sequence([empty])), tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.to_numpy("zyx")[0], pixels)

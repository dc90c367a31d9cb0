"""What archives hold that looks like something else; each was once read wrong, or refused, without need."""

from __future__ import annotations

import shutil
import struct
import subprocess
import warnings

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from highdicom import UID
from highdicom.pm import ParametricMap, RealWorldValueMapping
from make_dicom import AXIAL, MR, SC, axial, image, picture, save, series
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.sr.codedict import codes as terms

from medlora import scans
from medlora.scans import Code


def codes(scan) -> list[Code]:
    return [issue.code for issue in scan.issues]


def refusals(folder) -> list[Code]:
    return [excluded.code for excluded in scans.survey(folder).excluded]


@pytest.mark.parametrize(
    ("key", "word"),
    [("BinaryDataByteOrderMSB", "true"), ("ElementByteOrderMSB", "1"), ("CompressedData", "T")],
)
def test_metaimage_flags_are_told_by_their_first_character(tmp_path, key, word):
    voxels = np.random.default_rng(0).integers(-(2**15), 2**15, (4, 5, 6)).astype("<i2")
    compressed = key == "CompressedData"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), tmp_path / "a.mha", useCompression=compressed)
    head, mark, data = (tmp_path / "a.mha").read_bytes().partition(b"ElementDataFile = LOCAL\n")
    others = [
        line for line in head.split(b"\n") if line.split(b" ")[0] not in (b"BinaryDataByteOrderMSB", key.encode())
    ]
    written = data if compressed else voxels.astype(">i2").tobytes()
    (tmp_path / "a.mha").write_bytes(b"\n".join([*others[:-1], f"{key} = {word}".encode(), b""]) + mark + written)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "a.mha")), voxels)
    np.testing.assert_array_equal(scans.read(tmp_path)[0].to_numpy("zyx"), voxels)


@pytest.mark.parametrize("offset", [1.25, 0.7])
def test_two_acquisitions_between_each_other_are_two_volumes(tmp_path, offset):
    """Half a step apart they are one even stack, but for the instance numbers that are there twice."""
    for run in range(2):
        each = [{"SOPInstanceUID": f"1.2.{run}.{k}"} for k in range(6)]
        series(tmp_path / f"{run}", axial(6, start=(0, 0, offset * run)), each=each, AcquisitionNumber=run + 1)
    found = scans.read(tmp_path)
    assert [(scan.shape[2], codes(scan)) for scan in found] == [(6, [])] * 2


def test_two_stacks_of_one_file_between_each_other_are_two_volumes(tmp_path):
    data = image(np.stack([picture(seed=k) for k in range(8)]), "1.2.840.10008.5.1.4.1.1.4.1", Modality="MR")
    data.SharedFunctionalGroupsSequence = [Dataset()]
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness, orientation.ImageOrientationPatient = [1, 1], 2, list(AXIAL)
    data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [orientation]
    data.PerFrameFunctionalGroupsSequence = frames = [Dataset() for _ in range(8)]
    for k, frame in enumerate(frames):
        place, content = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 2 * (k % 4) + k // 4]
        content.StackID, content.InStackPositionNumber = f"{k // 4}", k % 4 + 1
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
    save(data, tmp_path / "a")
    assert [(scan.shape[2], codes(scan)) for scan in scans.read(tmp_path)] == [(4, [])] * 2


def test_slabs_that_are_numbered_anew_stay_one_volume(tmp_path):
    for slab in range(2):
        each = [{"SOPInstanceUID": f"1.2.{slab}.{k}"} for k in range(6)]
        series(tmp_path / f"{slab}", axial(6, start=(0, 0, 15.0 * slab)), each=each, AcquisitionNumber=slab + 1)
    assert [scan.shape[2] for scan in scans.read(tmp_path)] == [12]


@pytest.mark.parametrize("modality", ["XA", "MG"])
def test_slices_of_a_c_arm_are_a_volume(tmp_path, modality):
    series(tmp_path, axial(5), Modality=modality)
    (scan,) = scans.read(tmp_path)
    assert scan.shape[2] == 5 and scan.issues == ()


def test_scouts_of_one_direction_are_no_volume(tmp_path):
    series(tmp_path, axial(2, step=25.0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert [scan.shape[2] for scan in scans.read(tmp_path)] == [1, 1]


def test_colours_that_are_not_halved_are_refused(tmp_path):
    pixels = np.tile(np.uint8([90, 100, 160]), (12, 16, 1))
    about = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    save(image(pixels, SC, stored=8, **about), tmp_path / "a")
    assert refusals(tmp_path) == [Code.DamagedHeader]


def test_encapsulated_pixels_under_a_native_transfer_syntax_are_refused(tmp_path):
    data = image(picture(64, 64, high=255), SC, stored=8)
    data.compress("1.2.840.10008.1.2.5")
    path = save(data, tmp_path / "a")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0"))
    assert refusals(tmp_path) == [Code.DamagedHeader]


def test_a_parametric_map_has_the_values_that_it_maps_to(tmp_path):
    about = {
        "FrameOfReferenceUID": "1.2.77", "PositionReferenceIndicator": "", "SliceThickness": 2.5, "SeriesNumber": 1,
        "Manufacturer": "Maker", **dict.fromkeys(("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"), ""),
        **dict.fromkeys(("StudyDate", "StudyTime", "ReferringPhysicianName"), ""),
    }  # fmt: skip
    stored = series(tmp_path / "single", axial(4), sop_class=MR, **about)
    sources = [pydicom.dcmread(path) for path in sorted((tmp_path / "single").iterdir())]
    mapping = RealWorldValueMapping("1", "diffusion", terms.UCUM.NoUnits, [0, 4095], slope=1e-6, intercept=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ParametricMap(
            sources, stored.transpose(2, 1, 0).astype("u2"), UID(), 2, UID(), 1, "m", "m", "1", "1",
            contains_recognizable_visual_features=False, real_world_value_mappings=[mapping], window_center=1,
            window_width=1, content_label="MAP",
        ).save_as(tmp_path / "map.dcm")  # fmt: skip
    (scan,) = scans.read(tmp_path / "map.dcm")
    np.testing.assert_allclose(scan.array, stored * 1e-6 + 0.5, rtol=1e-6)
    assert scan.issues == ()


@pytest.mark.parametrize("kind", ["table", "ranges"])
def test_a_mapping_of_real_world_values_that_is_no_line_is_flagged(tmp_path, kind):
    table = [{"RealWorldValueLUTData": [float(v * v) for v in range(1000)]}]
    lines = [{"RealWorldValueSlope": slope, "RealWorldValueIntercept": 0.0} for slope in (1.0, 3.0)]
    mappings = []
    ends = [(0, 999)] if kind == "table" else [(0, 499), (500, 999)]
    for (first, last), mapping in zip(ends, table if kind == "table" else lines, strict=True):
        entry = Dataset()
        entry.add_new("RealWorldValueFirstValueMapped", "US", first)
        entry.add_new("RealWorldValueLastValueMapped", "US", last)
        for word, value in mapping.items():
            setattr(entry, word, value)
        mappings.append(entry)
    data = image(np.stack([picture(seed=k) for k in range(3)]), "1.2.840.10008.5.1.4.1.1.30", Modality="MR")
    shared = Dataset()
    shared.RealWorldValueMappingSequence = mappings
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [Dataset()], [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    data.SharedFunctionalGroupsSequence, frames = [shared], []
    for position in axial(3):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    save(data, tmp_path / "map.dcm")
    (scan,) = scans.read(tmp_path)
    assert codes(scan) == [Code.UnknownUnits]


def test_stray_bits_of_palette_indices_are_masked_away(tmp_path):
    dice = np.random.default_rng(0)
    palette, indices = dice.integers(0, 256, (3, 256)), dice.integers(0, 256, (12, 16))
    data = image(indices | 0x1000, SC, stored=8, allocated=16, PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in zip(("Red", "Green", "Blue"), palette, strict=True):
        word = f"{colour}PaletteColorLookupTable"
        data.add_new(f"{word}Descriptor", "US", [256, 0, 16])
        data.add_new(f"{word}Data", "OW", (entries * 257).astype("<u2").tobytes())
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[:, :, 0].transpose(1, 0, 2), palette.T[indices] * 257)
    assert codes(scan) == [Code.UnusedBitsSet]


def test_spacing_of_a_portal_image(tmp_path):
    rt_image = "1.2.840.10008.5.1.4.1.1.481.1"
    save(image(picture(), rt_image, Modality="RTIMAGE", ImagePlanePixelSpacing=[0.4, 0.3]), tmp_path / "a")
    np.testing.assert_allclose(np.abs(np.diag(scans.read(tmp_path)[0].affine))[:2], [0.3, 0.4])


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([(1, 3, 0.02, 0.03)], (0.3, 0.2)),
        ([(1, 3, 0.02, 0.03), (3, 4, 0.5, 0.01)], (0.3, 0.2)),  # the second is a spectrum: seconds, and cm/s
        ([(1, 3, 0.02, 0.03), (1, 3, 0.04, 0.04)], (1.0, 1.0)),
        ([(1, 0, 0.02, 0.03)], (1.0, 1.0)),
    ],
)
def test_spacing_of_an_ultrasound_image_is_that_of_its_regions(tmp_path, regions, expected):
    data = image(picture(), "1.2.840.10008.5.1.4.1.1.6.1", Modality="US")
    data.SequenceOfUltrasoundRegions = []
    for kind, unit, down, across in regions:
        region = Dataset()
        region.RegionSpatialFormat, region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = kind, unit, unit
        region.PhysicalDeltaX, region.PhysicalDeltaY = across, down
        data.SequenceOfUltrasoundRegions.append(region)
    save(data, tmp_path / "a")
    np.testing.assert_allclose(np.abs(np.diag(scans.read(tmp_path)[0].affine))[:2], expected)


def test_numbers_outrank_the_time_of_reconstruction(tmp_path):
    """Water and fat: numbered through one after the other, reconstructed in any order."""
    times = np.random.default_rng(3).permutation(12)
    each = [{"ContentTime": f"1200{second:02d}", "InstanceNumber": k + 1} for k, second in enumerate(times)]
    stored = series(tmp_path, [*axial(6), *axial(6)], sop_class=MR, each=each)
    first, second = scans.read(tmp_path)
    np.testing.assert_array_equal(first.array, stored[..., :6])
    np.testing.assert_array_equal(second.array, stored[..., 6:])
    assert codes(first) == codes(second) == [Code.InferredVolumes]


@pytest.mark.parametrize("lost", [1, 2])
def test_slices_without_a_position_are_missing_from_the_others(tmp_path, lost):
    each = [{} if k < 8 else {"ImagePositionPatient": None} for k in range(8 + lost)]
    series(tmp_path, axial(8 + lost), each=each)
    stack = max(scans.read(tmp_path), key=lambda scan: scan.shape[2])
    assert stack.shape[2] == 8 and codes(stack) == [Code.MissingSlices]


@pytest.mark.skipif(not shutil.which("dcmcjpeg"), reason="dcmtk is not installed")
def test_lossless_jpeg_in_ybr_as_dcmtk_decodes_it(tmp_path):
    rgb = np.sort(np.random.default_rng(0).integers(0, 256, (24, 32, 3)), axis=0).astype("u1")
    about = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0}
    save(image(convert_color_space(rgb, "RGB", "YBR_FULL"), SC, stored=8, **about), tmp_path / "plain")
    (tmp_path / "jpeg").mkdir()
    subprocess.run(["dcmcjpeg", "+e1", tmp_path / "plain", tmp_path / "jpeg" / "a"], check=True)
    subprocess.run(["dcmdjpeg", tmp_path / "jpeg" / "a", tmp_path / "decoded"], check=True)
    expected = pydicom.dcmread(tmp_path / "decoded").pixel_array.astype(int)
    found = scans.read(tmp_path / "jpeg")[0].array[:, :, 0].transpose(1, 0, 2)
    assert np.abs(found - expected).max() <= 1 and np.abs(found - rgb).max() <= 2


def test_a_mask_that_compresses_well_is_not_too_large(tmp_path):
    mask = np.zeros((512, 512, 300), np.uint8)
    mask[200:300, 200:300] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    assert 4 * mask.size > 500 * (tmp_path / "mask.nii.gz").stat().st_size  # as float32, which it becomes
    assert len(scans.survey(tmp_path).scans) == 1


def test_a_series_numbered_from_the_scouts_on_is_complete(tmp_path):
    first = {"SeriesInstanceUID": "1.2.3.1", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    series(tmp_path / "scouts", axial(2), each=[{"SOPInstanceUID": f"1.2.1.{k}"} for k in range(2)], **first)
    each = [{"SOPInstanceUID": f"1.2.2.{k}", "InstanceNumber": k + 3} for k in range(8)]
    series(tmp_path / "axial", axial(8), each=each, SeriesInstanceUID="1.2.3.2")
    assert [codes(scan) for scan in scans.read(tmp_path)] == [[], [], []]
    assert [codes(scan) for scan in scans.read(tmp_path / "axial")] == [[Code.MissingSlices]]  # there it is not known


def test_images_sent_again_under_a_corrected_name_are_copies(tmp_path):
    series(tmp_path / "a", axial(5))
    series(tmp_path / "b", axial(5), PatientName="Corrected^Name")
    assert [scan.shape[2] for scan in scans.read(tmp_path)] == [5]
    assert refusals(tmp_path) == [Code.DuplicateFile] * 5


def test_a_qform_that_is_none_does_not_spoil_the_sform(tmp_path):
    affine = np.diag([0.5, 0.5, 2, 1])
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 6, 7), "i2"), affine), tmp_path / "a.nii")
    whole = bytearray((tmp_path / "a.nii").read_bytes())
    whole[252:254], whole[256:260] = struct.pack("<h", 1), struct.pack("<f", 1.2)  # qform_code, quatern_b
    (tmp_path / "a.nii").write_bytes(whole)
    (scan,) = scans.read(tmp_path)
    np.testing.assert_allclose(scan.affine, nibabel.load(tmp_path / "a.nii").affine)
    assert codes(scan) == [Code.ConflictingGeometry]

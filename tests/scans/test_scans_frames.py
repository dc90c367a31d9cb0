"""Files of many planes: enhanced objects, mosaics, cines."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, MR, axial, image, picture, save, series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medlora import scans
from medlora.cohorts.selection import Selection
from medlora.scans import Code

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
LEGACY_CT = "1.2.840.10008.5.1.4.1.1.2.2"


def item(**elements) -> Dataset:
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def macro(**elements) -> Sequence:
    return Sequence([item(**elements)])


def enhanced(frames: np.ndarray, positions, path: Path, extra=None, shared=None, sop_class=ENHANCED_CT, **elements):
    """An enhanced object with positions per frame and the rest shared."""
    modality = "MR" if sop_class == ENHANCED_MR else "CT"
    data = image(frames, sop_class, Modality=modality, RescaleSlope=None, RescaleIntercept=None, **elements)
    if shared is None:
        shared = {
            "PlaneOrientationSequence": macro(ImageOrientationPatient=list(AXIAL)),
            "PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75], SliceThickness=1.0),
            "PixelValueTransformationSequence": macro(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
        }
    data.SharedFunctionalGroupsSequence = [item(**shared)]
    per_frame = []
    for k, position in enumerate(positions):
        groups = {} if position is None else {"PlanePositionSequence": macro(ImagePositionPatient=list(position))}
        per_frame.append(item(**groups, **((extra or [{}] * len(positions))[k])))
    data.PerFrameFunctionalGroupsSequence = per_frame
    return save(data, path)


def stack(count: int) -> np.ndarray:
    return np.stack([picture(seed=k) for k in range(count)])


@pytest.mark.parametrize("sop_class", [ENHANCED_CT, LEGACY_CT])
def test_frames_in_any_order_with_shared_groups(tmp_path, sop_class):
    order = [2, 0, 4, 1, 3]
    frames = stack(5)
    enhanced(frames[order], axial(5)[order], tmp_path / "a", sop_class=sop_class)
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.to_numpy("zyx"), frames - 1024)
    expected = np.diag([-0.75, -0.5, 2.5, 1])
    expected[:3, 3] = [100, 80, 30]
    np.testing.assert_allclose(scan.affine, expected)
    assert scan.issues == () and scan.header["SliceThickness"] == 1.0


@pytest.mark.parametrize("missing", [False, True])
def test_a_concatenation_is_one_volume(tmp_path, missing):
    """PS3.3 C.7.6.16.1.1: one object of five frames, sent as instances of two and three."""
    frames, positions = stack(5), axial(5)
    for number, part in enumerate((slice(0, 2), slice(2, 5)), 1):
        enhanced(
            frames[part], positions[part], tmp_path / f"{number}", SOPInstanceUID=f"1.2.3.{number}",
            ConcatenationUID="1.2.3.9", InConcatenationNumber=number, InConcatenationTotalNumber=2,
            ConcatenationFrameOffsetNumber=part.start, SOPInstanceUIDOfConcatenationSource="1.2.3.8",
        )  # fmt: skip
    if missing:
        (tmp_path / "1").unlink()
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.to_numpy("zyx"), frames[2 if missing else 0 :] - 1024)
    np.testing.assert_allclose(scan.affine[:3, 3], [100, 80, 35 if missing else 30])
    assert [issue.code for issue in scan.issues] == ([Code.MissingSlices] if missing else [])


def test_rescale_and_spacing_per_frame(tmp_path):
    frames = stack(3)
    slopes = [1.0, 2.0, 0.5]
    extra = [
        {
            "PixelValueTransformationSequence": macro(RescaleSlope=s, RescaleIntercept=k),
            "PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75]),
            "PlaneOrientationSequence": macro(ImageOrientationPatient=list(AXIAL)),
        }
        for k, s in enumerate(slopes)
    ]
    enhanced(frames, axial(3), tmp_path / "a", extra=extra, shared={})
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(
        scan.to_numpy("zyx"), frames * np.array(slopes)[:, None, None] + np.arange(3)[:, None, None]
    )


@pytest.mark.parametrize("kind", ["temporal", "echo", "diffusion", "stack"])
def test_4d_in_one_file_is_one_scan_per_volume(tmp_path, kind):
    frames = stack(6)
    positions = np.concatenate([axial(3), axial(3)])

    def group(t: int) -> dict:
        return {
            "temporal": {"FrameContentSequence": macro(TemporalPositionIndex=t + 1)},
            "echo": {"MREchoSequence": macro(EffectiveEchoTime=10.0 * (t + 1))},
            "diffusion": {"MRDiffusionSequence": macro(DiffusionBValue=1000.0 * t)},
            "stack": {"FrameContentSequence": macro(StackID=str(t + 1), InStackPositionNumber=1)},
        }[kind]

    interleaved = [0, 3, 1, 4, 2, 5]
    enhanced(
        frames[interleaved],
        positions[interleaved],
        tmp_path / "a",
        [group(k // 3) for k in interleaved],
        sop_class=ENHANCED_MR,
    )
    found = scans.read(tmp_path)
    assert [scan.shape for scan in found] == [(16, 12, 3)] * 2
    assert len({scan.scan_id for scan in found}) == 2 and all(scan.issues == () for scan in found)
    volumes = [scan.to_numpy("zyx") for scan in found]
    for expected in (frames[:3] - 1024, frames[3:] - 1024):
        assert sum(np.array_equal(volume, expected) for volume in volumes) == 1


@pytest.mark.parametrize("placed", [[], [0], [1, 2]])
def test_enhanced_without_geometry_is_flagged(tmp_path, placed):
    frames = stack(4)
    extra = [{"PlaneOrientationSequence": macro(ImageOrientationPatient=list(AXIAL))} if placed else {}] * 4
    enhanced(frames, [axial(4)[k] if k in placed else None for k in range(4)], tmp_path / "a", extra, shared={})
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.to_numpy("zyx"), frames)
    assert Code.NoGeometry in [issue.code for issue in scan.issues]


def test_fewer_groups_than_frames_is_damage(tmp_path):
    enhanced(stack(4), axial(3), tmp_path / "a")
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.DamagedHeader]


def test_frames_of_a_cine_stay_one_scan(tmp_path):
    frames = stack(4)
    save(image(frames, "1.2.840.10008.5.1.4.1.1.12.1", Modality="XA"), tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.to_numpy("zyx"), frames)


def nicom(name: str) -> bytes:
    return gzip.decompress((Path(nibabel.__file__).parent / "nicom" / "tests" / "data" / name).read_bytes())


@pytest.mark.parametrize("name", ["siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz"])
def test_real_siemens_mosaic_as_nibabel_reads_it(tmp_path, name):
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    (tmp_path / "mosaic.dcm").write_bytes(nicom(name))
    wrapper = wrapper_from_file(tmp_path / "mosaic.dcm")
    (scan,) = scans.read(tmp_path)
    # nibabel indexes (row, column, slice) and gives LPS; here it is (column, row, slice) and RAS.
    expected = np.asarray(wrapper.get_data(), np.float32).transpose(1, 0, 2)
    affine = np.diag([-1, -1, 1, 1]) @ wrapper.affine[:, [1, 0, 2, 3]]
    np.testing.assert_array_equal(scan.array, expected)
    # nibabel takes the cosines of six digits as they are, dcm2niix and medlora make them of length one: 0.2
    # micrometres here.
    np.testing.assert_allclose(scan.affine, affine, atol=5e-4)
    assert scan.issues == ()


def test_a_mosaic_that_does_not_say_its_layout_is_refused(tmp_path):
    save(
        image(picture(16, 16), "1.2.840.10008.5.1.4.1.1.4", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
              ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1],
              SliceThickness=2), tmp_path / "a")  # fmt: skip
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.UnknownMosaic]


@pytest.mark.parametrize("where", ["ImageType", "FrameType", "ImageTypeText"])
def test_a_mosaic_in_an_enhanced_file_of_one_frame_is_refused_by_name(tmp_path, where):
    frame = {}
    if where == "FrameType":
        frame = {"MRImageFrameTypeSequence": macro(FrameType=["ORIGINAL", "PRIMARY", "FMRI", "MOSAIC"])}
    if where == "ImageTypeText":  # Siemens XA names it in a private element of the frame alone
        private = item()
        block = private.private_block(0x0021, "SIEMENS MR SDI 02", create=True)
        block.add_new(0x75, "CS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
        outer = item()
        outer.private_block(0x0021, "SIEMENS MR SDI 02", create=True).add_new(0xFE, "SQ", [private])
        frame = {"MRImageFrameTypeSequence": macro(FrameType=["ORIGINAL", "PRIMARY", "FMRI", "NONE"])}
    types = {"ImageType": ["ORIGINAL", "PRIMARY", "FMRI", "MOSAIC" if where == "ImageType" else "NONE"]}
    path = enhanced(stack(1), axial(1), tmp_path / "one.dcm", [frame], sop_class=ENHANCED_MR, **types)
    if where == "ImageTypeText":
        data = pydicom.dcmread(path)
        data.PerFrameFunctionalGroupsSequence[0].update(outer)
        save(data, path)
    assert [excluded.code for excluded in scans.survey(tmp_path).excluded] == [Code.UnknownMosaic]
    # Software has parted the tiles of a file with many frames, and may have kept the word.
    several = tmp_path / "several"
    enhanced(stack(3), axial(3), several / "a.dcm", [frame] * 3, sop_class=ENHANCED_MR, **types)
    assert [scan.array.shape[2] for scan in scans.read(several)] == [3]


@pytest.mark.parametrize(
    ("lost", "detail"),
    [((7,), "1 of the files"), ((0, 1), "the first 2"), ((1, 3, 5, 7), "1 of 2, by Instance Number")],
)
def test_slices_lost_of_files_with_one_frame_each_are_said(tmp_path, lost, detail):
    for k, position in enumerate(axial(8)):
        if k in lost and k != 7:
            continue
        about = {"SOPInstanceUID": f"1.2.3.4.5.{k + 1}", "InstanceNumber": k + 1}
        thick = {"PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75], SliceThickness=2.5)}
        path = enhanced(picture(seed=k)[None], [position], tmp_path / f"{k}.dcm", [thick], **about)
        if k == 7 and k in lost:
            path.write_bytes(path.read_bytes()[:-60])
    if 7 in lost and len(lost) > 1:
        path.unlink()
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == [Code.MissingSlices]
    assert detail in scan.issues[0].detail


def test_a_file_of_one_frame_sent_twice_under_two_uids_is_no_slice(tmp_path):
    for k, position in enumerate([*axial(4), axial(4)[3]]):
        about = {"SOPInstanceUID": f"1.2.3.4.5.{k + 1}", "InstanceNumber": min(k, 3) + 1}
        enhanced(picture(seed=min(k, 3))[None], [position], tmp_path / f"{k}.dcm", **about)
    found = scans.survey(tmp_path)
    assert [excluded.code for excluded in found.excluded] == [Code.DuplicateFile]
    assert [scan.array.shape[2] for scan in scans.read(tmp_path)] == [4]


@pytest.mark.parametrize("frames", [(1,), (0, 1, 2)])
def test_an_unreadable_scale_of_a_frame_is_not_passed_over(tmp_path, frames):
    scales = [{"PixelValueTransformationSequence": macro(RescaleSlope="2.0", RescaleIntercept="0")} for _ in range(3)]
    path = enhanced(stack(3), axial(3), tmp_path / "a.dcm", scales, sop_class=ENHANCED_MR)
    pieces = path.read_bytes().split(b"2.0 ")
    assert len(pieces) == 4
    joints = [b"2,0 " if k in frames else b"2.0 " for k in range(3)]
    path.write_bytes(b"".join(piece + joint for piece, joint in zip(pieces, [*joints, b""], strict=True)))
    found = [(excluded.code, excluded.reason) for excluded in scans.survey(tmp_path).excluded]
    assert found == [(Code.DamagedHeader, "RescaleSlope")]


def test_a_damaged_element_beside_the_place_of_the_only_frame_does_no_harm(tmp_path):
    anatomy = item(FrameLaterality="R")
    anatomy.add_new("FrameAcquisitionDuration", "LO", "7 7777")
    path = enhanced(stack(1), axial(1), tmp_path / "a.dcm", [{"FrameAnatomySequence": Sequence([anatomy])}])
    path.write_bytes(path.read_bytes().replace(b"LO\x06\x007 7777", b"FD\x06\x007 7777"))  # no number of eight bytes
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[..., 0], picture(seed=0).T - 1024)


def _in_parts(tmp_path, parts, **more):
    """A concatenation (PS3.3 C.7.6.16.2.2.4): of each part its number and, of each frame, a value and a slice."""
    positions, before = axial(5), 0
    for number, frames in parts:
        enhanced(
            np.array([np.full((12, 16), value) for value, _ in frames]), positions[[k for _, k in frames]],
            tmp_path / f"{number}", SOPInstanceUID=f"1.2.3.{number}", ConcatenationUID="1.2.3.9",
            InConcatenationNumber=number, ConcatenationFrameOffsetNumber=before, **more,
        )  # fmt: skip
        before += len(frames)
    return [(scan.to_numpy("zyx")[:, 0, 0] + 1024, [i.code for i in scan.issues]) for scan in scans.read(tmp_path)]


@pytest.mark.parametrize(
    "parts",
    [
        [(1, [(10, 0), (11, 1), (12, 2), (20, 0)]), (2, [(21, 1), (22, 2)])],
        [(1, [(10, 0), (11, 1), (12, 2)]), (2, [(20, 0), (21, 1), (22, 2)])],
    ],
    ids=["across the seam", "at the seam"],
)
def test_frames_of_a_concatenation_are_numbered_through(tmp_path, parts):
    found = _in_parts(tmp_path, parts, InConcatenationTotalNumber=2)
    assert [values.tolist() for values, _ in found] == [[10, 11, 12], [20, 21, 22]]
    assert all(codes == [Code.InferredVolumes] for _, codes in found)


def test_a_lost_part_of_a_concatenation_is_known_by_the_numbers_alone(tmp_path):
    assert [codes for _, codes in _in_parts(tmp_path, [(2, [(13, 3), (14, 4)])])] == [[Code.MissingSlices]]


@pytest.mark.parametrize(("plane", "values"), [("axial", [0, 1, 2]), ("coronal", [3, 4, 5, 6])])
def test_the_plane_of_a_stack_is_that_of_its_own_frames(tmp_path, plane, values):
    """PS3.3 C.7.6.16.2.4: each frame of an enhanced file has its orientation."""
    coronal = np.array([-100.0, 0, 30]) + np.arange(4)[:, None] * np.array([0.0, 2.5, 0])
    positions = np.concatenate([axial(3), coronal])
    ways = [list(AXIAL)] * 3 + [[1, 0, 0, 0, 0, -1]] * 4
    extra = [{"PlaneOrientationSequence": macro(ImageOrientationPatient=way)} for way in ways]
    frames = np.array([np.full((12, 16), k) for k in range(7)])
    shared = {"PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75])}
    enhanced(frames, positions, tmp_path / "a", extra=extra, shared=shared)
    (scan,), _ = Selection.parse(f"plane={plane}").choose(scans.survey(tmp_path).scans)
    assert (scan.load().to_numpy("zyx")[:, 0, 0]).tolist() == values


def test_enhanced_angiography_has_its_pixel_size_in_a_macro_of_its_own(tmp_path):
    """PS3.3 C.8.19.6.4."""
    shared = {"FramePixelDataPropertiesSequence": macro(ImagerPixelSpacing=[0.15, 0.2])}
    path = enhanced(stack(3), [None] * 3, tmp_path / "a", shared=shared, sop_class="1.2.840.10008.5.1.4.1.1.12.1.1")
    data = pydicom.dcmread(path)
    data.Modality = "XA"
    data.save_as(path)
    (scan,) = scans.read(tmp_path)
    assert scan.spacing[:2] == pytest.approx((0.2, 0.15))


def test_a_parametric_map_without_a_mapping_has_no_known_units(tmp_path):
    geometry = {
        "PlaneOrientationSequence": macro(ImageOrientationPatient=list(AXIAL)),
        "PixelMeasuresSequence": macro(PixelSpacing=[0.5, 0.75], SliceThickness=1.0),
    }
    mapped = {"RealWorldValueMappingSequence": macro(RealWorldValueSlope=0.5, RealWorldValueIntercept=2.0)}
    for name, shared in (("with", geometry | mapped), ("without", geometry)):
        path = tmp_path / name / "a"
        enhanced(stack(3), axial(3), path, shared=shared, sop_class="1.2.840.10008.5.1.4.1.1.30")
        data = pydicom.dcmread(path)
        data.Modality = "MR"
        data.save_as(path)
        (scan,) = scans.read(tmp_path / name)
        assert [issue.code for issue in scan.issues] == ([] if name == "with" else [Code.UnknownUnits])


def test_a_united_imaging_mosaic_is_refused_by_name(tmp_path):
    """As of the public dcm_qa_uih: VFRAME in Image Type, the tiles' places in a private sequence."""
    data = image(picture(48, 64), "1.2.840.10008.5.1.4.1.1.4", ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])
    save(data, tmp_path / "a")
    assert [left.code for left in scans.survey(tmp_path).excluded] == [Code.UnknownMosaic]


def test_a_united_imaging_mosaic_is_parted_into_its_tiles(tmp_path):
    """As in the public dcm_qa_uih, 5 tiles across and 4 down, of which dcm2niix makes the same voxels and affine."""
    tiles = np.stack([picture(12, 16, seed=k) for k in range(5)])
    montage = np.zeros((24, 48), int)  # 3 across, 2 down; the last is empty
    for k, tile in enumerate(tiles):
        montage[k // 3 * 12 :, k % 3 * 16 :][:12, :16] = tile
    data = image(montage, "1.2.840.10008.5.1.4.1.1.4", ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])
    data.ImageOrientationPatient, data.PixelSpacing, data.SliceThickness = list(AXIAL), [2.0, 3.0], 4.0
    block = data.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x04, "SH", "12*16")
    block.add_new(0x50, "DS", "5")
    block.add_new(0x51, "SQ", Sequence([item(ImagePositionPatient=[10, 20, 30 + 4.5 * k]) for k in range(5)]))
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.to_numpy("zyx"), tiles)
    np.testing.assert_allclose(scan.affine, [[-3, 0, 0, -10], [0, -2, 0, -20], [0, 0, 4.5, 30], [0, 0, 0, 1]])
    assert scan.issues == ()


@pytest.mark.parametrize(
    ("mode", "turned"), [(0, [False, False]), (1, [True, True]), (2, [True, False]), (3, [False, True])]
)
def test_rows_that_ge_stores_in_reverse_are_set_right(tmp_path, mode, turned):
    """As of the public dcm_qa_polar, of which dcm2niix makes the same voxels and affines."""
    each = [{"TemporalPositionIdentifier": time} for time in (1, 2) for _ in range(4)]
    volume = series(tmp_path, [*axial(4), *axial(4)], sop_class=MR, each=each, InPlanePhaseEncodingDirection="COL")
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        block = data.private_block(0x0019, "GEMS_ACQU_01", create=True)
        block.add_new(0x9C, "LO", "research/ABCD/epi_pepolar")
        block.add_new(0xB3, "DS", str(mode))
        data.save_as(path)
    found = sorted(scans.read(tmp_path), key=lambda scan: scan.header["TemporalPositionIdentifier"])
    for scan, upside_down, stored in zip(found, turned, np.split(volume, 2, axis=2), strict=True):
        column, row, level = np.indices(stored.shape).reshape(3, -1)
        y = -80 + 0.5 * (11 - row if upside_down else row)  # LPS; the last of 12 rows is where the header has the first
        place = np.array([100 - 0.75 * column, -y, 30 + 2.5 * level, np.ones_like(y)])  # RAS
        x, y, z, _ = np.linalg.solve(scan.affine, place).round().astype(int)
        np.testing.assert_array_equal(scan.array[x, y, z], stored[column, row, level])
        said = [issue.detail for issue in scan.issues if issue.code is Code.ConflictingGeometry]
        assert bool(said) == upside_down


def test_rows_that_may_be_in_reverse_are_said(tmp_path):
    series(tmp_path, axial(3), sop_class=MR, SeriesDescription="epi_pepolar")  # the private elements are removed
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == [Code.ConflictingGeometry]

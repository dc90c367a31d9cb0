"""What looks whole and is not: half-arrived runs, damage that decoders pass over, headers that say too little."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, MR, SC, axial, image, picture, save, series
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code

PLACE = {"ImageOrientationPatient": list(AXIAL), "PixelSpacing": [0.5, 0.75], "SeriesInstanceUID": "2.25.7"}


def refusals(folder):
    """Why nothing in ``folder`` was read."""
    with pytest.raises(MedloraError) as caught:
        scans.read(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    "kinds",
    [
        [{"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}],
        [{"InversionTime": 900}, {"InversionTime": 2500}],
        [{"FlipAngle": 3}, {"FlipAngle": 15}],
        [{"DiffusionGradientOrientation": [1, 0, 0]}, {"DiffusionGradientOrientation": [0, 1, 0]}],
    ],
)
def test_half_a_run_of_which_each_position_is_there_once_is_said(tmp_path, kinds):
    series(tmp_path, axial(5), sop_class=MR, each=[kinds[0]] * 3 + [kinds[1]] * 2)
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == [Code.MixedSlices]
    assert next(iter(kinds[0])) in scan.issues[0].detail


def test_equal_stored_pixels_of_another_scale_are_no_copy(tmp_path):
    """PS3.3 C.11.1: the same cells times another slope are other values."""
    for slope in (1, 2):
        for k, position in enumerate(axial(4)):
            data = image(picture(seed=k), MR, ImagePositionPatient=position.tolist(), RescaleSlope=slope, **PLACE)
            data.RescaleIntercept, data.SOPInstanceUID = 0, f"2.25.{10 * slope + k}"
            save(data, tmp_path / f"{slope}-{k}")
    assert "DuplicatePosition" in refusals(tmp_path)  # nothing says which of the two volumes a slice belongs to


def test_pixels_of_more_frames_than_are_said_are_refused(tmp_path):
    """PS3.5 8.1.1: nothing but one byte of padding follows the cells."""
    data = image(picture(), MR)
    data.PixelData = data.PixelData * 3
    save(data, tmp_path / "a")
    assert "more frames" in refusals(tmp_path)


def test_a_mosaic_is_known_by_its_private_header_where_the_image_type_is_lost(tmp_path):
    packed = Path(nibabel.__file__).parent / "nicom" / "tests" / "data" / "siemens_dwi_0.dcm.gz"
    for name in ("whole", "lost"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mosaic.dcm").write_bytes(gzip.decompress(packed.read_bytes()))
    data = pydicom.dcmread(tmp_path / "lost" / "mosaic.dcm")
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.save_as(tmp_path / "lost" / "mosaic.dcm")
    (whole,), (lost,) = scans.read(tmp_path / "whole"), scans.read(tmp_path / "lost")
    np.testing.assert_array_equal(lost.array, whole.array)
    np.testing.assert_array_equal(lost.affine, whole.affine)


@pytest.mark.parametrize(("kind", "before"), [("", []), ("Segmented", [0, 4])])
def test_a_palette_follows_the_transfer_syntax(tmp_path, kind, before):
    """PS3.5 7.3: entries are words (OW), big-endian in such files; PS3.3 C.7.9.2: a discrete segment of four."""
    data = image(np.array([[0, 1, 2, 3]]), SC, ExplicitVRBigEndian, stored=8, PhotometricInterpretation="PALETTE COLOR")
    for name, entries in (("Red", [0, 0x1234, 0, 0]), ("Green", [0, 0, 0x1234, 0]), ("Blue", [0, 0, 0, 0x1234])):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(data, f"{kind}{name}PaletteColorLookupTableData", np.array(before + entries, ">u2").tobytes())
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[:, 0, 0], [[0, 0, 0], *(np.eye(3) * 0x1234)])


def test_any_flipped_bit_of_a_compressed_nifti_is_noticed(tmp_path):
    """RFC 1952: the checksum is over all that was compressed."""
    values = np.random.default_rng(0).normal(size=(16, 16, 8)).astype(np.float32)
    whole = gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())
    (tmp_path / "a.nii.gz").write_bytes(whole)
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array, values)
    for place in np.random.default_rng(1).integers(400, len(whole) - 4, 25):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "a.nii.gz").write_bytes(damaged)
        assert refusals(tmp_path)


def test_colours_of_a_flat_nifti_are_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    packed = colours.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(4, 5)
    nibabel.save(nibabel.Nifti1Image(packed, np.eye(4)), tmp_path / "a.nii")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[:, :, 0], colours)


def test_voxels_that_would_begin_within_the_header_are_refused(tmp_path):
    """nifti1.h: in a .nii vox_offset is 352 at least."""
    whole = bytearray(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)).to_bytes())
    struct.pack_into("<f", whole, 108, 0)
    (tmp_path / "a.nii").write_bytes(whole)
    assert "vox_offset 0" in refusals(tmp_path)


@pytest.mark.parametrize("said_by", ["time offset", "dimension index"])
def test_frames_in_any_order_are_parted_by_what_only_the_standard_macros_say(tmp_path, said_by):
    """PS3.3 C.7.6.16.2.2.6 (Temporal Position) and C.7.6.17 (Dimension Index Values)."""
    frames = np.stack([picture(seed=k) for k in range(6)])
    order = [3, 0, 1, 4, 5, 2]
    items = []
    for k in order:
        item, content = Dataset(), Dataset()
        if said_by == "time offset":
            content.TemporalPositionTimeOffset = float(k // 3)
            item.TemporalPositionSequence = [content]
        else:
            content.DimensionIndexValues = [1, k % 3 + 1, k // 3 + 1]
            item.FrameContentSequence = [content]
        place = Dataset()
        place.ImagePositionPatient = axial(3)[k % 3].tolist()
        item.PlanePositionSequence = [place]
        items.append(item)
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = list(AXIAL), [0.5, 0.75]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    data = image(frames[0], "1.2.840.10008.5.1.4.1.1.4.1")
    data.PixelData, data.NumberOfFrames = frames[order].astype("<u2").tobytes(), 6
    data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence = items, [shared]
    save(data, tmp_path / "a")
    found = scans.read(tmp_path)
    assert [scan.issues for scan in found] == [(), ()]
    volumes = [frames[3 * t : 3 * t + 3].transpose(2, 1, 0) for t in range(2)]
    hits = [[np.array_equal(scan.array, volume) for volume in volumes] for scan in found]
    assert sorted(hits) == [[False, True], [True, False]]


def test_a_cine_whose_slabs_have_trigger_times_of_their_own_is_one_volume_a_phase(tmp_path):
    positions = [place for place in axial(10) for _ in range(3)]
    times = [((0, 40, 80), (1, 42, 84))[k >= 5][t] for k in range(10) for t in range(3)]
    volume = series(tmp_path, positions, sop_class=MR, each=[{"TriggerTime": float(time)} for time in times])
    found = scans.read(tmp_path)
    assert [[issue.code for issue in scan.issues] for scan in found] == [[Code.InferredVolumes]] * 3
    hits = [[np.array_equal(scan.array, volume[:, :, t::3]) for t in range(3)] for scan in found]
    assert sorted(hits) == [[False, False, True], [False, True, False], [True, False, False]]

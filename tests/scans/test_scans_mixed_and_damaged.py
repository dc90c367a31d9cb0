"""What looks whole and is not: half-arrived runs, damage that decoders pass over, headers that say too little."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, MR, PET, SC, axial, image, picture, save, series
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code

DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
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


@pytest.mark.parametrize("said_by", ["time offset", "dimension index", "two dimensions"])
def test_frames_in_any_order_are_parted_by_what_only_the_standard_macros_say(tmp_path, said_by):
    """PS3.3 C.7.6.16.2.2.6 (Temporal Position) and C.7.6.17 (Dimension Index Values)."""
    runs = 4 if said_by == "two dimensions" else 2
    frames = np.stack([picture(seed=k) for k in range(3 * runs)])
    order = [3, 0, 1, 4, 5, 2, *range(11, 5, -1)][: 3 * runs]
    items = []
    for k in order:
        item, content = Dataset(), Dataset()
        if said_by == "time offset":
            content.TemporalPositionTimeOffset = float(k // 3)
            item.TemporalPositionSequence = [content]
        else:
            t = k // 3
            content.DimensionIndexValues = [1, k % 3 + 1, *([t + 1] if runs == 2 else [t % 2 + 1, t // 2 + 1])]
            item.FrameContentSequence = [content]
        place = Dataset()
        place.ImagePositionPatient = axial(3)[k % 3].tolist()
        item.PlanePositionSequence = [place]
        items.append(item)
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = list(AXIAL), [0.5, 0.75]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    data = image(frames[0], "1.2.840.10008.5.1.4.1.1.4.1")
    data.PixelData, data.NumberOfFrames = frames[order].astype("<u2").tobytes(), len(frames)
    data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence = items, [shared]
    save(data, tmp_path / "a")
    found = scans.read(tmp_path)
    assert [scan.issues for scan in found] == [()] * runs
    volumes = [frames[3 * t : 3 * t + 3].transpose(2, 1, 0) for t in range(runs)]
    hits = [[np.array_equal(scan.array, volume) for volume in volumes] for scan in found]
    assert sorted(hits) == np.fliplr(np.eye(runs, dtype=bool)).tolist()


def test_a_cine_whose_slabs_have_trigger_times_of_their_own_is_one_volume_a_phase(tmp_path):
    positions = [place for place in axial(10) for _ in range(3)]
    times = [((0, 40, 80), (1, 42, 84))[k >= 5][t] for k in range(10) for t in range(3)]
    volume = series(tmp_path, positions, sop_class=MR, each=[{"TriggerTime": float(time)} for time in times])
    found = scans.read(tmp_path)
    assert [[issue.code for issue in scan.issues] for scan in found] == [[Code.InferredVolumes]] * 3
    hits = [[np.array_equal(scan.array, volume[:, :, t::3]) for t in range(3)] for scan in found]
    assert sorted(hits) == [[False, False, True], [False, True, False], [True, False, False]]


def codes_of(folder):
    return [[issue.code for issue in scan.issues] for scan in scans.read(folder)]


def test_slices_without_a_series_uid_are_gathered_and_said(tmp_path):
    first = series(tmp_path, axial(4), SeriesInstanceUID=None, SeriesNumber=2)
    series(
        tmp_path / "other", axial(3), SeriesInstanceUID=None, each=[{"SOPInstanceUID": f"2.25.{k}"} for k in range(3)]
    )
    found = scans.read(tmp_path)
    assert sorted(scan.shape[2] for scan in found) == [3, 4]
    assert all([issue.code for issue in scan.issues] == [Code.NoSeriesUID] for scan in found)
    np.testing.assert_array_equal(max(found, key=lambda scan: scan.shape[2]).array, first - 1024)


def test_a_capture_with_a_palette_in_a_series_is_a_scan_of_its_own(tmp_path):
    stored = series(tmp_path, axial(5), sop_class=MR)
    path = tmp_path / "0004.dcm"
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [1000, 0, 16])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", np.arange(1000, dtype="<u2").tobytes())
    save(data, path)
    capture, volume = sorted(scans.read(tmp_path), key=lambda scan: scan.shape[2])
    np.testing.assert_array_equal(volume.array, stored[:, :, :4])
    np.testing.assert_array_equal(capture.array[:, :, 0, 0], stored[:, :, 4])


def test_two_reconstructions_of_one_acquisition_lack_nothing(tmp_path):
    """Images in Acquisition counts what the acquisition resulted in (PS3.3 C.7.4.1), which may be two series."""
    for name in ("soft", "sharp"):
        each = [{"SOPInstanceUID": f"2.25.{len(name)}{k}"} for k in range(6)]
        series(tmp_path / name, axial(6), each=each, ImagesInAcquisition=12, SeriesInstanceUID=f"2.25.{len(name)}")
    assert codes_of(tmp_path) == [[], []]


def test_a_temporal_position_that_is_not_there_at_all_is_said(tmp_path):
    each = [{"TemporalPositionIdentifier": t, "NumberOfTemporalPositions": 3} for t in (1, 2) for _ in range(4)]
    series(tmp_path, [*axial(4), *axial(4)], sop_class=MR, each=each)
    found = scans.read(tmp_path)
    assert [[str(issue) for issue in scan.issues] for scan in found] == [
        ["MissingSlices: Slices are missing (1 of 3 temporal positions, each as a whole)."]
    ] * 2


def test_a_volume_with_scattered_slices_of_another_says_so(tmp_path):
    positions = np.concatenate([axial(10), axial(10)[[2, 7]]])
    series(tmp_path, positions, sop_class=MR, each=[{"FlipAngle": 10 + 5 * (k > 9)} for k in range(12)])
    whole, part = sorted(scans.read(tmp_path), key=lambda scan: -scan.shape[2])
    assert whole.issues == () and [issue.code for issue in part.issues] == [Code.MissingSlices]


def test_two_slices_left_of_three_are_known_by_their_numbers(tmp_path):
    series(
        tmp_path / "gap", axial(2, step=5.0), each=[{"InstanceNumber": 1}, {"InstanceNumber": 3}], SliceThickness=2.5
    )
    series(tmp_path / "whole", axial(2, step=5.0), SliceThickness=2.5, SeriesInstanceUID="2.25.9",
           each=[{"SOPInstanceUID": "2.25.91"}, {"SOPInstanceUID": "2.25.92"}])  # fmt: skip
    assert sorted(codes_of(tmp_path)) == [[], [Code.MissingSlices]]


@pytest.mark.parametrize(("offsets", "place"), [([0, 3, 6], 5.0), ([5, 8, 11], 5.0), ([3, 6, 9], None)])
def test_dose_planes_are_relative_or_patient_coordinates_and_nothing_else(tmp_path, offsets, place):
    """PS3.3 C.8.8.3.2: the first offset is zero, or the third coordinate of the position."""
    data = image(np.stack([picture()] * 3), DOSE, Modality="RTDOSE", DoseGridScaling=1e-5,
                 GridFrameOffsetVector=offsets, ImagePositionPatient=[0, 0, 5], **PLACE)  # fmt: skip
    save(data, tmp_path / "a")
    if place is None:
        assert "DamagedHeader" in refusals(tmp_path)
    else:
        (scan,) = scans.read(tmp_path)
        np.testing.assert_allclose(scan.affine, [[-0.75, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 3, 5], [0, 0, 0, 1]])


def test_a_dose_that_is_not_in_gray_is_flagged(tmp_path):
    """PS3.3 C.8.8.3: Dose Units are GY or RELATIVE."""
    for units, expected in (("GY", []), ("RELATIVE", [Code.UnknownUnits])):
        data = image(np.stack([picture()] * 3), DOSE, Modality="RTDOSE", DoseGridScaling=1e-5, DoseUnits=units,
                     GridFrameOffsetVector=[0, 3, 6], ImagePositionPatient=[0, 0, 0], **PLACE)  # fmt: skip
        save(data, tmp_path / units / "a")
        assert codes_of(tmp_path / units) == [expected]


def test_a_pet_without_units_is_flagged(tmp_path):
    for units, expected in (("BQML", []), (None, [Code.UnknownUnits])):
        series(tmp_path / str(units), axial(3), sop_class=PET, RescaleSlope=2, RescaleIntercept=0, Units=units)
        assert codes_of(tmp_path / str(units)) == [expected]


def test_an_ultrasound_volume_without_geometry_says_so(tmp_path):
    """Its frames lie in a frame of the probe (PS3.3 C.8.24.3), not of the patient."""
    data = image(np.stack([picture()] * 3), "1.2.840.10008.5.1.4.1.1.6.2", Modality="US")
    data.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(3)]
    save(data, tmp_path / "a")
    assert codes_of(tmp_path) == [[Code.NoGeometry]]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
@pytest.mark.parametrize("said", [1, 2])
def test_encoded_frames_beyond_those_said_are_refused(tmp_path, syntax, said):
    encode = {"50": imagecodecs.jpeg8_encode, "80": imagecodecs.jpegls_encode, "90": imagecodecs.jpeg2k_encode}
    frames = [bytes(encode[syntax[-2:]](picture(seed=k, high=255).astype(np.uint8))) for k in range(3)]
    data = image(picture(high=255), MR, syntax, stored=8, NumberOfFrames=said, PixelData=encapsulate(frames))
    save(data, tmp_path / "a")
    with pytest.raises(scans.ScanError, match="more frames"):
        scans.survey(tmp_path).scans[0].load()


def test_a_qform_that_mirrors_the_sform_is_flagged(tmp_path):
    affine = np.diag([2.0, 2, 3, 1])
    picture_ = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    picture_.set_sform(affine, 4)
    picture_.set_qform(affine, 1)
    nibabel.save(picture_, tmp_path / "a.nii")
    assert codes_of(tmp_path) == [[]]
    picture_.set_qform(np.diag([-1, 1, 1, 1]) @ affine, 1)
    nibabel.save(picture_, tmp_path / "a.nii")
    assert codes_of(tmp_path) == [[Code.ConflictingGeometry]]


def test_directions_of_one_b_value_are_volumes_of_their_own(tmp_path):
    """A diffusion run as most are: one image without weighting, and several directions of one b-value."""
    directions = [None, [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    kinds = [(0.0 if d is None else 1000.0, d) for d in directions for _ in range(3)]
    each = [{"DiffusionBValue": b, "DiffusionGradientOrientation": d} for b, d in kinds]
    stored = series(tmp_path, np.concatenate([axial(3)] * 4), sop_class=MR, each=each)
    found = scans.read(tmp_path)
    assert [scan.issues for scan in found] == [()] * 4
    hits = [[np.array_equal(scan.array, stored[:, :, 3 * t : 3 * t + 3]) for t in range(4)] for scan in found]
    assert np.array_equal(np.sort(np.argmax(hits, axis=1)), np.arange(4)) and np.sum(hits) == 4


def test_moments_part_volumes_only_where_all_slices_of_one_share_them(tmp_path):
    """Two phases whose slices all have the phase's time; and a volume, its slices acquired one after the other."""
    each = [{"AcquisitionDate": "20200101", "AcquisitionTime": f"10000{t}"} for t in (1, 2) for _ in range(4)]
    stored = series(tmp_path / "phases", np.concatenate([axial(4)] * 2), sop_class=MR, each=each)
    one, two = sorted(scans.read(tmp_path / "phases"), key=lambda scan: not np.array_equal(scan.array, stored[..., :4]))
    assert np.array_equal(two.array, stored[..., 4:]) and one.issues == two.issues == ()
    each = [{"AcquisitionTime": f"10000{k}"} for k in range(4)]
    series(tmp_path / "single", axial(4), sop_class=MR, each=each, SeriesInstanceUID="2.25.8")
    (whole,) = scans.read(tmp_path / "single")
    assert whole.shape[2] == 4 and whole.issues == ()


NM = "1.2.840.10008.5.1.4.1.1.20"


def nuclear(frames, spacing):
    """A reconstruction of a gamma camera; rows run to the left of the patient, columns to the feet: coronal slices."""
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [-10, -20, 30], [1, 0, 0, 0, 0, -1]
    data = image(np.stack(frames), NM, Modality="NM", ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
                 PixelSpacing=[4, 5], SpacingBetweenSlices=spacing, SliceThickness=9, SeriesInstanceUID="2.25.8",
                 SliceVector=list(range(1, len(frames) + 1)), EnergyWindowVector=[1] * len(frames))  # fmt: skip
    data.DetectorInformationSequence = [detector]
    return data


@pytest.mark.parametrize("spacing", [3.0, -3.0])
def test_slices_of_a_gamma_camera_lie_behind_the_first_or_in_front(tmp_path, spacing):
    """PS3.3 C.8.4.15: a positive spacing stacks along the cross product of row and column, here to the back (+y)."""
    frames = [picture(seed=k) for k in range(4)]
    save(nuclear(frames, spacing), tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    assert not scan.issues
    for k, frame in enumerate(frames):
        for row, column in ((0, 0), (11, 3), (5, 15)):
            lps = np.array([-10 + 5 * column, -20 + spacing * k, 30 - 4 * row])
            i, j, m = np.rint(np.linalg.solve(scan.affine, [-lps[0], -lps[1], lps[2], 1])[:3]).astype(int)
            assert scan.array[i, j, m] == frame[row, column]


def test_time_slots_of_a_gated_reconstruction_are_volumes_of_their_own(tmp_path):
    frames = [picture(seed=k) for k in range(6)]
    data = nuclear(frames, 3.0)
    data.ImageType = ["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"]
    data.SliceVector, data.TimeSlotVector = [1, 2, 3, 1, 2, 3], [1, 1, 1, 2, 2, 2]
    save(data, tmp_path / "a")
    found = scans.read(tmp_path)
    assert [scan.issues for scan in found] == [(), ()]
    for scan, own in zip(found, (frames[:3], frames[3:]), strict=True):
        np.testing.assert_array_equal(scan.to_numpy("zyx"), own)


@pytest.mark.parametrize(
    "change", [{"SpacingBetweenSlices": None}, {"EnergyWindowVector": [1, 1, 2, 2]}, {"SliceVector": [1, 2]}]
)
def test_a_gamma_camera_that_does_not_say_where_its_slices_lie_is_flagged(tmp_path, change):
    data = nuclear([picture(seed=k) for k in range(4)], 3.0)
    for keyword, value in change.items():
        setattr(data, keyword, value)
    save(data, tmp_path / "a")
    assert codes_of(tmp_path) == [[Code.NoGeometry]]


def test_an_odd_number_of_palette_entries_of_8_bits_is_padded(tmp_path):
    """PS3.5 7.1.1: values have an even length."""
    data = image(np.arange(99).reshape(9, 11), SC, stored=8, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [99, 0, 8])
        setattr(data, f"{name}PaletteColorLookupTableData", bytes(range(99)) + b"\0")
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    assert sorted(set(np.ravel(scan.array).tolist())) == list(range(99))

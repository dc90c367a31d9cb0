"""One series and its volumes: order, completeness, geometry; expected affines by PS3.3 C.7.6.2.1.1."""

from __future__ import annotations

import math

import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CT, MR, axial, image, picture, save, series

from medlora import scans
from medlora.scans import Code

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def codes(scan):
    return [issue.code for issue in scan.issues]


def expected_affine(row, column, step, origin, spacing=(0.5, 0.75)):
    """Spacing: between rows, between columns. The index along x counts columns: it moves along the row vector."""
    matrix = np.eye(4)
    matrix[:3, 0] = np.array(row) * spacing[1]
    matrix[:3, 1] = np.array(column) * spacing[0]
    matrix[:3, 2], matrix[:3, 3] = step, origin
    return RAS @ matrix


def one(path, **kwargs):
    found = scans.read(path, **kwargs)
    assert len(found) == 1, found
    return found[0]


def test_axial_series_with_unequal_spacing(tmp_path):
    volume = series(tmp_path, axial(5))
    scan = one(tmp_path)
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    assert scan.array.dtype == np.float32 and scan.affine.dtype == np.float64
    np.testing.assert_allclose(
        scan.affine, expected_affine([1, 0, 0], [0, 1, 0], [0, 0, 2.5], [-100, -80, 30]), atol=1e-12
    )
    assert scan.spacing == pytest.approx((0.75, 0.5, 2.5))
    assert scan.issues == () and scan.modality == "CT" and scan.scan_id == scans.read(tmp_path)[0].scan_id


@pytest.mark.parametrize("numbers", [None, [5, 4, 3, 2, 1], [1, 3, 5, 2, 4], [7, 7, 7, 7, 7]])
def test_order_is_by_position_whatever_the_instance_numbers_and_names(tmp_path, numbers):
    each = [{"InstanceNumber": numbers[k] if numbers else None} for k in range(5)]
    volume = series(tmp_path, axial(5), names=["e", "a", "d", "b", "c"], each=each)
    scan = one(tmp_path)
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    assert scan.issues == ()


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ([1, 0, 0], [0, 1, 0]),
        ([-1, 0, 0], [0, -1, 0]),  # prone or rotated by 180 degrees
        ([-1, 0, 0], [0, 1, 0]),  # flipped: the normal points to the feet
        ([0, 1, 0], [0, 0, -1]),  # sagittal
        ([1, 0, 0], [0, 0, -1]),  # coronal
        ([0.8, 0.6, 0], [-0.36, 0.48, 0.8]),  # oblique in all axes
    ],
)
def test_orientations(tmp_path, row, column):
    normal = np.cross(row, column)
    origin = np.array([-50.0, 20.0, 10.0])
    positions = origin + np.arange(6)[:, None] * normal * 3.0
    order = [3, 0, 5, 1, 4, 2]
    volume = series(tmp_path, positions[order], orientation=(*row, *column))
    scan = one(tmp_path)
    np.testing.assert_array_equal(scan.array, volume[:, :, np.argsort(order)] - 1024.0)
    np.testing.assert_allclose(scan.affine, expected_affine(row, column, 3.0 * normal, origin), atol=1e-5)
    assert scan.issues == ()


def test_orders_along_the_normal_where_no_single_coordinate_rises(tmp_path):
    # x rises and z falls along this normal; sorting by either alone would turn the stack round for the other sign.
    row, column = np.array([0.0, 1.0, 0.0]), np.array([-math.sqrt(0.5), 0.0, -math.sqrt(0.5)])
    normal = np.cross(row, column)
    positions = np.arange(4)[:, None] * normal * 2
    volume = series(tmp_path, positions[::-1], orientation=(*row, *column))
    np.testing.assert_array_equal(one(tmp_path).array, volume[:, :, ::-1] - 1024.0)


@pytest.mark.parametrize("tilt", [18.0, -18.0])
def test_gantry_tilt_is_kept_as_shear(tmp_path, tilt):
    # The table moves along z while the slices lean back: the step is not along their normal.
    angle = math.radians(tilt)
    column = (0.0, math.cos(angle), math.sin(angle))
    volume = series(tmp_path, axial(20, step=5.0), orientation=(1, 0, 0, *column), GantryDetectorTilt=0)
    scan = one(tmp_path)
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    np.testing.assert_allclose(scan.affine, expected_affine([1, 0, 0], column, [0, 0, 5.0], [-100, -80, 30]), atol=1e-5)
    # The corner of the last slice lies where its own header puts it.
    corner = scan.affine @ [15, 11, 19, 1]
    by_hand = np.array([-100, -80, 30 + 19 * 5.0]) + 15 * 0.75 * np.array([1, 0, 0]) + 11 * 0.5 * np.array(column)
    np.testing.assert_allclose(corner[:3], by_hand * [-1, -1, 1], atol=1e-5)
    assert codes(scan) == [Code.TiltedGantry] and "18.0 degrees" in str(scan.issues[0])


def test_tilt_with_a_step_that_is_not_uniform(tmp_path):
    angle = math.radians(15)
    positions = axial(10, step=5.0)
    positions[5:, 2] += 2.5
    series(tmp_path, positions, orientation=(1, 0, 0, 0, math.cos(angle), math.sin(angle)))
    scan = one(tmp_path)
    assert set(codes(scan)) == {Code.TiltedGantry, Code.NonUniformSpacing}
    np.testing.assert_allclose(scan.slice_positions, (positions - positions[0])[:, 2] * math.cos(angle), atol=1e-5)


def test_spacing_is_between_slices_not_their_thickness(tmp_path):
    series(tmp_path, axial(5, step=1.25), SliceThickness=2.5)  # overlapping reconstruction
    scan = one(tmp_path)
    assert scan.spacing[2] == pytest.approx(1.25) and scan.issues == () and scan.header["SliceThickness"] == 2.5


def test_varying_spacing_is_flagged_and_rounded_positions_are_not(tmp_path):
    positions = axial(8)
    positions[4:, 2] += 0.4
    series(tmp_path / "varying", positions)
    assert codes(one(tmp_path / "varying")) == [Code.NonUniformSpacing]
    rounded = axial(40, step=1.25)
    rounded[:, 2] = np.round(rounded[:, 2], 1)
    series(tmp_path / "rounded", rounded, SeriesInstanceUID="1.2.3.4.7")
    assert one(tmp_path / "rounded").issues == ()


def test_slices_beside_the_line_are_flagged(tmp_path):
    positions = axial(8)
    positions[3, 0] += 4
    series(tmp_path, positions)
    assert codes(one(tmp_path)) == [Code.UnalignedSlices]


def test_two_different_images_at_one_position_are_refused(tmp_path):
    series(tmp_path, axial(5)[[0, 1, 2, 2, 3, 4]])
    found = scans.survey(tmp_path)
    assert found.scans == [] and [e.code for e in found.excluded] == [Code.DuplicatePosition]


def test_slices_without_position_have_no_known_order(tmp_path):
    series(tmp_path, axial(4), ImagePositionPatient=None)
    found = scans.survey(tmp_path)
    assert found.scans == [] and [(e.code, len(e.paths)) for e in found.excluded] == [(Code.UnknownOrder, 4)]
    (tmp_path / "0000.dcm").rename(tmp_path.parent / "single.dcm")
    assert codes(one(tmp_path.parent / "single.dcm")) == [Code.NoGeometry]


@pytest.mark.parametrize("uid", ["1.2.3.4.5", "1.2.3.4.9"])
def test_scout_beside_the_axials_even_under_the_same_series_uid(tmp_path, uid):
    volume = series(tmp_path, axial(5))
    scout = image(
        picture(20, 24, seed=9),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        SeriesInstanceUID=uid,
        InstanceNumber=0,
        ImagePositionPatient=[0, -200, 300],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        PixelSpacing=[1, 1],
    )
    save(scout, tmp_path / "scout.dcm")
    found = scans.read(tmp_path)
    by_shape = {scan.shape: scan for scan in found}
    assert set(by_shape) == {(16, 12, 5), (24, 20, 1)}
    np.testing.assert_array_equal(by_shape[16, 12, 5].array, volume - 1024.0)
    assert "LOCALIZER" in by_shape[24, 20, 1].header["ImageType"]
    assert all(scan.issues == () for scan in found)
    assert len({scan.scan_id for scan in found}) == 2


def test_three_plane_series_is_parted_and_said(tmp_path):
    series(tmp_path, axial(3), names=["a0", "a1", "a2"], sop_class=MR)
    more = {"sop_class": MR, "PixelSpacing": [0.5, 0.75]}
    for k in range(3):
        save(image(picture(seed=10 + k), ImagePositionPatient=[10.0 * k, 0, 0], ImageOrientationPatient=[0, 1, 0, 0,
        0, -1],
                   InstanceNumber=4 + k, **more), tmp_path / f"s{k}")  # fmt: skip
    found = scans.read(tmp_path)
    assert [scan.shape for scan in found] == [(16, 12, 3)] * 2
    assert all(codes(scan) == [Code.MixedOrientation] for scan in found)


def test_series_side_by_side_stay_apart(tmp_path):
    first = series(tmp_path, axial(4), SeriesInstanceUID="1.2.3.4.20", names=[f"x{k}" for k in range(4)])
    second = series(
        tmp_path, axial(6, step=1.0), SeriesInstanceUID="1.2.3.4.21", names=[f"y{k}" for k in range(6)],
        each=[{"SOPInstanceUID": f"1.9.{k}"} for k in range(6)])  # fmt: skip
    found = scans.survey(tmp_path)
    by_uid = {files.identity.series_uid: files.load() for files in found.scans}
    np.testing.assert_array_equal(by_uid["1.2.3.4.20"].array, first - 1024.0)
    np.testing.assert_array_equal(by_uid["1.2.3.4.21"].array, second - 1024.0)


@pytest.mark.parametrize(
    "separator",
    [
        [{"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}],
        [{"EchoTime": 4.6, "EchoNumbers": 1}, {"EchoTime": 9.2, "EchoNumbers": 2}],
        [{"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}],
        [{"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}],
        [{"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}],
    ],
)
def test_4d_series_is_one_scan_per_volume(tmp_path, separator):
    positions = np.concatenate([axial(5), axial(5)])
    volume = series(tmp_path, positions, sop_class=MR, each=[separator[k // 5] for k in range(10)])
    found = scans.read(tmp_path)
    assert [scan.shape for scan in found] == [(16, 12, 5)] * 2 and len({scan.scan_id for scan in found}) == 2
    for scan in found:
        keyword, value = next(iter(separator[0].items()))
        first = scan.header[keyword] == value
        np.testing.assert_array_equal(scan.array, volume[:, :, :5] if first else volume[:, :, 5:])
        assert scan.issues == ()


def test_repeated_positions_that_only_time_tells_apart_are_inferred_and_said(tmp_path):
    positions = np.concatenate([axial(5), axial(5), axial(5)])
    each = [{"AcquisitionTime": f"1200{k:02d}.{k:02d}"} for k in range(15)]
    volume = series(tmp_path, positions, sop_class=MR, each=each)
    found = scans.read(tmp_path)
    assert len(found) == 3 and all(codes(scan) == [Code.InferredVolumes] for scan in found)
    arrays = sorted(
        (scan.array for scan in found),
        key=lambda a: [np.array_equal(a, volume[:, :, 5 * t : 5 * t + 5]) for t in range(3)].index(True),
    )
    for t, array in enumerate(arrays):
        np.testing.assert_array_equal(array, volume[:, :, 5 * t : 5 * t + 5])


def test_thick_and_thin_slices_in_one_series_are_parted(tmp_path):
    positions = np.concatenate([axial(8, step=5.0), axial(12, step=1.0, start=(-100, -80, 30.5))])
    each = [{"SliceThickness": 5.0 if k < 8 else 1.0} for k in range(20)]
    series(tmp_path, positions, each=each)
    found = scans.read(tmp_path)
    assert sorted((scan.shape[2], scan.spacing[2]) for scan in found) == [(8, 5.0), (12, 1.0)]
    assert all(scan.issues == () for scan in found)


def test_mixed_transfer_syntaxes_and_rescale_inside_one_series(tmp_path):
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

    positions = axial(4)
    stored = []
    for k, syntax in enumerate([ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless]):
        native = syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian)
        data = image(
            picture(seed=k), CT, syntax if native else "1.2.840.10008.1.2.1", ImagePositionPatient=list(positions[k]),
            ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1], RescaleSlope=k + 1, RescaleIntercept=-10 * k,
            SOPInstanceUID=f"1.2.8.{k}")  # fmt: skip
        if not native:
            data.compress(syntax, generate_instance_uid=False)
        save(data, tmp_path / f"{k}.dcm")
        stored.append(picture(seed=k).T * (k + 1) - 10 * k)
    scan = one(tmp_path)
    np.testing.assert_array_equal(scan.array, np.stack(stored, axis=-1))
    assert scan.issues == ()


def test_an_order_that_is_not_known_can_be_let_pass(tmp_path):
    volume = series(tmp_path, axial(4), ImagePositionPatient=None, names=["d", "c", "b", "a"])
    scan = one(tmp_path, severities={Code.UnknownOrder: "flag"})
    np.testing.assert_array_equal(scan.array, volume - 1024.0)  # by instance number
    assert codes(scan) == [Code.UnknownOrder]


def test_slices_that_must_not_be_mixed_are_flagged_where_nothing_parts_them(tmp_path):
    each = [{"ConvolutionKernel": "B70f" if k % 2 else "B30f"} for k in range(6)]
    series(tmp_path, axial(6), each=each)
    scan = one(tmp_path)
    assert codes(scan) == [Code.MixedSlices] and "ConvolutionKernel" in str(scan.issues[0])


@pytest.mark.parametrize(
    ("word", "values"),
    [("KVP", (80, 140)), ("SliceThickness", (1.0, 5.0)), ("EchoTime", (10.0, 90.0)),
     ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "MPR"])), ("KVP", (120, 120.5))],
)  # fmt: skip
def test_other_kinds_of_slices_on_the_same_grid_are_flagged(tmp_path, word, values):
    """A reformatted image that lies just where the next slice would; numbers that differ by rounding are no kinds."""
    series(tmp_path, axial(6), each=[{word: values[k == 5]} for k in range(6)])
    (issues,) = (scan.issues for scan in scans.read(tmp_path))
    expected = [] if values == (120, 120.5) else [(Code.MixedSlices, word)]
    assert [(issue.code, issue.detail) for issue in issues] == expected


def test_two_slabs_far_apart_are_two_scans(tmp_path):
    positions = axial(30)[[*range(10), *range(20, 30)]]
    series(tmp_path, positions, each=[{"AcquisitionNumber": 1 + k // 10} for k in range(20)])
    found = scans.read(tmp_path)
    assert [scan.shape[2] for scan in found] == [10, 10] and all(scan.issues == () for scan in found)


@pytest.mark.parametrize("seed", range(3))
def test_rounded_positions_and_cosines_are_clean(tmp_path, seed):
    """Noise of a thousandth of a millimetre in positions, cosines of three decimals: both occur, neither is a fault."""
    chance = np.random.default_rng(seed)
    row, column, _ = np.linalg.qr(chance.normal(size=(3, 3)))[0]
    positions = np.arange(60)[:, None] * np.cross(row, column) * 1.2 + chance.uniform(-1e-3, 1e-3, (60, 3))
    volume = series(tmp_path, positions, orientation=tuple(np.round([*row, *column], 3)), sop_class=MR)
    scan = one(tmp_path)
    np.testing.assert_array_equal(scan.array, volume)
    assert scan.issues == () and scan.spacing[2] == pytest.approx(1.2, abs=1e-3)


@pytest.mark.parametrize("count", [4, 20])
def test_oblique_slices_that_lie_on_tenths_of_a_millimetre_are_clean(tmp_path, count):
    """As GE's brain of Papaya's tests: steps of 7 mm to a tenth, from places of six figures."""
    angle = math.radians(7.71)
    steps = np.arange(count)[:, None] * 7 * np.array([0, -math.sin(angle), math.cos(angle)])
    positions = np.array([-110.5, -78.3063, -72.75753]) + np.round(steps, 1)
    positions = np.array([[float(f"{number:.6g}") for number in place] for place in positions])
    series(tmp_path, positions, orientation=(1, 0, 0, 0, math.cos(angle), math.sin(angle)), sop_class=MR)
    scan = one(tmp_path)
    assert scan.issues == () and scan.spacing[2] == pytest.approx(7, abs=0.02)


@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_uneven_slices_made_even_on_request(tmp_path, tilt):
    angle = math.radians(tilt)
    positions = axial(9, step=2.0)[[0, 1, 2, 5, 6, 8]]
    series(tmp_path, positions, orientation=(1, 0, 0, 0, math.cos(angle), math.sin(angle)))
    scan = one(tmp_path)
    even = scan.evenly_spaced()
    assert even.shape == (16, 12, 9) and even.slice_positions is None and even.array.dtype == np.float32
    for k, z in enumerate([0, 1, 2, 5, 6, 8]):  # the slices that were there are still there, in their places
        np.testing.assert_allclose(even.array[:, :, z], scan.array[:, :, k], atol=1e-2)
        place = even.affine @ [0, 0, z, 1]
        np.testing.assert_allclose(place[:3], positions[k] * [-1, -1, 1], atol=1e-6)
    between = (2 * scan.array[:, :, 2] + scan.array[:, :, 3]) / 3
    np.testing.assert_allclose(even.array[:, :, 3], between, atol=1e-2)
    assert even.evenly_spaced() is even


def test_tomosynthesis_is_a_volume_and_a_radiograph_never_a_frame(tmp_path):
    from test_scans_frames import enhanced, stack

    shared_file = tmp_path / "tomo" / "a"
    enhanced(stack(4)[[2, 0, 3, 1]], axial(4)[[2, 0, 3, 1]], shared_file, sop_class="1.2.840.10008.5.1.4.1.1.13.1.3")
    import pydicom

    data = pydicom.dcmread(shared_file)
    data.Modality = "MG"
    save(data, shared_file)
    scan = one(tmp_path / "tomo")
    np.testing.assert_array_equal(scan.to_numpy("zyx"), stack(4) - 1024)


def test_one_series_uid_for_two_patients_is_two_series(tmp_path):
    first = series(tmp_path / "a", axial(3), PatientID="A")
    second = series(tmp_path / "b", axial(4), PatientID="B", each=[{"SOPInstanceUID": f"1.8.{k}"} for k in range(4)])
    found = {files.identity.patient_id: files.load() for files in scans.survey(tmp_path).scans}
    np.testing.assert_array_equal(found["A"].array, first - 1024.0)
    np.testing.assert_array_equal(found["B"].array, second - 1024.0)


@pytest.mark.parametrize("patient", ["1", "2"])
def test_a_part_of_a_scan_under_another_patients_name_is_refused(tmp_path, patient):
    series(tmp_path / "a", axial(5), PatientID="1", SeriesInstanceUID="1.2.8.1")
    series(tmp_path / "b", axial(4), PatientID=patient, SeriesInstanceUID="1.2.8.2")  # the same SOP Instance UIDs
    series(
        tmp_path / "c",
        axial(3),
        PatientID="3",
        SeriesInstanceUID="1.2.8.3",
        each=[{"SOPInstanceUID": f"2.25.{k}"} for k in range(3)],
    )
    found = scans.survey(tmp_path)
    assert [e.code for e in found.excluded] == [Code.RepeatedInstance] * (2 if patient == "2" else 0)
    assert len(found.scans) == (1 if patient == "2" else 3)


def test_direction_cosines_that_are_none_are_refused(tmp_path):
    series(tmp_path, axial(4), orientation=(1, 0, 0, 0.5, 0.5, 0))
    assert [e.code for e in scans.survey(tmp_path).excluded] == [Code.InvalidOrientation]


@pytest.mark.parametrize(
    ("kind", "said"),
    [(["DERIVED", "SECONDARY", "SCREEN SAVE"], []), (["DERIVED", "SECONDARY"], [Code.UnknownUnits])],
)  # what is not called a picture of a screen may be a digitised film, whose values are not Hounsfield units
def test_a_capture_beside_the_slices_is_no_slice(tmp_path, kind, said):
    volume = series(tmp_path, axial(4))
    data = image(picture(50, 60), "1.2.840.10008.5.1.4.1.1.7", Modality="CT", InstanceNumber=5, ImageType=kind)
    save(data, tmp_path / "capture")
    by_depth = {scan.shape[2]: scan for scan in scans.read(tmp_path)}
    np.testing.assert_array_equal(by_depth[4].array, volume - 1024.0)
    assert by_depth[4].issues == () and codes(by_depth[1]) == said


def test_passes_half_a_step_apart_of_thick_slices_are_two_scans(tmp_path):
    """Numbered through; slices as thick as the step of each pass, so that those of both would lie over each other."""
    positions = np.concatenate([axial(10, 5.0), np.add(axial(10, 5.0), [0, 0, 2.5])])
    each = [{"AcquisitionNumber": 1 + k // 10} for k in range(20)]
    series(tmp_path / "thick", positions, each=each, SliceThickness=5.0)
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path / "thick")] == [(10, ()), (10, ())]
    series(tmp_path / "thin", positions, sop_class=MR, each=each, SliceThickness=2.5)  # packages
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path / "thin")] == [(20, ())]


@pytest.mark.parametrize("where", [3.0, 3.4, -1.0])
def test_a_projection_among_the_slices_is_a_scan_of_its_own(tmp_path, where):
    positions = [*axial(10, 1.0), axial(1)[0] + [0, 0, where]]
    mip = {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"], "SliceThickness": 10}
    series(tmp_path, positions, sop_class=MR, each=[mip if k == 10 else {} for k in range(11)], SliceThickness=1)
    assert sorted((scan.shape[2], scan.issues) for scan in scans.read(tmp_path)) == [(1, ()), (10, ())]


def test_inversion_times_fitted_to_each_slice_are_one_stack(tmp_path):
    series(tmp_path / "fitted", axial(8), sop_class=MR, each=[{"InversionTime": 280 + 5 * k} for k in range(8)])
    assert one(tmp_path / "fitted").issues == ()
    series(tmp_path / "two", axial(8), sop_class=MR, each=[{"InversionTime": 280 + 500 * (k == 7)} for k in range(8)])
    assert codes(one(tmp_path / "two")) == [Code.MixedSlices]


def test_slices_that_nearly_lie_on_each_other_are_said(tmp_path):
    each = [{"AcquisitionNumber": 1 + k} for k in range(2)]
    series(tmp_path, [[0, 0, 30.0], [0, 0, 30.0004]], each=each, SliceThickness=5)
    assert codes(one(tmp_path)) == [Code.ConflictingGeometry]


@pytest.mark.parametrize("word", ["ModalityLUTSequence", "PerFrameFunctionalGroupsSequence", "VOILUTSequence"])
@pytest.mark.parametrize("undefined", [False, True])
def test_empty_sequences_of_either_length_are_empty(tmp_path, word, undefined):
    volume = series(tmp_path, axial(4))
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        setattr(data, word, [])
        data[word].is_undefined_length = undefined
        data.save_as(path)
        assert (b"\xff\xff\xff\xff\xfe\xff\xdd\xe0" in path.read_bytes()) is undefined
        assert not scans.read_header(path).values.get(word)
    np.testing.assert_array_equal(one(tmp_path).array, volume - 1024.0)
    assert one(tmp_path).issues == ()


def test_planar_nuclear_medicine_has_no_place_to_miss(tmp_path):
    data = image(picture()[None].repeat(2, axis=0), "1.2.840.10008.5.1.4.1.1.20", Modality="NM")
    data.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    save(data, tmp_path / "planar.dcm")
    assert codes(one(tmp_path)) in ([], [Code.UnknownSpacing])


@pytest.mark.parametrize(
    ("word", "values", "mixed"),
    [
        ("InversionTime", (100, 600, 1100), True),
        ("InversionTime", tuple(range(280, 340, 5)), False),  # fitted to each slice
        ("InversionTime", (260, 260, 270, 280), False),  # set anew while the heart was imaged
        ("InversionTime", (260, 280, 260), True),
        ("FlipAngle", (60, 55), False),  # lowered since the patient grew warm
        ("FlipAngle", (60, 20), True),
        ("EchoTime", (2.0, 2.04, 2.0, 2.04, 2.0, 2.04), False),
        ("EchoTime", (2.0, 4.0), True),
        ("SliceThickness", (0.5, 0.505, 0.498), False),
        ("SliceThickness", (0.5, 0.6), True),
        ("SequenceName", ("*tfi2d1_12", "*tfi2d1_13", "*tfi2d1_12"), False),  # lines of a beat: by the pulse
        ("SequenceName", ("*ep_b0", "*ep_b1000#3"), True),
    ],
)
def test_settings_that_scanners_change_on_the_way_are_not_mixed(tmp_path, word, values, mixed):
    each = [{word: values[k * len(values) // 12]} for k in range(12)]
    series(tmp_path, axial(12), sop_class=MR, each=each)
    assert codes(one(tmp_path)) == ([Code.MixedSlices] if mixed else [])


def test_what_lies_beside_the_slices_is_no_slice_that_lost_its_place(tmp_path):
    """A picture of the screen in the class of the slices, and a spectrum (PS3.4 B.5), which has rows but no pixels."""
    volume = series(tmp_path / "a", axial(5))
    kind = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    save(image(picture(20, 30), ImageType=kind, InstanceNumber=99), tmp_path / "a" / "screen")
    spectrum = image(picture(), "1.2.840.10008.5.1.4.1.1.4.2", Modality="MR", SOPInstanceUID="1.2.9", PixelData=None)
    save(spectrum, tmp_path / "a" / "spectrum")
    found = scans.read(tmp_path / "a")
    slices, screen = sorted(found, key=lambda scan: -scan.shape[2])
    np.testing.assert_array_equal(slices.array, volume - 1024.0)
    assert slices.issues == () and screen.issues == ()
    assert [e.code for e in found.excluded] == [Code.NotAnImage]
    for k in range(3):
        save(image(picture(20, 30, seed=k), ImageType=kind, SOPInstanceUID=f"1.2.8.{k}"), tmp_path / "b" / f"{k}")
    assert [codes(scan) for scan in scans.read(tmp_path / "b")] == [[]] * 3


@pytest.mark.parametrize("kind", [["DERIVED", "SECONDARY", "REFORMATTED"], ["ORIGINAL", "PRIMARY", "AXIAL"]])
def test_a_reformatted_series_has_no_count_of_its_own(tmp_path, kind):
    """As GE writes them: with the Images in Acquisition (PS3.3 C.7.6.1) of the slices they were computed from."""
    series(tmp_path / "a", axial(30, 1.25), ImagesInAcquisition=30, AcquisitionNumber=1, SeriesInstanceUID="1.2.3.1")
    positions = [(-100.0, -80.0 + 2 * k, 30.0) for k in range(13)]
    series(
        tmp_path / "b", positions, (1, 0, 0, 0, 0, -1), ImageType=kind, ImagesInAcquisition=30, AcquisitionNumber=1,
        SeriesInstanceUID="1.2.3.2", each=[{"SOPInstanceUID": f"1.2.6.{k}"} for k in range(13)],
    )  # fmt: skip
    found = {scan.shape[2]: codes(scan) for scan in scans.read(tmp_path)}
    assert found == {30: [], 13: [] if kind[0] == "DERIVED" else [Code.MissingSlices]}

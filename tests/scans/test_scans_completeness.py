"""Slices that are missing are said to be: one, many, every second, the first, the last, in one volume of a run."""

from __future__ import annotations

import numpy as np
import pytest
from make_dicom import MR, PET, axial, image, picture, save, series

from medlora import scans
from medlora.scans import Code


def codes(scan):
    return [issue.code for issue in scan.issues]


def one(path):
    (scan,) = scans.read(path)
    return scan


@pytest.mark.parametrize(("missing", "count"), [([4], 1), ([2, 3, 4], 3), ([2, 6], 2)])
def test_missing_slices_are_counted(tmp_path, missing, count):
    kept = [k for k in range(10) if k not in missing]
    series(tmp_path, axial(10)[kept])
    scan = one(tmp_path)
    assert Code.MissingSlices in codes(scan) and f"({count} " in str(scan.issues[0])
    # Both ends are where their headers put them.
    np.testing.assert_allclose(scan.affine @ [0, 0, len(kept) - 1, 1], [100, 80, 30 + 9 * 2.5, 1])
    refused = scans.survey(tmp_path, severities={Code.MissingSlices: "refuse"})
    assert refused.scans == [] and refused.excluded[0].code is Code.MissingSlices
    assert refused.excluded[0].scan_id == scan.scan_id


def test_the_first_and_the_last_slice_missing(tmp_path):
    series(tmp_path / "first", axial(6), each=[{"InstanceNumber": k + 3} for k in range(6)])
    series(tmp_path / "last", axial(6), ImagesInAcquisition=8, SeriesInstanceUID="1.2.3.4.6")
    first, last = (one(tmp_path / name) for name in ("first", "last"))
    assert [str(issue) for issue in first.issues] == [
        "MissingSlices: Slices are missing (the first 2, by Instance Number)."
    ]
    assert [str(issue) for issue in last.issues] == [
        "MissingSlices: Slices are missing (2 of 8, by Images in Acquisition)."
    ]


@pytest.mark.parametrize("cut", ["0003.dcm", "0005.dcm"])
def test_a_truncated_slice_is_excluded_and_its_gap_counted(tmp_path, cut):
    series(tmp_path, axial(6))
    path = tmp_path / cut
    path.write_bytes(path.read_bytes()[:-100])
    found = scans.read(tmp_path)
    assert [e.code for e in found.excluded] == [Code.TruncatedPixelData]
    assert Code.MissingSlices in codes(found[0]) and found[0].shape[2] == 5


@pytest.mark.parametrize("lost", [0, 1])
def test_images_of_an_acquisition_are_counted_in_all_series_made_of_it(tmp_path, lost):
    for number, count in ((1, 6), (2, 4 - lost)):
        each = [{"SOPInstanceUID": f"1.2.{number}.{k}"} for k in range(count)]
        about = {"SeriesInstanceUID": f"1.2.3.{number}", "AcquisitionNumber": 7, "ImagesInAcquisition": 10}
        series(tmp_path / f"{number}", axial(count), each=each, **about)
    found = scans.read(tmp_path)
    assert [codes(scan) for scan in found] == [[Code.MissingSlices] if lost else []] * 2


def test_a_series_numbered_through_a_study_is_complete(tmp_path):
    series(tmp_path, axial(6), each=[{"InstanceNumber": 201 + k} for k in range(6)])
    assert one(tmp_path).issues == ()


@pytest.mark.parametrize("kept", [[0, 2, 4, 6, 8], [0, 3, 6, 9]])
@pytest.mark.parametrize("word", ["SpacingBetweenSlices", "SliceThickness"])
def test_every_second_slice_missing_leaves_no_gap_but_is_said(tmp_path, kept, word):
    each = [{"InstanceNumber": 10 - k} for k in kept]
    series(tmp_path, axial(10)[kept], each=each, **{word: 2.5})
    assert codes(one(tmp_path)) == [Code.MissingSlices]


def test_thin_slices_far_apart_are_complete(tmp_path):
    series(tmp_path / "numbered one by one", axial(6, step=10.0), SliceThickness=1.0)  # high-resolution CT
    each = [{"InstanceNumber": 1 + 2 * k} for k in range(6)]  # one of two echoes that were numbered in turn
    series(tmp_path / "of two echoes", axial(6), sop_class=MR, each=each, SliceThickness=2.5, SeriesInstanceUID="1.2.3")
    for folder in tmp_path.iterdir():
        assert one(folder).issues == ()


@pytest.mark.parametrize("word", ["AcquisitionNumber", "TriggerTime"])
def test_a_gap_between_two_rotations_is_a_gap(tmp_path, word):
    """Step-and-shoot CT numbers its rotations; as real files of dicom2nifti's tests do, with a slice lost between."""
    series(tmp_path, axial(8)[[0, 1, 2, 3, 5, 6, 7]], each=[{word: 1 + (k > 3)} for k in range(7)])
    scan = one(tmp_path)
    assert scan.shape[2] == 7 and Code.MissingSlices in codes(scan) and "(1 " in str(scan.issues[0])


def test_a_gap_within_a_rotation_of_two_slices_is_a_gap(tmp_path):
    """As in dicom2nifti's tests "sliceincrement": a rotation of three whose middle is lost is no stack by itself."""
    series(tmp_path, axial(5)[[0, 1, 2, 4]], each=[{"AcquisitionNumber": 1 + (k > 1)} for k in range(4)])
    scan = one(tmp_path)
    assert scan.shape[2] == 4 and Code.MissingSlices in codes(scan) and "(1 " in str(scan.issues[0])


@pytest.mark.parametrize("kept", [[0, 1, 2], [2, 3, 4], [1, 2, 3]])
@pytest.mark.parametrize("word", ["TemporalPositionIdentifier", "EchoNumbers", "DiffusionBValue"])
def test_a_run_cut_short_keeps_its_whole_volumes_and_says_which_is_not(tmp_path, kept, word):
    positions = np.concatenate([axial(5), axial(5), axial(5)[kept]])
    volume = series(tmp_path, positions, sop_class=MR, each=[{word: 1 + k // 5} for k in range(13)])
    found = {scan.header[word]: scan for scan in scans.read(tmp_path)}
    assert [codes(found[t]) for t in (1, 2, 3)] == [[], [], [Code.MissingSlices]]
    np.testing.assert_array_equal(found[3].array, volume[:, :, 10:])
    assert "(2 of the 5" in str(found[3].issues[0])


def test_a_shorter_reconstruction_of_another_kernel_is_complete(tmp_path):
    positions = np.concatenate([axial(8), axial(8)[2:6]])
    series(tmp_path, positions, each=[{"ConvolutionKernel": "B70f" if k < 8 else "B30f"} for k in range(12)])
    found = scans.read(tmp_path)
    assert sorted(scan.shape[2] for scan in found) == [4, 8] and all(scan.issues == () for scan in found)


@pytest.mark.parametrize(
    ("lost", "slices", "detail"),
    [(range(5, 10), [5, 5], "1 of 3 time slices"), ([14], [4, 5, 5], "1 of the 5")],
)
def test_what_is_lost_of_a_dynamic_pet_is_said_and_the_rest_kept(tmp_path, lost, slices, detail):
    kept = [n for n in range(15) if n not in lost]
    each = [
        {"FrameReferenceTime": 1000.0 * (n // 5), "InstanceNumber": n + 1, "SOPInstanceUID": f"1.2.3.{n + 1}"}
        for n in kept
    ]
    about = {"NumberOfTimeSlices": 3, "NumberOfSlices": 5, "RescaleSlope": 2, "RescaleIntercept": 0, "Units": "BQML"}
    series(tmp_path, [axial(5)[n % 5] for n in kept], sop_class=PET, each=each, **about)
    found = scans.read(tmp_path)
    assert sorted(scan.array.shape[2] for scan in found) == slices
    issues = [issue for scan in found for issue in scan.issues]
    assert {issue.code for issue in issues} == {Code.MissingSlices}
    assert len(issues) == slices.count(slices[0]) and all(detail in issue.detail for issue in issues)


@pytest.mark.parametrize("word", ["PatientID", "StudyInstanceUID"])
@pytest.mark.parametrize("corrected", [range(4), range(0, 10, 3), [9]])
def test_a_series_corrected_in_part_is_torn(tmp_path, word, corrected):
    series(tmp_path, axial(10), each=[{word: "1.2.9"} if k in corrected else {} for k in range(10)])
    found = scans.read(tmp_path)
    assert sorted(scan.shape[2] for scan in found) == sorted((len(corrected), 10 - len(corrected)))
    for scan in found:
        said = [issue.detail for issue in scan.issues if issue.code is Code.MissingSlices]
        assert any(text.startswith(f"{10 - scan.shape[2]} that go on") for text in said)


def test_patients_under_one_series_uid_are_not_torn(tmp_path):
    for k, shift in enumerate((0.0, 3.7, 100.0)):  # 2.5 mm apart: between the others' slices, and far above them
        each = [{"SOPInstanceUID": f"1.2.{k}.{i}"} for i in range(6)]
        series(tmp_path / str(k), np.add(axial(6), [0, 0, shift]), each=each, PatientID=str(k))
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 3


def test_pixel_spacings_written_with_other_decimals_part_nothing(tmp_path):
    series(tmp_path, axial(6), each=[{"PixelSpacing": ["0.78125"] * 2 if k < 3 else ["0.7813"] * 2} for k in range(6)])
    assert one(tmp_path).shape[2] == 6


def test_another_pixel_spacing_halfway_is_torn(tmp_path):
    series(tmp_path, axial(6), each=[{"PixelSpacing": ["0.78"] * 2 if k < 4 else ["0.79"] * 2} for k in range(6)])
    assert [(scan.shape[2], codes(scan)) for scan in scans.read(tmp_path)] == [
        (4, [Code.MissingSlices]),
        (2, [Code.MissingSlices]),
    ]


def test_groups_of_another_field_of_view_are_no_torn_stack(tmp_path):
    series(tmp_path, axial(8), each=[{"PixelSpacing": [0.5, 0.5] if k < 4 else [0.6, 0.6]} for k in range(8)])
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path)] == [(4, ()), (4, ())]


def test_a_run_torn_in_both_of_its_volumes(tmp_path):
    each = [
        {"TemporalPositionIdentifier": 1 + t, "PatientID": "2" if k < 4 else "1"} for t in range(2) for k in range(10)
    ]
    series(tmp_path, np.concatenate([axial(10), axial(10)]), sop_class=MR, each=each)
    found = scans.read(tmp_path)
    assert sorted(scan.shape[2] for scan in found) == [4, 4, 6, 6]
    assert all(codes(scan) == [Code.MissingSlices] for scan in found)


def test_torn_where_a_slice_is_lost(tmp_path):
    kept = [k for k in range(12) if k != 5]
    series(tmp_path, axial(12)[kept], each=[{"InstanceNumber": k + 1, "PatientID": str(k > 5)} for k in kept])
    assert all(Code.MissingSlices in codes(scan) for scan in scans.read(tmp_path))


@pytest.mark.parametrize("word", ["AcquisitionNumber", "TriggerTime"])
@pytest.mark.parametrize(("slices", "lost"), [(2, [6, 7]), (4, range(12, 16)), (8, range(16, 24)), (4, [3, 12])])
def test_rotations_lost_are_missing_slices(tmp_path, word, slices, lost):
    """Step-and-shoot CT; dcm2niix makes one volume of each and warns of missing images."""
    kept = [k for k in range(32) if k not in lost]
    each = [{word: 1 + k // slices, "InstanceNumber": k + 1} for k in kept]
    series(tmp_path, axial(32)[kept], each=each)
    scan = one(tmp_path)
    assert scan.shape[2] == len(kept) and f"({len(lost)} between" in str(scan.issues[0])


def test_a_table_feed_that_does_not_fit_the_slices_is_said(tmp_path):
    positions = [[0, 0, 10.3 * (k // 4) + 2.5 * (k % 4)] for k in range(32)]
    series(tmp_path, positions, each=[{"AcquisitionNumber": 1 + k // 4} for k in range(32)])
    assert (one(tmp_path).shape[2], codes(one(tmp_path))) == (32, [Code.NonUniformSpacing])


def test_an_acquisition_of_two_series_is_complete_however_often_it_is_there(tmp_path):
    for a in range(2):
        for echo in range(2):
            each = [{"InstanceNumber": 2 * k + 1 + echo, "SOPInstanceUID": f"1.2.{a}.{echo}.{k}"} for k in range(12)]
            about = {"AcquisitionNumber": 1, "ImagesInAcquisition": 24, "SeriesInstanceUID": f"1.2.9.{a}.{echo}"}
            series(tmp_path / f"{a}{echo}", axial(12), sop_class=MR, each=each, **about)
    (tmp_path / "copy").write_bytes((tmp_path / "00" / "0000.dcm").read_bytes())
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 4


@pytest.mark.parametrize("word", ["AcquisitionNumber", "TriggerTime"])
@pytest.mark.parametrize(("slices", "distance"), [(5, 35.0), (8, 55.0)])
def test_slabs_over_whose_gaps_the_numbers_run_on_are_scans_of_their_own(tmp_path, word, slices, distance):
    """Discs of a spine, parallel; or two positions of the table."""
    positions = [[0, 0, distance * (k // slices) + 4.0 * (k % slices)] for k in range(3 * slices)]
    series(tmp_path, positions, sop_class=MR, each=[{word: 1 + k // slices} for k in range(3 * slices)])
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path)] == [(slices, ())] * 3


def test_patients_of_one_series_uid_whose_ranges_follow_each_other_by_chance(tmp_path):
    for k in range(2):
        each = [{"SOPInstanceUID": f"1.2.{k}.{i}"} for i in range(6)]
        about = {"PatientID": str(k), "StudyInstanceUID": f"1.2.7.{k}"}
        series(tmp_path / str(k), np.add(axial(6), [0, 0, 15.0 * k]), each=each, **about)
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


@pytest.mark.parametrize(("said", "found"), [(3, []), (None, [Code.InferredVolumes]), (5, [Code.InferredVolumes])])
def test_a_run_whose_volumes_are_numbered_through_and_counted_in_the_header(tmp_path, said, found):
    """GE's functional MR: no Temporal Position Identifier, but Number of Temporal Positions; as in dcm_qa_nih."""
    series(tmp_path, np.concatenate([axial(4)] * 3), sop_class=MR, NumberOfTemporalPositions=said)
    volumes = scans.read(tmp_path)
    assert [scan.shape[2] for scan in volumes] == [4, 4, 4] and [codes(scan) for scan in volumes] == [found] * 3


def test_what_a_maker_keeps_beside_the_images_is_no_lost_slice(tmp_path):
    """Philips' own object in the series of its images, with Rows and without pixels; as in dcm_qa_philips_dwi."""
    series(tmp_path, axial(4), sop_class=MR)
    data = image(picture(), MR, PixelData=None, InstanceNumber=None)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.3.46.670589.11.0.0.12.2"
    save(data, tmp_path / "XX_0546")
    found = scans.read(tmp_path)
    assert [codes(scan) for scan in found] == [[]] and [left.code for left in found.excluded] == [Code.NotAnImage]


def test_a_count_of_no_images_is_no_count(tmp_path):
    series(tmp_path, axial(4), ImagesInAcquisition=0)
    assert one(tmp_path).issues == ()


@pytest.mark.parametrize(("gap", "skip"), [(39, 1), (5.6, 0), (7.5, 100)])
def test_a_jump_of_numbers_that_the_gap_does_not_explain_is_no_loss(tmp_path, gap, skip):
    positions = [[0, 0, 2.5 * (k + (gap - 1) * (k > 9))] for k in range(20)]
    each = [{"AcquisitionNumber": 1 + (k > 9), "InstanceNumber": 1 + k + skip * (k > 9)} for k in range(20)]
    series(tmp_path, positions, each=each)
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path)] == [(10, ()), (10, ())]


def test_follow_ups_under_one_series_uid_that_are_numbered_anew_are_not_torn(tmp_path):
    for k in range(2):
        each = [{"SOPInstanceUID": f"1.2.{k}.{i}", "StudyInstanceUID": f"1.2.7.{k}"} for i in range(6)]
        series(tmp_path / str(k), np.add(axial(6), [0, 0, 15.0 * k]), each=each)
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


@pytest.mark.parametrize(
    ("count", "lost"), [(100, [50]), (100, [20]), (100, [1]), (30, [7]), (200, [60, 61, 90]), (3, [1])]
)
@pytest.mark.parametrize("step", [0.1, 0.2, 0.3])
def test_a_gap_in_steps_as_small_as_their_last_decimal_is_a_gap(tmp_path, count, lost, step):
    """As of the bones of a hand: the rounding of positions to 0.1 mm is half of a step of 0.1 mm, but no slice."""
    positions = np.delete(np.round(axial(count + 1, step), 1), lost, axis=0)
    series(tmp_path, positions, rows=2, columns=2)
    (scan,) = scans.read(tmp_path)
    found = {issue.code: issue.detail for issue in scan.issues}
    assert set(found) == {Code.MissingSlices, Code.NonUniformSpacing}
    assert found[Code.MissingSlices] == f"{len(lost)} between the {count + 1 - len(lost)} found, by position"
    np.testing.assert_allclose(scan.slice_positions, positions[:, 2] - positions[0, 2], atol=1e-6)


@pytest.mark.parametrize("step", [0.12, 0.15, 0.18, 0.22, 0.25, 0.29, 0.333, 0.625, 1.25])
@pytest.mark.parametrize("count", [20, 100])
def test_steps_that_rounding_makes_uneven_are_even(tmp_path, step, count):
    """Positions to 0.1 mm: steps of 0.1 and 0.2 mm of 0.12 mm."""
    series(tmp_path, np.round(axial(count, step), 1), rows=2, columns=2)
    assert scans.read(tmp_path)[0].issues == ()

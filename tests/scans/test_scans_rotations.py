"""Series acquired in pieces (rotations, beds, packages), some of which were acquired again or are lost, and two series
under one UID: whole volumes, or flagged, never clean pieces."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pydicom
import pytest
from make_dicom import MR, PET, axial, save, series
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medlora import scans
from medlora.scans import Code


def codes(scan):
    return [issue.code for issue in scan.issues]


def acquired(folder, pieces, step=5.0, word="AcquisitionNumber", lost=(), **elements):
    """Slices as acquired, numbered through: (the slice at which a piece begins, how many it holds) each.

    Returns:
        The stored values (x, y, slice), those of ``lost`` numbers, from 0, included.
    """
    places = [first + k for first, count in pieces for k in range(count)]
    counts = [1 + i for i, (_, count) in enumerate(pieces) for _ in range(count)]
    each = [{word: count} for count in counts]
    positions = np.array([[-100.0, -80.0, 30.0 + step * place] for place in places])
    volume = series(folder, positions, each=each, **elements)
    for n in lost:
        (folder / f"{n:04d}.dcm").unlink()
    return volume


def by_depth(folder):
    return sorted(scans.read(folder), key=lambda scan: -scan.shape[2])


@pytest.mark.parametrize("slices", [2, 4, 8])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_rotation_that_was_repeated_costs_nothing(tmp_path, slices, at_once):
    """Six rotations, of which the third was acquired again, as the last or as the next."""
    pieces = [(slices * k, slices) for k in range(6)]
    pieces.insert(3 if at_once else 6, (slices * 2, slices))
    volume = acquired(tmp_path, pieces) - 1024.0
    again = slice(3 * slices, 4 * slices) if at_once else slice(6 * slices, 7 * slices)
    stack, rest = by_depth(tmp_path)
    np.testing.assert_array_equal(stack.array, np.delete(volume, again, axis=2))
    np.testing.assert_array_equal(rest.array, volume[:, :, again])
    assert codes(stack) == [Code.InferredVolumes] and codes(rest) == [Code.MissingSlices]
    assert stack.spacing[2] == rest.spacing[2] == 5 and f"({5 * slices} of the {6 * slices}" in str(rest.issues[0])


@pytest.mark.parametrize("at_once", [False, True])
def test_a_rotation_repeated_beside_the_grid_costs_nothing(tmp_path, at_once):
    """The table came back 1.5 mm (0.3 steps) off, so that no two slices lie at one position."""
    pieces = [(4 * k, 4) for k in range(6)]
    pieces.insert(3 if at_once else 6, (8.3, 4))
    volume = acquired(tmp_path, pieces) - 1024.0
    again = slice(12, 16) if at_once else slice(24, 28)
    stack, rest = by_depth(tmp_path)
    np.testing.assert_array_equal(stack.array, np.delete(volume, again, axis=2))
    np.testing.assert_array_equal(rest.array, volume[:, :, again])
    assert codes(stack) == [Code.InferredVolumes] and codes(rest) == [Code.MissingSlices]


def test_a_repeated_bed_of_a_pet_costs_nothing(tmp_path):
    """PS3.3 C.8.9.4.1.5: each bed has a Frame Reference Time of its own."""
    about = {"sop_class": PET, "RescaleSlope": 1, "RescaleIntercept": 0, "Units": "BQML"}
    volume = acquired(tmp_path, [(0, 10), (10, 10), (20, 10), (10, 10)], word="FrameReferenceTime", **about)
    stack, rest = by_depth(tmp_path)
    np.testing.assert_array_equal(stack.array, volume[:, :, :30])
    assert codes(stack) == [Code.InferredVolumes]
    assert rest.shape[2] == 10 and codes(rest) == [Code.MissingSlices]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("lost", [[9], [8, 9, 10, 11], [0, 1, 2, 3], [20, 21, 22, 23, 24, 25, 26, 27]])
def test_before_and_after_contrast_stay_two_where_files_are_lost(tmp_path, lost, back):
    """Six rotations of four slices each, twice, the second time upwards or down; a slice, a rotation, the first one,
    or the last one and the first of the second time are lost."""
    again = [(4 * k, 4) for k in range(6)]
    volume = acquired(tmp_path, [(4 * k, 4) for k in range(6)] + (again[::-1] if back else again), lost=lost) - 1024.0
    order = np.arange(24).reshape(6, 4)
    numbers = [np.arange(24), 24 + (order[::-1].ravel() if back else order.ravel())]
    numbers = [[n for n in half if n not in lost] for half in numbers]
    found = scans.read(tmp_path)
    expected = {volume[:, :, half].astype("f4").tobytes() for half in numbers}
    assert {scan.array.tobytes() for scan in found} == expected
    if len(lost) > 4 and back:  # the last of the first and the first of the second are rotations at one place
        assert all(Code.InferredVolumes in codes(scan) for scan in found)
    else:
        assert all(scan.issues for scan in found)
        short = min(found, key=lambda scan: scan.shape[2])
        assert len(lost) > 4 or Code.MissingSlices in codes(short)


@pytest.mark.parametrize("lost", [[], [33]])
def test_passes_beside_each_others_grid_are_two_volumes(tmp_path, lost):
    """A second time, 0.3 steps off or half a step, in rotations: two passes; a slice may be lost."""
    for offset in (0.3, 0.5):
        folder = tmp_path / str(offset)
        pieces = [(4 * k, 4) for k in range(6)] + [(4 * k + offset, 4) for k in range(6)]
        volume = acquired(folder, pieces, lost=lost, SeriesInstanceUID=f"2.25.{offset * 10:g}") - 1024.0
        found = by_depth(folder)
        if lost:
            assert all(scan.issues for scan in found)
            continue
        assert [codes(scan) for scan in found] == [[Code.InferredVolumes]] * 2
        expected = {volume[:, :, half].astype("f4").tobytes() for half in (slice(0, 24), slice(24, 48))}
        assert {scan.array.tobytes() for scan in found} == expected


def test_a_shuttle_that_was_stopped_midway(tmp_path):
    """Perfusion over two places of the table, back and forth; of the third time one place is there."""
    volume = acquired(tmp_path, [(0, 8), (8, 8), (8, 8), (0, 8), (0, 8)]) - 1024.0
    first, second, third = scans.read(tmp_path)
    np.testing.assert_array_equal(first.array, volume[:, :, :16])
    np.testing.assert_array_equal(second.array, volume[:, :, [*range(24, 32), *range(16, 24)]])
    np.testing.assert_array_equal(third.array, volume[:, :, 32:])
    assert [codes(scan) for scan in (first, second)] == [[Code.InferredVolumes]] * 2
    assert codes(third) == [Code.MissingSlices] and "8 of the 16" in str(third.issues[0])


@pytest.mark.parametrize("lost", [[], [17], [2]])
def test_a_dynamic_pet_of_several_beds(tmp_path, lost):
    about = {"sop_class": PET, "RescaleSlope": 1, "RescaleIntercept": 0, "Units": "BQML"}
    volume = acquired(tmp_path, [(0, 4), (4, 4)] * 3, word="FrameReferenceTime", lost=lost, **about)
    found = scans.read(tmp_path)
    kept = [[n for n in range(8 * t, 8 * t + 8) if n not in lost] for t in range(3)]
    for scan, numbers in zip(found, kept, strict=True):
        np.testing.assert_array_equal(scan.array, volume[:, :, numbers])
        assert Code.InferredVolumes in codes(scan) and (Code.MissingSlices in codes(scan)) == (len(numbers) < 8)


@pytest.mark.parametrize("word", ["AcquisitionNumber", "FrameReferenceTime"])
def test_beds_that_share_their_ends_are_no_whole_scans_slabs_are(tmp_path, word):
    """Step and shoot over a heart, or beds of a PET: four slabs of eight slices, each begins where one ends."""
    about = {"sop_class": PET, "Units": "BQML", "RescaleSlope": 1, "RescaleIntercept": 0}
    acquired(tmp_path, [(7 * k, 8) for k in range(4)], word=word, **(about if word == "FrameReferenceTime" else {}))
    found = scans.read(tmp_path)
    assert [scan.shape[2] for scan in found] == [8] * 4
    assert all(codes(scan) == ([Code.MissingSlices] if word == "FrameReferenceTime" else []) for scan in found)


@pytest.mark.parametrize(
    "pieces",
    [
        [(4 * k, 4) for k in range(10)],  # rotations of one volume
        [(0, 20), (0, 20)],  # two passes
        [(0, 20), (19, 20)],  # neck and chest, one after the other
        [(0, 12), (2, 14), (1, 9)],  # phases of other ranges
        [(0, 10), (20, 10), (0, 10), (20, 10), (0, 10), (20, 10)],  # two places of the table
    ],
)
def test_clean_series_of_whole_pieces(tmp_path, pieces):
    volume = acquired(tmp_path, pieces) - 1024.0
    found = scans.read(tmp_path)
    flagged = [code for scan in found for code in codes(scan)]
    if len(pieces) == 10:
        np.testing.assert_array_equal(found[0].array, volume)
        assert flagged == [] and len(found) == 1
        return
    starts = np.cumsum([0, *(count for _, count in pieces)])
    expected = {volume[:, :, a:b].astype("f4").tobytes() for a, b in itertools.pairwise(starts)}
    assert {scan.array.tobytes() for scan in found} == expected
    # The last is told apart by order, the phase within another is short of its range: as before.
    assert flagged == ([Code.InferredVolumes] * 6 if len(pieces) == 6 else [Code.MissingSlices] * (len(pieces) == 3))


@pytest.mark.parametrize(
    "starts",
    [
        [0, 0, 7.3 / 5, 7.3 / 5, -12.4 / 5],  # shots of a biopsy, the table moved by hand
        [0, 0, 4, 4, 0],
        [0, 0, 5.1, 5.1, 9.7],
        [0, 9.3, 2.1, 30.7],
    ],
)
def test_shots_of_a_biopsy_are_scans_of_their_own(tmp_path, starts):
    volume = acquired(tmp_path, [(start, 3) for start in starts]) - 1024.0
    found = scans.read(tmp_path)
    expected = [volume[:, :, 3 * k : 3 * k + 3].astype("f4").tobytes() for k in range(len(starts))]
    assert sorted(scan.array.tobytes() for scan in found) == sorted(expected)
    assert not any(scan.issues for scan in found)


@pytest.mark.parametrize("starts", [(0, 0, 30), (0, 0.24, 30.46), (0, 0.24, 31.7)])
def test_phases_of_one_region_and_another_region(tmp_path, starts):
    """Arterial and venous, and the pelvis below it once."""
    volume = acquired(tmp_path, [(start, 30) for start in starts]) - 1024.0
    found = scans.read(tmp_path)
    expected = [volume[:, :, 30 * k : 30 * k + 30].astype("f4").tobytes() for k in range(3)]
    assert sorted(scan.array.tobytes() for scan in found) == sorted(expected)
    assert not any(scan.issues for scan in found)


@pytest.mark.parametrize("overlap", [2, 4, 8, 12])
@pytest.mark.parametrize("slabs", [2, 3, 4])
def test_slabs_of_an_angiography_overlap(tmp_path, slabs, overlap):
    pieces = [((40 - overlap) * k, 40) for k in range(slabs)]
    acquired(tmp_path, pieces, step=0.8, word="TriggerTime", sop_class=MR)
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path)] == [(40, ())] * slabs


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
@pytest.mark.parametrize("word", ["AcquisitionNumber", "TriggerTime"])
def test_a_rotation_is_lost_of_those_that_are_each_numbered_from_one(tmp_path, word, lost):
    each = [{word: 1 + k // 8, "InstanceNumber": 1 + k % 8} for k in range(48)]
    volume = series(tmp_path, axial(48, 5.0), each=each) - 1024.0
    for k in range(8 * lost, 8 * lost + 8):
        (tmp_path / f"{k:04d}.dcm").unlink()
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array, np.delete(volume, slice(8 * lost, 8 * lost + 8), axis=2))
    assert codes(scan) == [Code.MissingSlices, Code.NonUniformSpacing]


@pytest.mark.parametrize("lost", [None, 1, 2, 9, 17, 18])
@pytest.mark.parametrize("numbered", ["by place", "by package"])
@pytest.mark.parametrize(("word", "packages"), [("AcquisitionNumber", 2), ("AcquisitionNumber", 3), ("TriggerTime", 4)])
def test_interleaved_packages_stay_one_stack(tmp_path, word, packages, numbered, lost):
    """MR: every second, third or fourth slice was acquired together."""
    number = {k: n + 1 for n, k in enumerate(sorted(range(20), key=lambda k: (k % packages, k)))}
    each = [
        {word: 1 + k % packages, "InstanceNumber": number[k] if numbered == "by package" else k + 1} for k in range(20)
    ]
    volume = series(tmp_path, axial(20, 5.0), sop_class=MR, each=each)
    if lost is not None:
        (tmp_path / f"{lost:04d}.dcm").unlink()
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array, volume if lost is None else np.delete(volume, lost, axis=2))
    assert (Code.MissingSlices in codes(scan)) == bool(scan.issues) == (lost is not None)


@pytest.mark.parametrize(("sop_class", "volumes"), [("1.2.840.10008.5.1.4.1.1.2", [10, 10]), (MR, [20])])
def test_acquisitions_of_a_ct_between_each_other_are_told_by_their_numbers(tmp_path, sop_class, volumes):
    """Inspiration and expiration, thin slices 10 mm apart, the second time half a step off; an MR has packages."""
    positions = np.concatenate([axial(10, 10.0), np.add(axial(10, 10.0), [0, 0, 5.0])])
    each = [{"AcquisitionNumber": 1 + k // 10} for k in range(20)]
    series(tmp_path, positions, sop_class=sop_class, each=each, SliceThickness=1.0)
    assert [(scan.shape[2], scan.issues) for scan in scans.read(tmp_path)] == [(count, ()) for count in volumes]


@pytest.mark.parametrize("thickness", [None, 2.5])
@pytest.mark.parametrize("gap", [3.75, 2.5, 5.0])
def test_rotations_of_two_steps_are_two_stacks(tmp_path, thickness, gap):
    """A head: thin slices at the base of the skull, then thick ones, four in a rotation."""
    places = [2.5 * k for k in range(20)]
    places += [places[-1] + gap + 5.0 * k for k in range(20)]
    each = [{"AcquisitionNumber": 1 + k // 4} for k in range(40)]
    volume = series(tmp_path, [[0, 0, z] for z in places], each=each, SliceThickness=thickness) - 1024.0
    thin, thick = sorted(scans.read(tmp_path), key=lambda scan: scan.spacing[2])
    np.testing.assert_array_equal(thin.array, volume[:, :, :20])
    np.testing.assert_array_equal(thick.array, volume[:, :, 20:])
    assert thin.issues == thick.issues == () and (thin.spacing[2], thick.spacing[2]) == (2.5, 5.0)


def test_a_rotation_that_lost_every_second_slice_is_no_stack_of_another_step(tmp_path):
    acquired(tmp_path, [(5 * k, 5) for k in range(8)], lost=[11, 13])
    (scan,) = scans.read(tmp_path)
    assert scan.shape[2] == 38 and Code.MissingSlices in codes(scan) and "(2 between" in str(scan.issues[0])


def two_series(folder, shift, word="SeriesNumber", values=(3, 4), number=0, **elements):
    """Ten slices each, 5 mm apart, the second series ``shift`` mm higher and its instance numbers ``number`` higher."""
    positions = np.concatenate([axial(10, 5.0), np.add(axial(10, 5.0), [0, 0, shift])])
    each = [{word: values[k // 10], "InstanceNumber": 1 + k % 10 + number * (k // 10)} for k in range(20)]
    return series(folder, positions, each=each, **elements)


@pytest.mark.parametrize("number", [0, 10])
@pytest.mark.parametrize(("shift", "thickness"), [(0.0, None), (0.0, 5.0), (2.5, 5.0), (1.7, None), (27.5, None)])
def test_series_of_two_numbers_under_one_uid_are_parted(tmp_path, shift, thickness, number):
    volume = two_series(tmp_path, shift, number=number, sop_class=MR, SliceThickness=thickness)
    found = scans.read(tmp_path)
    assert [scan.issues for scan in found] == [(), ()]
    expected = {volume[:, :, half].astype("f4").tobytes() for half in (slice(0, 10), slice(10, 20))}
    assert {scan.array.tobytes() for scan in found} == expected


@pytest.mark.parametrize(("word", "values"), [("SeriesNumber", (3, 4)), ("PatientPosition", ("HFS", "HFP"))])
def test_series_that_lie_end_to_end_are_said_to_be_mixed(tmp_path, word, values):
    """Or one series was corrected halfway: nothing tells."""
    two_series(tmp_path / "two", 50.0, word, values)
    two_series(tmp_path / "one", 50.0, word, (values[0], values[0]), number=10)
    (two,), (one,) = scans.read(tmp_path / "two"), scans.read(tmp_path / "one")
    assert [(issue.code, issue.detail) for issue in two.issues] == [(Code.MixedSlices, word)]
    assert one.issues == () and one.shape[2] == two.shape[2] == 20


def test_prone_and_supine_are_told_apart(tmp_path):
    volume = two_series(tmp_path, 0.0, "PatientPosition", ("HFS", "HFP"))
    found = {scan.header["PatientPosition"]: scan for scan in scans.read(tmp_path)}
    np.testing.assert_array_equal(found["HFP"].array, volume[:, :, 10:] - 1024.0)
    assert found["HFS"].issues == found["HFP"].issues == ()


@pytest.mark.parametrize("lost", [None, 13])
def test_a_series_number_for_each_file_parts_nothing(tmp_path, lost):
    """As careless anonymisation gives it; alone, and beside an acquisition number that does part."""
    each = [{"SeriesNumber": 900 + k} for k in range(10)]
    series(tmp_path / "one", axial(10), each=each)
    for k, fields in enumerate(each + each):
        fields |= {"AcquisitionNumber": 1 + k // 10}
    each = [
        {"SeriesNumber": 900 + k, "AcquisitionNumber": 1 + k // 10, "SeriesInstanceUID": "2.25.8"} for k in range(20)
    ]
    series(tmp_path / "two", np.concatenate([axial(10)] * 2), each=each)
    for k, path in enumerate(sorted((tmp_path / "two").iterdir())):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"2.25.8.{k}"
        save(data, path)
    if lost is not None:
        (tmp_path / "two" / f"{lost:04d}.dcm").unlink()
    found = {path: [] for path in ("one", "two")}
    for scan in scans.read(tmp_path):
        found[scan.sources[0].parent.name].append((scan.shape[2], set(codes(scan))))
    assert found["one"] == [(10, set())]
    if lost is None:
        assert found["two"] == [(10, set())] * 2
    else:
        whole, short = sorted(found["two"], reverse=True)
        assert whole == (10, set()) and short[0] == 9 and Code.MissingSlices in short[1]


@pytest.mark.parametrize("deflated", ["none", "first", "both"])
@pytest.mark.parametrize("word", ["PatientName", "SeriesNumber"])
def test_slices_sent_again_under_other_uids_are_copies(tmp_path, deflated, word):
    """Deflated (PS3.5 A.5) or not, and whether or not another series number came with it."""
    volume = series(tmp_path, axial(5), SeriesNumber=3)
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        data = pydicom.dcmread(path)
        for name, again in (("first", False), ("both", True)):
            if again:
                data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"2.25.7.{k}"
                setattr(data, word, 9 if word == "SeriesNumber" else "Other")
            if deflated in (name, "both"):
                data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            else:
                data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            save(data, tmp_path / "again" / path.name if again else path)
    found = scans.read(tmp_path)
    np.testing.assert_array_equal(found[0].array, volume - 1024.0)
    assert found[0].issues == () and len(found) == 1
    assert [left.code for left in found.excluded] == [Code.DuplicateFile] * 5


@pytest.mark.parametrize("deflated", [False, True])
def test_a_file_that_vanishes_costs_no_archive(tmp_path, deflated):
    for name in ("a", "b"):
        each = [{"SOPInstanceUID": f"2.25.{ord(name)}.{k}"} for k in range(4)]
        series(tmp_path / name, axial(4), each=each)
        for k, path in enumerate(sorted((tmp_path / name).iterdir())):
            data = pydicom.dcmread(path)
            data.PixelData = bytes([ord(name) + k]) * len(data.PixelData)  # no copies
            save(data, path)
    series(tmp_path / "other", axial(4), SeriesInstanceUID="2.25.9")
    if deflated:
        for path in tmp_path.glob("?/*"):
            data = pydicom.dcmread(path)
            data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            save(data, path)
    headers = [scans.read_header(path) for path in scans.list_files(tmp_path)]
    shutil.rmtree(tmp_path / "b")
    found = scans.survey(tmp_path, headers=headers)
    assert [files.identity.series_uid for files in found.scans] == ["2.25.9"]
    assert [left.code for left in found.excluded] == [Code.DuplicatePosition]

"""Several volumes in one series: told apart by what their headers say, and what one lacks that another has."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from make_dicom import MR, axial, save, series
from test_scans_frames import ENHANCED_MR, enhanced, macro, stack

from medlora import scans
from medlora.scans import Code

HALFWAY = (-100.0, -80.0, 32.5)


def codes(scan):
    return [issue.code for issue in scan.issues]


@pytest.mark.parametrize("lost", [None, 7])
@pytest.mark.parametrize("by_slice", [False, True])
def test_b_values_that_only_the_sequence_name_gives(tmp_path, lost, by_slice):
    """Siemens before (0018,9087): b-value and trace in the Sequence Name, a time of its own for each slice."""
    each = [
        {"SequenceName": f"*ep_b{(50, 400, 800)[k // 5]}t", "AcquisitionTime": f"1200{k // 5:02d}.{k % 5}",
         "InstanceNumber": 3 * (k % 5) + k // 5 + 1 if by_slice else k + 1, "AcquisitionNumber": 1}
        for k in range(15)
    ]  # fmt: skip
    volume = series(tmp_path, np.concatenate([axial(5)] * 3), sop_class=MR, each=each)
    if lost is not None:
        (tmp_path / f"{lost:04d}.dcm").unlink()
    found = {scan.header["SequenceName"]: scan for scan in scans.read(tmp_path)}
    assert sorted(found) == ["*ep_b400t", "*ep_b50t", "*ep_b800t"]
    np.testing.assert_array_equal(found["*ep_b800t"].array, volume[:, :, 10:])
    assert found["*ep_b50t"].issues == found["*ep_b800t"].issues == ()
    assert (Code.MissingSlices in codes(found["*ep_b400t"])) == (lost is not None)


@pytest.mark.parametrize(("said", "found"), [(6, []), (5, [Code.InferredVolumes]), (None, [Code.InferredVolumes])])
def test_phases_of_the_heart_as_many_as_the_header_says(tmp_path, said, found):
    """PS3.3 C.8.3.1: Cardiac Number of Images; the trigger times of each slice follow its own heart beats."""
    each = [
        {
            "TriggerTime": 30.5 * (k % 6) + (k // 6) * 0.25,
            "CardiacNumberOfImages": said,
            "AcquisitionNumber": 1 + k // 6,
        }
        for k in range(24)
    ]
    volume = series(tmp_path, np.repeat(axial(4, 8.0), 6, 0), sop_class=MR, each=each)
    phases = sorted(scans.read(tmp_path), key=lambda scan: scan.header["TriggerTime"])
    assert len(phases) == 6 and all(codes(phase) == found for phase in phases)
    np.testing.assert_array_equal(phases[2].array, volume[:, :, 2::6])


@pytest.mark.parametrize("numbered", [False, True])
def test_water_and_fat_over_time_are_told_apart_by_both(tmp_path, numbered):
    kinds = [(time, kind) for time in range(3) for kind in ("WATER", "FAT")]
    each = [
        {"ImageType": ["DERIVED", "PRIMARY", "DIXON", kind], "AcquisitionTime": f"12{time:02d}00",
         "InstanceNumber": 5 * n + k + 1 if numbered else 0}
        for n, (time, kind) in enumerate(kinds) for k in range(5)
    ]  # fmt: skip
    volume = series(tmp_path, np.concatenate([axial(5)] * 6), sop_class=MR, each=each)
    found = scans.read(tmp_path)
    assert len(found) == 6 and all(scan.issues == () for scan in found)
    expected = {volume[:, :, 5 * n : 5 * n + 5].astype("f4").tobytes() for n in range(6)}
    assert {scan.array.tobytes() for scan in found} == expected


@pytest.mark.parametrize(
    ("echoes", "resent"), [(1, False), (1, True), (2, False), (2, True)], ids=["one", "one resent", "two", "two resent"]
)
def test_acquisitions_half_a_step_apart_are_parted_whatever_else_the_series_holds(tmp_path, echoes, resent):
    """Slices as thick as the step of each acquisition, which begins its numbers anew."""
    positions = np.concatenate([axial(8, 5.0), axial(8, 5.0, HALFWAY)] * echoes)
    each = [
        {"AcquisitionNumber": 1 + k // 8 % 2, "InstanceNumber": 1 + k % 8, "EchoNumbers": 1 + k // 16}
        for k in range(16 * echoes)
    ]
    volume = series(tmp_path, positions, sop_class=MR, each=each, SliceThickness=5.0)
    if resent:
        data = pydicom.dcmread(tmp_path / "0003.dcm")
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.7.999"
        save(data, tmp_path / "resent")
    found = scans.read(tmp_path)
    assert [e.code for e in found.excluded] == [Code.DuplicateFile] * resent
    assert all(scan.issues == () and scan.spacing[2] == pytest.approx(5) for scan in found)
    expected = {volume[:, :, 8 * n : 8 * n + 8].astype("f4").tobytes() for n in range(2 * echoes)}
    assert {scan.array.tobytes() for scan in found} == expected and len(found) == 2 * echoes


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("ImageType", [["DERIVED", "PRIMARY", "DIXON", "WATER"], ["DERIVED", "PRIMARY", "DIXON", "FAT"]]),
        ("SequenceName", ["*ep_b50t", "*ep_b800t"]),
    ],
)
def test_half_water_and_half_fat_are_no_clean_volume(tmp_path, word, kinds):
    series(tmp_path, axial(10), sop_class=MR, each=[{word: kinds[k > 5]} for k in range(10)])
    (scan,) = scans.read(tmp_path)
    assert codes(scan) == [Code.MixedSlices] and word in scan.issues[0].detail


def of_frames(folder, name, positions, **elements):
    number = int(name) + 1
    extra = elements.pop("extra", None)
    enhanced(stack(len(positions)), positions, folder / name, extra, sop_class=ENHANCED_MR, InstanceNumber=number,
             SOPInstanceUID=f"1.2.5.{number}", **elements)  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        (slice(0, 6), []),
        (slice(0, 4), ["2 of the 6 that another volume has"]),
        (slice(2, 6), ["2 of the 6 that another volume has"]),
    ],
)
def test_a_run_of_a_file_for_each_volume_whose_last_was_stopped(tmp_path, kept, found):
    for time, slices in enumerate((slice(0, 6), slice(0, 6), kept)):
        of_frames(tmp_path, str(time), axial(6)[slices])
    issues = {scan.sources[0].name: [issue.detail for issue in scan.issues] for scan in scans.read(tmp_path)}
    assert issues == {"0": [], "1": [], "2": found}


def test_files_of_other_kinds_or_places_lack_nothing(tmp_path):
    of_frames(tmp_path, "0", axial(6))
    of_frames(tmp_path, "1", axial(6)[:4], ImageType=["DERIVED", "PRIMARY", "DIXON", "FAT"])
    of_frames(tmp_path, "2", axial(4, start=(-60.0, -80.0, 30.0)))
    of_frames(tmp_path, "3", axial(6)[::2])
    assert all(scan.issues == () for scan in scans.read(tmp_path))


def test_a_stack_scattered_over_files_of_several_frames_is_said(tmp_path):
    """Without a Concatenation UID (PS3.3 C.7.6.16.1.1) nothing says that they belong together."""
    for part in range(2):
        of_frames(tmp_path / "slabs", str(part), axial(20)[10 * part : 10 * part + 10])
    found = scans.read(tmp_path / "slabs")
    assert [[issue.detail for issue in scan.issues] for scan in found] == [
        ["10 that go on with the stack are in other files"]
    ] * 2
    phases = [{"CardiacSynchronizationSequence": macro(NominalCardiacTriggerDelayTime=40.0 * t)} for t in range(3)]
    for z in range(4):
        of_frames(tmp_path / "slices", str(z), axial(4)[[z] * 3], extra=phases)
    found = scans.read(tmp_path / "slices")
    assert len(found) == 12 and all(codes(scan) == [Code.MissingSlices] for scan in found)


@pytest.mark.parametrize("kind", [["DERIVED", "PRIMARY", "M", "SUB"], ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]])
def test_what_was_computed_of_some_slices_lacks_none(tmp_path, kind):
    """Twenty slices before and after contrast, and the differences of eight."""
    places = [*axial(20), *axial(20), *axial(20)[6:14]]
    kinds = [["ORIGINAL", "PRIMARY", "M", "ND"]] * 40 + [kind] * 8
    each = [
        {"ImageType": kind, "TemporalPositionIdentifier": 1 + (20 <= k < 40), "InstanceNumber": k + 1}
        for k, kind in enumerate(kinds)
    ]
    series(tmp_path, np.array(places), sop_class=MR, each=each)
    assert sorted((scan.shape[2], scan.issues) for scan in scans.read(tmp_path)) == [(8, ()), (20, ()), (20, ())]

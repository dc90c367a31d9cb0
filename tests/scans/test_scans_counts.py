"""What counts and numbers say of a series beside others: lost, numbered on from scouts, computed later, in pieces."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, MR, SC, axial, image, picture, save, series

from medlora import scans
from medlora.scans import Code

CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def codes(scan):
    return [issue.code for issue in scan.issues]


def lost(path):
    """By number of slices, of each scan what it is said to lack."""
    return [(scan.shape[2], [i.detail for i in scan.issues if i.code is Code.MissingSlices]) for scan in read(path)]


def read(path):
    return sorted(scans.read(path), key=lambda scan: -scan.shape[2])


def part(folder, count, number, uid, first=0.0, **elements):
    """A series of its own, numbered from ``number`` on."""
    each = [{"InstanceNumber": number + k, "SOPInstanceUID": f"{uid}.{k}"} for k in range(count)]
    return series(folder / uid, np.add(axial(count), [0, 0, first]), each=each, SeriesInstanceUID=uid, **elements)


def scout(folder, number, uid="1.2.77", **elements):
    about = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "InstanceNumber": number, "PixelSpacing": [1, 1]}
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(CORONAL), "SeriesInstanceUID": uid}
    save(image(picture(20, 30), **(about | place | elements)), folder / f"scout {number}")


def capture(folder, number, **elements):
    about = {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "Modality": "CT", "SeriesInstanceUID": "1.2.999"}
    save(image(picture(40, 50), SC, InstanceNumber=number, **(about | elements)), folder / f"capture {number}")


# Water and fat, magnitude and phase ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [40, 32])
@pytest.mark.parametrize(
    "kinds",
    [
        (["DERIVED", "PRIMARY", "DIXON", "W"], ["DERIVED", "PRIMARY", "DIXON", "F"]),
        (["ORIGINAL", "PRIMARY", "M", "ND"], ["ORIGINAL", "PRIMARY", "P", "ND"]),
    ],
)
def test_the_end_of_an_mr_run_told_apart_by_image_type_is_missed(tmp_path, kinds, kept):
    """20 of each; where the transfer broke off 8 before the end, the second has 12 of the 20."""
    each = [{"ImageType": kinds[k // 20], "InstanceNumber": k + 1} for k in range(40)][:kept]
    series(tmp_path, np.concatenate([axial(20), axial(20)])[:kept], sop_class=MR, each=each)
    second = (20, []) if kept == 40 else (12, ["8 of the 20 that another volume has"])
    assert lost(tmp_path) == [(20, []), second]


def test_maps_of_some_slices_lack_none_of_the_others(tmp_path):
    kinds = ["ORIGINAL", "PRIMARY", "M", "ND"], ["DERIVED", "SECONDARY", "MAP"]
    each = [{"ImageType": kinds[k // 20], "InstanceNumber": k + 1} for k in range(32)]
    series(tmp_path, np.concatenate([axial(20), axial(20)])[:32], sop_class=MR, each=each)
    assert lost(tmp_path) == [(20, []), (12, [])]


# Sums of thin slices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "found"), [(["ADD"], []), (["ADD", "X"], [Code.MixedSlices]), (["X"], [Code.MixedSlices])]
)
def test_slices_that_ge_summed_up_are_of_one_kind_with_the_others(tmp_path, other, found):
    kind = ["ORIGINAL", "PRIMARY", "AXIAL"]
    series(tmp_path, axial(10), each=[{"ImageType": [*kind, *other] if k < 5 else kind} for k in range(10)])
    (scan,) = scans.read(tmp_path)
    assert codes(scan) == found


def test_sums_of_another_thickness_are_still_mixed(tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "AXIAL"]
    each = [{"ImageType": [*kind, "ADD"], "KVP": 120} if k < 5 else {"ImageType": kind, "KVP": 140} for k in range(10)]
    series(tmp_path, axial(10), each=each)
    (scan,) = scans.read(tmp_path)
    assert [str(issue.detail) for issue in scan.issues] == ["KVP"]


# Numbered on from the scouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["capture", "reconstruction", "both", "reformatted"])
def test_axials_numbered_on_from_the_scout_are_complete_whatever_else_there_is(tmp_path, beside):
    scout(tmp_path, 1)
    part(tmp_path, 10, 2, "1.2.5")
    if beside in ("capture", "both"):
        capture(tmp_path, 1)
    if beside in ("reconstruction", "both"):
        part(tmp_path, 10, 2, "1.2.6", ConvolutionKernel="B70f")
    if beside == "reformatted":
        part(tmp_path, 12, 1, "1.2.6", orientation=SAGITTAL, ImageType=["DERIVED", "SECONDARY", "MPR"])
    assert all(said == [] for _, said in lost(tmp_path))


def test_a_scout_in_the_series_of_one_reconstruction_counts_for_the_other(tmp_path):
    scout(tmp_path, 1, uid="1.2.5")
    part(tmp_path, 10, 2, "1.2.5")
    part(tmp_path, 10, 2, "1.2.6", ConvolutionKernel="B70f")
    assert lost(tmp_path) == [(10, []), (10, []), (1, [])]


def test_a_short_series_numbered_on_is_followed_by_the_next(tmp_path):
    """A scout of number 1, slices 2 to 4, then twice 5 to 14: the first ones of neither are lost."""
    scout(tmp_path, 1)
    part(tmp_path, 3, 2, "1.2.4")
    for uid in ("1.2.5", "1.2.6"):
        part(tmp_path, 10, 5, uid)
    assert lost(tmp_path) == [(10, []), (10, []), (3, []), (1, [])]


@pytest.mark.parametrize("scouts", [0, 1, 2])
def test_the_first_slices_are_lost_where_no_scouts_have_their_numbers(tmp_path, scouts):
    """Numbered from 4 on: two or three of the numbers before are nowhere."""
    for number in range(1, scouts + 1):
        scout(tmp_path, number)
    part(tmp_path, 10, 4, "1.2.5")
    assert lost(tmp_path)[0] == (10, ["the first 3, by Instance Number"])


def test_the_first_slices_are_lost_where_the_other_series_begin_at_1(tmp_path):
    """Two scouts numbered 1 and 2 in a series of their own prove nothing where the soft slices begin at 1, too."""
    scout(tmp_path, 1)
    scout(tmp_path, 2)
    part(tmp_path, 12, 1, "1.2.5")
    part(tmp_path, 10, 3, "1.2.6", first=5.0)
    assert lost(tmp_path)[:2] == [(12, []), (10, ["the first 2, by Instance Number"])]


def test_a_capture_numbered_1_is_no_scout(tmp_path):
    part(tmp_path, 10, 2, "1.2.5")
    capture(tmp_path, 1)
    assert lost(tmp_path)[0] == (10, ["the first 1, by Instance Number"])


def test_numbers_far_beyond_any_count_cost_nothing(tmp_path):
    part(tmp_path, 5, 2_000_000_000, "1.2.5")
    part(tmp_path, 5, 2_000_000_000, "1.2.6")
    assert lost(tmp_path) == [(5, []), (5, [])]


# Counts of the source ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "number"), [(25, 1), (24, 0), (24, 100)])
@pytest.mark.parametrize("kind", ["ADC", "SUB", "CBV"])
def test_maps_that_keep_the_count_of_their_source_are_complete(tmp_path, count, number, kind):
    kinds = ["DERIVED", "SECONDARY", kind]
    part(tmp_path, count, number, "1.2.5", sop_class=MR, ImagesInAcquisition=105, ImageType=kinds)
    assert lost(tmp_path) == [(count, [])]


@pytest.mark.parametrize("kind", [["ORIGINAL", "PRIMARY", "OTHER"], ["DERIVED", "PRIMARY", "DIXON", "WATER"]])
@pytest.mark.parametrize(("count", "said"), [(18, ["2 of 20, by Images in Acquisition"]), (20, [])])
def test_images_of_the_acquisition_itself_are_counted(tmp_path, kind, count, said):
    """Lossy compression makes DERIVED of primary images, too, without a change of their count."""
    part(tmp_path, count, 1, "1.2.5", sop_class=MR, ImagesInAcquisition=20, ImageType=kind)
    assert lost(tmp_path) == [(count, said)]


def test_primary_maps_beside_all_of_their_source(tmp_path):
    """30 of 30 originals, and 7 maps: 37 images, of which the 30 are complete."""
    part(tmp_path, 30, 1, "1.2.5", sop_class=MR, ImagesInAcquisition=30)
    part(tmp_path, 7, 1, "1.2.6", sop_class=MR, ImagesInAcquisition=30, ImageType=["DERIVED", "PRIMARY", "ADC"])
    assert lost(tmp_path) == [(30, []), (7, [])]


# A UID for each file -------------------------------------------------------------------------------------------------


def pieces(folder, count, step=2.5, places=None, **changed):
    """One file per slice, in each of which the elements of ``changed`` are what its function makes of the number."""
    places = axial(count, step) if places is None else places
    each = [{word: make(k) for word, make in changed.items()} for k in range(count)]
    series(folder, places, each=each, FrameOfReferenceUID="1.2.9")


@pytest.mark.parametrize("count", [64, 65, 100])
@pytest.mark.parametrize("words", [["StudyInstanceUID"], ["PatientID"], ["StudyInstanceUID", "PatientID"]])
def test_a_patient_or_study_for_each_file_is_torn_however_many_there_are(tmp_path, count, words):
    pieces(tmp_path, count, **dict.fromkeys(words, lambda k: f"1.2.{k + 10}"))
    found = scans.survey(tmp_path).scans
    assert len(found) == count and all([i.code for i in scan.issues] == [Code.MissingSlices] for scan in found)
    assert all(scan.issues[0].detail.startswith(f"{count - 1} that go on with the stack") for scan in found)


@pytest.mark.parametrize("step", [0.0, 3.0])
def test_single_slices_of_many_patients_under_one_series_uid_are_no_stack(tmp_path, step):
    """At one place, or in even steps, but with numbers that do not run with them."""
    makers = dict.fromkeys(("StudyInstanceUID", "PatientID"), lambda k: f"1.2.{k + 10}")
    pieces(tmp_path, 70, step=step, InstanceNumber=lambda k: 1 + k * 37 % 101, **makers)
    found = scans.survey(tmp_path).scans
    assert len(found) == 70 and all(scan.issues == () for scan in found)


@pytest.mark.parametrize("where", ["one folder", "a folder each"])
@pytest.mark.parametrize("words", [["SeriesInstanceUID"], ["SeriesInstanceUID", "StudyInstanceUID"]])
def test_a_series_uid_for_each_file_is_told(tmp_path, where, words):
    """As a loop that calls generate_uid() for each file leaves them; the PACS then makes a folder of each series."""
    pieces(tmp_path, 12, SeriesNumber=lambda k: 3, **dict.fromkeys(words, lambda k: f"1.2.{k + 10}"))
    if where != "one folder":
        for path in sorted(tmp_path.iterdir()):
            (tmp_path / path.stem).mkdir()
            path.rename(tmp_path / path.stem / path.name)
    found = scans.read(tmp_path)
    detail = "11 that go on with the stack are in other series"
    told = [] if where != "one folder" and len(words) > 1 else [detail]  # where nothing holds them together
    assert [[issue.detail for issue in scan.issues] for scan in found] == [told] * 12


def test_two_reconstructions_with_a_series_uid_for_each_file(tmp_path):
    """10 soft and 10 sharp slices at the same places, numbered 1 to 10 each, without a Series Number."""
    kernel = ("B30f", "B70f")
    pieces(
        tmp_path, 20, places=np.concatenate([axial(10), axial(10)]), InstanceNumber=lambda k: k % 10 + 1,
        SeriesInstanceUID=lambda k: f"1.2.{k + 10}", ConvolutionKernel=lambda k: kernel[k // 10],
    )  # fmt: skip
    details = [[issue.detail for issue in scan.issues] for scan in scans.read(tmp_path)]
    assert details == [["9 that go on with the stack are in other series"]] * 20


def test_where_a_slice_is_lost_both_sides_are_told(tmp_path):
    """Of 12 slices the sixth: 5 before it, 6 after it."""
    kept = [k for k in range(12) if k != 5]
    pieces(
        tmp_path, 11, places=axial(12)[kept], InstanceNumber=lambda k: kept[k] + 1,
        SeriesInstanceUID=lambda k: f"1.2.{k + 10}",
    )  # fmt: skip
    details = sorted(scan.issues[0].detail[:2].strip() for scan in scans.read(tmp_path))
    assert details == ["4"] * 5 + ["5"] * 6


@pytest.mark.parametrize(
    "changed",
    [
        {"ImageType": lambda k: ["ORIGINAL", "PRIMARY", "LOCALIZER"]},  # scouts
        {"ImagePositionPatient": lambda k: [0, 0, 30]},  # bolus tracking
        {"InstanceNumber": lambda k: 1},  # biopsies, each numbered anew
        {"InstanceNumber": lambda k: None},
        {"ImageOrientationPatient": lambda k: list((AXIAL, CORONAL, SAGITTAL)[k % 3])},  # three planes
        {"ImagePositionPatient": lambda k: [0, 0, k * k]},  # where the needle is looked for
        {"SeriesNumber": lambda k: k + 1},  # a series each, as it says
        {"PatientID": lambda k: f"{k}"},  # teaching files
        {"InstanceNumber": lambda k: 1 + 2 * k},
    ],
)
def test_series_of_one_image_that_are_no_stack_stay_clean(tmp_path, changed):
    pieces(tmp_path, 6, **({"SeriesInstanceUID": lambda k: f"1.2.{k + 10}", "SeriesNumber": lambda k: 3} | changed))
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 6


def test_two_series_of_one_image_are_not_enough(tmp_path):
    pieces(tmp_path, 2, SeriesInstanceUID=lambda k: f"1.2.{k + 10}")
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


@pytest.mark.parametrize(("count", "issues"), [(4, 0), (5, 5)])
def test_four_of_many_single_images_may_follow_each_other_by_chance(tmp_path, count, issues):
    """Of other studies and frames of reference, as in a folder of teaching cases; five are no chance."""
    makers = {word: lambda k: f"1.2.{k + 10}" for word in ("SeriesInstanceUID", "StudyInstanceUID")}
    pieces(tmp_path, count, **makers)
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        header = pydicom.dcmread(path)
        header.FrameOfReferenceUID = f"1.2.9.{k + 1}"
        header.save_as(path)
    found = scans.survey(tmp_path).scans
    assert len(found) == count and sum(bool(scan.issues) for scan in found) == issues

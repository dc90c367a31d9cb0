"""Two examinations or acquisitions that look like one stack, one stack that looks like two, and what is left of one."""

from __future__ import annotations

import numpy as np
import pytest
from make_dicom import AXIAL, CR, CT, MR, PET, axial, image, picture, save, series
from test_scans_runs import of_frames

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code, MonaiReader, torn

HALFWAY = (-100.0, -80.0, 31.25)
SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


def codes(scan):
    return [issue.code for issue in scan.issues]


def mixed(scan):
    return [issue.detail for issue in scan.issues if issue.code is Code.MixedSlices]


def of_days(*days):
    """Elements of slices that were made on these days of January."""
    words = ("StudyDate", "AcquisitionDate", "ContentDate")
    return [dict.fromkeys(words, f"202001{day:02d}") for day in days]


# Slices of two examinations.


@pytest.mark.parametrize("count", [2, 4, 20])
@pytest.mark.parametrize("others", [slice(0, None, 2), slice(1, 2), slice(-1, None)])
def test_slices_of_two_studies_under_one_uid_are_mixed(tmp_path, count, others):
    """PS3.3 C.7.2.1: Study Date is of the study, so all its images have the same."""
    days = np.full(count, 2)
    days[others] = 30
    series(tmp_path, axial(count), each=of_days(*days))
    (scan,) = scans.read(tmp_path)
    assert codes(scan) == [Code.MixedSlices] and mixed(scan) == ["StudyDate, AcquisitionDate"]
    assert "2020" not in str(scan.issues)  # dates are identifiers


def test_acquisitions_days_apart_are_mixed_though_the_study_has_one_date(tmp_path):
    each = [{"StudyDate": "20200101", "AcquisitionDate": f"202001{3 if k < 5 else 1:02d}"} for k in range(10)]
    series(tmp_path, axial(10), each=each)
    assert mixed(scans.read(tmp_path)[0]) == ["AcquisitionDate"]


def test_dates_as_old_files_write_them_are_dates(tmp_path):
    """PS3.5 6.2: YYYY.MM.DD, as before version 3.0."""
    series(tmp_path, axial(10), each=[{"StudyDate": "2020.01.02" if k < 5 else "2020.03.02"} for k in range(10)])
    assert mixed(scans.read(tmp_path)[0]) == ["StudyDate"]


@pytest.mark.parametrize(
    "each",
    [
        [
            {"StudyDate": "20191231", "AcquisitionDate": "20191231" if k < 5 else "20200101"} for k in range(10)
        ],  # midnight
        [{"StudyDate": "2020.01.02" if k < 5 else "20200102"} for k in range(10)],  # PS3.5 6.2: as written before 3.0
        [{"StudyDate": "20200102" if k < 5 else None} for k in range(10)],
        [{"StudyDate": "20200102" if k < 5 else ""} for k in range(10)],
        [{"StudyDate": "20200102" if k < 5 else "unknown"} for k in range(10)],
        [{"ContentDate": "20200102" if k < 5 else "20200110"} for k in range(10)],  # when it was computed
        of_days(*range(1, 11)),  # shifted anew for each file, by careless anonymisation
    ],
)
def test_dates_of_one_study_are_clean(tmp_path, each):
    series(tmp_path, axial(10), each=each)
    assert scans.read(tmp_path)[0].issues == ()


# Two acquisitions woven into each other.


@pytest.mark.parametrize("sop_class", [CT, MR, PET])
@pytest.mark.parametrize("more", [0, 1])
def test_acquisitions_half_a_step_apart_that_nothing_parts_are_mixed(tmp_path, sop_class, more):
    positions = np.concatenate([axial(10 + more), axial(10, start=HALFWAY)])
    each = [
        {
            "InstanceNumber": k + 1 if k < 10 + more else k - 9 - more,
            "AcquisitionTime": "100000" if k < 10 else "113000",
        }
        for k in range(20 + more)
    ]
    series(tmp_path, positions, sop_class=sop_class, each=each, AcquisitionNumber=1, SliceThickness=1.0, Units="BQML")
    (scan,) = scans.read(tmp_path)
    assert scan.shape[2] == 20 + more and mixed(scan) == ["instance numbers that are there twice"]


@pytest.mark.parametrize(
    "numbers",
    [
        [1 + k % 10 for k in range(20)],  # slabs side by side, numbered anew
        [1 + k // 10 for k in range(20)],
        [1] * 20,
        [*range(1, 20), 19],
        [None if k % 2 else k for k in range(20)],
    ],
)
def test_numbers_that_are_there_twice_in_one_stack_are_clean(tmp_path, numbers):
    series(tmp_path, axial(20), each=[{"InstanceNumber": number} for number in numbers])
    (scan,) = scans.read(tmp_path)
    assert scan.shape[2] == 20 and scan.issues == ()


@pytest.mark.parametrize(
    ("thick", "through", "said"),
    [(2.5, False, ["20 slices where Number of Slices says 10"]), (1.25, False, []), (2.5, True, [])],
)
def test_a_pet_of_more_slices_than_it_says(tmp_path, thick, through, said):
    """PS3.3 C.8.9.1: Number of Slices is that of each separate volume; but some may count those of a bed."""
    each = [{"InstanceNumber": k + 1 if through else k // 2 + 1 + 10 * (k % 2)} for k in range(20)]
    about = {"NumberOfSlices": 10, "Units": "BQML", "RescaleSlope": 1, "RescaleIntercept": 0}
    series(tmp_path, axial(20, 1.25), sop_class=PET, SliceThickness=thick, each=each, **about)
    assert mixed(scans.read(tmp_path)[0]) == said


# One slice is left.


@pytest.mark.parametrize(
    ("sop_class", "count", "detail"),
    [
        (PET, {"NumberOfSlices": 47}, "46 of 47, by Number of Slices"),
        (CT, {"ImagesInAcquisition": 120}, "119 of 120, by Images in Acquisition"),
        (MR, {"ImagesInAcquisition": 20}, "19 of 20, by Images in Acquisition"),
    ],
)
def test_the_only_slice_left_of_a_counted_series(tmp_path, sop_class, count, detail):
    about = {"Units": "BQML", "RescaleSlope": 1, "RescaleIntercept": 0}
    series(tmp_path, axial(1), sop_class=sop_class, InstanceNumber=12, **about, **count)
    (scan,) = scans.read(tmp_path)
    assert [issue.detail for issue in scan.issues] == [detail]


@pytest.mark.parametrize(
    "about",
    [
        {"ImagesInAcquisition": 1},
        {"ImagesInAcquisition": 2, **SCOUT},
        {"ImagesInAcquisition": 120, "ImageType": ["DERIVED", "PRIMARY", "MPR"]},
        {"ImagesInAcquisition": 120, "ImageType": ["DERIVED", "SECONDARY"]},
        {"ImagesInAcquisition": 120, "ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]},
        {"ImagesInAcquisition": 2, "sop_class": CR},
        {"ImagesInAcquisition": 0},
    ],
)
def test_a_slice_by_itself_that_lacks_nothing(tmp_path, about):
    series(tmp_path, axial(1), **({"InstanceNumber": 12} | about))
    assert scans.read(tmp_path)[0].issues == ()


def test_counts_are_of_slices_with_a_place_and_not_of_one_place(tmp_path):
    lost = {"ImagesInAcquisition": 20, "InstanceNumber": 12, "ImagePositionPatient": None}
    series(tmp_path / "no place", axial(1), each=[lost])
    assert codes(scans.read(tmp_path / "no place")[0]) == [Code.NoGeometry]
    each = [{"AcquisitionNumber": 1 + k, "InstanceNumber": 5 + k} for k in range(3)]  # bolus tracking
    series(tmp_path / "one place", axial(1)[[0] * 3], each=each, ImagesInAcquisition=20)
    assert [scan.issues for scan in scans.read(tmp_path / "one place")] == [()] * 3


def test_scouts_counted_together_lack_nothing(tmp_path):
    for number, count in ((1, 1), (2, 9)):
        each = [{"SOPInstanceUID": f"1.2.{number}.{k}"} for k in range(count)]
        about = {"SeriesInstanceUID": f"1.2.3.{number}", "AcquisitionNumber": 1, "ImagesInAcquisition": 10}
        series(tmp_path / f"{number}", axial(count), sop_class=MR, each=each, InstanceNumber=3, **about)
    lone = next(scan for scan in scans.read(tmp_path) if scan.shape[2] == 1)
    assert lone.issues == ()


# One stack in several files or series.


@pytest.mark.parametrize("sizes", [(9, 1), (1, 9), (5, 1, 4), (1, 8, 1)])
def test_a_stack_scattered_over_files_one_of_which_holds_a_single_frame(tmp_path, sizes):
    for k, places in enumerate(np.split(axial(10), np.cumsum(sizes)[:-1])):
        of_frames(tmp_path, str(k), places)
    found = scans.read(tmp_path)
    assert sum(scan.shape[2] for scan in found) == 10 and all(codes(scan) == [Code.MissingSlices] for scan in found)
    assert {issue.detail for scan in found for issue in scan.issues} == {
        f"{10 - scan.shape[2]} that go on with the stack are in other files" for scan in found
    }


@pytest.mark.parametrize(
    ("place", "about"),
    [
        (axial(9)[[4]], {}),  # at a place that the others have
        (axial(1, start=(-100.0, -80.0, 150.0)), {}),
        (axial(10)[[9]], {"ImageType": ["DERIVED", "PRIMARY", "OTHER"]}),
    ],
)
def test_a_single_frame_beside_a_stack_is_none_of_it(tmp_path, place, about):
    of_frames(tmp_path, "0", axial(9))
    of_frames(tmp_path, "1", place, **about)
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


def test_a_frame_that_is_there_again_hides_no_scattered_stack(tmp_path):
    for k, places in enumerate((axial(10)[:5], axial(10)[5:], axial(10)[[4]])):
        of_frames(tmp_path, str(k), places)
    details = sorted("".join(issue.detail for issue in scan.issues) for scan in scans.read(tmp_path))
    assert details == ["", *["5 that go on with the stack are in other files"] * 2]


def test_single_frames_that_make_stacks_of_their_own_lack_nothing(tmp_path):
    for k, place in enumerate(np.concatenate([axial(6, 1.0), axial(6, 1.0, start=(-100.0, -80.0, 30.5))])):
        of_frames(tmp_path / "passes", str(k), [place], AcquisitionNumber=1 + k // 6)
    of_frames(tmp_path / "part", "0", axial(6))
    for k, place in enumerate(axial(6)[:4]):
        of_frames(tmp_path / "part", str(k + 1), [place])
    for folder, sizes in (("passes", [6, 6]), ("part", [4, 6])):
        found = scans.read(tmp_path / folder)
        assert sorted(scan.shape[2] for scan in found) == sizes and all(scan.issues == () for scan in found)


def cut(folder, sizes, places=None, **changed):
    """One stack of which each part has a Series Instance UID of its own; ``changed`` by part and number."""
    parts = np.repeat(np.arange(len(sizes)), sizes)
    each = [
        {"SeriesInstanceUID": f"1.2.9.{part + 1}", "SeriesNumber": 3, "FrameOfReferenceUID": "1.2.8"}
        | {word: change(int(part), k) for word, change in changed.items()}
        for k, part in enumerate(parts)
    ]
    series(folder, axial(len(parts)) if places is None else places, each=each)


@pytest.mark.parametrize("sizes", [(12, 12), (2, 2), (8, 8, 8), (23, 1), (1, 23), (1, 2)])
@pytest.mark.parametrize("order", [1, -1])
def test_a_stack_under_several_series_uids_is_said(tmp_path, sizes, order):
    count = sum(sizes)
    cut(tmp_path, sizes, InstanceNumber=lambda part, k: k + 1 if order > 0 else count - k)
    found = scans.read(tmp_path)
    assert sorted(scan.shape[2] for scan in found) == sorted(sizes)
    for scan in found:
        detail = f"{count - scan.shape[2]} that go on with the stack are in other series"
        assert [issue.detail for issue in scan.issues] == [detail]


@pytest.mark.parametrize(
    "changed",
    [
        {"SeriesNumber": lambda part, k: part + 1},  # as it says
        {"SeriesNumber": lambda part, k: None},
        {"InstanceNumber": lambda part, k: k % 12 + 1},  # stations or regions, numbered anew
        {"InstanceNumber": lambda part, k: k + 1 + 10 * part},
        {"FrameOfReferenceUID": lambda part, k: f"1.2.8.{part + 1}"},
        {"StudyInstanceUID": lambda part, k: f"1.2.7.{part + 1}"},
        {"PatientID": lambda part, k: str(part)},
        {"ConvolutionKernel": lambda part, k: f"B{30 + 40 * part}f"},
        {"ImageType": lambda part, k: ["ORIGINAL" if part else "DERIVED", "PRIMARY", "AXIAL"]},
        {"SliceThickness": lambda part, k: 2.5 + part},
        {"PixelSpacing": lambda part, k: [0.5, 0.75 + 0.1 * part]},
    ],
)
def test_series_side_by_side_that_differ_are_no_stack_that_was_cut(tmp_path, changed):
    cut(tmp_path, (12, 12), **changed)
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


@pytest.mark.parametrize(
    "places",
    [
        np.concatenate([axial(12), axial(12)]),  # phases, numbered through
        np.concatenate([axial(12), axial(12)[::-1]]),
        np.concatenate([axial(12), axial(12, start=(-100.0, -80.0, 70.0))]),  # 10 mm further, for a step of 2.5 mm
        np.concatenate([axial(12), axial(12, start=(-90.0, -80.0, 60.0))]),  # beside it
        np.concatenate([axial(12), axial(12, 5.0, start=(-100.0, -80.0, 60.0))]),  # at another step
    ],
)
def test_series_of_one_number_whose_places_do_not_go_on_are_no_stack_that_was_cut(tmp_path, places):
    cut(tmp_path, (12, 12), places)
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("places", "changed"),
    [
        (np.concatenate([axial(6), axial(12)]), {"AcquisitionNumber": lambda part, k: 1 + (k > 5)}),  # phases
        (axial(18), {"ImageType": lambda part, k: ["ORIGINAL", "PRIMARY", "LOCALIZER" if k == 3 else "AXIAL"]}),
        (axial(18), {"ImageOrientationPatient": lambda part, k: CORONAL if k == 3 else list(AXIAL)}),
    ],
)
def test_series_of_more_than_one_stack_are_none_that_was_cut(tmp_path, places, changed):
    cut(tmp_path, (12, 6), places, **changed)
    issues = [issue for scan in scans.read(tmp_path) for issue in scan.issues]
    assert not any("other series" in issue.detail for issue in issues)


@pytest.mark.parametrize("odd", [0, 4, 9])
@pytest.mark.parametrize("changed", [{"PixelSpacing": [0.6, 0.9]}, {"rows": 10}])
def test_the_slice_of_another_size_is_told_like_the_rest(tmp_path, odd, changed):
    kept = [k for k in range(10) if k != odd]
    series(
        tmp_path / "rest", axial(10)[kept], each=[{"InstanceNumber": k + 1, "SOPInstanceUID": f"1.2.{k}"} for k in kept]
    )
    series(tmp_path / "odd", axial(10)[[odd]], **({"each": [{"InstanceNumber": odd + 1}]} | changed))
    found = scans.read(tmp_path)
    assert sorted(scan.shape[2] for scan in found) == [1, 9] and all(Code.MissingSlices in codes(s) for s in found)


@pytest.mark.parametrize(("place", "number"), [(31.0, 11), (60.0, 11), (55.0, 30)])
def test_a_slice_of_another_size_that_goes_on_with_nothing_is_clean(tmp_path, place, number):
    series(tmp_path / "rest", axial(10))
    about = {"InstanceNumber": number, "SOPInstanceUID": "1.2.99", "PixelSpacing": [0.6, 0.9]}
    series(tmp_path / "odd", [[-100.0, -80.0, place]], each=[about])
    assert [scan.issues for scan in scans.read(tmp_path)] == [()] * 2


# MONAI's reader returns one scan, and no other than the folder is about.


def test_the_reader_does_not_return_the_scout_of_axials_that_are_refused(tmp_path):
    series(tmp_path / "axials", axial(10), each=[{"ImagePositionPatient": None}] * 10)
    scout = {"SeriesInstanceUID": "1.2.9", "SOPInstanceUID": "1.2.99"}
    series(tmp_path / "scout", axial(1), orientation=(1, 0, 0, 0, 0, -1), each=[scout], **SCOUT)
    with pytest.raises(MedloraError, match="10 files: UnknownOrder") as caught:
        MonaiReader().read(tmp_path)
    (scan,) = scans.read(tmp_path)
    assert f'scan_id="{scan.scan_id}"' in str(caught.value) and "axials" not in str(caught.value).replace(
        str(tmp_path), ""
    )
    assert MonaiReader(scan_id=scan.scan_id).read(tmp_path).shape == (16, 12, 1)


def beside_one(folder, count, lost):
    """Two series, of the second of which the first files are cut short in transfer."""
    series(folder / "whole", axial(4), each=[{"SOPInstanceUID": f"1.2.{k}"} for k in range(4)])
    series(folder / "cut", axial(count), SeriesInstanceUID="1.2.9")
    for k in lost:
        path = folder / "cut" / f"{k:04d}.dcm"
        path.write_bytes(path.read_bytes()[:-100])


def test_the_reader_does_not_return_what_lies_beside_a_truncated_series(tmp_path):
    beside_one(tmp_path, 3, range(3))
    with pytest.raises(MedloraError, match="TruncatedPixelData"):
        MonaiReader().read(tmp_path)
    assert MonaiReader().read(tmp_path / "whole").issues == ()


def test_the_reader_returns_a_scan_that_says_itself_what_it_lost(tmp_path):
    beside_one(tmp_path, 6, [2])
    assert codes(MonaiReader().read(tmp_path / "cut")) == [Code.MissingSlices, Code.NonUniformSpacing]
    for path in (tmp_path / "whole").iterdir():  # the loss of the one does not excuse that of the other
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MedloraError, match="TruncatedPixelData"):
        MonaiReader().read(tmp_path)


def test_the_reader_does_not_return_the_last_slice_of_a_truncated_series(tmp_path):
    beside_one(tmp_path, 2, [0])
    with pytest.raises(MedloraError, match=f"1 file: {Code.TruncatedPixelData.name}"):
        MonaiReader().read(tmp_path / "cut")


def test_the_reader_does_not_choose_between_slices_with_and_without_a_place(tmp_path):
    series(tmp_path, axial(10), each=[{"ImagePositionPatient": None} if k < 4 else {} for k in range(10)])
    assert [codes(scan) for scan in scans.read(tmp_path)] == [[Code.MissingSlices]]
    with pytest.raises(MedloraError, match="4 files: UnknownOrder"):
        MonaiReader().read(tmp_path)


def test_the_reader_passes_over_what_is_no_loss(tmp_path):
    series(tmp_path, axial(4))
    (tmp_path / "again.dcm").write_bytes((tmp_path / "0001.dcm").read_bytes())
    (tmp_path / "notes.txt").write_text("seen")
    (tmp_path / "empty").write_bytes(b"")
    report = image(picture(), PixelData=None, Rows=None, Columns=None, PhotometricInterpretation=None,
                   SamplesPerPixel=None)  # fmt: skip
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    save(report, tmp_path / "report")
    series(tmp_path / "copy", axial(4), SeriesInstanceUID="1.2.9")
    found = scans.survey(tmp_path)
    assert len(found.scans) == 1 and len(found.excluded) == 5
    assert MonaiReader().read(tmp_path).issues == ()


# One run over time, of which the headers say little.


def without_times(folder, jitter=0.0, blank=(), each_time=lambda t: {}):
    """Three volumes of six slices, told apart by Instance Number alone unless ``each_time`` says more."""
    stored = np.random.default_rng(0).integers(1, 900, (3, 6, 8, 9))
    for k in blank:
        stored[:, k] = 0
    for t in range(3):
        for k, position in enumerate(axial(6)):
            fields = {
                "ImagePositionPatient": [*position[:2], float(position[2] + jitter * t)],
                "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [0.5, 0.5], "SOPInstanceUID": f"1.2.{t}.{k}",
                "InstanceNumber": 6 * t + k + 1, "AcquisitionTime": "120000",
            }  # fmt: skip
            save(image(stored[t, k], MR, **fields | each_time(t)), folder / f"{t}-{k}.dcm")
    return stored


@pytest.mark.parametrize("blank", [(), (0,), (0, 5)])
def test_empty_slices_of_a_run_that_says_no_times_are_no_copies(tmp_path, blank):
    """As GE writes fMRI, whose end slices a motion correction has emptied in each volume."""
    stored = without_times(tmp_path, blank=blank)
    found = scans.read(tmp_path)
    assert len(found) == 3 and not found.excluded
    for scan, volume in zip(found, stored, strict=True):
        np.testing.assert_array_equal(scan.array, volume.transpose(2, 1, 0))


@pytest.mark.parametrize("jitter", [0.0005, 0.004])
def test_positions_of_one_slice_may_differ_by_rounding(tmp_path, jitter):
    stored = without_times(tmp_path, jitter, each_time=lambda t: {"AcquisitionTime": f"1200{t:02d}"})
    found = scans.read(tmp_path)
    assert [scan.shape for scan in found] == [(9, 8, 6)] * 3
    np.testing.assert_array_equal(found[1].array, stored[1].transpose(2, 1, 0))


def test_many_lost_slices_of_thin_ones_are_counted(tmp_path):
    """A hole is no measure of what is a trifle: half of 120 slices 9 µm apart are lost."""
    places = [k for k in range(120) if not 30 <= k < 90]
    series(tmp_path, axial(120, 0.009)[places])
    (scan,) = scans.read(tmp_path)
    assert scan.shape[2] == 60 and Code.MissingSlices in codes(scan)


@pytest.mark.parametrize(("decimals", "step"), [(1, 1.0), (1, 3.0), (2, 0.5), (2, 0.6)])
def test_rounded_positions_of_oblique_stacks_are_even(tmp_path, decimals, step):
    """Along a slanting normal the roundings of all three coordinates add up."""
    a, b = np.radians(25), np.radians(8)
    row = np.array([np.cos(b), 0, -np.sin(b)])
    normal = np.cross(row, column := np.array([np.sin(a) * np.sin(b), np.cos(a), np.sin(a) * np.cos(b)]))
    positions = np.round(np.array([-100.3, -80.7, 30.1]) + np.outer(np.arange(60) * step, normal), decimals)
    series(tmp_path, positions, orientation=[*row, *column])
    (scan,) = scans.read(tmp_path)
    assert scan.issues == ()
    np.testing.assert_allclose(scan.affine[:3, 2], (normal * step) * [-1, -1, 1], atol=2 * 10.0**-decimals / 59)


@pytest.mark.parametrize(
    ("kind", "times", "said"),
    [
        (["DERIVED", "SECONDARY", "SUBTRACTION"], (2, 3, 4), []),  # from the first one, which is none itself
        (["DERIVED", "PRIMARY", "SUB"], (1, 2, 3), ["1 of 4 temporal positions, each as a whole"]),
        (["ORIGINAL", "PRIMARY"], (2, 3, 4), ["1 of 4 temporal positions, each as a whole"]),
    ],
)
def test_subtractions_have_no_time_of_their_mask(tmp_path, kind, times, said):
    words = [{"TemporalPositionIdentifier": t, "NumberOfTemporalPositions": 4, "ImageType": kind} for t in times]
    without_times(tmp_path, each_time=lambda t: words[t])
    assert [[i.detail for i in scan.issues if i.code is Code.MissingSlices] for scan in scans.read(tmp_path)] == [
        said
    ] * 3


def test_slabs_of_projections_keep_the_count_of_the_slices(tmp_path):
    kind = ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "COLLAPSE"]
    series(tmp_path, axial(30, 5.0), sop_class=MR, ImageType=kind, ImagesInAcquisition=160)
    assert scans.read(tmp_path)[0].issues == ()


@pytest.mark.parametrize(("count", "files"), [(1, 400), (24, 60)])
def test_many_series_of_one_number_are_compared_in_no_time(tmp_path, count, files):
    """Each part only with those that end where it begins."""
    headers = []
    for n in range(files):
        for k in range(count):
            about = {
                "SOPInstanceUID": f"1.2.{n}.{k}",
                "SeriesInstanceUID": f"1.3.{n}",
                "InstanceNumber": n * count + k + 1,
            }
            place = {"ImagePositionPatient": [0, 0, float(n * count + k)], "ImageOrientationPatient": list(AXIAL)}
            header = save(image(picture(4, 4), **about, **place, SeriesNumber=5), tmp_path / f"{n}-{k}.dcm")
            headers.append(scans.read_header(header))
    series_of = {n: headers[n * count : (n + 1) * count] for n in range(files)}
    with pytest.MonkeyPatch.context() as patch:
        asked = []
        runs = torn._runs
        patch.setattr(torn, "_runs", lambda planes: asked.append(1) or runs(planes))
        found = torn.in_pieces(series_of)
    assert len(asked) <= 3 * files
    assert found == dict.fromkeys(range(files), count * files - count)

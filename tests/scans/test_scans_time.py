"""Volumes of one series come in the order of time, whatever their files are called."""

from __future__ import annotations

import numpy as np
import pytest
from make_dicom import CT, MR, PET, axial, image, picture, save, series

from medlora import scans

_ORDER = [3, 0, 4, 1, 2]  # which of the five times has the first files, by name


def run(folder, sop_class, each_time, **elements):
    """Five volumes of three slices, each filled with the number of its time; the names of the files are in disorder."""
    for t in range(5):
        for k, position in enumerate(axial(3)):
            fields = {
                "ImagePositionPatient": list(position), "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [0.5, 0.5], "SOPInstanceUID": f"1.2.{_ORDER.index(t)}.{k}", "InstanceNumber": k + 1,
                "RescaleSlope": 1, "RescaleIntercept": 0, "Units": "BQML" if sop_class == PET else None,
            }  # fmt: skip
            data = image(np.full((8, 9), t), sop_class, **(fields | elements | each_time(t, k)))
            save(data, folder / f"{_ORDER.index(t)}-{k}.dcm")


def times(path):
    return [int(scan.array[0, 0, 0]) for scan in scans.read(path)]


@pytest.mark.parametrize(
    ("sop_class", "each_time"),
    [
        (PET, lambda t, k: {"FrameReferenceTime": 1000.0 * t * t}),  # frames that grow longer
        (PET, lambda t, k: {"FrameReferenceTime": 0.0, "TriggerTime": 100.0 * t}),  # gated
        (PET, lambda t, k: {"AcquisitionTime": f"12{t:02d}00"}),
        (MR, lambda t, k: {"TemporalPositionIdentifier": t + 1, "AcquisitionTime": "120000"}),
        (MR, lambda t, k: {"TriggerTime": 30.0 * t}),
        (MR, lambda t, k: {"ContentTime": f"1200{t:02d}", "InstanceNumber": None}),
        (CT, lambda t, k: {"AcquisitionNumber": 9 + t}),  # 9, 10 …: as numbers, not as text
        (CT, lambda t, k: {"AcquisitionTime": f"1200{t:02d}.{k}00", "InstanceNumber": 5 * k + t + 1}),
        (CT, lambda t, k: {"InstanceNumber": 3 * t + k + 1}),
        (CT, lambda t, k: {"AcquisitionDate": f"2020010{1 + t // 3}", "AcquisitionTime": f"{(t + 21) % 24:02d}0000"}),
        (MR, lambda t, k: {"AcquisitionTime": ("000000", "070000", "203000", "204000", "205000")[t]}),  # half a day
        (CT, lambda t, k: {"AcquisitionTime": f"{(t + 21) % 24:02d}0000"}),  # as the last but two, without the dates
        (MR, lambda t, k: {"ContentTime": f"{2358 + t if t < 2 else t - 2:04d}00", "InstanceNumber": 3 * t + k + 1}),
    ],
)  # three: from 21, 22, 23 o'clock over midnight to 0 and 1
def test_volumes_of_a_run_follow_each_other_in_time(tmp_path, sop_class, each_time):
    run(tmp_path, sop_class, each_time)
    assert times(tmp_path) == [0, 1, 2, 3, 4]


def test_the_time_of_a_frame_is_in_the_header_and_that_of_the_clock_is_not(tmp_path):
    run(tmp_path, PET, lambda t, k: {"FrameReferenceTime": 2500.0 * t, "AcquisitionTime": f"1200{t:02d}"})
    found = scans.read(tmp_path)
    assert [scan.header["FrameReferenceTime"] for scan in found] == [0, 2500, 5000, 7500, 10000]
    assert not any("AcquisitionTime" in scan.header for scan in found)


def test_where_nothing_tells_their_time_their_uids_do_and_no_names_of_files(tmp_path):
    for k, name in enumerate("ba"):
        data = image(picture(seed=k), "1.2.840.10008.5.1.4.1.1.1", SOPInstanceUID=f"1.2.{k}")
        save(data, tmp_path / f"{name}.dcm")
    assert [scan.sources[0].name for scan in scans.read(tmp_path)] == ["b.dcm", "a.dcm"]


def test_series_keep_their_order_among_each_other(tmp_path):
    for k, uid in enumerate(("1.2.9", "1.2.8")):
        each = [{"SOPInstanceUID": f"{uid}.{i}"} for i in range(3)]
        series(tmp_path / f"{k}", axial(3 + k)[:3], each=each, SeriesInstanceUID=uid, AcquisitionTime=f"12000{k}")
    assert [files.identity.series_uid for files in scans.survey(tmp_path).scans] == ["1.2.8", "1.2.9"]

"""The CT archive as an outsider reads it."""

import csv
import hashlib
import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from medlora.errors import MedloraError
from medlora.phantoms import ct, tomographs


def rows_of(labels):
    with labels.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "ct"
    return ct.write(folder, 10, seed=4, scanner="shifted", matrix=96, progress=False, workers=1)


@pytest.fixture(scope="module")
def series(archive):
    """Series Instance UID → its files, by position along the table."""
    found = {}
    for path in sorted(archive.parent.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        found.setdefault(ds.SeriesInstanceUID, []).append(ds)
    return {key: sorted(files, key=lambda ds: ds.ImagePositionPatient[2]) for key, files in found.items()}


def thin(series):
    return [files for files in series.values() if "thin" in files[0].SeriesDescription]


def hounsfield(files):
    """(slices, rows, columns), and the affine from (column, row, slice) to LPS, both as the standard says."""
    hu = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in files])
    first, last = (np.array(files[k].ImagePositionPatient, float) for k in (0, -1))
    affine = np.eye(4)
    orientation = np.array(files[0].ImageOrientationPatient, float)
    affine[:3, 0] = orientation[:3] * files[0].PixelSpacing[1]
    affine[:3, 1] = orientation[3:] * files[0].PixelSpacing[0]
    affine[:3, 2], affine[:3, 3] = (last - first) / (len(files) - 1), first
    return hu, affine


def test_a_study_holds_a_scout_thick_soft_and_thin_sharp_slices(series):
    studies = {}
    for files in series.values():
        studies.setdefault(files[0].StudyInstanceUID, []).append(files)
    assert len(studies) == 10
    for group in studies.values():
        scout, thick, fine = sorted(group, key=lambda files: files[0].SeriesNumber)
        assert scout[0].ImageType[2] == "LOCALIZER"
        assert len(scout) == 1
        assert len(fine) == 2 * len(thick)
        assert fine[0].SliceThickness * 2 == thick[0].SliceThickness
        assert fine[0].ConvolutionKernel != thick[0].ConvolutionKernel
        for files in (thick, fine):
            assert np.diff([ds.ImagePositionPatient[2] for ds in files]) == pytest.approx(files[0].SliceThickness)
            assert {ds.Manufacturer for ds in files} <= {s.manufacturer for s in tomographs.TOMOGRAPHS.values()}


def test_each_nodule_is_where_the_labels_say(archive, series):
    """Denser than the lung about it, at the centre that the file's own geometry gives."""
    for row in rows_of(archive):
        hu, affine = hounsfield(series[row["series_uid"]])
        centre = [float(row[axis]) for axis in ("coordX", "coordY", "coordZ")]
        x, y, z = np.rint(np.linalg.solve(affine, [*centre, 1])[:3]).astype(int)
        reach = max(1, int(0.25 * float(row["diameter_mm"]) / affine[0, 0]))
        inner = hu[z, y - reach : y + reach + 1, x - reach : x + reach + 1].mean()
        faint = row["density"] != "solid" or float(row["diameter_mm"]) < 7
        least = -790 if faint else -500
        assert inner > least, row


def test_left_is_left(series):
    """The heart lies on the patient's left, and columns run to it."""
    for files in thin(series):
        hu, affine = hounsfield(files)
        heights = affine[2, 3] + affine[2, 2] * np.arange(len(hu))
        low = hu[np.argmin(np.abs(heights + 45))]
        x = affine[0, 3] + affine[0, 0] * np.arange(low.shape[1])
        y = affine[1, 3] + affine[1, 1] * np.arange(low.shape[0])
        front = low[y < 10]
        soft = ((front > -50) & (front < 120)).sum(axis=0)
        assert soft[(x > 15) & (x < 60)].mean() > soft[(x < -15) & (x > -60)].mean()


def test_tissues_have_their_hounsfield_units(series):
    for files in thin(series):
        hu, _ = hounsfield(files)
        inside = hu[len(hu) // 2]
        lung = inside[(inside > -960) & (inside < -700)]
        assert -930 < np.median(lung) < -780
        assert 400 < np.percentile(hu, 99.9) < 1500  # bone
        assert (hu <= -2000).any() == ("PixelPaddingValue" in files[0])


def test_only_the_test_split_is_new_to_the_scanner(archive, series):
    for row in rows_of(archive):
        maker = series[row["series_uid"]][0].Manufacturer
        assert (maker == tomographs.C.manufacturer) == (row["split"] == "test")
    assert {row["split"] for row in rows_of(archive)} == {"train", "tune", "test"}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
def test_the_standard_checker_has_nothing_to_say(archive, series):
    for path in sorted(archive.parent.rglob("*.dcm"))[::37]:
        told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        assert told.split() == ["CTImage"], path.parent.name


def test_the_same_request_gives_the_same_bytes_and_a_patient_does_not_depend_on_the_others(tmp_path):
    for name, patients, workers in (("a", 2, 1), ("b", 2, 2), ("c", 1, 1)):
        ct.write(tmp_path / name, patients, seed=9, matrix=64, series=("thin",), progress=False, workers=workers)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    files = {k: v for k, v in c.items() if k.endswith(".dcm")}
    assert files
    assert files.items() <= a.items()


def test_the_block_about_a_nodule_is_what_the_series_shows_there():
    """Drawn without noise, and away from the rim where the blur of the whole picture comes in."""
    exam = ct.patient(1, seed=4, matrix=128)
    hu, _ = exam.object()
    for nodule in exam.visible:
        block, grid = exam.around(nodule, 40)
        first = np.rint(exam.grid.indices(np.array([grid.origin]))[0]).astype(int)
        where = tuple(slice(a, a + n) for a, n in zip(first[::-1], block.shape, strict=True))
        if all(s.start >= 0 and s.stop <= n for s, n in zip(where, hu.shape, strict=True)):
            difference = exam.thorax.hounsfield(grid) - hu[where]
            assert np.abs(difference).mean() < 6  # HU: surfaces are sampled coarsely, at other places


@pytest.mark.parametrize(
    "options", [{"scanner": "D"}, {"patients": 0}, {"matrix": 20}, {"series": ("thick",)}, {"series": ()}], ids=str
)
def test_what_cannot_be_made_is_said(tmp_path, options):
    with pytest.raises(MedloraError, match="Fix: "):
        ct.write(tmp_path / "x", progress=False, **options)
    assert not (tmp_path / "x").exists()

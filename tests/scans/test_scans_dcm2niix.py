"""Agreement with dcm2niix, an independent converter, on every untilted series: voxels exact, affine to 1e-4."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from make_dicom import MR, PET, axial, series
from pydicom.data import get_testdata_file

from medlora import scans

pytestmark = pytest.mark.skipif(not shutil.which("dcm2niix"), reason="dcm2niix is not installed")
SIZE = {"rows": 48, "columns": 64}  # dcm2niix passes over images smaller than that


def converted(folder: Path, out: Path) -> list:
    out.mkdir()
    command = ["dcm2niix", "-o", out, "-f", "%s_%d_%e_%p", "-b", "n", "-z", "n", "-m", "n", folder]
    subprocess.run(command, check=True, capture_output=True)
    return [nibabel.load(path) for path in sorted(out.glob("*.nii"))]


def assert_same_voxels_at_same_places(scan: scans.Scan, reference) -> None:
    """dcm2niix may turn axes round, so its voxels are looked up by place."""
    index = np.linalg.inv(reference.affine) @ scan.affine
    turned = np.round(index)
    np.testing.assert_allclose(reference.affine @ turned, scan.affine, atol=1e-4)
    voxels = np.random.default_rng(0).integers(0, scan.shape[:3], (200_000, 3))
    there = (voxels @ turned[:3, :3].T + turned[:3, 3]).astype(int)
    ours = scan.array[tuple(voxels.T)]
    values = reference.get_fdata(dtype=np.float32).reshape(*reference.shape[:3], -1)
    assert ((there >= 0) & (there < reference.shape[:3])).all()
    found = [np.array_equal(values[(*there.T, t)], ours) for t in range(values.shape[3])]
    assert sum(found) >= 1


@pytest.mark.parametrize(
    ("row", "column"),
    [([1, 0, 0], [0, 1, 0]), ([-1, 0, 0], [0, -1, 0]), ([-1, 0, 0], [0, 1, 0]), ([0, 1, 0], [0, 0, -1]),
     ([1, 0, 0], [0, 0, -1]), ([0.8, 0.6, 0], [-0.36, 0.48, 0.8])],
)  # fmt: skip
@pytest.mark.parametrize("sop_class", [MR, PET, "1.2.840.10008.5.1.4.1.1.2"])
def test_orientations(tmp_path, row, column, sop_class):
    normal = np.cross(row, column)
    positions = np.array([-50.0, 20.0, 10.0]) + np.arange(6)[:, None] * normal * 3.0
    each = [{"RescaleSlope": 2, "RescaleIntercept": -7}] * 6
    series(tmp_path / "in", positions[::-1], (*row, *column), sop_class=sop_class, each=each, **SIZE)
    (scan,) = scans.read(tmp_path / "in")
    (reference,) = converted(tmp_path / "in", tmp_path / "out")
    assert_same_voxels_at_same_places(scan, reference)


def test_4d(tmp_path):
    positions = np.concatenate([axial(5), axial(5)])
    each = [{"TemporalPositionIdentifier": 1 + k // 5, "AcquisitionNumber": 1 + k // 5} for k in range(10)]
    series(tmp_path / "in", positions, sop_class=MR, each=each, **SIZE)
    found = scans.read(tmp_path / "in")
    (reference,) = converted(tmp_path / "in", tmp_path / "out")
    assert reference.shape[3] == len(found) == 2
    for scan in found:
        assert_same_voxels_at_same_places(scan, reference)


NICOM = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"


@pytest.mark.parametrize(
    "name",
    [
        "siemens_dwi_0.dcm.gz",
        "siemens_dwi_1000.dcm.gz",
        "decimal_rescale.dcm",
        "philips_mprage.dcm.gz",
        "CT_small.dcm",
        "MR_small.dcm",
    ],
)
def test_real_files(tmp_path, name):
    path = Path(get_testdata_file(name)) if name.endswith("small.dcm") else NICOM / name
    whole = path.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(gzip.decompress(whole) if name.endswith(".gz") else whole)
    (scan,) = scans.read(tmp_path / "in")
    (reference,) = converted(tmp_path / "in", tmp_path / "out")
    assert_same_voxels_at_same_places(scan, reference)

"""A scan in Jupyter and in MONAI pipelines, and the values it carries about itself."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from make_dicom import DX, axial, image, picture, save, series

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code, Issue, Severity


def test_orders_of_the_array(tmp_path):
    volume = series(tmp_path, axial(4))
    scan = scans.read(tmp_path)[0]
    np.testing.assert_array_equal(scan.to_numpy("zyx"), volume.transpose(2, 1, 0) - 1024.0)
    assert scan.to_numpy("zyx").flags["C_CONTIGUOUS"]
    with pytest.raises(MedloraError, match="no permutation"):
        scan.to_numpy("zy")


def test_issues_print_as_code_and_sentence():
    assert str(Issue(Code.MissingSlices, "2 of 40")) == "MissingSlices: Slices are missing (2 of 40)."
    assert all(code.sentence and not code.sentence.endswith(".") for code in Code)
    assert {code.severity for code in Code} == set(Severity)
    assert len({code.sentence for code in Code}) == len(Code)
    assert pickle.loads(pickle.dumps(list(Code))) == list(Code)


def test_html_is_self_contained_and_escaped(tmp_path):
    script = "<script>alert(1)</script>"
    save(image(picture(), DX, BodyPartExamined=script[:16], ManufacturerModelName=script), tmp_path / "a")
    series(tmp_path / "ct", axial(15), BodyPartExamined="CHEST", SeriesInstanceUID="1.2.9")
    for scan in scans.read(tmp_path):
        html = scan._repr_html_()
        assert "<script" not in html and "http" not in html and html.count("data:image/png;base64,") >= 1
    assert html.count("<details") == 6 if scan.modality == "CT" else 2


def test_ct_montage_shows_the_window():
    from medlora.scans.display import CT_WINDOWS, montage

    array = np.full((20, 10, 3), -2000, np.float32)
    array[:, :, 1], array[:, :, 2] = 40, 3000
    shown = montage(scans.Scan(array, np.eye(4), modality="CT"), CT_WINDOWS["soft tissue"])
    assert shown.shape == (10, 60) and shown.dtype == np.uint8
    assert [int(shown[5, 20 * k + 10]) for k in range(3)] == [0, 127, 255]


def test_monai_pipeline_gets_the_same_voxels_affine_and_checks(tmp_path):
    from monai.data import MetaTensor
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd

    volume = series(tmp_path / "s", axial(4)[[0, 1, 3]])
    load = LoadImaged(keys="image", reader=scans.MonaiReader())
    image_ = load({"image": tmp_path / "s"})["image"]
    assert isinstance(image_, MetaTensor)
    np.testing.assert_array_equal(image_.numpy(), volume - 1024.0)
    scan = scans.read(tmp_path)[0]
    np.testing.assert_allclose(image_.affine.numpy(), scan.affine)
    assert image_.meta["scan_id"] == scan.scan_id and "MissingSlices" in image_.meta["issues"][0]
    turned = Compose([load, EnsureChannelFirstd("image"), Orientationd("image", axcodes="RAS", labels=None)])(
        {"image": tmp_path / "s"}
    )
    np.testing.assert_array_equal(turned["image"][0].numpy(), (volume - 1024.0)[::-1, ::-1])


def test_monai_reader_names_what_it_cannot_choose(tmp_path):
    series(tmp_path / "a", axial(3), SeriesInstanceUID="1.2.1")
    series(tmp_path / "b", axial(4), SeriesInstanceUID="1.2.2", each=[{"SOPInstanceUID": f"1.9.{k}"} for k in range(4)])
    with pytest.raises(MedloraError, match="2 scans"):
        scans.MonaiReader().read(tmp_path)
    chosen = next(files for files in scans.survey(tmp_path).scans if len(files.paths) == 4)
    assert scans.MonaiReader(scan_id=chosen.scan_id).read(tmp_path).shape == (16, 12, 4)
    with pytest.raises(MedloraError, match="no scan"):
        scans.MonaiReader(severities={Code.MissingSlices: "refuse"}, scan_id="0").read(tmp_path)


def test_severities_reach_what_only_the_pixels_show(tmp_path):
    stored = picture(high=1 << 16)
    save(image(stored, DX, stored=16, BitsStored=12, HighBit=11), tmp_path / "a")
    (files,) = scans.survey(tmp_path, severities={Code.UnusedBitsSet: Severity.REFUSE}).scans
    with pytest.raises(scans.ScanError) as error:
        files.load()
    assert error.value.code is Code.UnusedBitsSet
    assert [issue.code for issue in scans.survey(tmp_path).scans[0].load().issues] == [Code.UnusedBitsSet]


def test_importing_scans_imports_neither_monai_nor_torch():
    code = (
        "import sys, medlora.scans; sys.exit(any(m in sys.modules for m in ('monai', 'torch', 'pandas', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_even_spacing_takes_no_more_memory_than_it_should(tmp_path):
    series(tmp_path, [[0, 0, z] for z in (0.0, 0.011, 5000.0)], SliceThickness=0.01)
    with pytest.raises(MedloraError, match="it would have 454546 slices of 3"):
        scans.read(tmp_path)[0].evenly_spaced()

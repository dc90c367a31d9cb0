"""What becomes of a scan, and where the model looked, by the command line; whole CT scans as cases."""

import csv
import json

import numpy as np
import pydicom
import pytest
from PIL import Image
from planting import SECRETS

from medlora.cli.main import run as medlora
from medlora.phantoms import ct

pytestmark = pytest.mark.slow


def a_file(whole):
    return next(path for path in sorted(whole.archive.rglob("*.dcm")) if pydicom.dcmread(path).Modality == "DX")


def assert_nothing_identifies(folder):
    for path in folder.rglob("*"):
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in SECRETS.values()), path.name


def test_preview_of_a_radiograph(whole, answer, tmp_path):
    code, said = answer("preview", a_file(whole), "-o", tmp_path / "seen", "--size", 64, "--views", 2)
    assert code == 0
    assert said["preset"] == "radiograph"
    steps = said["steps"]
    assert [step["name"] for step in steps] == ["as read", "window", "resized", "augmentation 1", "augmentation 2"]
    data = pydicom.dcmread(a_file(whole))
    assert steps[0]["shape"] == [1, data.Rows, data.Columns]
    assert steps[2]["shape"] == [1, 64, 64]
    assert (steps[2]["low"], steps[2]["high"]) == (0, 1)
    page = (tmp_path / "seen" / "preview.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert 'src="http' not in page
    assert Image.open(tmp_path / "seen" / "preview.png").width > 64
    assert_nothing_identifies(tmp_path / "seen")
    assert answer("preview", a_file(whole), "-o", tmp_path / "seen")[0] == 2


def test_preview_refuses_what_it_cannot_show(whole, call, tmp_path):
    code, _, err = call("preview", whole.archive, "-o", tmp_path / "x")
    assert code == 2
    assert "--scan SCAN_ID" in err
    code, _, err = call("preview", a_file(whole), "--preset", "ct-lung", "-o", tmp_path / "x")
    assert code == 2
    assert "the preset ct-lung reads CT" in err
    code, _, err = call("preview", a_file(whole), "--centre", -1, 2, 3, "-o", tmp_path / "x")
    assert code == 2
    assert "coordinate system" in err
    assert not (tmp_path / "x").exists()


def test_explain_a_radiograph(whole, answer, tmp_path):
    """With the default backbone and an adapter of two epochs; the probability is the one that predict gives."""
    code, said = answer("explain", whole.run, a_file(whole), "-o", tmp_path / "map")
    assert code == 0
    written = json.loads((tmp_path / "map" / "explain.json").read_text(encoding="utf-8"))
    assert written["class"] == said["class"]
    assert said["method"] == "occlusion"  # the network's last map has 2 × 2 places at 64 pixels
    coarse = answer("explain", whole.run, a_file(whole), "-o", tmp_path / "coarse", "--method", "gradcam")[1]
    assert (coarse["method"], coarse["layer"]) == ("gradcam", "bn2")
    assert coarse["probability"] == said["probability"]
    with (whole.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["scan_id"] == said["scan_id"])
    assert said["probability"] == pytest.approx(float(row[f"p_{said['class']}"]), abs=1e-6)
    stages = [stage["weights"] for stage in said["sanity"]["stages"]]
    assert stages in (["head", "head and adapter", "head, adapter and backbone"], [])
    assert said["pictures"] == ["1-image.png"]
    with Image.open(tmp_path / "map" / "1-image.png") as picture:
        assert picture.width > picture.height > 300
    assert_nothing_identifies(tmp_path / "map")


def test_explain_refuses(whole, call, tmp_path):
    code, _, err = call("explain", whole.run, a_file(whole), "--class", "measles", "-o", tmp_path / "x")
    assert code == 2
    assert "measles" in err
    code, _, err = call("explain", whole.archive, a_file(whole), "-o", tmp_path / "x")
    assert code == 2
    assert "is no adapter" in err
    assert not (tmp_path / "x").exists()


def test_whole_ct_scans_from_files_to_a_report(tmp_path):
    """A label for each scan, which says nothing: the way is tested, not the figures."""
    labels = ct.write(tmp_path / "ct", 16, seed=3, matrix=96, series=("scout", "thin"), progress=False)
    with labels.open(encoding="utf-8", newline="") as file:
        rows = {row["series_uid"]: row for row in csv.DictReader(file)}
    path = tmp_path / "scans.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["series_uid", "patient_id", "label", "split"])
        for number, (uid, row) in enumerate(sorted(rows.items())):
            split = ("train", "train", "tune", "test")[number // 2 % 4]
            table.writerow([uid, row["patient_id"], ("odd", "even")[number % 2], split])
    settings = ["--set", "data.image_size=64", "--epochs", "1", "--batch-size", "4"]
    archive = tmp_path / "ct" / "dicom"
    for words in (
        ["check", archive, "--labels", path, "--split-column", "split", "-o", tmp_path / "cohort"],
        ["train", tmp_path / "cohort", "-o", tmp_path / "run", *settings],
        ["evaluate", tmp_path / "run"],
        ["predict", tmp_path / "run", archive, "-o", tmp_path / "answers.csv"],
    ):
        assert medlora([str(word) for word in words]) == 0, words[0]
    info = json.loads((tmp_path / "run" / "adapter" / "medlora.json").read_text(encoding="utf-8"))
    assert info["preprocessing"]["preset"] == "ct-lung"
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        answers = [row for row in csv.DictReader(file) if row["p_odd"]]
    assert len(answers) == len(rows)
    np.testing.assert_allclose([float(row["p_odd"]) + float(row["p_even"]) for row in answers], 1, atol=1e-6)

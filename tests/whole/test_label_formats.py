"""From files to a report in one check, one train, one evaluate, as the data sets' cards say: with small files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "cohorts"))

from annotated import balls, write_archive, write_coco, write_lidc, write_mhd, write_seg, write_slicer  # noqa: E402

BALLS = balls(patients=12)
SMALL = ["--epochs", 1, "--batch-size", 8, "--set", "data.image_size=32"]


def script(name, *words):
    return subprocess.run(
        [sys.executable, ROOT / "datasets" / name, *map(str, words)], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("ct") / "archive", BALLS)


def to_report(call, folder, archive, labels, *options):
    """check, train, evaluate; the predictions of the test split."""
    code, out, err = call("check", archive, "--labels", labels, "-o", folder / "cohort", *options)
    assert code == 0, out + err
    code, out, err = call("train", folder / "cohort", "-o", folder / "run", *SMALL)
    assert code == 0, out + err
    code, out, err = call("evaluate", folder / "run")
    assert code == 0, out + err
    assert "AUC" in out
    assert (folder / "run" / "evaluation" / "test" / "report.html").is_file()
    return pd.read_csv(folder / "run" / "predictions" / "test.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LIDC-IDRI", "3D Slicer", "DICOM SEG", "COCO"])
def test_annotations_to_report(name, archive, call, tmp_path):
    labels = {
        "LIDC-IDRI": lambda: write_lidc(tmp_path / "xml", BALLS),
        "3D Slicer": lambda: write_slicer(tmp_path / "marks", BALLS, "RAS"),
        "DICOM SEG": lambda: write_seg(tmp_path / "seg", BALLS, archive),
        "COCO": lambda: write_coco(tmp_path / "boxes.json", BALLS),
    }[name]()
    predictions = to_report(call, tmp_path, archive, labels)
    assert set(predictions["y"]) == {"benign", "malignant"}
    info = json.loads((tmp_path / "cohort" / "cohort.json").read_text(encoding="utf-8"))
    assert info["counts"]["cases"] == len(BALLS) and info["labels_read_as"]["format"].startswith(name)


@pytest.mark.slow
def test_luna16_to_report(call, tmp_path):
    """As datasets/luna16.md says: candidates drawn by the script, .mhd images in subset folders."""
    images = write_mhd(tmp_path / "luna16" / "subset0", BALLS).parent
    with (tmp_path / "candidates_V2.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seriesuid", "coordX", "coordY", "coordZ", "class"])
        for ball in BALLS:
            rows.writerow([ball.series, *ball.centre, int(ball.label == "malignant")])
    with (tmp_path / "annotations.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"])
        rows.writerows([ball.series, *ball.centre, 2 * ball.radius] for ball in BALLS if ball.label == "malignant")
    out = script("luna16_candidates.py", tmp_path / "candidates_V2.csv", "--annotations", tmp_path / "annotations.csv",
                 "--negatives", 1, "-o", tmp_path / "labels.csv")  # fmt: skip
    true = sum(ball.label == "malignant" for ball in BALLS)
    assert f"{true} true" in out
    predictions = to_report(call, tmp_path, images, tmp_path / "labels.csv")
    assert set(predictions["y"]) == {0, 1}
    table = pd.read_csv(tmp_path / "cohort" / "cohort.csv")
    assert set(table.loc[table["label"] == 1, "diameter"]) == {12.0}
    assert table.loc[table["label"] == 0, "diameter"].isna().all()

    words = ["predict", tmp_path / "run", images, "--cases", tmp_path / "labels.csv", "-o", tmp_path / "new.csv"]
    code, _, err = call(*words)
    assert code == 3
    code, _, err = call(*words, "--modality", "CT", "--overwrite")
    assert code == 0, err
    again = pd.read_csv(tmp_path / "new.csv").set_index("case_id")["p_1"]
    judged = predictions.set_index("case_id")["p_1"]
    assert len(again) == len(table)
    pd.testing.assert_series_equal(again[judged.index], judged, atol=1e-5)


def npz(path, shape, n=(24, 8, 8)):
    """An npz as MedMNIST publishes them: uint8 images, labels (n, 1); class 1 is brighter in the middle."""
    rng = np.random.default_rng(0)
    held = {}
    for split, count in zip(("train", "val", "test"), n, strict=True):
        labels = np.arange(count)[:, None] % 2
        images = rng.integers(60, 120, (count, *shape))
        middle = (slice(None), *(slice(m // 3, 2 * m // 3) for m in shape))
        images[middle] += 80 * labels.reshape(-1, *[1] * len(shape))
        held |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    np.savez(path, **held)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "classes", "options"),
    [
        ("pneumoniamnist", (28, 28), "normal,pneumonia", []),
        ("nodulemnist3d", (28, 28, 28), "benign,malignant", ["--coordinates", "voxel", "--modality", "CT"]),
    ],
)
def test_npz_to_report(name, shape, classes, options, call, tmp_path):
    folder = tmp_path / name
    script("labels_from_npz.py", npz(tmp_path / f"{name}.npz", shape), "-o", folder, "--classes", classes)
    predictions = to_report(call, tmp_path, folder, folder / "labels.csv", "--split-column", "split", *options)
    assert len(predictions) == 8 and set(predictions["y"]) == set(classes.split(","))
    table = pd.read_csv(tmp_path / "cohort" / "cohort.csv")
    assert table["split"].value_counts().to_dict() == {"train": 24, "tune": 8, "test": 8}


def test_npz_keeps_pixels_and_refuses_objects(tmp_path):
    from PIL import Image

    path = npz(tmp_path / "pneumoniamnist.npz", (28, 28))
    script("labels_from_npz.py", path, "-o", tmp_path / "out", "--classes", "a,b")
    with np.load(path) as held:
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / "out" / "val" / "000003.png")), held["val_images"][3]
        )
    np.savez(tmp_path / "bad.npz", train_images=np.array([{}], dtype=object))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        script("labels_from_npz.py", tmp_path / "bad.npz", "-o", tmp_path / "bad", "--classes", "a,b")
    assert "cannot be taken" in caught.value.stderr and not (tmp_path / "bad").exists()


def test_candidates_are_drawn_by_scan_and_seed(tmp_path):
    with (tmp_path / "c.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seriesuid", "coordX", "coordY", "coordZ", "class"])
        rows.writerows([f"1.2.{s}", i, s, 0, int(i == 0 and s > 0)] for s in range(3) for i in range(40))
    first = script("luna16_candidates.py", tmp_path / "c.csv", "--negatives", 5, "-o", tmp_path / "a.csv")
    script("luna16_candidates.py", tmp_path / "c.csv", "--negatives", 5, "-o", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert "2 true and 11 false candidates of 3 scans" in first
    assert pd.read_csv(tmp_path / "a.csv")["seriesuid"].value_counts().to_dict() == {"1.2.1": 6, "1.2.2": 6, "1.2.0": 1}

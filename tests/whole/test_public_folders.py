"""A public set's layout, as its card describes it: PNG and JPEG files in a folder for each class."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_images_in_class_folders_become_a_report(call, tmp_path):
    rng = np.random.default_rng(0)
    images = tmp_path / "X-Ray Image DataSet"
    for index in range(36):
        label = ("No_findings", "Pneumonia", "Covid-19")[index % 3]
        (images / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(90 + 40 * (index % 3), 30, (60, 50)).clip(0, 255).astype(np.uint8)
        name = f"{index:08d}_000.png" if label != "Covid-19" else f"paper-{index}.jpeg"
        Image.fromarray(pixels).save(images / label / name)
    labels = tmp_path / "labels.csv"
    script = [sys.executable, ROOT / "datasets" / "labels_from_folders.py", images, "-o", labels]
    done = subprocess.run([*script, "--patient", "^([0-9]{8})_"], check=True, capture_output=True, text=True)
    assert "12 files name no patient" in done.stdout
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    assert len({row["patient"] for row in rows}) == 36

    assert call("check", images, "--labels", labels, "-o", tmp_path / "cohort")[0] == 0
    small = ["--epochs", 1, "--set", "data.image_size=32"]
    assert call("train", tmp_path / "cohort", "-o", tmp_path / "run", *small)[0] == 0
    code, out, _ = call("evaluate", tmp_path / "run")
    assert code == 0
    assert "AUC of Covid-19" in out
    predictions = pd.read_csv(tmp_path / "run" / "predictions" / "test.csv")
    np.testing.assert_allclose(predictions.filter(like="p_").sum(axis=1), 1)
    assert (tmp_path / "run" / "evaluation" / "test" / "report.html").is_file()

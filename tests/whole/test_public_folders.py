"""A public set's layout, as its card describes it: PNG and JPEG files in a folder for each class."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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


def table_script(table, output, *words):
    script = [sys.executable, ROOT / "datasets" / "labels_from_table.py", table, "-o", output, *words]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    with output.open() as file:
        return list(csv.DictReader(file)), done.stdout


def picture(path, seed, bright):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).normal(90 + 40 * bright, 30, (60, 50)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.slow
def test_one_finding_of_chexpert_becomes_a_report(call, tmp_path):
    """As datasets/chexpert.md says: uncertain and unmentioned images left out, patients read from the path."""
    rows = [["Path", "Sex", "Frontal/Lateral", "Pleural Effusion", "Edema"]]
    for index in range(40):
        value = ("1.0", "0.0", "-1.0", "")[index // 14 if index < 36 else 3]
        view = "Lateral" if index == 0 else "Frontal"
        name = f"CheXpert-v1.0-small/train/patient{index // 2:05d}/study1/view{index % 2 + 1}_frontal.jpg"
        picture(tmp_path / name, index, value == "1.0")
        rows.append([name, "Female", view, value, ("1.0", "0.0", "")[index // 2 % 3]])
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    labels = tmp_path / "labels.csv"
    found, said = table_script(
        tmp_path / "train.csv", labels, "--file", "Path", "--patient", "(patient[0-9]+)", "--label", "Pleural Effusion",
        "--values", "1.0=effusion", "0.0=none", "--where", "Frontal/Lateral=Frontal",
    )  # fmt: skip
    assert len(found) == 27 and len({row["patient"] for row in found}) == 14
    assert "left out: 8 × -1.0" in said and "left out: 4 × (empty)" in said
    cohort, run = tmp_path / "cohort", tmp_path / "run"
    assert call("check", tmp_path / "CheXpert-v1.0-small", "--labels", labels, "-o", cohort)[0] == 0
    table = pd.read_csv(cohort / "cohort.csv")
    assert len(table) == 27 and table["patient"].nunique() == 14
    small = ["--epochs", 1, "--set", "data.image_size=32", "--classes", "none,effusion"]
    assert call("train", cohort, "-o", run, *small)[0] == 0
    assert call("evaluate", run)[0] == 0

    findings = "Pleural Effusion,Edema"
    found, _ = table_script(
        tmp_path / "train.csv", labels, "--file", "Path", "--patient", "(patient[0-9]+)", "--findings", findings,
        "--where", "Frontal/Lateral=Frontal",
    )  # fmt: skip
    assert len(found) == 39
    cohort, run = tmp_path / "cohort2", tmp_path / "run2"
    words = ["--label-column", findings, "--uncertain", "unknown", "-o", cohort]
    assert call("check", tmp_path / "CheXpert-v1.0-small", "--labels", labels, *words)[0] == 0
    table = pd.read_csv(cohort / "cohort.csv")
    assert table["y_Pleural Effusion"].value_counts().to_dict() == {0: 14, 1: 13}
    assert call("train", cohort, "-o", run, *small[:-2])[0] == 0
    code, out, _ = call("evaluate", run)
    assert code == 0 and "AUC of Edema" in out


def test_tables_of_nih_rsna_and_covidx(tmp_path):
    nih = tmp_path / "Data_Entry_2017_v2020.csv"
    nih.write_text("Image Index,Finding Labels,Patient ID\n1_0.png,Edema|Pneumonia,1\n2_0.png,No Finding,2\n")
    found, _ = table_script(
        nih, tmp_path / "nih.csv", "--file", "Image Index", "--patient-column", "Patient ID",
        "--label", "Finding Labels", "--contains", "Pneumonia=pneumonia", "--else", "other",
    )  # fmt: skip
    assert [tuple(row.values()) for row in found] == [("1_0.png", "pneumonia", "1"), ("2_0.png", "other", "2")]
    found, said = table_script(
        nih, tmp_path / "nih.csv", "--file", "Image Index", "--patient-column", "Patient ID",
        "--label", "Finding Labels", "--findings", "Edema,Pneumonia,Effusion",
    )  # fmt: skip
    assert [tuple(row.values()) for row in found] == [("1_0.png", "1", "1", "0", "1"), ("2_0.png", "0", "0", "0", "2")]
    assert "Edema: 1 × 0, 1 × 1" in said
    chexpert = tmp_path / "train.csv"
    chexpert.write_text(
        "Path,Frontal/Lateral,Edema,Pleural Effusion\n"
        "C/train/patient00001/study1/view1_frontal.jpg,Frontal,1.0,\n"
        "C/train/patient00001/study1/view2_lateral.jpg,Lateral,1.0,\n"
        "C/train/patient00002/study1/view1_frontal.jpg,Frontal,-1.0,0.0\n"
    )
    found, _ = table_script(
        chexpert, tmp_path / "chexpert.csv", "--file", "Path", "--patient", "(patient[0-9]+)",
        "--findings", "Edema,Pleural Effusion", "--where", "Frontal/Lateral=Frontal",
    )  # fmt: skip
    assert [tuple(row.values())[1:] for row in found] == [("1.0", "", "patient00001"), ("-1.0", "0.0", "patient00002")]
    rsna = tmp_path / "stage_2_train_labels.csv"
    rsna.write_text("patientId,x,y,width,height,Target\na,1,2,3,4,1\na,5,6,7,8,1\nb,,,,,0\n")
    found, _ = table_script(
        rsna, tmp_path / "rsna.csv", "--file", "patientId", "--ending", ".dcm", "--label", "Target",
        "--values", "1=opacity", "0=none",
    )  # fmt: skip
    assert [tuple(row.values()) for row in found] == [("a.dcm", "opacity", ""), ("b.dcm", "none", "")]
    covidx = tmp_path / "train.txt"
    covidx.write_text("379 1e64990d.png negative rsna\n3 SARS-10.jpg positive cohen\n")
    found, _ = table_script(
        covidx, tmp_path / "covidx.csv", "--names", "patient,file,label,source", "--file", "file", "--label", "label",
        "--patient-column", "patient",
    )  # fmt: skip
    assert [row["label"] for row in found] == ["negative", "positive"]
    assert [row["patient"] for row in found] == ["379", "3"]

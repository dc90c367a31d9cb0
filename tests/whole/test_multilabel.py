"""Several findings, from files to a report: one check, one train, one evaluate, one predict on phantom radiographs."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import medlora
from medlora.cli.main import run as verb
from medlora.phantoms import radiographs

FINDINGS = ("Opacity", "Lung Lesion", "Edema")
SMALL = ["--set", "data.image_size=32", "--epochs", "1", "--batch-size", "16", "--no-timing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Phantoms with a CSV as CheXpert's: the opacity as it is, two findings made up, all with gaps."""
    folder = tmp_path_factory.mktemp("findings")
    labels = radiographs.write(folder / "phantoms", patients=40, seed=5, size=64, progress=False)
    random = np.random.default_rng(0)
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient_id", *FINDINGS])
        for row in rows:
            truth = [row["label"] == "opacity", random.random() < 0.5, random.random() < 0.3]
            gaps = random.choice(["", "-1.0", "known"], 3, p=[0.15, 0.1, 0.75])
            cells = [gap if gap != "known" else f"{float(t):.1f}" for t, gap in zip(truth, gaps, strict=True)]
            writer.writerow([row["file"], row["patient_id"], *cells])
    archive = folder / "phantoms" / "dicom"
    for words in (
        [
            "check",
            archive,
            "--labels",
            folder / "train.csv",
            "--label-column",
            ",".join(FINDINGS),
            "-o",
            folder / "cohort",
        ],
        ["train", folder / "cohort", "-o", folder / "run", *SMALL],
        ["evaluate", folder / "run"],
        ["predict", folder / "run", archive, "-o", folder / "predictions.csv"],
    ):
        assert verb([str(word) for word in words]) == 0, words[0]
    return folder


def test_figures_are_scikit_learns_on_the_known_cases(folder):
    predictions = pd.read_csv(folder / "run" / "predictions" / "test.csv")
    judged = json.loads((folder / "run" / "evaluation" / "test" / "metrics.json").read_text())["metrics"]
    areas = {row["class"]: row for row in judged if row["metric"] == "auc"}
    expected = []
    for name in FINDINGS:
        known = predictions[predictions[f"y_{name}"].notna()]
        assert 0 < len(known) <= len(predictions)
        expected.append(roc_auc_score(known[f"y_{name}"], known[f"p_{name}"]))
        assert areas[name]["value"] == pytest.approx(expected[-1], abs=1e-12)
        assert areas[name]["n_pos"] + areas[name]["n_neg"] == len(known)
        hit = known["predicted"].str.split("|").map(lambda said, name=name: name in said)
        row = next(row for row in judged if row["class"] == name and row["metric"] == "sensitivity")
        assert row["value"] == pytest.approx(hit[known[f"y_{name}"] == 1].mean())
    assert areas["macro"]["value"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert areas["macro"]["low"] < areas["macro"]["value"] < areas["macro"]["high"]


def test_predict_gives_what_evaluate_gave(folder):
    predicted = pd.read_csv(folder / "predictions.csv").set_index("scan_id")
    judged = pd.read_csv(folder / "run" / "predictions" / "test.csv").set_index("scan_id")
    columns = [f"p_{name}" for name in FINDINGS]
    assert np.abs(predicted.loc[judged.index, columns] - judged[columns]).to_numpy().max() <= 1e-6
    assert (predicted.loc[judged.index, "predicted"] == judged["predicted"]).all()
    assert predicted[[f"y_{name}" for name in FINDINGS]].isna().all(axis=None)
    thresholds = json.loads((folder / "run" / "adapter" / "medlora.json").read_text())["task"]["operating_point"][
        "value"
    ]
    for _, row in predicted.iterrows():
        hits = [name for name in FINDINGS if row[f"p_{name}"] >= thresholds[name]]
        assert row["predicted"] == ("|".join(hits) or "none")


def test_the_adapter_says_what_it_is(folder):
    info = json.loads((folder / "run" / "adapter" / "medlora.json").read_text())
    assert info["task"]["kind"] == "multilabel"
    assert info["task"]["uncertain_as"] == "unknown"
    assert list(info["task"]["scaling"]) == info["task"]["classes"] == list(FINDINGS)
    cohort = pd.read_csv(folder / "cohort" / "cohort.csv")
    train = cohort[cohort["split"] == "train"]
    for name in FINDINGS:
        assert info["training"]["cases"]["train"][f"{name} present"] == (train[f"y_{name}"] == 1).sum()
        assert info["training"]["cases"]["train"][f"{name} absent"] == (train[f"y_{name}"] == 0).sum()
    card = (folder / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "Answers for each finding by itself: Opacity, Lung Lesion, Edema" in card
    assert "Uncertain labels were taken as unknown" in card
    report = (folder / "run" / "evaluation" / "test" / "report.html").read_text(encoding="utf-8")
    for words in ("linear probe", "Lung Lesion", "Platt", "uncertain findings were taken as unknown", "Worst errors"):
        assert words in report, words
    assert f"<b>{len(cohort)}</b>included" in report


def test_explain_one_finding_and_judge_on_another_cohort(folder, tmp_path, call, answer):
    archive = folder / "phantoms" / "dicom"
    scan = next(path for path in sorted(archive.rglob("*")) if path.is_file())
    code, found = answer("explain", folder / "run", scan, "--class", "Edema", "-o", tmp_path / "explained")
    assert code == 0
    row = pd.read_csv(folder / "predictions.csv").set_index("scan_id").loc[found["scan_id"]]
    assert found["class"] == "Edema"
    assert found["probability"] == pytest.approx(row["p_Edema"], abs=1e-6)
    assert found["predicted"] == row["predicted"]

    cohort = medlora.Cohort.from_archive(
        archive, folder / "train.csv", label_column=["Edema", "Opacity"], fractions=None, uncertain="present"
    )
    cohort.save(tmp_path / "other")
    code, judged = answer("evaluate", folder / "run", "--cohort", tmp_path / "other", "-o", tmp_path / "judged")
    assert code == 0
    assert {row["class"] for row in judged["metrics"] if row["value"] is not None} >= {"Edema", "Opacity", "macro"}
    assert any("Lung Lesion has one class only" in note for note in judged["notes"])

    labels = folder / "phantoms" / "labels.csv"
    medlora.Cohort.from_archive(archive, labels, label_column="label").save(tmp_path / "classes")
    code, _, err = call("evaluate", folder / "run", "--cohort", tmp_path / "classes", "-o", tmp_path / "none")
    assert code == 2
    assert "the cohort has one label for each case" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "train.class_weights=sampler"], "sampler draws an image for its one class"),
        (["--classes", "Edema,Oedema"], "the cohort has no finding 'Oedema'"),
    ],
)
def test_train_refuses_what_has_no_meaning(folder, tmp_path, call, words, said):
    code, _, err = call("train", folder / "cohort", "-o", tmp_path / "run", *SMALL, *words)
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "run").exists()


def test_a_finding_with_one_value_in_a_split_is_refused(folder, tmp_path, call):
    """Where the user's own splits leave one without: by name, and the others can be trained."""
    with (folder / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    patients = sorted({row["patient_id"] for row in rows})
    splits = {patient: ("train", "tune", "test")[index % 3] for index, patient in enumerate(patients)}
    for row in rows:
        row["split"] = splits[row["patient_id"]]
        if row["split"] == "tune" and row["Edema"] == "1.0":
            row["Edema"] = ""
    labels = tmp_path / "own.csv"
    with labels.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    archive = folder / "phantoms" / "dicom"
    options = ["--label-column", "Opacity,Edema", "--split-column", "split", "-o", tmp_path / "cohort"]
    code, out, err = call("check", archive, "--labels", labels, *options)
    assert code == 0, err
    assert "the class 'Edema present' has no case in tune" in out
    code, _, err = call("train", tmp_path / "cohort", "-o", tmp_path / "run", *SMALL)
    assert code == 2
    assert "the split 'tune' has no case of 'Edema present'" in err
    options = ["--classes", "Opacity", "--set", "train.mixup=0.4", "--set", "train.label_smoothing=0.1"]
    code, out, err = call("train", tmp_path / "cohort", "-o", tmp_path / "run", *SMALL, *options)
    assert code == 0, err


@pytest.mark.slow
def test_methods_are_compared_over_folds(folder, tmp_path, answer):
    code, found = answer(
        "compare", folder / "cohort", "-o", tmp_path / "compared", "--methods", "lora,probe", "--seeds", 1,
        "--folds", 2, "--epochs", 1, "--set", "data.image_size=32",
    )  # fmt: skip
    assert code == 0
    table = pd.read_csv(tmp_path / "compared" / "compare.csv")
    assert set(table["class"]) == set(FINDINGS)
    for method in ("lora", "probe"):
        areas = []
        for fold in (0, 1):
            path = Path(tmp_path / "compared" / "runs" / f"{method}-seed0-fold{fold}" / "predictions" / "test.csv")
            predictions = pd.read_csv(path)
            for name in FINDINGS:
                known = predictions[predictions[f"y_{name}"].notna()]
                areas.append(roc_auc_score(known[f"y_{name}"], known[f"p_{name}"]))
        row = next(row for row in found["methods"] if row["method"] == method)
        assert row["auc"] == pytest.approx(np.mean(areas), abs=1e-9)

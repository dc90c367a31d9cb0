"""The verbs on 1,124 real radiographs: four transfer syntaxes, both photometric interpretations, three classes."""

import json

import numpy as np
import pandas as pd
import pytest


@pytest.mark.slow
def test_real_radiographs_from_files_to_report(covid_cxr, call, tmp_path):
    code, out, err = call("check", covid_cxr / "dicom", "--labels", covid_cxr / "labels.csv", "-o", tmp_path / "cohort")
    assert code == 0, err
    assert "1124 of 1124 rows matched" in err
    table = pd.read_csv(tmp_path / "cohort" / "cohort.csv")
    assert table["label"].value_counts().to_dict() == {"normal": 500, "pneumonia": 500, "covid": 124}
    assert table["patient"].nunique() == 777
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert (table.groupby("patient")["label"].nunique() > 1).sum() == 21
    assert "'covid' is partly told by its source" in out

    small = ["--epochs", 1, "--set", "data.image_size=64"]
    code, _, err = call("train", tmp_path / "cohort", "-o", tmp_path / "run", *small)
    assert code == 0, err
    code, _, err = call("evaluate", tmp_path / "run")
    assert code == 0, err
    report = tmp_path / "run" / "evaluation" / "test"
    metrics = json.loads((report / "metrics.json").read_text())
    auc = {row["class"]: row["value"] for row in metrics["metrics"] if row["metric"] == "auc"}
    assert auc["covid"] > 0.9
    assert auc["pneumonia"] > 0.7
    assert "border" in (report / "report.html").read_text(encoding="utf-8")

    code, _, err = call("predict", tmp_path / "run", covid_cxr / "dicom", "-o", tmp_path / "p.csv")
    assert code == 0, err
    predicted = pd.read_csv(tmp_path / "p.csv").set_index("scan_id")
    judged = pd.read_csv(tmp_path / "run" / "predictions" / "test.csv").set_index("scan_id")
    columns = list(judged.filter(like="p_"))
    assert len(predicted) == 1124
    assert np.abs(predicted.loc[judged.index, columns] - judged[columns]).to_numpy().max() <= 1e-6

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medlora.cohorts import Cohort
from medlora.cohorts.source import source_check, source_warnings

COVID = Path(__file__).parents[2].parent / "shared" / "data" / "covid-cxr"


def made(n=400, per_patient=2, seed=0):
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // per_patient), per_patient)
    label = rng.integers(0, 2, n // per_patient)[patients]
    scans = [f"{rng.integers(2**62):016x}" for _ in range(n)]
    return rng, scans, [f"p{p}" for p in patients], np.where(label, "ill", "well")


def check(rng, scans, patients, label, tags=None, small=None):
    tags = pd.DataFrame({"Rows": [512] * len(scans)}) if tags is None else tags
    return source_check(scans, patients, list(label), tags, [None] * len(scans) if small is None else small)


def test_a_tag_that_follows_the_label_is_found():
    rng, scans, patients, label = made()
    follows = rng.random(len(scans)) < 0.8
    maker = np.where((label == "ill") == follows, "A", "B")
    found = check(
        rng, scans, patients, label, pd.DataFrame({"Manufacturer": maker, "KVP": rng.normal(80, 5, len(scans))})
    )
    assert [(r["class"], r["from"]) for r in found] == [("ill", "acquisition"), ("well", "acquisition")]
    truth = roc_auc_score(label == "ill", maker == "A")  # what the tag alone can reach
    assert found[0]["auc"] == pytest.approx(truth, abs=0.05)
    assert found[0]["low"] < found[0]["auc"] < found[0]["high"] and found[0]["low"] > 0.6
    assert {k: found[0][k] for k in ("auc", "low", "high")} == {k: found[1][k] for k in ("auc", "low", "high")}
    assert (found[0]["n_pos"], found[0]["n_neg"]) == ((label == "ill").sum(), (label == "well").sum())
    assert len(source_warnings(found)) == 1


def test_noise_is_no_source():
    """Over 12 draws without any relation the interval holds 0.5 about 95 times in 100, and nothing is warned of."""
    covered = warned = 0
    for seed in range(12):
        rng, scans, patients, label = made(160, seed=seed)
        tags = pd.DataFrame({"KVP": rng.normal(80, 5, len(scans)), "Grid": rng.choice(["x", "y", "z"], len(scans))})
        (found, _) = check(rng, scans, patients, label, tags)
        covered += found["low"] <= 0.5 <= found["high"]
        warned += len(source_warnings([found]))
    assert covered >= 9 and warned <= 1


def test_patients_do_not_tell_themselves():
    """Each patient has a value of their own: with folds by image it would tell the label, by patient it must not."""
    rng, scans, patients, label = made(400, 8)
    own = {patient: rng.normal() for patient in dict.fromkeys(patients)}
    found = check(rng, scans, patients, label, pd.DataFrame({"Exposure": [own[p] for p in patients]}))[0]
    assert found["low"] < 0.5 < found["high"]


def test_only_the_border_is_seen():
    rng, scans, patients, label = made(200, 1)
    images = rng.random((200, 32, 32)).astype(np.float32)
    inside, border = images.copy(), images.copy()
    inside[label == "ill", 1:-1, 1:-1] += 1  # the whole inside differs, the outermost pixels do not
    border[label == "ill", 0, 3:9] += 1
    found = check(rng, scans, patients, label, small=list(inside))
    assert found[0]["from"] == "border" and found[0]["auc"] < 0.6
    assert check(rng, scans, patients, label, small=list(border))[0]["auc"] > 0.95


def test_neither_order_nor_salt_change_the_figures():
    rng, scans, patients, label = made()
    tags = pd.DataFrame({"KVP": rng.normal(80, 5, len(scans)) + (label == "ill")})
    first = check(rng, scans, patients, label, tags)
    order = rng.permutation(len(scans))
    again = check(
        rng, [scans[i] for i in order], [f"salted {patients[i][::-1]}" for i in order], label[order],
        tags.iloc[order].reset_index(drop=True),
    )  # fmt: skip
    assert first == again


def test_what_cannot_be_judged_is_left_out():
    rng, scans, patients, label = made(12, 2)
    assert check(rng, scans, patients, label, pd.DataFrame({"KVP": rng.normal(size=12)})) == []
    rng, scans, patients, label = made()
    assert check(rng, scans, patients, label) == []  # nothing varies


@pytest.mark.slow
@pytest.mark.skipif(not COVID.is_dir(), reason="needs the radiographs of covid-cxr")
def test_covid_radiographs_are_told_by_their_source(tmp_path):
    cohort = Cohort.from_archive(COVID / "dicom", COVID / "labels.csv")
    assert (len(cohort), cohort.table["patient"].nunique()) == (1124, 777)
    assert cohort.table["label"].value_counts().to_dict() == {"normal": 500, "pneumonia": 500, "covid": 124}
    assert cohort.excluded.empty and cohort.errors == []
    assert cohort.info["join"]["messages"] == ["1124 of 1124 rows matched 1124 scans by file path (column 'file')"]
    auc = {(r["class"], r["from"]): r for r in cohort.info["source_check"]}
    assert auc["covid", "acquisition"]["auc"] > 0.9 and auc["covid", "border"]["low"] > 0.7
    assert auc["normal", "acquisition"]["auc"] < 0.65
    assert sum(line.startswith("'covid' is partly told by its source") for line in cohort.warnings) == 2
    assert (cohort.table.groupby("patient")["label"].nunique() > 1).sum() == 21
    shares = cohort.table.groupby("label")["split"].value_counts(normalize=True).unstack()
    assert np.abs(shares[["train", "tune", "test"]] - (0.6, 0.2, 0.2)).to_numpy().max() < 0.02
    folder = cohort.save(tmp_path / "cohort")
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file())
    table = pd.read_csv(COVID / "labels.csv", dtype=str)
    for identifier in (*table["patient_id"].unique(), *table["study_uid"], "TEST HOSPITAL", "TEST^"):
        assert identifier not in text
    assert (
        json.loads((folder / "cohort.json").read_text(encoding="utf-8"))["source_check"] == cohort.info["source_check"]
    )

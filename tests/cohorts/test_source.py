from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from archives import noise, write_csv, write_dicom
from sklearn.metrics import roc_auc_score

from medlora.cohorts import Cohort
from medlora.cohorts.source import check_sources, source_warnings, year_of

COVID = Path(__file__).parents[2].parent / "shared" / "data" / "covid-cxr"


def made(n=400, per_patient=2, seed=0):
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // per_patient), per_patient)
    label = rng.integers(0, 2, n // per_patient)[patients]
    scans = [f"{rng.integers(2**62):016x}" for _ in range(n)]
    return rng, scans, [f"p{p}" for p in patients], np.where(label, "ill", "well")


def check(rng, scans, patients, label, tags=None, small=None, **more):
    return asked(scans, patients, label, tags, small, **more)[0]


def asked(scans, patients, label, tags=None, small=None, **more):
    tags = pd.DataFrame({"Rows": [512] * len(scans)}) if tags is None else tags
    question = (np.ones(len(scans), dtype=bool), label.tolist(), sorted(set(label.tolist())))
    return check_sources(scans, patients, [question], tags, [None] * len(scans) if small is None else small, **more)


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
    """In noise the interval holds 0.5 at least 95 times in 100, and 5 % of cohorts of four classes are warned of.

    Each makes 16 tests. Were each interval to decide for itself, a third of the cohorts would be warned of.
    """
    held, warned = [], 0
    for seed in range(16):
        rng, n = np.random.default_rng(seed), 100
        label = rng.permutation(np.arange(n) % 4).astype(str)
        tags = pd.DataFrame({"KVP": rng.normal(80, 5, n), "Grid": rng.choice(["x", "y", "z"], n)})
        small = list(rng.random((n, 8, 8)))
        found = check(
            rng, [f"{seed}:{i}" for i in range(n)], [str(i) for i in range(n)], label, tags, small,
            years=list(rng.integers(2012, 2021, n).astype(float)), sites=list(rng.choice(list("ABC"), n)),
        )  # fmt: skip
        assert len(found) == found[0]["tests"] == 16
        held += [result["low"] <= 0.5 <= result["high"] for result in found]
        warned += bool(source_warnings(found))
    assert np.mean(held) >= 0.95 and warned <= 2


def test_a_scanner_that_follows_the_label_is_told_among_much_noise():
    """In 80 % of 100 patients, beside eight fields and a border that follow nothing."""
    warned = 0
    for seed in range(20):
        rng, n = np.random.default_rng(seed), 100
        label = np.where(rng.permutation(n) % 2, "ill", "well")
        maker = np.where((label == "ill") == (rng.random(n) < 0.8), "A", "B")
        noise_only = {f"n{i}": rng.normal(size=n) for i in range(4)} | {
            f"t{i}": rng.choice(list("abcde"), n) for i in range(4)
        }
        found = check(
            rng, [f"{seed}:{i}" for i in range(n)], [str(i) for i in range(n)], label,
            pd.DataFrame({"Manufacturer": maker, **noise_only}), list(rng.random((n, 8, 8))),
        )  # fmt: skip
        lines = source_warnings(found)
        warned += any("the acquisition tags alone reach AUC" in line for line in lines)
        assert all("corrected for 2 tests" in line for line in lines)
    assert warned >= 18


def test_the_year_and_the_site_are_sources():
    rng, scans, patients, label = made(80, 1)
    tags = pd.DataFrame({"KVP": rng.normal(80, 5, 80)})
    years = np.where(label == "ill", 2020.0, 2012.0)
    sites = np.where((label == "ill") == (rng.random(80) < 0.9), "North", "South")
    found = check(rng, scans, patients, label, tags, years=list(years), sites=list(sites))
    auc = {result["from"]: result for result in found}
    assert auc["year"]["auc"] == 1 and 0.85 < auc["year"]["low"] < 1
    lines = source_warnings(found)
    assert [line.split(": ")[1].split(" alone")[0] for line in lines] == ["the year of the study", "the site"]
    assert "corrected for 3 tests" in lines[0]
    assert not any(year in line for line in lines for year in ("2012", "2020"))


def test_an_unusual_combination_is_a_source():
    """Neither of two fields tells the label, both together do."""
    rng, scans, patients, label = made(200, 1)
    first = rng.integers(0, 2, 200)
    tags = pd.DataFrame({"Manufacturer": np.where(first, "A", "B"), "Rows": 512 * (1 + (first ^ (label == "ill")))})
    assert check(rng, scans, patients, label, tags)[0]["auc"] > 0.95


@pytest.mark.parametrize(("date", "year"), [("20120301", 2012), ("2012.03.01", 2012), ("", None), ("unknown", None)])
def test_years(date, year):
    assert year_of(date) == year if year else np.isnan(year_of(date))


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


def test_what_cannot_be_asked_is_said():
    rng, scans, patients, label = made(16, 2)
    few = (label[::2] == "ill").sum()
    found, lines = asked(scans, patients, label, pd.DataFrame({"KVP": rng.normal(size=16)}))
    assert found == []
    assert lines == [f"'ill': {few} of the patients have it, {8 - few} do not, and 5 of each are needed"]
    _, scans, patients, label = made()
    found, lines = asked(scans, patients, label)
    assert found == []
    assert [line.split(":")[0] for line in lines] == [
        "the acquisition tags", "the border of the image", "the year of the study", "the site",
    ]  # fmt: skip
    found, lines = asked(scans, patients, np.array(["ill"] * 400))
    assert found == [] and lines == ["'ill': all cases where it is known are alike"]


def test_a_finding_that_cannot_be_asked_is_named():
    rng, scans, patients, _ = made(60, 1)
    kvp = pd.DataFrame({"KVP": [80.0] * 40 + list(rng.normal(80, 5, 20))})
    marks = ["1", "0"] * 30
    questions = [
        (np.arange(60) < 40, ["a" if mark == "1" else "" for mark in marks], ["a"]),
        (np.arange(60) >= 0, ["b" if mark == "1" else "" for mark in marks], ["b"]),
    ]
    found, lines = check_sources(scans, patients, questions, kvp, [None] * 60)
    assert [result["class"] for result in found] == ["b"]
    assert lines[0] == "the acquisition tags for 'a': they are the same in all cases"
    assert lines[1].startswith("the border of the image: ")


def test_patients_who_share_an_image_are_in_one_fold(tmp_path):
    """15 images of noise, each of two patients with one label: a border seen in training must not come again."""
    rows = [["PatientID", "label"]]
    for p in range(30):
        write_dicom(tmp_path / "archive" / f"{p}.dcm", noise(9000 + p // 2, (40, 40)), f"dd{p}", f"P{p}")
        rows.append([f"P{p}", str((p // 2) % 2)])
    cohort = Cohort.from_archive(tmp_path / "archive", write_csv(tmp_path / "l.csv", rows))
    border = [result for result in cohort.info["source_check"] if result["from"] == "border"]
    assert len(border) == 2 and border[0]["low"] < 0.5
    assert not any("told by its source" in line for line in cohort.warnings)


def test_a_label_that_follows_the_year_is_warned_of_and_no_date_is_shown(tmp_path):
    rows = [["PatientID", "label"]]
    for p in range(40):
        date = ("20120301", "20200417")[p % 2]
        write_dicom(tmp_path / "archive" / f"{p}.dcm", noise(p), f"dd{p}", f"P{p}", StudyDate=date)
        rows.append([f"P{p}", ("well", "ill")[p % 2]])
    cohort = Cohort.from_archive(tmp_path / "archive", write_csv(tmp_path / "l.csv", rows))
    lines = [line for line in cohort.warnings if "told by its source" in line]
    assert len(lines) == 1 and "the year of the study alone reaches AUC 1.00" in lines[0]
    folder = cohort.save(tmp_path / "cohort")
    page = (folder / "check.html").read_text(encoding="utf-8")
    assert "year of the study only" in page and '<td class="n">0.002</td>' in page  # the least of 1,000, twice
    assert "<li>the acquisition tags: they are the same in all cases.</li>" in page
    for name in ("cohort.csv", "check.html", "cohort.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not any(date in text for date in ("2012", "20200417"))


def test_a_class_of_few_patients_is_named_on_the_page(tmp_path):
    rows = [["PatientID", "label"]]
    for p in range(12):
        write_dicom(tmp_path / "archive" / f"{p}.dcm", noise(p), f"dd{p}", f"P{p}")
        rows.append([f"P{p}", "rare" if p < 4 else "well"])
    cohort = Cohort.from_archive(tmp_path / "archive", write_csv(tmp_path / "l.csv", rows), fractions=None)
    page = (cohort.save(tmp_path / "cohort") / "check.html").read_text(encoding="utf-8")
    assert cohort.info["source_check"] == []
    assert "Does the source tell the label?" in page
    assert "&#39;rare&#39;: 4 of the patients have it, 8 do not, and 5 of each are needed" in page


def test_cohorts_of_older_versions_go_by_their_interval():
    old = {"class": "ill", "from": "border", "auc": 0.7, "low": 0.55, "high": 0.8, "method": "", "n_pos": 9, "n_neg": 9}
    assert source_warnings([old, {**old, "low": 0.45, "class": "well"}]) == [
        "'ill' is partly told by its source: the border of the image alone reaches AUC 0.70 [0.55, 0.80] against the "
        "rest, and a model may use that, too"
    ]


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

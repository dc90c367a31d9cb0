"""Nodules on phantom CT, from files to answers by the command line; and coordinates in the wrong system."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from medlora.cli.main import run as medlora
from medlora.phantoms import ct
from medlora.scans import survey

pytestmark = pytest.mark.slow


def with_rows(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def nodules(tmp_path_factory):
    """An archive with scouts in it, its cohort, and a run on it."""
    folder = tmp_path_factory.mktemp("nodules")
    ct.write(folder / "ct", 16, seed=3, matrix=96, series=("scout", "thin"), progress=False, scanner="shifted")
    labels = folder / "ct" / "labels.csv"
    settings = ["--set", "data.image_size=48", "--epochs", "2", "--batch-size", "8"]
    for words in (
        ["check", folder / "ct" / "dicom", "--labels", labels, "--split-column", "split", "-o", folder / "cohort"],
        ["train", folder / "cohort", "-o", folder / "run", *settings],
        ["evaluate", folder / "run"],
        ["predict", folder / "run", folder / "ct" / "dicom", "--cases", labels, "-o", folder / "answers.csv"],
    ):
        assert medlora([str(word) for word in words]) == 0, words[0]
    return folder


def rows_of(folder):
    with (folder / "ct" / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_nodule_is_a_case_of_its_scan(nodules):
    table = pd.read_csv(nodules / "cohort" / "cohort.csv")
    rows = rows_of(nodules)
    assert len(table) == len(rows)
    assert sorted(table["diameter"]) == sorted(float(row["diameter_mm"]) for row in rows)
    assert set(table["case_id"]) == {
        f"{scan}:{number}" for scan, n in table["scan_id"].value_counts().items() for number in range(1, n + 1)
    }
    info = json.loads((nodules / "cohort" / "cohort.json").read_text(encoding="utf-8"))
    assert info["coordinates"] == "lps"
    assert info["centres"]["declared"] > 0.8 * info["centres"]["centres"]
    assert not info["errors"]
    assert set(pd.read_csv(nodules / "cohort" / "excluded.csv")["code"]) == {"NoLabel"}  # the scouts


def test_predict_says_what_evaluate_said_of_the_same_nodules(nodules):
    judged = pd.read_csv(nodules / "run" / "predictions" / "test.csv")
    answers = pd.read_csv(nodules / "answers.csv")
    assert len(answers) == len(rows_of(nodules))
    both = judged.merge(answers, on="case_id")
    assert len(both) == len(judged)
    np.testing.assert_allclose(both["p_malignant_x"], both["p_malignant_y"], rtol=1e-6)
    rows = rows_of(nodules)
    for row in answers.itertuples():
        given = rows[row.row - 2]  # a spreadsheet counts the headings
        np.testing.assert_allclose(
            (-row.x_mm, -row.y_mm, row.z_mm), [float(given[f"coord{axis}"]) for axis in "XYZ"], atol=1e-6
        )


def test_the_report_says_phantom(nodules):
    page = (nodules / "run" / "evaluation" / "test" / "report.html").read_text(encoding="utf-8")
    assert "phantom" in page


def test_rows_that_cannot_be_answered_say_why(nodules, tmp_path):
    rows = rows_of(nodules)[:3]
    rows[1] = rows[1] | {"coordZ": "900"}
    rows[2] = rows[2] | {"series_uid": "1.2.3"}
    path = with_rows(tmp_path / "cases.csv", rows)
    out = tmp_path / "answers.csv"
    assert (
        medlora(["predict", str(nodules / "run"), str(nodules / "ct" / "dicom"), "--cases", str(path), "-o", str(out)])
        == 0
    )
    answers = pd.read_csv(out, keep_default_na=False).set_index("row")
    assert answers.loc[2, "predicted"] in ("malignant", "benign")
    assert "outside of its scan" in answers.loc[3, "reason"]
    assert "about no scan found" in answers.loc[4, "reason"]


def test_places_are_needed_and_nothing_is_written_without(nodules, tmp_path, capsys):
    words = ["predict", nodules / "run", nodules / "ct" / "dicom", "-o", tmp_path / "x.csv"]
    assert medlora([str(word) for word in words]) == 2
    assert "--cases" in capsys.readouterr().err
    scan = max((nodules / "ct" / "dicom").glob("*/*"), key=lambda series: len(list(series.iterdir())))
    assert medlora(["explain", str(nodules / "run"), str(scan), "-o", str(tmp_path / "x.csv")]) == 2
    assert "--centre X Y Z" in capsys.readouterr().err
    assert medlora(["preview", str(scan), "--preset", "ct-nodule", "-o", str(tmp_path / "x.csv")]) == 2
    assert "--centre X Y Z" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("name", "signs"),
    [("right to left and front to back", (-1, -1, 1)), ("right to left", (-1, 1, 1))],
    ids=["RAS", "x"],
)
def test_mirrored_coordinates_are_found_out(nodules, tmp_path, name, signs, capsys):
    """The nodules of the archive, their file written in another system than declared."""
    rows = [
        row | {f"coord{axis}": str(sign * float(row[f"coord{axis}"])) for axis, sign in zip("XYZ", signs, strict=True)}
        for row in rows_of(nodules)
    ]
    path = with_rows(tmp_path / "labels.csv", rows)
    words = ["check", nodules / "ct" / "dicom", "--labels", path, "--split-column", "split", "-o", tmp_path / "cohort"]
    code = medlora([str(word) for word in words])
    said = capsys.readouterr()
    # In a table where some centres leave the scan the row is named; else the mirror itself.
    assert (code, "outside of its scan" in said.err) == (2, True) or (code, "mirrored left to right" in said.out) == (
        3,
        True,
    )
    if code == 3:
        assert medlora(["train", str(tmp_path / "cohort"), "-o", str(tmp_path / "run")]) == 2
    capsys.readouterr()
    asked = ["predict", nodules / "run", nodules / "ct" / "dicom", "--cases", path, "-o", tmp_path / "p.csv"]
    code = medlora([str(word) for word in asked])
    said = capsys.readouterr()
    assert code == 2 and "mirrored left to right" in said.err and not (tmp_path / "p.csv").exists()
    assert name


def test_a_scan_is_read_once_for_all_its_nodules(nodules, monkeypatch):
    from medlora.cohorts import Cohort
    from medlora.training.cases import where
    from medlora.training.reading import prepared
    from medlora.transforms import CTNodule

    cohort = Cohort.load(nodules / "cohort")
    read = []
    preset = CTNodule(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = list(
        prepared(where(cohort.table), lambda scan_id: (read.append(scan_id), cohort.scan(scan_id))[1], preset)
    )
    assert len(images) == len(cohort)
    assert len(read) == len(set(read)) == cohort.table["scan_id"].nunique()
    assert len(survey(nodules / "ct" / "dicom").scans) == 2 * len(read)

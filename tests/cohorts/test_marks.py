"""Several findings in a table: what the cells mean, what becomes of the uncertain, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from archives import write_csv

from medlora.cohorts import Cohort
from medlora.cohorts.labelling import labelling
from medlora.cohorts.splits import deal
from medlora.errors import MedloraError

MARKS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": None, "-1.0": None, "": None, "NA": None}


def table(root, columns, name="labels.csv"):
    """A CSV with a column for each finding; ``columns``: finding → a cell for each file, in their order."""
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.dcm"))
    rows = zip(files, *columns.values(), strict=True)
    return write_csv(root.parent / name, [["file", *columns], *rows])


def cells(n, seed=0, values=("1", "0", "1.0", "0.0", "-1", "-1.0", "")):
    return list(np.random.default_rng(seed).choice(values, n))


@pytest.fixture
def marked(archive):
    root = archive(40)
    columns = {name: cells(40, seed) for seed, name in enumerate(("Edema", "Pleural Effusion", "Fracture"))}
    return root, columns, table(root, columns)


def test_cells_become_columns_and_splits_have_their_share(marked, tmp_path):
    root, columns, labels = marked
    cohort = Cohort.from_archive(root, labels, label_column=list(columns))
    assert cohort.classes == list(columns)
    cohort.save(tmp_path / "cohort")
    found = pd.read_csv(tmp_path / "cohort" / "cohort.csv", dtype=str, keep_default_na=False)
    assert (found["label"] == "").all()
    linkage = pd.read_csv(tmp_path / "cohort" / "private" / "linkage.csv").set_index("path")["scan_id"]
    rows = found.set_index("scan_id")
    marks = [{name: MARKS[column[index]] for name, column in columns.items()} for index in range(40)]
    known = [index for index in range(40) if any(mark is not None for mark in marks[index].values())]
    assert sorted(linkage.index) == [f"PAT{index:03d}/0.dcm" for index in known]
    for index in known:
        row = rows.loc[linkage[f"PAT{index:03d}/0.dcm"], [f"y_{name}" for name in columns]]
        assert list(row) == ["" if mark is None else str(mark) for mark in marks[index].values()]
    for name in columns:
        counts = found[found[f"y_{name}"] != ""].groupby(f"y_{name}")["split"].value_counts()
        assert len(counts) == 6 and counts.min() >= 1, counts
    info = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    uncertain = {name: sum(column[index].startswith("-1") for index in known) for name, column in columns.items()}
    assert info["findings"] == {"uncertain_as": "unknown", "uncertain": uncertain}
    assert any("uncertain findings were taken as unknown" in line for line in cohort.warnings)
    again = Cohort.load(tmp_path / "cohort")
    pd.testing.assert_frame_equal(again.table, cohort.table, check_dtype=False)
    assert str(again.table["y_Edema"].dtype) == "Int64"
    page = (tmp_path / "cohort" / "check.html").read_text()
    assert "Pleural Effusion unknown" in page and "uncertain findings were taken" in page
    assert "Pleural Effusion" in cohort._repr_html_()


@pytest.mark.parametrize(("rule", "value"), [("absent", 0), ("present", 1)])
def test_the_uncertain_are_what_is_said(marked, rule, value):
    root, columns, labels = marked
    plain = Cohort.from_archive(root, labels, label_column=list(columns)).table.set_index("scan_id")
    said = Cohort.from_archive(root, labels, label_column=",".join(columns), uncertain=rule).table.set_index("scan_id")
    n = sum(cell.startswith("-1") for cell in columns["Edema"])
    assert (said["y_Edema"] == value).sum() == (plain["y_Edema"] == value).sum() + n
    assert (said["y_Edema"] == 1 - value).sum() == (plain["y_Edema"] == 1 - value).sum()


def test_a_scan_of_which_nothing_is_known_is_left_out_by_name(archive):
    root = archive(16)
    columns = {"Edema": ["1", "0"] * 7 + ["-1", ""], "Fracture": ["0", "1"] * 7 + ["", ""]}
    cohort = Cohort.from_archive(root, table(root, columns), label_column="Edema,Fracture")
    assert len(cohort) == 14
    reasons = sorted(cohort.excluded.loc[cohort.excluded["code"] == "NoLabel", "reason"])
    assert reasons == [
        "row 16 of the table: no finding is known, 1 uncertain",
        "row 17 of the table: no finding is known",
    ]


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"Edema": {3: "2"}}, {}, r"row 5, column 'Edema': '2' is no mark of a finding"),
        ({"Edema": {3: "Doe, John"}}, {}, r"row 5, column 'Edema': text is no mark of a finding"),
        ({"Edema": dict.fromkeys(range(20), "")}, {}, r"the finding 'Edema' is unknown in all 20 cases"),
        ({"Edema": dict.fromkeys(range(20), "0")}, {}, r"the finding 'Edema' is absent in all 20 cases"),
        ({"Edema": {**dict.fromkeys(range(20), "0"), 1: "1"}}, {}, r"too few patients .* 'Edema present' has 1"),
        ({}, {"uncertain": "maybe"}, r"--uncertain 'maybe' is no choice"),
        ({}, {"label_column": "Edema", "uncertain": "absent"}, r"--uncertain is for findings"),
        ({}, {"label_column": "Edema,Edema"}, r"names 'Edema' twice"),
        ({}, {"label_column": "Edema,Oedema"}, r"no column 'Oedema'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(archive, change, options, said):
    root = archive(20)
    columns = {"Edema": ["1", "0"] * 10, "Fracture": ["0", "1"] * 10}
    for name, cells_of in change.items():
        for index, cell in cells_of.items():
            columns[name][index] = cell
    with pytest.raises(MedloraError, match=said):
        Cohort.from_archive(root, table(root, columns), **{"label_column": "Edema,Fracture", **options})


def test_places_have_findings_too(archive):
    root = archive(12)
    marks = [("1", "0"), ("0", "-1"), ("", "1")]
    rows = [
        [f"PAT{patient:03d}/0.dcm", 10 + 9 * place, 20, 0, *cells_of]
        for patient in range(12)
        for place, cells_of in enumerate([*marks, ("", "")])
    ]
    labels = write_csv(root.parent / "l.csv", [["file", "x", "y", "z", "Spiculated", "Calcified"], *rows])
    cohort = Cohort.from_archive(root, labels, label_column=["Spiculated", "Calcified"], coordinates="voxel")
    assert len(cohort) == 36
    assert cohort.table["y"].notna().all()  # the coordinate
    first = cohort.table[cohort.table["scan_id"] == cohort.table["scan_id"].iloc[0]]
    found = (
        first[["y_Spiculated", "y_Calcified"]].astype(object).where(first[["y_Spiculated", "y_Calcified"]].notna(), "")
    )
    assert sorted(map(tuple, found.to_numpy().tolist()), key=str) == [("", 1), (0, ""), (1, 0)]


def test_rows_about_one_scan_must_agree(archive):
    root = archive(1, each=2)
    labels = write_csv(
        root.parent / "l.csv", [["file", "a", "b"], ["PAT000/0.dcm", "1", "0"], ["PAT000/0.dcm", "1.0", "1"]]
    )
    with pytest.raises(MedloraError, match=r"rows 2 and 3 are about the same scan, but their 'b' differs"):
        Cohort.from_archive(root, labels, label_column=["a", "b"])


def test_the_source_is_asked_finding_by_finding(archive, tmp_path):
    """A finding that the exposure gives away is warned of, and one that is drawn at random is not."""
    root = archive(60)
    columns = {"told": ["1", "0"] * 30, "random": cells(60, 1, ("1", "0", ""))}
    import pydicom

    for index, path in enumerate(sorted(root.rglob("*.dcm"))):
        image = pydicom.dcmread(path)
        image.KVP = 80 if columns["told"][index] == "1" else 120
        image.save_as(path)
    cohort = Cohort.from_archive(root, table(root, columns), label_column=["told", "random"])
    areas = {row["class"]: row for row in cohort.info["source_check"] if row["from"] == "acquisition"}
    assert set(areas) == {"told", "random"}
    assert areas["told"]["auc"] == 1
    assert areas["told"]["n_pos"] == 30
    assert areas["random"]["n_pos"] + areas["random"]["n_neg"] == sum(cell != "" for cell in columns["random"])
    assert sum("is partly told by its source: the acquisition" in line for line in cohort.warnings) == 1


def test_parts_have_their_share_of_every_finding():
    random = np.random.default_rng(0)
    n, shares = 3000, {"present": (0.5, 0.1, 0.02), "known": (0.9, 0.5, 0.3)}
    marks = np.where(random.random((n, 3)) < shares["present"], 1.0, 0.0)
    marks[random.random((n, 3)) > shares["known"]] = np.nan
    frame = pd.DataFrame(marks, columns=["y_a", "y_b", "y_c"]).astype("Int64")
    frame = frame[labelling(frame).known()].reset_index(drop=True)
    patients = [f"p{index // 2}" for index in range(len(frame))]
    scans = [f"{index:016x}" for index in range(len(frame))]
    parts = np.array(deal(scans, patients, labelling(frame).strata(), {"a": 0.5, "b": 0.3, "c": 0.2}))
    assert pd.Series(parts).groupby(patients).nunique().max() == 1
    for name, group in labelling(frame).groups():
        if "unknown" not in name:
            shares_of = pd.Series(parts[group.index]).value_counts(normalize=True)
            for part, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
                assert abs(shares_of[part] - share) < max(0.02, 2 / len(group)), (name, part)


def test_true_false_and_decimal_commas_are_marks(archive, tmp_path):
    root = archive(n=6)
    rows = [("patient_id", "a", "b")]
    rows += [(f"PAT{n:03d}", ("True", "False")[n % 2], ("1,0", "0,0", "-1,0")[n % 3]) for n in range(6)]
    table = write_csv(tmp_path / "marks.csv", rows, delimiter=";")
    cohort = Cohort.from_archive(root, table, label_column="a,b", fractions=None)
    marks = cohort.table.sort_values("scan_id")[["y_a", "y_b"]]
    assert sorted(marks["y_a"]) == [0, 0, 0, 1, 1, 1] and sorted(marks["y_b"].dropna()) == [0, 0, 1, 1]

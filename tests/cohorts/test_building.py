from __future__ import annotations

import zipfile

import numpy as np
import pytest
from archives import noise, read, write_csv, write_dicom
from PIL import Image

from medlora.cohorts import Cohort
from medlora.cohorts.patients import is_placeholder
from medlora.errors import MedloraError

# --- joining ---


def rows(archive, n=12, labels=("a", "b")):
    return [(f"PAT{p:03d}/0.dcm", labels[p % len(labels)]) for p in range(n)]


def labels_of(cohort: Cohort) -> dict[str, str]:
    return {cohort.files(s).paths[0].parent.name: label for s, label in cohort.table[["scan_id", "label"]].values}


EXPECTED = {f"PAT{p:03d}": "ab"[p % 2] for p in range(12)}


@pytest.mark.parametrize(
    ("heading", "value"),
    [
        ("file", lambda path, ds: f"{path.parent.name}/{path.name}"),
        ("file", lambda path, ds: str(path)),
        ("Image Index", lambda path, ds: f"archive\\{path.parent.name}\\{path.name}"),
        ("SOPInstanceUID", lambda path, ds: ds.SOPInstanceUID),
        ("series_uid", lambda path, ds: ds.SeriesInstanceUID),
        ("StudyInstanceUID", lambda path, ds: ds.StudyInstanceUID),
        ("accession no.", lambda path, ds: ds.AccessionNumber.lstrip("0")),
        ("Patient ID", lambda path, ds: ds.PatientID),
    ],
)
def test_rows_are_joined_by_what_the_table_has(archive, tmp_path, heading, value):
    root = archive()
    table = [(heading, "label")]
    for number, path in enumerate(sorted(root.rglob("*.dcm"))):
        ds = read(path)
        ds.AccessionNumber = f"00{1000 + number}"
        ds.save_as(path)
        table.append((value(path, ds), "ab"[number % 2]))
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert labels_of(cohort) == EXPECTED
    assert cohort.info["join"]["matched"] == 12


def test_an_accession_number_of_two_hospitals_is_settled_by_the_patient(archive, tmp_path):
    root = archive()
    table = [("AccessionNumber", "PatientID", "label")]
    for number, path in enumerate(sorted(root.rglob("*.dcm"))):
        ds = read(path)
        ds.AccessionNumber = str(1000 + max(number, 1))  # the first two patients share one
        ds.save_as(path)
        table.append((ds.AccessionNumber, ds.PatientID, "ab"[number % 2]))
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert labels_of(cohort) == EXPECTED
    table[1] = (table[1][0], "ELSEWHERE-7", "a")  # whose scan is not in the archive
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert labels_of(cohort) == {patient: label for patient, label in EXPECTED.items() if patient != "PAT000"}
    assert (
        "2 rows would have matched a scan of another patient than the table says, which was not taken: rows 2 to 3, "
        "column 'AccessionNumber'" in cohort.info["join"]["messages"]
    )


def test_a_patient_id_of_several_of_the_tables_patients_is_said(archive, tmp_path):
    root = archive()
    table = [("file", "patient_id", "label")]
    for number, path in enumerate(sorted(root.rglob("*.dcm"))):
        ds = read(path)
        table.append((f"{path.parent.name}/{path.name}", ds.PatientID, "ab"[number % 2]))
        ds.PatientID = f"SITE{number // 6}"
        ds.save_as(path)
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table), fractions=None)
    assert any(line.startswith("2 DICOM Patient IDs have scans of several patients") for line in cohort.warnings)


def test_the_first_key_that_matches_is_taken_and_a_better_one_is_named(archive, tmp_path):
    root = archive()
    table = [("file", "patient_id", "label")]
    table += [(f"old/{p}.jpg" if p else "PAT000/0.dcm", f"PAT{p:03d}", "ab"[p % 2]) for p in range(12)]
    path = write_csv(tmp_path / "labels.csv", table)
    with pytest.raises(MedloraError, match="same label"):  # one row matched
        Cohort.from_archive(root, path)
    assert labels_of(Cohort.from_archive(root, path, key="patient")) == EXPECTED
    cohort = Cohort.from_archive(root, path, fractions=None)
    assert "12 rows would match by patient ID (column 'patient_id'): --key patient" in cohort.warnings


def test_what_did_not_match_is_numbered_and_never_quoted(archive, tmp_path):
    root = archive()
    table = [("file", "label"), *rows(root, 11), ("PAT999/0.dcm", "a"), ("PAT998/0.dcm", "b")]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert cohort.info["join"]["messages"] == [
        "11 of 13 rows matched 11 scans by file path (column 'file')",
        "2 rows matched no scan: rows 13 to 14, column 'file'",
    ]
    assert cohort.info["join"]["unmatched_rows"] == [13, 14]
    assert cohort.excluded[["code", "reason", "files"]].values.tolist() == [
        ["NoLabel", "no row of the table is about it", 1]
    ]


def test_a_row_about_a_broken_file_is_told_apart_from_one_about_nothing(archive, tmp_path):
    root = archive()
    (root / "PAT000" / "0.dcm").write_bytes(b"not an image at all" * 50)
    broken = root / "PAT001" / "0.dcm"
    broken.write_bytes(broken.read_bytes()[:-1000])
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", [("file", "label"), *rows(root)]))
    assert len(cohort) == 10
    assert sorted(cohort.excluded["code"]) == ["NotAnImage", "TruncatedPixelData"]
    assert "2 rows matched files that were left out (see excluded.csv): rows 2 to 3" in cohort.warnings


def test_missing_labels_are_excluded_by_name(archive, tmp_path):
    root = archive()
    table = [("file", "label"), *rows(root)]
    table[1] = ("PAT000/0.dcm", "")
    table[2] = ("PAT001/0.dcm", "NaN")
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert cohort.classes == ["a", "b"]
    assert sorted(cohort.excluded["reason"]) == [
        "row 2 of the table gives no label",
        "row 3 of the table gives no label",
    ]


def test_labels_stay_as_written(archive, tmp_path):
    root = archive()
    table = [("file", "label"), *rows(root, labels=(" 01 ", "None", "True"))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert cohort.classes == ["01", "None", "True"]
    cohort.save(tmp_path / "cohort")
    assert Cohort.load(tmp_path / "cohort").classes == ["01", "None", "True"]


def test_rows_of_one_file_that_agree_count_once(archive, tmp_path):
    """As where each box that was drawn in an image has a row."""
    table = [("file", "label"), *rows(0), *rows(0, 4), ("PAT000/0.dcm", "a")]
    cohort = Cohort.from_archive(archive(), write_csv(tmp_path / "labels.csv", table), fractions=None)
    assert len(cohort) == 12 and labels_of(cohort) == EXPECTED
    said = "4 values of the column 'file' are in several rows, which agree (e.g. rows 2, 14, 18); each counts once"
    assert said in cohort.warnings


# --- bad input ---


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ([("x", "label"), ("a", "b")], {}, "no column that tells which scan"),
        ([("file", "label"), ("a", "b")], {}, "none of the 1 rows .* matched one of the 12 scans.* row 2"),
        ([("file", "label"), ("PAT000/0.dcm", "b")], {"label_column": "nix"}, "no column 'nix' .--label-column."),
        ([("file", "label"), ("PAT000/0.dcm", "b")], {"key": "nix"}, "no column 'nix'"),
        ([("file", "label"), ("PAT000/0.dcm", "b")], {"site": "nix"}, "no column 'nix' .--site."),
        ([("file", "label"), ("PAT000/0.dcm", "b")], {"split_column": "nix"}, "no column 'nix' .--split-column."),
        ([("file", "label"), *rows(0), ("archive/PAT003/0.dcm", "a")], {}, "rows 5 and 14 .* 'label' differs"),
        (
            [("patient", "label"), ("PAT001", "a"), ("PAT002", "b"), ("PAT001", "b")],
            {},
            "rows 2 and 4 give one patient two",
        ),
        ([("file", "label"), *rows(0, labels="a")], {}, "all 12 labelled scans have the same label, 'a'"),
        ([("file", "label"), *rows(0, 4)], {}, "'a' has 2; 'b' has 2"),
        (
            [("file", "label", "s"), ("PAT000/0.dcm", "b", "later")],
            {"split_column": "s"},
            "row 2: what the column 's' holds is not",
        ),
        ([("file", "label"), *((f, f) for f, _ in rows(0))], {}, "'label' holds 12 different values for 12 cases"),
    ],
)
def test_bad_tables_get_one_clear_message(archive, tmp_path, table, options, message):
    with pytest.raises(MedloraError, match=message) as caught:
        Cohort.from_archive(archive(), write_csv(tmp_path / "labels.csv", table), **options)
    assert caught.value.fix


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "junk", "zipped", "labels"])
def test_bad_archives_get_one_clear_message(tmp_path, kind):
    root = tmp_path / "archive"
    expected = {
        "missing": "does not exist",
        "file": "is a file, not a folder",
        "empty": "is empty",
        "junk": r"no scan could be found in the 2 files of .*NotAnImage \(1\)",
        "zipped": r"no scan could be found in the 2 files of .*NotAnImage: a ZIP archive .* unpack it \(2\)",
        "labels": "no table of labels",
    }[kind]
    if kind == "file":
        root.write_text("x")
    elif kind != "missing":
        root.mkdir()
    if kind == "junk":
        (root / "report.txt").write_text("nothing here" * 20)
        (root / "nothing").write_bytes(b"")
    for name in ("1.zip", "2.zip") if kind == "zipped" else ():
        with zipfile.ZipFile(root / name, "w") as made:
            made.writestr("1.dcm", "DICM")
    with pytest.raises(MedloraError, match=expected):
        Cohort.from_archive(root, key="patient" if kind == "labels" else None)


def test_files_named_by_number_are_not_taken_from_another_patient(tmp_path):
    root = tmp_path / "archive"
    for n in range(6):
        write_dicom(root / f"folder{n}" / f"{n}.dcm", noise(n), str(n), patient=f"P{n}")
    rows = [(f"{n}.dcm", "ab"[n % 2], f"P{n if n > 1 else 1 - n}") for n in range(6)]
    table = write_csv(tmp_path / "labels.csv", [("file", "label", "patient"), *rows])
    cohort = Cohort.from_archive(root, table, fractions=None)
    assert len(cohort) == 4 and any("2 rows would have matched a scan of another patient" in w for w in cohort.warnings)
    # A path written out is believed, and the difference is said.
    rows = [(f"folder{n}/{name}", *rest) for n, (name, *rest) in enumerate(rows)]
    table = write_csv(tmp_path / "labels.csv", [("file", "label", "patient"), *rows])
    assert len(Cohort.from_archive(root, table, fractions=None)) == 6


# --- patients ---


def test_without_patient_ids_the_table_tells_and_else_every_file_is_its_own(archive, tmp_path):
    root = tmp_path / "archive"
    for n in range(12):
        write_dicom(root / f"{n}.dcm", noise(n), str(n), patient="ANONYMOUS" if n % 2 else None)
    table = [("file", "label", "subject"), *((f"{n}.dcm", "ab"[n // 6], f"00{n // 2}") for n in range(12))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table), fractions=(0.4, 0.3, 0.3))
    assert cohort.table["patient"].nunique() == 6
    assert any("placeholder" in line for line in cohort.warnings)
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", [row[:2] for row in table]))
    assert cohort.table["patient"].nunique() == 12
    assert any(line.startswith("12 scans have no patient ID") for line in cohort.warnings)


def test_one_patient_id_for_everyone_is_none(tmp_path):
    root = tmp_path / "archive"
    for n in range(12):
        write_dicom(root / f"{n}.dcm", noise(n), str(n), patient="STUDY7")
    table = [("file", "label", "patient"), *((f"{n}.dcm", "ab"[n % 2], f"q{n}") for n in range(12))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert cohort.table["patient"].nunique() == 12
    assert "12 scans have a placeholder as Patient ID, which was taken as none" in cohort.warnings


def test_patients_whose_ids_differ_by_leading_zeros_stay_two(archive, tmp_path):
    root = tmp_path / "archive"
    for n in range(12):
        write_dicom(root / f"{n}.dcm", noise(n), str(n), patient=["123", "0123"][n] if n < 2 else f"X{n}")
    table = [("file", "label"), *((f"{n}.dcm", "ab"[n % 2]) for n in range(12))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert cohort.table["patient"].nunique() == 12
    assert any("2 patient IDs differ from another one only by" in line for line in cohort.warnings)


def test_what_the_table_says_of_copied_files_is_not_lost(tmp_path):
    """Files with no UID that are the same to the byte are one scan; their rows may name other patients and labels."""
    root = tmp_path / "archive"
    root.mkdir()
    for n, seed in enumerate([1, 1, 1, 2, 3, 4, 4]):
        Image.fromarray((noise(seed) >> 4).astype(np.uint8)).save(root / f"{n}.png")
    rows = [("0", "p0", "a"), ("1", "p1", "b"), ("2", "p0", "a"), ("3", "p1", "b"), ("4", "p2", "a"), ("6", "p3", "b")]
    table = [("file", "patient", "label"), *((f"{name}.png", patient, label) for name, patient, label in rows)]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table), fractions=None)
    # 5.png is the one kept of two copies, and 6.png the one that the table names.
    assert len(cohort) == 4 and cohort.table["label"].tolist().count("b") == 2
    assert cohort.excluded["code"].tolist() == ["DuplicateScan"] * 3
    of = dict(zip(cohort.table["label"] + cohort.table["scan_id"], cohort.table["patient"], strict=True))
    (group,) = cohort.info["same_image"]
    assert len(group) == 2 and set(group) < set(of.values())
    assert "1 image occurs with different labels" in cohort.warnings
    assert "2 patients share an image with another patient" in cohort.warnings


@pytest.mark.parametrize("name", ["Anonymous Patient", "0000000", "PATIENT", "^NoID^", "---"])
def test_words_for_nobody_are_no_patient(name):
    assert is_placeholder(name)


@pytest.mark.parametrize("name", ["", "PATIENT 1", "000001", "Anon1"])
def test_names_of_somebody_are(name):
    assert not is_placeholder(name)


# --- splits ---


def test_the_same_archive_and_seed_give_the_same_split_elsewhere(archive, tmp_path):
    root = archive(30, 2)
    table = [("file", "label"), *((f"PAT{p:03d}/{i}.dcm", "ab"[p % 2]) for p in range(30) for i in range(2))]
    one = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    moved = root.rename(tmp_path / "moved")
    two = Cohort.from_archive(moved, write_csv(tmp_path / "labels.csv", table[:1] + table[:0:-1]))
    assert (one.table["scan_id"] == two.table["scan_id"]).all()
    assert (one.table["split"] == two.table["split"]).all()
    assert not (one.table["patient"] == two.table["patient"]).any()  # another salt
    assert one.table.groupby("patient")["split"].nunique().max() == 1
    assert (one.split(seed=1).table["split"] != one.table["split"]).any()
    assert set(one.subset("test").table["split"]) == {"test"}


def test_a_patient_in_two_splits_of_the_users_is_an_error_of_the_cohort(archive, tmp_path):
    root = archive(12, 2)
    table = [("file", "label", "fold")]
    table += [
        (f"PAT{p:03d}/{i}.dcm", "ab"[p % 2], ["train", "val", "test"][p % 3]) for p in range(12) for i in range(2)
    ]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table), split_column="fold")
    assert cohort.errors == []
    assert set(cohort.table["split"]) == {"train", "tune", "test"}
    table[1] = (*table[1][:2], "test")
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table), split_column="fold")
    assert cohort.errors == ["1 patient has scans in more than one split, so results would be too good to be true"]


def test_a_column_of_splits_without_tune_gives_a_part_of_its_train(archive, tmp_path):
    """As most public data sets come: in two parts."""
    root = archive(24, 2)
    table = [("file", "label", "fold")]
    table += [
        (f"PAT{p:03d}/{i}.dcm", "ab"[p % 2], "test" if p % 3 == 0 else "train") for p in range(24) for i in range(2)
    ]
    path = write_csv(tmp_path / "labels.csv", table)
    cohort = Cohort.from_archive(root, path, split_column="fold")
    assert cohort.errors == [] and any("has no 'tune': 25% of the patients" in line for line in cohort.warnings)
    held = dict(list(cohort.table.groupby("split")))
    assert {name: len(part) for name, part in held.items()} == {"train": 24, "tune": 8, "test": 16}
    assert all(set(part["label"]) == {"a", "b"} for part in held.values())
    assert not set(held["train"]["patient"]) & set(held["tune"]["patient"])
    by_user = {f"PAT{p:03d}" for p in range(24) if p % 3 == 0}
    assert {cohort.files(s).paths[0].parent.name for s in held["test"]["scan_id"]} == by_user
    again = Cohort.from_archive(root, path, split_column="fold", split_seed=7).table
    assert again["split"].tolist() != cohort.table["split"].tolist()
    few = [row for row in table if row[0][3:6] in ("000", "001", "002", "003", "005")]
    few = Cohort.from_archive(root, write_csv(tmp_path / "few.csv", [table[0], *few]), split_column="fold")
    assert any("none can be drawn from its 'train': too few patients" in line for line in few.warnings)
    kept = Cohort.from_archive(root, path, split_column="fold", fractions=None)
    assert set(kept.table["split"]) == {"train", "test"}
    alone = [table[0], *((*row[:2], "train") for row in table[1:])]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "train.csv", alone), split_column="fold")
    assert any("has no 'test'" in line for line in cohort.warnings)


def test_patients_with_the_same_image_are_kept_in_one_split(archive, tmp_path):
    root = archive(20)
    for p in range(2, 20, 2):  # the image of PAT000 again and again, written with another photometric interpretation
        write_dicom(
            root / f"PAT{p:03d}" / "0.dcm", 4095 - noise(0), f"{p}/0", f"PAT{p:03d}",
            PhotometricInterpretation="MONOCHROME1",
        )  # fmt: skip
    table = [("file", "label"), *((f"PAT{p:03d}/0.dcm", "ab"[p // 10]) for p in range(20))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    where = cohort.table.assign(p=[int(cohort.files(s).paths[0].parent.name[3:]) for s in cohort.table["scan_id"]])
    assert where.loc[where["p"] % 2 == 0, "split"].nunique() == 1
    assert where["split"].nunique() == 3
    assert "10 patients share an image with another patient; they are kept in one split" in cohort.warnings
    assert "1 image occurs with different labels" in cohort.warnings
    assert "9 scans are pixel for pixel the same as another one" in cohort.warnings


# --- sites ---


def test_sites_come_from_the_table_or_as_one_name(archive, tmp_path):
    root = archive()
    table = [
        ("file", "label", "Hospital"),
        *((f, label, "North" if label == "a" else "South") for f, label in rows(root)),
    ]
    path = write_csv(tmp_path / "labels.csv", table)
    cohort = Cohort.from_archive(root, path)
    assert set(cohort.table["site"]) == {"North", "South"}
    assert "all scans with the label 'a' come from the site 'North'" in cohort.warnings
    assert set(Cohort.from_archive(root, path, site="=East").table["site"]) == {"East"}


def test_other_formats_are_taken_too(tmp_path):
    import nibabel
    from PIL import Image

    root = tmp_path / "archive"
    root.mkdir()
    for n in range(6):
        Image.fromarray((noise(n) >> 4).astype(np.uint8)).save(root / f"{n}.png")
        nibabel.save(nibabel.Nifti1Image(noise(n)[..., None].astype(np.float32), np.eye(4)), root / f"{n}.nii.gz")
    table = [("file", "label", "patient"), *((f"{n}.{e}", e[0], n) for n in range(6) for e in ("png", "nii.gz"))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table))
    assert cohort.classes == ["n", "p"] and len(cohort) == 12
    assert cohort.table["patient"].nunique() == 6


def test_one_class_written_in_two_ways_is_an_error(archive, tmp_path):
    root = archive()
    names = ["normal", "Pneumonia", "PNEUMONIA "]
    labels = [(path, names[number % 3]) for number, (path, _) in enumerate(rows(root))]
    cohort = Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", [("file", "label"), *labels]))
    whole = Cohort.from_archive(root, tmp_path / "labels.csv", fractions=None)
    for made in (cohort, whole):
        assert any("'PNEUMONIA' and 'Pneumonia' differ only in writing" in error for error in made.errors)

from __future__ import annotations

import json
import os
import pickle
import shutil
import stat
import sys

import pandas as pd
import pytest
from archives import noise, write_csv, write_dicom

from medlora import progress, scans
from medlora.cohorts import Cohort
from medlora.errors import MedloraError


@pytest.fixture
def made(archive, tmp_path):
    root = archive(12, 2, Manufacturer="ACME", KVP="90.5")
    (root / "notes.txt").write_text("nothing " * 20)
    table = [
        ("file", "label", "site"),
        *((f"PAT{p:03d}/{i}.dcm", "ab"[p % 2], "Nord") for p in range(12) for i in range(2)),
    ]
    return Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", table[:-1]))


def test_saved_and_loaded_is_the_same(made, tmp_path):
    folder = made.save(tmp_path / "cohort")
    loaded = Cohort.load(folder)
    pd.testing.assert_frame_equal(loaded.table, made.table, check_dtype=False)
    pd.testing.assert_frame_equal(loaded.excluded, made.excluded, check_dtype=False)
    assert loaded.info == json.loads(json.dumps(made.info))
    assert loaded.folder == folder
    assert list(loaded.table.columns[:7]) == ["case_id", "scan_id", "patient", "site", "label", "split", "Modality"]
    assert set(loaded.table["KVP"]) == {90.5}
    assert sorted(p.name for p in folder.iterdir()) == [
        "check.html",
        "cohort.csv",
        "cohort.json",
        "excluded.csv",
        "private",
    ]
    assert sorted(made.excluded["code"]) == ["NoLabel", "NotAnImage"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_private_is_for_its_owner_alone(made, tmp_path):
    os.umask(mask := os.umask(0))
    assert mask is not None
    private = made.save(tmp_path / "cohort") / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_scans_are_found_again(made, tmp_path):
    loaded = Cohort.load(made.save(tmp_path / "cohort"))
    for scan_id in loaded.table["scan_id"].head(3):
        assert loaded.files(scan_id).scan_id == scan_id
        assert (loaded.scan(scan_id).array == made.scan(scan_id).array).all()
    with pytest.raises(MedloraError, match="has no scan x"):
        loaded.files("x")


def test_a_scan_that_is_gone_or_changed_is_named(made, tmp_path):
    folder = made.save(tmp_path / "cohort")
    one, two, three = made.table["scan_id"].head(3)
    path = made.files(one).paths[0]
    write_dicom(path, noise(99), "another image of the same size", "PAT000", Manufacturer="ACME", KVP="90.5")
    made.files(two).paths[0].unlink()
    with made.files(three).paths[0].open("ab") as file:
        file.write(b"\0\0")
    loaded = Cohort.load(folder)
    for scan_id, message in ((one, "no longer what they were"), (two, "is gone"), (three, "no longer what it was")):
        with pytest.raises(MedloraError, match=message) as caught:
            loaded.files(scan_id)
        assert scan_id in str(caught.value) and "PAT" not in str(caught.value)


def test_an_update_keeps_the_salt_and_the_names_of_patients(made, tmp_path):
    folder = made.save(tmp_path / "cohort")
    first = Cohort.load(folder)
    again = Cohort.from_archive(made.info["archive"], made.info["labels"], update=folder)
    assert again._index.read == 0  # no header was read again
    assert set(again.table["patient"]).isdisjoint(first.table["patient"])
    again.save(folder)
    pd.testing.assert_frame_equal(Cohort.load(folder).table, first.table)
    pd.testing.assert_frame_equal(again.table, first.table, check_dtype=False)
    assert not [p.name for p in tmp_path.iterdir() if "partial" in p.name or p.name.endswith(".old")]


def test_nothing_else_is_overwritten_unasked(made, tmp_path):
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(MedloraError, match="already exists"):
        made.save(folder)
    (folder / "thesis.txt").unlink()
    made.save(folder)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(MedloraError, match=r"also holds thesis.txt"):
        made.save(folder)
    assert (folder / "thesis.txt").read_text() == "mine"
    with pytest.raises(MedloraError, match="holds what the cohort is made from"):
        made.save(tmp_path, overwrite=True)
    with pytest.raises(MedloraError, match="holds what the cohort is made from"):
        made.save(made.info["archive"], overwrite=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(made, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(MedloraError, match="cannot write"):
        made.save(tmp_path / "locked" / "cohort")


def test_a_place_that_is_no_folder(made, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MedloraError, match=r"cannot write|already exists"):
        made.save(tmp_path / "file" / "cohort")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no such folder"),
        (lambda f: (f / "cohort.json").unlink(), "has no cohort.json"),
        (lambda f: (f / "cohort.json").write_text("{"), "has no cohort.json"),
        (lambda f: (f / "cohort.json").write_text("[]"), "has no cohort.json"),
        (lambda f: _cut(f / "cohort.csv"), "cohort.csv is not what check wrote"),
        (lambda f: _cut(f / "excluded.csv"), "excluded.csv is not what"),
        (lambda f: shutil.rmtree(f / "private"), "cannot read private/linkage.csv"),
        (lambda f: (f / "private" / "salt").write_text("00"), "private/salt is not what"),
    ],
)
def test_what_is_damaged_is_refused(made, tmp_path, damage, message):
    folder = made.save(tmp_path / "cohort")
    damage(folder)
    with pytest.raises(MedloraError, match=message):
        Cohort.load(folder)


def test_another_version_is_refused(made, tmp_path):
    folder = made.save(tmp_path / "cohort")
    info = json.loads((folder / "cohort.json").read_text())
    (folder / "cohort.json").write_text(json.dumps({**info, "version": 99}))
    with pytest.raises(MedloraError, match="another version"):
        Cohort.load(folder)


def test_a_cohort_travels_to_other_processes(made):
    copy = pickle.loads(pickle.dumps(made))
    assert repr(copy) == repr(made) == "Cohort(23 cases of 12 patients (a: 12, b: 11))"


# --- privacy ---

NAME, PATIENT, BIRTH, ACCESSION, INSTITUTION, ADDRESS, FILE, FOLDER, NOTE = (
    "Zyxwvut^Qwert", "MRN7351846", "19371203", "ACC998877", "Sankt-Planta-Klinikum", "Geheimweg 17", "zyxwvut_scan",
    "zyxwvut_qwert", "calls herself Plantagenet",
)  # fmt: skip


def test_no_identifier_leaves_private(tmp_path, capfd):
    root = tmp_path / "archive"
    table = [("path", "PatientID", "accession", "hospital note", "label")]
    secrets = []
    for n in range(14):
        path = root / f"{FOLDER}{n}" / f"{FILE}{n}.dcm"
        write_dicom(
            path, noise(n), str(n), f"{PATIENT}{n}", PatientName=f"{NAME}{n}", PatientBirthDate=BIRTH,
            AccessionNumber=f"{ACCESSION}{n}", InstitutionName=INSTITUTION, InstitutionAddress=ADDRESS,
            PatientAddress=ADDRESS, StationName="PLANTSTATION", DeviceSerialNumber="PLANTSERIAL",
            StudyDescription=NOTE, ReferringPhysicianName="Plantdoctor^A", OperatorsName="Plantnurse^B",
            Manufacturer="ACME", BurnedInAnnotation="YES" if n == 3 else "NO",
        )  # fmt: skip
        files = scans.survey(path).scans[0].identity
        secrets += [files.study_uid, files.series_uid, *files.sop_uids]
        table.append((f"{FOLDER}{n}/{FILE}{n}.dcm", f"{PATIENT}{n}", f"{ACCESSION}{n}", NOTE, "ab"[n % 2]))
    table.append((f"{FOLDER}99/{FILE}99.dcm", f"{PATIENT}99", "", NOTE, "a"))  # no such scan
    (root / f"{FOLDER}0" / f"{FILE}.txt").write_text(f"{NAME} " * 20)
    broken = root / f"{FOLDER}1" / f"{FILE}1.dcm"
    broken.write_bytes(broken.read_bytes()[:-500])
    progress.quiet(False)
    labels = write_csv(tmp_path / "labels.csv", table)
    cohort = Cohort.from_archive(root, labels)
    folder = cohort.save(tmp_path / "cohort")
    (root / f"{FOLDER}2" / f"{FILE}2.dcm").unlink()
    missing = next(s for s in cohort.table["scan_id"] if not cohort.files(s).paths[0].exists())
    said = []
    for call in (
        lambda: Cohort.load(folder).files(missing),
        lambda: Cohort.from_archive(root, write_csv(labels, [*table, (*table[5][:4], "b")])),
        lambda: Cohort.from_archive(root, write_csv(labels, [("x", "label"), *(("y", "z") for _ in table)])),
        lambda: Cohort.from_archive(root, write_csv(labels, table), key="hospital note"),
        lambda: Cohort.from_archive(root, write_csv(labels, table), key="accession=hospital note"),
        lambda: Cohort.from_archive(root, write_csv(labels, [*table[:1], (*table[15][:4], "b")])),
    ):
        with pytest.raises(MedloraError) as caught:
            call()
        said.append(str(caught.value))
    again = Cohort.from_archive(root, write_csv(labels, [*table, table[5]]))  # a row that is there twice
    printed = capfd.readouterr()
    said += [printed.out, printed.err, repr(cohort), cohort._repr_html_(), str(cohort.info), cohort.table.to_csv()]
    said += again.warnings
    written = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "private" not in p.parts}
    text = "\n".join([*said, *(data.decode("utf-8", "replace") for data in written.values())]).casefold()
    for secret in (NAME, "zyxwvut", PATIENT, BIRTH, ACCESSION, INSTITUTION, ADDRESS, "plant", *secrets):
        assert secret.casefold() not in text, secret
    private = (folder / "private" / "linkage.csv").read_text(encoding="utf-8")
    assert PATIENT in private and FILE in private and secrets[0] in private
    left_out = (folder / "private" / "excluded.csv").read_text(encoding="utf-8")
    assert f"{FOLDER}1/{FILE}1.dcm" in left_out and f"{FOLDER}0/{FILE}.txt" in left_out

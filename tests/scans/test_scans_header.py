"""Headers: the walk against pydicom, caching, privacy."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pickle
import random
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CT, DX, axial, image, picture, save, series

from medlora import scans
from medlora.scans.dicom import by_pydicom
from medlora.scans.elements import ACQUISITION, IDENTIFYING
from medlora.scans.walk import Unusual, walk

walk_module = sys.modules["medlora.scans.walk"]

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "covid-cxr" / "dicom"
PACKAGED = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
PLACE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}
SECRETS = {
    "PatientName": "Yamada^Tarou",
    "PatientID": "MRN-0815",
    "PatientBirthDate": "19470211",
    "AccessionNumber": "ACC-4711",
    "InstitutionName": "Hospital Zero",
    "InstitutionAddress": "Secret Street",
    "StationName": "CT-BASEMENT",
    "OperatorsName": "Op^Erator",
    "ReferringPhysicianName": "Ref^Doc",
    "StudyDescription": "Yamada follow-up",
    "SeriesDescription": "for Dr. Doc",
    "ProtocolName": "Zero protocol",
    "PatientComments": "comment!",
    "DeviceSerialNumber": "SN-99",
    "StudyDate": "20210304",
    "StudyInstanceUID": "1.2.777.1",
    "SeriesInstanceUID": "1.2.777.2",
    "ImageComments": "says who",
    "PatientAddress": "Home 1",
}


def fuzz_script():
    spec = importlib.util.spec_from_file_location("fuzz_scans", ROOT / "scripts" / "fuzz_scans.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_walk_finds_what_pydicom_finds_and_reads_most_real_files_itself():
    walked = 0
    for path in PACKAGED:
        whole = path.read_bytes()
        try:
            found = walk(path, len(whole), whole[:300])  # so little that longer headers have to be read on
        except Unusual:
            continue
        assert found == by_pydicom(path), path.name
        walked += 1
    assert walked > 50


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real radiographs are not here")
def test_real_radiographs():
    found = scans.survey(SHARED)
    assert len(found.scans) == 1124 and found.excluded == []
    assert {str(issue) for files in found.scans for issue in files.issues} == set()
    turned = [files.load() for files in found.scans if files.header["PhotometricInterpretation"] == "MONOCHROME1"][:60]
    plain = [files.load() for files in found.scans if files.header["PhotometricInterpretation"] != "MONOCHROME1"][:300]
    assert {scan.inverted for scan in turned} == {True} and {scan.inverted for scan in plain} == {False}
    # A chest looks like its neighbours: the mean image of the one kind correlates with that of the other.
    centre = [
        np.mean([s.array[: 224 // 2 * 2 : 8, :224:8, 0][:28, :28] for s in group], axis=0) for group in (turned, plain)
    ]
    assert np.corrcoef(centre[0].ravel(), centre[1].ravel())[0, 1] > 0.9
    for files in found.scans[:40]:
        walked = walk(files.paths[0], files.paths[0].stat().st_size, files.paths[0].read_bytes()[:16384])
        assert walked == by_pydicom(files.paths[0])


@pytest.mark.parametrize(
    "charset",
    [
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎"),
        ("ISO 2022 IR 87", "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 100", "Müller^Jörg"),
    ],
)
def test_names_in_other_character_sets(tmp_path, charset):
    data = image(picture(), CT, **PLACE)
    data.SpecificCharacterSet = ["", charset[0]] if charset[0].startswith("ISO 2022") else charset[0]
    data.PatientName = charset[1]
    path = save(data, tmp_path / "a")
    walked = walk(path, path.stat().st_size, path.read_bytes())
    assert walked == by_pydicom(path) and walked[0]["PatientName"] == charset[1]


def test_a_code_string_that_reads_as_a_character_set_changes_no_names(tmp_path):
    for k, part in enumerate(("ISO_IR 192", "CHEST")):
        data = image(picture(), PatientID="Größe", SpecificCharacterSet="ISO_IR 192", BodyPartExamined=part)
        path = save(data, tmp_path / f"{k}.dcm")
        walked = walk(path, path.stat().st_size, path.read_bytes()[: 16 * 1024])
        assert walked == by_pydicom(path) and walked[0]["PatientID"] == "Größe"


def test_an_age_that_is_no_number_is_kept(tmp_path):
    data = image(picture(), SpecificCharacterSet="ISO_IR 100", **PLACE)
    data.add_new("PatientAge", "AS", "0²4Y")
    save(data, tmp_path / "a.dcm")
    (scan,) = scans.read(tmp_path)
    assert scan.header["PatientAge"] == "0²4Y"


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_sequences_are_passed_over(tmp_path, undefined, syntax):
    from pydicom.dataset import Dataset

    inner = Dataset()
    inner.Rows, inner.PatientID = 7, "INNER"
    inner.PurposeOfReferenceCodeSequence = [Dataset()]
    outer = Dataset()
    outer.ReferencedImageSequence = [inner, inner]
    data = image(picture(), CT, syntax=syntax, ReferencedStudySequence=[outer, inner], **PLACE)
    for element in data.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    path = save(data, tmp_path / "a")
    walked = walk(path, path.stat().st_size, path.read_bytes())
    assert walked == by_pydicom(path) and walked[0]["Rows"] == 12 and walked[0]["PatientID"] == "SECRET-ID"


def test_headers_survive_json_and_pickle_and_make_the_same_survey(tmp_path):
    series(tmp_path, axial(4))
    save(image(picture(3 * 12).reshape(3, 12, 16), DX), tmp_path / "x" / "dx")
    nibabel.save(nibabel.Nifti1Image(picture()[..., None].astype("i2"), np.eye(4)), tmp_path / "v.nii.gz")
    (tmp_path / "empty").touch()
    headers = [scans.read_header(path) for path in scans.list_files(tmp_path)]
    plain = [scans.Header.from_dict(json.loads(json.dumps(header.to_dict()))) for header in headers]
    assert plain == headers == pickle.loads(pickle.dumps(headers))
    first, again = scans.survey(tmp_path), scans.survey(tmp_path, headers=plain)
    assert first.scans == again.scans == pickle.loads(pickle.dumps(first.scans))
    assert first.excluded == again.excluded


def test_no_identifier_in_anything_that_prints(tmp_path):
    folder = tmp_path / "Yamada^Tarou"
    series(folder, axial(3), **SECRETS, PatientAge="093Y", PatientSex="F", KVP=120)
    (folder / "0001.dcm").write_bytes((folder / "0001.dcm").read_bytes()[:-50])
    (folder / "Yamada.txt").write_text("Yamada")
    found = scans.read(folder)
    survey = scans.survey(folder)
    header = scans.read_header(folder / "0000.dcm")
    shown = " ".join(
        [
            repr(found),
            repr(found.excluded),
            *map(str, found.excluded),
            repr(found[0]),
            found[0]._repr_html_(),
            repr(survey),
            repr(survey.scans),
            repr(survey.scans[0].identity),
            str(survey.scans[0]),
            repr(header),
            json.dumps(found[0].header),
            *map(str, found[0].issues),
            repr(found[0].issues),
        ]
    )
    for secret in ["Yamada", *(value for value in SECRETS.values() if isinstance(value, str))]:
        assert secret not in shown, secret
    assert survey.scans[0].identity.patient_id == "MRN-0815"
    assert survey.scans[0].identity.patient_name == "Yamada^Tarou"
    assert (
        found[0].header["PatientAge"] == "090Y"
        and found[0].header["KVP"] == 120
        and found[0].header["PatientSex"] == "F"
    )
    survey.scans[0].paths[0].unlink()
    with pytest.raises(scans.ScanError) as error:
        survey.scans[0].load()
    assert "Yamada" not in str(error.value)


def test_the_whitelist_and_the_identifiers_do_not_overlap():
    assert not set(ACQUISITION) & set(IDENTIFYING)


def test_scan_id_is_what_the_design_says(tmp_path):
    import hashlib

    series(tmp_path, axial(3))
    expected = hashlib.sha256(b"1.2.3.4.5.1\n1.2.3.4.5.2\n1.2.3.4.5.3").hexdigest()[:16]
    assert scans.survey(tmp_path).scans[0].scan_id == expected


def test_fuzz_in_short():
    outcomes, failures = fuzz_script().run(count=400, seed=20)
    assert failures == [] and sum(outcomes.values()) == 400 and len(outcomes) == 3


def test_a_walk_that_knows_the_series_finds_what_pydicom_finds(tmp_path, monkeypatch):
    """Headers that are compared with earlier ones: of one series, then of another, with lengths that vary, damaged."""
    random_ = random.Random(5)
    one_by_one: list[int] = []
    compared = 0
    elements = walk_module._elements
    monkeypatch.setattr(walk_module, "_elements", lambda *given: one_by_one.append(1) or elements(*given))
    for series_, maker in (("A", "ACME"), ("B", "Müller")):
        for k in range(40):
            path = tmp_path / f"{series_}{k}"
            data = image(
                picture(seed=k), SeriesInstanceUID=f"1.2.{len(maker)}", SOPInstanceUID=f"1.2.3.{10**(k % 9)}",
                InstanceNumber=k * 7, ImagePositionPatient=[0, 0, 1.25 * k], Manufacturer=maker,
                SpecificCharacterSet="ISO_IR 100", PatientName=f"Öz^{k % 3}", KVP=None if k % 10 == 9 else 100,
                RescaleIntercept=-1024 if k % 5 else 0, ImageType=["ORIGINAL", "PRIMARY"] + ["AXIAL"] * (k % 2),
            )  # fmt: skip
            save(data, path)
            whole = path.read_bytes()
            read_so = len(one_by_one)
            assert walk(path, len(whole), whole[:16384]) == by_pydicom(path)
            compared += len(one_by_one) == read_so
            hurt = bytearray(whole)
            hurt[random_.randrange(300, len(whole) - 400)] ^= 1 << random_.randrange(8)
            path.write_bytes(hurt)
            try:
                walked = walk(path, len(hurt), bytes(hurt[:16384]))
            except Unusual:
                continue
            assert walked == by_pydicom(path)
    assert compared > 50  # of 80


@pytest.mark.parametrize("values", [("H ", "1 "), ("1 ", "H "), ("H ", ""), ("2 ", "1 "), ("1 ", "")])
def test_of_an_element_that_is_there_twice_the_last_counts(tmp_path, values):
    path = save(image(picture(), CT, EchoNumbers="7", **PLACE), tmp_path / "a")
    whole = path.read_bytes()
    once = b"\x18\0\x86\0IS\x02\x007 "
    twice = b"".join(b"\x18\0\x86\0IS" + len(v).to_bytes(2, "little") + v.encode() for v in values)
    assert whole.count(once) == 1
    path.write_bytes(whole.replace(once, twice))
    slow = by_pydicom(path)
    assert slow[0].get("EchoNumbers") == {"1 ": 1}.get(values[1])
    with contextlib.suppress(Unusual):
        assert walk(path, path.stat().st_size, path.read_bytes()) == slow
    assert scans.read_header(path).values == slow[0]


def test_a_known_header_longer_than_what_was_read_of_it(tmp_path):
    data = image(picture())
    data.add_new(0x00091010, "OB", b"\0" * 40_000)
    for k in range(4):
        data.InstanceNumber = k
        path = save(data, tmp_path / str(k))
        assert walk(path, path.stat().st_size, path.read_bytes()[:16384]) == by_pydicom(path)
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(Unusual):
        walk(cut, 20_000, cut.read_bytes()[:16384])

"""The archive as an outsider reads it."""

import csv
import hashlib
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from medlora.errors import MedloraError
from medlora.phantoms import dx, radiographs, scanners
from medlora.phantoms.projection import View


def rows_of(labels):
    with labels.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return radiographs.write(tmp_path_factory.mktemp("phantoms") / "a", 16, seed=4, size=128, progress=False)


def test_every_row_is_a_readable_digital_x_ray(archive):
    rows = rows_of(archive)
    assert {r["label"] for r in rows} == {"opacity", "normal"}
    assert 1 <= len(rows) / len({r["patient_id"] for r in rows}) <= 4
    files = sorted(p.relative_to(archive.parent).as_posix() for p in archive.parent.rglob("*.dcm"))
    assert sorted(r["file"] for r in rows) == files
    seen = set()
    for row in rows:
        ds = pydicom.dcmread(archive.parent / row["file"])
        assert ds.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
        assert (ds.PatientID, ds.StudyInstanceUID, ds.ViewPosition) == (
            row["patient_id"],
            row["study_uid"],
            row["view"],
        )
        assert "PHANTOM" in str(ds.PatientName)
        assert ds.BurnedInAnnotation == "NO"
        assert ds.Manufacturer in {scanners.A.manufacturer, scanners.B.manufacturer}
        assert ds.InstitutionName == row["site"]
        pixels = ds.pixel_array
        assert pixels.max() < 2**ds.BitsStored
        shown = pixels / (2**ds.BitsStored - 1)
        if ds.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
            assert (ds.PixelIntensityRelationshipSign, ds.PresentationLUTShape) == (1, "INVERSE")
        # Bright is dense: the mediastinum in the middle against both lungs beside it.
        h, w = shown.shape
        band = shown[int(0.4 * h) : int(0.5 * h)].mean(axis=0)
        assert band[int(0.46 * w) : int(0.54 * w)].mean() > band[int(0.25 * w) : int(0.36 * w)].mean()
        seen |= {ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID}
    assert len(seen) == 3 * len(rows)
    assert all(u.startswith("2.25.") and UID(u).is_valid for u in seen)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
def test_the_standard_checker_has_nothing_to_say(archive):
    for row in rows_of(archive):
        told = subprocess.run(
            ["dciodvfy", archive.parent / row["file"]], capture_output=True, text=True, check=False
        ).stderr
        assert told.split() == ["DXImageForPresentation"], row


@pytest.mark.parametrize("syntax", dx.TRANSFER_SYNTAXES, ids=lambda u: u.name)
@pytest.mark.parametrize("bits", [8, 12])
def test_every_transfer_syntax_returns_the_pixels(tmp_path, syntax, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (37, 51)).astype(np.uint8 if bits == 8 else np.uint16)
    view = View("AP", 0, 0, 0, (0, 0), 1100, 130)
    identity = dx.ImageIdentity(
        "PHANTOM-1", "PHANTOM^1", "F", 50, "20200101", "101010", "PH1", UID("2.25.1"), UID("2.25.2"), UID("2.25.3")
    )
    exposure = scanners.Exposure(110, 2.5, True, (0, 0, 0, 0))
    dx.write(tmp_path / "x.dcm", pixels, bits, bits == 8, 1.7, view, scanners.B, exposure, identity, syntax)
    ds = pydicom.dcmread(tmp_path / "x.dcm")
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert (ds.SOPInstanceUID, ds.file_meta.MediaStorageSOPInstanceUID) == ("2.25.3", "2.25.3")
    np.testing.assert_array_equal(ds.pixel_array, pixels)


def test_the_same_request_gives_the_same_bytes_and_a_patient_does_not_depend_on_the_others(tmp_path):
    for name, patients in (("a", 4), ("b", 4), ("c", 2)):
        radiographs.write(tmp_path / name, patients, seed=9, size=64, progress=False)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    files = {k: v for k, v in c.items() if k.endswith(".dcm")}
    assert files
    assert files.items() <= a.items()
    radiographs.write(tmp_path / "d", 2, seed=10, size=64, progress=False)
    assert not set(digests(tmp_path / "d").values()) & set(a.values())


def test_a_patient_keeps_his_anatomy_over_his_scans():
    scans = next(s for s in (radiographs.patient(n, seed=4, size=64) for n in range(30)) if len(s) > 2)
    anatomies = {(s.chest.width, s.chest.heart, s.chest.aorta, s.chest.air) for s in scans}
    assert len(anatomies) == 1
    assert len({s.view.turn for s in scans}) == len(scans)


def test_the_same_patient_before_both_scanners_differs_in_the_picture_only():
    a, b = (radiographs.patient(3, seed=4, scanner=key, size=64) for key in "AB")
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.chest == other.chest
        assert (one.finding is None) == (other.finding is None)
        assert one.shown.shape != other.shown.shape


def test_an_opacity_makes_its_place_denser_and_nothing_else_tells_it():
    """The drawn opacity raises the picture where it lies, against the same patient without it."""
    scan = next(s for n in range(20) for s in radiographs.patient(n, seed=4, scanner="A", size=128) if s.finding)
    heavy = scan.opacity > 0.5 * scan.opacity.max()
    assert 0.002 < heavy.mean() < 0.3
    assert scan.opacity.min() > -0.03 * scan.opacity.max()  # grains are drawn band-limited, so their rims ring
    assert scan.opacity.sum() * scan.pitch**2 / scan.view.magnification**2 / 1000 == pytest.approx(
        scan.finding.volume_ml * (1 - scan.chest.lung_density()), rel=0.15
    )


def test_monochrome1_is_the_negative_of_monochrome2():
    shown = np.linspace(0, 1, 4096, dtype=np.float32)[None]
    for bits in (8, 12):
        one, two = (scanners.quantise(shown, bits, inverted).astype(int) for inverted in (True, False))
        np.testing.assert_allclose(one + two, 2**bits - 1, atol=1)
        assert (np.diff(two[0]) >= 0).all()


@pytest.mark.parametrize("scanner", [scanners.A, scanners.B], ids=lambda s: s.key)
def test_more_matter_is_brighter_and_a_quarter_of_the_dose_twice_as_noisy(scanner):
    path = np.tile(np.linspace(80, 230, 128, dtype=np.float32), (512, 1))
    noise = []
    for mas in (4.0, 1.0):
        exposure = scanners.Exposure(110, mas, True, (0, 0, 0, 0))
        image = scanners.expose(path, scanner, exposure, 430 / 256, np.random.default_rng(5))[128:-128]
        mean = image.mean(axis=0)
        assert (np.diff(mean[10:-10:6]) > 0).all()
        noise.append((image - mean)[:, 40:60].std())
    assert noise[1] / noise[0] == pytest.approx(2, rel=0.1)  # Poisson


@pytest.mark.slow
def test_the_scanner_tells_the_finding_only_where_asked():
    share = {}
    for confounded in (False, True):
        scans = [s for n in range(60) for s in radiographs.patient(n, seed=2, size=64, confounded=confounded)]
        for ill in (False, True):
            share[confounded, ill] = np.mean([s.scanner.key == "B" for s in scans if (s.finding is not None) == ill])
    assert abs(share[False, True] - share[False, False]) < 0.3  # binomial, about 55 against 55
    assert share[True, True] - share[True, False] > 0.6


@pytest.mark.parametrize(
    "options",
    [{"variant": "new"}, {"scanner": "C"}, {"patients": 0}, {"size": 20}, {"confounded": True, "scanner": "A"}],
    ids=str,
)
def test_what_cannot_be_made_is_said(tmp_path, options):
    with pytest.raises(MedloraError, match="Fix: "):
        radiographs.write(tmp_path / "x", progress=False, **options)
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten_unasked(archive):
    before = digests(archive.parent)
    with pytest.raises(MedloraError, match="already exists"):
        radiographs.write(archive.parent, 1, progress=False)
    assert digests(archive.parent) == before


def test_processes_draw_what_threads_draw(tmp_path, monkeypatch):
    def drawn(name):
        radiographs.write(tmp_path / name, 3, seed=4, size=96, progress=False)
        return {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}

    threads = drawn("threads")
    monkeypatch.setattr(radiographs, "_WORTH_PROCESSES", 1)
    assert drawn("processes") == threads

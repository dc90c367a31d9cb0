"""Elements that the standard requires, lost or written otherwise: nothing is assumed that changes values."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from make_dicom import AXIAL, CR, CT, MR, PET, SC, axial, image, picture, save, series
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans import Code

PLACE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


@pytest.mark.parametrize(
    ("sop_class", "word", "written"),
    [
        (CT, "PixelRepresentation", None),
        (CT, "PixelRepresentation", 2),
        (CT, "BitsStored", None),
        (CT, "PhotometricInterpretation", "RGB"),
        (CR, "PhotometricInterpretation", None),
        (CR, "PhotometricInterpretation", ""),
        (CR, "PhotometricInterpretation", "MONOCHROME"),
    ],
)
def test_pixels_that_are_not_described_are_refused(tmp_path, sop_class, word, written):
    """Type 1 in the Image Pixel Module, PS3.3 C.7.6.3."""
    save(image(picture(), sop_class, stored=12, **PLACE, **{word: written}), tmp_path / "a")
    (excluded,) = scans.survey(tmp_path).excluded
    assert excluded.code is Code.UnknownPixelFormat
    assert word in excluded.reason.replace(" ", "") or written == "RGB"


@pytest.mark.parametrize("written", ["MONOCHROME1", "monochrome1", "MONOCHROME 1"])
def test_a_photometric_interpretation_in_other_letters_is_the_one_it_means(tmp_path, written):
    pixels = picture()
    save(image(pixels, CR, stored=12, PhotometricInterpretation=written), tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array[..., 0], 4095 - pixels.T)


def test_measured_quantities_need_no_photometric_interpretation(tmp_path):
    pixels = picture()
    save(image(pixels, CT, PhotometricInterpretation=None, SamplesPerPixel=None, **PLACE), tmp_path / "a")
    np.testing.assert_array_equal(scans.read(tmp_path)[0].array[..., 0], pixels.T - 1024.0)


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(CT, "CT"), (MR, "MR"), (PET, "PT"), ("1.2.840.10008.5.1.4.1.1.2.2", "CT")]
)
@pytest.mark.parametrize("written", ["ct", "Mr", "MRI", "PET", "pt", "OT", "CR", "DX", None])
def test_the_class_of_measured_quantities_decides_what_they_are(tmp_path, sop_class, modality, written):
    """A CT whose Modality is "ct" was turned round as MONOCHROME1; those of a PET/CT may both say PT."""
    about = {"RescaleSlope": 1, "RescaleIntercept": -1024, "Units": "BQML"}
    volume = series(
        tmp_path, axial(4), sop_class=sop_class, stored=12, PhotometricInterpretation="MONOCHROME1", Modality=written,
        **about,
    )  # fmt: skip
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    assert (scan.modality, scan.header["Modality"], scan.inverted, scan.issues) == (modality, modality, False, ())


@pytest.mark.parametrize(("written", "meant"), [("cr", "CR"), ("Dx", "DX"), ("CR", "CR")])
def test_a_modality_in_small_letters_is_the_one_it_means(tmp_path, written, meant):
    """Two radiographs of one series are two scans, and MONOCHROME1 of 12 bits is turned round: 4095 less the value."""
    for k in range(2):
        data = image(picture(seed=k), CR, stored=12, PhotometricInterpretation="MONOCHROME1", Modality=written)
        save(data, tmp_path / f"{k}")
    found = scans.read(tmp_path)
    assert [scan.modality for scan in found] == [meant] * 2
    for k, scan in enumerate(sorted(found, key=lambda scan: scan.sources)):
        np.testing.assert_array_equal(scan.array[..., 0], 4095 - picture(seed=k).T)


@pytest.mark.parametrize("modality", [None, "OT", "rtdose", "CT"])
def test_a_dose_is_known_by_its_class(tmp_path, modality):
    dose = picture(3 * 12, 16).reshape(3, 12, 16)
    data = image(
        dose, DOSE, stored=32, Modality=modality, DoseGridScaling=1e-3, GridFrameOffsetVector=[0, 3, 6], **PLACE
    )
    data.FrameIncrementPointer, data.DoseUnits = 0x3004000C, "GY"
    save(data, tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    np.testing.assert_allclose(scan.to_numpy("zyx"), dose * 1e-3, rtol=1e-6)
    assert scan.modality == "RTDOSE" and scan.issues == ()


@pytest.mark.parametrize("colour", ["Green", "Blue"])
@pytest.mark.parametrize("left", [0, 6])
def test_a_palette_that_lacks_a_colour_is_refused(tmp_path, colour, left):
    """PS3.3 C.7.6.3.1.6: each table has as many entries as its descriptor says."""
    data = image(np.array([[0, 1, 2, 3]]), SC, stored=8, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", bytes(left if name == colour else 8))
    save(data, tmp_path / "a")
    with pytest.raises(MedloraError, match=f"lacks entries of {colour.lower()}"):
        scans.read(tmp_path)


@pytest.mark.parametrize("vr", ["LO", "SH", "CS", "UC", "UT"])
@pytest.mark.parametrize("word", ["ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
def test_numbers_written_as_text_are_numbers(tmp_path, word, vr):
    volume = series(tmp_path, axial(3))
    (expected,) = scans.read(tmp_path)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        text = "\\".join(str(number) for number in np.atleast_1d(data[word].value)).encode()
        raw = text + b" " * (len(text) % 2)
        data[word] = RawDataElement(Tag(word), vr, len(raw), raw, 0, False, True)
        save(data, path)
    (scan,) = scans.read(tmp_path)
    np.testing.assert_array_equal(scan.array, volume - 1024.0)
    np.testing.assert_array_equal(scan.affine, expected.affine)
    assert scan.issues == ()


@pytest.mark.parametrize(("about", "expected"), [
    ({}, [Code.NoGeometry]),
    ({"Modality": "OT"}, []),
    ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, []),
    ({"stored": 8}, []),  # the turns of a rendered head
])  # fmt: skip
def test_slices_kept_in_a_secondary_capture_should_have_a_place(tmp_path, about, expected):
    """Multi-frame Grayscale Word Secondary Capture: values in HU, but 1 × 1 × 1 mm as no file says."""
    frames = np.stack([picture(seed=k, high=256) for k in range(5)])
    said = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024} | about
    save(image(frames, f"{SC}.3", **said), tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == expected
    np.testing.assert_array_equal(scan.to_numpy("zyx"), frames - 1024.0)


@pytest.mark.parametrize(("thickness", "expected"), [(0.12, []), (None, [Code.UnknownSpacing])])
def test_a_volume_of_a_retina_should_say_how_far_apart_its_slices_are(tmp_path, thickness, expected):
    """Ophthalmic tomography has no place in the patient, but a spacing (PS3.3 C.8.17.10)."""
    frames = np.stack([picture(seed=k, high=255) for k in range(5)])
    about = {"Modality": "OPT", "PixelSpacing": [0.003, 0.012], "SliceThickness": thickness}
    save(image(frames, "1.2.840.10008.5.1.4.1.1.77.1.5.4", stored=8, **about), tmp_path / "a")
    (scan,) = scans.read(tmp_path)
    assert [issue.code for issue in scan.issues] == expected
    np.testing.assert_allclose(scan.spacing, (0.012, 0.003, thickness or 1.0))

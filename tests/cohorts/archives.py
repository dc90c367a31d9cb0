"""Small archives written to order with pydicom, and tables of labels for them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medlora import progress

DX = "1.2.840.10008.5.1.4.1.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(autouse=True)
def quiet():
    progress.quiet()
    yield
    progress.quiet(False)


def uid(*parts: Any) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def write_dicom(path: Path, pixels: np.ndarray, name: str, patient: str | None = "P1", **tags: Any) -> Path:
    """A DX image (or what ``tags`` make of it) whose UIDs follow from ``name``."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", DX)
    meta.MediaStorageSOPInstanceUID = uid(name, "sop")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(name, "study"), uid(name, "series")
    ds.Modality, ds.PresentationIntentType, ds.ViewPosition = "DX", "FOR PRESENTATION", "PA"
    ds.PatientName, ds.StudyDate, ds.AccessionNumber = "", "20200101", ""
    if patient is not None:
        ds.PatientID = patient
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.astype("<u2").tobytes()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
    return path


def noise(seed: int, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, shape, dtype=np.uint16)


def write_csv(path: Path, rows: Iterable[Iterable[Any]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    """Make an archive of ``n`` patients with ``each`` scans, at ``archive/PATIENT/NUMBER.dcm``."""

    def make(n: int = 12, each: int = 1, ids: str = "PAT{:03d}", **tags: Any) -> Path:
        root = tmp_path / "archive"
        for patient in range(n):
            for number in range(each):
                name = ids.format(patient)
                write_dicom(
                    root / name / f"{number}.dcm", noise(patient * each + number), f"{patient}/{number}", name, **tags
                )
        return root

    return make


def read(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)

"""CT series with balls in them, and writers of their annotations, each by the published form of its format.

A ball's HU tell its label, so that a place and its label are proven together, without any geometry of ours. The series
differ in orientation: one is of a prone patient. No ball's mirror image is a ball.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
from archives import CT, uid, write_csv, write_dicom

ROWS, COLUMNS, SLICES = 44, 52, 18
BETWEEN_ROWS, BETWEEN_COLUMNS, STEP = 2.0, 1.8, 2.5
LUNG, HU = -850, {"benign": 40, "malignant": 120}
RADIUS = {"benign": 4.5, "malignant": 6.0}
CENTRES = ((-22.0, 12.0, -6.0), (15.0, 20.0, 5.0), (-4.0, -17.0, 8.0))  # LPS mm
SUPINE, PRONE = (1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)


@dataclass(frozen=True)
class Ball:
    patient: str
    centre: tuple[float, float, float]  # LPS mm
    label: str

    @property
    def radius(self) -> float:
        return RADIUS[self.label]

    @property
    def series(self) -> str:
        return uid(self.patient, "series")

    def mirrored(self) -> Ball:
        """As a writer puts it down who takes LPS for RAS."""
        return replace(self, centre=(-self.centre[0], -self.centre[1], self.centre[2]))


def balls(patients: int = 5) -> list[Ball]:
    """Three in each patient, of both labels, shifted from patient to patient."""
    return [
        Ball(f"P{p:02d}", (x + p % 4, y - p % 3, z), "malignant" if (p + i) % 2 else "benign")
        for p in range(patients)
        for i, (x, y, z) in enumerate(CENTRES)
    ]


def directions(patient: str) -> np.ndarray:
    return np.array(PRONE if int(patient[1:]) % 5 == 1 else SUPINE, float).reshape(2, 3)


def origin(patient: str) -> np.ndarray:
    """Centre of the first voxel: the series lies about the isocentre, so that mirrored places stay inside."""
    along, down = directions(patient)
    half = along * (COLUMNS - 1) * BETWEEN_COLUMNS / 2 + down * (ROWS - 1) * BETWEEN_ROWS / 2
    return np.array([0, 0, -(SLICES - 1) * STEP / 2]) - half


def positions(patient: str) -> np.ndarray:
    """LPS mm of each voxel, (slice, row, column, 3), by the equation of DICOM PS3.3 C.7.6.2.1.1."""
    along, down = directions(patient)
    k, i, j = np.meshgrid(np.arange(SLICES), np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    plane = along * (BETWEEN_COLUMNS * j[..., None]) + down * (BETWEEN_ROWS * i[..., None])
    return origin(patient) + plane + np.array([0, 0, STEP]) * k[..., None]


def inside(ball: Ball) -> np.ndarray:
    """Which voxels of its series a ball fills, (slice, row, column)."""
    return np.linalg.norm(positions(ball.patient) - ball.centre, axis=-1) <= ball.radius


def volume(patient: str, those: list[Ball]) -> np.ndarray:
    """HU, (slice, row, column)."""
    rng = np.random.default_rng(int(patient[1:]))
    hu = LUNG + rng.integers(-20, 21, (SLICES, ROWS, COLUMNS))
    for ball in those:
        if ball.patient == patient:
            hu[inside(ball)] = HU[ball.label]
    return hu


def write_archive(root: Path, those: list[Ball]) -> Path:
    """A CT series for each patient, its files named against the order of the slices."""
    for patient in sorted({ball.patient for ball in those}):
        hu = volume(patient, those)
        for k in range(SLICES):
            write_dicom(
                root / patient / f"{SLICES - k:02d}.dcm", hu[k] + 1024, f"{patient}/{k}", patient, SOPClassUID=CT,
                Modality="CT", StudyInstanceUID=uid(patient, "study"), SeriesInstanceUID=uid(patient, "series"),
                FrameOfReferenceUID=uid(patient, "frame"), PatientBirthDate="", PatientSex="", StudyTime="",
                SeriesNumber=1, StudyID="1", ReferringPhysicianName="",
                ImageOrientationPatient=list(directions(patient).ravel()),
                ImagePositionPatient=[*origin(patient)[:2], origin(patient)[2] + k * STEP], InstanceNumber=k + 1,
                PixelSpacing=[BETWEEN_ROWS, BETWEEN_COLUMNS], SliceThickness=STEP, RescaleSlope=1,
                RescaleIntercept=-1024, RescaleType="HU", ViewPosition=None, PresentationIntentType=None,
            )  # fmt: skip
    return root


def of_patients(those: list[Ball]) -> dict[str, list[Ball]]:
    return {p: [ball for ball in those if ball.patient == p] for p in sorted({ball.patient for ball in those})}


# --- LUNA16: https://luna16.grand-challenge.org/Data/ ---


def write_mhd(root: Path, those: list[Ball]) -> Path:
    """Each series as SERIESUID.mhd and .raw, the header with the keys and in the order of LUNA16's."""
    root.mkdir(parents=True, exist_ok=True)
    for patient, found in of_patients(those).items():
        name = found[0].series
        along, down = directions(patient)
        lines = {
            "ObjectType": "Image", "NDims": 3, "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
            "CompressedData": "False", "TransformMatrix": " ".join(f"{v:g}" for v in (*along, *down, 0, 0, 1)),
            "Offset": " ".join(map(repr, map(float, origin(patient)))), "CenterOfRotation": "0 0 0",
            "AnatomicalOrientation": "RAI", "ElementSpacing": f"{BETWEEN_COLUMNS} {BETWEEN_ROWS} {STEP}",
            "DimSize": f"{COLUMNS} {ROWS} {SLICES}", "ElementType": "MET_SHORT", "ElementDataFile": f"{name}.raw",
        }  # fmt: skip
        (root / f"{name}.mhd").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        volume(patient, those).astype("<i2").tofile(root / f"{name}.raw")
    return root


def write_candidates(path: Path, those: list[Ball]) -> Path:
    rows = [(ball.series, *ball.centre, int(ball.label == "malignant")) for ball in those]
    return write_csv(path, [("seriesuid", "coordX", "coordY", "coordZ", "class"), *rows])


# --- LIDC-IDRI: Armato et al. 2011 and the collection's page ---


def write_lidc(folder: Path, those: list[Ball], ratings=None) -> Path:
    """A file of reads for each series: one nodule for each ball and reader, its outline around the filled pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (patient, found) in enumerate(of_patients(those).items()):
        root = ElementTree.Element("LidcReadMessage", {"xmlns": "http://www.nih.gov", "uid": uid("reads", patient)})
        header = ElementTree.SubElement(root, "ResponseHeader")
        ElementTree.SubElement(header, "SeriesInstanceUid").text = found[0].series
        ElementTree.SubElement(header, "StudyInstanceUID").text = uid(patient, "study")
        for reader in range(4):
            session = ElementTree.SubElement(root, "readingSession")
            ElementTree.SubElement(session, "servicingRadiologistID").text = "anonymous"
            for index, ball in enumerate(found):
                given = (ratings or _ratings)(ball, reader)
                if given is not None:
                    _nodule(session, ball, index, given)
            small = ElementTree.SubElement(session, "unblindedReadNodule")  # < 3 mm: one point, no ratings
            ElementTree.SubElement(small, "noduleID").text = "small"
            _roi(small, patient, 0, [(3, 4)])
        ElementTree.ElementTree(root).write(folder / f"{number:03d}.xml", xml_declaration=True, encoding="UTF-8")
    return folder


def _ratings(ball: Ball, reader: int) -> int | None:
    """Three of the four readers find each ball, and do not quite agree."""
    return None if reader == 3 else {"malignant": (5, 4, 3), "benign": (1, 2, 3)}[ball.label][reader]


def _nodule(session, ball, index, malignancy):
    nodule = ElementTree.SubElement(session, "unblindedReadNodule")
    ElementTree.SubElement(nodule, "noduleID").text = f"Nodule {index}"
    ratings = ElementTree.SubElement(nodule, "characteristics")
    ElementTree.SubElement(ratings, "subtlety").text = "4"
    ElementTree.SubElement(ratings, "malignancy").text = str(malignancy)
    mask = inside(ball)
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        rows = np.flatnonzero(mask[k].any(axis=1))
        spans = [(np.flatnonzero(mask[k, row])[[0, -1]], row) for row in rows]
        edge = [(first, row) for (first, _), row in spans] + [(last, row) for (_, last), row in reversed(spans)]
        _roi(nodule, ball.patient, int(k), [*edge, edge[0]])


def _roi(nodule, patient, k, edge):
    roi = ElementTree.SubElement(nodule, "roi")
    ElementTree.SubElement(roi, "imageZposition").text = str(origin(patient)[2] + k * STEP)
    ElementTree.SubElement(roi, "imageSOP_UID").text = uid(f"{patient}/{k}", "sop")
    ElementTree.SubElement(roi, "inclusion").text = "TRUE"
    for column, row in edge:
        point = ElementTree.SubElement(roi, "edgeMap")
        ElementTree.SubElement(point, "xCoord").text = str(column)
        ElementTree.SubElement(point, "yCoord").text = str(row)


# --- 3D Slicer: markups-schema-v1.0.3.json; the .fcsv of version 4.11 ---


def write_slicer(folder: Path, those: list[Ball], system: str = "LPS", name="series") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    signs = np.array([1, 1, 1] if system == "LPS" else [-1, -1, 1])
    for patient, found in of_patients(those).items():
        points = [
            {"id": str(i), "label": f"{ball.label}-{i}", "description": "",
             "associatedNodeID": "vtkMRMLScalarVolumeNode1",
             "position": [float(v) for v in signs * ball.centre], "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1],
             "selected": True, "locked": False, "visibility": True, "positionStatus": "defined"}
            for i, ball in enumerate(found, 1)
        ]  # fmt: skip
        markup = {"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "locked": False,
                  "fixedNumberOfControlPoints": False, "labelFormat": "%N-%d", "controlPoints": points}  # fmt: skip
        stem = found[0].series if name == "series" else patient
        (folder / f"{stem}.mrk.json").write_text(
            json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [markup]})
        )
    return folder


def write_fcsv(folder: Path, those: list[Ball], system: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    signs = np.array([1, 1, 1] if system in ("LPS", "1") else [-1, -1, 1])
    for found in of_patients(those).values():
        lines = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}",
                 "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"]  # fmt: skip
        lines += [
            f"vtkMRMLMarkupsFiducialNode_{i},{','.join(map(str, signs * ball.centre))},0,0,0,1,1,1,0,{ball.label}-{i},,"
            for i, ball in enumerate(found, 1)
        ]
        (folder / f"{found[0].series}.fcsv").write_text("\n".join(lines) + "\n")
    return folder


# --- DICOM SEG, by highdicom; RTSTRUCT: PS3.3 A.19, C.8.8.5, C.8.8.6 ---


def write_seg(folder: Path, those: list[Ball], archive: Path) -> Path:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    folder.mkdir(parents=True, exist_ok=True)
    for patient, found in of_patients(those).items():
        images = sorted((pydicom.dcmread(p) for p in (archive / patient).glob("*.dcm")), key=lambda d: d.InstanceNumber)
        described = [
            hd.seg.SegmentDescription(
                number, ball.label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Nodule, "MANUAL"
            )
            for number, ball in enumerate(found, 1)
        ]
        masks = np.stack([inside(ball) for ball in found], axis=-1).astype(np.uint8)
        seg = hd.seg.Segmentation(
            images, masks, "BINARY", described, uid("seg", patient), 7, uid("seg", patient, "sop"), 1, "medlora",
            "test", "1", "1",
        )  # fmt: skip
        seg.save_as(folder / f"{patient}.dcm")
    return folder


def write_rtstruct(folder: Path, those: list[Ball]) -> Path:
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.column_stack([np.cos(turn), np.sin(turn), np.zeros(48)])
    for patient, found in of_patients(those).items():
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
        meta.MediaStorageSOPInstanceUID = uid("rt", patient)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.Modality, ds.PatientID, ds.StudyInstanceUID = "RTSTRUCT", patient, uid(patient, "study")
        ds.SeriesInstanceUID = uid("rt", patient, "series")
        series, study, frame = Dataset(), Dataset(), Dataset()
        series.SeriesInstanceUID = found[0].series
        study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", uid(patient, "study")
        study.RTReferencedSeriesSequence = [series]
        frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uid(patient, "frame"), [study]
        ds.ReferencedFrameOfReferenceSequence = [frame]
        ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
        for number, ball in enumerate(found, 1):
            region, drawn, observed = Dataset(), Dataset(), Dataset()
            region.ROINumber, region.ROIName = number, ball.label
            drawn.ReferencedROINumber, drawn.ContourSequence = number, []
            observed.ObservationNumber, observed.ReferencedROINumber = number, number
            observed.RTROIInterpretedType, observed.ROIInterpreter = "GTV", ""
            for step in np.arange(-2, 3) * ball.radius / 2.5:
                contour = Dataset()
                ring = ball.centre + circle * np.sqrt(ball.radius**2 - step**2) + np.array([0, 0, step])
                contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(ring)
                contour.ContourData = [f"{value:.4f}" for value in ring.ravel()]
                drawn.ContourSequence.append(contour)
            ds.StructureSetROISequence.append(region)
            ds.ROIContourSequence.append(drawn)
            ds.RTROIObservationsSequence.append(observed)
        ds.save_as(folder / f"{patient}.dcm")
    return folder


# --- COCO: https://cocodataset.org/#format-data ---


def write_coco(path: Path, those: list[Ball], columns: int = COLUMNS) -> Path:
    """A box around each ball on its middle slice, which is an image of its own."""
    images: dict[str, int] = {}
    boxes = []
    for number, ball in enumerate(those):
        mask = inside(ball)
        k = int(mask.sum(axis=(1, 2)).argmax())
        rows, across = np.flatnonzero(mask[k].any(axis=1)), np.flatnonzero(mask[k].any(axis=0))
        box = [across[0], rows[0], across[-1] - across[0] + 1, rows[-1] - rows[0] + 1]
        image = images.setdefault(f"{ball.patient}/{SLICES - k:02d}.dcm", len(images))
        boxes.append({"id": number, "image_id": image, "category_id": int(ball.label == "malignant") + 1,
                      "bbox": [float(v) for v in box], "area": float(box[2] * box[3]), "iscrowd": 0})  # fmt: skip
    text = {
        "images": [{"id": i, "file_name": name, "width": columns, "height": ROWS} for name, i in images.items()],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}],
    }
    path.write_text(json.dumps(text))
    return path

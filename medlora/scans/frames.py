"""Files of many planes (enhanced multi-frame, dose grids, reconstructed nuclear medicine, Siemens mosaics): each plane
gets values of its own."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pydicom

from medlora.scans.codes import Code
from medlora.scans.elements import ACQUISITION, CSA, PARAMETRIC_MAP, STRUCTURAL, WANTED
from medlora.scans.geometry import axes
from medlora.scans.header import Header, Values
from medlora.scans.plain import dataset, holds_something, plain_of
from medlora.scans.plane import listed

# Macro (functional group sequence) → keywords of its item, and the keyword of the classic object that means the same.
_GROUPS: dict[str, dict[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PixelValueTransformationSequence": {
        "RescaleIntercept": "RescaleIntercept",
        "RescaleSlope": "RescaleSlope",
        "RescaleType": "RescaleType",
    },
    "FrameVOILUTSequence": {"WindowCenter": "WindowCenter", "WindowWidth": "WindowWidth"},
    "FrameContentSequence": {
        "StackID": "StackID",
        "InStackPositionNumber": "InStackPositionNumber",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "FrameAcquisitionDateTime": "AcquisitionTime",
    },
    "TemporalPositionSequence": {"TemporalPositionTimeOffset": "TemporalPositionTimeOffset"},
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType", "ComplexImageComponent": "ComplexImageComponent"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "CTXRayDetailsSequence": {"KVP": "KVP"},
    "FramePixelDataPropertiesSequence": {"ImagerPixelSpacing": "ImagerPixelSpacing"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime": "RepetitionTime", "FlipAngle": "FlipAngle"},
}
# Elements of the single images that tell the frames of a legacy converted object apart, or are of interest in it.
_CONVERTED = {
    tag: keyword
    for tag, (keyword, _) in WANTED.items()
    if keyword in {*ACQUISITION, "DiffusionGradientOrientation", "FrameReferenceTime", "NumberOfTemporalPositions"}
}
_MOST_FRAMES = 100_000
# The stored values for which a Real World Value Mapping holds, of integers and of floating point numbers.
_MAPPED = tuple(f"{kind}RealWorldValue{end}ValueMapped" for kind in ("", "DoubleFloat") for end in ("First", "Last"))
# Which of its kind each frame of nuclear medicine is (PS3.3 C.8.4.8).
_FRAME_VECTORS = (
    "SliceVector", "TimeSlotVector", "EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector",
    "RRIntervalVector", "AngularViewVector", "TimeSliceVector",
)  # fmt: skip
#: A frame's place along each of the file's own dimensions (Dimension Index Values, PS3.3 C.7.6.17).
DIMENSIONS = tuple(f"DimensionIndexValue{number}" for number in range(1, 9))


class UnreadableError(Exception):
    """An element of a functional group, by its keyword, is no number."""


def add(header: Header) -> None:
    """Fill ``header.frames`` where the file holds several planes with places of their own.

    Raises:
        ValueError: the functional groups do not fit the number of frames (PS3.3 C.7.6.16).
        UnreadableError: pixels would be misread or misplaced without one of their elements, which cannot be read.
    """
    values = header.values
    image_type = values.get("ImageType") or []
    if values.get("RealWorldValueMappingSequence") and values.get("Modality") == "MR" and "RescaleSlope" not in values:
        scale = _real_world(dataset(header.path))
        values.update(scale if "UnclearMapping" not in scale else {})  # else stored values, which the standard allows
    if values.get("PerFrameFunctionalGroupsSequence"):
        _enhanced(header)
    elif "GridFrameOffsetVector" in values and values.get("NumberOfFrames", 1) > 1:
        _dose(header)
    elif values.get("DetectorInformationSequence") and {"RECON TOMO", "RECON GATED TOMO"} & set(image_type):
        _nuclear(header)
    elif "VFRAME" in image_type:
        _vframe(header)
    elif ("MOSAIC" in image_type or (values.get(CSA) or [0])[0] > 1) and values.get("NumberOfFrames", 1) == 1:
        _mosaic(header)


def _enhanced(header: Header) -> None:

    data = dataset(header.path)
    count = int(header.values.get("NumberOfFrames", 1))
    items = data.PerFrameFunctionalGroupsSequence
    if len(items) != count or not 0 < count <= _MOST_FRAMES:
        raise ValueError
    shared_items = data.get("SharedFunctionalGroupsSequence")
    shared = _group_values(shared_items[0]) if shared_items else {}
    header.values.update(shared)
    header.frames = [_group_values(item) for item in items]
    if count == 1 and _is_mosaic(header, items[0]):
        header.problem = (Code.UnknownMosaic.name, "")
    if header.values.get("SOPClassUID") == PARAMETRIC_MAP:
        header.values.update(_real_world(shared_items[0]) if shared_items else {})
        for values, item in zip(header.frames, items, strict=True):
            values.update(_real_world(item))
            if not values.keys() | header.values.keys() >= {"RescaleSlope"}:
                values["UnclearMapping"] = True
    elif header.values.get("Modality") == "MR" and "RescaleSlope" not in header.values:
        common = _real_world(shared_items[0]) if shared_items else {}
        scales = [common | _real_world(item) for item in items]
        if all("RescaleSlope" in scale and "UnclearMapping" not in scale for scale in scales):
            for values, scale in zip(header.frames, scales, strict=True):
                values.update({} if "RescaleSlope" in values else scale)  # as of single images, in `add`
        elif any("RescaleSlope" in scale for scale in scales):
            header.values["UnclearMapping"] = True


def _is_mosaic(header: Header, item: pydicom.Dataset) -> bool:
    """Whether the only frame holds slices as tiles. Where one file holds many frames, software has parted the tiles,
    and may have kept the word."""
    words = [*listed(header.values.get("ImageType")), *listed(header.frames[0].get("ImageType"))]
    # Siemens XA: in a private element of the frame alone, an Image Type Text
    with suppress(Exception):  # pydicom raises whatever a damaged element leads to; it is no reason to refuse the file
        words += (str(e.value) for e in item.iterall() if e.tag.group == 0x21 and e.tag.element & 0xFF == 0x75)
    return any("MOSAIC" in str(word) for word in words)


def _group_values(item: pydicom.Dataset) -> Values:

    values = _unassigned(item)
    for sequence, keywords in _GROUPS.items():
        macro = item.get(sequence)
        if not macro:
            continue
        for keyword, classic in keywords.items():
            value = _value_of(macro[0], keyword, classic) if keyword in macro[0] else None
            if value is not None:
                values[classic] = value
        if sequence == "FrameContentSequence" and "DimensionIndexValues" in macro[0]:
            places = listed(plain_of(macro[0], "DimensionIndexValues"))
            values |= dict(zip(DIMENSIONS, places, strict=False))
        if sequence == "MRDiffusionSequence" and macro[0].get("DiffusionGradientDirectionSequence"):
            direction = plain_of(macro[0].DiffusionGradientDirectionSequence[0], "DiffusionGradientOrientation")
            if direction is not None:
                values["DiffusionGradientOrientation"] = direction
    return values


def _value_of(item: pydicom.Dataset, tag: int | str, classic: str) -> Any:
    """As `plain_of`, of an element without which pixels would be misread or misplaced.

    Raises:
        UnreadableError: it is there and cannot be read.
    """
    value = plain_of(item, tag)
    if value is None and classic in STRUCTURAL and holds_something(item, tag):
        raise UnreadableError(classic)
    return value


def _real_world(item: pydicom.Dataset) -> Values:
    """The scale of a parametric map: what its values measure is in the first Real World Value Mapping (PS3.3
    C.7.6.16.2.11), and its modality rescale changes nothing."""
    macro = item.get("RealWorldValueMappingSequence")
    if not macro:
        return {}
    slope, intercept = (plain_of(macro[0], f"RealWorldValue{word}") for word in ("Slope", "Intercept"))
    # Other units have the same range as the first; pieces of one scale have others.
    ranges = {tuple(str(plain_of(mapping, word)) for word in _MAPPED) for mapping in macro}
    unclear = {"UnclearMapping": True} if len(ranges) > 1 or "RealWorldValueLUTData" in macro[0] else {}
    return unclear if slope is None else unclear | {"RescaleSlope": slope, "RescaleIntercept": intercept or 0.0}


def _unassigned(item: pydicom.Dataset) -> Values:
    """Elements of the single images for which a legacy converted object has no macro (PS3.3 A.70 to A.72)."""
    values: Values = {}
    for name in ("Shared", "PerFrame"):
        macro = item.get(f"Unassigned{name}ConvertedAttributesSequence")
        for tag in macro[0].keys() & _CONVERTED.keys() if macro else ():
            value = _value_of(macro[0], tag, _CONVERTED[tag])
            if value is not None:
                values[_CONVERTED[tag]] = value
    return values


def _dose(header: Header) -> None:
    """RT Dose: offsets of the planes along the normal (PS3.3 C.8.8.3.2)."""
    values = header.values
    for word in ("ImageOrientationPatient", "ImagePositionPatient"):
        if word not in values:
            raise UnreadableError(word)
    offsets = np.atleast_1d(np.asarray(values["GridFrameOffsetVector"], float))
    if len(offsets) != values["NumberOfFrames"]:
        raise ValueError
    directions = axes(tuple(values["ImageOrientationPatient"]))
    if directions is None:
        raise ValueError
    normal, position = directions[2], np.asarray(values["ImagePositionPatient"], float)
    if offsets[0] != 0:  # type B: patient coordinates along the normal, for axial grids only
        if not np.allclose(np.abs(normal), [0, 0, 1], atol=1e-4) or abs(offsets[0] - position[2]) > 0.01:
            raise ValueError
        offsets = (offsets - position[2]) * normal[2]
    header.frames = [{"ImagePositionPatient": (position + offset * normal).tolist()} for offset in offsets]


def _nuclear(header: Header) -> None:
    """Reconstructed nuclear medicine: the first slice's place is the detector's, the others lie behind it (or, where
    the spacing is negative, in front) along the normal (PS3.3 C.8.4.11, C.8.4.15).

    Left without places where the header does not say them, or where more than slices and time slots tell frames apart.
    """
    values, data = header.values, dataset(header.path)
    count = int(values.get("NumberOfFrames", 1))
    detector = data.DetectorInformationSequence[0]
    spacing = values.get("SpacingBetweenSlices")
    orientation, position = (plain_of(detector, f"Image{word}Patient") for word in ("Orientation", "Position"))
    vectors = {word: listed(plain_of(data, word)) for word in _FRAME_VECTORS if word in data}
    slices, slots = vectors.pop("SliceVector", []), vectors.pop("TimeSlotVector", [1] * count)
    directions = axes(tuple(orientation)) if len(listed(orientation)) == 6 else None
    if (
        "ImagePositionPatient" in values
        or directions is None
        or len(listed(position)) != 3
        or not spacing
        or len(slices) != count
        or len(slots) != count
        or any(len(set(vector)) > 1 for vector in vectors.values())
    ):
        return
    values["ImageOrientationPatient"] = orientation
    step = spacing * directions[2]
    header.frames = [
        {"ImagePositionPatient": (np.asarray(position, float) + (number - 1) * step).tolist()}
        | ({"TemporalPositionIdentifier": slot} if len(set(slots)) > 1 else {})
        for number, slot in zip(slices, slots, strict=True)
    ]


def _mosaic(header: Header) -> None:
    """Siemens mosaic: slices as tiles of one image; number and normal come from the private CSA header.

    The stored position is that of the corner of the whole mosaic, as if it were one large image around the first tile's
    centre (nibabel, "Siemens mosaic format").

    Software that parts the tiles may leave the private header as it was, and the word MOSAIC, too: then what look like
    tiles are pieces of one slice, with fewer pixels than were measured.
    """
    values = header.values
    found = values.get(CSA) or _older_layout(header)
    count, normal = (int(found[0]), found[1:]) if found else (0, [])
    spacing = values.get("SpacingBetweenSlices")
    if count < 1 or spacing is None:
        header.problem = (Code.UnknownMosaic.name, "")
        return
    tiles = math.ceil(math.sqrt(count))
    called = "MOSAIC" in listed(values.get("ImageType", "MOSAIC"))
    # Pixels that were measured along a slice's longer side (PS3.3 C.8.3.1), two numbers of four being 0.
    matrix = max((size for size in listed(values.get("AcquisitionMatrix")) if isinstance(size, int)), default=0)
    parted = 2 * max(values["Rows"], values["Columns"]) <= tiles * matrix
    if parted and not called:
        return  # two witnesses against one: a slice like any other
    if parted or not (called or matrix):
        header.problem = (Code.UnknownMosaic.name, "tiles by a private header that others contradict")
        return
    if values["Rows"] % tiles or values["Columns"] % tiles:
        header.problem = (Code.UnknownMosaic.name, "")
        return
    directions = axes(tuple(values["ImageOrientationPatient"]))
    if directions is None:
        raise ValueError
    rows, columns = values["Rows"] // tiles, values["Columns"] // tiles
    between_rows, between_columns = values["PixelSpacing"]
    corner = np.asarray(values["ImagePositionPatient"], float)
    corner = corner + directions[0] * between_columns * (values["Columns"] - columns) / 2
    corner = corner + directions[1] * between_rows * (values["Rows"] - rows) / 2
    # The private normal gives the side; its digits are fewer than those of the orientation.
    step = abs(spacing) * directions[2] * np.sign(directions[2] @ np.asarray(normal, float))
    values["MosaicTiles"] = values["MosaicTilesDown"] = tiles
    header.frames = [{"ImagePositionPatient": (corner + k * step).tolist()} for k in range(count)]


def _vframe(header: Header) -> None:
    """United Imaging's mosaic: a private block gives the number and size of the tiles, and the place of each."""
    values, data = header.values, dataset(header.path)
    header.problem = (Code.UnknownMosaic.name, "")
    try:
        block = data.private_block(0x0065, "Image Private Header")
        rows, columns = (int(n) for n in str(block[0x04].value).split("*"))
        places = [list(map(float, item.ImagePositionPatient)) for item in block[0x51].value]
        count = int(block[0x50].value)
    except (KeyError, ValueError, AttributeError, TypeError):
        return
    down, across = values["Rows"] // max(rows, 1), values["Columns"] // max(columns, 1)
    if (down * rows, across * columns) == (values["Rows"], values["Columns"]) and len(places) == count <= down * across:
        header.problem = None
        values["MosaicTiles"], values["MosaicTilesDown"] = across, down
        header.frames = [{"ImagePositionPatient": place} for place in places]


def _older_layout(header: Header) -> list[float]:
    """As `csa.layout`, of headers of the older format, or in another block of private elements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its DICOM part experimental; the tests hold it to known results
        from nibabel.nicom import csareader

    csa: dict[str, Any] | None = csareader.get_csa_header(dataset(header.path), "image")
    count = csareader.get_n_mosaic(csa) if csa is not None else None
    normal = csareader.get_slice_normal(csa) if csa is not None else None
    return [count, *map(float, normal)] if count and normal is not None else []

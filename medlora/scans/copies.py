"""Files that carry the same SOP Instance UID: sent again, corrected, compressed otherwise, damaged on the way."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from medlora.scans.codes import Code, Issue
from medlora.scans.decode import Frames
from medlora.scans.header import Header, stored_pixels
from medlora.scans.pepolar import ROWS
from medlora.scans.plane import planes_of
from medlora.scans.scan import ScanError
from medlora.scans.values import LOSSY, rescale_of

# What makes other values or another place of equal cells: two copies have the same, or both lack it.
_DECISIVE = (
    "SOPClassUID", "Modality", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "DoseGridScaling", "DoseUnits",
    "ModalityLUTSequence", "UnclearMapping", "PixelPresentation", "PresentationLUTShape", "PresentationIntentType",
    "PixelIntensityRelationshipSign", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePlanePixelSpacing", "PixelAspectRatio",
    "GridFrameOffsetVector", "MosaicTiles", "MosaicTilesDown", ROWS,
)  # fmt: skip
# What puts the image among others, or on one side of the patient: one copy may be silent, but not say otherwise.
_TELLING = (
    "Laterality", "ImageLaterality", "ViewPosition", "PatientOrientation", "Units", "RescaleType", "ImageType",
    "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue",
    "DiffusionGradientOrientation", "InversionTime", "TriggerTime", "ComplexImageComponent", "ConvolutionKernel", "KVP",
    "FlipAngle", "SequenceName", "StackID", "SliceThickness", "SpacingBetweenSlices", "FrameReferenceTime",
    "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "ConcatenationUID", "InConcatenationNumber",
)  # fmt: skip
# How the cells are written: other cells may be the same once they are decoded.
_WRITTEN = ("TransferSyntaxUID", "PhotometricInterpretation", "PlanarConfiguration")

LeftOut = tuple[tuple[Header, ...], Issue]
_Decode = Callable[[Header], bytes | Issue]


def one_of_each(members: Iterable[Header]) -> tuple[list[Header], list[LeftOut]]:
    """Headers of different images: of copies one counts, different images under one UID not at all.

    Returns:
        what is kept, one per SOP Instance UID, and what is left out with its reason.
    """
    by_uid: dict[str, list[Header]] = defaultdict(list)
    for header in members:
        by_uid[header.values.get("SOPInstanceUID") or header.digest].append(header)
    kept: list[Header] = []
    left_out: list[LeftOut] = []
    for same in by_uid.values():
        if len(same) == 1:
            kept += same
            continue
        known: dict[int, bytes | Issue] = {}

        def cells(header: Header, known: dict[int, bytes | Issue] = known) -> bytes | Issue:
            """As `cells_of`, decoded once."""
            if id(header) not in known:
                known[id(header)] = cells_of(header)
            return known[id(header)]

        whole, damaged = _without_damaged(same, cells)
        left_out += damaged
        if not _are_copies(whole, cells):
            left_out.append((tuple(whole), Issue(Code.RepeatedInstance, f"{len(whole)} files")))
            continue
        best = min(whole, key=_worth)
        kept.append(best)
        copies = tuple(header for header in whole if header is not best)
        left_out += [(copies, Issue(Code.DuplicateFile))] if copies else []
    return kept, left_out


def are_copies(same: Sequence[Header]) -> bool:
    """Whether files of one SOP Instance UID, in whichever series they are, hold the same image."""
    return _are_copies(same, cells_of)


def _worth(header: Header) -> tuple[bool, bool, int]:
    """Sorts copies: the exact one first, the one that owns up to burned-in text, the one that says most."""
    said = sum(word in header.values for word in _TELLING)
    return _is_lossy(header), header.values.get("BurnedInAnnotation") != "YES", -said


def _is_lossy(header: Header) -> bool:
    return header.values["TransferSyntaxUID"] in LOSSY or header.values.get("LossyImageCompression") == "01"


def _without_damaged(same: Sequence[Header], cells: _Decode) -> tuple[list[Header], list[LeftOut]]:
    """The copies whose pixels can be decoded, where some can and others cannot; looked at only where their cells are
    stored otherwise."""
    if not _headers_agree(same) or _stored_alike(same):
        return list(same), []
    broken = {id(header): issue for header in same if isinstance(issue := cells(header), Issue)}
    if len(broken) == len(same):
        return list(same), []
    whole = [header for header in same if id(header) not in broken]
    return whole, [((header,), broken[id(header)]) for header in same if id(header) in broken]


def _are_copies(same: Sequence[Header], cells: _Decode) -> bool:
    """Whether files of one SOP Instance UID hold the same image; of a lossy form only size and header can tell."""
    if not _headers_agree(same):
        return False
    if _stored_alike(same):
        return True
    decoded: dict[str, set[bytes]] = defaultdict(set)
    for header in same:
        found = cells(header)
        if isinstance(found, Issue):
            return False
        decoded[header.values["TransferSyntaxUID"] if _is_lossy(header) else ""].add(found)
    return all(len(found) == 1 for found in decoded.values())


def _headers_agree(same: Sequence[Header]) -> bool:
    first, *others = same
    grey = first.values.get("SamplesPerPixel", 1) == 1
    decisive = (*_DECISIVE, "PhotometricInterpretation") if grey else _DECISIVE
    if any(header.frames != first.frames for header in others):
        return False
    if any(header.values.get(word) != first.values.get(word) for header in others for word in decisive):
        return False
    said = [[header.values[word] for header in same if word in header.values] for word in _TELLING]
    return all(value == values[0] for values in said for value in values)


def _stored_alike(same: Sequence[Header]) -> bool:
    if len({tuple(str(header.values.get(word)) for word in _WRITTEN) for header in same}) > 1:
        return False
    try:
        digests = {stored_pixels(header) for header in same}
    except OSError:
        return False
    return len(digests) == 1 and None not in digests


def cells_of(header: Header) -> bytes | Issue:
    """SHA-256 of the decoded cells, less the bits that do not count; or why they cannot be decoded."""
    digest = hashlib.sha256()
    try:
        with header.path.open("rb") as file:
            stored, scale = Frames(header, file), rescale_of(planes_of(header)[0].values)
            for cells in (stored[k] for k in range(stored.cells.frames)):
                digest.update((cells if cells.dtype.kind == "f" else scale.integers(cells)[0]).tobytes())
    except ScanError as error:
        return error.issue
    except OSError as error:
        return Issue(Code.CannotOpen, error.strerror or "")
    return digest.digest()

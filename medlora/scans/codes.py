"""What can be wrong with a scan, as values: a code, one sentence, and how much it matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """What an issue does: ``refuse`` keeps the scan out, ``flag`` lets it in and says so.

    A caller can turn any flag into a refusal. Of the refusals only `UnknownOrder` can be turned into a flag (the order
    is then that of the instance numbers): of the others nothing could be made.
    """

    REFUSE = "refuse"
    FLAG = "flag"


class Code(Enum):
    """The kinds of issue; each has a sentence and a default severity."""

    # Files that hold no image.
    CannotOpen = "The file or folder cannot be opened", "refuse"
    EmptyFile = "The file is empty", "refuse"
    LinkLeavesFolder = "The link leads out of the folder and was not followed", "refuse"
    NotAnImage = "The file holds no image (a report, plan, segmentation, text, or another format)", "refuse"
    DamagedHeader = "The header cannot be read, or contradicts itself", "refuse"
    NoPixelData = "The header describes an image but there are no pixels", "refuse"
    TooLarge = "The header asks for more memory than the file can justify", "refuse"

    # Pixels that cannot be had.
    TruncatedPixelData = "The file ends before its pixels do", "refuse"
    UnsupportedTransferSyntax = "The pixels are encoded in a way that medlora cannot decode", "refuse"
    DamagedPixelData = "The encoded pixels cannot be decoded", "refuse"
    UnknownPixelFormat = "The pixel format is not one that the standard defines, or not one medlora reads", "refuse"

    UnknownMosaic = "The mosaic does not say how its slices are laid out", "refuse"

    # Series that do not make one volume.
    RepeatedInstance = "Different images carry the same SOP Instance UID", "refuse"
    DuplicateFile = "The file is a copy of another one of its series", "refuse"
    DuplicatePosition = "Several images lie at one position and nothing tells them apart", "refuse"
    UnknownOrder = "The images of the series carry no position, so their order is not known", "refuse"
    InvalidOrientation = "The direction cosines of the image are not two perpendicular unit vectors", "refuse"
    NoSeriesUID = (
        "No Series Instance UID says which images belong together; folder, study and number were taken",
        "flag",
    )
    MissingSlices = "Slices are missing", "flag"
    NonUniformSpacing = "The distance between slices varies; the affine holds the mean step", "flag"
    UnalignedSlices = "The slices do not lie on one straight line; the affine holds the mean step", "flag"
    MixedOrientation = "The series holds images of several orientations; each became a scan of its own", "flag"
    MixedSlices = "Slices of different kinds, or of different frames of reference, make up the volume", "flag"
    InferredVolumes = "The series repeats its positions; volumes were told apart by order of acquisition", "flag"
    TiltedGantry = "The slices are stacked obliquely (gantry tilt); the affine is sheared", "flag"

    # Geometry and values.
    NoGeometry = "The file does not say where the image lies in the patient", "flag"
    UnknownSpacing = "The file does not give the size of a pixel; 1 mm is assumed", "flag"
    ConflictingGeometry = "The file describes its geometry in two ways that disagree", "flag"
    UnknownUnits = "The file does not say how stored values become the units of its modality", "flag"
    NonFiniteValues = (
        "Voxels are NaN, infinite, or too large for 32 bits; training takes the scan's lowest value",
        "flag",
    )
    BlankSlices = "Slices hold one value alone, though their neighbours do not", "flag"
    UnusedBitsSet = "Bits outside Bits Stored were set and have been ignored", "flag"
    ConflictingPolarity = (
        "Photometric Interpretation disagrees with Presentation LUT Shape or with the VOI LUT, and was followed",
        "flag",
    )
    ForProcessing = "The radiograph is FOR PROCESSING: detector values, not made for reading", "flag"
    BurnedInAnnotation = "The pixels are said to hold burned-in annotation, possibly a patient's identity", "flag"

    def __init__(self, sentence: str, severity: str) -> None:
        self.sentence = sentence
        self.severity = Severity(severity)

    def __repr__(self) -> str:
        return f"Code.{self.name}"


@dataclass(frozen=True)
class Issue:
    """One thing found about one scan.

    Args:
        code: what kind of thing.
        detail: numbers of this scan ("3 of 40"), never an identifier.
    """

    code: Code
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.code.name}: {self.code.sentence}{f' ({self.detail})' if self.detail else ''}."


Severities = Mapping[Code, Severity]


def severity(code: Code, changed: Mapping[Code, Severity | str] | None = None) -> Severity:
    """The severity of ``code``: the caller's where given, else the default."""
    return Severity((changed or {}).get(code, code.severity))

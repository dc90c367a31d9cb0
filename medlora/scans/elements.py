"""The data elements that medlora reads from a DICOM header, and which of them may be shown.

The whitelist follows PS3.15 Annex E: attributes of acquisition and image description that Table E.1-1 (Application
Level Confidentiality Profile Attributes) does not name, plus sex and age, which its Retain Patient Characteristics
Option keeps. Left out because the table names them: UIDs, dates and times, institution, station, device serial
number, operators, and free text (descriptions, protocol name, comments), which may hold a name.
"""

from __future__ import annotations

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from medlora.scans.csa import CSA_TAG

#: Shown in `Scan.header`.
ACQUISITION = (
    "Modality", "SOPClassUID", "ImageType", "Manufacturer", "ManufacturerModelName", "PatientSex", "PatientAge",
    "BodyPartExamined", "ViewPosition", "Laterality", "ImageLaterality", "PatientOrientation", "PatientPosition",
    "PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "DetectorType",
    "ConvolutionKernel", "ReconstructionAlgorithm", "FilterType", "KVP", "Exposure", "ExposureInuAs", "ExposureTime",
    "XRayTubeCurrent", "ExposureIndex", "DeviationIndex", "Grid", "DistanceSourceToDetector", "DistanceSourceToPatient",
    "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "SpiralPitchFactor", "ReconstructionDiameter",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelSpacingCalibrationType",
    "EstimatedRadiographicMagnificationFactor", "MagneticFieldStrength", "ScanningSequence", "SequenceVariant",
    "ScanOptions", "MRAcquisitionType", "SequenceName", "RepetitionTime", "EchoTime", "EchoNumbers", "EchoTrainLength",
    "InversionTime", "FlipAngle", "DiffusionBValue", "Units", "DecayCorrection", "PhotometricInterpretation",
    "PresentationLUTShape", "BitsStored", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "BurnedInAnnotation", "QualityControlImage", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleType", "TemporalPositionIdentifier",
    "FrameReferenceTime", "TriggerTime", "AcquisitionNumber", "ComplexImageComponent",
)  # fmt: skip

#: Read for `Identity` only.
IDENTIFYING = (
    "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber",
    "StudyDate", "FrameOfReferenceUID",
)  # fmt: skip

#: Read to put images together and to make values of their pixels.
TECHNICAL = (
    "SpecificCharacterSet", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "DoseGridScaling",
    "GridFrameOffsetVector", "PixelAspectRatio", "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber",
    "ImagesInAcquisition", "NumberOfSlices", "NumberOfTemporalPositions", "NumberOfTimeSlices", "AcquisitionTime",
    "ContentTime", "AcquisitionDate", "ContentDate", "DiffusionGradientOrientation", "StackID", "InStackPositionNumber",
    "ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber",
    "SeriesNumber", "ImagePlanePixelSpacing", "DoseUnits", "PixelPresentation", "CardiacNumberOfImages",
    "ContrastBolusAgent", "AcquisitionMatrix",
)  # fmt: skip

#: Sequences whose presence changes how the file is read.
SEQUENCES = (
    "ModalityLUTSequence", "VOILUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DetectorInformationSequence", "SequenceOfUltrasoundRegions", "RealWorldValueMappingSequence",
)  # fmt: skip

WANTED: dict[int, tuple[str, str]] = {}
for _keyword in (*ACQUISITION, *IDENTIFYING, *TECHNICAL):
    _tag = tag_for_keyword(_keyword)
    assert _tag is not None, _keyword
    WANTED[int(_tag)] = (_keyword, dictionary_VR(_tag))
#: Private: Siemens' CSA image header, kept as what `csa.layout` makes of it.
CSA = "CSAImageHeaderInfo"
WANTED[CSA_TAG] = (CSA, "OB")
PRESENT: dict[int, str] = {int(tag_for_keyword(keyword) or 0): keyword for keyword in SEQUENCES}

#: Keywords whose elements hold one value at most.
SINGLE = {keyword for tag, (keyword, _) in WANTED.items() if keyword != CSA and dictionary_VM(tag) == "1"}

#: SOP classes that are no image of a patient, whatever of one they have: segmentations, and their label map form, with
#: pixels; MR spectroscopy, with rows and columns (PS3.4 B.5).
NO_IMAGES = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("66.4", "66.7", "66.8", "4.2")}

#: SOP classes of CT: single slices, enhanced, legacy converted enhanced (PS3.4 B.5).
CT_IMAGES = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "2.1", "2.2")}

#: SOP classes of PET: single slices, legacy converted enhanced, enhanced (PS3.4 B.5).
PET_IMAGES = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("128", "128.1", "130")}
#: Of these the one whose Units are required (type 1, PS3.3 C.8.9.1).
CLASSIC_PET = "1.2.840.10008.5.1.4.1.1.128"

#: SOP class of parametric maps (PS3.4 B.5).
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"

#: SOP class of ultrasound volumes (PS3.4 B.5).
ULTRASOUND_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"

#: SOP class of whole slide images, whose frames are tiles of one plane (PS3.4 B.5).
SLIDE_IMAGES = "1.2.840.10008.5.1.4.1.1.77.1.6"

#: SOP classes of secondary captures: single, and of several frames in black and white, grey or colour (PS3.4 B.5).
SECONDARY_CAPTURES = {f"1.2.840.10008.5.1.4.1.1.7{n}" for n in ("", ".1", ".2", ".3", ".4")}

#: The modality of SOP classes whose values have units of their own, whatever their files say (PS3.3 C.7.3.1).
MODALITIES = {
    **dict.fromkeys(CT_IMAGES, "CT"),
    **dict.fromkeys(PET_IMAGES, "PT"),
    **{f"1.2.840.10008.5.1.4.1.1.{n}": "MR" for n in ("4", "4.1", "4.4")},
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
}

#: Modalities whose values are measured quantities: MONOCHROME1 only says how to show them, so they are never inverted.
QUANTITATIVE = {"CT", "MR", "PT", "NM", "RTDOSE"}

#: Photometric Interpretations (PS3.3 C.7.6.3.1.2) of one sample per pixel, and of three.
GREY = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}
COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB"}

#: SOP classes of digital radiographs FOR PROCESSING: DX, mammography, intra-oral (PS3.4 B.5).
FOR_PROCESSING = {f"1.2.840.10008.5.1.4.1.1.1.{n}" for n in ("1.1", "2.1", "3.1")}

#: Elements without which pixels would be misread or misplaced: where one is there but cannot be read, the file is
#: refused.
STRUCTURAL = {
    "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "DoseGridScaling", "GridFrameOffsetVector",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
}  # fmt: skip

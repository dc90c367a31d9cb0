"""Archive files to scans: DICOM assembly and geometry, decoding, NIfTI, plain images, privacy."""

"""Physically plausible chest radiographs, written as real DICOM: the offline demo and the tests."""

"""Physically plausible scans of fictitious patients, written as real DICOM: for the offline demo and the tests.

They show that the machinery works. They are no evidence that a model works on people.
"""

from medlora.phantoms import ct, radiographs

__all__ = ["ct", "radiographs"]

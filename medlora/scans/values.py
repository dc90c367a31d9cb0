"""From stored cells to the units of the modality (PS3.3 C.11.1, C.7.6.3; PS3.5 8.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlora.scans.codes import Code, Issue
from medlora.scans.elements import QUANTITATIVE
from medlora.scans.header import Values
from medlora.scans.plane import PROJECTIONS
from medlora.scans.scan import ScanError

#: JPEG baseline and extended, JPEG-LS near-lossless, JPEG 2000 and HTJ2K that may lose something (PS3.5 10).
LOSSY = {f"1.2.840.10008.1.2.4.{n}" for n in ("50", "51", "81", "91", "203")}


@dataclass
class Rescale:
    """How one plane's stored cells become values.

    Args:
        slope, intercept: PS3.3 C.11.1; Dose Grid Scaling is a slope.
        table: modality LUT, which then replaces the two; with the first stored value it maps.
        stored: bits that count, the highest of them, and whether they are signed.
        inverted: dark and bright are exchanged within the range that the stored bits span, or the table.
        lossy: whether the cells come from lossy compression, which may shoot over the range of the stored bits.
    """

    slope: float
    intercept: float
    table: tuple[NDArray[np.float32], int] | None
    stored: tuple[int, int, bool]
    inverted: bool
    lossy: bool = False

    @property
    def ends(self) -> float:
        """The smallest plus the largest value that stored cells can have: what a value turned round is taken from."""
        if self.table is not None:
            return float(self.table[0].min()) + float(self.table[0].max())
        bits, _, signed = self.stored
        return self.slope * (-1 if signed else (1 << bits) - 1) + 2 * self.intercept

    def apply(self, frame: np.ndarray[Any, Any], out: NDArray[np.float32]) -> bool:
        """Write the values of ``frame`` (rows, columns[, 3]) into ``out``; whether stray bits were masked away."""
        if frame.dtype.kind == "f":
            np.copyto(out, frame, casting="same_kind" if frame.itemsize <= 4 else "unsafe")
            self._scale(out)
            return False
        cells, dirty = self.integers(frame)
        if self.table is not None:
            entries, first = self.table
            np.take(entries, np.clip(cells.astype(np.int64) - first, 0, len(entries) - 1), out=out)
            if self.inverted:
                np.subtract(np.float32(self.ends), out, out=out)
            return dirty
        if self.inverted:
            bits, _, signed = self.stored
            ends = -1 if signed else (1 << bits) - 1  # smallest plus largest of the range
            cells = ends - cells.astype(np.int64 if bits > 30 else np.int32)
        if self.slope == 0 and cells.any():
            raise ScanError(Issue(Code.UnknownPixelFormat, "a Rescale Slope of 0 for values that are not"))
        if self.slope == 1 and float(self.intercept).is_integer():
            np.add(
                cells,
                np.float32(self.intercept),
                out=out,
                casting="unsafe",
                dtype=np.float32 if cells.itemsize < 4 else np.float64,
            )
        else:
            np.copyto(out, cells * np.float64(self.slope) + self.intercept, casting="unsafe")
        return dirty

    def _scale(self, out: NDArray[np.float32]) -> None:
        if self.slope != 1:
            out *= np.float32(self.slope)
        if self.intercept != 0:
            out += np.float32(self.intercept)

    def integers(self, frame: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], bool]:
        """The value of each cell: the stored bits alone, with their sign (PS3.5 8.1.1); whether others were set."""
        bits, high, signed = self.stored
        width = 8 * frame.itemsize
        cells = frame.astype(f"u{frame.itemsize}", copy=False)  # of signed ones the same bits
        kind = np.dtype(f"i{frame.itemsize}" if signed else cells.dtype)
        if bits >= width:
            return cells.view(kind), False
        if not signed and high == bits - 1 and cells.max(initial=0) >> bits == 0:
            return cells, False
        if self.lossy and high == bits - 1 and signed == (frame.dtype.kind == "i"):
            low = -(1 << (bits - 1)) if signed else 0
            return np.clip(cells.view(kind), low, low + (1 << bits) - 1), True
        # Up to the top of the cell and down again drops what lies outside, and extends the sign of signed types.
        clean = (cells << cells.dtype.type(width - 1 - high)).view(kind) >> kind.type(width - bits)
        above = cells >> cells.dtype.type(high + 1) if high + 1 < width else np.zeros_like(cells)
        below = cells & cells.dtype.type((1 << (high + 1 - bits)) - 1)
        stray = (above != 0) & (clean.view(cells.dtype) != cells)  # zeros or copies of the sign are no stray bits
        return clean, bool(stray.any() or below.any())


def rescale_of(values: Values, table: tuple[NDArray[np.float32], int] | None = None, inverted: bool = False) -> Rescale:
    """How the cells of a plane with these header values become numbers.

    Raises:
        ScanError: the bits contradict each other, or the scaling is none.
    """
    allocated = values.get("BitsAllocated", 32)
    stored = values.get("BitsStored", allocated)
    high = values.get("HighBit", stored - 1 if isinstance(stored, int) else None)
    if not (
        isinstance(stored, int) and isinstance(high, int) and 0 < stored <= allocated and stored - 1 <= high < allocated
    ):
        raise ScanError(
            Issue(Code.UnknownPixelFormat, "Bits Stored, High Bit and Bits Allocated contradict each other")
        )
    slope, intercept = values.get("RescaleSlope", 1.0), values.get("RescaleIntercept", 0.0)
    if values.get("Modality") == "RTDOSE":
        slope, intercept = values.get("DoseGridScaling", 1.0), 0.0
    if values.get("SamplesPerPixel", 1) != 1:  # the modality transformation is one of greyscale (PS3.3 C.11.1)
        slope, intercept, table = 1.0, 0.0, None
    if not all(isinstance(n, (int, float)) and np.isfinite(n) for n in (slope, intercept)):
        raise ScanError(Issue(Code.UnknownPixelFormat, "Rescale Slope or Intercept is not one usable number"))
    signed = values.get("PixelRepresentation", 0) == 1
    lossy = values.get("TransferSyntaxUID") in LOSSY
    return Rescale(float(slope), float(intercept), table, (stored, high, signed), inverted, lossy)


def polarity(values: Values) -> tuple[bool, Issue | None]:
    """Whether bright and dark must be exchanged so that dense is bright, and whether the header contradicts itself.

    MONOCHROME1 shows its lowest value white (PS3.3 C.7.6.3.1.2), and Presentation LUT Shape says the same of DX
    (C.8.11.3.1.2: INVERSE with MONOCHROME1, IDENTITY with MONOCHROME2). Detector values that are FOR PROCESSING say
    it by Pixel Intensity Relationship Sign (C.8.11.3.1.2): 1 where less intensity, so more tissue, gives lower values.
    """
    if values.get("Modality") in QUANTITATIVE or values.get("SamplesPerPixel", 1) != 1:
        return False, None
    first = values.get("PhotometricInterpretation") == "MONOCHROME1"
    shape, sign = values.get("PresentationLUTShape"), values.get("PixelIntensityRelationshipSign")
    if values.get("PresentationIntentType") == "FOR PROCESSING" and sign in (1, -1):
        return sign == 1, None
    conflict = shape in ("IDENTITY", "INVERSE") and (shape == "INVERSE") != first
    return first, Issue(Code.ConflictingPolarity) if conflict and values.get("Modality") in PROJECTIONS else None

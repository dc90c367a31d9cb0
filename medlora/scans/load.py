"""From the files of a DICOM scan to its voxels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian

from medlora.scans.blank import blank_slices
from medlora.scans.codes import Code, Issue
from medlora.scans.decode import MOST_DECODED, MOST_RATIO, Frames
from medlora.scans.file import read_header
from medlora.scans.finite import not_finite
from medlora.scans.geometry import affine as affine_of
from medlora.scans.geometry import check_stack, flat_affine
from medlora.scans.header import Header, Values
from medlora.scans.plain import dataset, holds_something
from medlora.scans.plane import PROJECTIONS, Plane, planes_of
from medlora.scans.scan import ScanError
from medlora.scans.values import Rescale, polarity, rescale_of

if TYPE_CHECKING:
    from pydicom import Dataset

_TWO_DIMENSIONAL, _CENTIMETRES = 1, 3  # Region Spatial Format, Physical Units (PS3.3 C.8.5.5.1)

Voxels = tuple[NDArray[np.float32], NDArray[np.float64], list[Issue], dict]


def load(planes: Sequence[tuple[Path, int]]) -> Voxels:
    """Voxels and affine of the planes, in order.

    Args:
        planes: file and frame; -1 is the whole file, all of whose frames then lie along the third axis.

    Returns:
        the array, the affine, issues that only the pixels show, and further fields of the `Scan`.

    Raises:
        ScanError: the pixels cannot be had, or the files are no longer what the survey saw.
    """
    headers: dict[Path, Header] = {}
    for path, _ in planes:
        if path not in headers:
            headers[path] = _read(path)
    placed = [_plane(headers[path], frame) for path, frame in planes]
    array, stray = _array(placed)
    first = placed[0].values
    inverted, conflict = polarity(first)
    issues = [issue for issue in (conflict,) if issue]
    if stray:
        issues.append(Issue(Code.UnusedBitsSet))
    if first.get("BitsAllocated", 0) >= 32:  # of fewer bits there are no floats
        issues += not_finite(array)
    issues += blank_slices(array, placed)
    if first.get("Modality") == "OPT" and array.shape[2] > 1 and placed[0].position is None and not _thickness(first):
        issues.append(Issue(Code.UnknownSpacing, "between slices"))
    matrix, positions = place(placed, array.shape[2])
    ends = rescale_of(first, _tables(placed[0].header)).ends if inverted else None
    windows = _windows(first, ends) or _window_of_table(placed[0].header, ends)
    if first.get("Modality") in PROJECTIONS and _falls(placed[0].header) and conflict is None:
        issues.append(Issue(Code.ConflictingPolarity, "the VOI LUT falls"))
    extra = {"slice_positions": positions, "windows": windows, "inverted": inverted}
    return array, matrix, issues, extra


def _read(path: Path) -> Header:
    header = read_header(path)
    if header.problem is not None:
        raise ScanError(Issue(Code[header.problem[0]], header.problem[1]))
    return header


def _plane(header: Header, frame: int) -> Plane:
    planes = planes_of(header)
    if (frame < 0) != (not header.frames) or frame >= len(planes):
        raise ScanError(Issue(Code.DamagedHeader, "the file has changed since it was surveyed"))
    return planes[max(frame, 0)]


def _array(planes: list[Plane]) -> tuple[NDArray[np.float32], bool]:
    """The voxels, shape (x, y, z[, channel]), filled slice by slice so that no second copy of the volume exists."""
    volume: NDArray[np.float32] | None = None  # (z, y, x[, channel]): each slice is written in one piece
    stray = False
    where: dict[Path, list[tuple[int, Plane]]] = {}
    for z, plane in enumerate(planes):
        where.setdefault(plane.header.path, []).append((z, plane))
    for path, members in where.items():
        header = members[0][1].header
        try:
            file = path.open("rb")
        except OSError as error:
            raise ScanError(Issue(Code.CannotOpen, error.strerror or "")) from error
        with file, _slice_named(members[0][0], len(where)):
            stored = Frames(header, file)
            table = _tables(header)
            for z, plane in members:
                scale = rescale_of(plane.values, table, polarity(plane.values)[0])
                frames = range(stored.cells.frames) if plane.frame < 0 else (plane.frame,)
                for k in frames:
                    cells = _tile(stored, plane, k)
                    coloured, dirty = _coloured(cells, header, scale)
                    cells = cells if coloured is None else coloured
                    if volume is None:
                        depth = len(planes) if len(frames) == 1 else len(frames)
                        volume = _room((depth, *cells.shape), list(where.values()))
                    if cells.shape != volume.shape[1:]:
                        raise ScanError(Issue(Code.DamagedPixelData, "another size than its neighbours"))
                    out = volume[z if len(frames) == 1 else k]
                    if coloured is None:
                        stray |= scale.apply(cells, out)
                    else:  # the palette's entries are the values
                        out[...] = coloured
                        stray |= dirty
    assert volume is not None
    axes = (2, 1, 0, 3) if volume.ndim == 4 else (2, 1, 0)
    return volume.transpose(axes), stray


def _room(shape: tuple[int, ...], files: list[list[tuple[int, Plane]]]) -> NDArray[np.float32]:
    """Memory for the voxels, refused where many small files together claim more than they can justify."""
    needed = math.prod(shape) * 4
    size = sum(members[0][1].header.size for members in files)
    try:
        if needed <= max(MOST_DECODED, size * MOST_RATIO):
            return np.empty(shape, np.float32)
    except MemoryError:
        pass
    raise ScanError(Issue(Code.TooLarge, f"{needed / 1e9:.1f} GB from files of {size / 1e6:.1f} MB"))


@contextmanager
def _slice_named(z: int, count: int) -> Iterator[None]:
    """What is wrong with the pixels of one file says which slice of the scan it is."""
    try:
        yield
    except ScanError as error:
        if count == 1:
            raise
        detail = f"slice {z + 1} of {count}" + (f": {error.issue.detail}" if error.issue.detail else "")
        raise ScanError(Issue(error.code, detail)) from error


def _tile(stored: Frames, plane: Plane, frame: int) -> np.ndarray:
    """One frame, or one tile of a mosaic."""
    tiles = plane.values.get("MosaicTiles")
    if not tiles:
        return stored[frame]
    mosaic = stored[0]
    rows, columns = mosaic.shape[0] // plane.values["MosaicTilesDown"], mosaic.shape[1] // tiles
    down, across = divmod(frame, tiles)
    return mosaic[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns]


def _tables(header: Header) -> tuple[NDArray[np.float32], int] | None:
    """The modality LUT, where the file has one (PS3.3 C.11.1.1): its entries and the first stored value it maps."""
    if not header.values.get("ModalityLUTSequence"):
        return None
    try:
        item = dataset(header.path).ModalityLUTSequence[0]
        if not any(holds_something(item, word) for word in ("LUTDescriptor", "LUTData")):
            return None  # a template that was never filled in
        count, first, bits = (int(n) for n in item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, bytes):
            order = ">" if header.values["TransferSyntaxUID"] == ExplicitVRBigEndian else "<"
            data = np.frombuffer(data, "u1" if bits == 8 and len(data) <= count + 1 else f"{order}u2")
        entries = np.atleast_1d(np.asarray(data, np.float32))
    except OSError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged element leads to
        raise ScanError(Issue(Code.DamagedHeader, "the modality LUT cannot be read")) from error
    count = count or 1 << 16  # PS3.3 C.11.1.1.1: 0 stands for 65536
    if len(entries) < count:
        raise ScanError(Issue(Code.DamagedHeader, "the modality LUT is shorter than it says"))
    if header.values.get("PixelRepresentation", 0) == 1 and first >= 1 << 15:
        first -= 1 << 16
    return entries[:count], first


def _coloured(cells: np.ndarray, header: Header, scale: Rescale) -> tuple[np.ndarray | None, bool]:
    """RGB from a palette, where the image has one; and whether stray bits of its indices were masked away."""
    if header.values.get("PhotometricInterpretation") != "PALETTE COLOR":
        return None, False
    from pydicom.pixels import apply_color_lut

    try:
        data = dataset(header.path)
        if header.values["TransferSyntaxUID"] == ExplicitVRBigEndian:
            _palette_to_little_endian(data)
        _palette_without_padding(data)
        _check_palette(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            indices, dirty = scale.integers(cells)
            return apply_color_lut(indices, data)[..., :3], dirty
    except ScanError:
        raise
    except Exception as error:
        raise ScanError(Issue(Code.UnknownPixelFormat, "the colour palette cannot be read")) from error


def _palette_to_little_endian(data: Dataset) -> None:
    """Swap the bytes of a palette's words (OW), which follow the transfer syntax (PS3.5 7.3).

    pydicom takes them as little-endian; of segmented palettes it follows the transfer syntax itself.
    """
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTableData"
        if keyword in data:
            data[keyword].value = np.frombuffer(data[keyword].value, ">u2").astype("<u2").tobytes()


def _palette_without_padding(data: Dataset) -> None:
    """Take off the byte that makes an odd number of entries of 8 bits even (PS3.5 7.1.1); pydicom counts it."""
    for colour in ("Red", "Green", "Blue"):
        count, _, bits = data.get(f"{colour}PaletteColorLookupTableDescriptor") or (0, 0, 0)
        keyword = f"{colour}PaletteColorLookupTableData"
        if bits == 8 and keyword in data and len(data[keyword].value) == count + 1:
            data[keyword].value = data[keyword].value[:count]


def _check_palette(data: Dataset) -> None:
    """Refuse a palette that lacks entries of a colour, which pydicom takes for black (PS3.3 C.7.6.3.1.5 and .6)."""
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTableData"
        count, _, bits = data[f"{colour}PaletteColorLookupTableDescriptor"].value
        needed = (count or 1 << 16) * (2 if bits > 8 else 1)
        if not data.get(f"Segmented{keyword}") and len(data.get(keyword) or b"") < needed:
            raise ScanError(Issue(Code.UnknownPixelFormat, f"the colour palette lacks entries of {colour.lower()}"))


def _windows(values: Values, ends: float | None) -> tuple[tuple[float, float], ...]:
    """Window centres and widths in the units of the array (PS3.3 C.11.2.1.2).

    Args:
        values: of the header.
        ends: where bright and dark were exchanged, the sum of a value and of what it became.
    """
    centres, widths = (values.get(word, []) for word in ("WindowCenter", "WindowWidth"))
    centres, widths = (v if isinstance(v, list) else [v] for v in (centres, widths))
    numbers = (int, float)
    pairs = [
        (float(c), float(w))
        for c, w in zip(centres, widths, strict=False)
        if isinstance(c, numbers) and isinstance(w, numbers) and w > 0
    ]
    return tuple((c if ends is None else ends - c, w) for c, w in pairs)


def _window_of_table(header: Header, ends: float | None) -> tuple[tuple[float, float], ...]:
    """The range of values that the VOI LUT maps, as a window, where the file has a table instead (PS3.3 C.11.2.1.1)."""
    if not header.values.get("VOILUTSequence"):
        return ()
    try:
        count, first, _ = (int(n) for n in dataset(header.path).VOILUTSequence[0].LUTDescriptor)
    except OSError:
        raise
    except Exception:  # a proposal for display only: without it the values are no worse
        return ()
    if header.values.get("PixelRepresentation", 0) == 1 and first >= 1 << 15:
        first -= 1 << 16
    width = count or 1 << 16
    centre = first + width / 2
    return ((centre if ends is None else ends - centre, float(width)),)


def _falls(header: Header) -> bool:
    """Whether the file has a VOI LUT that makes high values dark (PS3.3 C.11.2.1.1)."""
    if not header.values.get("VOILUTSequence"):
        return False
    try:
        item = dataset(header.path).VOILUTSequence[0]
        count = int(item.LUTDescriptor[0])
        data = item.LUTData
        if isinstance(data, bytes):
            data = np.frombuffer(data, "<u2" if len(data) >= 2 * (count or 1 << 16) else "u1")
        return bool(data[0] > data[: count or 1 << 16][-1])  # a byte may follow that makes their number even
    except OSError:
        raise
    except Exception:  # a proposal for display only
        return False


def place(planes: list[Plane], depth: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The affine, and the places of slices along the normal where they are not even."""
    values = planes[0].values
    spacing = spacing_of(values) or _spacing_of_regions(planes[0].header) or _unit_spacing(values)
    directions, position = planes[0].directions, planes[0].position
    if any(plane.position is None for plane in planes):
        position = None
    thickness = _thickness(values) or 1.0
    if directions is None or position is None:
        return flat_affine(spacing, thickness), None
    if len(planes) == 1:
        return affine_of(directions, spacing, position, directions[2] * thickness), None
    positions = np.array([plane.position for plane in planes])
    step, issues = check_stack(positions, directions)
    uneven = any(issue.code is Code.NonUniformSpacing for issue in issues)
    along = (positions - positions[0]) @ directions[2]
    return affine_of(directions, spacing, position, step), along if uneven else None


def _thickness(values: Values) -> float:
    """Millimetres from one slice to the next, or of the only one; 0 where they are not said."""
    said = (values.get(word) for word in ("SpacingBetweenSlices", "SliceThickness"))
    # The sign of Spacing Between Slices is that of a stack's direction (PS3.3 C.8.4.15): here there is one slice.
    return next((abs(float(mm)) for mm in said if isinstance(mm, (int, float)) and mm), 0.0)


def spacing_of(values: Values) -> tuple[float, float] | None:
    """Millimetres between rows and between columns; at the detector where the patient's is not known (PS3.3 10.7)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePlanePixelSpacing"):
        pair = values.get(keyword)
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, (int, float)) and n > 0 for n in pair):
            return float(pair[0]), float(pair[1])
    return None


def _spacing_of_regions(header: Header) -> tuple[float, float] | None:
    """Millimetres between rows and columns of an ultrasound image, where all its 2D regions agree (PS3.3 C.8.5.5)."""
    if not header.values.get("SequenceOfUltrasoundRegions"):
        return None
    pairs = set()
    try:
        for region in dataset(header.path).SequenceOfUltrasoundRegions:
            if region.get("RegionSpatialFormat") != _TWO_DIMENSIONAL:
                continue
            if (region.PhysicalUnitsYDirection, region.PhysicalUnitsXDirection) != (_CENTIMETRES, _CENTIMETRES):
                return None
            pairs.add((10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX))))
    except OSError:
        raise
    except Exception:  # a region that does not say it, or whatever a damaged one leads to: the size is not known
        return None
    if len(pairs) != 1:
        return None
    (pair,) = pairs
    return pair if min(pair) > 0 else None


def _unit_spacing(values: Values) -> tuple[float, float]:
    """1 mm, where the file does not say; between rows as much more as Pixel Aspect Ratio says (PS3.3 C.7.6.3.1.7)."""
    ratio = values.get("PixelAspectRatio")
    if isinstance(ratio, list) and len(ratio) == 2 and all(isinstance(n, (int, float)) and n > 0 for n in ratio):
        return float(ratio[0]) / float(ratio[1]), 1.0
    return 1.0, 1.0

"""MetaImage files (.mhd with .raw or .zraw, .mha), as ITK writes them and LUNA16 comes.

The header is lines of ``Key = value``: DimSize in the order x, y, z; ElementSpacing in mm; Offset, the centre of the
first voxel, and TransformMatrix, whose three rows are the directions of the axes x, y and z, both LPS. The voxels
follow in the file, or lie in ElementDataFile. Source: https://itk.org/Wiki/ITK/MetaIO/Documentation.

Why not SimpleITK: it is 264 MB installed, it follows ElementDataFile to wherever that leads, and it takes the memory
that a header asks for; once this has been looked at here, numpy reads what is left. The tests compare with SimpleITK.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.scan import ScanError

_MOST_HEADER = 64 * 1024
_MOST_VOXELS = 1 << 31
_MOST_RATIO = 500
_LEAST_REST, _MOST_REST = 4096, 16 << 20  # bytes, looked at behind the voxels
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*)){5,}")


@dataclass(frozen=True)
class MetaImage:
    """What the header of a MetaImage says.

    Attributes:
        shape: (x, y, z).
        channels: values per voxel.
        dtype: of a value as stored, with its byte order.
        affine: 4 × 4, to RAS+ mm.
        modality: DICOM's, where the header says it, else empty.
        compressed: whether the voxels are a zlib stream.
        data: the file that holds the voxels.
        start: where they begin in it, in bytes; -1: they are its end.
        placed: whether the header says where the image lies.
        sized: whether it says the size of a voxel.
    """

    shape: tuple[int, int, int]
    channels: int
    dtype: np.dtype
    affine: np.ndarray
    modality: str
    compressed: bool
    data: Path
    start: int
    placed: bool
    sized: bool

    @property
    def bytes(self) -> int:
        """How many the voxels take, uncompressed."""
        return int(np.prod([float(n) for n in self.shape])) * self.channels * self.dtype.itemsize


def looks_like_metaimage(start: bytes) -> bool:
    """Whether a file begins as the header of a MetaImage."""
    return re.match(rb"\s*(Comment\s*=[^\n]*\n\s*)*(ObjectType\s*=\s*Image|NDims\s*=\s*\d+)\s*\r?\n", start) is not None


def files_of(path: Path) -> list[Path]:
    """The header, and the file of the voxels where it is another one that can be found."""
    try:
        data = read(path).data
    except (ScanError, OSError):
        return [path]
    return [path] if data == path else [path, data]


def series_uid(path: Path) -> str:
    """The Series Instance UID that a file is named by, as those of LUNA16 are; empty where its name is none."""
    return path.stem if _UID.fullmatch(path.stem) else ""


def read(path: Path) -> MetaImage:
    """The header.

    Raises:
        ScanError: it cannot be read, asks for more than its data can hold, or names data outside of its folder.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER)
    said: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in said:
        line, newline, _ = head[position:].partition(b"\n")
        position += len(line) + 1
        key, equals, value = line.decode("latin-1").partition("=")
        if not newline or not equals:
            raise _damaged("it is no list of keys and values that ends with ElementDataFile")
        said[key.strip()] = value.strip()
    try:
        return _understood(said, path, position)
    except ScanError:  # a ValueError too
        raise
    except KeyError as error:
        raise _damaged(f"it has no {error.args[0]}") from error
    except ValueError as error:  # without its words: they repeat what stands in the file
        raise _damaged("a number in it is none") from error


def _understood(said: dict[str, str], path: Path, position: int) -> MetaImage:
    shape = [int(n) for n in said["DimSize"].split()]
    count = len(shape)
    if count not in (2, 3) or int(said["NDims"]) != count or min(shape) < 1:
        raise _damaged("it is no image of two or three dimensions")
    if said["ElementType"] not in _TYPES or not _true(said.get("BinaryData", "True")):
        raise ScanError(Issue(Code.UnknownPixelFormat, "ElementType is no number, or the voxels are text"))
    swapped = _true(said.get("BinaryDataByteOrderMSB", said.get("ElementByteOrderMSB", "False")))
    spacing = _numbers(said, ("ElementSpacing", "ElementSize"), count, [1.0] * count)
    origin = _numbers(said, ("Offset", "Origin", "Position"), count, [0.0] * count)
    axes = _numbers(said, ("TransformMatrix", "Rotation", "Orientation"), count**2, list(np.eye(count).ravel()))
    directions = np.eye(3)
    directions[:count, :count] = np.reshape(axes, (count, count))  # a row for each axis
    if min(spacing) <= 0 or abs(np.linalg.det(directions)) < 1e-3:
        raise _damaged("its spacing or its directions are none")
    affine = np.eye(4)
    affine[:3, :3] = directions.T * [*spacing, 1.0][:3]
    affine[:count, 3] = origin
    name = said["ElementDataFile"].removeprefix("./")
    data = path if name in ("LOCAL", "Local", "local") else path.parent / name
    outside = data != path and not data.resolve().is_relative_to(path.parent.resolve())
    if data != path and (name == "LIST" or "%" in name or "\\" in name or ".." in Path(name).parts or outside):
        raise ScanError(Issue(Code.LinkLeavesFolder, "ElementDataFile names no file beside or below the header"))
    # MetaIO counts it from the start of the file (or, where it is -1, back from the end) in files of one piece, too
    skipped = int(said.get("HeaderSize", 0)) or (position if data == path else 0)
    if data == path and 0 < skipped < position:
        raise _damaged("its HeaderSize is less than its header is long")
    found = MetaImage(
        (*shape, 1)[:3] if count == 2 else tuple(shape),  # type: ignore[arg-type]
        int(said.get("ElementNumberOfChannels", 1)),
        np.dtype((">" if swapped else "<") + _TYPES[said["ElementType"]]),
        np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine,
        _MODALITIES.get(said.get("Modality", ""), ""),
        _true(said.get("CompressedData", "False")),
        data,
        skipped,
        any(key in said for key in ("Offset", "Origin", "Position")),
        any(key in said for key in ("ElementSpacing", "ElementSize")),
    )
    _fits(found)
    return found


def _true(word: str) -> bool:
    """Whether a flag is set: MetaIO looks at its first character alone."""
    return word[:1] in ("T", "t", "1")


def _fits(image: MetaImage) -> None:
    """Refuse what asks for more memory than its data can justify, before any is taken; and what holds more voxels."""
    if image.data.is_symlink() or not image.data.is_file():
        raise ScanError(Issue(Code.NoPixelData, "the file that ElementDataFile names is not there"))
    there = image.data.stat().st_size - max(image.start, 0)
    most = there * _MOST_RATIO if image.compressed else there
    if not 1 <= image.channels <= 16 or image.bytes // image.dtype.itemsize > _MOST_VOXELS:
        raise ScanError(Issue(Code.TooLarge, f"{image.bytes / 1e9:.1f} GB"))
    if image.bytes > most:
        code = Code.TooLarge if image.compressed else Code.TruncatedPixelData
        raise ScanError(Issue(code, f"{max(there, 0)} of {image.bytes} bytes"))
    if not image.compressed and image.start >= 0:
        with image.data.open("rb") as file:
            file.seek(image.start + image.bytes)
            _check_rest(file.read(max(_slice_of(image), _MOST_REST)), image)


def _slice_of(image: MetaImage) -> int:
    """Bytes of a slice, or a few more where it is small: fewer behind the voxels are some note or padding."""
    return max(image.bytes // image.shape[2], _LEAST_REST)


def _check_rest(rest: bytes, image: MetaImage) -> None:
    """Refuse voxels that the header does not count: a slice or more behind the last one; zeros are none."""
    if len(rest) >= _slice_of(image) and rest.strip(b"\0"):
        raise _damaged("there are voxels of more slices than it says")


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as float32, shape (x, y, z) or (x, y, z, channel); and the affine to RAS+ mm.

    Raises:
        ScanError: the voxels cannot be had.
    """
    image = read(path)
    with image.data.open("rb") as file:
        if image.start >= 0:
            file.seek(image.start)
        else:
            file.seek(-image.bytes, 2)
        data = file.read() if image.compressed else file.read(image.bytes)
    if image.compressed:
        try:
            inflating = zlib.decompressobj(wbits=47)
            data = inflating.decompress(data, image.bytes)
            # The checksum lies behind the last byte.
            rest = inflating.decompress(inflating.unconsumed_tail, max(_slice_of(image), _MOST_REST))
            _check_rest(rest, image)
        except zlib.error as error:
            raise ScanError(Issue(Code.DamagedPixelData)) from error
    if len(data) != image.bytes:
        raise ScanError(Issue(Code.TruncatedPixelData, f"{len(data)} of {image.bytes} bytes"))
    x, y, z = image.shape
    stored = np.frombuffer(data, image.dtype).reshape(z, y, x, image.channels).astype(np.float32)
    array = stored[..., 0] if image.channels == 1 else stored
    return array.transpose(2, 1, 0, *range(3, array.ndim)), image.affine


def _numbers(said: dict[str, str], keys: tuple[str, ...], count: int, otherwise: list[float]) -> list[float]:
    text = next((said[key] for key in keys if key in said), None)
    if text is None:
        return otherwise
    numbers = [float(number) for number in text.split()]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{keys[0]} is not {count} numbers")
    return numbers


def _damaged(why: str) -> ScanError:
    return ScanError(Issue(Code.DamagedHeader, why[:100]))

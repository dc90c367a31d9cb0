"""NIfTI files, through nibabel.

The affine is nibabel's: the sform where its code is above 0 (it may hold a shear), else the qform where its code is,
else none: voxel sizes alone, which is flagged. Metres and micrometres become millimetres, which are also what a file
without units is taken to mean. A fourth and further axis becomes the channel.
"""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import IOBase
from pathlib import Path
from typing import IO

import nibabel
import numpy as np
from nibabel import imageglobals
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder

from medlora.scans.codes import Code, Issue
from medlora.scans.scan import ScanError

_MILLIMETRES = {1: 1000.0, 3: 0.001}  # by the unit's code: metres, micrometres
_LENGTHS_OF_TWO = {540, 0x1C020000}  # the header's own length in NIfTI-2, in either byte order
_CIFTI = range(3000, 3100)  # intent codes (CIFTI-2, table of intents)
_MOST_DECODED = 4 << 30
_MOST_RATIO = 500
_MOST_TRAILING = 64 << 20
_LEAST_REST = 4096  # bytes; fewer behind the voxels are some note or padding
_SPACES = range(6)  # what an sform's code may stand for (nifti1.h, NIFTI_XFORM)


def files_of(path: Path) -> list[Path]:
    """The file, and the image that belongs to it where it is the header of a pair. Links to an image are not followed:
    they may lead anywhere."""
    header = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if header.suffix.lower() == ".hdr":
        for suffix in (".img", ".img.gz", ".IMG"):
            image = header.with_suffix(suffix)
            if image.is_file() and not image.is_symlink():
                return [path, image]
    return [path]


def check(path: Path, size: int) -> tuple[list[Issue], nibabel.nifti1.Nifti1Header]:
    """What the header alone tells.

    Raises:
        ScanError: the header cannot be read, or asks for more than the file can hold.
    """
    try:
        with _open(path) as image:
            header = image.header
            if int(header["intent_code"]) in _CIFTI:
                raise ScanError(Issue(Code.NotAnImage, "CIFTI: values of surfaces and regions, not of voxels"))
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            stored_at = image.dataobj
            assert isinstance(stored_at, ArrayProxy)
            offset = int(stored_at.offset)  # that of the header is cleared when it is read
            sform, no_qform = header.get_sform(coded=True), False
            try:
                qform = header.get_qform(coded=True)
            except ValueError:  # its quaternion is none
                if sform[1] == 0:
                    raise
                qform, no_qform = (None, 0), True
            affine = _affine(image)
    except (ScanError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # nibabel raises classes of its own for each kind of damage
        raise ScanError(Issue(Code.DamagedHeader, type(error).__name__)) from error
    if not shape or min(shape) < 1 or len(shape) > 7:
        raise ScanError(Issue(Code.DamagedHeader, "no voxels"))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ScanError(Issue(Code.DamagedHeader, "the affine has no inverse"))
    if len(files_of(path)) == 1 and offset < int(header["sizeof_hdr"]):
        raise ScanError(Issue(Code.DamagedHeader, f"vox_offset {offset}: the voxels would begin within the header"))
    needed = int(np.prod([float(n) for n in shape])) * dtype.itemsize
    if needed > max(_MOST_DECODED // 16, size * _MOST_RATIO):
        raise ScanError(Issue(Code.TooLarge, f"{needed / 1e9:.1f} GB from a file of {size / 1e6:.1f} MB"))
    stored = files_of(path)[-1]
    if stored.suffix != ".gz" and not _gzipped(stored):
        there = stored.stat().st_size - (offset if stored == path else 0)
        if there < int(np.prod(shape)) * dtype.itemsize:
            raise ScanError(
                Issue(Code.TruncatedPixelData, f"{max(there, 0)} of {int(np.prod(shape)) * dtype.itemsize} bytes")
            )
        with stored.open("rb") as file:
            file.seek(stored.stat().st_size - there + needed)
            _check_rest(file, shape, dtype)
    issues = []
    written = _sform_code(path, header) if sform[1] == 0 else sform[1]
    if no_qform:
        issues.append(Issue(Code.ConflictingGeometry, "the qform is none; the sform was followed"))
    elif written not in _SPACES and qform[1] > 0 and not _agree(header.get_sform(), qform[0], shape):
        issues.append(Issue(Code.ConflictingGeometry, f"the sform's code {written} is none; the qform was followed"))
    elif sform[1] == 0 and qform[1] == 0:
        issues.append(Issue(Code.NoGeometry, "neither sform nor qform"))
    elif sform[1] == 0 and not _sized(path, header):
        issues.append(Issue(Code.UnknownSpacing))
    elif sform[1] > 0 and qform[1] > 0 and sform[1] == qform[1] and not _agree(sform[0], qform[0], shape):
        issues.append(Issue(Code.ConflictingGeometry, "sform and qform of the same code; the sform was followed"))
    elif sform[1] > 0 and qform[1] > 0 and np.linalg.det(sform[0][:3, :3]) * np.linalg.det(qform[0][:3, :3]) < 0:
        # Other codes may mean other spaces (scanner, template), but no space is another's mirror image.
        issues.append(Issue(Code.ConflictingGeometry, "sform and qform are mirrored; the sform was followed"))
    return issues, header


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as float32, shape (x, y, z) or (x, y, z, channel), scaled by scl_slope and scl_inter; and the affine.

    Raises:
        ScanError: the voxels cannot be had.
    """
    try:
        with _open(path) as image:
            kind = image.get_data_dtype()
            if kind.names is not None:  # RGB24 or RGBA32: a channel per colour, the opacity left out
                packed = np.asanyarray(image.dataobj)
                packed = packed.reshape(packed.shape + (1,) * (3 - packed.ndim))
                stored = np.stack([packed[name] for name in "RGB"], axis=-1).astype(np.float32)
            elif kind.kind == "c":
                raise ScanError(Issue(Code.UnknownPixelFormat, "complex numbers"))
            else:
                with np.errstate(over="ignore"):  # the caller looks for infinities
                    stored = image.get_fdata(dtype=np.float32, caching="unchanged")
            affine = _affine(image)
            for name, holder in image.file_map.items():
                if name == "image" and isinstance(holder.fileobj, gzip.GzipFile):
                    _check_rest(holder.fileobj, image.shape, kind)
                _read_to_the_end(holder.fileobj)
    except (ScanError, FileNotFoundError, PermissionError):
        raise
    except gzip.BadGzipFile as error:
        raise ScanError(Issue(Code.DamagedPixelData, "the checksum of the compressed file is another one")) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ScanError(Issue(Code.TruncatedPixelData)) from error
    except Exception as error:
        raise ScanError(Issue(Code.DamagedPixelData, type(error).__name__)) from error
    while stored.ndim < 3:
        stored = stored[..., None]
    if stored.ndim > 3:
        stored = stored.reshape(*stored.shape[:3], -1, order="F")
        if stored.shape[3] == 1:
            stored = stored[..., 0]
    return stored, affine


def _read_to_the_end(file: object) -> None:
    """Where ``file`` is compressed, read what follows the voxels: the checksum is at its end (RFC 1952, 2.3.1).

    Raises:
        gzip.BadGzipFile: the checksum is another one.
        ScanError: far more follows than padding.
    """
    if isinstance(file, gzip.GzipFile):
        for _ in range(_MOST_TRAILING // 65_536):
            if not file.read(65_536):
                return
        raise ScanError(Issue(Code.DamagedPixelData, "far more follows the voxels than padding"))


def _check_rest(file: IO[bytes] | gzip.GzipFile, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse voxels that the header does not count; a few bytes behind those that it does, or zeros, are none.

    Args:
        file: behind the last voxel.
        shape: of the voxels.
        dtype: of one.

    Raises:
        ScanError: a slice or more follows.
    """
    size = max(int(np.prod(shape[:2])) * dtype.itemsize, _LEAST_REST)
    there, empty = 0, True
    while there < _MOST_TRAILING and (rest := file.read(65_536)):
        there += len(rest)
        empty = empty and not rest.strip(b"\0")
        if there >= size and not empty:
            raise ScanError(Issue(Code.DamagedHeader, "voxels of more slices than it says"))


def _sform_code(path: Path, header: nibabel.nifti1.Nifti1Header) -> int:
    """As written; nibabel makes 0 of codes that it does not know."""
    kind, offset = ("i4", 348) if header["sizeof_hdr"] == 540 else ("i2", 254)
    return int(np.frombuffer(_start(path, 540), f"{header.endianness}{kind}", count=1, offset=offset)[0])


def _affine(image: nibabel.Nifti1Image) -> np.ndarray:
    """From voxel index to RAS+ millimetres, whatever unit the header gives."""
    unit = int(image.header["xyzt_units"]) & 0x07
    scale = np.diag([*[_MILLIMETRES.get(unit, 1.0)] * 3, 1.0])
    return scale @ np.asarray(image.affine, float)


@contextmanager
def _open(path: Path) -> Iterator[nibabel.Nifti1Image]:
    """The image, whatever its name, its voxels still in the file.

    Raises:
        ScanError: it is the header of a pair, and the image is not there.
    """
    start = _start(path, 348)
    two = struct.unpack("<i", start[:4])[0] in _LENGTHS_OF_TWO
    files = files_of(path)
    if len(files) < 2 and (start[344:348] == b"ni1\0" or start[4:8] == b"ni2\0"):
        raise ScanError(Issue(Code.NoPixelData, "the .img of the pair is not beside it"))
    paired, single = (nibabel.Nifti2Pair, nibabel.Nifti2Image) if two else (nibabel.Nifti1Pair, nibabel.Nifti1Image)
    with ExitStack() as open_files, _silent():
        held = [FileHolder(fileobj=open_files.enter_context(_reading(file))) for file in files]
        names = ("header", "image") if len(files) == 2 else ("image",)
        yield (paired if len(files) == 2 else single).from_file_map(dict(zip(names, held, strict=True)), mmap=False)


def _reading(path: Path) -> IOBase:
    return gzip.GzipFile(path) if _gzipped(path) else path.open("rb")


@contextmanager
def _silent() -> Iterator[None]:
    """Without what nibabel logs of a header: it is among the issues."""
    level = imageglobals.logger.level
    imageglobals.logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        imageglobals.logger.setLevel(level)


def _sized(path: Path, header: nibabel.nifti1.Nifti1Header) -> bool:
    """Whether the file gives the size of its voxels; nibabel makes 1 mm of what is none."""
    two = header["sizeof_hdr"] == 540
    kind, offset = ("f8", 104) if two else ("f4", 76)
    written = np.frombuffer(_start(path, 540), f"{header.endianness}{kind}", count=8, offset=offset)
    return bool((written[1 : 1 + min(len(header.get_data_shape()), 3)] > 0).all())


def _start(path: Path, count: int) -> bytes:
    """The first bytes of a file, inflated where it is gzipped."""
    with path.open("rb") as file:
        start = file.read(1024)
    return zlib.decompressobj(wbits=31).decompress(start, count) if start.startswith(b"\x1f\x8b") else start[:count]


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _agree(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether two affines put every corner within a tenth of a voxel of the same place."""
    corners = np.array(np.meshgrid(*[[0, max(n - 1, 1)] for n in (*shape, 1, 1, 1)[:3]])).reshape(3, -1)
    apart = np.abs((first - second)[:3, :3] @ corners + (first - second)[:3, 3:])
    return bool(apart.max() < 0.1 * np.linalg.norm(first[:3, :3], axis=0).min() + 1e-3)

"""NIfTI files, through nibabel.

The affine is nibabel's: the sform where its code is above 0 (it may hold a shear), else the qform where its code is,
else
none: voxel sizes alone, which is flagged. A fourth and further axis becomes the channel.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.scan import ScanError

_MOST_DECODED = 4 << 30
_MOST_RATIO = 500


def files_of(path: Path) -> list[Path]:
    """The file, and the image that belongs to it where it is the header of a pair."""
    if path.suffix.lower() == ".hdr":
        for suffix in (".img", ".img.gz", ".IMG"):
            if path.with_suffix(suffix).is_file():
                return [path, path.with_suffix(suffix)]
    return [path]


def check(path: Path, size: int) -> tuple[list[Issue], nibabel.nifti1.Nifti1Header]:
    """What the header alone tells.

    Raises:
        ScanError: the header cannot be read, or asks for more than the file can hold.
    """
    try:
        image = _open(path)
        header = image.header
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        offset = int(header.get_data_offset())
        sform, qform = header.get_sform(coded=True), header.get_qform(coded=True)
    except Exception as error:  # nibabel raises classes of its own for each kind of damage
        raise ScanError(Issue(Code.DamagedHeader, type(error).__name__)) from error
    if not shape or min(shape) < 1 or len(shape) > 7:
        raise ScanError(Issue(Code.DamagedHeader, "no voxels"))
    needed = int(np.prod([float(n) for n in shape])) * max(dtype.itemsize, 4)
    if needed > max(_MOST_DECODED // 16, size * _MOST_RATIO):
        raise ScanError(Issue(Code.TooLarge, f"{needed / 1e9:.1f} GB from a file of {size / 1e6:.1f} MB"))
    stored = files_of(path)[-1]
    if stored.suffix != ".gz" and not _gzipped(stored):
        there = stored.stat().st_size - (offset if stored == path else 0)
        if there < int(np.prod(shape)) * dtype.itemsize:
            raise ScanError(
                Issue(Code.TruncatedPixelData, f"{max(there, 0)} of {int(np.prod(shape)) * dtype.itemsize} bytes")
            )
    issues = []
    if sform[1] == 0 and qform[1] == 0:
        issues.append(Issue(Code.NoGeometry, "neither sform nor qform"))
    elif sform[1] > 0 and qform[1] > 0 and sform[1] == qform[1] and not _agree(sform[0], qform[0], shape):
        issues.append(Issue(Code.ConflictingGeometry, "sform and qform of the same code; the sform was followed"))
    return issues, header


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as float32, shape (x, y, z) or (x, y, z, channel), scaled by scl_slope and scl_inter; and the affine.

    Raises:
        ScanError: the voxels cannot be had.
    """
    try:
        image = _open(path)
        if image.get_data_dtype().names is not None:  # RGB24 or RGBA32: a channel per colour, the opacity left out
            packed = np.asanyarray(image.dataobj)
            stored = np.stack([packed[name] for name in "RGB"], axis=-1).astype(np.float32)
        elif image.get_data_dtype().kind == "c":
            raise ScanError(Issue(Code.UnknownPixelFormat, "complex numbers"))
        else:
            stored = image.get_fdata(dtype=np.float32, caching="unchanged")
    except ScanError:
        raise
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
    return stored, np.asarray(image.affine, float)


def _open(path: Path) -> nibabel.Nifti1Image:
    """The image, whatever its name; memory is not mapped, so that the file may vanish afterwards."""
    if len(files_of(path)) == 2 or path.name.lower().endswith((".nii", ".nii.gz")):
        return nibabel.load(path, mmap=False)  # type: ignore[return-value]
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = zlib.decompressobj(wbits=31).decompress(data, max(_MOST_DECODED // 16, len(data) * _MOST_RATIO))
    kind = (
        nibabel.Nifti2Image
        if data[:2] in (b"\x1c\x02", b"\0\0") and data[4:6] in (b"n+", b"ni")
        else nibabel.Nifti1Image
    )
    return kind.from_bytes(data)


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _agree(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether two affines put every corner within a tenth of a voxel of the same place."""
    corners = np.array(np.meshgrid(*[[0, max(n - 1, 1)] for n in (*shape, 1, 1, 1)[:3]])).reshape(3, -1)
    apart = np.abs((first - second)[:3, :3] @ corners + (first - second)[:3, 3:])
    return bool(apart.max() < 0.1 * np.linalg.norm(first[:3, :3], axis=0).min() + 1e-3)

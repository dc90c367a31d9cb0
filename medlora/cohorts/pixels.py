"""One pass over the pixels of a cohort: what is needed to find duplicates, traps and unreadable scans."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medlora.cohorts.places import Place, is_inside, located
from medlora.cohorts.readings import met, tells

if TYPE_CHECKING:
    from medlora.scans import Scan, ScanFiles

SMALL = 32
THUMBNAIL = 160
MARKED = 20  # places of one scan that get a picture
IN_PROCESS = 32  # with fewer files than this, starting workers takes longer than it saves


@dataclass(frozen=True)
class Looked:
    """What lies at a place.

    Attributes:
        centre: in RAS millimetres.
        inside: whether it is inside the scan.
        picture: a PNG of its slice with the centre marked; empty where it is outside.
        met: on CT the readings of its coordinates under which something lies there (see `readings`), else None.
    """

    centre: tuple[float, float, float]
    inside: bool
    picture: bytes = b""
    met: frozenset[str] | None = None


@dataclass(frozen=True)
class Pixels:
    """What one pass over a scan's pixels left.

    Attributes:
        scan_id: of the scan.
        problem: code and sentence where it cannot be read, else None.
        digest: SHA-256 over shape and values; equal for equal images, whatever the file says beside them.
        shape: of the array, (x, y, z[, channel]).
        small: the middle slice, averaged down to 32 × 32 (rows, columns), scaled to 0..1 between its 1st and 99th
            percentile; None where the slice is smaller or constant.
        thumbnail: a PNG at most 160 pixels wide and high; empty where none was asked for.
        places: what lies at each place that was asked about.
    """

    scan_id: str
    problem: tuple[str, str] | None = None
    digest: str = ""
    shape: tuple[int, ...] = ()
    small: np.ndarray | None = None
    thumbnail: bytes = b""
    places: tuple[Looked, ...] = ()


def read_pixels(
    scans: Sequence[ScanFiles],
    thumbnails: Iterable[str] = (),
    places: Mapping[str, Sequence[Place]] | None = None,
    system: str = "ras",
    workers: int | None = None,
) -> Iterator[Pixels]:
    """Read every scan once, in the order given, in several processes; at most two scans per process are in memory.

    Args:
        scans: what to read.
        thumbnails: scan_ids of those that shall have a thumbnail.
        places: scan_id → places to look up in the scan.
        system: the coordinate system of their centres (`places.SYSTEMS`).
        workers: number of processes; the number of processors, at most 8, where None.
    """
    from joblib import Parallel, delayed

    wanted = set(thumbnails)
    workers = workers or min(os.cpu_count() or 1, 8)
    if sum(len(scan.paths) for scan in scans) < IN_PROCESS:
        workers = 1
    # loky starts clean processes on every system, without running the caller's script again
    yield from Parallel(n_jobs=workers, return_as="generator", pre_dispatch="2*n_jobs", batch_size="auto")(
        delayed(look)(scan, scan.scan_id in wanted, (places or {}).get(scan.scan_id, ()), system) for scan in scans
    )


def look(scan: ScanFiles, thumbnail: bool = False, places: Sequence[Place] = (), system: str = "ras") -> Pixels:
    """Read one scan; what cannot be read has its reason in ``problem``."""
    from medlora.scans import ScanError

    try:
        loaded = scan.load()
    except ScanError as error:
        detail = f" ({error.issue.detail})" if error.issue.detail else ""
        return Pixels(scan.scan_id, (error.code.name, error.code.sentence + detail))
    except OSError as error:
        return Pixels(scan.scan_id, ("CannotOpen", f"The file cannot be read ({error.strerror})"))
    array = loaded.array
    digest = hashlib.sha256(repr(array.shape).encode())
    # z-major order is the order in memory that scans keeps, so that no copy is made
    digest.update(np.ascontiguousarray(array.transpose(range(array.ndim)[::-1])).data)
    plane = middle(array)
    return Pixels(
        scan.scan_id,
        digest=digest.hexdigest(),
        shape=array.shape,
        small=_small(plane),
        thumbnail=png(plane) if thumbnail else b"",
        places=tuple(_look_at(place, system, loaded, i < MARKED and may_show(scan)) for i, place in enumerate(places)),
    )


def may_show(scan: ScanFiles) -> bool:
    """Whether a picture of the scan may stand in a page: not where text is burned in, which may be a name."""
    return str(scan.header.get("BurnedInAnnotation", "")).upper() != "YES"


def _look_at(place: Place, system: str, scan: Scan, picture: bool) -> Looked:
    ras, voxel = located(place.centre, system, scan.affine)
    inside = is_inside(voxel, scan.array.shape)
    image = b""
    if inside and picture:
        slice_number = min(max(round(float(voxel[2])), 0), scan.array.shape[2] - 1)
        image = png(middle(scan.array, slice_number), mark=(float(voxel[0]), float(voxel[1])))
    seen = met(place.centre, system, scan.array, scan.affine) if inside and tells(scan) else None
    return Looked((float(ras[0]), float(ras[1]), float(ras[2])), inside, image, seen)


def middle(array: np.ndarray, index: int | None = None) -> np.ndarray:
    """The middle slice (or that of ``index``) of an (x, y, z[, channel]) array as grey values (row, column)."""
    plane = array[:, :, array.shape[2] // 2 if index is None else index] if array.ndim > 2 else array
    if plane.ndim == 3:
        plane = plane.mean(axis=2)
    return np.nan_to_num(plane.T.astype(np.float32, copy=False), posinf=0, neginf=0)


def scaled(plane: np.ndarray) -> np.ndarray | None:
    """``plane`` in 0..1 between its 1st and 99th percentile, clipped; None where it is constant."""
    low, high = np.percentile(plane, (1, 99))
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    if high <= low:
        return None
    return np.clip((plane - low) / (high - low), 0, 1)


def _small(plane: np.ndarray) -> np.ndarray | None:
    values = scaled(plane)
    if values is None or min(values.shape) < SMALL:
        return None
    rows, columns = (np.linspace(0, n, SMALL + 1).astype(int) for n in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=0), columns[:-1], axis=1)
    return (sums / np.outer(np.diff(rows), np.diff(columns))).astype(np.float32)


def png(plane: np.ndarray, size: int = THUMBNAIL, mark: tuple[float, float] | None = None) -> bytes:
    """A grey (row, column) image as PNG, at most ``size`` pixels wide and high; a ``mark`` (column, row) is circled."""
    from PIL import Image, ImageDraw

    values = scaled(plane)
    grey = np.zeros(plane.shape, np.uint8) if values is None else (values * 255).astype(np.uint8)
    image = Image.fromarray(grey)
    image.thumbnail((size, size), Image.Resampling.BOX)
    if mark is not None:
        image = image.convert("RGB")
        x, y = ((mark[axis] + 0.5) * image.size[axis] / plane.shape[1 - axis] for axis in (0, 1))
        ImageDraw.Draw(image).ellipse((x - 8, y - 8, x + 8, y + 8), outline=(255, 210, 0), width=2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: bytes) -> str:
    """A PNG as the address that an HTML page can hold."""
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")

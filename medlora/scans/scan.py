"""A scan: voxels, where they lie, how they were acquired; and what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlora.errors import MedloraError
from medlora.scans.codes import Code, Issue


class ScanError(MedloraError):
    """A scan that cannot be read; ``code`` says why."""

    def __init__(self, issue: Issue, scan_id: str | None = None) -> None:
        super().__init__(
            f"scan {scan_id or 'without an ID'} cannot be read: {issue}",
            "leave it out, or fetch its files again from where they came",
        )
        self.issue = issue
        self.code: Code = issue.code
        self.scan_id = scan_id

    def __reduce__(self) -> tuple:
        return ScanError, (self.issue, self.scan_id)


@dataclass(frozen=True)
class Excluded:
    """Files that are no scan, or whose scan was refused.

    Args:
        paths: the files; hidden from repr, since names of files may hold identifiers.
        code: why.
        reason: the detail that belongs to the code, never an identifier.
        scan_id: where the files make a scan that was refused.
    """

    paths: tuple[Path, ...] = field(repr=False)
    code: Code
    reason: str = ""
    scan_id: str | None = None

    @property
    def issue(self) -> Issue:
        """The code with its detail; prints as a sentence."""
        return Issue(self.code, self.reason)

    def __str__(self) -> str:
        files = f"{len(self.paths)} file{'s' if len(self.paths) != 1 else ''}"
        return f"{files}: {self.issue}"


_MOST_SLICES = 10_000


@dataclass(eq=False)
class Scan:
    """One volume or image.

    Args:
        array: float32, indexed (x, y, z) or (x, y, z, channel), in the units of the modality: Hounsfield for CT, as
            rescaled for others, bright = dense for radiographs. A flat image has shape (columns, rows, 1). Values of
            padding outside the field of view stay as stored and rescaled.
        affine: 4×4 float64, from voxel index to RAS+ millimetres. Without geometry in the file it holds the spacing
            only.
        header: whitelisted acquisition fields by DICOM keyword, no identifiers; of fields that vary over the slices a
            number is the lower median, a text the most frequent.
        sources: the files; hidden from repr.
        issues: what was found and let pass.
        scan_id: the same wherever the scan is read, and no identifier: the first 16 hex digits of the SHA-256 over
            the sorted SOP Instance UIDs, or over the file's content where there are none.
        modality: DICOM modality; empty where the file does not say.
        slice_positions: where slices are not evenly spaced, their places in mm along the slice normal, first at 0;
            else None.
        inverted: whether bright and dark were exchanged within the stored range, so that dense is bright (MONOCHROME1).
        windows: display windows that the file proposes: (centre, width) in the units of ``array``.
    """

    array: NDArray[np.float32] = field(repr=False)
    affine: NDArray[np.float64] = field(repr=False)
    header: dict[str, Any] = field(default_factory=dict, repr=False)
    sources: tuple[Path, ...] = field(default=(), repr=False)
    issues: tuple[Issue, ...] = ()
    scan_id: str = ""
    modality: str = ""
    slice_positions: NDArray[np.float64] | None = field(default=None, repr=False)
    inverted: bool = False
    windows: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres per voxel along x, y and z of the array."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def to_numpy(self, order: str = "xyz") -> NDArray[np.float32]:
        """The array with its spatial axes in another order, as a view.

        Args:
            order: a permutation of ``"xyz"``; ``"zyx"`` gives slices first and rows before columns, as `imshow` wants.
        """
        if sorted(order) != ["x", "y", "z"]:
            raise MedloraError(f"order {order!r} is no permutation of xyz", 'give "xyz", "zyx" or the like')
        axes = ["xyz".index(axis) for axis in order]
        return self.array.transpose([*axes, *range(3, self.array.ndim)])

    def evenly_spaced(self) -> Scan:
        """The scan with its slices interpolated linearly onto even steps of about the usual distance between them.

        Where slices are missing this makes up what lay between; the issues stay and say so.

        Returns:
            The scan itself where its slices are evenly spaced already.

        Raises:
            MedloraError: the slices do not lie on one straight line, so that no affine fits them.
        """
        if self.slice_positions is None:
            return self
        if any(issue.code is Code.UnalignedSlices for issue in self.issues):
            raise MedloraError(
                f"scan {self.scan_id} cannot be made evenly spaced: {Code.UnalignedSlices.sentence}",
                "leave it out, or use its slices one by one",
            )
        old = self.slice_positions
        gaps = np.sort(np.diff(old))
        count = round((old[-1] - old[0]) / gaps[(len(gaps) - 1) // 2]) + 1
        if count > _MOST_SLICES:
            raise MedloraError(
                f"scan {self.scan_id} cannot be made evenly spaced: it would have {count} slices of {len(old)}",
                "leave it out, or use its slices one by one",
            )
        new = np.linspace(old[0], old[-1], count)
        below = np.clip(np.searchsorted(old, new, side="right") - 1, 0, len(old) - 2)
        weight = ((new - old[below]) / (old[below + 1] - old[below])).astype(np.float32)
        shape = (1, 1, count, 1)[: self.array.ndim]
        weight = weight.reshape(shape)
        array = self.array[:, :, below] * (1 - weight) + self.array[:, :, below + 1] * weight
        affine = self.affine.copy()
        affine[:3, 2] *= (len(old) - 1) / (count - 1)
        return replace(self, array=array, affine=affine, slice_positions=None)

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.shape))
        issues = "".join(f", {issue.code.name}" for issue in self.issues)
        return f"Scan({self.scan_id}, {self.modality or 'unknown modality'}, {size}{issues})"

    def _repr_html_(self) -> str:
        from medlora.scans.display import to_html

        return to_html(self)


class Scans(list[Scan]):
    """The scans of a path; ``excluded`` says what was left out, and why."""

    def __init__(self, scans: list[Scan] | None = None, excluded: list[Excluded] | None = None) -> None:
        super().__init__(scans or [])
        self.excluded: list[Excluded] = excluded or []

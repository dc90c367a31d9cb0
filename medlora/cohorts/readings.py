"""Whether centres lie where something lies, or would if their coordinates were read in another way.

A table in the wrong coordinate system mirrors each centre, most often to a place that is inside of the scan as well. On
chest CT it can be told all the same: at the centre of a nodule is something denser than the lung about it, and at its
mirror image, as a rule, is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medlora.cohorts.places import located

if TYPE_CHECKING:
    from medlora.scans import Scan

DECLARED = "as declared"
_MIRRORED = {
    "mirrored left to right and front to back": (-1, -1, 1),
    "mirrored left to right": (-1, 1, 1),
    "mirrored front to back": (1, -1, 1),
    "with head and feet exchanged": (1, 1, -1),
}
_DENSER, _LUNG = 150, -500  # HU that a nodule is denser than what lies about it; below which that is lung
_FEW = 4  # centres that only another reading meets, below which nothing is said


def _sphere(n: int = 60) -> np.ndarray:
    """Directions spread evenly over the sphere, (n, 3), by the golden angle."""
    z = 1 - (2 * np.arange(n) + 1) / n
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)


_INNER = np.concatenate([np.zeros((1, 3)), 1.5 * _sphere(20)])  # mm about the centre
_SHELLS = np.concatenate([9.0 * _sphere(), 13.0 * _sphere()])


def readings(centre: Iterable[float], system: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A centre as declared, and as it would be if its coordinates were read in other ways; all in ``system``.

    Args:
        centre: in ``system``.
        system: one of `places.SYSTEMS`.
        shape: of the scan's array.
    """
    point = np.asarray(list(centre), float)
    if system != "voxel":
        return {DECLARED: point} | {name: point * signs for name, signs in _MIRRORED.items()}
    last = np.asarray(shape[:3]) - 1
    others = {name: np.where(np.array(signs) < 0, last - point, point) for name, signs in _MIRRORED.items()}
    return {DECLARED: point, **others, "in the order z, y, x": point[::-1]}


def tells(scan: Scan) -> bool:
    """Whether densities about a place mean anything here: in volumes of CT."""
    return scan.modality == "CT" and scan.array.ndim == 3 and min(scan.array.shape) > 1


def met(centre: Iterable[float], system: str, array: np.ndarray, affine: np.ndarray) -> frozenset[str]:
    """Under which readings there is something denser than the lung about it at the centre.

    Args:
        centre: in ``system``.
        system: one of `places.SYSTEMS`.
        array: HU, (x, y, z).
        affine: from voxel indices to RAS millimetres.
    """
    found = readings(centre, system, array.shape)
    return frozenset(
        name for name, point in found.items() if _is_blob(array, affine, located(point, system, affine)[1])
    )


def _is_blob(array: np.ndarray, affine: np.ndarray, voxel: np.ndarray) -> bool:
    inner, about = (_sampled(array, affine, voxel, offsets) for offsets in (_INNER, _SHELLS))
    if len(inner) < len(_INNER) or len(about) < len(_SHELLS) / 2:
        return False
    # A quarter is enough to be lung: most nodules lie at a vessel or at the pleura.
    lung = float(np.percentile(about, 25))
    return lung < _LUNG and float(np.median(inner)) > lung + _DENSER


def _sampled(array: np.ndarray, affine: np.ndarray, voxel: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The voxels nearest to places ``offsets``, (n, 3) mm, about ``voxel``, as far as they are inside."""
    at = np.rint(voxel + np.linalg.solve(affine[:3, :3], offsets.T).T).astype(int)
    at = at[((at >= 0) & (at < array.shape[:3])).all(axis=1)]
    return array[tuple(at.T)]


def count(met_by: Iterable[frozenset[str]]) -> dict[str, Any] | None:
    """What all centres of a cohort say together, as ``cohort.json`` keeps it; None where nothing was looked at.

    Returns:
        ``centres``: how many were looked at; ``declared``: at how many there is something; ``other``, where another
        reading meets more: its name, at how many it does (``met``), and ``p``, the one-sided sign test of the centres
        at which only one of the two does.
    """
    found = list(met_by)
    if not found:
        return None
    result: dict[str, Any] = {"centres": len(found), "declared": sum(DECLARED in names for names in found)}
    others = {name for names in found for name in names} - {DECLARED}
    numbers = {name: sum(name in names for names in found) for name in others}
    if numbers:
        best = max(sorted(numbers), key=lambda name: numbers[name])
        only = sum(best in names and DECLARED not in names for names in found)
        declared = sum(DECLARED in names and best not in names for names in found)
        if only >= _FEW and only > 2 * declared:
            from scipy.stats import binomtest

            p = float(binomtest(only, only + declared, alternative="greater").pvalue)
            result["other"] = {"reading": best, "met": numbers[best], "p": p}
    return result


def sentence(counted: Mapping[str, Any] | None, system: str | None) -> tuple[str, bool] | None:
    """What to say about the centres, and whether it is certain enough to be an error; None where all is well."""
    if not counted or "other" not in counted or counted["other"]["p"] > 0.05:
        return None
    other = counted["other"]
    meant = {"lps": " (that is, as RAS)", "ras": " (that is, as LPS)"}.get(system or "", "")
    meant = meant if other["reading"] == next(iter(_MIRRORED)) else ""
    return (
        f"at {counted['declared']} of {counted['centres']} centres there is something denser than the lung about it, "
        f"but at {other['met']} if the coordinates are read {other['reading']}{meant}; check --coordinates",
        other["p"] < 0.001,
    )

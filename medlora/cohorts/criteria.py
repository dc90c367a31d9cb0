"""What a word of a rule asks of a scan: each function says what is wrong, or None where the scan meets it."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

RADIOGRAPHS = frozenset({"DX", "CR"})
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
FRONTAL, LATERAL = frozenset({"PA", "AP", "AP AXIAL", "PA AXIAL"}), frozenset({"LL", "RL", "LATERAL", "LAT"})

# Kernels as the makers write them. Siemens: letter(s), a number (40 medium, from 50 on sharp), e.g. B30f, Bl57d, Br40.
# Canon/Toshiba: FC and a number (30 to 39 and 80 to 89 bone, 50 to 59 lung; FC01 to FC29 body and brain).
_SIEMENS = re.compile(r"^[BHITUQ][a-z]{0,2}(\d\d)[a-z]?", re.IGNORECASE)
_CANON = re.compile(r"^FC(\d\d)", re.IGNORECASE)
_NAMED = {
    "sharp": {"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "DETAIL", "CHST", "L", "E", "D", "YC", "YD", "YE", "YL"},
    "soft": {"STANDARD", "STND", "SOFT", "SMOOTH", "A", "B", "C", "EB", "EC", "SA", "SB", "UA", "UB"},
}
THICKNESS = re.compile(r"^(<=|>=|)(\d+(?:\.\d+)?)(?:mm)?$")


def _meets_modality(scan: ScanFiles, value: str) -> str | None:
    there, asked = scan.modality.upper(), value.upper()
    if there == asked or {there, asked} <= RADIOGRAPHS:
        return None
    return f"the modality is {there or 'not given'}"


def _meets_plane(scan: ScanFiles, value: str) -> str | None:
    plane = plane_of(scan)
    if not plane:
        return "the orientation is not given" if scan.kind == "dicom" else "a file of its format does not say its plane"
    if is_localizer(scan):
        return "it is a localizer"
    return None if plane == value.casefold() else f"the plane is {plane}"


def _meets_view(scan: ScanFiles, value: str) -> str | None:
    position, asked = str(scan.header.get("ViewPosition", "")).upper(), value.upper()
    if asked not in ("FRONTAL", "LATERAL"):
        return None if position == asked else f"the view is {position or 'not given'}"
    seen = seen_from(scan)
    if asked == "FRONTAL":
        return None if seen == "frontal" or not (seen or position) else f"the view is {position or 'lateral'}"
    return None if seen == "lateral" else f"the view is {position or seen or 'not given'}"


def _meets_side(scan: ScanFiles, value: str) -> str | None:
    side = side_of(scan)
    return None if side == value.upper() else f"the side is {side or 'not given'}"


def _meets_kernel(scan: ScanFiles, value: str) -> str | None:
    written = "\\".join(map(str, listed(scan.header.get("ConvolutionKernel"))))
    if value.casefold() not in ("sharp", "soft"):
        same = written.casefold() == value.casefold() or value.casefold() in written.casefold().split("\\")
        return None if same else f"the kernel is {written or 'not given'}"
    kind = kernel_kind(written)
    if kind is None:
        return f"the kernel {written} is not known as sharp or soft" if written else "the kernel is not given"
    return None if kind == value.casefold() else f"the kernel {written} is {kind}"


def _meets_thickness(scan: ScanFiles, value: str) -> str | None:
    if value.casefold() in ("thin", "thick"):
        return None
    match = THICKNESS.match(value)
    thickness = length_of(scan.header.get("SliceThickness"))
    if match is None or not np.isfinite(thickness):
        return "the slice thickness is not given"
    limit = float(match.group(2))
    met = {
        "<=": thickness <= limit * 1.001,
        ">=": thickness >= limit * 0.999,
        "": abs(thickness - limit) <= 0.05 * limit,
    }
    return None if met[match.group(1)] else f"the slices are {thickness:g} mm thick"


def _meets_contrast(scan: ScanFiles, value: str) -> str | None:
    if scan.kind != "dicom":
        return "a file of its format does not say whether there was contrast"
    there = scan.header.get("ContrastBolusAgent") == "YES"
    if there == (value.casefold() == "yes"):
        return None
    return "a contrast agent is named" if there else "no contrast agent is named"


def _meets_file(scan: ScanFiles, value: str) -> str | None:
    met = PurePath(str(scan.paths[0]).casefold()).match(value.casefold())
    return None if met else "the file is called otherwise"


def meets_field(scan: ScanFiles, value: str, name: str) -> str | None:
    """As the others, of the header field ``name``: whether it has the value, or one of several is it."""
    found = [str(item) for item in listed(scan.header.get(name))]
    if value.casefold() in {item.casefold() for item in found}:
        return None
    return f"{name} is " + ("\\".join(found) or "not given")


MEETS = {
    "modality": _meets_modality,
    "plane": _meets_plane,
    "view": _meets_view,
    "side": _meets_side,
    "kernel": _meets_kernel,
    "thickness": _meets_thickness,
    "contrast": _meets_contrast,
    "file": _meets_file,
}


def kernel_kind(kernel: str) -> str | None:
    """``sharp`` or ``soft``, by what the makers' names mean; None where that is not known."""
    first = kernel.partition("\\")[0].strip()
    for kind, names in _NAMED.items():
        if first.upper() in names:
            return kind
    if match := _CANON.match(first):
        number = int(match.group(1))
        return "sharp" if 30 <= number <= 39 or 50 <= number <= 59 or 80 <= number <= 89 else "soft"
    if match := _SIEMENS.match(first):
        return "sharp" if int(match.group(1)) >= 50 else "soft"
    return None


def plane_of(scan: ScanFiles) -> str:
    """``axial``, ``coronal``, ``sagittal``, or ``oblique`` where it is more than 30° off all; empty if not known."""
    normal = _normal(scan)
    if normal is None:
        return ""
    plane = max(PLANES, key=lambda name: abs(normal[PLANES[name]]))
    return plane if abs(normal[PLANES[plane]]) >= np.cos(np.radians(30)) else "oblique"


def _normal(scan: ScanFiles) -> np.ndarray | None:
    """Direction of the slice normal (patient's left, posterior, head), from a slice in the middle."""
    if scan.kind != "dicom":
        return None
    from medlora.scans import read_header
    from medlora.scans.series import planes_of

    middle = scan.planes[len(scan.planes) // 2] if scan.planes else (len(scan.paths) // 2, -1)
    header = read_header(scan.paths[middle[0]])
    if header.problem is not None:
        return None
    planes = planes_of(header)  # those of other scans may be in the file, too
    directions = next((plane for plane in planes if plane.frame == middle[1]), planes[0]).directions
    return None if directions is None else np.asarray(directions[2])


def seen_from(scan: ScanFiles) -> str:
    """``frontal`` or ``lateral``, by View Position, or else by Patient Orientation; empty where neither says it."""
    position = str(scan.header.get("ViewPosition", "")).upper()
    if position:
        return "lateral" if position in LATERAL else "frontal" if position in FRONTAL else ""
    # The first value is the direction in which a row runs (PS3.3 C.7.6.1.1.1)
    rows = str((listed(scan.header.get("PatientOrientation")) or [""])[0])[:1].upper()
    return "lateral" if rows in ("A", "P") else "frontal" if rows in ("L", "R") else ""


def is_localizer(scan: ScanFiles) -> bool:
    """Whether it is a scout, by Image Type."""
    return "LOCALIZER" in listed(scan.header.get("ImageType"))


def side_of(scan: ScanFiles) -> str:
    """L or R; empty where neither is said, or both are."""
    side = str(scan.header.get("ImageLaterality") or scan.header.get("Laterality") or "").upper()
    return side if side in ("L", "R") else ""


def length_of(value: Any) -> float:
    """Infinite where it is not known: absent, or 0, which some software writes for that."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else np.inf


def listed(value: Any) -> list[Any]:
    """The values of a header field that may have one, several or none."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]

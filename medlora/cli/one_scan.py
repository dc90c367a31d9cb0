"""One scan, and a place in it, as the command line names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import Scan
    from medlora.transforms import Centre

ScanPath = Annotated[Path, typer.Argument(metavar="SCAN", help="File or folder that holds one scan.")]
ScanId = Annotated[
    str | None, typer.Option("--scan", help="The scan_id of the one that is meant, where there are several.")
]
CentreOption = Annotated[
    tuple[float, float, float] | None,
    typer.Option("--centre", metavar="X Y Z", help="Centre of a place, for presets that read places."),
]
Coordinates = Annotated[
    str | None, typer.Option("--coordinates", help="Coordinate system of the centre: lps, ras or voxel.")
]

_NAMED = 8  # scans that a message lists


def one_scan(path: Path, scan_id: str | None, modality: str | None = None) -> Scan:
    """The one scan in ``path``, or that of ``scan_id`` among several; of ``modality``, where its file says none.

    Raises:
        MedloraError: there is none, there are several and none is named, or the one cannot be read.
    """
    from medlora import scans
    from medlora.cohorts.modality import with_modality

    if not path.exists():
        raise MedloraError(f"there is no {path}", "check the path")
    survey = scans.survey(path)
    found = [item for item in survey.scans if scan_id in (None, item.scan_id)]
    if len(found) == 1:
        return with_modality(found[0], modality).load()
    if not survey.scans:
        scans.read(path)  # raises, and says why
    listed = ", ".join(
        f"{item.scan_id} ({item.header.get('Modality') or 'unknown modality'}, "
        f"{len(item.paths)} file{'s' if len(item.paths) > 1 else ''})"
        for item in survey.scans[:_NAMED]
    ) + (" …" if len(survey.scans) > _NAMED else "")
    if scan_id is not None:
        raise MedloraError(f"no scan {scan_id} in {path}", f"there are: {listed}")
    raise MedloraError(f"{path} holds {len(found)} scans", f"name one with --scan SCAN_ID, of: {listed}")


def centre_in(
    scan: Scan, centre: tuple[float, float, float] | None, coordinates: str | None, places: bool = False
) -> Centre | None:
    """The centre in RAS+ millimetres; none where none is given.

    Raises:
        MedloraError: the system of the coordinates is not said, or not known, or there is no centre for it, or none
            where ``places`` are read.
    """
    from medlora.cohorts.places import SYSTEMS, located

    if centre is None and places:
        raise MedloraError(
            "what is asked for is made for places in scans (nodules), and no place is given",
            "add --centre X Y Z, and --coordinates lps, ras or voxel",
        )
    if centre is None:
        if coordinates is not None:
            raise MedloraError("--coordinates is given without a centre", "add --centre X Y Z")
        return None
    if coordinates is None:
        raise MedloraError(
            "nothing says in which coordinate system the centre is; a wrong guess would mirror it to the other side",
            "declare it: --coordinates lps (DICOM, ITK, LUNA16), ras (NIfTI) or voxel (indices, from 0)",
        )
    if coordinates.casefold() not in SYSTEMS:
        raise MedloraError(f"--coordinates {coordinates!r} is not known", f"use one of {', '.join(SYSTEMS)}")
    x, y, z = located(centre, coordinates.casefold(), scan.affine)[0]
    return float(x), float(y), float(z)

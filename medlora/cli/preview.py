"""``medlora preview``: every step of a preparation as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medlora.cli.one_scan import CentreOption, Coordinates, ScanId, ScanPath
from medlora.cli.options import RESEARCH_USE_ONLY, Debug, Json, Modality, Overwrite, show

_CHANNELS = 3  # of the backbone that is thought of


def preview(
    scan: ScanPath,
    preset: Annotated[
        str | None, typer.Option("--preset", help="The preparation; none: the one for the scan's modality.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("preview"),
    size: Annotated[int, typer.Option("--size", min=32, max=2048, help="Side of the prepared image, pixels.")] = 224,
    views: Annotated[int, typer.Option("--views", min=0, max=32, help="Random augmentations to show.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the augmentations.")] = 0,
    centre: CentreOption = None,
    coordinates: Coordinates = None,
    scan_id: ScanId = None,
    modality: Modality = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what becomes of a scan: as read, after each step of its preparation, and randomly augmented."""
    from medlora import files, transforms
    from medlora.cli.one_scan import centre_in, one_scan
    from medlora.errors import MedloraError
    from medlora.transforms.preview import page, sheet, shown

    if not overwrite:
        files.refuse_existing(output, "the preview")
    if preset is not None and preset not in transforms.PRESETS:
        raise MedloraError(f"unknown preset {preset!r}", f"choose one of: {', '.join(transforms.PRESETS)}")
    read = one_scan(scan, scan_id, modality)
    named = transforms.PRESETS[preset] if preset else None
    place = centre_in(read, centre, coordinates, named is not None and named.places)
    kind = named or transforms.preset_for({read.modality}, place is not None)
    half = (0.5,) * _CHANNELS
    made = kind(size=size, mean=half, std=half)
    steps = list(shown(made, read, place, views, seed))
    values = {"preset": made.name, "size": size, "scan_id": read.scan_id, "steps": [step.describe() for step in steps]}
    with files.new_folder(output, "the preview", overwrite) as folder:
        files.write_text(folder / "preview.html", page(steps, made, read))
        with files.writing(folder / "preview.png") as partial:
            partial.write_bytes(sheet(steps))
        files.write_json(folder / "preview.json", values)
    lines = [f"{made.name}: {len(steps) - views} steps, {views} augmentations"]
    lines += [f"  {step.name}: {' × '.join(map(str, step.shape))}, {step.span}" for step in steps]
    lines += [f"Pictures: {output / 'preview.html'}, {output / 'preview.png'}", RESEARCH_USE_ONLY]
    lines += ["", "Next: medlora check FOLDER --labels CSV"]
    show(lines, {"output": output, "page": output / "preview.html", **values}, as_json)

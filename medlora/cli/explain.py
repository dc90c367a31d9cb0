"""``medlora explain``: where the model looked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medlora.cli.one_scan import CentreOption, Coordinates, ScanId, ScanPath
from medlora.cli.options import RESEARCH_USE_ONLY, Debug, Device, Json, Modality, Overwrite, Weights, show


def explain(
    adapter: Annotated[Path, typer.Argument(help="Folder of an adapter, or of the run that holds it.")],
    scan: ScanPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("explanation"),
    target: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="The class or finding to explain; none: of two classes the positive one, else the most probable.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="auto, gradcam, gradcam++, tokens (for transformers) or occlusion.")
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the weights drawn anew in the sanity check.")] = 0,
    centre: CentreOption = None,
    coordinates: Coordinates = None,
    scan_id: ScanId = None,
    modality: Modality = None,
    weights: Weights = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Map where the model looked in a scan, and check that the map depends on what was trained."""
    from medlora import files
    from medlora.cli.one_scan import centre_in, one_scan
    from medlora.training import Predictor
    from medlora.training.explaining import SIMILAR
    from medlora.training.overlays import NOTICE, draw

    if not overwrite:
        files.refuse_existing(output, "the explanation")
    model = Predictor.load(adapter, weights, device)
    read = one_scan(scan, scan_id, modality)
    place = centre_in(read, centre, coordinates, model.preset.places)
    found = model.explain(read, place, target, None if method == "auto" else method, seed)
    values = {"scan_id": read.scan_id, **found.describe(), "notice": NOTICE}
    with files.new_folder(output, "the explanation", overwrite) as folder:
        pictures = [path.name for path in draw(found, model.preset.channel_names, folder)]
        values["pictures"] = pictures
        files.write_json(folder / "explain.json", values)
    lines = [
        f"{found.target}: probability {found.probability:.3f}; answer at the operating point: {found.predicted}",
        f"Method: {found.method}" + (f", at {found.layer}" if found.layer else ""),
    ]
    lines += [
        f"  weights of {check.stage} drawn anew: rank correlation {check.similarity:.2f} "
        f"({'changes with them' if check.similarity < SIMILAR else 'hardly changes with them'}; limit {SIMILAR})"
        for check in found.checks
    ]
    lines += [f"Warning: {sentence}" for sentence in found.warnings]
    lines += [f"Pictures: {', '.join(str(output / name) for name in pictures)}", RESEARCH_USE_ONLY]
    lines += ["", "Next: look at several scans, right and wrong answers alike, before believing a map"]
    show(lines, {"output": output, **values}, as_json)

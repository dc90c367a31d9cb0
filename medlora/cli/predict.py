"""``medlora predict``: new scans to answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medlora.cli.options import RESEARCH_USE_ONLY, Debug, Device, Json, Modality, Overwrite, Weights, quoted, show


def predict(
    adapter: Annotated[Path, typer.Argument(help="Folder of an adapter, or of the run that holds it.")],
    paths: Annotated[list[Path], typer.Argument(help="Files or folders with scans.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The CSV to write.")] = Path("predictions.csv"),
    cases: Annotated[
        Path | None,
        typer.Option("--cases", help="CSV of places (scan, x, y, z) to be answered for."),
    ] = None,
    coordinates: Annotated[
        str | None, typer.Option("--coordinates", help="Coordinate system of the places: lps, ras or voxel.")
    ] = None,
    modality: Modality = None,
    linkage: Annotated[
        Path | None,
        typer.Option("--linkage", help="Also write which files each row is of. Their names may identify patients."),
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Answer for each scan, or each place in one; what cannot be answered is a row with its reason."""
    from medlora import files
    from medlora.training import Predictor

    for path in filter(None, (output, linkage)):
        if not overwrite:
            files.refuse_existing(path, "the predictions")
    answers = Predictor.load(adapter, weights, device).predict(list(paths), cases, coordinates, modality)
    files.write_text(output, answers.table.to_csv(index=False, lineterminator="\n"))
    if linkage is not None:
        files.write_text(linkage, answers.linkage().to_csv(index=False, lineterminator="\n"))
    table = answers.table
    counts = answers.counts()
    truth = "column y" if "y" in table else "the columns y_FINDING with 1 or 0"
    unanswered = table.loc[table["reason"] != "", "reason"].value_counts()
    values = {
        "predictions": output,
        "linkage": linkage,
        "answered": answers.answered,
        "unanswered": int(unanswered.sum()),
        "predicted": counts,
        "warnings": list(answers.warnings),
    }
    lines = [f"Warning: {warning}" for warning in answers.warnings]
    lines += [
        f"{answers.answered} of {len(table)} rows answered: " + ", ".join(f"{n} {name}" for name, n in counts.items())
    ]
    lines += [f"  not answered: {n} × {reason}" for reason, n in unanswered.head(10).items()]
    lines += [f"Predictions: {output}"]
    if linkage is None:
        lines += ["Rows carry a scan_id and no file name; --linkage FILE also writes which files they are of."]
    lines += [RESEARCH_USE_ONLY]
    if answers.answered:
        lines += [
            "",
            f"Next, once the true labels are known: fill {truth}, and medlora evaluate {quoted(output)} -o DIR",
        ]
    show(lines, values, as_json)
    return 0 if answers.answered else 3

"""``medlora check``: an archive and its labels to a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medlora.cli.options import Debug, Json, Modality, Overwrite, given_path, quoted, show


def check(
    archive: Annotated[
        Path,
        typer.Argument(parser=given_path, help="Folder of scans, as it comes from the hospital."),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="<path>",
            parser=given_path,
            help="CSV with a label for each scan or place; or a file or folder of LUNA16, LIDC-IDRI, 3D Slicer, "
            "DICOM SEG, RTSTRUCT or COCO annotations.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The cohort folder to make.")] = Path("cohort"),
    key: Annotated[
        str | None,
        typer.Option("--key", help="How rows find scans: file, series, study, accession, patient, or a column."),
    ] = None,
    patient_column: Annotated[
        str | None,
        typer.Option("--patient-column", help="Column of the patients, whose scans are kept in one split."),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            "--label-column",
            help="Column of the labels; or, separated by commas, those of findings: 1, 0, -1 uncertain, empty unknown.",
        ),
    ] = None,
    uncertain: Annotated[
        str | None,
        typer.Option(
            "--uncertain", help="Findings: what -1 is taken as: unknown (the default: masked), absent or present."
        ),
    ] = None,
    site: Annotated[
        str | None, typer.Option("--site", help="Column of the sites, or =NAME for one site of that name.")
    ] = None,
    split_seed: Annotated[int, typer.Option("--split-seed", help="Seed of the splits.")] = 0,
    split_column: Annotated[
        str | None, typer.Option("--split-column", help="Column with train, tune or test, instead of drawn splits.")
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            help="Rule that picks one scan of each study, e.g. 'plane=axial kernel=sharp thickness=thin', 'view=PA', "
            "'file=*_T1w.nii.gz'.",
        ),
    ] = None,
    coordinates: Annotated[
        str | None, typer.Option("--coordinates", help="Where labels give places (x, y, z): lps, ras or voxel.")
    ] = None,
    modality: Modality = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Look through an archive, join labels, split by patient, and say what is wrong with it."""
    from medlora.cohorts import Cohort
    from medlora.cohorts.folder import may_write, refuse_another
    from medlora.cohorts.labelling import labelling
    from medlora.cohorts.splits import SPLITS
    from medlora.progress import say

    may_write(output, overwrite, [archive, *([labels] if labels is not None else [])])
    if not overwrite:
        refuse_another(output, archive, labels)
    say(f"the cohort will be written to {output}")
    cohort = Cohort.from_archive(
        archive,
        labels,
        key=key,
        patient_column=patient_column,
        label_column=label_column,
        uncertain=uncertain,
        site=site,
        split_seed=split_seed,
        split_column=split_column,
        select=select,
        coordinates=coordinates,
        modality=modality,
        update=output if output.is_dir() else None,
    )
    cohort.save(output, overwrite=overwrite)
    excluded = {str(code): int(n) for code, n in cohort.excluded.groupby("code").size().items()}
    splits = {
        str(split): {label: len(part) for label, part in labelling(rows).groups()}
        for split in SPLITS
        if len(rows := cohort.table[cohort.table["split"] == split])
    }
    values = {
        "cohort": output,
        "cases": len(cohort),
        "patients": int(cohort.table["patient"].nunique()),
        "splits": splits,
        **({"findings": cohort.info["findings"]} if cohort.info.get("findings") else {}),
        "excluded": excluded,
        "warnings": cohort.warnings,
        "errors": cohort.errors,
        "report": output / "check.html",
    }
    lines = [repr(cohort)]
    for split in splits:
        counts = labelling(cohort.table[cohort.table["split"] == split]).counts()
        lines.append(
            f"  {split}: " + ", ".join(f"{n}{' ×' if label[:1].isdigit() else ''} {label}" for n, label in counts)
        )
    column = cohort.info["asked"]["label_column"] if labels is not None else None
    if isinstance(column, str):
        lines.append(f"  labels: column {column!r}")
    lines += [f"  left out: {n} × {code}" for code, n in excluded.items()]
    lines += [f"Warning: {warning}" for warning in cohort.warnings]
    lines += [f"Error: {error}" for error in cohort.errors]
    lines += [f"Report: {output / 'check.html'}"]
    if splits and not cohort.errors:
        lines += ["", f"Next: medlora train {quoted(output)} -o run"]
    elif labels is None:
        lines += ["", "Next: the same with --labels CSV, to train on it"]
    show(lines, values, as_json)
    return 3 if cohort.errors else 0

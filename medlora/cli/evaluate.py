"""``medlora evaluate``: a run, an adapter on another cohort, or anybody's predictions, to figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlora.cli.options import Debug, Device, Json, Overwrite, Weights, quoted, show
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.evaluation import Evaluation


def evaluate(
    targets: Annotated[
        list[Path], typer.Argument(metavar="TARGET…", help="A run, an adapter with --cohort, or predictions CSVs.")
    ],
    cohort: Annotated[
        Path | None, typer.Option("--cohort", help="Judge the adapter on the labelled cases of this cohort.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="test (the default for a run), tune or train; with --cohort else all.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to make; for a run it is RUN/evaluation/SPLIT.")
    ] = None,
    positive: Annotated[str | None, typer.Option("--positive", help="CSV: the positive class of two.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="CSV: probability from which the positive class is answered.")
    ] = None,
    label_column: Annotated[str | None, typer.Option("--label-column", help="CSV: column of the true labels.")] = None,
    score_column: Annotated[str | None, typer.Option("--score-column", help="CSV: column of the scores.")] = None,
    prevalence: Annotated[
        float | None, typer.Option("--prevalence", help="CSV: also give PPV and NPV at this prevalence.")
    ] = None,
    min_specificity: Annotated[
        float | None,
        typer.Option("--min-specificity", help="CSV: also give the partial AUC between this specificity and 1."),
    ] = None,
    subgroups: Annotated[
        list[str] | None,
        typer.Option("--subgroup", help="CSV: divide by this column (again for more); else by those of a known name."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Several CSVs: how much lower an AUC may be and still count as not inferior."),
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a run, an adapter on another cohort, or anybody's predictions."""
    tables = all(target.suffix.lower() == ".csv" or target.is_file() for target in targets)
    columns: dict[str, Any] = {"label_column": label_column, "score_column": score_column}
    common: dict[str, Any] = {"--positive": positive, "--threshold": threshold}
    common |= {"--label-column": label_column, "--score-column": score_column}
    alone: dict[str, Any] = {"--prevalence": prevalence, "--min-specificity": min_specificity, "--subgroup": subgroups}
    if tables:
        _refuse({"--cohort": cohort, "--split": split}, "a run or an adapter")
    else:
        _refuse(common | alone, "predictions CSVs")
    if tables and len(targets) > 1:
        _refuse(alone, "one predictions CSV")
        options: dict[str, Any] = {"positive": positive, "thresholds": threshold, "margin": margin}
        _several(targets, output, options | columns, overwrite, as_json)
        return
    _refuse({"--margin": margin}, "several predictions CSVs")
    if tables:
        options = {"positive": positive, "threshold": threshold, "prevalence": prevalence}
        options |= {"min_specificity": min_specificity, "columns": subgroups or None}
        judged, folder = _predictions(targets[0], output, options | columns, overwrite)
    elif len(targets) > 1:
        raise MedloraError("several targets are given, and not all are predictions CSVs", "name one run or adapter")
    elif cohort is not None:
        judged, folder = _adapter(targets[0], cohort, split, output, weights, device, overwrite)
    else:
        judged, folder = _run(targets[0], split or "test", output, weights, device, overwrite)
    values = {"evaluation": folder, "report": folder / "report.html", **judged.to_dict()}
    lines = [str(judged), f"Report: {folder / 'report.html'}"]
    if cohort is None and not tables:
        lines += ["", f"Next: medlora predict {quoted(targets[0])} NEW_SCANS -o predictions.csv"]
    show(lines, values, as_json)


def _predictions(
    target: Path, output: Path | None, options: dict[str, Any], overwrite: bool
) -> tuple[Evaluation, Path]:
    from medlora import evaluation

    folder = _named(output, overwrite)
    judged = evaluation.evaluate(target, **options)
    judged.write(folder, overwrite=overwrite)
    return judged, folder


def _refuse(options: dict[str, Any], what: str) -> None:
    """An option that would have no effect is an error, never silently dropped."""
    for name, value in options.items():
        if value not in (None, []):
            raise MedloraError(f"{name} is for {what}", "leave it out")


def _several(targets: list[Path], output: Path | None, options: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    """Compare the predictions of several models on the same cases."""
    from medlora import evaluation

    folder = _named(output, overwrite)
    comparison = evaluation.compare(targets, **options)
    comparison.write(folder, overwrite=overwrite)
    values = {"evaluation": folder, "report": folder / "comparison.html", **comparison.to_dict()}
    show([str(comparison), f"Report: {folder / 'comparison.html'}"], values, as_json)


def _named(output: Path | None, overwrite: bool) -> Path:
    from medlora import files

    if output is None:
        raise MedloraError("no output folder is named", "add -o DIR")
    if not overwrite:
        files.refuse_existing(output, "the evaluation")
    return output


def _adapter(
    target: Path,
    cohort: Path,
    split: str | None,
    output: Path | None,
    weights: str | None,
    device: str,
    overwrite: bool,
) -> tuple[Evaluation, Path]:
    folder = _named(output, overwrite)
    from medlora.cohorts import Cohort
    from medlora.progress import say
    from medlora.training import evaluate_adapter

    say(f"the evaluation is written to {folder}")
    judged = evaluate_adapter(
        target, Cohort.load(cohort), folder, split=split, weights=weights, device=device, overwrite=overwrite
    )
    return judged, folder


def _run(
    target: Path, split: str, output: Path | None, weights: str | None, device: str, overwrite: bool
) -> tuple[Evaluation, Path]:
    if output is not None:
        raise MedloraError("the evaluation of a run is kept in the run", "leave -o/--output out")
    if not (target / "STATUS").is_file():
        kind = "an adapter" if (target / "medlora.json").is_file() else "no run"
        raise MedloraError(
            f"{target} is {kind}" if target.exists() else f"there is no {target}",
            "give a run folder, or an adapter with --cohort COHORT -o DIR, or a predictions CSV",
        )
    from medlora.progress import say
    from medlora.training import Run

    folder = target / "evaluation" / split
    say(f"the evaluation is written to {folder}")
    return Run.load(target).evaluate(split, weights=weights, device=device, overwrite=overwrite), folder

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
    weights: Weights = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a run, an adapter on another cohort, or anybody's predictions."""
    tables = all(target.suffix.lower() == ".csv" or target.is_file() for target in targets)
    if tables and len(targets) > 1:
        _several(targets, output, positive, overwrite, as_json)
        return
    if tables:
        options = {"positive": positive, "threshold": threshold, "prevalence": prevalence}
        columns = {"label_column": label_column, "score_column": score_column}
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


def _several(targets: list[Path], output: Path | None, positive: str | None, overwrite: bool, as_json: bool) -> None:
    """Compare the predictions of several models on the same cases."""
    from medlora import evaluation

    folder = _named(output, overwrite)
    comparison = evaluation.compare(targets, positive=positive)
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

"""``medlora compare``: several methods on the same cases, and whether LoRA suits them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from medlora.cli.options import RESEARCH_USE_ONLY, Debug, Json, Weights, show


def compare(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder, as medlora check made it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make.")],
    methods: Annotated[
        str, typer.Option("--methods", help="Methods to compare, separated by commas.")
    ] = "lora,dora,ssf,bitfit,probe,full",
    seeds: Annotated[int, typer.Option("--seeds", help="How many seeds, from 0 on.")] = 3,
    folds: Annotated[
        int | None, typer.Option("--folds", help="Patient-disjoint folds over all cases; else the cohort's own splits.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="A timm model; else the embedded one.")] = None,
    weights: Weights = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training cases.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, for all methods: block.key=value. May be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the runs that are there already.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare methods on the same cases with the same budget, and advise whether LoRA suits them."""
    from medlora.cohorts import Cohort
    from medlora.training.config import parse_setting

    named: dict[str, Any] = {
        "model.backbone": backbone,
        "model.weights": weights,
        "train.epochs": epochs,
        **dict(parse_setting(text) for text in settings or ()),
    }
    loaded = Cohort.load(cohort)  # a wrong path is said before all that trains is imported
    from medlora.training.comparing import compare_methods

    words = [word.strip() for word in methods.split(",") if word.strip()]
    chosen = {name: value for name, value in named.items() if value is not None}
    result = compare_methods(loaded, output, words, seeds, folds, chosen, resume)
    values = {
        "comparison": result.folder,
        "table": result.folder / "compare.csv",
        "page": result.folder / "compare.html",
        "methods": [dataclasses.asdict(row) for row in result.rows],
        "advice": result.advice,
    }
    lines = [str(result), f"Page: {result.folder / 'compare.html'}", RESEARCH_USE_ONLY]
    show(lines, values, as_json)

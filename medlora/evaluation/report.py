"""The report: one HTML page that loads nothing, beside metrics.json, tidy CSVs and figures."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medlora.evaluation.context import ReportContext
from medlora.evaluation.estimate import number
from medlora.evaluation.result import RESEARCH_USE
from medlora.files import new_folder, write_json, write_text

if TYPE_CHECKING:
    from medlora.evaluation.result import Evaluation

__all__ = ["ReportContext", "summary_html", "write_report"]

NAMES = {
    "auc": "AUC",
    "partial_auc": "Partial AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ppv_at_prevalence": "PPV at stated prevalence",
    "npv_at_prevalence": "NPV at stated prevalence",
    "accuracy": "Accuracy",
    "f1": "F1",
    "lr_positive": "Positive likelihood ratio",
    "lr_negative": "Negative likelihood ratio",
    "diagnostic_odds_ratio": "Diagnostic odds ratio",
    "brier": "Brier score",
    "calibration_intercept": "Calibration intercept",
    "calibration_slope": "Calibration slope",
}


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medlora.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["p_value"] = p_value
    environment.globals["names"] = NAMES
    environment.globals["research_use"] = RESEARCH_USE
    return environment


def p_value(p: float | None) -> str:
    """A p value as journals print it."""
    if p is None or p != p:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def summary_html(evaluation: Evaluation) -> str:
    """The result as Jupyter shows it: headline, figures, notes."""
    return str(_environment().get_template("summary.html.jinja").render(evaluation=evaluation))


def write_report(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    context: ReportContext | None = None,
    overwrite: bool = False,
) -> None:
    """See `Evaluation.write`."""
    from medlora.evaluation.sections import sections

    context = context or ReportContext()
    view, figures, tables, extra = sections(evaluation, context)
    with new_folder(folder, "the evaluation", overwrite) as partial:
        write_json(partial / "metrics.json", {**evaluation.to_dict(), **extra})
        for name, table in {"metrics": evaluation.to_frame(), **tables}.items():
            _write_csv(table, partial / "tables" / f"{name}.csv")
        (partial / "figures").mkdir()
        for name, (svg, png) in figures.items():
            (partial / "figures" / f"{name}.svg").write_bytes(svg)
            (partial / "figures" / f"{name}.png").write_bytes(png)
        write_text(partial / "report.html", page(view))


def page(view: dict[str, Any]) -> str:
    """The whole HTML page."""
    css = resources.files("medlora.evaluation").joinpath("templates/report.css").read_text(encoding="utf-8")
    return str(_environment().get_template("report.html.jinja").render(**view, css=css))


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))

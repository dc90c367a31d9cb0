"""The report: one HTML page that loads nothing, beside metrics.json, tidy CSVs and figures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medlora.evaluation.context import ReportContext
from medlora.evaluation.estimate import number
from medlora.evaluation.result import RESEARCH_USE
from medlora.files import new_folder, write_json, write_text

if TYPE_CHECKING:
    from medlora.evaluation.models import Comparison
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
    if p is None or isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def summary_html(evaluation: Evaluation) -> str:
    """The result as Jupyter shows it: headline, ROC curve, confusion table, all figures, notes."""
    from medlora.evaluation.sections import summary

    return str(_environment().get_template("summary.html.jinja").render(evaluation=evaluation, **summary(evaluation)))


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
        _write_figures(figures, partial / "figures")
        write_text(partial / "report.html", page(view))


def page(view: dict[str, Any]) -> str:
    """The whole HTML page."""
    return str(_environment().get_template("report.html.jinja").render(**view, css=_css()))


def comparison_summary(comparison: Comparison) -> str:
    """A comparison as Jupyter shows it."""
    template = _environment().get_template("comparison.html.jinja")
    return str(template.render(comparison=comparison, title=None, css=None, roc=[]))


def write_comparison(
    comparison: Comparison, folder: str | os.PathLike[str], title: str | None = None, overwrite: bool = False
) -> None:
    """See `Comparison.write`."""
    from medlora.evaluation.sections import comparison_curves

    figures, inlined = comparison_curves(comparison)
    with new_folder(folder, "the comparison", overwrite) as partial:
        write_json(partial / "comparison.json", comparison.to_dict())
        _write_csv(comparison.to_frame(), partial / "tables" / "differences.csv")
        _write_figures(figures, partial / "figures")
        template = _environment().get_template("comparison.html.jinja")
        html = template.render(comparison=comparison, title=title or "Comparison of models", css=_css(), roc=inlined)
        write_text(partial / "comparison.html", str(html))


def _css() -> str:
    return resources.files("medlora.evaluation").joinpath("templates/report.css").read_text(encoding="utf-8")


def _write_figures(figures: Mapping[str, tuple[bytes, bytes]], folder: Path) -> None:
    folder.mkdir()
    for name, (svg, png) in figures.items():
        (folder / f"{name}.svg").write_bytes(svg)
        (folder / f"{name}.png").write_bytes(png)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))

"""compare.html: the table of a comparison, a picture of AUC against cost, and the advice; it loads nothing."""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING, Any

from medlora.evaluation.figures import COLOURS, GREY, drawing, inline, render
from medlora.evaluation.result import RESEARCH_USE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from medlora.training.comparing import MethodComparison, Row


def page(comparison: MethodComparison) -> str:
    """The whole page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medlora.training", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    word = "phantom" if comparison.phantom else None
    costs = [
        ("size", "adapter's file in kB", [row.bytes / 1000 for row in comparison.rows]),
        ("time", "seconds for an epoch", [row.seconds_per_epoch for row in comparison.rows]),
    ]
    figures = []
    for name, label, values in costs:
        with drawing(4.6, 3.4, word) as (figure, axes):
            _draw(axes, comparison.rows, values, label)
        figures.append((label, inline(render(figure, "svg"), name, f"AUC of each method against {label}")))
    table = comparison.table
    view: dict[str, Any] = {
        "rows": comparison.rows,
        "others": [row.method for row in comparison.rows if row.method in ("full", "probe")],
        "runs": table.to_dict("records"),
        "seeds": table["seed"].nunique(),
        "folds": table["fold"].nunique(),
        "classes": list(dict.fromkeys(table["class"])),
        "advice": comparison.advice,
        "phantom": comparison.phantom,
        "figures": figures,
        "research_use": RESEARCH_USE,
        "css": resources.files("medlora.evaluation").joinpath("templates/report.css").read_text(encoding="utf-8"),
        "known": lambda value: not math.isnan(value),
    }
    return environment.get_template("compare.html.jinja").render(view)


def _draw(axes: Axes, rows: list[Row], costs: list[float], label: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for index, (row, cost) in enumerate(zip(rows, costs, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        axes.errorbar(
            cost, row.auc, [[row.auc - row.low], [row.high - row.auc]], fmt="o", color=colour, ms=5, lw=1, capsize=2
        )
        axes.annotate(row.method, (cost, row.auc), xytext=(6, 4), textcoords="offset points", color=colour, fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15)
    axes.grid(axis="y", color=GREY, alpha=0.2, lw=0.6)
    axes.set_xlabel(f"{label} (logarithmic)")
    axes.set_ylabel("AUC, 95 % interval")

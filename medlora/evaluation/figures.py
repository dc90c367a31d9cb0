"""The figures: matplotlib drawings without pyplot, as SVG (inline, identifiers made unique) and PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medlora.evaluation.calibration import Reliability
from medlora.evaluation.estimate import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, PALE = "#1c2733", "#66727f", "#d5dbe1"
# Told apart in grey and by colour-blind readers (after Okabe and Ito), darkened for white paper.
COLOURS = ("#1f5c8b", "#b4531f", "#22785f", "#8a4a86", "#8a6d12", "#4a4a4a")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # class names come from files: a dollar sign is a dollar sign
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "medlora",
}


@contextmanager
def drawing(width: float = 4.6, height: float = 4.2, word: str | None = None) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes in the house style; ``word`` ("phantom") is set in its corner."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        yield figure, axes
        if word:
            axes.set_title(word, loc="right", fontsize=8, color=COLOURS[1], pad=5)


def render(figure: Figure, kind: str) -> bytes:
    """The figure as "svg" or "png", without date or program in its metadata."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    with mpl.rc_context(_STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, dpi=160, metadata=nothing)
    return buffer.getvalue()


def inline(svg: bytes, name: str, description: str) -> str:
    """The SVG as it stands inside a page: no prologue, every id prefixed by ``name``, named for screen readers."""
    from xml.sax.saxutils import quoteattr

    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    # The page scales it; the viewBox keeps its proportions.
    text = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", text)
    text = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", text)
    return text.replace("<svg", f'<svg role="img" aria-label={quoteattr(description)}', 1)


def roc_points(y: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """False positive rate, sensitivity and threshold, from (0, 0) to (1, 1)."""
    levels = np.unique(score)[::-1]
    tpr = 1 - np.searchsorted(np.sort(score[y]), levels, "left") / y.sum()
    fpr = 1 - np.searchsorted(np.sort(score[~y]), levels, "left") / (~y).sum()
    return np.r_[0.0, fpr], np.r_[0.0, tpr], np.r_[np.inf, levels]


def _thin(curve: Mapping[str, Any], most: int = 2000) -> tuple[NDArray, NDArray]:
    """At most so many points of a curve: more cannot be seen, and a page should stay small."""
    keep = np.unique(np.linspace(0, len(curve["fpr"]) - 1, most).astype(int))
    return curve["fpr"][keep], curve["tpr"][keep]


def roc_band(fpr: NDArray, tpr: NDArray, m: float, n: float, level: float = 0.95) -> tuple[NDArray, NDArray, NDArray]:
    """A band around an ROC curve: the region that the confidence rectangles of all its points cover.

    Each rectangle is the Wilson interval of sensitivity by that of specificity, each at √level, so that it covers
    its point with at least ``level``.

    Returns:
        false positive rates, lower and upper sensitivity.
    """
    keep = np.unique(np.linspace(0, len(fpr) - 1, 200).astype(int))
    x, side = np.linspace(0, 1, 201), float(np.sqrt(level))
    low_t, high_t = np.array([wilson(t * m, m, side) for t in tpr[keep]]).T
    low_f, high_f = np.array([wilson(f * n, n, side) for f in fpr[keep]]).T
    lower = np.array([low_t[high_f <= at].max(initial=0.0) for at in x])
    upper = np.array([high_t[low_f <= at].max(initial=0.0) for at in x])
    return x, lower, np.minimum(np.maximum.accumulate(upper), 1.0)


def roc_figure(
    curves: Sequence[Mapping[str, Any]], point: tuple[float, float, str] | None = None, word: str | None = None
) -> Figure:
    """ROC curves.

    Args:
        curves: each with ``label`` (None for none), ``fpr``, ``tpr`` and, where wanted, ``band`` (x, low, high) and
            ``style`` (curves of one number look alike).
        point: the operating point: false positive rate, sensitivity, label.
        word: see `drawing`.
    """
    with drawing(4.6, 4.6, word) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=PALE, lw=1, zorder=0)
        for place, curve in enumerate(curves):
            i = curve.get("style", place)
            colour = COLOURS[i % len(COLOURS)]
            if curve.get("band") is not None:
                axes.fill_between(*curve["band"], color=colour, alpha=0.13, lw=0)
            axes.plot(
                *_thin(curve), color=colour, ls=DASHES[i % len(DASHES)], lw=1.7 if i == 0 else 1.4,
                label=curve["label"], drawstyle="default", clip_on=False,
            )  # fmt: skip
        if point is not None:
            axes.plot(
                point[0], point[1], "o", ms=7, mfc="white", mec=COLOURS[0], mew=1.6, label=point[2], clip_on=False
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="1 − specificity", ylabel="Sensitivity", aspect="equal")
        axes.legend(loc="lower right", fontsize=8.5, handlelength=2.2)
    return figure


def score_figure(
    groups: Mapping[str, NDArray], threshold: float | None, xlabel: str, word: str | None = None
) -> Figure:
    """Where the scores of each class lie, as shares of the class."""
    values = np.concatenate(list(groups.values()))
    edges = np.linspace(0, 1, 26) if values.min() >= 0 and values.max() <= 1 else np.histogram_bin_edges(values, 25)
    with drawing(4.6, 3.2, word) as (figure, axes):
        for i, (label, x) in enumerate(groups.items()):
            share = np.histogram(x, edges)[0] / max(len(x), 1)
            colour = COLOURS[(1, 0)[i]] if len(groups) == 2 else COLOURS[i % len(COLOURS)]
            axes.stairs(share, edges, color=colour, lw=1.4, fill=False, label=f"{label} ({len(x)})")
            axes.stairs(share, edges, color=colour, alpha=0.15, fill=True)
        if threshold is not None:
            axes.axvline(threshold, color=INK, lw=1, ls=(0, (4, 2)), label="operating point")
        axes.set(xlabel=xlabel, ylabel="Share of the class")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=3, fontsize=8.5)
    return figure


def calibration_figure(curves: Sequence[Reliability], word: str | None = None) -> Figure:
    """Observed share against stated probability: grouped points with intervals, and a smooth curve with its band."""
    with drawing(4.6, 4.6, word) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (4, 3)), label="perfect")
        for i, curve in enumerate(curves):
            colour = COLOURS[i % len(COLOURS)]
            if curve.x is not None and curve.smooth is not None:
                if curve.low is not None and curve.high is not None and i == 0 and len(curves) < 3:
                    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.13, lw=0)
                axes.plot(curve.x, curve.smooth, color=colour, lw=1.5, ls=DASHES[i % len(DASHES)])
            middle, share = np.asarray(curve.mean), np.asarray(curve.observed)
            bars = np.clip([share - curve.group_low, curve.group_high - share], 0, None)
            axes.errorbar(
                middle, share, bars, fmt="os^Dv"[i % 5], ms=4.2, color=colour, elinewidth=0.9, capsize=0,
                label=curve.label, clip_on=False,
            )  # fmt: skip
        axes.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="Stated probability", ylabel="Observed share", aspect="equal",
        )  # fmt: skip
        axes.legend(loc="upper left", fontsize=8.5)
    return figure


def training_figure(rows: Sequence[Mapping[str, Any]], word: str | None = None) -> Figure | None:
    """Loss per epoch, and the tuning AUC beside it where it was recorded; None without numbers."""
    names = [n for n in rows[0] if n != "epoch"] if rows else []
    data = {n: np.array([_float(r.get(n)) for r in rows]) for n in names}
    data = {n: v for n, v in data.items() if np.isfinite(v).any()}
    losses, areas = [n for n in data if "loss" in n], [n for n in data if "auc" in n]
    if not losses and not areas:
        return None
    epochs = np.array([_float(r.get("epoch", i + 1)) for i, r in enumerate(rows)])
    with drawing(4.6, 3.2, word) as (figure, axes):
        right = axes.twinx() if losses and areas else axes
        for i, n in enumerate([*losses, *areas]):
            target = axes if n in losses else right
            target.plot(
                epochs, data[n], color=COLOURS[i % len(COLOURS)], ls=DASHES[i % len(DASHES)], marker="o", ms=3, lw=1.4,
                label=n.replace("_", " ").replace("auc", "AUC"),
            )  # fmt: skip
        axes.set(xlabel="Epoch", ylabel="Loss" if losses else "AUC")
        axes.locator_params(axis="x", integer=True)
        if right is not axes:
            right.set_ylabel("AUC")
            right.spines["right"].set_visible(True)
        handles = [h for a in dict.fromkeys((axes, right)) for h in a.get_lines()]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 3), fontsize=8.5)
    return figure


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def decision_figure(thresholds: NDArray, benefit: Mapping[str, NDArray], word: str | None = None) -> Figure:
    """Net benefit against threshold probability; the model beside "all positive" and "none"."""
    with drawing(4.6, 3.4, word) as (figure, axes):
        models = [n for n in benefit if n not in ("all positive", "none positive")]
        for i, n in enumerate(models):
            axes.plot(
                thresholds, benefit[n], color=COLOURS[i % len(COLOURS)], ls=DASHES[i % len(DASHES)], lw=1.6, label=n
            )
        axes.plot(thresholds, benefit["all positive"], color=GREY, lw=1, ls=(0, (4, 2)), label="call all positive")
        axes.axhline(0, color=GREY, lw=1, label="call none positive")
        top = max(float(np.max(benefit[n])) for n in models)
        axes.set(xlim=(0, 1), ylim=(-0.25 * max(top, 0.1), 1.1 * max(top, 0.1)))
        axes.set(xlabel="Threshold probability", ylabel="Net benefit")
        axes.legend(loc="best", fontsize=8.5)
    return figure


def forest_figure(rows: Sequence[Mapping[str, Any]], overall: float | None, word: str | None = None) -> Figure:
    """Area under the curve of each subgroup with its interval.

    Args:
        rows: each with ``label``, and ``value``, ``low``, ``high`` (None draws a blank line).
        overall: area of all cases, drawn as a line.
        word: see `drawing`.
    """
    with drawing(5.6, 0.9 + 0.27 * len(rows), word) as (figure, axes):
        for i, row in enumerate(rows):
            if row["value"] is not None and row["low"] is not None:
                axes.plot([row["low"], row["high"]], [i, i], color=COLOURS[0], lw=1.3)
            if row["value"] is not None:
                axes.plot(row["value"], i, "s", ms=5, color=COLOURS[0], clip_on=False)
        if overall is not None:
            axes.axvline(overall, color=GREY, lw=0.9, ls=(0, (4, 3)))
        axes.set_yticks(range(len(rows)), [str(r["label"])[:40] for r in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        lows = [r["low"] for r in rows if r["low"] is not None]
        axes.set_xlim(max(0.0, min([*lows, 0.5]) - 0.03), 1.0)
        axes.set_xlabel("AUC")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure

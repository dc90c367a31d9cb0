"""What stands in the report, section by section, as plain data for the template."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medlora.errors import MedloraError
from medlora.evaluation import figures as draw
from medlora.evaluation.alignment import same_cases
from medlora.evaluation.calibration import Reliability, brier, calibration_intercept_slope, reliability
from medlora.evaluation.checklists import checklist
from medlora.evaluation.comparison import delong_test
from medlora.evaluation.context import ReportContext
from medlora.evaluation.decision import net_benefit
from medlora.evaluation.discrimination import auc
from medlora.evaluation.estimate import Estimate, number
from medlora.evaluation.evaluating import called, judged, trainings
from medlora.evaluation.models import Comparison
from medlora.evaluation.proportions import effective_n
from medlora.evaluation.result import Evaluation, Metric
from medlora.evaluation.table import Predictions

MOST_FORESTS = 4  # a report of fourteen findings is read as a table
MOST_CURVES = 5
_shown = count(1)
Drawn = dict[str, tuple[bytes, bytes]]


class _Figures:
    """Collects the drawings: bytes for files, inline SVG for the page."""

    def __init__(self, word: str | None) -> None:
        self.word = word
        self.files: Drawn = {}

    def add(self, name: str, figure: Any, description: str) -> str:
        svg, png = draw.render(figure, "svg"), draw.render(figure, "png")
        self.files[name] = svg, png
        return draw.inline(svg, name, description)


def sections(
    evaluation: Evaluation, context: ReportContext
) -> tuple[dict[str, Any], Drawn, dict[str, pd.DataFrame], dict[str, Any]]:
    """All that the page shows.

    Returns:
        the template's view, figures (SVG and PNG bytes by name), tables by name, and what metrics.json gains.
    """
    figures = _Figures(context.data_note)
    tables: dict[str, pd.DataFrame] = {}
    checked = evaluation.predictions
    baselines = {n: same_cases(checked, f, n) for n, f in context.baselines.items()}
    compared = _baselines(evaluation, baselines)
    errors, worst = _errors(evaluation, context)
    tables["errors"] = errors
    if compared:
        tables["baselines"] = pd.DataFrame(compared)
    view = {
        "evaluation": evaluation,
        "context": context,
        "kind": checked.kind,
        "warnings": _warnings(context),
        "notes": list(evaluation.notes),
        "exact": any(m.method.startswith("Clopper") for m in evaluation.metrics),
        "headline": evaluation.headline(),
        "metrics": _by_class(evaluation),
        "flow": _flow(context),
        "counts": _counts(checked),
        "roc": figures.add("roc", _roc(evaluation, baselines, context.data_note), "ROC curve"),
        "confusion": _confusion(evaluation),
        "baselines": compared,
        "scores": _scores(evaluation, figures),
        "calibration": _calibration(evaluation, context, figures),
        "decision": _decision(evaluation, baselines, figures),
        "subgroups": _subgroups(evaluation, figures),
        "training": _training(context, figures),
        "worst": worst,
        "sizes": _sizes(context),
        "source_check": list(context.source_check or ()),
        "provenance": dict(context.provenance or {}),
    }
    items = checklist(view)
    view["checklist"] = items
    tables["checklist"] = pd.DataFrame(items)
    if evaluation.subgroups:
        tables["subgroups"] = pd.DataFrame([g.to_dict() for g in evaluation.subgroups])
    extra = {"baselines": compared} if compared else {}
    if context.source_check:
        extra["source_check"] = [dict(r) for r in context.source_check]
    return view, figures.files, tables, extra


def _judged(checked: Predictions) -> list[str]:
    """The judged classes that have both positives and negatives."""
    return [n for n in judged(checked) if len(set(checked.truth(n)[~np.isnan(checked.truth(n))])) == 2]


def _known(checked: Predictions, name: str) -> tuple[NDArray, NDArray, NDArray, NDArray | None]:
    truth = checked.truth(name)
    known = ~np.isnan(truth)
    return known, truth[known] == 1, checked.score(name)[known], checked.patients[known] if checked.clustered else None


def _warnings(context: ReportContext) -> list[str]:
    made = list(context.warnings)
    if context.same_data_warning:
        said = context.same_data_warning
        made.insert(0, said if isinstance(said, str) else (
            "The operating point was chosen on these very cases: the figures at it are too good."
        ))  # fmt: skip
    return made


def _decision(evaluation: Evaluation, baselines: Mapping[str, Predictions], figures: _Figures) -> str | None:
    checked = evaluation.predictions
    if checked.kind != "binary" or not checked.probability:
        return None
    thresholds = np.linspace(0.01, 0.99, 99)
    known, y, s, _ = _known(checked, checked.positive)
    model, everyone = net_benefit(s, y, thresholds)
    benefit = {"model": model}
    for label, theirs in baselines.items():
        if theirs.probability:
            benefit[label] = net_benefit(theirs.score(checked.positive)[known], y, thresholds)[0]
    benefit["all positive"] = everyone
    figure = draw.decision_figure(thresholds, benefit, figures.word)
    return figures.add("decision", figure, "Decision curve: net benefit against threshold probability")


def _subgroups(evaluation: Evaluation, figures: _Figures) -> list[dict[str, Any]]:
    """One block per class: the rows of the table, the forest plot, the tests of each column."""
    made = []
    for number_, name in enumerate(_judged(evaluation.predictions)):
        rows = [g for g in evaluation.subgroups if g.class_ == name]
        if not rows:
            continue
        shown = [
            {"label": f"{g.column}: {g.level} ({g.n})", "value": g.auc.value, "low": g.auc.low, "high": g.auc.high}
            for g in rows
        ]
        overall = evaluation.get("auc", name).value
        forest = draw.forest_figure(shown, overall, figures.word) if number_ < MOST_FORESTS else None
        drawn = forest and figures.add(f"subgroups-{number_ + 1}", forest, f"AUC of {name} in subgroups")
        parts = [(c, [g for g in rows if g.column == c]) for c in dict.fromkeys(g.column for g in rows)]
        made.append({"class": name, "parts": parts, "forest": drawn})
    return made


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """What a notebook shows beside the figures; every output has ids of its own, since they share one page."""
    name = f"medlora-{next(_shown)}"
    drawn = draw.inline(draw.render(_roc(evaluation, {}, None), "svg"), name, "ROC curve")
    return {"roc": drawn, "confusion": _confusion(evaluation), "kind": evaluation.predictions.kind}


def comparison_curves(comparison: Comparison) -> tuple[Drawn, list[tuple[str, str]]]:
    """ROC curves of all models in one picture, for each class."""
    figures, made = _Figures(None), []
    evaluations = list(comparison.evaluations.items())
    for number_, name in enumerate(_judged(evaluations[0][1].predictions)):
        curves = []
        for label, e in evaluations:
            _, y, s, _ = _known(e.predictions, name)
            groups = trainings(e.predictions)
            # Repeated trainings are not one curve: the first stands for them, the area is their mean.
            use = np.ones(len(y), dtype=bool) if groups is None else groups[~np.isnan(e.predictions.truth(name))] == 0
            fpr, tpr, _ = draw.roc_points(y[use], s[use])
            note = "" if groups is None else f" (first of {int(groups.max()) + 1} trainings)"
            curves.append({"fpr": fpr, "tpr": tpr, "label": f"{label}, AUC {number(e.get('auc', name).value)}{note}"})
        made.append((name, figures.add(f"roc-{number_ + 1}", draw.roc_figure(curves), f"ROC curves of {name}")))
    return figures.files, made


def _by_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The figures of each class, those without an operating point first, then by operating point."""
    made = []
    for name in dict.fromkeys(m.class_ for m in evaluation.metrics):
        rows = [m for m in evaluation.metrics if m.class_ == name]
        parts = [(at, [m for m in rows if m.at == at]) for at in dict.fromkeys(sorted((m.at for m in rows), key=bool))]
        first = rows[0] if name not in ("macro", "micro", "all") else None
        made.append({"class": name, "counts": first, "parts": parts})
    return made


def _flow(context: ReportContext) -> dict[str, Any] | None:
    flow = context.flow
    if not flow:
        return None
    excluded = sorted(dict(flow.get("excluded") or {}).items(), key=lambda item: -item[1])
    known = ("train", "tune", "test")  # in this order, others after them
    given = sorted(dict(flow.get("splits") or {}).items(), key=lambda item: (*known, item[0]).index(item[0]))
    splits = {str(s): {str(c): int(n) for c, n in dict(v).items()} for s, v in given}
    classes = list(dict.fromkeys(c for v in splits.values() for c in v))
    cases = {split: sum(counts.values()) for split, counts in splits.items()} | dict(flow.get("cases") or {})
    return {
        "found": flow.get("found"),
        "unit": flow.get("unit", ""),
        "excluded": excluded,
        "left_out": sum(n for _, n in excluded),
        "classes": classes,
        "splits": [(s, [v.get(c, 0) for c in classes], cases[s]) for s, v in splits.items()],
        "included": sum(cases.values()),
    }


def _counts(checked: Predictions) -> dict[str, Any]:
    """What the predictions alone tell of the flow of cases."""
    classes = []
    for name in checked.classes:
        truth = checked.truth(name)
        unknown = int(np.isnan(truth).sum())
        classes.append((name, int((truth == 1).sum()), int((truth == 0).sum()), unknown))
    return {"found": checked.n + checked.unlabelled, "unlabelled": checked.unlabelled, "used": checked.n, "by": classes}


def _roc(evaluation: Evaluation, baselines: Mapping[str, Predictions], word: str | None) -> Any:
    checked, curves, point = evaluation.predictions, [], None
    single = checked.kind == "binary"
    repeats = trainings(checked)
    for style, name in enumerate(_judged(checked)):
        known, y, s, who = _known(checked, name)
        area = evaluation.get("auc", name)
        if repeats is not None:
            label = f"{'model' if single else name}, mean AUC {number(area.value)}"
            for g in np.unique(repeats):
                use = repeats[known] == g
                fpr, tpr, _ = draw.roc_points(y[use], s[use])
                curves.append({"fpr": fpr, "tpr": tpr, "label": None if g else label, "style": style})
            continue
        fpr, tpr, _ = draw.roc_points(y, s)
        curve: dict[str, Any] = {"fpr": fpr, "tpr": tpr}
        curve["label"] = f"{'model' if single else name}, AUC {number(area.value)}"
        if single:
            hit = s >= np.median(s) if evaluation.answers is None else called(checked, evaluation.answers, name)
            m, n = effective_n(hit, y, who), effective_n(~hit, ~y, who)
            curve["band"] = draw.roc_band(fpr, tpr, m, n, evaluation.level)
            if evaluation.answers is not None:
                point = float(hit[~y].mean()), float(hit[y].mean()), "operating point"
        curves.append(curve)
    if single:
        for label, theirs in baselines.items():
            _, y, s, _ = _known(theirs, checked.positive)
            fpr, tpr, _ = draw.roc_points(y, s)
            curves.append({"fpr": fpr, "tpr": tpr, "label": f"{label}, AUC {number(float(auc(y, s)))}"})
    return draw.roc_figure(curves, point, word)


def _confusion(evaluation: Evaluation) -> dict[str, Any] | None:
    checked, answers = evaluation.predictions, evaluation.answers
    if answers is None:
        return None
    at = evaluation.operating_point.describe() if evaluation.operating_point else ""
    if checked.kind == "multilabel":
        rows = []
        for name in checked.classes:
            known, y, _, _ = _known(checked, name)
            hit = called(checked, answers, name)[known]
            cells = [int((hit & y).sum()), int((~hit & y).sum()), int((hit & ~y).sum()), int((~hit & ~y).sum())]
            rows.append((name, cells))
        return {
            "at": at,
            "columns": ["true positive", "missed", "false alarm", "true negative"],
            "rows": rows,
            "most": 0,
        }
    order = list(checked.classes[::-1]) if checked.kind == "binary" else list(checked.classes)
    truth = np.array(checked.classes, dtype=object)[checked.y]
    table = [(r, [int(((truth == r) & (answers == c)).sum()) for c in order]) for r in order]
    return {"at": at, "columns": order, "rows": table, "most": max(max(cells) for _, cells in table)}


def _baselines(evaluation: Evaluation, baselines: Mapping[str, Predictions]) -> list[dict[str, Any]]:
    checked, made = evaluation.predictions, []
    for label, theirs in baselines.items():
        for name in _judged(checked):
            known, y, s, who = _known(checked, name)
            other = theirs.score(name)[known]
            area, test = (
                auc(y, other, who, level=evaluation.level),
                delong_test(y, s, other, who, level=evaluation.level),
            )
            made.append({
                "baseline": label, "class": name, "metric": "auc",
                "value": area.value, "low": area.low, "high": area.high, "method": area.method,
                "difference": test.value, "difference_low": test.low, "difference_high": test.high,
                "p": test.p, "test": test.method,
            })  # fmt: skip
    return made


def _scores(evaluation: Evaluation, figures: _Figures) -> str | None:
    checked = evaluation.predictions
    if checked.kind != "binary":
        return None
    s, name = checked.score(checked.positive), checked.positive
    groups = {c: s[checked.y == j] for j, c in enumerate(checked.classes)}
    point = evaluation.operating_point
    value = point.value if point and isinstance(point.value, float) else None
    label = f"Probability of {name}" if checked.probability else f"Score for {name}"
    return figures.add("scores", draw.score_figure(groups, value, label, figures.word), "Distribution of the scores")


def _calibration(evaluation: Evaluation, context: ReportContext, figures: _Figures) -> dict[str, Any] | None:
    """The figure, and Brier score, intercept and slope before and after scaling."""
    checked = evaluation.predictions
    if not checked.probability:
        return None
    curves: list[Reliability] = []
    rows: list[tuple[str, str, Estimate, Metric]] = []
    before = None if context.uncalibrated is None else same_cases(checked, context.uncalibrated, "uncalibrated")
    for name in _judged(checked):
        known, y, s, who = _known(checked, name)
        single = checked.kind == "binary"
        label = ("after scaling" if before else "model") if single else name
        if len(curves) < MOST_CURVES:
            curves.append(reliability(s, y, who, label=label, level=evaluation.level))
        if before is None:
            continue
        raw = before.score(name)[known]
        if single:
            curves.append(reliability(raw, y, who, label="before scaling", level=evaluation.level))
        intercept, slope = calibration_intercept_slope(raw, y, who, level=evaluation.level)
        earlier = {
            "brier": brier(raw, y, who, level=evaluation.level),
            "calibration_intercept": intercept,
            "calibration_slope": slope,
        }
        rows += [(name, metric, e, evaluation.get(metric, name)) for metric, e in earlier.items()]
    drawn = figures.add("calibration", draw.calibration_figure(curves, figures.word), "Calibration")
    return {"figure": drawn, "rows": rows}


def _training(context: ReportContext, figures: _Figures) -> str | None:
    figure = draw.training_figure(list(context.training_curve or ()), figures.word)
    return None if figure is None else figures.add("training", figure, "Training curve")


def _errors(evaluation: Evaluation, context: ReportContext, most: int = 6) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Every wrong answer as a table, and the worst of them with thumbnails."""
    checked, answers = evaluation.predictions, evaluation.answers
    columns = ["case_id", "class", "error", "probability"]
    if answers is None:
        return pd.DataFrame(columns=columns), []
    rows, groups = [], []
    for name in _judged(checked):
        known, y, s, _ = _known(checked, name)
        hit, case = called(checked, answers, name)[known], checked.case[known]
        for kind, wrong, order in (("missed", y & ~hit, s), ("false alarm", ~y & hit, -s)):
            at = np.flatnonzero(wrong)
            at = at[np.argsort(order[at], kind="stable")]
            rows += [(case[i], name, kind, float(s[i])) for i in at]
            shown = [
                {"case_id": case[i], "probability": float(s[i]), "image": _thumbnail(context, str(case[i]))}
                for i in at[:most]
            ]
            groups.append(
                {
                    "class": name,
                    "error": kind,
                    "count": len(at),
                    "among": int((y if kind == "missed" else ~y).sum()),
                    "cases": shown,
                }
            )
    return pd.DataFrame(rows, columns=columns), groups


def _thumbnail(context: ReportContext, case: str) -> str | None:
    source = context.thumbnails
    if source is None:
        return None
    image = source.get(case) if isinstance(source, Mapping) else source(case)
    if not image:
        return None
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        raise MedloraError(f"the thumbnail of case {case} is not a PNG")
    return base64.b64encode(image).decode("ascii")


def _sizes(context: ReportContext) -> list[tuple[str, str]]:
    sizes, made = dict(context.sizes or {}), []
    for key, label in (("adapter_bytes", "Adapter"), ("backbone_bytes", "Backbone, in memory")):
        if key in sizes:
            made.append((label, _bytes(sizes.pop(key))))
    trained, total = sizes.pop("trainable_parameters", None), sizes.pop("total_parameters", None)
    if trained is not None:
        share = f" of {total:,} ({trained / total:.2%})" if total else ""
        made.append(("Trained parameters", f"{trained:,}{share}"))
    return made + [(k.replace("_", " "), f"{v:,}") for k, v in sizes.items()]


def _bytes(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB" if n >= 1e3 else f"{n} bytes"

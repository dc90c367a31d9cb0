"""What stands in the report, section by section, as plain data for the template."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medlora.errors import MedloraError
from medlora.evaluation import figures as draw
from medlora.evaluation.calibration import reliability
from medlora.evaluation.comparison import delong_test
from medlora.evaluation.context import ReportContext
from medlora.evaluation.discrimination import auc
from medlora.evaluation.estimate import number
from medlora.evaluation.evaluating import called
from medlora.evaluation.proportions import effective_n
from medlora.evaluation.result import Evaluation
from medlora.evaluation.table import Predictions, check_predictions

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
        "warnings": _warnings(evaluation, context),
        "headline": evaluation.headline(),
        "metrics": _by_class(evaluation),
        "flow": _flow(context),
        "roc": figures.add("roc", _roc(evaluation, baselines, context.data_note), "ROC curve"),
        "confusion": _confusion(evaluation),
        "baselines": compared,
        "scores": _scores(evaluation, figures),
        "calibration": _calibration(evaluation, context, figures),
        "training": _training(context, figures),
        "worst": worst,
        "sizes": _sizes(context),
        "source_check": list(context.source_check or ()),
        "provenance": dict(context.provenance or {}),
    }
    extra = {"baselines": compared} if compared else {}
    if context.source_check:
        extra["source_check"] = [dict(r) for r in context.source_check]
    return view, figures.files, tables, extra


def same_cases(checked: Predictions, other: pd.DataFrame, name: str) -> Predictions:
    """Another model's predictions, in the order of ``checked``.

    Raises:
        MedloraError: other cases, other labels, other classes.
    """
    theirs = check_predictions(other, positive=checked.positive if checked.kind == "binary" else None)
    if theirs.kind != checked.kind or set(theirs.classes) != set(checked.classes):
        raise MedloraError(f"{name} answers {list(theirs.classes)}, the model {list(checked.classes)}")
    if len(set(theirs.case)) < theirs.n or len(set(checked.case)) < checked.n:
        raise MedloraError(f"{name} cannot be compared case by case: cases repeat over seeds or folds")
    place = {c: i for i, c in enumerate(theirs.case)}
    missing = [c for c in checked.case if c not in place]
    if missing or theirs.n != checked.n:
        raise MedloraError(
            f"{name} is not on the same cases: {len(missing)} of {checked.n} are missing, "
            f"{theirs.n - checked.n + len(missing)} are additional",
            "compare predictions of the same split of the same cohort",
        )
    order = np.array([place[c] for c in checked.case])
    columns = [theirs.classes.index(c) for c in checked.classes]
    y = (
        theirs.y[order][:, columns]
        if checked.kind == "multilabel"
        else np.array([checked.classes.index(theirs.classes[i]) for i in theirs.y[order]])
    )
    if not np.array_equal(y, checked.y, equal_nan=checked.kind == "multilabel"):
        raise MedloraError(f"{name} has other labels than the model for the same cases", "evaluate both on one cohort")
    frame = theirs.frame.iloc[order].reset_index(drop=True)
    return Predictions(
        checked.kind, checked.classes, y, theirs.p[order][:, columns], theirs.probability, checked.case,
        checked.patients, checked.patient_count, checked.patient_known, frame, theirs.notes,
    )  # fmt: skip


def _judged(checked: Predictions) -> list[str]:
    names = [checked.positive] if checked.kind == "binary" else list(checked.classes)
    return [n for n in names if len(set(checked.truth(n)[~np.isnan(checked.truth(n))])) == 2]


def _known(checked: Predictions, name: str) -> tuple[NDArray, NDArray, NDArray, NDArray | None]:
    truth = checked.truth(name)
    known = ~np.isnan(truth)
    return known, truth[known] == 1, checked.score(name)[known], checked.patients[known] if checked.clustered else None


def _warnings(evaluation: Evaluation, context: ReportContext) -> list[str]:
    made = list(context.warnings)
    if context.same_data_warning:
        said = context.same_data_warning
        made.insert(0, said if isinstance(said, str) else (
            "The operating point was chosen on these very cases: sensitivity, specificity and all other figures at it are too good."
        ))  # fmt: skip
    return made + list(evaluation.notes)


def _by_class(evaluation: Evaluation) -> list[tuple[str, list]]:
    groups: dict[str, list] = {}
    for m in evaluation.metrics:
        groups.setdefault(m.class_, []).append(m)
    return list(groups.items())


def _flow(context: ReportContext) -> dict[str, Any] | None:
    flow = context.flow
    if not flow:
        return None
    excluded = sorted(dict(flow.get("excluded") or {}).items(), key=lambda item: -item[1])
    splits = {str(s): {str(c): int(n) for c, n in dict(v).items()} for s, v in dict(flow.get("splits") or {}).items()}
    classes = list(dict.fromkeys(c for v in splits.values() for c in v))
    return {
        "found": flow.get("found"),
        "excluded": excluded,
        "left_out": sum(n for _, n in excluded),
        "classes": classes,
        "splits": [(s, [v.get(c, 0) for c in classes], sum(v.values())) for s, v in splits.items()],
        "included": sum(sum(v.values()) for v in splits.values()),
    }


def _roc(evaluation: Evaluation, baselines: Mapping[str, Predictions], word: str | None) -> Any:
    checked, curves, point = evaluation.predictions, [], None
    single = checked.kind == "binary"
    for name in _judged(checked):
        _, y, s, who = _known(checked, name)
        fpr, tpr, _ = draw.roc_points(y, s)
        area = evaluation.get("auc", name)
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


def _calibration(evaluation: Evaluation, context: ReportContext, figures: _Figures) -> str | None:
    checked = evaluation.predictions
    if not checked.probability:
        return None
    curves = []
    before = None if context.uncalibrated is None else same_cases(checked, context.uncalibrated, "uncalibrated")
    names = _judged(checked)[:5]
    for name in names:
        known, y, s, who = _known(checked, name)
        label = ("after scaling" if before else "model") if checked.kind == "binary" else name
        curves.append(reliability(s, y, who, label=label, level=evaluation.level))
        if before is not None and checked.kind == "binary":
            curves.append(
                reliability(before.score(name)[known], y, who, label="before scaling", level=evaluation.level)
            )
    return figures.add("calibration", draw.calibration_figure(curves, figures.word), "Calibration")


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
    for key, label in (("adapter_bytes", "Adapter"), ("backbone_bytes", "Backbone")):
        if key in sizes:
            made.append((label, _bytes(sizes.pop(key))))
    trained, total = sizes.pop("trainable_parameters", None), sizes.pop("total_parameters", None)
    if trained is not None:
        share = f" of {total:,} ({trained / total:.2%})" if total else ""
        made.append(("Trained parameters", f"{trained:,}{share}"))
    return made + [(k.replace("_", " "), f"{v:,}") for k, v in sizes.items()]


def _bytes(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB" if n >= 1e3 else f"{n} bytes"

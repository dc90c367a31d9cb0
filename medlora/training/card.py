"""The adapter's card: what it is, what it was trained on, what it reached, what it must not be used for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medlora.evaluation import Calibration, Evaluation
    from medlora.training.task import Task


def card(info: dict[str, Any], asked: Task, calibration: Calibration, summary: str, judged: Evaluation) -> str:
    """Markdown for the adapter's README.md.

    Args:
        info: what is written into ``medlora.json``.
        asked: what the adapter answers.
        calibration: of its probabilities.
        summary: the table of targets and trained parameters.
        judged: the figures on the tune split.
    """
    backbone, task, prepared = info["backbone"], info["task"], info["preprocessing"]
    classes = ", ".join(_plain(name) for name in task["classes"])
    data = " These are phantoms: drawn by a program, not taken of people." if info.get("phantom") else ""
    lines = [
        f"# medlora adapter: {classes}",
        "",
        "**Research use only.** Not a medical device; no clinical decision may rest on it.",
        "",
        f"- {_plain(asked.sentence)}",
        f"- Backbone: {backbone['name']} (licence: {backbone['licence']}; trained on: {backbone['trained_on']}). "
        "The adapter refuses any other weights.",
        f"- Preparation: {prepared['preset']}, {prepared['size']} × {prepared['size']} pixels; "
        f"modality {', '.join(task['modalities']) or 'not stated in the files'}",
        f"- Cases: {_counts(info['training']['cases'])}.{data}",
        f"- Operating point: {_points(judged, asked)}; {_plain(calibration.describe())}, fitted on the tune split too",
        *([f"- Uncertain labels were taken as {task['uncertain_as']}"] if "uncertain_as" in task else []),
        "",
        "On the tune split, where the epoch and the operating point were chosen (optimistic by construction):",
        "",
        *[f"- {_plain(str(metric.class_))}: {metric}" for metric in judged.headline()],
        "",
        "What is trained:",
        "",
        *[f"    {line}" for line in summary.splitlines()],
        "",
        "Use: `medlora predict THIS_FOLDER SCANS -o predictions.csv`",
        "",
    ]
    return "\n".join(lines)


def _counts(cases: dict[str, dict[str, int]]) -> str:
    return "; ".join(
        f"{split}: " + ", ".join(f"{count} {_plain(label)}" for label, count in by_label.items())
        for split, by_label in cases.items()
    )


def _points(judged: Evaluation, asked: Task) -> str:
    point = judged.operating_point
    if point is None:
        return "none"
    each = [point.describe(name) for name in asked.classes] if isinstance(point.value, dict) else [point.describe()]
    return _plain("; ".join(each))


def _plain(text: str) -> str:
    """Class names come from files: without the characters that Markdown or HTML would read."""
    return "".join(" " if character in "<>&`|*_[]\n\r" else character for character in str(text))

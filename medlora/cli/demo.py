"""``medlora demo``: the whole way on phantoms, without data and without a network."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlora.cli.options import Debug, Json, Overwrite, quoted, show

if TYPE_CHECKING:
    from medlora.cohorts import Cohort
    from medlora.evaluation import Comparison
    from medlora.training import Run

# Small enough for two minutes on two cores.
_EPOCHS = 6
_PATIENTS, _PATIENTS_ELSEWHERE = 160, 40


class Task(str, Enum):
    """What the demo is about."""

    variant = "variant"
    nodule = "nodule"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make.")] = Path("demo"),
    task: Annotated[
        Task,
        typer.Option(
            "--task",
            help="A new variant of an opacity on chest radiographs, which another hospital's adapter has never seen; "
            "or nodules on chest CT from a new scanner.",
        ),
    ] = Task.variant,
    seed: Annotated[int, typer.Option("--seed", help="Of phantoms, splits and training.")] = 0,
    open_report: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the report in a browser; by default where there is a display."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw phantom scans, check them, train an adapter, and judge it: about two minutes, no network."""
    import shutil

    from medlora import files
    from medlora.progress import say

    if overwrite and (output / "archive" / "labels.csv").is_file():
        shutil.rmtree(output)
    files.refuse_existing(output, "the demo")
    steps = 4 if task is Task.nodule else 5
    say(f"1 of {steps}: drawing your own phantom patients into {output / 'archive'}")
    labels = _draw(output / "archive", task, seed)
    known = None
    if task is Task.variant:
        say(f"2 of {steps}: another hospital trains an adapter on the finding as it has been, {output / 'elsewhere'}")
        known = _elsewhere(output / "elsewhere", seed)
    say(f"{steps - 2} of {steps}: checking the archive")
    # The nodules of the test split come from a scanner that the training has not seen.
    cohort = _cohort(output, labels, seed, split_column="split" if task is Task.nodule else None)
    say(f"{steps - 1} of {steps}: training an adapter on your own scans")
    run = _train(cohort, output / "run", seed)
    say(f"{steps} of {steps}: judging it on phantom patients it has never seen")
    judged = run.evaluate("test")
    compared = _compare(output, run, cohort, known)
    compared.write(output / "comparison", title="Before and after, on phantoms")
    report = run.folder / "evaluation" / "test" / "report.html"
    size = (run.adapter_path / "adapter_model.safetensors").stat().st_size
    values: dict[str, Any] = {
        "demo": output,
        "cohort": output / "cohort",
        "run": run.folder,
        "adapter": run.adapter_path,
        "adapter_bytes": size,
        "report": report,
        "comparison": output / "comparison" / "comparison.html",
        "auc": {name: asdict(part.get("auc")) for name, part in compared.evaluations.items()},
        **judged.to_dict(),
    }
    lines = [
        "",
        "On phantoms, which are drawn by a program and not taken of people:",
        str(judged),
        "",
        "Before and after, AUC on the same scans:",
        *_story(compared),
        "",
        f"Adapter: {run.adapter_path} ({size / 1000:,.0f} kB)",
        f"What was checked: {output / 'cohort' / 'check.html'}",
        f"Report: {report}",
        f"Before and after, with tests: {output / 'comparison' / 'comparison.html'}",
        "",
        "The same with your own scans:",
        "  medlora check SCANS --labels LABELS.csv -o cohort",
        "  medlora train cohort -o run",
        "  medlora evaluate run",
        "",
        f"Next: medlora predict {quoted(run.folder)} {quoted(output / 'archive' / 'dicom')} "
        + (f"--cases {quoted(labels)} " if task is Task.nodule else "")
        + f"-o {quoted(output / 'predictions.csv')}",
    ]
    show(lines, values, as_json)
    if open_report or (open_report is None and not as_json and _has_display()):
        typer.launch(str(report.resolve()))


def _draw(folder: Path, task: Task, seed: int) -> Path:
    """Your archive; the path of its labels."""
    from medlora.phantoms import ct, radiographs

    if task is Task.nodule:
        return ct.write(folder, 70, seed, scanner="shifted", matrix=192, series=("scout", "thin"))
    return radiographs.write(folder, _PATIENTS, seed, variant="variant")


def _cohort(folder: Path, labels: Path, seed: int, split_column: str | None = None) -> Cohort:
    from medlora.cohorts import Cohort

    cohort = Cohort.from_archive(labels.parent / "dicom", labels, split_seed=seed, split_column=split_column)
    cohort.save(folder / "cohort")
    return cohort


def _train(cohort: Cohort, folder: Path, seed: int, timing: bool = True) -> Run:
    from medlora.training import train

    settings = {"train.epochs": _EPOCHS, "train.seed": seed, "train.timing": timing}
    return train(cohort, folder, settings=settings)


def _elsewhere(folder: Path, seed: int) -> Run:
    """Another hospital's adapter, of other patients, who all have the finding as it was."""
    from medlora.phantoms import radiographs

    labels = radiographs.write(folder / "archive", _PATIENTS_ELSEWHERE, seed + 1, variant="original")
    return _train(_cohort(folder, labels, seed), folder / "run", seed, timing=False)


def _compare(output: Path, run: Run, cohort: Cohort, known: Run | None) -> Comparison:
    """Your adapter, the linear probe on the same scans and, where there is one, the other hospital's adapter."""
    from medlora.evaluation import compare
    from medlora.training import evaluate_adapter

    predicted = run.folder / "predictions"
    models: dict[str, Any] = {
        "after: your own adapter": predicted / "test.csv",
        "your own linear probe": predicted / "test.probe.csv",
    }
    if known is not None:
        evaluate_adapter(known.adapter_path, cohort, output / "before", split="test")
        models["before: the other hospital's adapter"] = output / "before" / "predictions.csv"
    return compare(models)


def _story(compared: Comparison) -> list[str]:
    """A line for each model, the oldest first."""
    from medlora.evaluation import Estimate

    lines = []
    for name, part in reversed(compared.evaluations.items()):
        area = part.get("auc")
        lines.append(f"  {name:36} {Estimate(area.value, area.low, area.high, area.method)}")
    return lines


def _has_display() -> bool:
    """Whether a person sits before a screen, as far as can be told."""
    if not sys.stdout.isatty() or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

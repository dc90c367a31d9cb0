"""``medlora demo``: the whole way on phantoms, without data and without a network."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from medlora.cli.options import Debug, Json, Overwrite, quoted, show

# Small enough for two minutes on two cores.
_SETTINGS: dict[str, Any] = {"data.image_size": 128, "train.epochs": 6}


class Task(str, Enum):
    """What the demo is about."""

    radiograph = "radiograph"
    nodule = "nodule"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make.")] = Path("demo"),
    task: Annotated[
        Task, typer.Option("--task", help="Opacities in chest radiographs, or nodules on chest CT from a new scanner.")
    ] = Task.radiograph,
    seed: Annotated[int, typer.Option("--seed", help="Of phantoms, splits and training.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw phantom scans, check them, train an adapter, and judge it: about two minutes, no network."""
    import shutil

    from medlora import files
    from medlora.phantoms import ct, radiographs
    from medlora.progress import say

    if overwrite and (output / "archive" / "labels.csv").is_file():
        shutil.rmtree(output)
    files.refuse_existing(output, "the demo")
    say(f"1 of 4: drawing phantom patients into {output / 'archive'}")
    if task is Task.nodule:
        labels = ct.write(output / "archive", 70, seed, scanner="shifted", matrix=192, series=("scout", "thin"))
    else:
        labels = radiographs.write(output / "archive", patients=160, seed=seed)

    say("2 of 4: checking the archive")
    from medlora.cohorts import Cohort

    # The nodules of the test split come from a scanner that the training has not seen.
    split = "split" if task is Task.nodule else None
    cohort = Cohort.from_archive(output / "archive" / "dicom", labels, split_seed=seed, split_column=split)
    cohort.save(output / "cohort")

    say("3 of 4: training an adapter")
    from medlora.training import train

    run = train(cohort, output / "run", settings={**_SETTINGS, "train.seed": seed})
    say("4 of 4: judging it on phantom patients it has never seen")
    judged = run.evaluate("test")
    report = run.folder / "evaluation" / "test" / "report.html"
    size = (run.adapter_path / "adapter_model.safetensors").stat().st_size
    values: dict[str, Any] = {
        "demo": output,
        "cohort": output / "cohort",
        "run": run.folder,
        "adapter": run.adapter_path,
        "adapter_bytes": size,
        "report": report,
        **judged.to_dict(),
    }
    lines = [
        "",
        "On phantoms, which are drawn by a program and not taken of people:",
        str(judged),
        f"Adapter: {run.adapter_path} ({size / 1000:,.0f} kB)",
        f"What was checked: {output / 'cohort' / 'check.html'}",
        f"Report: {report}",
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

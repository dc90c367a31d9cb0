"""``medlora train``: a cohort to an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medlora.cli.options import RESEARCH_USE_ONLY, Debug, Json, Overwrite, Weights, quoted, show


def train(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder, as medlora check made it.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run folder to make; else runs/ and the time of day.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="A timm model; else the embedded one.")] = None,
    weights: Weights = None,
    method: Annotated[str | None, typer.Option("--method", help="lora, probe, full, dora, ssf, bitfit …")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of each low-rank update.")] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="Scale of the updates, divided by the rank.")] = None,
    targets: Annotated[
        str | None, typer.Option("--targets", help="Roles, groups or module paths, separated by commas; auto.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="Labels to tell apart, the positive one last, or findings to answer for; separated by commas.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training cases.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Highest learning rate.")] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", help="Cases in a step; auto: as many as fit into memory, up to 64.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of head, updates, order and augmentation.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps or auto.")] = None,
    num_workers: Annotated[int | None, typer.Option("--num-workers", help="Processes that augment.")] = None,
    devices: Annotated[
        int | None,
        typer.Option("--devices", help="Processes that train together on each machine: GPUs, or parts of the CPU."),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes", help="Machines that train together, the same command started on each by torchrun or srun."
        ),
    ] = None,
    logger: Annotated[
        str | None, typer.Option("--logger", help="Figures for tensorboard, mlflow or wandb too, if installed.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML of settings; a run's config.yaml is one.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any single setting: block.key=value. May be repeated.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--last", help="Only the last blocks get an update: 1/3, or block numbers.")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            help="Find settings by trial on the tune split first: rank,depth,lr,dropout,label_smoothing,augment, or "
            "some of them.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Trainings that --search may take.")] = 12,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run; with none, start afresh.")
    ] = False,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Do not time full fine-tuning for comparison first.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train an adapter on a cohort, and choose its operating point on the tune split."""
    from medlora.cohorts import Cohort
    from medlora.training.config import parse_setting

    loaded = Cohort.load(cohort)  # a wrong path is said before all that trains is imported
    named: dict[str, Any] = {
        "adapter.method": method,
        "adapter.rank": rank,
        "adapter.alpha": alpha,
        "adapter.targets": _listed(targets),
        "adapter.last": _blocks(last),
        "data.classes": _listed(classes),
        "train.epochs": epochs,
        "train.learning_rate": learning_rate,
        "train.batch_size": batch_size,
        "train.seed": seed,
        "train.device": device,
        "train.num_workers": num_workers,
        "train.devices": devices,
        "train.nodes": nodes,
        "train.logger": logger,
        "train.timing": False if no_timing else None,
        **dict(parse_setting(text) for text in settings or ()),
    }
    from medlora.training import train as start
    from medlora.training.processes import rank as rank_of_process

    run = start(
        loaded,
        output,
        backbone=backbone,
        weights=weights,
        config=config,
        settings=named,
        search=_listed(search) or (),
        trials=trials,
        overwrite=overwrite,
        resume=resume,
    )
    if rank_of_process():  # torchrun started several of this command; the first one speaks
        return
    epochs, kept, auc = len(run.history), int(run.kept["epoch"]), float(run.kept["tune_auc"])
    size = (run.adapter_path / "adapter_model.safetensors").stat().st_size
    values = {
        "run": run.folder,
        "adapter": run.adapter_path,
        "adapter_bytes": size,
        "kept_epoch": kept,
        "tune_auc": auc,
    }
    lines = [
        f"Kept: epoch {kept} of {epochs}, AUC {auc:.3f} on the tune split (where the operating point is chosen)",
        f"Adapter: {run.adapter_path} ({size / 1000:,.0f} kB)",
        RESEARCH_USE_ONLY,
        "",
        f"Next: medlora evaluate {quoted(run.folder)}",
    ]
    show(lines, values, as_json)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _blocks(text: str | None) -> str | list[int] | None:
    """A fraction as it is, or block numbers."""
    if text is None or "/" in text:
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--last {text!r} is neither a fraction such as 1/3 nor block numbers") from None

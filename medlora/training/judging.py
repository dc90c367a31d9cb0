"""Predictions of an adapter on a cohort, and their report: the way from a run to its figures."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medlora import evaluation, files
from medlora.errors import MedloraError
from medlora.evaluation import Evaluation, ReportContext
from medlora.training.cases import TrainingCases, is_phantom, where
from medlora.training.predictor import Predictor, adapter_folder, predict_scans

if TYPE_CHECKING:
    from medlora.cohorts import Cohort
    from medlora.training.run import Run

# Columns of the cohort that may be told as subgroups in the report.
_COVARIATES = (
    "site",
    "PatientSex",
    "PatientAge",
    "Manufacturer",
    "ViewPosition",
    "ConvolutionKernel",
    "SliceThickness",
    "diameter",
)


def evaluate_run(run: Run, split: str, *, weights: str | Path | None, device: str, overwrite: bool) -> Evaluation:
    """What :meth:`Run.evaluate` does."""
    folder = run.folder / "evaluation" / split
    if not overwrite:
        files.refuse_existing(folder, f"the evaluation of the split {split}")
    config = run.config
    cases = TrainingCases(run.cases, list(config.data.classes or ()))
    if not cases.of(split):
        there = ", ".join(cases.counts())
        raise MedloraError(f"the run {run.folder} has no cases of the split {split!r}", f"choose one of: {there}")
    if weights is None and config.model.weights not in (None, "random"):
        weights = config.model.weights
    models = {"adapter": Predictor.load(run.adapter_path, weights, device)}
    if run.probe_path is not None:
        models["linear probe"] = Predictor.load(run.probe_path, weights, device)
    cohort = run.cohort()
    tables, plain = _tables(models, cohort, cases, split, f"predicting the {split} scans")
    context = _context(models["adapter"], run.adapter_path, cohort, tables, plain)
    context = replace(
        context,
        title=f"{cases.task.title}: the {split} split",
        subtitle=_subtitle(models["adapter"].info),
        training_curve=[{str(k): v for k, v in row.items()} for row in run.history.to_dict("records")],
        flow=_flow(cohort, cases),
        same_data_warning=_chosen_here(split),
    )
    judged = evaluation.evaluate(
        tables["adapter"],
        threshold=models["adapter"].operating_point,
        covariates=_covariates(cases.table[cases.table["split"] == split]),
    )
    for name, table in tables.items():
        suffix = "" if name == "adapter" else ".probe"
        target = run.folder / "predictions" / f"{split}{suffix}.csv"
        files.write_text(target, table.to_csv(index=False, lineterminator="\n"))
    judged.write(folder, context, overwrite=overwrite)
    return judged


def evaluate_adapter(
    adapter: str | Path,
    cohort: Cohort,
    output: str | Path,
    *,
    split: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Evaluation:
    """Judge an adapter on the labelled cases of a cohort of another place or time.

    Args:
        adapter: the folder of an adapter, or of the run that holds it.
        cohort: whose labels are among the adapter's classes; or that has some of its findings.
        output: the folder to be made: ``predictions.csv`` beside the report.
        split: only this split; none for all labelled cases.
        weights: the backbone's weights file, where the adapter was trained on one.
        device: cpu, cuda, mps or auto.
        overwrite: replace what ``output`` holds.

    Raises:
        MedloraError: no adapter, no labels, labels that the adapter does not know or of another kind, or an output
            that exists.
    """
    if not overwrite:
        files.refuse_existing(output, "the evaluation")
    model = Predictor.load(adapter, weights, device)
    table = cohort.table[cohort.labelling.known()]
    if split is not None:
        table = table[table["split"] == split]
    if len(table):
        table = model.task.answerable(table)
    table = table.reset_index(drop=True)
    if table.empty:
        raise MedloraError("the cohort has no labelled cases to evaluate on", "run medlora check with --labels")
    cases = TrainingCases(table.assign(split="all"), model.classes)
    tables, plain = _tables({"adapter": model}, cohort, cases, "all", "predicting the scans")
    overlap = _seen(adapter, table)
    context = replace(
        _context(model, adapter_folder(adapter), cohort, tables, plain),
        title=f"{model.task.title}: evaluation on another cohort",
        subtitle=_subtitle(model.info),
        flow=_flow(cohort, cases),
        same_data_warning=overlap,
    )
    judged = evaluation.evaluate(tables["adapter"], threshold=model.operating_point, covariates=_covariates(table))
    if isinstance(overlap, str):
        judged = replace(judged, notes=(overlap, *judged.notes))
    judged.write(output, context, overwrite=overwrite)
    files.write_text(Path(output) / "predictions.csv", tables["adapter"].to_csv(index=False, lineterminator="\n"))
    return judged


def _tables(
    models: dict[str, Predictor], cohort: Cohort, cases: TrainingCases, split: str, what: str
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Predictions by model; and the first model's before calibration."""
    rows = cases.rows(split)
    logits = predict_scans(list(models.values()), cohort.scan, cases.of(split), what)
    tables = {name: model.table(rows, part) for (name, model), part in zip(models.items(), logits, strict=True)}
    first = next(iter(models.values()))
    return tables, replace(first, calibration=first.calibration.neutral()).table(rows, logits[0])


def _context(
    model: Predictor, adapter: Path, cohort: Cohort, tables: dict[str, pd.DataFrame], plain: pd.DataFrame
) -> ReportContext:
    phantom = bool(model.info.get("phantom")) or is_phantom(cohort.table)
    return ReportContext(
        data_note="phantom" if phantom else None,
        baselines={name: table for name, table in tables.items() if name != "adapter"},
        thumbnails=_thumbnails(model, cohort, tables["adapter"]),
        sizes=_sizes(model, adapter),
        source_check=_source_check(cohort, model.task.judged),
        warnings=cohort.warnings,
        provenance=_provenance(model),
        uncalibrated=plain,
    )


def _sizes(model: Predictor, adapter: Path) -> dict[str, int]:
    """Bytes of the adapter's tensors and of the backbone's, and how many parameters were trained of how many."""
    training = model.info["training"]
    sizes = {
        "adapter_bytes": (adapter / "adapter_model.safetensors").stat().st_size,
        "backbone_bytes": sum(t.numel() * t.element_size() for t in model.model.state_dict().values()),
    }
    counted = ("trainable_parameters", "total_parameters")
    return sizes | {name: training[name] for name in counted if name in training}


def _provenance(model: Predictor) -> dict[str, str]:
    """What the answers were made with, as far as the adapter says it; a linear probe has no epochs."""
    info = model.info
    training, backbone = info["training"], info["backbone"]
    rows = {
        "backbone": f"{backbone['name']} ({backbone['source']})",
        "licence of the backbone": backbone["licence"],
        "backbone trained on": backbone["trained_on"],
        "fingerprint of the backbone": info["base"]["fingerprint"],
        "preparation": f"{model.preset.name}, {model.preset.size} × {model.preset.size} pixels",
        "seed": str(backbone["seed"]),
        "calibration": model.calibration.describe(),
        "operating point": model.operating_point.describe(),
    }
    if "uncertain_as" in info["task"]:
        rows["uncertain findings, in training"] = f"taken as {info['task']['uncertain_as']}"
    if "epochs" in training:
        rows["epochs"] = f"{training['epochs']}, kept is epoch {training['kept_epoch']}"
    return rows


def _thumbnails(model: Predictor, cohort: Cohort, table: pd.DataFrame) -> Callable[[str], bytes]:
    """case_id → PNG of the prepared image, 8 bit, as the backbone sees it."""
    shown = cohort.table[cohort.table["case_id"].isin(table["case_id"])]
    of_case = dict(zip(shown["case_id"], where(shown), strict=True))
    prepare = replace(model.preset, size=min(model.preset.size, 192)).preparation()

    @cache  # a case may be among the worst of several findings
    def png(case_id: str) -> bytes:
        from PIL import Image

        scan_id, centre = of_case[case_id]
        image = prepare(cohort.scan(scan_id), centre)[0].numpy()
        out = io.BytesIO()
        Image.fromarray((image * 255).round().astype(np.uint8)).save(out, format="PNG")
        return out.getvalue()

    return png


def _source_check(cohort: Cohort, judged: list[str]) -> list[dict[str, Any]]:
    """What the source of the images alone reaches, for the classes that are judged."""
    return [row for row in cohort.info.get("source_check") or [] if row["class"] in judged]


def _flow(cohort: Cohort, cases: TrainingCases) -> dict[str, Any]:
    left_out = cohort.excluded.groupby("code").size()
    excluded = {str(code): int(count) for code, count in left_out.items()}
    # What was left out are scans; where cases are places, several may lie in one scan.
    places = bool((cohort.table["case_id"] != cohort.table["scan_id"]).any())
    found, used = (table["scan_id"].nunique() if places else len(table) for table in (cohort.table, cases.table))
    if found > used:
        excluded["other class or split"] = found - used
    return {
        "found": found + int(left_out.sum()),
        "unit": "scans" if places else "",
        "excluded": excluded,
        "splits": cases.counts(),
        "cases": cases.cases(),
    }


def _covariates(table: pd.DataFrame) -> pd.DataFrame:
    chosen = [name for name in _COVARIATES if name in table and table[name].astype(str).str.len().gt(0).any()]
    return table[["case_id", *chosen]].reset_index(drop=True)


def _subtitle(info: dict[str, Any]) -> str:
    method = info.get("method", {})
    name = method.get("method", method) if isinstance(method, dict) else method
    rank = f", rank {method['rank']}" if isinstance(method, dict) and "rank" in method else ""
    return f"{name} adapter{rank} on {info['backbone']['name']}"


def _chosen_here(split: str) -> bool | str:
    if split == "tune":
        return (
            "The operating point and the calibration (and the epoch, if the best is kept) were chosen on these cases."
        )
    if split == "train":
        return "The adapter was trained on these very cases: these figures say nothing about new patients."
    return False


def _seen(adapter: str | Path, table: pd.DataFrame) -> bool | str:
    """A sentence where the run that holds the adapter was trained or tuned on some of these scans."""
    folder = Path(adapter)
    listed = next((p / "cohort.csv" for p in (folder, folder.parent) if (p / "STATUS").is_file()), None)
    if listed is None or not listed.is_file():
        return False
    used = pd.read_csv(listed, dtype=str, keep_default_na=False)
    shared = set(used.loc[used["split"].isin(["train", "tune"]), "scan_id"]) & set(table["scan_id"])
    if not shared:
        return False
    return f"{len(shared)} of these {len(table)} scans were used to train or tune the adapter: figures are optimistic."

"""Several methods on the same cases with the same budget: does low-rank adaptation suit this task?"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medlora import evaluation, files
from medlora.cohorts.labelling import Findings, labelling
from medlora.cohorts.splits import deal
from medlora.errors import MedloraError
from medlora.progress import say
from medlora.training.advice import Against, advice
from medlora.training.peak import peak_mb

if TYPE_CHECKING:
    from medlora.cohorts import Cohort

COLUMNS = (
    "method", "seed", "fold", "class", "auc", "low", "high", "trainable", "bytes", "seconds_per_epoch", "peak_mb",
)  # fmt: skip
_RESAMPLES = 2000
_LEVEL = 0.95
_PEAK = "peak.json"  # in a run that is trained and judged


@dataclass(frozen=True)
class Row:
    """A method over all seeds and folds.

    Attributes:
        method: its name.
        auc: mean of the AUCs over seeds and folds; of several classes their mean, each against the rest.
        low, high: 95 % interval, patients resampled.
        against: differences of this method's AUC to that of others, by their names.
        trainable, bytes: trained values, and size of the adapter's file.
        seconds_per_epoch, peak_mb: means over the runs; the peak is that of the whole process.
    """

    method: str
    auc: float
    low: float
    high: float
    against: dict[str, Against]
    trainable: int
    bytes: int
    seconds_per_epoch: float
    peak_mb: float


@dataclass(frozen=True)
class MethodComparison:
    """What :func:`compare_methods` found.

    Attributes:
        folder: where it lies: compare.csv, compare.html, and the runs.
        table: a row for each method, seed, fold and class, in the columns of compare.csv.
        rows: a row for each method, the best AUC first.
        advice: what to do, by the rule of :mod:`medlora.training.advice`.
        phantom: whether the scans are phantoms.
    """

    folder: Path
    table: pd.DataFrame
    rows: list[Row]
    advice: list[str]
    phantom: bool

    def __str__(self) -> str:
        lines = [f"{'method':<10}{'AUC':>7}  {'95 % interval':<16}{'trained':>12}{'kB':>9}{'s/epoch':>9}{'peak MB':>9}"]
        lines += [
            f"{r.method:<10}{r.auc:>7.3f}  {f'{r.low:.3f} to {r.high:.3f}':<16}{r.trainable:>12,}"
            f"{r.bytes / 1000:>9,.0f}{r.seconds_per_epoch:>9.1f}{r.peak_mb:>9,.0f}"
            for r in self.rows
        ]
        return "\n".join([*lines, *self.advice])


def compare_methods(
    cohort: Cohort | str | Path,
    output: str | Path,
    methods: Sequence[str] = ("lora", "dora", "ssf", "bitfit", "probe", "full"),
    seeds: int = 3,
    folds: int | None = None,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
) -> MethodComparison:
    """Train each method for each seed and fold, and judge all on the same cases.

    The budget rule: every method gets the same cases, epochs, batch size, augmentation, start of the head and way of
    keeping an epoch; the learning rate is the method's own default unless one is given.

    Args:
        cohort: a cohort's folder, or a cohort that has been saved.
        output: the folder to be made.
        methods: names as ``train`` takes them.
        seeds: how many, from 0 on.
        folds: patient-disjoint folds over the whole cohort, each the test once; none: the cohort's own splits.
        settings: by dotted name, for every run.
        resume: keep the runs that are there already.

    Raises:
        MedloraError: a method is unknown or named twice, the cohort cannot be trained on, or the output exists.
    """
    from medlora.cohorts import Cohort
    from medlora.training.comparison_page import page

    place = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    if place is None:
        raise MedloraError(
            "the cohort has not been saved, and runs read it from its folder", "cohort.save(FOLDER) first"
        )
    _check(methods, seeds, folds)
    folder = Path(output)
    if not (resume and (folder / "runs").is_dir()):
        files.refuse_existing(folder, "the comparison")
    Cohort.load(place)  # an unfit one is refused before the first process starts
    say(f"the comparison is written to {folder}")
    base = {"data.cache": str((folder / "cache").resolve()), "train.timing": False, "evaluation.probe": False}
    work = [(method, seed, fold) for method in methods for seed in range(seeds) for fold in range(folds or 1)]
    for method in methods:  # a process for each, so that its peak of memory is its own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for index, job in enumerate(work):
                if job[0] == method:
                    say(
                        f"run {index + 1} of {len(work)}: {method}, seed {job[1]}"
                        + (f", fold {job[2]}" if folds else "")
                    )
                    own = {**base, **(settings or {}), "adapter.method": method, "train.seed": job[1]}
                    run = folder / "runs" / f"{method}-seed{job[1]}-fold{job[2]}"
                    pool.submit(_run, place, run, own, job[2] if folds else None, folds).result()
    return _judged(folder, work, page)


def _check(methods: Sequence[str], seeds: int, folds: int | None) -> None:
    from medlora.training.methods import METHODS

    for name in methods:
        if name not in METHODS:
            raise MedloraError(f"unknown method {name!r}", f"choose among: {', '.join(METHODS)}")
    if len(set(methods)) < len(methods) or len(methods) < 2:
        raise MedloraError("a comparison needs two methods or more, each named once", "correct --methods")
    if seeds < 1 or (folds is not None and folds < 2):
        raise MedloraError(
            f"seeds={seeds}, folds={folds} make no comparison", "give one seed or more, two folds or more"
        )


def _run(cohort: Path, folder: Path, settings: dict[str, Any], fold: int | None, folds: int | None) -> None:
    """Train and test once, in a process of the method's own."""
    from medlora.cohorts import Cohort
    from medlora.training import train

    chosen = Cohort.load(cohort)
    if fold is not None and folds is not None:
        chosen = with_fold(chosen, fold, folds)
    run = train(chosen, folder, settings=settings, resume=files.holds_something(folder))
    if not (folder / _PEAK).is_file():
        peak = peak_mb(run.config.train.device)
        run.evaluate("test", overwrite=True)
        files.write_json(folder / _PEAK, {"peak_mb": peak})


def with_fold(cohort: Cohort, fold: int, folds: int) -> Cohort:
    """The cohort with one of ``folds`` patient-disjoint folds as its test split and a fifth of the rest as tune split.

    Stratified by label or finding; the same on every machine, since patients are numbered in the order of their scans.
    """
    table = cohort.table[cohort.labelling.known()].sort_values("case_id", ignore_index=True)
    dealt = _dealt if isinstance(cohort.labelling, Findings) else _folded
    cohort.table = table.assign(split=dealt(table, fold, folds))
    return cohort


def _dealt(table: pd.DataFrame, fold: int, folds: int) -> np.ndarray:
    """The split of each case by iterative stratification, where cases have several findings."""

    def parts(cases: pd.DataFrame, wanted: dict[str, float]) -> np.ndarray:
        dealt = deal(list(cases["scan_id"]), list(cases["patient"]), labelling(cases).strata(), wanted)
        return np.array(dealt, dtype=str)

    test = parts(table, {str(number): 1 / folds for number in range(folds)}) == str(fold)
    split = np.full(len(table), "test", dtype=object)
    split[~test] = parts(table[~test], {"train": 0.8, "tune": 0.2})
    return split


def _folded(table: pd.DataFrame, fold: int, folds: int) -> np.ndarray:
    """The split of each case by scikit-learn's stratification, where it has one label."""
    from sklearn.model_selection import StratifiedGroupKFold

    patients, labels = pd.factorize(table["patient"])[0], table["label"].to_numpy()
    if min(pd.Series(patients).groupby(labels).nunique()) < folds:
        raise MedloraError(
            f"a class has fewer patients than the {folds} folds", "lower --folds, or leave the class out"
        )
    outer = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    rest, test = list(outer.split(labels, labels, patients))[fold]
    inner = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels[rest], labels[rest], patients[rest])
    split = np.full(len(table), "train", dtype=object)
    split[test] = "test"
    split[rest[next(inner)[1]]] = "tune"
    return split


def _judged(folder: Path, work: list[tuple[str, int, int]], page: Any) -> MethodComparison:
    from medlora.training.run import Run

    rows, predictions, phantom = [], {}, False
    for job in work:
        method, seed, fold = job
        run = Run.load(folder / "runs" / f"{method}-seed{seed}-fold{fold}")
        words = dict.fromkeys(("case_id", "scan_id", "patient", "y"), str)
        predictions[job] = table = pd.read_csv(run.folder / "predictions" / "test.csv", dtype=words)
        info = run.info
        phantom |= bool(info.get("phantom"))
        cost = {
            "trainable": info["training"]["trainable_parameters"],
            "bytes": (run.adapter_path / "adapter_model.safetensors").stat().st_size,
            "seconds_per_epoch": float(run.history["seconds"].iloc[-1]) / len(run.history),
            "peak_mb": json.loads((run.folder / _PEAK).read_text(encoding="utf-8"))["peak_mb"] or math.nan,
        }
        for name in _judged_classes(table):
            y, score, known = _asked(table, name)
            if len(set(y)) < 2:
                raise MedloraError(
                    f"the test split of {run.folder.name} has no case where {name!r} is known to be "
                    f"{'absent' if y.any() else 'present'}",
                    "leave the finding out (--set data.classes=[…]), or compare with fewer --folds",
                )
            found = evaluation.auc(y, score, table["patient"].to_numpy()[known])
            rows.append(
                {"method": method, "seed": seed, "fold": fold, "class": name, "auc": found.value, "low": found.low,
                 "high": found.high, **cost}
            )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    files.write_text(folder / "compare.csv", table.to_csv(index=False, lineterminator="\n"))
    summary = _summary(table, predictions)
    result = MethodComparison(folder, table, summary, advice(summary), phantom)
    files.write_text(folder / "compare.html", page(result))
    return result


def _judged_classes(table: pd.DataFrame) -> list[str]:
    """The classes whose AUC is given: the positive one of two, else each against the rest; of findings all."""
    names = [str(column)[2:] for column in table.columns if str(column).startswith("p_")]
    return names[-1:] if len(names) == 2 and "y" in table else names


def _asked(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether positive, and the score, of the cases whose truth is known, both (n,); and which these are, (N,)."""
    y = (table["y"] == name).astype(float) if "y" in table else table[f"y_{name}"]
    known = y.notna().to_numpy()
    return y.to_numpy()[known] == 1, table[f"p_{name}"].to_numpy()[known], known


def _summary(table: pd.DataFrame, predictions: dict[tuple[str, int, int], pd.DataFrame]) -> list[Row]:
    methods = list(dict.fromkeys(table["method"]))
    resampled = {
        method: np.mean(
            [_resampled(found, fold) for (name, _, fold), found in predictions.items() if name == method], axis=0
        )
        for method in methods
    }  # (1 + resamples,): the figure itself first
    rows = []
    for method in methods:
        own, mean = resampled[method], table[table["method"] == method].mean(numeric_only=True)
        low, high = np.nanquantile(own[1:], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        against = {}
        for other in methods:
            if other != method:
                difference = own - resampled[other]
                ends = np.nanquantile(difference[1:], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
                against[other] = Against(float(difference[0]), float(ends[0]), float(ends[1]))
        rows.append(
            Row(method, float(own[0]), float(low), float(high), against, int(mean["trainable"]), int(mean["bytes"]),
                float(mean["seconds_per_epoch"]), float(mean["peak_mb"]))
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row.auc)


def _resampled(table: pd.DataFrame, fold: int) -> np.ndarray:
    """Mean AUC of the judged classes, (1 + resamples,): on the cases as they are, then with patients resampled.

    The patients drawn depend on the fold alone, so that methods and seeds are compared on the same ones.
    """
    codes, patients = pd.factorize(table["patient"], sort=True)
    random = np.random.default_rng((0, fold))
    times = random.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), _RESAMPLES)
    weights = np.vstack([np.ones(len(table)), times[:, codes]])
    areas = []
    for name in _judged_classes(table):
        y, score, known = _asked(table, name)
        areas.append(weighted_auc(y, score, weights[:, known]))
    return np.mean(areas, axis=0)


def weighted_auc(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve with case ``i`` counted ``weights[:, i]`` times; ties count half.

    Args:
        y: whether positive, (N,).
        score: (N,).
        weights: (R, N), not negative.

    Returns:
        (R,); NaN where one of the classes has no weight.
    """
    order = np.argsort(score, kind="stable")
    _, group = np.unique(score[order], return_inverse=True)
    y, weights = y[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    positive = np.add.reduceat(weights * y, starts, axis=1)
    negative = np.add.reduceat(weights * ~y, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))

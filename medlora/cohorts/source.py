"""How well the source of an image alone tells the classes apart: the trap that a model falls into first.

A label often follows the hospital, the scanner or the way of exporting (Zech et al. 2018, doi
10.1371/journal.pmed.1002683; DeGrave et al. 2021, doi 10.1038/s42256-021-00338-7). Here a small classifier sees the
acquisition tags only, or the outermost 3 % of the image, where there is next to no anatomy, or the year of the study,
or the site. What it reaches is the part of a model's AUC that may be owed to the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from medlora.cohorts import signs
from medlora.cohorts.folder import is_acquisition
from medlora.cohorts.labelling import Question, labelling
from medlora.cohorts.telling import FOLDS, Told, folds_of, holm, tell
from medlora.progress import say

if TYPE_CHECKING:
    from medlora.cohorts.pixels import Pixels
    from medlora.scans import ScanFiles

WARN_ABOVE = 0.6
CHANCE = 0.05  # that any sentence is said of a cohort whose labels follow no source
MOST_CASES = 4000  # more would not make the interval narrower in a way that matters
DRAWS = 1000, 10000  # permutations of a test: at least, and at most where there are many tests
NOT_ACQUISITION = ("PatientSex", "PatientAge")
"""Header fields that say who the patient is, not how the image was made: no part of the check."""
SOURCES = {
    "acquisition": ("the acquisition tags", "they are the same in all cases"),
    "border": ("the border of the image", "it is the same in all cases, or no image has 32 × 32 pixels"),
    "year": ("the year of the study", "it is the same in all cases, or no file tells it"),
    "site": ("the site", "it is the same in all cases, or not known"),
}
"""What is seen, in words, and why it may not be asked."""
_NAMES = {"border": "the outer 3 % of the image"}

Result = dict[str, Any]


def sources_of(
    table: pd.DataFrame,
    scans: Sequence[ScanFiles],
    pixels: Mapping[str, Pixels],
    together: Sequence[Sequence[str]] = (),
) -> tuple[list[Result], list[str]]:
    """`check_sources` for all that the labels of a cohort's table ask: classes against the rest, or each finding.

    Args:
        table: of the cohort.
        scans: its scans; the year of their studies is used and goes nowhere, only an AUC does.
        pixels: scan_id → what was read of its pixels.
        together: groups of patients who share an image, which must not be on both sides of a fold.
    """
    group = {patient: min(patients) for patients in together for patient in patients}
    tags = [name for name in table.columns if is_acquisition(name) and name not in NOT_ACQUISITION]
    year = {scan.scan_id: year_of(scan.identity.study_date) for scan in scans}
    say("checking whether the source of the images tells the classes apart")
    return check_sources(
        list(table["scan_id"]),
        [group.get(patient, patient) for patient in table["patient"]],
        labelling(table).questions(),
        table[tags],
        [pixels[scan_id].small for scan_id in table["scan_id"]],
        [year[scan_id] for scan_id in table["scan_id"]],
        list(table["site"]),
    )


def check_sources(
    scan_ids: Sequence[str],
    patients: Sequence[str],
    questions: Sequence[Question],
    acquisition: pd.DataFrame,
    small: Sequence[np.ndarray | None],
    years: Sequence[float] | None = None,
    sites: Sequence[str] | None = None,
) -> tuple[list[Result], list[str]]:
    """The AUC that each source alone reaches for each class against the rest, and whether that may be chance.

    Scores come from patient-wise, stratified cross-validation; only scores of one fold are compared with each other
    (see `medlora.cohorts.telling`). An AUC above `WARN_ABOVE` is tested by a permutation of the labels among patients;
    the p values are corrected by Holm's method for all tests of the cohort.

    Args:
        scan_ids: one per case.
        patients: the patient of each case, or the name of a group of patients who belong together.
        questions: see `Labelling.questions`.
        acquisition: one row per case, one column per tag; text or numbers, missing values allowed.
        small: one 32 × 32 image in 0..1 per case, or None.
        years: of each case's study, NaN where it is not known.
        sites: of each case, empty where it is not known.

    Returns:
        One dict per class and source, with ``class``, ``from`` (a key of `SOURCES`), ``auc``, ``low``, ``high``,
        ``p`` (corrected; None where the AUC is not above `WARN_ABOVE`), ``tests`` (how many it was corrected for),
        ``method``, ``n_pos``, ``n_neg``; and a sentence for all that could not be asked.
    """
    fields = {
        "acquisition": acquisition.reset_index(drop=True),
        "year": pd.DataFrame({"year": years if years is not None else [np.nan] * len(scan_ids)}),
        "site": pd.DataFrame({"site": sites if sites is not None else [""] * len(scan_ids)}),
    }
    order = sorted(range(len(scan_ids)), key=lambda i: hashlib.sha256(scan_ids[i].encode()).digest())
    most = len(SOURCES) * sum(len(set(labels)) for _, labels, _ in questions)
    draws = min(max(DRAWS[0], round(2 * most / CHANCE)), DRAWS[1]) - 1  # enough for the least p that Holm asks for
    results: list[Result] = []
    tests: list[tuple[Told, list[Result]]] = []
    unasked: dict[str, list[str]] = {name: [] for name in SOURCES}
    lines = []
    for known, labels, told in questions:
        rows = [row for row in order if known[row]][:MOST_CASES]
        # numbered as they come: the names are salted and must not matter
        group = pd.factorize(np.asarray(patients, dtype=object)[rows])[0]
        label = np.asarray(labels, dtype=object)[rows]
        classes = sorted(set(label))
        if len(classes) < 2:
            lines.append(f"{' and '.join(map(repr, told))}: all cases where it is known are alike")
            continue
        folds = {}
        for name in told[:1] if len(classes) == 2 else told:  # of two classes both have the same AUC
            if (fold := folds_of(label == name, group)) is not None:
                folds[name] = fold
                continue
            n, rest = (len(set(group[side])) for side in (label == name, label != name))
            lines.append(f"{name!r}: {n} of the patients have it, {rest} do not, and {FOLDS} of each are needed")
        if not folds:
            continue
        seen = {source: signs.of_fields(part.iloc[rows]) for source, part in fields.items()}
        seen["border"] = signs.of_borders([small[row] for row in rows])
        for source in SOURCES:
            if not seen[source].size:
                unasked[source] += told
                continue
            for name, fold in folds.items():
                with threadpool_limits(1):  # the data are small: threads would spend their time waiting for each other
                    found = tell(seen[source], label == name, group, fold, draws, WARN_ABOVE)
                new = [_result(found, source, of, label) for of in (told if len(classes) == 2 else [name])]
                results += new
                tests.append((found, new))
    for p, (_, new) in zip(holm([found.p for found, _ in tests]), tests, strict=True):
        for result in new:
            result |= {"p": p, "tests": len(tests)}
    everything = sum(len(told) for _, _, told in questions)
    for source, (what, why) in SOURCES.items():
        if unasked[source]:
            of = "" if len(unasked[source]) == everything else f" for {', '.join(map(repr, unasked[source]))}"
            lines.append(f"{what}{of}: {why}")
    return results, lines


def source_warnings(results: Sequence[Result]) -> list[str]:
    """One sentence for each class that its source alone tells from the rest, better than chance does."""
    said = set()
    lines = []
    for result in results:
        p = result.get("p")  # not in cohorts of older versions, which went by the interval
        if result["auc"] <= WARN_ABOVE or (result["low"] <= 0.5 if p is None else p >= CHANCE):
            continue
        key = (result["from"], result["auc"], result["low"], result["high"])
        if key in said:  # the other one of two classes
            continue
        said.add(key)
        chance = (
            ""
            if p is None
            else f" ({p_value(p)}, corrected for {result['tests']} test{'s' if result['tests'] > 1 else ''})"
        )
        lines.append(
            f"{result['class']!r} is partly told by its source: {SOURCES[result['from']][0]} alone "
            f"reach{'' if result['from'] == 'acquisition' else 'es'} AUC {result['auc']:.2f} "
            f"[{result['low']:.2f}, {result['high']:.2f}] against the rest{chance}, and a model may use that, too"
        )
    return lines


def p_value(p: float) -> str:
    """A p value as journals print it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def year_of(date: str) -> float:
    """The year of a date as DICOM writes it; NaN where there is none."""
    return float(date[:4]) if date[:4].isascii() and date[:4].isdigit() and len(date) >= 4 else np.nan


def _result(found: Told, source: str, name: str, label: np.ndarray) -> Result:
    n = int((label == name).sum())
    method = (
        f"ridge regression on {_NAMES.get(source, SOURCES[source][0])}, {FOLDS}-fold cross-validation by patient, "
        "95 % jackknife interval over patients"
    )
    return {
        "class": name, "from": source, "auc": found.auc, "low": found.low, "high": found.high, "method": method,
        "n_pos": n, "n_neg": len(label) - n,
    }  # fmt: skip

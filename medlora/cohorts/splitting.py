"""The splits of a new cohort: those that the user's column names, else drawn ones; or why there can be none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medlora.cohorts.findings import with_findings
from medlora.cohorts.labelling import FINDING
from medlora.cohorts.rows import Rows
from medlora.cohorts.splits import deal
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.cohorts.cohort import Cohort

TUNE = 0.25
"""The part of the patients of a column's train that becomes tune, where the column has none."""


def with_splits(cohort: Cohort, rows: Rows, seed: int, fractions: Sequence[float] | None) -> Cohort:
    """``cohort`` with its splits, and what is to be said of them.

    Args:
        cohort: a new one, whose table has the splits of the user's column, if there is one.
        rows: what the table of labels says.
        seed: of the draw.
        fractions: of cases in ``train``, ``tune`` and ``test``; None for no drawn splits.

    Raises:
        MedloraError: the column leaves cases out, or there are too few patients or labels for splits.
    """
    if any(case.split for case in rows.cases):
        _complete(cohort, seed, fractions is not None)
    elif asked := cohort.info["asked"]["split_column"]:
        raise MedloraError(
            f"the column {asked!r} (--split-column) gives no case a split", "fill it in, or leave it out"
        )
    elif rows.cases and fractions is not None:
        if rows.findings:
            _told(cohort, fractions[0] > 0)
        elif len(cohort.classes) < 2 and fractions[0] > 0:
            raise MedloraError(
                f"all {len(cohort)} labelled scans have the same label, {cohort.classes[0]!r}",
                "two classes at least are needed; check the label column (--label-column)",
            )
        return cohort.split(seed, fractions)
    return with_findings(cohort)


def _complete(cohort: Cohort, seed: int, draw: bool) -> None:
    """See that each case has a split, and draw from the column's train what it lacks, where it can be drawn: most
    public data sets come in two parts, and a threshold chosen on the second would flatter it."""
    splits = cohort.table["split"]
    if (without := splits == "").any():
        raise MedloraError(
            f"{int(without.sum())} labelled scans have no split in the split column",
            "fill the column in for every labelled row, or leave --split-column out",
        )
    cohort.info["split"] = {"by": "column"}
    train = splits == "train"
    if (splits == "tune").any() or not train.any() or not draw:
        return
    groups, strata = cohort._groups(), cohort.labelling.strata()
    at = [number for number, inside in enumerate(train) if inside]
    try:
        drawn = deal(
            [cohort.table["scan_id"].iloc[i] for i in at], [groups[i] for i in at], [strata[i] for i in at],
            {"train": 1 - TUNE, "tune": TUNE}, seed,
        )  # fmt: skip
    except MedloraError as error:
        cohort.info["split"]["no_tune"] = error.what
        return
    cohort.table.loc[train, "split"] = drawn
    cohort.info["split"] |= {"tune_from_train": TUNE, "seed": seed}


def _told(cohort: Cohort, both: bool) -> None:
    """Refuse findings that nothing can be learnt of."""
    for name in cohort.classes:
        known = cohort.table[FINDING + name].dropna()
        if known.empty or (both and known.nunique() < 2):
            raise MedloraError(
                f"the finding {name!r} is unknown in all {len(cohort)} cases"
                if known.empty
                else f"the finding {name!r} is {'present' if known.iloc[0] else 'absent'} in all {len(known)} cases "
                "where it is known",
                "cases with and without it are needed; leave it out of --label-column",
            )

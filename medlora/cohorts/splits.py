"""Splits by patient, stratified by label or finding: the same for the same scans and seed, in whatever order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from medlora.errors import MedloraError

SPLITS = ("train", "tune", "test")
_NAMES = {
    "train": "train", "training": "train", "trn": "train",
    "tune": "tune", "val": "tune", "valid": "tune", "validate": "tune", "validation": "tune", "dev": "tune",
    "tuning": "tune",
    "test": "test", "testing": "test", "holdout": "test", "tst": "test",
}  # fmt: skip


def split_name(cell: str) -> str | None:
    """The split that a user's word means (``"Validation"`` is ``"tune"``), or None where it means none."""
    return _NAMES.get(cell.strip().casefold().replace("-", "").replace("_", ""))


def split_patients(
    scan_ids: Sequence[str],
    patients: Sequence[Hashable],
    labels: Sequence[str | tuple[str, ...]],
    seed: int = 0,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
) -> list[str]:
    """Assign every case to ``train``, ``tune`` or ``test`` so that no patient is in two of them.

    Args:
        scan_ids: one per case, in any order.
        patients: the patient of each case.
        labels: the label of each case, or all that it counts as (of each finding, whether it is present or absent).
        seed: of the draw.
        fractions: of the cases that ``train``, ``tune`` and ``test`` shall hold; they sum to 1.

    Returns:
        The split of each case, in the order given.

    Raises:
        MedloraError: the fractions are no fractions, or a class has fewer patients than there are splits.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise MedloraError(
            f"the fractions {tuple(fractions)} of train, tune and test are not three parts of 1",
            "give three numbers of at least 0 that sum to 1, e.g. 0.6, 0.2, 0.2",
        )
    wanted = {split: fraction for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0}
    return deal(scan_ids, patients, labels, wanted, seed)


def deal(
    scan_ids: Sequence[str],
    patients: Sequence[Hashable],
    labels: Sequence[str | tuple[str, ...]],
    wanted: Mapping[str, float],
    seed: int = 0,
) -> list[str]:
    """Deal patients out to parts of given sizes, each with its share of every label.

    Iterative stratification (Sechidis et al., ECML PKDD 2011, doi 10.1007/978-3-642-23808-6_10) with the patient as
    the unit: the class with the fewest patients is dealt first; each of its patients, in an order drawn by ``seed``
    (but those who alone hold more than 5 % of a class before all others), goes where most cases of that class are still
    wanted. A patient with several labels counts in each of them. No part is left without a class while there is a
    patient to give it. The draw depends on ``seed`` and on scan identifiers alone, not on the order of the rows nor on
    the cohort's salt.

    Args:
        scan_ids, patients, labels, seed: see `split_patients`.
        wanted: part → its share of the cases; they sum to 1.

    Returns:
        The part of each case, in the order given.

    Raises:
        MedloraError: a class has fewer patients than there are parts, or cannot be in all of them.
    """
    strata = [(label,) if isinstance(label, str) else label for label in labels]
    cases: dict[Hashable, Counter[str]] = {}
    first: dict[Hashable, str] = {}
    for scan_id, patient, stratum in zip(scan_ids, patients, strata, strict=True):
        cases.setdefault(patient, Counter()).update(stratum)
        first[patient] = min(first.get(patient, scan_id), scan_id)
    _enough(cases, wanted)

    total = Counter(label for stratum in strata for label in stratum)
    lack = {split: {label: part * n for label, n in total.items()} for split, part in wanted.items()}
    covered: dict[str, set[str]] = {label: set() for label in total}
    drawn = {
        patient: (
            all(n <= 0.05 * total[label] for label, n in counts.items()),
            hashlib.sha256(f"{seed}:{first[patient]}".encode()).digest(),
        )
        for patient, counts in cases.items()
    }
    left = set(cases)
    assigned: dict[Hashable, str] = {}
    while left:
        holders = Counter(label for patient in left for label in cases[patient])
        label = min(holders, key=lambda name: (holders[name], name))
        queue = sorted((patient for patient in left if label in cases[patient]), key=drawn.__getitem__)
        for turn, patient in enumerate(queue):
            without = [split for split in wanted if split not in covered[label]]
            choice = without if len(without) >= len(queue) - turn else list(wanted)
            split = max(choice, key=lambda name: (lack[name][label], sum(lack[name].values())))
            assigned[patient] = split
            for name, n in cases[patient].items():
                lack[split][name] -= n
                covered[name].add(split)
        left.difference_update(queue)
    for label, splits in covered.items():
        missing = [split for split in wanted if split not in splits]
        if missing:
            raise MedloraError(
                f"no patient of the class {label!r} could be put into {' or '.join(missing)}: "
                "too many of its patients also have another, rarer label",
                "add patients, merge classes, or give the splits in a column of the CSV (--split-column)",
            )
    return [assigned[patient] for patient in patients]


def _enough(cases: Mapping[Hashable, Counter[str]], wanted: Mapping[str, float]) -> None:
    holders = Counter(label for counts in cases.values() for label in counts)
    few = [f"{label!r} has {n}" for label, n in sorted(holders.items()) if n < len(wanted)]
    if few:
        raise MedloraError(
            f"too few patients for {len(wanted)} splits, each of which needs a patient of every class: "
            + "; ".join(few[:5])
            + (f"; and {len(few) - 5} more" if len(few) > 5 else ""),
            "add patients, leave the class out, or give the splits in a column of the CSV (--split-column)",
        )

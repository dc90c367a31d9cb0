from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from medlora.cohorts.splits import split_name, split_patients
from medlora.errors import MedloraError


def cohort(seed: int, n: int = 300) -> list[tuple[str, str, str]]:
    """Scans of ``n`` patients, one to six each, with a class of a tenth and some patients of two classes."""
    rng = random.Random(seed)
    rows = []
    for patient in range(n):
        label = rng.choices(["normal", "pneumonia", "covid"], [45, 45, 10])[0]
        for number in range(rng.choice([1, 1, 1, 2, 3, 6])):
            other = "normal" if rng.random() < 0.05 else label
            rows.append((f"{rng.getrandbits(64):016x}", f"p{patient}", other if number else label))
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_no_patient_is_torn_and_classes_keep_their_shares(seed):
    scan_ids, patients, labels = zip(*cohort(seed), strict=True)
    splits = split_patients(scan_ids, patients, labels, seed=seed)
    where = defaultdict(set)
    for patient, split in zip(patients, splits, strict=True):
        where[patient].add(split)
    assert all(len(found) == 1 for found in where.values())
    n = Counter(labels)
    for (label, split), cases in Counter(zip(labels, splits, strict=True)).items():
        wanted = n[label] * (0.6 if split == "train" else 0.2)
        assert abs(cases - wanted) <= max(6, 0.06 * n[label]), (label, split, cases, wanted)


def test_the_order_of_rows_and_the_names_of_patients_do_not_matter():
    rows = cohort(1)
    first = dict(zip([r[0] for r in rows], split_patients(*zip(*rows, strict=True), seed=3), strict=True))
    random.Random(0).shuffle(rows)
    renamed = [(scan, f"salted {hash(patient)}", label) for scan, patient, label in rows]
    again = dict(zip([r[0] for r in rows], split_patients(*zip(*renamed, strict=True), seed=3), strict=True))
    assert first == again


def test_another_seed_is_another_draw():
    rows = list(zip(*cohort(1), strict=True))
    draws = {tuple(split_patients(*rows, seed=seed)) for seed in range(5)}
    assert len(draws) == 5


def test_patients_with_several_scans_go_anywhere():
    """The splits are alike not only in cases but also in how many scans their patients have."""
    mean = defaultdict(list)
    for seed in range(20):
        scan_ids, patients, labels = zip(*cohort(5), strict=True)
        scans, of = Counter(patients), {}
        for patient, split in zip(patients, split_patients(scan_ids, patients, labels, seed=seed), strict=True):
            of[patient] = split
        for split in ("train", "tune", "test"):
            sizes = [scans[patient] for patient in of if of[patient] == split]
            mean[split].append(sum(sizes) / len(sizes))
    overall = sum(scans.values()) / len(scans)
    for sizes in mean.values():
        assert abs(sum(sizes) / len(sizes) - overall) < 0.1 * overall


@pytest.mark.parametrize("n", [3, 4, 5, 7])
@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_every_class_however_few(n, seed):
    rows = [(f"{seed}-{label}-{i}", f"{label}{i}", label) for label in "ab" for i in range(n)]
    rows += [(f"more {i}", "a0", "a") for i in range(20)]  # one patient with most of the scans
    splits = split_patients(*zip(*rows, strict=True), seed=seed)
    there = {(label, split) for (_, _, label), split in zip(rows, splits, strict=True)}
    assert there == {(label, split) for label in "ab" for split in ("train", "tune", "test")}


def test_too_few_patients_are_named():
    rows = [("s1", "p1", "a"), ("s2", "p1", "a"), ("s3", "p2", "a"), *((f"t{i}", f"q{i}", "b") for i in range(9))]
    with pytest.raises(MedloraError, match="'a' has 2"):
        split_patients(*zip(*rows, strict=True))
    assert set(split_patients(*zip(*rows, strict=True), fractions=(0.5, 0, 0.5))) == {"train", "test"}


@pytest.mark.parametrize("fractions", [(0.6, 0.2), (0.6, 0.3, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_are_none(fractions):
    with pytest.raises(MedloraError, match="not three parts of 1"):
        split_patients(["s"], ["p"], ["a"], fractions=fractions)


def test_words_for_splits():
    assert [split_name(word) for word in ("Train", "validation", "VAL", "hold-out", "test ", "x")] == [
        "train", "tune", "tune", "test", "test", None,
    ]  # fmt: skip

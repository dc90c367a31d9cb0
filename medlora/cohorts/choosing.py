"""Choosing one scan of each study, folder or row: which scans of an archive a rule of selection is for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medlora.cohorts.selection import UNSETTLED, Selection, by_study
from medlora.errors import MedloraError
from medlora.progress import say

if TYPE_CHECKING:
    from medlora.cohorts.joined import Join
    from medlora.cohorts.left_out import Excluded
    from medlora.scans import ScanFiles


def choose_for(
    scans: Sequence[ScanFiles], joined: Join | None, rule: Selection | None
) -> tuple[list[ScanFiles], list[tuple[ScanFiles, str]], Selection | None]:
    """One scan of each study, where rows are about studies, patients or folders, or a rule was given.

    Args:
        scans: of any number of studies.
        joined: what rows are about.
        rule: the user's, which is for all scans; else the default one, for those that a row has several of.

    Returns:
        The chosen, the others with the reason, and the rule; None where nothing was to be chosen.
    """
    apart = {} if joined is None else {scan_id: tuple(rows) for scan_id, rows in joined.scans.items()}
    if joined is not None and not joined.whole_study and joined.of_folders:
        folders = [set(scan_ids) for scan_ids in joined.of_folders]
        among = set().union(*folders)
        others = [scan for scan in scans if scan.scan_id not in among]
        if rule is not None:
            folders.append({scan.scan_id for scan in others})
        rule = rule or Selection.default([scan for scan in scans if scan.scan_id in among])
        if rule is not None:
            by_id = {scan.scan_id: scan for scan in scans}
            parts = [rule.choose([by_id[s] for s in sorted(folder) if s in by_id], apart) for folder in folders]
            looked = among if len(parts) == len(joined.of_folders) else {scan.scan_id for scan in scans}
            taken = {scan.scan_id for chosen, _ in parts for scan in chosen}
            reasons = {scan.scan_id: (scan, why) for _, rest in parts for scan, why in rest}
            kept = [scan for scan in scans if scan.scan_id not in looked or scan.scan_id in taken]
            return kept, [other for scan_id, other in sorted(reasons.items()) if scan_id not in taken], rule
    elif rule is not None or (joined is not None and joined.whole_study):
        rule = rule or Selection.default(scans)
        if rule is not None:
            return *rule.choose(scans, apart), rule
    return list(scans), [], None


def selected(
    scans: list[ScanFiles], select: str | None, joined: Join | None, excluded: Excluded
) -> tuple[list[ScanFiles], str | None, int]:
    """One scan of each study, by the user's rule or, where labels are of studies or patients, by the default one.

    Returns:
        The scans, the rule, and of how many rows no scan meets it.
    """
    chosen, others, rule = choose_for(scans, joined, None if select is None else Selection.parse(select))
    if rule is None:
        of_row = Counter(row for scan in scans for row in (joined.scans.get(scan.scan_id, ()) if joined else ()))
        several = sum(n > 1 for n in of_row.values())
        if several:
            say(f"{several} rows are about several scans each, and all of them are taken; --select picks among them")
        return scans, None, 0
    for scan, reason in others:
        excluded.add(scan.scan_id, "NotSelected", reason, scan.paths)
    if not chosen:
        reasons = Counter(reason for _, reason in others)
        meets = "can be chosen by" if any(reason.startswith(UNSETTLED) for reason in reasons) else "meets"
        raise MedloraError(
            f"no scan {meets} the rule {str(rule)!r}: "
            + "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3)),
            "give another rule with --select",
        )
    if others:
        say(f"{len(chosen)} scans were selected by the rule {str(rule)!r}; {len(others)} others are in excluded.csv")
    of = {} if joined is None else joined.scans
    kept = {row for scan in chosen for row in of.get(scan.scan_id, ())}
    unsettled = {scan.scan_id for scan, reason in others if reason.startswith(UNSETTLED)}
    lost = {row for scan, _ in others if scan.scan_id not in unsettled for row in of.get(scan.scan_id, ())}
    lost -= kept | {row for scan_id in unsettled for row in of.get(scan_id, ())}
    return chosen, str(rule), len(lost)


def of_several(chosen: Sequence[ScanFiles], joined: Join) -> tuple[int, int]:
    """How many rows are about several studies each (a scan that belongs to none counts as one), and about how many of
    the chosen scans these are."""
    study = {scan.scan_id: number for number, group in enumerate(by_study(chosen).values()) for scan in group}
    studies: dict[int, set[int]] = defaultdict(set)
    for scan_id in joined.scans.keys() & study.keys():
        for row in joined.scans[scan_id]:
            studies[row].add(study[scan_id])
    several = {row for row, found in studies.items() if len(found) > 1}
    return len(several), sum(not several.isdisjoint(joined.scans.get(scan.scan_id, ())) for scan in chosen)

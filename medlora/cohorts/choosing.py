"""Choosing one scan of each study, folder or row: which scans of an archive a rule of selection is for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medlora.cohorts.criteria import is_localizer, listed, plane_of
from medlora.cohorts.selection import FLAT, PREFERRED, UNSETTLED, Selection, by_study
from medlora.errors import MedloraError
from medlora.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from medlora.cohorts.joined import Join
    from medlora.cohorts.left_out import Excluded
    from medlora.scans import ScanFiles


DECISIVE = (
    "ConvolutionKernel", "ScanningSequence", "EchoTime", "RepetitionTime", "InversionTime", "DiffusionBValue",
    "ContrastBolusAgent", "BodyPartExamined",
)  # fmt: skip
"""Header fields in which scans of one study are other images of the same body, or of parts of it that overlap."""


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
    apart = _apart(joined)
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


def _without_scouts(scans: Sequence[ScanFiles], joined: Join) -> tuple[list[ScanFiles], list[tuple[ScanFiles, str]]]:
    """Of the scans of each row that names one series or file, those that are no localizer where another is none."""
    by_id = {scan.scan_id: scan for scan in scans}
    of_row: dict[int, list[ScanFiles]] = defaultdict(list)
    for scan_id, rows in joined.scans.items():
        for row in rows:
            if scan_id in by_id:
                of_row[row].append(by_id[scan_id])
    scouts = {
        scan.scan_id
        for found in of_row.values()
        for scan in found
        if is_localizer(scan) and not all(map(is_localizer, found))
    }
    reason = "it is a localizer within the series that the row is about"
    return (
        [scan for scan in scans if scan.scan_id not in scouts],
        [(scan, reason) for scan in scans if scan.scan_id in scouts],
    )


@dataclass(frozen=True)
class Choice:
    """What came of it.

    Attributes:
        scans: the chosen ones, or all where nothing was to be chosen.
        rule: by which; None where by none.
        rows_lost: of how many rows no scan meets it.
        undecided: header field → studies of which one scan was taken though others differ in it, and no word decided.
    """

    scans: list[ScanFiles]
    rule: str | None = None
    rows_lost: int = 0
    undecided: dict[str, int] = field(default_factory=dict)


def selected(scans: list[ScanFiles], select: str | None, joined: Join | None, excluded: Excluded) -> Choice:
    """One scan of each study, by the user's rule or, where labels are of studies or patients, by the default one."""
    chosen, others, rule = choose_for(scans, joined, None if select is None else Selection.parse(select))
    if rule is None and joined is not None:
        chosen, others = _without_scouts(chosen, joined)
    for scan, reason in others:
        excluded.add(scan.scan_id, "NotSelected", reason, scan.paths)
    if rule is None:
        return Choice(chosen)
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
    return Choice(chosen, str(rule), len(lost), _undecided(chosen, others, joined))


def _undecided(
    chosen: Sequence[ScanFiles], others: Sequence[tuple[ScanFiles, str]], joined: Join | None
) -> dict[str, int]:
    """How many of the chosen scans differ from another one that the rule would have taken as well, by header field."""
    counts = Counter[str]()
    taken = {scan.scan_id for scan in chosen}
    met = [*chosen, *(scan for scan, reason in others if reason == PREFERRED)]
    for group in by_study(met, _apart(joined)).values():
        best = [scan for scan in group if scan.scan_id in taken]
        if len(best) == 1 and len(group) > 1:
            counts.update(
                name
                for name in DECISIVE
                if any(listed(scan.header.get(name)) != listed(best[0].header.get(name)) for scan in group)
            )
            if best[0].modality not in FLAT and len({plane_of(scan) for scan in group if not is_localizer(scan)}) > 1:
                counts["plane"] += 1
    return dict(counts)


def _apart(joined: Join | None) -> dict[str, tuple[int, ...]]:
    """scan_id → the rows about it: one scan is never taken instead of another one of other rows."""
    return {} if joined is None else {scan_id: tuple(rows) for scan_id, rows in joined.scans.items()}


def of_many(chosen: Sequence[ScanFiles], joined: Join) -> tuple[int, list[str]]:
    """How many rows, each of one file, folder or series, give their label to several of the chosen scans; and how files
    of these are called in most of the folders, which names the image and the mask beside it, but no patient."""
    files: dict[int, list[Path]] = defaultdict(list)
    for scan in chosen:
        for row in joined.scans.get(scan.scan_id, ()):
            files[row].append(scan.paths[0])
    several = [paths for paths in files.values() if len(paths) > 1]
    places = {path.parent for paths in several for path in paths}
    held = Counter(path.name for path in {path for paths in several for path in paths})
    usual = [name for name, n in held.items() if 2 * n > len(places) > 2] if not joined.whole_study else []
    return len(several), sorted(usual)[:5]


def of_several(chosen: Sequence[ScanFiles], joined: Join) -> tuple[int, int]:
    """How many rows are about several studies each, and about how many of the chosen scans these are; of scans that
    belong to no study `of_many` tells."""
    placed = [scan for scan in chosen if scan.identity.study_uid]
    study = {scan.scan_id: number for number, group in enumerate(by_study(placed).values()) for scan in group}
    studies: dict[int, set[int]] = defaultdict(set)
    for scan_id in joined.scans.keys() & study.keys():
        for row in joined.scans[scan_id]:
            studies[row].add(study[scan_id])
    several = {row for row, found in studies.items() if len(found) > 1}
    return len(several), sum(not several.isdisjoint(joined.scans.get(scan.scan_id, ())) for scan in chosen)

"""Paths of a table that begin before the archive does: whether the folders that they name besides are the archive's."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Set

from medlora.cohorts.splits import split_name


def of_other_folders(paths: Mapping[str, str], there: Set[str], archive: str) -> tuple[set[str], set[str]]:
    """The paths that end in one of the archive's, behind the name of a folder that is not, or may not be, the archive.

    An archive may have been moved, renamed, or put together from several folders. But where some paths name the archive
    as it is called, those that do not are not about it: ``NORMAL/2.png`` and ``PNEUMONIA/2.png``, of an archive
    ``NORMAL``. Nor is what lies in ``test`` about an archive ``train``. And where paths of two folders lead to one
    file, it is the folders that tell files apart, and none of them is known to be the archive.

    Args:
        paths: of the table, by its values; with forward slashes.
        there: the archive's files and folders, written as ``paths`` are.
        archive: its own path, absolute.

    Returns:
        The values that are not about the archive, and those of which that is not known.
    """
    own = archive.split("/")
    before: dict[str, list[str]] = {}
    leads_to: dict[str, str] = {}
    for value, path in paths.items():
        parts = path.split("/")
        first = next((k for k in range(len(parts)) if "/".join(parts[k:]) in there), 0)
        if first:
            before[value], leads_to[value] = parts[:first], "/".join(parts[first:])
    alike = {value: _agreeing(folders, own) for value, folders in before.items()}
    strangers = {value for value in before if alike[value] < len(before[value])}
    most, split = max(alike.values(), default=0), split_name(own[-1])
    others = {value for value in strangers if alike[value] < most}
    if split is not None:
        others |= {value for value in strangers if split_name(before[value][-1]) not in (None, split)}
    strangers -= others
    folders_of: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for value in strangers:
        folders_of[leads_to[value]].add(tuple(before[value]))
    return others, strangers if any(len(folders) > 1 for folders in folders_of.values()) else set()


def _agreeing(before: list[str], own: list[str]) -> int:
    """In how many folders the two agree, from the last one on."""
    pairs = zip(reversed(before), reversed(own), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

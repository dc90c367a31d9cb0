"""Matching the paths that a table names to the files of an archive: only where one, and only one, can be meant."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_EXTENSION = re.compile(r"\.(dcm|dicom|ima|nii|nii\.gz|mh[ad]|png|jpe?g)$", re.IGNORECASE)


@dataclass
class PathMatches:
    """Which files of the archive each path of a table means.

    Attributes:
        to: table's path → files, relative to the archive; several where the table names a folder.
        folders: those of the table's paths that name a folder.
        repaired: how a path had to be read → the table's paths so read.
        ambiguous: the table's paths that may mean several files, or share one with another.
    """

    to: dict[str, list[str]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    repaired: dict[str, list[str]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)


def match_paths(
    values: Iterable[str], files: Iterable[str], archive: Path, beside: Path, same: Mapping[str, str] | None = None
) -> PathMatches:
    """Match the paths of a table to the files of an archive.

    In this order, each over what is left: relative to the archive, or to the table's folder, or absolute; a folder
    of the archive, for all files below it; the end of one file's path, or a path that ends in one file's path; the same
    without a file's extension; the same without regard to upper and lower case; the end of a folder's path. Either
    slash is understood. A match is only taken when neither side has a second candidate: of the first two, where the
    archive and the table's folder hold the same, or a folder is called as a file beside it without its extension.

    Args:
        values: the table's paths.
        files: the archive's files, relative to it, with forward slashes.
        archive: its root.
        beside: the folder of the table.
        same: file → what it is a part or a copy of; files of one such are no candidates beside each other.
    """
    files = list(files)
    left = {value: _clean(value) for value in set(values)}
    found = PathMatches()
    exact = {_clean(name): name for name in files}
    folders: dict[str, list[str]] = defaultdict(list)
    for clean, name in exact.items():
        for parent in PurePosixPath(clean).parents:
            folders[str(parent)].append(name)
    folders.pop(".", None)  # all of the archive
    stems = {without_extension(clean) for clean in exact}
    for value, clean in list(left.items()):
        places = {place for place in (clean, _within(archive, beside, clean)) if place in exact or place in folders}
        if not places:
            continue
        del left[value]
        (place, *more) = places
        if more or (place in folders and place in stems):
            found.ambiguous.add(value)
        elif place in exact:
            found.to[value] = [exact[place]]
        else:
            found.to[value] = folders[place]
            found.folders.add(value)
    for how, whole, fold in (
        ("by the end of the path", True, False),
        ("without the file's extension", False, False),
        ("with upper and lower case disregarded", True, True),
        ("with upper and lower case and the file's extension disregarded", False, True),
    ):
        _by_ending(found, how, left, exact, whole, fold, same or {})
    of_folders = PathMatches()
    _by_ending(of_folders, "by the end of a folder's path", left, {name: name for name in folders}, True, False, {})
    found.to |= {value: folders[folder] for value, (folder,) in of_folders.to.items()}
    found.folders |= of_folders.to.keys()
    found.repaired |= of_folders.repaired
    found.ambiguous |= of_folders.ambiguous
    return found


def _by_ending(
    found: PathMatches,
    how: str,
    left: dict[str, str],
    exact: dict[str, str],
    whole: bool,
    fold: bool,
    same: Mapping[str, str],
) -> None:
    """Take the matches of what is ``left`` with the ends of paths, whole or without extension, folded or not."""

    def canonical(path: str) -> str:
        path = path if whole else without_extension(path)
        return path.casefold() if fold else path

    entire: dict[str, list[str]] = defaultdict(list)
    by_end: dict[str, list[str]] = defaultdict(list)
    for clean in exact:
        entire[canonical(clean)].append(clean)
        for end in _ends(canonical(clean)):
            by_end[end].append(clean)
    claims: dict[str, set[str]] = defaultdict(set)
    for value, names in found.to.items():
        for name in names:
            claims[_clean(name)].add(value)
    meant: dict[str, list[str]] = {}
    for value, clean in left.items():
        if not whole and _EXTENSION.search(clean):
            continue
        path = clean.casefold() if fold else clean
        longer = itertools.chain.from_iterable(entire.get(end, ()) for end in _ends(path))
        candidates = {same.get(exact[name], name): name for name in (*longer, *by_end.get(path, ()))}
        meant[value] = list(candidates.values())
        for name in meant[value]:
            claims[name].add(value)
    for value, names in meant.items():
        if len(names) == 1 and len(claims[names[0]]) == 1:
            found.to[value] = [exact[names[0]]]
            found.repaired.setdefault(how, []).append(value)
            del left[value]
        elif names:
            found.ambiguous.add(value)
            del left[value]


def without_extension(path: str) -> str:
    """``path`` without the extension of a kind of file that holds images."""
    return _EXTENSION.sub("", path)


def _ends(path: str) -> Iterator[str]:
    """The path itself, and its ends: of "a/b/c" also "b/c" and "c"."""
    while path:
        yield path
        path = path.partition("/")[2]


def _clean(path: str) -> str:
    path = unicodedata.normalize("NFC", path.strip().strip("'\"")).replace("\\", "/")
    return re.sub(r"/{2,}", "/", re.sub(r"^(\./)+", "", path)).rstrip("/")


def _within(archive: Path, beside: Path, clean: str) -> str | None:
    """``clean``, taken from the table's folder (or absolute), relative to the archive; None where it is outside."""
    full = os.path.normpath(beside.absolute() / clean)  # links stay as they are
    try:
        return _clean(os.path.relpath(full, archive.absolute())) if clean else None
    except ValueError:  # another drive
        return None

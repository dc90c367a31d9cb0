"""Matching the paths that a table names to the files of an archive: only where one, and only one, can be meant."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medlora.cohorts.identifiers import DIGITS, keeps_zeros, shortened
from medlora.cohorts.prefixes import of_other_folders

_EXTENSION = re.compile(r"\.(dcm|dicom|ima|nii|nii\.gz|mh[ad]|png|jpe?g)$", re.IGNORECASE)


@dataclass
class PathMatches:
    """Which files of the archive each path of a table means.

    Attributes:
        to: table's path → files, relative to the archive; several where the table names a folder.
        folders: those of the table's paths that name a folder.
        repaired: how a path had to be read → the table's paths so read.
        ambiguous: the table's paths that may mean several files, or share one with another.
        zeros_lost: those that mean none, numbers without the leading zeros of the name of a file or folder.
        elsewhere: those that mean none, but would if the last of their folders were the archive.
    """

    to: dict[str, list[str]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    repaired: dict[str, list[str]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)
    zeros_lost: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)


def match_paths(
    values: Iterable[str], files: Iterable[str], archive: Path, beside: Path, same: Mapping[str, str] | None = None
) -> PathMatches:
    """Match the paths of a table to the files of an archive.

    In this order, each over what is left: relative to the archive, or to the table's folder, or absolute; a folder
    of the archive, for all files below it; the end of one file's path, or a path that ends in one file's path; then as
    `_FILES` and `_FOLDERS` list it. Either slash is understood. A match is only taken when neither side has a second
    candidate: of the first two, where the archive and the table's folder hold the same, or a folder is called as a file
    beside it without its extension. What a path names besides has to fit, too: see `of_other_folders` for the folders
    before the archive's, `_repeated` for names that tell nothing, and `_damaged` for numbers.

    Args:
        values: the table's paths.
        files: the archive's files, relative to it, with forward slashes.
        archive: its root.
        beside: the folder of the table.
        same: file → what it is a part or a copy of; files of one such are no candidates beside each other.
    """
    files = list(files)
    given = {value: _clean(value) for value in set(values)}
    left = dict(given)
    found = PathMatches()
    exact = {_clean(name): name for name in files}
    folders: dict[str, list[str]] = defaultdict(list)
    for clean, name in exact.items():
        for parent in PurePosixPath(clean).parents:
            folders[str(parent)].append(name)
    folders.pop(".", None)  # all of the archive
    stems = {without_extension(clean) for clean in exact}
    damaged = of_roots = _damaged(given.values(), (name.partition("/")[0] for name in stems))
    for value, clean in given.items():
        places = {place for place in (clean, _within(archive, beside, clean)) if place in exact or place in folders}
        if not places:
            continue
        del left[value]
        (place, *more) = places
        if more or (place in folders and place in stems) or clean in damaged:
            found.ambiguous.add(value)
        elif place in exact:
            found.to[value] = [exact[place]]
        else:
            found.to[value] = folders[place]
            found.folders.add(value)
    there = {*map(_unzipped, exact), *(f"{name.casefold()}." for name in (*stems, *folders))}
    named = {
        value: _unzipped(clean) if _bare(clean) is None else f"{clean.casefold()}." for value, clean in given.items()
    }
    elsewhere, unclear = of_other_folders(named, there, _clean(str(archive.absolute())).casefold())
    damaged = _damaged(given.values(), (name.rpartition("/")[2] for name in (*stems, *folders)))
    for stage in _FILES:
        _by_ending(found, stage, left, exact, same or {}, elsewhere, unclear, damaged)
    of_folders = PathMatches()
    for stage in _FOLDERS:
        _by_ending(of_folders, stage, left, {name: name for name in folders}, {}, elsewhere, unclear, damaged)
    found.to |= {value: folders[folder] for value, (folder,) in of_folders.to.items()}
    found.folders |= of_folders.to.keys()
    found.repaired |= of_folders.repaired
    found.ambiguous |= of_folders.ambiguous
    found.elsewhere = elsewhere & left.keys()
    lost = (of_roots | damaged) - shortened(given.values())
    found.zeros_lost = {value for value, clean in given.items() if clean in lost and value not in found.to}
    return found


def _as_written(path: str) -> str:
    return path


def _folded(path: str) -> str:
    return path.casefold()


def _bare(path: str) -> str | None:
    return None if _EXTENSION.search(path) else path


def _bare_folded(path: str) -> str | None:
    return None if _EXTENSION.search(path) else path.casefold()


def _stem_folded(path: str) -> str:
    return without_extension(path).casefold()


def _unzipped(path: str) -> str:
    return path.casefold().removesuffix(".gz")


def _dicom_stem(path: str) -> str | None:
    stem = re.sub(r"\.(dcm|dicom|ima)$", "", path.casefold())
    return stem if stem != path.casefold() else None


def without_extension(path: str) -> str:
    """``path`` without the extension of a kind of file that holds images."""
    return _EXTENSION.sub("", path)


_Form = Callable[[str], "str | None"]
_FILES: tuple[tuple[str, _Form, _Form], ...] = (
    ("by the end of the path", _as_written, _as_written),
    ("without the file's extension", _bare, without_extension),
    ("with upper and lower case disregarded", _folded, _folded),
    ("with upper and lower case and the file's extension disregarded", _bare_folded, _stem_folded),
    ("with .nii and .nii.gz taken as one", _unzipped, _unzipped),
    ("without the extension that the table gives", _dicom_stem, _bare_folded),
)
"""How a path of the table is read, and what it and the path of a file must then be alike in; None: not looked at."""
_FOLDERS: tuple[tuple[str, _Form, _Form], ...] = (
    ("by the end of a folder's path", _as_written, _as_written),
    ("by the end of a folder's path, with upper and lower case disregarded", _folded, _folded),
)


def _by_ending(
    found: PathMatches,
    stage: tuple[str, _Form, _Form],
    left: dict[str, str],
    exact: Mapping[str, str],
    same: Mapping[str, str],
    elsewhere: Set[str],
    unclear: Set[str],
    damaged: Set[str],
) -> None:
    """Take the matches of what is ``left`` with the ends of paths, where table and archive are read as ``stage`` says.

    A path that is ``elsewhere`` does not end in one of the archive, though it may be the end of one; of one for which
    that is ``unclear``, and of ``damaged`` numbers, no match is taken.
    """
    how, of_table, of_archive = stage
    asked = {value: path for value, clean in left.items() if (path := of_table(clean)) is not None}
    if not asked:
        return
    entire: dict[str, list[str]] = defaultdict(list)
    by_end: dict[str, list[str]] = defaultdict(list)
    for clean in exact:
        path = of_archive(clean)
        if path is not None:
            entire[path].append(clean)
            for end in ends_of(path):
                by_end[end].append(clean)
    claims: dict[str, set[str]] = defaultdict(set)
    for value, names in found.to.items():
        for name in names:
            claims[_clean(name)].add(value)
    meant: dict[str, list[str]] = {}
    for value, path in asked.items():
        longer = () if value in elsewhere else ends_of(path)
        names = [*itertools.chain.from_iterable(entire.get(end, ()) for end in longer), *by_end.get(path, ())]
        meant[value] = list({same.get(exact[name], name): name for name in names}.values())
        for name in meant[value]:
            claims[name].add(value)
    names_alone = {value for value in meant if asked[value] in by_end and asked[value] not in entire}
    several = {value for value in names_alone if len(meant[value]) > 1}
    doubtful = _repeated({asked[value] for value in names_alone - several}, by_end, exact, same)
    if 2 * len(several) > len(names_alone):
        doubtful |= {asked[value] for value in names_alone}
    for value, names in meant.items():
        if not names:
            continue
        clean = left.pop(value)
        doubted = clean in damaged or (asked[value] in doubtful if asked[value] in by_end else value in unclear)
        if len(names) == 1 and len(claims[names[0]]) == 1 and not doubted:
            found.to[value] = [exact[names[0]]]
            found.repaired.setdefault(how, []).append(value)
        else:
            found.ambiguous.add(value)


def _repeated(
    ends: Set[str], by_end: Mapping[str, Sequence[str]], exact: Mapping[str, str], same: Mapping[str, str]
) -> set[str]:
    """Those of the ends of paths that tell nothing: names as they are given again in each folder, numbers aside.

    Where most files called like ``45.png`` have namesakes, as the slices of each patient have, the only 45.png there is
    need not be the one that is meant.
    """
    depths = {end.count("/") for end in ends}
    forms = {_form(end) for end in ends}
    all_of: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for end, names in by_end.items() if ends else ():
        if end.count("/") in depths and (form := _form(end)) in forms:
            n = len({same.get(exact[name], name) for name in names})
            all_of[form] += n
            shared[form] += n if n > 1 else 0
    return {end for end in ends if 2 * shared[_form(end)] > all_of[_form(end)]}


def _form(path: str) -> str:
    return re.sub(r"\d+", "0", path)


def _damaged(values: Iterable[str], names: Iterable[str]) -> set[str]:
    """Those of the bare numbers that may have been another one of the names before a spreadsheet took digits away."""
    numbers = {value for value in values if value.isdecimal()}
    if not numbers:
        return set()
    cut, zeros_lost = shortened(numbers), not keeps_zeros(numbers)

    def left_of(number: str) -> str:
        kept = number.lstrip("0")
        return f"{kept[:DIGITS]}{'0' * (len(kept) - DIGITS)}" if cut else kept

    written: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if name.isdecimal():
            written[left_of(name)].add(name)
    doubted = numbers if zeros_lost else cut
    return {number for number in doubted if written[left_of(number)] - {number}}


def ends_of(path: str) -> Iterator[str]:
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

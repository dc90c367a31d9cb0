"""Pieces of stacks that a counter of the acquisition numbers (rotations of the tube, beds of a PET, packages of slices)
→ passes over the patient, each of which holds a position once."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from medlora.scans.codes import Code, Issue
from medlora.scans.geometry import Array
from medlora.scans.plane import Plane, Volume, by_words, grouped

#: Counters of the acquisition: they rise from rotation to rotation of one volume as well, so a gap may be a loss.
COUNTERS = ("AcquisitionNumber", "TriggerTime")
#: PET: each frame has one for each bed (PS3.3 C.8.9.4.1.5).
REFERENCE = "FrameReferenceTime"


def in_order(planes: Iterable[Plane], counters: Sequence[str]) -> list[list[Plane]]:
    """The pieces that counters tell apart, as they count; those without a number come first."""
    pieces: dict[tuple[float, ...], list[Plane]] = defaultdict(list)
    for plane in planes:
        numbers = (plane.values.get(word) for word in counters)
        pieces[tuple(n if isinstance(n, (int, float)) else -math.inf for n in numbers)].append(plane)
    return [piece for _, piece in sorted(pieces.items(), key=lambda item: item[0])]


def are_pieces(pieces: Sequence[list[Plane]], places: Sequence[set[int]], beds: bool) -> bool:
    """Whether what counters tell apart are no passes by themselves: where they lie beside each other, one step apart;
    or, as beds do, overlap at their ends.

    Args:
        pieces: planes, sorted along the normal.
        places: numbers of the positions that each holds.
        beds: whether they are beds of a PET.
    """
    found = _filled(places, back=False)
    if len(found) < len(places):
        return _are_regular(found, pieces, beds)
    edges = sum(0 < 2 * len(a & b) < min(len(a), len(b)) for a, b in itertools.pairwise(places))
    alike = Counter(map(len, places)).most_common(1)[0][1]
    return beds and edges > 0 and 2 * alike > len(places)


def _are_regular(found: Iterable[Sequence[int]], pieces: Sequence[list[Plane]], beds: bool) -> bool:
    """Whether pieces that were put together lie so by no chance, as shots of biopsies or regions of the body may: most
    follow each other at their own step, or are packages of one grid, and a pass has three, or several have two each."""
    places = [_along(piece) for piece in pieces]
    joints = [
        _belong_together(*ends)
        for numbers in found
        for ends in itertools.pairwise(sorted((places[i] for i in numbers), key=lambda along: float(along[0])))
    ]
    if not joints:
        return beds
    counts = Counter(map(len, found))
    most = max(counts)
    return 2 * sum(joints) > len(joints) and (beds or most > 2 or counts[most] > 1)


def _along(planes: Sequence[Plane]) -> Array:
    """Where planes lie along the normal, in order."""
    directions = planes[0].directions
    assert directions is not None
    return np.sort([float(plane.position @ directions[2]) for plane in planes])


def _belong_together(before: Array, after: Array) -> bool:
    """Whether a piece begins one step behind another; or they reach into each other, and each lies on one grid."""
    gap = after[0] - before[-1]
    if gap > 0:
        step = max(
            ((along[-1] - along[0]) / (len(along) - 1) for along in (before, after) if len(along) > 1), default=gap
        )
        return bool(0.7 * step < gap < 1.4 * step)
    steps = np.diff(np.sort([*before, *after]))
    if (smallest := steps.min()) < 0.01:
        return False
    times = steps / smallest
    return bool(np.all(abs(times - times.round()) < 0.1)) and 2 * int((times.round() == 1).sum()) >= len(times)


def passes(places: Sequence[set[int]], every: set[int]) -> list[list[int]] | None:
    """Pieces put together, in their order, until one lies where another lies already, or the table turns: this begins
    the next pass.

    Where no pass is whole then, pieces may have been repeated at once, and the pass have gone on after them.

    Args:
        places: numbers of the positions that each piece holds, in order.
        every: the numbers that a whole pass holds.

    Returns:
        The numbers of the pieces of each pass; None where no pass is whole, nor all run from one end to the other.
    """
    following, going_on = (_filled(places, back) for back in (False, True))
    if _is_one_whole(following, places, every):
        return following
    if not all(_runs_on(pieces, places) for pieces in following):
        return None
    whole = _is_one_whole(going_on, places, every) and all(_runs_on(pieces, places) for pieces in going_on)
    return going_on if whole and 3 * len(going_on[0]) > 2 * len(places) else following


def _filled(places: Sequence[set[int]], back: bool) -> list[list[int]]:
    """Pieces, each in the last pass if it goes on there, or, going ``back``, in the first that has room."""
    found: list[list[int]] = []
    held: list[set[int]] = []
    for i, where in enumerate(places):
        for k in range(len(found)) if back else range(len(found))[-1:]:
            if not held[k] & where and (back or not _turns([places[j] for j in found[k]], where)):
                found[k].append(i)
                held[k] |= where
                break
        else:
            found.append([i])
            held.append(set(where))
    return found


def _turns(before: Sequence[set[int]], where: set[int]) -> bool:
    """Whether a piece lies behind two that lie side by side, seen in the direction from the first to the last."""
    if len(before) < 2:
        return False
    first, last = before[0], before[-1]
    up, down = max(first) < min(last), max(last) < min(first)
    return (up and max(where) < min(last)) or (down and min(where) > max(last))


def _is_one_whole(found: Iterable[Sequence[int]], places: Sequence[set[int]], every: set[int]) -> bool:
    return any(every <= set().union(*(places[i] for i in pieces)) for pieces in found)


def _runs_on(pieces: Sequence[int], places: Sequence[set[int]]) -> bool:
    starts = [min(places[i]) for i in pieces]
    return starts in (sorted(starts), sorted(starts, reverse=True))


def passes_within(planes: Sequence[Plane], word: str) -> list[list[list[Plane]]]:
    """The pieces of each pass, of planes no two of which lie at one position: pieces that reach into each other are of
    different passes.

    Args:
        planes: sorted along the normal.
        word: the counter.
    """
    index = {id(plane): i for i, plane in enumerate(planes)}
    pieces = in_order(planes, (word,))
    spans = [set(range(index[id(piece[0])], index[id(piece[-1])] + 1)) for piece in pieces]
    alone = [[i] for i in range(len(pieces))]
    found = passes(spans, {0, len(planes) - 1}) or alone
    if not _are_regular(found, pieces, beds=False):
        found = alone
    return [[pieces[i] for i in sorted(numbers, key=lambda i: min(spans[i]))] for numbers in found]


def passes_over(
    slots: Sequence[Sequence[Plane]], kinds: Sequence[str], beds: bool
) -> tuple[tuple[str, ...], list[list[Plane]], list[list[Plane]]] | None:
    """The passes of planes of which several lie at one position.

    Args:
        slots: planes by position.
        kinds: what tells images at one position apart before the counters do.
        beds: whether times of reference count, too.

    Returns:
        The counters, the passes that they make, and the kinds whose positions are all different, whole as they are;
        None where no counter makes passes of the others, or most of its pieces hold but one plane.
    """
    place = {id(plane): i for i, slot in enumerate(slots) for plane in slot}
    groups = list(grouped(itertools.chain(*slots), by_words(tuple(kinds))).values())
    single = [group for group in groups if len({place[id(plane)] for plane in group}) == len(group)]
    several = [group for group in groups if len({place[id(plane)] for plane in group}) < len(group)]
    if min(map(len, groups)) < 2:
        return None
    counters = (*COUNTERS, *((REFERENCE,) if beds else ()))
    for words in (*((word,) for word in counters), counters):
        found: list[list[Plane]] = []
        for group in several:
            pieces = in_order(group, words)
            places = [{place[id(plane)] for plane in piece} for piece in pieces]
            repeated = any(len(where) < len(piece) for where, piece in zip(places, pieces, strict=True))
            if repeated or 2 * sum(len(piece) > 1 for piece in pieces) <= len(pieces):
                break
            together = passes(places, set().union(*places))
            if together is None or not _are_regular(together, pieces, beds):
                break
            joined = (itertools.chain(*(pieces[i] for i in numbers)) for numbers in together)
            found += (sorted(planes, key=lambda plane: place[id(plane)]) for planes in joined)
        else:
            return words, found, single
    return None


def say_joined(
    volumes: Sequence[Volume], words: Sequence[str], directions: Array, beds: bool = False
) -> Sequence[Volume]:
    """Flag the volumes that were put together of pieces by their order, and a piece by itself beside which others go
    on.

    Args:
        volumes: of one series, size, orientation and kind, which lie over each other.
        words: the counters that tell the pieces apart.
        directions: from `geometry.axes`.
        beds: whether the pieces are beds of a PET, which go on with each other even where they overlap.

    Returns:
        The same volumes.
    """
    places = [[float(plane.position @ directions[2]) for plane in volume.planes] for volume in volumes]
    every = np.unique([*itertools.chain(*places)])
    counts = [len(in_order(volume.planes, words)) for volume in volumes]
    for volume, own, count in zip(volumes, places, counts, strict=True):
        if count > 1:
            volume.issues.append(Issue(Code.InferredVolumes, f"{count} pieces, one after the other"))
        elif (beds or max(counts) > 1) and not any(issue.code is Code.MissingSlices for issue in volume.issues):
            step = (max(own) - min(own)) / (len(own) - 1) if len(own) > 1 else math.inf
            beyond = np.maximum(every - max(own), min(own) - every)
            if np.any((beyond > 0.01) & (beyond < 1.5 * step)):
                volume.issues.append(Issue(Code.MissingSlices, "the stack goes on in other volumes"))
    return volumes

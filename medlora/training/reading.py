"""The images that a network reads, made from the scans of cases; several small scans at a time."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch

    from medlora.scans import Scan
    from medlora.training.cases import Where
    from medlora.transforms import Centre, Preset

IN_FLIGHT = 64 * 2**20  # bytes of pixels that are read at a time; a volume, which is larger, is alone
THREADS = 8


def prepared(cases: Iterable[Where], read: Callable[[str], Scan], preset: Preset) -> Iterator[torch.Tensor]:
    """The prepared image of each case; a scan is read once for cases that follow each other, as those of a cohort do.

    Decoding and resampling leave Python's lock, so threads do several scans at a time where these are small.

    Args:
        cases: in the order of the answer.
        read: scan_id → Scan.
        preset: gives the deterministic preparation.

    Raises:
        MedloraError: a scan cannot be read or prepared; it is named.
    """
    prepare = preset.preparation()

    def images_of(scan_id: str, centres: list[Centre | None]) -> tuple[int, list[torch.Tensor]]:
        scan = read(scan_id)
        return scan.array.nbytes, [prepare(scan, centre) for centre in centres]

    groups = [(scan_id, [case.centre for case in group]) for scan_id, group in groupby(cases, lambda c: c.scan_id)]
    if not groups:
        return
    # the first alone: it tells how large scans are, and what is imported late is imported by one thread
    largest, images = images_of(*groups.pop(0))
    yield from images
    waiting: deque[Future[tuple[int, list[torch.Tensor]]]] = deque()
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS), thread_name_prefix="reading")
    try:
        for group in groups:
            if len(waiting) >= _at_a_time(largest):
                size, images = waiting.popleft().result()
                largest = max(largest, size)
                yield from images
            waiting.append(pool.submit(images_of, *group))
        while waiting:
            yield from waiting.popleft().result()[1]
    finally:
        pool.shutdown(cancel_futures=True)


def _at_a_time(largest: int) -> int:
    """How many scans are read at a time, where the largest so far has so many bytes."""
    return max(1, min((os.cpu_count() or 1) + 1, THREADS, IN_FLIGHT // max(largest, 1)))
